#![expect(
    unsafe_code,
    reason = "lays out descriptions of buffers beside the memory"
)]
//! DMA memory: one arena that the device reaches, handed out as buffers with owners.

use std::{
    cell::UnsafeCell,
    fmt,
    ops::RangeInclusive,
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use event_listener::{Event, EventListener};

mod buffer;
mod bytes;
mod pages;
mod pieces;
#[cfg(test)]
mod tests;

use buffer::Block;
use pages::{Pages, Placement, place};

pub use buffer::{DmaBuffer, Segment};
pub use pieces::Pieces;

use crate::{Error, ErrorKind, HostMemory, Iova, PageSize, PciFunction, Result, Translation};

/// The unit of allocation. No request needs a finer alignment, and most are multiples of it.
const PAGE: usize = 4096;
/// Blocks of 2^0 to 2^8 pages are kept for reuse without taking the lock.
const CLASSES: usize = 9;
/// How many free blocks of one class are kept at the most.
const CACHED_BLOCKS: usize = 1024;

/// Memory that a device reaches, from which [`DmaBuffer`]s are allocated.
///
/// Clones share the memory. The memory lives until the arena, all its buffers and all their
/// [`Bytes`](DmaBuffer::into_bytes) are gone; for how long the *device* reaches it is decided by the
/// [`ConfiguredDevice`](crate::ConfiguredDevice) that made the arena, or the
/// [`RunningDevice`](crate::RunningDevice::register) that it was registered with.
#[derive(Clone)]
pub struct DmaArena(Arc<Inner>);

struct Inner {
    device: DeviceId,
    memory: Arc<HostMemory>,
    placement: Placement,
    pages: Mutex<Pages>,
    cached: [ArrayQueue<u32>; CLASSES],
    /// Memory has been given back.
    freed: Event,
    /// For each page, the description of the buffer that begins there, if one does.
    blocks: Box<[UnsafeCell<Block>]>,
}

// SAFETY: all parts but `blocks` are `Sync`. A block is touched only by the buffer that it
// describes, or while that is made, by the thread that has just been given the page.
unsafe impl Sync for Inner {}
// SAFETY: the raw pointers in `blocks` point to the arena itself and to its memory, which do not
// depend on a thread.
unsafe impl Send for Inner {}

impl DmaArena {
    /// At least `len_bytes` of fresh memory that no PCI function reaches: for a back end that does
    /// its I/O by way of the kernel. A buffer's [`iova`](DmaBuffer::iova) is its address in this
    /// process.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when the memory cannot be had, and [`ErrorKind::InvalidInput`]
    /// when `len_bytes` is 0 or more than 16 TiB.
    pub fn detached(len_bytes: usize) -> Result<Self> {
        let memory = Arc::new(HostMemory::new(len_bytes)?);
        let pages = page_count(&memory)?;
        let start = Iova(memory.as_ptr().addr() as u64);
        let placement = Placement::contiguous(start, pages);
        Ok(Self::over(memory, placement, DeviceId::new()))
    }

    /// Maps at least `len_bytes` of fresh memory for the function.
    pub(crate) fn new(function: &dyn PciFunction, len_bytes: usize) -> Result<Self> {
        let memory = HostMemory::new(len_bytes)?;
        Self::map(function, memory, &[], DeviceId::new())
    }

    /// Maps `memory` for the function of a device whose memory there is `mapped` already.
    pub(crate) fn register(
        function: &dyn PciFunction,
        memory: HostMemory,
        mapped: &[&Self],
    ) -> Result<Self> {
        if function.translation() == Translation::Physical && memory.page_size() == PageSize::Base {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{}: without an IOMMU, memory for DMA must consist of 2 MiB pages; map it so \
                     (MAP_HUGETLB, `MmapOptions::huge`)",
                    function.name()
                ),
            ));
        }
        let device = mapped.first().map_or_else(DeviceId::new, |it| it.0.device);
        let taken: Vec<_> = mapped.iter().map(|arena| arena.iova_range()).collect();
        Self::map(function, memory, &taken, device)
    }

    fn map(
        function: &dyn PciFunction,
        memory: HostMemory,
        taken: &[RangeInclusive<u64>],
        device: DeviceId,
    ) -> Result<Self> {
        let memory = Arc::new(memory);
        let pages = page_count(&memory)?;
        if function.translation() == Translation::Physical {
            let piece_pages = (memory.page_size().len_bytes() / PAGE) as u32;
            let addresses = function.pin_dma(Arc::clone(&memory))?;
            if addresses.len() as u64 * u64::from(piece_pages) != u64::from(pages) {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "{}: {} addresses for memory of {pages} pages",
                        function.name(),
                        addresses.len()
                    ),
                ));
            }
            let placement = Placement::scattered(&addresses, piece_pages);
            return Ok(Self::over(memory, placement, device));
        }
        let len = memory.len_bytes() as u64;
        let iova = place(&function.iova_ranges()?, taken, len).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{}: the IOMMU has no room for {len} bytes of DMA memory; ask for less",
                    function.name(),
                ),
            )
        })?;
        function.map_dma(iova, Arc::clone(&memory))?;
        let placement = Placement::contiguous(iova, pages);
        Ok(Self::over(memory, placement, device))
    }

    fn over(memory: Arc<HostMemory>, placement: Placement, device: DeviceId) -> Self {
        let count = memory.len_bytes() / PAGE;
        Self(Arc::new(Inner {
            device,
            memory,
            pages: Mutex::new(Pages::new(&placement)),
            placement,
            freed: Event::new(),
            cached: std::array::from_fn(|class| {
                ArrayQueue::new((count >> class).clamp(1, CACHED_BLOCKS))
            }),
            blocks: (0..count).map(|_| UnsafeCell::new(Block::VACANT)).collect(),
        }))
    }

    /// Allocates a buffer of `len_bytes`, contiguous for the device and aligned to 4 KiB. Its
    /// contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when no contiguous piece of that size is free, and
    /// [`ErrorKind::InvalidInput`] when `len_bytes` is 0.
    pub fn allocate(&self, len_bytes: usize) -> Result<DmaBuffer> {
        let no_room = || {
            Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "no {len_bytes} contiguous bytes are free in the DMA arena of {}; drop buffers or open the device with a larger arena",
                    self.len_bytes()
                ),
            )
        };
        if len_bytes == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a DMA buffer cannot be empty",
            ));
        }
        // Half of u32, so that sums of a few lengths cannot overflow on the request path.
        let len = i32::try_from(len_bytes)
            .map_err(|_| no_room())?
            .cast_unsigned();
        let pages = block_pages(len);
        let page = self.0.take(pages).ok_or_else(no_room)?;
        let block = self.0.blocks[page as usize].get();
        // SAFETY: the allocator has just handed `page` out, so no other buffer has this block. The
        // page lies inside the mapping, so the pointer to its bytes does too.
        let block = unsafe {
            block.write(Block::new(
                Arc::clone(&self.0),
                self.0.placement.iova(page),
                self.0.memory.as_ptr().add(page as usize * PAGE),
                len,
                pages * PAGE as u32,
            ));
            NonNull::new_unchecked(block)
        };
        Ok(DmaBuffer::over(block))
    }

    /// Listens for memory that is given back, from now on: a future that ends when some has been,
    /// or blocks with `wait`. All who listen are told.
    ///
    /// No memory is reserved for a listener, and what was freed may be too little. So that nothing
    /// is missed, listen first, then try again, and wait only then:
    ///
    /// ```
    /// # use vfio_virtio::{DmaArena, DmaBuffer, ErrorKind, Result};
    /// # async fn allocate(arena: &DmaArena, len: usize) -> Result<DmaBuffer> {
    /// loop {
    ///     let freed = arena.on_freed();
    ///     match arena.allocate(len) {
    ///         Err(error) if error.kind() == ErrorKind::OutOfMemory => freed.await,
    ///         outcome => return outcome,
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// A length that the arena never has room for is waited for in vain. Who was first to wait is
    /// not the first to be served: where that matters, the callers queue up and one of them
    /// listens.
    pub fn on_freed(&self) -> EventListener {
        self.0.freed.listen()
    }

    pub(crate) fn id(&self) -> ArenaId {
        ArenaId(Arc::as_ptr(&self.0))
    }

    pub(crate) fn device_id(&self) -> DeviceId {
        self.0.device
    }

    /// The addresses at which a device behind an IOMMU sees the arena.
    fn iova_range(&self) -> RangeInclusive<u64> {
        let start = self.iova().0;
        start..=start.saturating_add(self.len_bytes() as u64 - 1)
    }

    /// The size of the arena in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.memory.len_bytes()
    }

    /// The length in bytes of the longest part that is contiguous for the device: no buffer can be
    /// longer.
    pub fn contiguous_len(&self) -> usize {
        self.0.placement.longest() as usize * PAGE
    }

    /// The memory behind the arena.
    pub fn memory(&self) -> &HostMemory {
        &self.0.memory
    }

    /// The address at which the device sees the arena's first byte. The rest follows it unless the
    /// device's addresses are [physical](Translation::Physical).
    pub fn iova(&self) -> Iova {
        self.0.placement.start()
    }
}

/// Tells apart what memory is for: a device, or an arena of none. Arenas of one device share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceId(u64);

impl DeviceId {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Tells arenas apart, as long as they live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArenaId(*const Inner);

// SAFETY: the pointer is compared, never followed.
unsafe impl Send for ArenaId {}
// SAFETY: as above.
unsafe impl Sync for ArenaId {}

impl fmt::Debug for DmaArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaArena")
            .field("memory", &self.0.memory)
            .field("iova", &self.iova())
            .finish()
    }
}

/// The number of pages of an arena over `memory`.
fn page_count(memory: &HostMemory) -> Result<u32> {
    u32::try_from(memory.len_bytes() / PAGE)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "a DMA arena is at most 16 TiB"))
}

/// The number of pages that are allocated for `len` bytes: a size class, or the exact number
/// beyond the classes.
fn block_pages(len: u32) -> u32 {
    let pages = len.div_ceil(PAGE as u32).max(1);
    if pages <= 1 << (CLASSES - 1) {
        pages.next_power_of_two()
    } else {
        pages
    }
}

impl Inner {
    fn class(&self, pages: u32) -> Option<&ArrayQueue<u32>> {
        self.cached
            .get(pages.trailing_zeros() as usize)
            .filter(|_| pages.is_power_of_two())
    }

    fn take(&self, pages: u32) -> Option<u32> {
        if let Some(page) = self.class(pages).and_then(ArrayQueue::pop) {
            return Some(page);
        }
        let mut free = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        free.take(pages).or_else(|| {
            // What is kept for reuse may be just what keeps larger pieces from forming.
            for class in &self.cached {
                while let Some(page) = class.pop() {
                    free.give(page);
                }
            }
            free.take(pages)
        })
    }

    fn give(&self, page: u32, pages: u32) {
        let kept = self
            .class(pages)
            .is_some_and(|class| class.push(page).is_ok());
        if !kept {
            self.pages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .give(page);
        }
        // All of them: what came back may be enough for several, or for none but the last of them.
        // Without listeners this is a fence and a load; the fence sees to it that either the page
        // is found by who began to listen before, or the listener is found here.
        self.freed.notify(usize::MAX);
    }
}
