#![expect(
    unsafe_code,
    reason = "copies bytes in and out of memory that a device reaches"
)]
//! Buffers of DMA memory.
//!
//! # Why this is sound
//!
//! A [`DmaBuffer`] is the only owner of its pages, and of the [`Block`] that describes them: the
//! allocator hands no page out twice, and a buffer gives its pages back only when it is dropped.
//! One that was cut into [`Pieces`](super::Pieces) is out of reach until they are gone, and no two
//! of them overlap. A
//! queue that lends a buffer to the device takes it by value and keeps it until the device has
//! returned it or has been reset, so whoever holds a buffer holds memory that no request is using.
//! The bytes are reached only by copies through raw pointers; no reference to them is made, so that
//! even a device that writes where it was not asked to changes data, never what the compiler may
//! assume. The one exception, on demand, is [`into_bytes`](DmaBuffer::into_bytes); what it rests on
//! is said at the head of `bytes.rs`.

use std::{
    fmt, iter, mem,
    ptr::{self, NonNull},
    sync::Arc,
};

use bytes::Bytes;

use super::{ArenaId, DeviceId, Inner, PAGE};
use crate::{Error, ErrorKind, Iova, Result};

/// What a buffer knows of itself. It lies in the arena so that a buffer is one pointer, which the
/// request path moves several times; that of a buffer over memory which something else keeps lies
/// on the heap.
#[repr(align(64))]
pub(super) struct Block {
    /// The arena of a buffer that is one segment and may be written, for the request path to
    /// compare; null for others, which the path leaves to slower code.
    single_in: *const Inner,
    /// The arena, of which the buffer holds one strong count.
    arena: *const Inner,
    pub(super) iova: Iova,
    pub(super) bytes: *mut u8,
    /// The length of all segments.
    len: u32,
    /// The length of this segment.
    segment_len: u32,
    /// The greatest length of this segment.
    capacity: u32,
    /// Whether there may be references to this segment's bytes.
    pub(super) is_read_only: bool,
    /// The segments after this one.
    rest: Option<DmaBuffer>,
    /// What keeps the memory of a buffer that does not own its pages. Its block is a box then.
    keeper: Option<Arc<Keeper>>,
}

const _: () = assert!(size_of::<Block>() == 64);

/// What keeps the memory of buffers that do not own their pages.
pub(super) enum Keeper {
    /// Bytes that the buffer was lent from.
    Bytes(Bytes),
    /// The buffer that it is a piece of. While there are pieces, its bytes are theirs, and nobody
    /// gets at it.
    Whole(DmaBuffer),
}

impl Block {
    pub(super) const VACANT: Self = Self {
        single_in: ptr::null(),
        arena: ptr::null(),
        iova: Iova(0),
        bytes: ptr::null_mut(),
        len: 0,
        segment_len: 0,
        capacity: 0,
        is_read_only: false,
        rest: None,
        keeper: None,
    };

    pub(super) fn new(
        arena: Arc<Inner>,
        iova: Iova,
        bytes: *mut u8,
        len: u32,
        capacity: u32,
    ) -> Self {
        // The strong count that `into_raw` leaves behind is the buffer's, taken back when it is
        // dropped.
        let arena = Arc::into_raw(arena);
        Self {
            single_in: arena,
            arena,
            iova,
            bytes,
            len,
            segment_len: len,
            capacity,
            is_read_only: false,
            rest: None,
            keeper: None,
        }
    }

    /// Of memory that is read and not written.
    pub(super) fn read_only(self) -> Self {
        Self {
            single_in: ptr::null(),
            is_read_only: true,
            ..self
        }
    }
}

/// DMA memory with one owner, never empty.
///
/// It is contiguous for the device unless it was [joined](Self::join) from several. Dropping it
/// gives the memory back to its [`DmaArena`](crate::DmaArena).
///
/// One that was [lent](crate::DmaArena::lend) from `Bytes` shares its memory and is
/// [read-only](Self::is_read_only).
pub struct DmaBuffer {
    block: NonNull<Block>,
}

// SAFETY: the block and the memory belong to this buffer alone, wherever it goes; the arena that
// they lie in is `Send` and `Sync` and lives as long as the buffer.
unsafe impl Send for DmaBuffer {}
// SAFETY: through a shared buffer, the block and the memory can only be read.
unsafe impl Sync for DmaBuffer {}

/// A part of a buffer that is contiguous for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the device sees it.
    pub iova: Iova,
    /// Its length.
    pub len_bytes: u32,
}

impl DmaBuffer {
    pub(super) fn over(block: NonNull<Block>) -> Self {
        Self { block }
    }

    /// A buffer over memory that `keeper` keeps.
    pub(super) fn over_kept(block: Block, keeper: Arc<Keeper>) -> Self {
        let keeper = Some(keeper);
        let block = Box::new(Block { keeper, ..block });
        Self::over(NonNull::from(Box::leak(block)))
    }

    /// One buffer of this one, which is one segment, and what follows it.
    pub(super) fn before(mut self, rest: Option<Self>) -> Self {
        if let Some(rest) = rest {
            let block = self.block_mut();
            block.single_in = ptr::null();
            block.len += rest.block().len;
            block.rest = Some(rest);
        }
        self
    }

    #[inline]
    pub(super) fn inner(&self) -> &Inner {
        // SAFETY: the pointer came from `Arc::into_raw`, and the buffer's strong count keeps the
        // arena for as long as the buffer is.
        unsafe { &*self.block().arena }
    }

    /// The arena.
    pub(super) fn arena(&self) -> Arc<Inner> {
        let arena = self.block().arena;
        // SAFETY: the pointer came from `Arc::into_raw`, and the buffer's own strong count keeps
        // the arena meanwhile; the count added is the one that `from_raw` takes.
        unsafe {
            Arc::increment_strong_count(arena);
            Arc::from_raw(arena)
        }
    }

    #[inline]
    fn block(&self) -> &Block {
        // SAFETY: the block was written when the buffer was made and belongs to it alone; the
        // buffer's strong count keeps the arena if it lies there, and else it is a box that goes
        // when the buffer does.
        unsafe { self.block.as_ref() }
    }

    #[inline]
    fn block_mut(&mut self) -> &mut Block {
        // SAFETY: as in `block`, and `&mut self` makes this the only access.
        unsafe { self.block.as_mut() }
    }

    /// The length in bytes, all segments together.
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.block().len as usize
    }

    /// The greatest length that [`set_len`](Self::set_len) accepts.
    #[inline]
    pub fn capacity(&self) -> usize {
        match self.block().rest {
            None => self.block().capacity as usize,
            Some(_) => self.len(),
        }
    }

    /// Changes the length; the bytes stay as they are.
    ///
    /// # Panics
    /// If `len_bytes` is 0 or exceeds the [`capacity`](Self::capacity), and if the buffer was
    /// [joined](Self::join) from several.
    pub fn set_len(&mut self, len_bytes: usize) {
        assert!(
            self.block().rest.is_none(),
            "the length of a buffer of several segments cannot be changed"
        );
        assert!(
            (1..=self.capacity()).contains(&len_bytes),
            "length {len_bytes} is not within 1 to the buffer's capacity of {}",
            self.capacity()
        );
        let block = self.block_mut();
        block.len = len_bytes as u32;
        block.segment_len = block.len;
    }

    /// The address at which the device sees the first segment.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.block().iova
    }

    /// Whether the bytes, or some of them, must not be written, neither by the methods of this type
    /// nor by a device: they were [lent](crate::DmaArena::lend), and there may be references to
    /// them. A queue refuses such a buffer for data that the device writes.
    pub fn is_read_only(&self) -> bool {
        self.chain().any(|buffer| buffer.block().is_read_only)
    }

    /// The address of the first byte of the first segment. Reading or writing through it is up to
    /// the caller, who must not make a reference of it, nor write if the buffer
    /// [is read-only](Self::is_read_only).
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.block().bytes
    }

    /// Makes one buffer of this and `other`, which lie wherever they lie: a request gathers from
    /// its segments, or scatters to them, in this order. Those that are
    /// [read-only](Self::is_read_only) stay so: a header that was written here can be followed by a
    /// payload that was lent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], and `other` comes back, if it is of another device's memory or
    /// the sum of the lengths exceeds 2 GiB.
    pub fn join(&mut self, other: Self) -> Result<(), (Error, Self)> {
        let refused = |what, other| Err((Error::new(ErrorKind::InvalidInput, what), other));
        if self.device_id() != other.device_id() {
            return refused("buffers of different devices cannot be joined", other);
        }
        let added = other.block().len;
        if self.block().len + added > i32::MAX as u32 {
            return refused("a buffer has at most 2 GiB", other);
        }
        let mut last = self;
        loop {
            let block = last.block_mut();
            block.single_in = ptr::null();
            block.len += added;
            match &mut block.rest {
                Some(rest) => last = rest,
                rest @ None => {
                    *rest = Some(other);
                    return Ok(());
                }
            }
        }
    }

    /// Whether the buffer is one segment.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.block().rest.is_none()
    }

    /// Undoes all [joins](Self::join).
    pub fn split(self) -> impl Iterator<Item = Self> {
        Parts(Some(self))
    }

    /// The parts that are contiguous for the device, one unless the buffer was
    /// [joined](Self::join).
    pub fn segments(&self) -> impl Iterator<Item = Segment> + Clone {
        self.chain().map(Self::first_segment)
    }

    /// The first of the [segments](Self::segments).
    #[inline]
    pub(crate) fn first_segment(&self) -> Segment {
        let block = self.block();
        Segment {
            iova: block.iova,
            len_bytes: block.segment_len,
        }
    }

    fn chain(&self) -> impl Iterator<Item = &Self> + Clone {
        iter::successors(Some(self), |buffer| buffer.block().rest.as_ref())
    }

    /// Copies `source` over the whole buffer.
    ///
    /// # Panics
    /// If the lengths differ or the buffer [is read-only](Self::is_read_only).
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
    /// If the range exceeds the buffer's length or touches a segment that
    /// [is read-only](Self::is_read_only).
    pub fn write_at(&mut self, offset: usize, source: &[u8]) {
        let mut rest = source;
        for (bytes, len) in self.pieces_mut(offset, source.len()) {
            let (here, after) = rest.split_at(len);
            rest = after;
            // SAFETY: the piece lies in this buffer, which `&mut self` owns alone (see the head of
            // this file), and no slice of Rust's overlaps it: those of lent bytes overlap only
            // read-only segments, which `pieces_mut` refuses.
            unsafe { ptr::copy_nonoverlapping(here.as_ptr(), bytes, len) }
        }
    }

    /// Copies `target.len()` bytes from `offset`.
    ///
    /// # Panics
    /// If the range exceeds the buffer's length.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) {
        let len = target.len();
        let mut rest = target;
        for (bytes, len) in self.pieces(offset, len) {
            let (here, after) = rest.split_at_mut(len);
            rest = after;
            // SAFETY: the piece lies in this buffer, and `target`, which may be written, is none
            // of its memory. Writing needs `&mut self`, and lent bytes are never written, so the
            // bytes stay still meanwhile.
            unsafe { ptr::copy_nonoverlapping(bytes, here.as_mut_ptr(), len) }
        }
    }

    /// Sets every byte to `value`.
    ///
    /// # Panics
    /// If the buffer [is read-only](Self::is_read_only).
    pub fn fill(&mut self, value: u8) {
        for (bytes, len) in self.pieces_mut(0, self.len()) {
            // SAFETY: as in `write_at`.
            unsafe { ptr::write_bytes(bytes, value, len) }
        }
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.copy_to_slice(&mut bytes);
        bytes
    }

    /// The addresses and lengths of the pieces that a range of bytes consists of.
    ///
    /// # Panics
    /// If the range exceeds the buffer's length.
    #[inline]
    fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = (*mut u8, usize)> {
        self.blocks(offset, len).map(|(_, bytes, len)| (bytes, len))
    }

    /// As [`pieces`](Self::pieces), to be written.
    ///
    /// # Panics
    /// If the range exceeds the buffer's length or a piece is read-only.
    #[inline]
    fn pieces_mut(&mut self, offset: usize, len: usize) -> impl Iterator<Item = (*mut u8, usize)> {
        self.blocks(offset, len).map(|(block, bytes, len)| {
            // Of segments before the range, nothing is touched.
            assert!(
                len == 0 || !block.is_read_only,
                "lent bytes cannot be written; copy them into a buffer of their own"
            );
            (bytes, len)
        })
    }

    /// The pieces that a range of bytes consists of, each with its block.
    #[inline]
    pub(super) fn blocks(
        &self,
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = (&Block, *mut u8, usize)> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "range of {len} bytes at {offset} exceeds the buffer's length of {}",
            self.len()
        );
        let (mut skip, mut left) = (offset, len);
        self.chain().map_while(move |buffer| {
            let block = buffer.block();
            let segment_len = block.segment_len as usize;
            let from = skip.min(segment_len);
            let here = left.min(segment_len - from);
            skip -= from;
            let more = left > 0;
            left -= here;
            // Inside the segment: `from` and `here` add up to its length at the most.
            more.then(|| (block, block.bytes.wrapping_add(from), here))
        })
    }

    /// The arena of a buffer of one segment that may be written; no arena for others.
    #[inline]
    pub(crate) fn single_in(&self) -> ArenaId {
        ArenaId(self.block().single_in)
    }

    /// What keeps the memory, if the buffer does not own its pages.
    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.block().keeper.as_deref()
    }

    /// Which device the buffer's memory is for.
    pub(crate) fn device_id(&self) -> DeviceId {
        self.inner().device
    }
}

/// The segments of a buffer, one after the other, as buffers.
struct Parts(Option<DmaBuffer>);

impl Iterator for Parts {
    type Item = DmaBuffer;

    fn next(&mut self) -> Option<DmaBuffer> {
        let mut first = self.0.take()?;
        let block = first.block_mut();
        self.0 = block.rest.take();
        block.len = block.segment_len;
        if !block.is_read_only {
            block.single_in = block.arena;
        }
        Some(first)
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        // One after the other, not one inside the other: there may be many.
        let mut rest = mem::take(&mut self.block_mut().rest);
        while let Some(mut next) = rest {
            rest = mem::take(&mut next.block_mut().rest);
        }
        let block = self.block();
        // SAFETY: the pointer came from `Arc::into_raw` when the buffer was made, and its strong
        // count is taken back only here.
        let arena = unsafe { Arc::from_raw(block.arena) };
        if block.keeper.is_some() {
            // SAFETY: a block with a keeper was a box (`over_kept`), which this buffer alone has
            // had since, and it is not used after this.
            drop(unsafe { Box::from_raw(self.block.as_ptr()) });
            return;
        }
        let page = (block.bytes.addr() - arena.memory.as_ptr().addr()) / PAGE;
        arena.give(page as u32, block.capacity / PAGE as u32);
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer")
            .field("len", &self.len())
            .field("segments", &self.segments().collect::<Vec<_>>())
            .finish()
    }
}
