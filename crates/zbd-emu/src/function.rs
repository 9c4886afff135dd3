//! The device as the driver's side of the seam sees it.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
};

use vfio_virtio::{
    Bar, Doorbell, Error, ErrorKind, EventFd, HostMemory, Iova, Notice, PciFunction, Result,
    Translation, Width,
};

use crate::{
    Control, EmulatedConfig, Stepper, StoreIo,
    device::Device,
    memory::IOVA_RANGE,
    pci::{REGISTER_BAR, REGISTER_BAR_BYTES},
    runner,
    shared::{Shared, queue_at},
    store::Opened,
};

/// A zoned virtio-blk PCI function in software.
///
/// Dropping it resets the device, ends its thread and lets go of all memory; BARs and doorbells
/// that are still held then read as all ones and do nothing. A device in a file is flushed, and
/// the file closed. A file that cannot be written then keeps what was flushed before: who must know
/// sends a FLUSH.
pub struct EmulatedFunction {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EmulatedFunction {
    /// A device with a thread of its own.
    ///
    /// # Errors
    /// When the configuration does not hold together, or memory or a thread cannot be had.
    pub fn new(config: &EmulatedConfig) -> Result<Self> {
        let mut function = Self::idle(config)?;
        function.thread = Some(runner::start(&function.name, Arc::clone(&function.shared))?);
        Ok(function)
    }

    /// A device that runs when, and in the thread in which, it is stepped.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn stepped(config: &EmulatedConfig) -> Result<(Self, Stepper)> {
        let function = Self::idle(config)?;
        let stepper = Stepper::new(Arc::clone(&function.shared));
        Ok((function, stepper))
    }

    fn idle(config: &EmulatedConfig) -> Result<Self> {
        /// Tells the devices of this process apart.
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let (config, file) = Opened::settle(config)?;
        let device = Device::new(config, file)?;
        Ok(Self {
            name: format!("emu{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            shared: Arc::new(Shared::new(device)?),
            thread: None,
        })
    }

    /// Cuts the power: the device is gone, as after [`Control::unplug`], and requests in flight are
    /// never completed.
    ///
    /// Of a device in a [file](crate::StoreKind::File), everything survives that was flushed, which
    /// is all that was completed where the cache is in writethrough mode. Of the rest, `seed` alone
    /// decides what does:
    /// - of a sequential zone, a prefix of what was written since, in whole blocks, so that the
    ///   write pointer lies anywhere from where it was flushed to where it was last, with all data
    ///   below it as they were written. It becomes full if all of it survives, and so may a zone
    ///   that was finished. Open zones come back closed, or empty.
    /// - a reset or not. If not, nothing of the zone's new life survives, and the zone is as it was
    ///   flushed; if so, a prefix of that life.
    /// - of a conventional zone, of a disk that is not zoned, and of what was overwritten in another
    ///   zone by a write or an erasure, each block or not.
    ///
    /// One zone's fate says nothing of another's, nor does the order of writes. When this returns,
    /// nothing more is written to the file, which can be opened again at once. Of other stores
    /// nothing survives.
    pub fn power_cut(&self, seed: u64) {
        self.shared.access().power_cut(seed);
    }

    /// What carries out the reads and writes of the device's file, if it has one.
    pub fn store_io(&self) -> Option<StoreIo> {
        self.shared.access().disk.store_io()
    }

    /// A handle that acts on the device from behind.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }
}

impl Drop for EmulatedFunction {
    fn drop(&mut self) {
        runner::stop(&self.shared, &mut self.thread);
        self.shared.access().remove();
    }
}

impl fmt::Debug for EmulatedFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatedFunction")
            .field("name", &self.name)
            .field("has_thread", &self.thread.is_some())
            .finish_non_exhaustive()
    }
}

impl PciFunction for EmulatedFunction {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        let device = self.shared.access();
        let gone = device.gone;
        let window = device.pci.window(offset, data.len());
        device.pci.read(offset, data)?;
        drop(device);
        if gone {
            data.fill(0xff);
        } else if let Some(window) = window.filter(|window| window.bar == REGISTER_BAR) {
            let value = self.shared.read(window.offset, window.width)?;
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }
        Ok(())
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Result<()> {
        let mut device = self.shared.access();
        let window = device.pci.window(offset, data.len());
        if device.gone {
            return Ok(());
        }
        device.pci.write(offset, data)?;
        drop(device);
        if let Some(window) = window.filter(|window| window.bar == REGISTER_BAR) {
            let mut value = [0; 4];
            value[..data.len()].copy_from_slice(data);
            let value = u32::from_le_bytes(value);
            self.shared.write(window.offset, window.width, value)?;
        }
        Ok(())
    }

    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>> {
        if index != REGISTER_BAR {
            // That of the MSI-X table included: vectors are set through `enable_msix`.
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("BAR {index} of the emulated device cannot be opened, only {REGISTER_BAR}"),
            ));
        }
        Ok(Arc::new(RegisterBar {
            shared: Arc::clone(&self.shared),
        }))
    }

    fn translation(&self) -> Translation {
        Translation::Software
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        Ok(vec![IOVA_RANGE])
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        self.shared.access().dma.map(iova, memory)
    }

    fn unmap_dma(&self, iova: Iova) -> Result<()> {
        self.shared.access().dma.unmap(iova)
    }

    fn msix_vectors(&self) -> u16 {
        self.shared.access().interrupts.vectors()
    }

    fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        let mut device = self.shared.access();
        let vectors = device.interrupts.vectors();
        if vectors == 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the emulated device has no MSI-X: give vectors=1 or more",
            ));
        }
        if events.len() > usize::from(vectors) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} events for {vectors} interrupt vectors", events.len()),
            ));
        }
        let events = events
            .iter()
            .map(EventFd::try_clone)
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| {
                Error::new(ErrorKind::Io, "cannot share an interrupt event").with_source(e)
            })?;
        device.interrupts.deliver_to(Some(events));
        device.pci.show_msix(true);
        Ok(())
    }

    fn disable_msix(&self) -> Result<()> {
        let mut device = self.shared.access();
        device.interrupts.deliver_to(None);
        device.pci.show_msix(false);
        Ok(())
    }

    fn notify(&self, notice: Notice, event: Option<&EventFd>) -> Result<bool> {
        let event = event.map(EventFd::try_clone).transpose().map_err(|e| {
            Error::new(ErrorKind::Io, "cannot share the event of a notice").with_source(e)
        })?;
        let mut device = self.shared.access();
        match notice {
            Notice::ReleaseRequest => device.on_release_request = event,
            Notice::BusError => device.on_bus_error = event,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The BAR with the virtio structures.
struct RegisterBar {
    shared: Arc<Shared>,
}

impl Bar for RegisterBar {
    fn len_bytes(&self) -> u64 {
        REGISTER_BAR_BYTES
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        self.shared.read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        self.shared.write(offset, width, value)
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        let queues = self.shared.access().config.queues;
        let queue = queue_at(offset)
            .filter(|queue| *queue < queues)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("no queue is notified at {offset:#x}"),
                )
            })?;
        Ok(Box::new(QueueDoorbell {
            shared: Arc::clone(&self.shared),
            queue,
            width,
        }))
    }
}

/// The notification address of one queue.
struct QueueDoorbell {
    shared: Arc<Shared>,
    queue: u16,
    width: Width,
}

impl Doorbell for QueueDoorbell {
    #[inline]
    fn ring(&self, value: u32) {
        self.shared.bell.ring(self.queue, self.width, value);
    }
}
