//! A virtio device from reset to operation (VIRTIO 1.3, 3.1), one type a stage.

use std::{fmt, mem, sync::Arc};

use crate::{
    DmaArena, Error, ErrorKind, Features, HostMemory, PciFunction, Result, Translation, Virtqueue,
    Width,
    queue::Format,
    transport::{Transport, status},
};

mod core;
mod interrupts;
mod watch;

use core::Setup;
use interrupts::Interrupts;
use watch::{Source, Watch};

pub(crate) use core::Core;

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
        Core::settle(&self.transport, &name, self.offered, accepted)?;
        let arena = DmaArena::new(&*self.function, arena_len_bytes)?;
        Ok(ConfiguredDevice {
            core: Arc::new(Core::new(self.transport, self.function, arena, accepted)),
            queues: Vec::new(),
            interrupts: Interrupts::default(),
        })
    }
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The number of descriptors, for a split ring a power of two; the device's greatest if `None`.
    pub size: Option<u16>,
}

/// A device whose features are settled and whose queues are being set up.
pub struct ConfiguredDevice {
    core: Arc<Core>,
    queues: Vec<Setup>,
    interrupts: Interrupts,
}

/// The greatest size of a packed ring (VIRTIO 1.3, 2.8.10.1); a split one has the same.
const QUEUE_SIZE_MAX: u16 = 1 << 15;
/// The least size with which a request of one data segment fits into a ring.
const QUEUE_SIZE_MIN: u16 = 4;

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

    /// Prepares interrupts: one for the configuration, and one for each of the first `queues` queues
    /// to be set up. Where the device has fewer vectors, they share them; where it has none at all,
    /// changes of the configuration are not announced. To be called before queues are set up; a
    /// queue that was not counted has no interrupt and is polled.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: queues are to interrupt and the device has no MSI-X.
    /// - [`ErrorKind::InvalidInput`]: queues have been set up already.
    /// - When the platform refuses.
    pub fn enable_interrupts(&mut self, queues: u16) -> Result<()> {
        if !self.queues.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "interrupts are to be enabled before queues are set up",
            ));
        }
        self.interrupts = Interrupts::set_up(&*self.core.function, queues)?;
        Ok(())
    }

    /// Sets up the next queue: the first call sets up queue 0, and so on.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`]: the size is not one that the device and the ring format
    ///   allow.
    /// - [`ErrorKind::NotFound`]: the device has no further queue.
    /// - [`ErrorKind::OutOfMemory`]: the arena has no room for the rings.
    pub fn add_queue(&mut self, options: QueueOptions) -> Result<()> {
        let index = self.core.num_set_up();
        let name = self.core.function.name();
        let max = self.queue_size_max(index)?.min(QUEUE_SIZE_MAX);
        if max == 0 {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{name} has no queue {index}; it has {}", self.num_queues()?),
            ));
        }
        let format = self.core.format();
        let size = match (options.size, format) {
            (Some(size), _) => size,
            (None, Format::Split) => 1 << max.ilog2(),
            (None, Format::Packed) => max,
        };
        let kind = match format {
            Format::Split => "a power of two",
            Format::Packed => "a number",
        };
        if !(QUEUE_SIZE_MIN..=max).contains(&size)
            || (format == Format::Split && !size.is_power_of_two())
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{name}: queue size {size} is not {kind} within {QUEUE_SIZE_MIN} to {max}, the greatest that the device allows"
                ),
            ));
        }
        let vector = self.interrupts.vector(index);
        self.queues.push(self.core.add_queue(size, vector)?);
        Ok(())
    }

    /// Begins operation (DRIVER_OK) and hands out the queues, whose requests carry a context `C`.
    ///
    /// # Errors
    /// When the device does not take the status or the configuration's vector, or when what it and
    /// the platform announce cannot be waited for.
    pub fn start<C: Copy + Default>(mut self) -> Result<(RunningDevice, Vec<Virtqueue<C>>)> {
        let core = Arc::clone(&self.core);
        let mut events = self.interrupts.take_events(&core.notices)?.into_iter();
        let queues: Vec<_> = mem::take(&mut self.queues)
            .into_iter()
            .zip(0..)
            .map(|((memory, notification), index)| {
                let core = Arc::clone(&core);
                Virtqueue::new(core, memory, index, notification, events.next())
            })
            .collect();
        // Cannot have been set before: a device starts once.
        let _ = core.config_vector.set(self.interrupts.config_vector);
        let mut sources = mem::take(&mut self.interrupts.sources);
        sources.extend(Source::of_platform(&*core.function)?);
        if !sources.is_empty() {
            let name = core.function.name();
            let watch = Watch::start(&name, sources, Arc::clone(&core.notices))?;
            let _ = core.watch.set(watch);
        }
        core.go()?;
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

    /// Gives the device memory of the caller's, besides its own [arena](Self::arena), and yields an
    /// arena over it, whose buffers the device's queues take as well. It stays mapped when the
    /// device is [reset](Self::recover), until that is closed; the memory itself lives for as long
    /// as there are buffers, or [`Bytes`](crate::DmaBuffer::into_bytes), of it.
    ///
    /// Requests with such buffers cost a little more than those with buffers of the device's own
    /// arena.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`]: without an IOMMU, the memory does not consist of 2 MiB pages.
    /// - [`ErrorKind::OutOfMemory`], [`ErrorKind::PermissionDenied`] and others of
    ///   [`PciFunction::map_dma`] and [`PciFunction::pin_dma`].
    pub fn register(&self, memory: HostMemory) -> Result<DmaArena> {
        self.core.register(memory)
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

    /// A number that changes when the device or its platform have announced something, or the
    /// device has been reset: a reason to [check](Self::check_alive) the device, to read its
    /// configuration again, and to see whether queues are [stale](Virtqueue::is_stale). Cheap.
    #[inline]
    pub fn attention(&self) -> u32 {
        self.core.notices.count()
    }

    /// How often the device has announced that its configuration changed. Without MSI-X it cannot;
    /// where a queue shares the vector, only [`attention`](Self::attention) changes.
    pub fn config_changes(&self) -> u32 {
        self.core.notices.config_changes()
    }

    /// Calls `hook` each time that [`attention`](Self::attention) changes, on whatever thread
    /// learns of it. It must not block.
    pub fn on_attention(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.core.notices.add_hook(Box::new(hook));
    }

    /// Writes the byte at `offset` of the device configuration, where the device type has fields
    /// that a driver may write, and looks whether it is there. A device forgets it with a reset;
    /// [`recover`](Self::recover) writes it again. Waits while the device is being reset.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when the configuration ends before the field, or the field does not
    /// keep the value: what it was written before is what `recover` writes then.
    pub fn write_config_u8(&self, offset: u64, value: u8) -> Result<()> {
        self.core.write_config_u8(offset, value)
    }

    /// Whether the device still works.
    ///
    /// # Errors
    /// - [`ErrorKind::DeviceGone`]: it has gone, is wanted back by the platform, or has reported a
    ///   bus error.
    /// - [`ErrorKind::NeedsReset`]: it has failed and asks to be [reset](Self::recover).
    pub fn check_alive(&self) -> Result<()> {
        let gone = |problem: &str| {
            Err(Error::new(
                ErrorKind::DeviceGone,
                format!("{} {problem}; close and reopen it", self.name()),
            ))
        };
        if let Some(problem) = self.core.notices.ending() {
            return gone(problem);
        }
        match self.core.transport.status()? {
            status::GONE => gone("has gone"),
            status if status & status::DEVICE_NEEDS_RESET != 0 => Err(Error::new(
                ErrorKind::NeedsReset,
                format!("{} has failed and asks to be reset", self.name()),
            )),
            _ => Ok(()),
        }
    }

    /// Resets the device, which ends all requests of all queues and makes it let go of their
    /// memory, and sets it up again as it was, what was written into its configuration included.
    /// Each queue's owner then takes up its part with [`Virtqueue::renew`].
    ///
    /// Takes as long as the device takes to finish what it cannot break off.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`], [`ErrorKind::DeviceGone`]: the device does not confirm its reset.
    ///   It may still use the memory of the requests in flight, which stays with it.
    /// - Others: the device was reset but could not be set up again. Its requests have ended.
    pub fn recover(&self) -> Result<()> {
        self.core.recover()
    }

    /// Resets queue `index` alone (RING_RESET), which ends its requests, and sets it up again. The
    /// queue's owner then takes it up with [`Virtqueue::renew`].
    ///
    /// The specification makes a device let go of the queue's memory. Not all do: QEMU 10.0 forgets
    /// the ring, and still writes into the memory of requests that it has begun. On such a device
    /// this is for queues with nothing in flight; [`recover`](Self::recover) is for the others.
    ///
    /// # Errors
    /// As [`recover`](Self::recover), and [`ErrorKind::Unsupported`] without RING_RESET.
    pub fn recover_queue(&self, index: u16) -> Result<()> {
        self.core.recover_queue(index)
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
