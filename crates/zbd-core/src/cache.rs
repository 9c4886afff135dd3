//! The mode of a device's write cache (VIRTIO 1.3, 5.2.5 and 5.2.6.2).

use std::fmt;

use vfio_virtio::RunningDevice;

use crate::{DeviceInfo, Error, ErrorKind, IoQueue, Result, virtio::WRITEBACK};

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

impl IoQueue {
    /// The present mode of the device's write cache. Asks the device where that can be switched.
    ///
    /// # Errors
    /// When the device's registers cannot be read.
    pub fn write_cache(&self) -> Result<WriteCache> {
        get(self.device(), self.info())
    }

    /// Switches the mode of the device's write cache, for all of its queues.
    ///
    /// A write in flight meanwhile may end in either mode. Writes that were completed in writeback
    /// mode are made durable by a flush only, not by switching to writethrough.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: the cache cannot be switched (no CONFIG_WCE).
    /// - [`ErrorKind::Protocol`]: the device stays in the other mode.
    pub fn set_write_cache(&mut self, mode: WriteCache) -> Result<()> {
        set(self.device(), self.info(), mode)
    }
}

pub(crate) fn get(device: &RunningDevice, info: &DeviceInfo) -> Result<WriteCache> {
    // Without CONFIG_WCE the field says nothing: a device with FLUSH is to be taken for one in
    // writeback mode, one without for writethrough (VIRTIO 1.3, 5.2.5.1).
    let volatile = if info.cache_switchable {
        device.read_config(|config| config.u8(WRITEBACK))? != 0
    } else {
        info.volatile_cache
    };
    Ok(match volatile {
        true => WriteCache::Writeback,
        false => WriteCache::Writethrough,
    })
}

pub(crate) fn set(device: &RunningDevice, info: &DeviceInfo, mode: WriteCache) -> Result<()> {
    if !info.cache_switchable {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the write cache of {} cannot be switched (no CONFIG_WCE); it is in {} mode",
                info.name,
                get(device, info)?
            ),
        ));
    }
    let value = match mode {
        WriteCache::Writeback => 1,
        WriteCache::Writethrough => 0,
    };
    device.write_config_u8(WRITEBACK, value)?;
    if get(device, info)? != mode {
        return Err(Error::new(
            ErrorKind::Protocol,
            format!(
                "{} was told to switch its write cache to {mode} mode and did not; flush what has to be durable",
                info.name
            ),
        ));
    }
    Ok(())
}
