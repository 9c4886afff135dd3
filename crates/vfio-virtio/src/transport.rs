//! The registers of a virtio-pci device (VIRTIO 1.3, 4.1.4.3).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Doorbell, Error, ErrorKind, Features, Iova, PciFunction, Result, Width,
    pci::{Region, Structures},
};

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_NOTIF_CONFIG_DATA: u64 = 0x38;
const QUEUE_RESET: u64 = 0x3a;

/// The vector that stands for none.
const NO_VECTOR: u16 = 0xffff;

/// How long a reset may take. Devices finish what they have begun first, which on a slow disk may
/// be seconds.
const RESET_TIME: Duration = Duration::from_secs(10);

/// How often a configuration that changes while it is read is read anew.
const CONFIG_TRIES: usize = 1000;

/// Bits of the device status (VIRTIO 1.3, 2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const DEVICE_NEEDS_RESET: u8 = 64;
    pub(crate) const FAILED: u8 = 128;
    /// What a function that has gone reads as.
    pub(crate) const GONE: u8 = 0xff;
}

/// Where the parts of a queue are, as the device sees them.
pub(crate) struct RingAddresses {
    pub(crate) descriptors: Iova,
    pub(crate) driver: Iova,
    pub(crate) device: Iova,
}

/// How a queue's device is told of new requests (VIRTIO 1.3, 2.9 and 4.1.5.2).
pub(crate) struct Notification {
    doorbell: Box<dyn Doorbell>,
    /// The queue's index, or what the device wants in its place.
    value: u32,
    /// Whether the ring's position goes along.
    carries_position: bool,
}

impl Notification {
    /// Tells the device, whose next request will be put at `position`: for a split ring the
    /// available index, for a packed one the offset with the wrap counter on top.
    #[inline]
    pub(crate) fn send(&self, position: impl FnOnce() -> u16) {
        let mut value = self.value;
        if self.carries_position {
            value |= u32::from(position()) << 16;
        }
        self.doorbell.ring(value);
    }
}

/// Access to the registers.
pub(crate) struct Transport {
    structures: Structures,
}

impl Transport {
    pub(crate) fn open(function: &dyn PciFunction, virtio_id: u16) -> Result<Self> {
        Ok(Self {
            structures: Structures::find(function, virtio_id)?,
        })
    }

    fn read(&self, register: u64, width: Width) -> Result<u32> {
        self.structures.common.read(register, width)
    }

    fn read_word(&self, register: u64) -> Result<u16> {
        Ok(self.read(register, Width::Word)? as u16)
    }

    fn write(&self, register: u64, width: Width, value: u32) -> Result<()> {
        self.structures.common.write(register, width, value)
    }

    /// Resets the device and waits until it says that it is done: only then has it stopped using
    /// memory.
    pub(crate) fn reset(&self) -> Result<()> {
        self.write(DEVICE_STATUS, Width::Byte, 0)?;
        await_reset(|| match self.status()? {
            status::GONE => Err(Error::new(ErrorKind::DeviceGone, "the device has gone")),
            status => Ok(status == 0),
        })
    }

    /// Resets queue `index`, of a device with RING_RESET (VIRTIO 1.3, 2.6.1 and 4.1.4.3.2), and
    /// waits until the device says that it is done.
    pub(crate) fn reset_queue(&self, index: u16) -> Result<()> {
        self.write(QUEUE_SELECT, Width::Word, index.into())?;
        self.write(QUEUE_RESET, Width::Word, 1)?;
        await_reset(|| match self.read_word(QUEUE_RESET)? {
            u16::MAX => Err(Error::new(ErrorKind::DeviceGone, "the device has gone")),
            state => Ok(state == 0),
        })
    }

    pub(crate) fn status(&self) -> Result<u8> {
        Ok(self.read(DEVICE_STATUS, Width::Byte)? as u8)
    }

    pub(crate) fn add_status(&self, bits: u8) -> Result<()> {
        let status = self.status()?;
        self.write(DEVICE_STATUS, Width::Byte, (status | bits).into())
    }

    pub(crate) fn device_features(&self) -> Result<Features> {
        let mut bits = 0;
        for half in 0..2 {
            self.write(DEVICE_FEATURE_SELECT, Width::Long, half)?;
            bits |= u64::from(self.read(DEVICE_FEATURE, Width::Long)?) << (32 * half);
        }
        Ok(Features::from_bits(bits))
    }

    pub(crate) fn set_driver_features(&self, features: Features) -> Result<()> {
        for half in 0..2 {
            self.write(DRIVER_FEATURE_SELECT, Width::Long, half)?;
            let bits = (features.bits() >> (32 * half)) as u32;
            self.write(DRIVER_FEATURE, Width::Long, bits)?;
        }
        Ok(())
    }

    pub(crate) fn num_queues(&self) -> Result<u16> {
        self.read_word(NUM_QUEUES)
    }

    /// The greatest size of queue `index`, 0 if there is no such queue.
    pub(crate) fn queue_size_max(&self, index: u16) -> Result<u16> {
        self.write(QUEUE_SELECT, Width::Word, index.into())?;
        self.read_word(QUEUE_SIZE)
    }

    /// Sets up and enables queue `index` and returns how to notify the device of it.
    pub(crate) fn enable_queue(
        &self,
        index: u16,
        size: u16,
        rings: &RingAddresses,
        vector: Option<u16>,
        features: Features,
    ) -> Result<Notification> {
        self.write(QUEUE_SELECT, Width::Word, index.into())?;
        self.write(QUEUE_SIZE, Width::Word, size.into())?;
        self.write_address(QUEUE_DESC, rings.descriptors)?;
        self.write_address(QUEUE_DRIVER, rings.driver)?;
        self.write_address(QUEUE_DEVICE, rings.device)?;
        self.set_vector(QUEUE_MSIX_VECTOR, vector)?;
        let notification = self.notification(index, features)?;
        self.write(QUEUE_ENABLE, Width::Word, 1)?;
        Ok(notification)
    }

    pub(crate) fn set_config_vector(&self, vector: Option<u16>) -> Result<()> {
        self.set_vector(CONFIG_MSIX_VECTOR, vector)
    }

    /// Maps an event to a vector; the device reads back NO_VECTOR if it could not (VIRTIO 1.3,
    /// 4.1.5.1.2).
    fn set_vector(&self, register: u64, vector: Option<u16>) -> Result<()> {
        self.write(register, Width::Word, vector.unwrap_or(NO_VECTOR).into())?;
        if vector.is_some() && self.read_word(register)? == NO_VECTOR {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the device has no resources for another interrupt vector; use fewer",
            ));
        }
        Ok(())
    }

    /// How to notify the device of the selected queue, `index` (VIRTIO 1.3, 4.1.4.4).
    fn notification(&self, index: u16, features: Features) -> Result<Notification> {
        let notify_off = u64::from(self.read_word(QUEUE_NOTIFY_OFF)?);
        let offset = notify_off * u64::from(self.structures.notify_off_multiplier);
        let carries_position = features.contains(Features::NOTIFICATION_DATA);
        let width = match carries_position {
            true => Width::Long,
            false => Width::Word,
        };
        let value = match features.contains(Features::NOTIF_CONFIG_DATA) {
            true => self.read_word(QUEUE_NOTIF_CONFIG_DATA)?,
            false => index,
        };
        Ok(Notification {
            doorbell: self.structures.notify.doorbell(offset, width)?,
            value: value.into(),
            carries_position,
        })
    }

    fn write_address(&self, register: u64, address: Iova) -> Result<()> {
        self.write(register, Width::Long, address.0 as u32)?;
        self.write(register + 4, Width::Long, (address.0 >> 32) as u32)
    }

    /// The length of the device configuration in bytes.
    pub(crate) fn config_len(&self) -> u64 {
        self.structures
            .device
            .as_ref()
            .map_or(0, |region| region.len_bytes())
    }

    pub(crate) fn read_config(&self, offset: u64, width: Width) -> Result<u32> {
        self.config()?.read(offset, width)
    }

    pub(crate) fn write_config(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        self.config()?.write(offset, width, value)
    }

    fn config(&self) -> Result<&Region> {
        self.structures.device.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Protocol,
                "the device has no device configuration structure",
            )
        })
    }

    /// Runs `read` until the configuration has not changed meanwhile (VIRTIO 1.3, 2.5).
    pub(crate) fn consistent<T>(&self, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..CONFIG_TRIES {
            let before = self.read(CONFIG_GENERATION, Width::Byte)?;
            let value = read()?;
            if self.read(CONFIG_GENERATION, Width::Byte)? == before {
                return Ok(value);
            }
        }
        Err(Error::new(
            ErrorKind::Protocol,
            "the device's configuration changes faster than it can be read",
        ))
    }
}

/// Waits until a reset is done.
fn await_reset(is_done: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_done()? {
        if begun.elapsed() > RESET_TIME {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("the device has not finished its reset after {RESET_TIME:?}"),
            ));
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
