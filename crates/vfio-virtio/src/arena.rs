#![expect(
    unsafe_code,
    reason = "copies bytes in and out of memory that a device reaches"
)]
//! DMA memory: one arena that the device reaches, handed out as buffers with owners.
//!
//! # Why this is sound
//!
//! A [`DmaBuffer`] is the only owner of its pages, and of the [`Block`] that describes them: the
//! allocator hands no page out twice, and a buffer gives its pages back only when it is dropped. A queue that lends a buffer to the device
//! takes it by value and keeps it until the device has returned it or has been reset, so whoever
//! holds a buffer holds memory that no request is using. The bytes are reached only by copies
//! through raw pointers; no reference to them exists at any time, so that even a device that
//! writes where it was not asked to changes data, never what the compiler may assume.

use std::{
    cell::UnsafeCell,
    fmt,
    ops::RangeInclusive,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_queue::ArrayQueue;
use offset_allocator::{Allocation, Allocator};

use crate::{Error, ErrorKind, HostMemory, Iova, PciFunction, Result};

/// The unit of allocation. No request needs a finer alignment, and most are multiples of it.
const PAGE: usize = 4096;
/// Blocks of 2^0 to 2^8 pages are kept for reuse without taking the lock.
const CLASSES: usize = 9;
/// How many free blocks of one class are kept at the most.
const CACHED_BLOCKS: usize = 1024;
/// Arenas are placed at multiples of the largest page the IOMMU may use for them.
const PLACEMENT: u64 = 2 << 20;
/// Where an arena is placed if the platform allows it: an address that, if it was ever cut to 32
/// bits or taken for a host address, would be seen to be wrong at once.
const PREFERRED_IOVA: u64 = 0x10_0000_0000;

/// Memory that a device reaches, from which [`DmaBuffer`]s are allocated.
///
/// Clones share the memory. The memory lives until the arena and all its buffers are gone; for how
/// long the *device* reaches it is decided by the [`ConfiguredDevice`](crate::ConfiguredDevice) that made
/// the arena.
#[derive(Clone)]
pub struct DmaArena(Arc<Inner>);

struct Inner {
    memory: Arc<HostMemory>,
    iova: Iova,
    pages: Mutex<Pages>,
    cached: [ArrayQueue<u32>; CLASSES],
    /// For each page, the description of the buffer that begins there, if one does.
    blocks: Box<[UnsafeCell<Block>]>,
}

// SAFETY: all parts but `blocks` are `Sync`. A block is touched only by the buffer that it
// describes, or while that is made, by the thread that has just been given the page.
unsafe impl Sync for Inner {}
// SAFETY: the raw pointers in `blocks` point to the arena itself and to its memory, which do not
// depend on a thread.
unsafe impl Send for Inner {}

/// What a buffer knows of itself. It lies in the arena so that a buffer is one pointer, which the
/// request path moves several times.
struct Block {
    /// The arena, of which the buffer holds one strong count.
    arena: *const Inner,
    iova: Iova,
    bytes: *mut u8,
    len: u32,
    pages: u32,
}

struct Pages {
    allocator: Allocator,
    /// What the allocator wants back for the block that begins at each page.
    allocated: Box<[Option<Allocation>]>,
}

impl DmaArena {
    /// Maps at least `len_bytes` of fresh memory for the function.
    pub(crate) fn new(function: &dyn PciFunction, len_bytes: usize) -> Result<Self> {
        let memory = Arc::new(HostMemory::new(len_bytes)?);
        let iova = place(&function.iova_ranges()?, memory.len_bytes() as u64).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{}: the IOMMU has no room for {} bytes of DMA memory; ask for less",
                    function.name(),
                    memory.len_bytes()
                ),
            )
        })?;
        function.map_dma(iova, Arc::clone(&memory))?;
        Self::over(memory, iova)
    }

    fn over(memory: Arc<HostMemory>, iova: Iova) -> Result<Self> {
        let count = u32::try_from(memory.len_bytes() / PAGE)
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "a DMA arena is at most 16 TiB"))?;
        Ok(Self(Arc::new(Inner {
            memory,
            iova,
            pages: Mutex::new(Pages {
                allocator: Allocator::with_max_allocs(count, count.saturating_add(2)),
                allocated: vec![None; count as usize].into(),
            }),
            cached: std::array::from_fn(|class| {
                ArrayQueue::new((count as usize >> class).clamp(1, CACHED_BLOCKS))
            }),
            blocks: (0..count)
                .map(|_| {
                    UnsafeCell::new(Block {
                        arena: ptr::null(),
                        iova: Iova(0),
                        bytes: ptr::null_mut(),
                        len: 0,
                        pages: 0,
                    })
                })
                .collect(),
        })))
    }

    /// Allocates a buffer of `len_bytes`, aligned to 4 KiB. Its contents are whatever they were.
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
        let offset = page as usize * PAGE;
        let block = self.0.blocks[page as usize].get();
        // SAFETY: the allocator has just handed `page` out, so no other buffer has this block. The
        // page lies inside the mapping, so the pointer to its bytes does too. The strong count
        // that `into_raw` leaves behind is the one that `Drop` takes back.
        let block = unsafe {
            block.write(Block {
                arena: Arc::into_raw(Arc::clone(&self.0)),
                iova: Iova(self.0.iova.0 + offset as u64),
                bytes: self.0.memory.as_ptr().add(offset),
                len,
                pages,
            });
            NonNull::new_unchecked(block)
        };
        Ok(DmaBuffer { block })
    }

    pub(crate) fn id(&self) -> ArenaId {
        ArenaId(Arc::as_ptr(&self.0))
    }

    /// The size of the arena in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.memory.len_bytes()
    }

    /// The memory behind the arena.
    pub fn memory(&self) -> &HostMemory {
        &self.0.memory
    }

    /// The address at which the device sees the arena.
    pub fn iova(&self) -> Iova {
        self.0.iova
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
            .field("iova", &self.0.iova)
            .finish()
    }
}

/// The lowest suitable place for `len` bytes, from [`PREFERRED_IOVA`] upwards if there is one.
fn place(ranges: &[RangeInclusive<u64>], len: u64) -> Option<Iova> {
    let fit = |from: u64| {
        ranges.iter().find_map(|range| {
            // Never address 0: too many devices take it for "none".
            let start = (*range.start())
                .max(from)
                .max(1)
                .checked_next_multiple_of(PLACEMENT)?;
            let end = start.checked_add(len.checked_sub(1)?)?;
            (end <= *range.end()).then_some(Iova(start))
        })
    };
    fit(PREFERRED_IOVA).or_else(|| fit(0))
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
    }
}

impl Pages {
    fn take(&mut self, pages: u32) -> Option<u32> {
        let allocation = self.allocator.allocate(pages)?;
        let page = allocation.offset;
        self.allocated[page as usize] = Some(allocation);
        Some(page)
    }

    fn give(&mut self, page: u32) {
        if let Some(allocation) = self.allocated[page as usize].take() {
            self.allocator.free(allocation);
        }
    }
}

/// DMA memory with one owner, contiguous for the device, never empty.
///
/// Dropping it gives the memory back to its [`DmaArena`].
pub struct DmaBuffer {
    block: NonNull<Block>,
}

// SAFETY: the block and the memory belong to this buffer alone, wherever it goes; the arena that
// they lie in is `Send` and `Sync` and lives as long as the buffer.
unsafe impl Send for DmaBuffer {}
// SAFETY: through a shared buffer, the block and the memory can only be read.
unsafe impl Sync for DmaBuffer {}

impl DmaBuffer {
    #[inline]
    fn block(&self) -> &Block {
        // SAFETY: the block was written when the buffer was made and belongs to it alone; the
        // buffer's strong count keeps the arena in which it lies.
        unsafe { self.block.as_ref() }
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.block().len as usize
    }

    /// The greatest length that [`set_len`](Self::set_len) accepts.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.block().pages as usize * PAGE
    }

    /// Changes the length; the bytes stay as they are.
    ///
    /// # Panics
    /// If `len_bytes` is 0 or exceeds the [`capacity`](Self::capacity).
    pub fn set_len(&mut self, len_bytes: usize) {
        assert!(
            (1..=self.capacity()).contains(&len_bytes),
            "length {len_bytes} is not within 1 to the buffer's capacity of {}",
            self.capacity()
        );
        // SAFETY: as in `block`, and `&mut self` makes this the only access.
        unsafe { self.block.as_mut() }.len = len_bytes as u32;
    }

    /// The address at which the device sees the buffer.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.block().iova
    }

    /// The address of the first byte. Reading or writing through it is up to the caller, who must
    /// not make a reference of it.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.block().bytes
    }

    /// Copies `source` over the whole buffer.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_from_slice(&mut self, source: &[u8]) {
        assert_eq!(
            source.len(),
            self.len(),
            "source and buffer differ in length"
        );
        self.write_at(0, source);
    }

    /// Copies the whole buffer to `target`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_to_slice(&self, target: &mut [u8]) {
        assert_eq!(
            target.len(),
            self.len(),
            "target and buffer differ in length"
        );
        self.read_at(0, target);
    }

    /// Copies `source` to `offset`.
    ///
    /// # Panics
    /// If the range exceeds the buffer's length.
    pub fn write_at(&mut self, offset: usize, source: &[u8]) {
        self.check(offset, source.len());
        // SAFETY: the range was checked to lie in this buffer, which `&mut self` owns alone (see
        // the head of this file); a Rust slice never overlaps device memory.
        unsafe {
            ptr::copy_nonoverlapping(source.as_ptr(), self.as_ptr().add(offset), source.len())
        }
    }

    /// Copies `target.len()` bytes from `offset`.
    ///
    /// # Panics
    /// If the range exceeds the buffer's length.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) {
        self.check(offset, target.len());
        // SAFETY: as in `write_at`; writing needs `&mut self`, so the bytes stay still meanwhile.
        unsafe {
            ptr::copy_nonoverlapping(self.as_ptr().add(offset), target.as_mut_ptr(), target.len());
        }
    }

    /// Sets every byte to `value`.
    pub fn fill(&mut self, value: u8) {
        // SAFETY: the range is this buffer, which `&mut self` owns alone.
        unsafe { ptr::write_bytes(self.as_ptr(), value, self.len()) }
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.copy_to_slice(&mut bytes);
        bytes
    }

    /// Which arena the buffer is from.
    #[inline]
    pub(crate) fn arena_id(&self) -> ArenaId {
        ArenaId(self.block().arena)
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "range of {len} bytes at {offset} exceeds the buffer's length of {}",
            self.len()
        );
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        let block = self.block();
        // SAFETY: the pointer came from `Arc::into_raw` when the buffer was made, and its strong
        // count is taken back only here.
        let arena = unsafe { Arc::from_raw(block.arena) };
        let page = (block.iova.0 - arena.iova.0) / PAGE as u64;
        arena.give(page as u32, block.pages);
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer")
            .field("iova", &self.iova())
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(len: usize) -> DmaArena {
        let memory = Arc::new(HostMemory::new(len).unwrap());
        DmaArena::over(memory, Iova(PREFERRED_IOVA)).unwrap()
    }

    #[test]
    fn buffers_do_not_overlap_and_come_back() {
        let arena = arena(2 << 20);
        let all: Vec<_> = (0..arena.len_bytes() / PAGE)
            .map(|i| {
                let mut buffer = arena.allocate(PAGE).unwrap();
                buffer.fill(i as u8);
                buffer
            })
            .collect();
        assert_eq!(
            arena.allocate(1).unwrap_err().kind(),
            ErrorKind::OutOfMemory
        );
        for (i, buffer) in all.iter().enumerate() {
            assert!(buffer.to_vec().iter().all(|&b| b == i as u8));
        }
        drop(all);
        // The single pages must merge again for one large piece to be found.
        assert_eq!(
            arena.allocate(arena.len_bytes()).unwrap().len(),
            arena.len_bytes()
        );
    }

    #[test]
    fn a_length_beyond_the_arena_is_refused() {
        let arena = arena(2 << 20);
        assert!(arena.allocate(arena.len_bytes() + 1).is_err());
        assert!(arena.allocate(usize::MAX).is_err());
        assert_eq!(
            arena.allocate(0).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }

    #[test]
    #[should_panic(expected = "exceeds the buffer's length")]
    fn writing_past_the_end_panics() {
        arena(2 << 20).allocate(512).unwrap().write_at(510, &[0; 3]);
    }

    #[test]
    fn arenas_are_placed_inside_the_ranges() {
        let len = 4 << 20;
        assert_eq!(place(&[0..=u64::MAX], len), Some(Iova(PREFERRED_IOVA)));
        // Around the interrupt window of x86, below the preferred place.
        let narrow = [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff];
        assert_eq!(place(&narrow, len), Some(Iova(PLACEMENT)));
        assert_eq!(place(&[0..=len - 1], len), None, "address 0 is never used");
        assert_eq!(place(&[u64::MAX - 10..=u64::MAX], len), None);
        assert_eq!(place(&[], len), None);
    }
}
