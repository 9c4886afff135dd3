//! A stepped device whose ring is meddled with before the driver looks at it: completions out of
//! order, held back or repeated, as no emulated device does of its own accord.
#![expect(
    unsafe_code,
    reason = "the used ring lies in memory that the driver and the device share"
)]

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

use vfio_virtio::{
    Bar, Doorbell, EventFd, HostMemory, Iova, PciFunction, Result, Translation, Width,
};
use zbd_emu::EmulatedFunction;

/// `queue_desc` and `queue_device` of the common configuration, which begins the emulated device's
/// BAR 4.
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DEVICE: u64 = 0x30;

/// The emulated function, with an eye on where things are put.
pub(crate) struct Meddler {
    function: EmulatedFunction,
    ring: Arc<UsedRing>,
}

/// The used ring of queue 0, the only one; of a packed queue, the ring.
#[derive(Default)]
pub(crate) struct UsedRing {
    memory: OnceLock<(u64, Arc<HostMemory>)>,
    descriptors: Mutex<[u32; 2]>,
    address: Mutex<[u32; 2]>,
    size: u64,
}

impl Meddler {
    pub(crate) fn new(function: EmulatedFunction, queue_size: u16) -> (Self, Arc<UsedRing>) {
        let ring = Arc::new(UsedRing {
            size: queue_size.into(),
            ..UsedRing::default()
        });
        let meddler = Self {
            function,
            ring: Arc::clone(&ring),
        };
        (meddler, ring)
    }
}

impl UsedRing {
    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        self.part(&self.address, offset, len)
    }

    fn part(&self, part: &Mutex<[u32; 2]>, offset: u64, len: u64) -> *mut u8 {
        let [low, high] = *part.lock().unwrap();
        let address = u64::from(low) | u64::from(high) << 32;
        let (iova, memory) = self.memory.get().unwrap();
        let offset = address + offset - iova;
        assert!(offset.is_multiple_of(len) && offset + len <= memory.len_bytes() as u64);
        memory.as_ptr().wrapping_add(offset as usize)
    }

    fn index_field(&self) -> &AtomicU16 {
        // SAFETY: aligned and inside the memory, as `at` has checked, and `self` keeps that alive;
        // both sides access the index atomically.
        unsafe { AtomicU16::from_ptr(self.at(2, 2).cast()) }
    }

    fn element_field(&self, index: u16) -> &AtomicU64 {
        let offset = 4 + 8 * (u64::from(index) % self.size);
        // SAFETY: as for the index; the elements are accessed in one piece, and neither side does
        // so while the test meddles, because all three are one thread.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    fn descriptor_field(&self, index: u64) -> &AtomicU64 {
        let offset = 16 * (index % self.size) + 8;
        // SAFETY: as for the elements.
        unsafe { AtomicU64::from_ptr(self.part(&self.descriptors, offset, 8).cast()) }
    }

    /// The second half of a packed ring's descriptor at `index`, which wraps: a le32 length, a le16
    /// id and le16 flags.
    pub(crate) fn descriptor(&self, index: u64) -> u64 {
        u64::from_le(self.descriptor_field(index).load(Ordering::Acquire))
    }

    pub(crate) fn set_descriptor(&self, index: u64, half: u64) {
        self.descriptor_field(index)
            .store(half.to_le(), Ordering::Release);
    }

    pub(crate) fn index(&self) -> u16 {
        u16::from_le(self.index_field().load(Ordering::Acquire))
    }

    pub(crate) fn set_index(&self, index: u16) {
        self.index_field().store(index.to_le(), Ordering::Release);
    }

    /// The element at `index`, which wraps: an id and above it a length.
    pub(crate) fn element(&self, index: u16) -> u64 {
        u64::from_le(self.element_field(index).load(Ordering::Acquire))
    }

    pub(crate) fn set_element(&self, index: u16, element: u64) {
        self.element_field(index)
            .store(element.to_le(), Ordering::Release);
    }
}

impl PciFunction for Meddler {
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
        Ok(Arc::new(WatchedBar {
            bar: self.function.open_bar(index)?,
            ring: Arc::clone(&self.ring),
        }))
    }

    fn translation(&self) -> Translation {
        self.function.translation()
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        self.function.iova_ranges()
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        assert!(self.ring.memory.set((iova.0, Arc::clone(&memory))).is_ok());
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

struct WatchedBar {
    bar: Arc<dyn Bar>,
    ring: Arc<UsedRing>,
}

impl Bar for WatchedBar {
    fn len_bytes(&self) -> u64 {
        self.bar.len_bytes()
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        self.bar.read(offset, width)
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        match offset {
            QUEUE_DESC => self.ring.descriptors.lock().unwrap()[0] = value,
            0x24 => self.ring.descriptors.lock().unwrap()[1] = value,
            QUEUE_DEVICE => self.ring.address.lock().unwrap()[0] = value,
            0x34 => self.ring.address.lock().unwrap()[1] = value,
            _ => {}
        }
        self.bar.write(offset, width, value)
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        Arc::clone(&self.bar).doorbell(offset, width)
    }
}
