//! The mode of a device's write cache (VIRTIO 1.3, 5.2.5 and 5.2.6.2).

use std::fmt;

use vfio_virtio::RunningDevice;

use crate::{DeviceInfo, Error, ErrorKind, Result, virtio::WRITEBACK};

/// When a completed write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteCache {
    /// After a flush that follows it.
    Writeback,
    /// At once.
    Writethrough,
}

impl fmt::Display for WriteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
        })
    }
}

/// The mode of a device's cache; only a virtio device has one to ask.
pub(crate) fn get(device: Option<&RunningDevice>, info: &DeviceInfo) -> Result<WriteCache> {
    // Without CONFIG_WCE the field says nothing: a device with FLUSH is to be taken for one in
    // writeback mode, one without for writethrough (VIRTIO 1.3, 5.2.5.1).
    let volatile = match device {
        Some(device) if info.cache_switchable => {
            device.read_config(|config| config.u8(WRITEBACK))? != 0
        }
        _ => info.volatile_cache,
    };
    Ok(match volatile {
        true => WriteCache::Writeback,
        false => WriteCache::Writethrough,
    })
}

pub(crate) fn set(
    device: Option<&RunningDevice>,
    info: &DeviceInfo,
    mode: WriteCache,
) -> Result<()> {
    let Some(running) = device.filter(|_| info.cache_switchable) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the write cache of {} cannot be switched (no CONFIG_WCE); it is in {} mode",
                info.name,
                get(device, info)?
            ),
        ));
    };
    let value = match mode {
        WriteCache::Writeback => 1,
        WriteCache::Writethrough => 0,
    };
    running.write_config_u8(WRITEBACK, value).map_err(|error| {
        let error = Error::from(error);
        Error::new(
            error.kind(),
            format!(
                "{} was told to switch its write cache to {mode} mode and did not; flush what has to be durable",
                info.name
            ),
        )
        .with_source(error)
    })
}
