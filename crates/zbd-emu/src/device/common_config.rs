//! The common configuration structure (VIRTIO 1.3 §4.1.4.3).

use vfio_virtio::{Error, ErrorKind, Result, Width};

use super::Device;
use crate::{
    config::Switch,
    interrupts::NO_VECTOR,
    wire::{device_status, feature},
};

/// The length of the structure. It ends with `queue_reset`, padded to a whole double word.
pub(crate) const COMMON_CONFIG_BYTES: u64 = 0x3c;

/// The fields, by offset; 64-bit ones by their halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigMsixVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueMsixVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc(Half),
    QueueDriver(Half),
    QueueDevice(Half),
    QueueNotifConfigData,
    QueueReset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Low,
    High,
}

impl Field {
    /// §4.1.3.1: each field is accessed at its own offset and width, 64-bit ones by halves. A
    /// driver that does anything else is told, so that its mistakes do not stay hidden.
    fn at(offset: u64, width: Width) -> Result<Self> {
        let (field, wanted) = match offset {
            0x00 => (Self::DeviceFeatureSelect, Width::Long),
            0x04 => (Self::DeviceFeature, Width::Long),
            0x08 => (Self::DriverFeatureSelect, Width::Long),
            0x0c => (Self::DriverFeature, Width::Long),
            0x10 => (Self::ConfigMsixVector, Width::Word),
            0x12 => (Self::NumQueues, Width::Word),
            0x14 => (Self::DeviceStatus, Width::Byte),
            0x15 => (Self::ConfigGeneration, Width::Byte),
            0x16 => (Self::QueueSelect, Width::Word),
            0x18 => (Self::QueueSize, Width::Word),
            0x1a => (Self::QueueMsixVector, Width::Word),
            0x1c => (Self::QueueEnable, Width::Word),
            0x1e => (Self::QueueNotifyOff, Width::Word),
            0x20 => (Self::QueueDesc(Half::Low), Width::Long),
            0x24 => (Self::QueueDesc(Half::High), Width::Long),
            0x28 => (Self::QueueDriver(Half::Low), Width::Long),
            0x2c => (Self::QueueDriver(Half::High), Width::Long),
            0x30 => (Self::QueueDevice(Half::Low), Width::Long),
            0x34 => (Self::QueueDevice(Half::High), Width::Long),
            0x38 => (Self::QueueNotifConfigData, Width::Word),
            0x3a => (Self::QueueReset, Width::Word),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("no field of the common configuration begins at {offset:#x}"),
                ));
            }
        };
        if width != wanted {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{field:?} of the common configuration was accessed with {} bytes; it has {}",
                    width as u8, wanted as u8
                ),
            ));
        }
        Ok(field)
    }
}

impl Half {
    fn of(self, value: u64) -> u32 {
        match self {
            Self::Low => value as u32,
            Self::High => (value >> 32) as u32,
        }
    }

    fn set(self, value: &mut u64, half: u32) {
        *value = match self {
            Self::Low => *value & !0xffff_ffff | u64::from(half),
            Self::High => *value & 0xffff_ffff | u64::from(half) << 32,
        };
    }
}

/// What a notification of `queue` says where the device has a say in it (§4.1.5.2): anything but
/// the queue's index, so that the two cannot be confused.
pub(crate) fn notif_config_data(queue: u16) -> u16 {
    0x40 + queue
}

/// Bits `32 * select ..` of a feature set.
fn window(features: u64, select: u32) -> u32 {
    match select {
        0 => Half::Low.of(features),
        1 => Half::High.of(features),
        _ => 0,
    }
}

impl Device {
    pub(crate) fn read_common(&self, offset: u64, width: Width) -> Result<u32> {
        let field = Field::at(offset, width)?;
        let selected = self.queues.get(usize::from(self.queue_select));
        Ok(match field {
            Field::DeviceFeatureSelect => self.device_feature_select,
            Field::DeviceFeature => window(self.config.features, self.device_feature_select),
            Field::DriverFeatureSelect => self.driver_feature_select,
            Field::DriverFeature => window(self.driver_features, self.driver_feature_select),
            Field::ConfigMsixVector => self.interrupts.config_vector.into(),
            Field::NumQueues => self.config.queues.into(),
            Field::DeviceStatus => self.status.into(),
            Field::ConfigGeneration => self.generation.into(),
            Field::QueueSelect => self.queue_select.into(),
            // §4.1.4.3.1: a queue that does not exist has size 0.
            Field::QueueSize => selected.map_or(0, |queue| queue.size.into()),
            Field::QueueMsixVector => selected.map_or(NO_VECTOR, |queue| queue.vector).into(),
            Field::QueueEnable => selected.is_some_and(|queue| queue.ring.is_some()).into(),
            Field::QueueNotifyOff => selected.map_or(0, |_| self.queue_select.into()),
            Field::QueueDesc(half) => selected.map_or(0, |queue| half.of(queue.desc)),
            Field::QueueDriver(half) => selected.map_or(0, |queue| half.of(queue.driver)),
            Field::QueueDevice(half) => selected.map_or(0, |queue| half.of(queue.device)),
            Field::QueueNotifConfigData => {
                match (selected, self.negotiated(feature::NOTIF_CONFIG_DATA)) {
                    (Some(_), Switch::On) => notif_config_data(self.queue_select).into(),
                    _ => 0,
                }
            }
            // Done within the write.
            Field::QueueReset => 0,
        })
    }

    pub(crate) fn write_common(&mut self, offset: u64, width: Width, value: u32) -> Result<()> {
        let field = Field::at(offset, width)?;
        // A device that is being reset hears nothing.
        if self.reset_due.is_some() {
            return Ok(());
        }
        let word = value as u16;
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select = value,
            Field::DriverFeatureSelect => self.driver_feature_select = value,
            Field::DriverFeature => self.accept_features(value),
            Field::ConfigMsixVector => {
                self.interrupts.config_vector = self.interrupts.accept(word);
            }
            Field::DeviceStatus => self.set_status(value as u8),
            Field::QueueSelect => self.queue_select = word,
            // Read-only fields.
            Field::DeviceFeature
            | Field::NumQueues
            | Field::ConfigGeneration
            | Field::QueueNotifyOff
            | Field::QueueNotifConfigData => {}
            _ => self.write_queue(field, value),
        }
        Ok(())
    }

    /// §2.2.1: features are settled once FEATURES_OK is set.
    fn accept_features(&mut self, value: u32) {
        if self.status & device_status::FEATURES_OK != 0 {
            return;
        }
        match self.driver_feature_select {
            0 => Half::Low.set(&mut self.driver_features, value),
            1 => Half::High.set(&mut self.driver_features, value),
            // Feature bits from 64 on do not exist here: accepting one is refused as bit 63 is.
            _ if value != 0 => self.driver_features |= 1 << 63,
            _ => {}
        }
    }

    /// Writes to the registers of the selected queue, which change only while it is disabled.
    fn write_queue(&mut self, field: Field, value: u32) {
        let index = usize::from(self.queue_select);
        let packed = self.negotiated(feature::RING_PACKED) == Switch::On;
        let largest = self.config.queue_size;
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        let word = value as u16;
        if field == Field::QueueReset {
            if word == 1 && self.negotiated(feature::RING_RESET) == Switch::On {
                self.reset_queue(index);
            }
            return;
        }
        if field == Field::QueueMsixVector {
            queue.vector = self.interrupts.accept(word);
            return;
        }
        if queue.ring.is_some() {
            return;
        }
        match field {
            // A size that is not allowed leaves the register as it was.
            Field::QueueSize
                if (1..=largest).contains(&word) && (packed || word.is_power_of_two()) =>
            {
                queue.size = word;
            }
            Field::QueueDesc(half) => half.set(&mut queue.desc, value),
            Field::QueueDriver(half) => half.set(&mut queue.driver, value),
            Field::QueueDevice(half) => half.set(&mut queue.device, value),
            Field::QueueEnable if word == 1 => self.enable_queue(index),
            _ => {}
        }
    }
}
