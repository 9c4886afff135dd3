//! A virtio device from reset to operation (VIRTIO 1.3, 3.1), one type a stage.

use std::{
    any::Any,
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    DmaArena, Doorbell, Error, ErrorKind, Features, PciFunction, Result, Translation, Virtqueue,
    Width,
    queue::QueueMemory,
    transport::{Transport, status},
};

/// A device that has been reset and offers its features.
pub struct Negotiation {
    transport: Transport,
    function: Arc<dyn PciFunction>,
    offered: Features,
}

impl Negotiation {
    /// Claims the device behind `function` and resets it. `virtio_id` is its type (VIRTIO 1.3,
    /// 5): 2 for a block device.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: the function is no such device.
    /// - [`ErrorKind::Unsupported`]: the device is legacy-only.
    /// - [`ErrorKind::Protocol`], [`ErrorKind::Timeout`], [`ErrorKind::DeviceGone`]: the device
    ///   does not behave as one.
    pub fn begin(function: Arc<dyn PciFunction>, virtio_id: u16) -> Result<Self> {
        let transport = Transport::open(&*function, virtio_id)?;
        transport.reset()?;
        transport.add_status(status::ACKNOWLEDGE)?;
        transport.add_status(status::DRIVER)?;
        let offered = transport.device_features()?;
        Ok(Self {
            transport,
            function,
            offered,
        })
    }

    /// What the device offers.
    pub fn offered(&self) -> Features {
        self.offered
    }

    /// The function's name.
    pub fn name(&self) -> String {
        self.function.name()
    }

    /// Reads the device configuration as one consistent whole: fields of features that are offered
    /// can be read before they are accepted (VIRTIO 1.3, 2.5.3).
    ///
    /// # Errors
    /// As [`ConfiguredDevice::read_config`].
    pub fn read_config<T>(&self, mut read: impl FnMut(&Config<'_>) -> Result<T>) -> Result<T> {
        let config = Config {
            transport: &self.transport,
        };
        self.transport.consistent(|| read(&config))
    }

    /// Accepts those of `wanted` that the device offers, besides what this crate needs for itself,
    /// and gives the device an arena of `arena_len_bytes`.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: the device is not modern, refuses the features, or would
    ///   bypass the IOMMU: without ACCESS_PLATFORM it would take the driver's addresses for
    ///   physical ones and overwrite memory that belongs to others.
    /// - [`ErrorKind::OutOfMemory`] and others of [`PciFunction::map_dma`].
    pub fn accept(self, wanted: Features, arena_len_bytes: usize) -> Result<ConfiguredDevice> {
        let name = self.function.name();
        let refused = |why: &str| Error::new(ErrorKind::Unsupported, format!("{name}: {why}"));
        if !self.offered.contains(Features::VERSION_1) {
            return Err(refused("the device offers no VIRTIO 1.0 or newer"));
        }
        if self.function.translation() == Translation::Iommu
            && !self.offered.contains(Features::ACCESS_PLATFORM)
        {
            return Err(refused(
                "the device bypasses the IOMMU (no ACCESS_PLATFORM) and would access the wrong \
                 memory; add iommu_platform=on to the device in the hypervisor's configuration",
            ));
        }
        let accepted = (wanted | Features::VERSION_1 | Features::ACCESS_PLATFORM) & self.offered;
        self.transport.set_driver_features(accepted)?;
        self.transport.add_status(status::FEATURES_OK)?;
        if self.transport.status()? & status::FEATURES_OK == 0 {
            self.transport.add_status(status::FAILED)?;
            return Err(refused(&format!(
                "the device refused the features {accepted:?} of the offered {:?}",
                self.offered
            )));
        }
        let arena = DmaArena::new(&*self.function, arena_len_bytes)?;
        Ok(ConfiguredDevice {
            core: Arc::new(Core {
                transport: self.transport,
                function: self.function,
                arena,
                features: accepted,
                abandoned: Mutex::default(),
            }),
            queues: Vec::new(),
        })
    }
}

/// What the device, its handle and its queues share; the last of them to go resets the device.
pub(crate) struct Core {
    transport: Transport,
    function: Arc<dyn PciFunction>,
    arena: DmaArena,
    features: Features,
    /// Memory that the device may still use though its owner has gone. Freed by a reset only.
    abandoned: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Core {
    /// Keeps `memory` until the device has been reset.
    pub(crate) fn abandon(&self, memory: Box<dyn Any + Send>) {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(memory);
    }

    #[inline]
    pub(crate) fn arena(&self) -> &DmaArena {
        &self.arena
    }

    pub(crate) fn features(&self) -> Features {
        self.features
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The order matters: only a device that has confirmed its reset has stopped using memory,
        // so the mapping and what is abandoned may go only after that.
        let stopped = self
            .transport
            .reset()
            .and_then(|()| self.function.unmap_dma(self.arena.iova()));
        if let Err(error) = stopped {
            tracing::error!(
                device = self.function.name(),
                error = &error as &dyn std::error::Error,
                "the device could not be stopped; its memory is not freed before the process ends"
            );
            mem::forget(mem::take(
                &mut *self
                    .abandoned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            ));
            mem::forget(self.arena.clone());
            mem::forget(Arc::clone(&self.function));
        }
    }
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The number of descriptors, a power of two; the device's greatest if `None`.
    pub size: Option<u16>,
    /// The MSI-X vector that announces completions; none if `None`: the queue is polled.
    pub vector: Option<u16>,
}

/// A device whose features are settled and whose queues are being set up.
pub struct ConfiguredDevice {
    core: Arc<Core>,
    queues: Vec<(QueueMemory, Box<dyn Doorbell>)>,
}

impl ConfiguredDevice {
    /// The accepted features.
    pub fn features(&self) -> Features {
        self.core.features
    }

    /// The DMA memory that the device reaches.
    pub fn arena(&self) -> &DmaArena {
        &self.core.arena
    }

    /// The number of queues that the device has.
    ///
    /// # Errors
    /// When the device's registers cannot be read.
    pub fn num_queues(&self) -> Result<u16> {
        self.core.transport.num_queues()
    }

    /// The greatest size of queue `index`, 0 if there is no such queue.
    ///
    /// # Errors
    /// When the device's registers cannot be read.
    pub fn queue_size_max(&self, index: u16) -> Result<u16> {
        self.core.transport.queue_size_max(index)
    }

    /// Reads the device configuration as one consistent whole.
    ///
    /// # Errors
    /// What `read` returns, and [`ErrorKind::Protocol`] when the configuration never settles.
    pub fn read_config<T>(&self, read: impl FnMut(&Config<'_>) -> Result<T>) -> Result<T> {
        self.core.read_config(read)
    }

    /// Sets up the next queue: the first call sets up queue 0, and so on.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`]: the size is not one that the device and the ring format
    ///   allow.
    /// - [`ErrorKind::NotFound`]: the device has no further queue.
    /// - [`ErrorKind::OutOfMemory`]: the arena has no room for the rings.
    pub fn add_queue(&mut self, options: QueueOptions) -> Result<()> {
        let index = self.queues.len() as u16;
        let name = self.core.function.name();
        let max = self.queue_size_max(index)?;
        if max == 0 {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{name} has no queue {index}; it has {}", self.num_queues()?),
            ));
        }
        let size = options.size.unwrap_or(1 << max.ilog2());
        if !size.is_power_of_two() || size > max || size < 4 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{name}: queue size {size} is not a power of two within 4 to {max}, the greatest that the device allows"
                ),
            ));
        }
        let memory = QueueMemory::allocate(&self.core.arena, size)?;
        match self
            .core
            .transport
            .enable_queue(index, size, &memory.addresses(), options.vector)
        {
            Ok(doorbell) => {
                self.queues.push((memory, doorbell));
                Ok(())
            }
            Err(error) => {
                // It failed half-way: the device may know the memory.
                self.core.abandon(Box::new(memory));
                Err(error)
            }
        }
    }

    /// Begins operation (DRIVER_OK) and hands out the queues, whose requests carry a context `C`.
    ///
    /// `config_vector` is the MSI-X vector that announces changes of the configuration.
    ///
    /// # Errors
    /// When the device does not take the vector or the status.
    pub fn start<C: Copy + Default>(
        mut self,
        config_vector: Option<u16>,
    ) -> Result<(RunningDevice, Vec<Virtqueue<C>>)> {
        let queues: Vec<_> = mem::take(&mut self.queues)
            .into_iter()
            .zip(0..)
            .map(|((memory, doorbell), index)| {
                Virtqueue::new(Arc::clone(&self.core), memory, index, doorbell)
            })
            .collect();
        self.core.transport.set_config_vector(config_vector)?;
        self.core.transport.add_status(status::DRIVER_OK)?;
        let core = Arc::clone(&self.core);
        Ok((RunningDevice { core }, queues))
    }
}

impl Drop for ConfiguredDevice {
    fn drop(&mut self) {
        // Queues that were enabled but never handed out: the device knows their memory.
        for (memory, _) in self.queues.drain(..) {
            self.core.abandon(Box::new(memory));
        }
    }
}

/// A device in operation.
///
/// When it and all its queues have been dropped the device is reset, and its DMA mapping ends.
pub struct RunningDevice {
    core: Arc<Core>,
}

impl RunningDevice {
    /// The accepted features.
    pub fn features(&self) -> Features {
        self.core.features
    }

    /// The DMA memory that the device reaches.
    pub fn arena(&self) -> &DmaArena {
        &self.core.arena
    }

    /// The function's name.
    pub fn name(&self) -> String {
        self.core.function.name()
    }

    /// Reads the device configuration as one consistent whole.
    ///
    /// # Errors
    /// As [`ConfiguredDevice::read_config`].
    pub fn read_config<T>(&self, read: impl FnMut(&Config<'_>) -> Result<T>) -> Result<T> {
        self.core.read_config(read)
    }

    /// Writes the byte at `offset` of the device configuration, where the device type has fields
    /// that a driver may write.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when the configuration ends before the field.
    pub fn write_config_u8(&self, offset: u64, value: u8) -> Result<()> {
        self.core
            .transport
            .write_config(offset, Width::Byte, value.into())
    }

    /// Whether the device still works.
    ///
    /// # Errors
    /// [`ErrorKind::DeviceGone`] if it has gone or asks to be reset.
    pub fn check_alive(&self) -> Result<()> {
        let status = self.core.transport.status()?;
        let problem = if status == status::GONE {
            "has gone"
        } else if status & status::DEVICE_NEEDS_RESET != 0 {
            "has failed and asks to be reset"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::DeviceGone,
            format!("{} {problem}; close and reopen it", self.name()),
        ))
    }
}

impl fmt::Debug for RunningDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningDevice")
            .field("name", &self.name())
            .field("features", &self.features())
            .finish_non_exhaustive()
    }
}

impl Core {
    fn read_config<T>(&self, mut read: impl FnMut(&Config<'_>) -> Result<T>) -> Result<T> {
        let config = Config {
            transport: &self.transport,
        };
        self.transport.consistent(|| read(&config))
    }
}

/// The fields of the device configuration, read in their natural widths (VIRTIO 1.3, 4.1.3.1).
pub struct Config<'a> {
    transport: &'a Transport,
}

impl Config<'_> {
    /// The length in bytes; fields beyond it do not exist.
    pub fn len_bytes(&self) -> u64 {
        self.transport.config_len()
    }

    /// The byte at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when the configuration ends before the field.
    pub fn u8(&self, offset: u64) -> Result<u8> {
        Ok(self.transport.read_config(offset, Width::Byte)? as u8)
    }

    /// The le16 at `offset`.
    ///
    /// # Errors
    /// As [`u8`](Self::u8).
    pub fn u16(&self, offset: u64) -> Result<u16> {
        Ok(self.transport.read_config(offset, Width::Word)? as u16)
    }

    /// The le32 at `offset`.
    ///
    /// # Errors
    /// As [`u8`](Self::u8).
    pub fn u32(&self, offset: u64) -> Result<u32> {
        self.transport.read_config(offset, Width::Long)
    }

    /// The le64 at `offset`.
    ///
    /// # Errors
    /// As [`u8`](Self::u8).
    pub fn u64(&self, offset: u64) -> Result<u64> {
        Ok(u64::from(self.u32(offset)?) | u64::from(self.u32(offset + 4)?) << 32)
    }
}
