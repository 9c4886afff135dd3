//! Memory of the caller's as memory of the device.

use vfio_virtio::{DmaArena, HostMemory};

use crate::{IoQueue, Result};

impl IoQueue {
    /// Gives the device memory of the caller's, such as a cache that was mapped before, and yields an
    /// arena over it. Buffers of it are taken by all queues of this device, without copies, until
    /// it is closed; [`recover`](Self::recover) leaves it as it is.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) and others when the memory cannot
    /// be mapped for the device or locked.
    pub fn register(&self, memory: HostMemory) -> Result<DmaArena> {
        Ok(self.device().register(memory)?)
    }
}
