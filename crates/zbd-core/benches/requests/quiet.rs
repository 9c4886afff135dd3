//! The emulated function with a doorbell that does nothing while the driver's work is counted, as
//! a store to a register would, and is passed on afterwards.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use vfio_virtio::{
    Bar, Doorbell, EventFd, HostMemory, Iova, PciFunction, Result, Translation, Width,
};
use zbd_emu::EmulatedFunction;

pub(crate) struct QuietFunction {
    function: EmulatedFunction,
    bell: Arc<Bell>,
}

/// The doorbell of the one queue.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    real: OnceLock<Box<dyn Doorbell>>,
}

struct QuietBar {
    bar: Arc<dyn Bar>,
    bell: Arc<Bell>,
}

struct QuietDoorbell(Arc<Bell>);

impl QuietFunction {
    pub(crate) fn new(function: EmulatedFunction) -> (Self, Arc<Bell>) {
        let bell = Arc::new(Bell::default());
        let quiet = Self {
            function,
            bell: Arc::clone(&bell),
        };
        (quiet, bell)
    }
}

impl Bell {
    /// Rings the real doorbell if this one was rung.
    pub(crate) fn pass_on(&self) {
        if self.rung.swap(false, Ordering::Relaxed)
            && let Some(real) = self.real.get()
        {
            real.ring(0);
        }
    }
}

impl Doorbell for QuietDoorbell {
    fn ring(&self, _value: u32) {
        self.0.rung.store(true, Ordering::Relaxed);
    }
}

impl Bar for QuietBar {
    fn len_bytes(&self) -> u64 {
        self.bar.len_bytes()
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        self.bar.read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        self.bar.write(offset, width, value)
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        let real = Arc::clone(&self.bar).doorbell(offset, width)?;
        // There is one queue, and so one doorbell.
        let _ = self.bell.real.set(real);
        Ok(Box::new(QuietDoorbell(Arc::clone(&self.bell))))
    }
}

impl PciFunction for QuietFunction {
    fn name(&self) -> String {
        self.function.name()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.function.read_config(offset, data)
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.function.write_config(offset, data)
    }

    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>> {
        Ok(Arc::new(QuietBar {
            bar: self.function.open_bar(index)?,
            bell: Arc::clone(&self.bell),
        }))
    }

    fn translation(&self) -> Translation {
        self.function.translation()
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        self.function.iova_ranges()
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        self.function.map_dma(iova, memory)
    }

    fn unmap_dma(&self, iova: Iova) -> Result<()> {
        self.function.unmap_dma(iova)
    }

    fn msix_vectors(&self) -> u16 {
        self.function.msix_vectors()
    }

    fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        self.function.enable_msix(events)
    }

    fn disable_msix(&self) -> Result<()> {
        self.function.disable_msix()
    }
}
