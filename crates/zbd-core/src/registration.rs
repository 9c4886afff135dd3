//! Memory of the caller's as memory of the device.

use std::sync::Arc;

use vfio_virtio::{DmaArena, HostMemory, RunningDevice};

use crate::{DeviceInfo, Driver, Error, ErrorKind, IoQueue, Result, ZonedDevice};

impl IoQueue {
    /// Gives the device memory of the caller's, such as a cache that was mapped before, and yields an
    /// arena over it. Buffers of it are taken by all queues of this device, without copies, until
    /// it is closed; [`recover`](Self::recover) leaves it as it is.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) and others when the memory cannot
    /// be mapped for the device or locked, and [`ErrorKind::Unsupported`] if the kernel drives the
    /// device.
    pub fn register(&self, memory: HostMemory) -> Result<DmaArena> {
        register(self.device().map(Arc::as_ref), self.info(), memory)
    }
}

impl<D: Driver> ZonedDevice<D> {
    /// Lets the device reach memory of the caller's; otherwise as [`IoQueue::register`].
    ///
    /// # Errors
    /// As [`IoQueue::register`].
    pub fn register(&self, memory: HostMemory) -> Result<DmaArena> {
        register(self.running()?.as_deref(), &self.info(), memory)
    }
}

fn register(
    device: Option<&RunningDevice>,
    info: &DeviceInfo,
    memory: HostMemory,
) -> Result<DmaArena> {
    match device {
        Some(device) => Ok(device.register(memory)?),
        None => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is driven by the kernel, which takes buffers of the memory that it was opened with",
                info.name
            ),
        )),
    }
}
