//! What the driver's handles and the device's thread have in common.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use vfio_virtio::{Error, ErrorKind, Result, Width};

use crate::{
    bell::Bell,
    device::{COMMON_CONFIG_BYTES, Device, blk_config_bytes},
    pci::{
        COMMON_OFFSET, DEVICE_OFFSET, ISR_OFFSET, NOTIFY_MULTIPLIER, NOTIFY_OFFSET,
        REGISTER_BAR_BYTES,
    },
};

/// The device and the ways to get hold of it.
///
/// One lock guards everything. The thread that runs the device keeps it while it works and lets go
/// when it sees that someone waits, so that requests cost no locking and every register access is
/// atomic with respect to them: a reset that returns has stopped the device.
pub(crate) struct Shared {
    device: Mutex<Device>,
    /// How many register accesses wait for the lock.
    waiting: AtomicU32,
    pub(crate) bell: Bell,
    pub(crate) stop: AtomicBool,
}

impl Shared {
    pub(crate) fn new(device: Device) -> Result<Self> {
        Ok(Self {
            bell: Bell::new(device.config.queues)?,
            device: Mutex::new(device),
            waiting: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// The device, for a register access.
    pub(crate) fn access(&self) -> Access<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut device = self.run();
        device.settle();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Access {
            shared: self,
            device,
        }
    }

    /// The device, for whoever runs it.
    pub(crate) fn run(&self) -> MutexGuard<'_, Device> {
        // A panic while the device was held is a bug of this crate that has been reported by then;
        // the state itself is plain data.
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether someone waits for the device.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn read(&self, offset: u64, width: Width) -> Result<u32> {
        check(offset, width)?;
        let mut device = self.access();
        if device.gone || !device.pci.decodes_memory() {
            return Ok(all_ones(width));
        }
        if within(offset, COMMON_OFFSET, COMMON_CONFIG_BYTES) {
            return device.read_common(offset - COMMON_OFFSET, width);
        }
        if within(offset, DEVICE_OFFSET, blk_config_bytes(&device.config)) {
            return Ok(device.read_blk(offset - DEVICE_OFFSET, width));
        }
        if offset == ISR_OFFSET {
            return Ok(device.interrupts.take_isr().into());
        }
        if within(offset, NOTIFY_OFFSET, notify_bytes(&device)) {
            return Ok(0);
        }
        Err(no_register(offset))
    }

    pub(crate) fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        check(offset, width)?;
        let mut device = self.access();
        if device.gone || !device.pci.decodes_memory() {
            return Ok(());
        }
        if within(offset, COMMON_OFFSET, COMMON_CONFIG_BYTES) {
            return device.write_common(offset - COMMON_OFFSET, width, value);
        }
        if within(offset, DEVICE_OFFSET, blk_config_bytes(&device.config)) {
            return device.write_blk(offset - DEVICE_OFFSET, width, value);
        }
        if within(offset, NOTIFY_OFFSET, notify_bytes(&device)) {
            drop(device);
            if let Some(queue) = queue_at(offset) {
                self.bell.ring(queue, width, value);
            }
            return Ok(());
        }
        if offset == ISR_OFFSET {
            return Ok(());
        }
        Err(no_register(offset))
    }
}

/// The device in the hands of a register access. Whoever runs the device looks at it afterwards.
pub(crate) struct Access<'s> {
    shared: &'s Shared,
    device: MutexGuard<'s, Device>,
}

impl Deref for Access<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl DerefMut for Access<'_> {
    fn deref_mut(&mut self) -> &mut Device {
        &mut self.device
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.shared.bell.forget(self.device.take_renewed());
        self.shared.bell.expect(self.device.features());
        // It may be that the device can run now.
        self.shared.bell.wake();
    }
}

/// The queue whose notification address is at `offset`.
pub(crate) fn queue_at(offset: u64) -> Option<u16> {
    let relative = offset.checked_sub(NOTIFY_OFFSET)?;
    let aligned = relative.is_multiple_of(NOTIFY_MULTIPLIER);
    u16::try_from(relative / NOTIFY_MULTIPLIER)
        .ok()
        .filter(|_| aligned)
}

fn notify_bytes(device: &Device) -> u64 {
    NOTIFY_MULTIPLIER * u64::from(device.config.queues)
}

fn within(offset: u64, start: u64, len: u64) -> bool {
    offset >= start && offset - start < len
}

pub(crate) fn all_ones(width: Width) -> u32 {
    match width {
        Width::Byte => u8::MAX.into(),
        Width::Word => u16::MAX.into(),
        Width::Long => u32::MAX,
    }
}

fn check(offset: u64, width: Width) -> Result<()> {
    let len = width as u64;
    if !offset.is_multiple_of(len) || offset > REGISTER_BAR_BYTES - len {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{len} bytes at {offset:#x} are no aligned register of the BAR"),
        ));
    }
    Ok(())
}

fn no_register(offset: u64) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("there is no register at {offset:#x}"),
    )
}
