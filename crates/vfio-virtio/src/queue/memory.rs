#![expect(
    unsafe_code,
    reason = "reads and writes rings in memory that a device reaches"
)]
//! The memory of a split virtqueue (VIRTIO 1.3, 2.7) and of its requests.
//!
//! One buffer of the arena holds the descriptor table, the available ring, the used ring and, for
//! each slot, the small parts of a request: an indirect table of three descriptors, the head that
//! the device reads and the tail that it writes. A slot's table and head share a cache line; its
//! tail lies in the next one, so that the device's write does not take the first away.
//!
//! Every access goes through the methods here, which touch memory only inside that buffer:
//! [`QueueMemory`] masks each index, and a [`SlotMemory`] points to one slot for good. No reference
//! to the memory is made. Values that the device wrote are returned as they are; it is the caller
//! who judges them.

use std::{
    mem::offset_of,
    ptr,
    sync::atomic::{AtomicU16, Ordering},
};

use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};

use crate::{DmaArena, DmaBuffer, Iova, Result, transport::RingAddresses};

/// The length of a request's head, which the device reads.
const HEAD_LEN: u32 = 16;
/// The greatest length of a request's tail, which the device writes: a le64 and a status byte.
pub(super) const TAIL_LEN_MAX: u32 = 9;

pub(super) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// What a slot's request consists of besides its data.
#[repr(C, align(64))]
struct SlotLines {
    table: [Descriptor; 3],
    head: [u64; 2],
    /// The tail: the device is shown the last bytes of these nine, so that the status is always
    /// found at the same place.
    value: u64,
    status: u8,
}

/// The distance from a slot's first byte to the end of its tail.
const TAIL_END: usize = offset_of!(SlotLines, status) + 1;

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(offset_of!(SlotLines, value) == 64);
const _: () = assert!(size_of::<SlotLines>() == 128);
const _: () = assert!(TAIL_END - offset_of!(SlotLines, value) == TAIL_LEN_MAX as usize);

/// Where a request's descriptors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chains {
    /// Each ring descriptor points to its slot's table: as many requests as descriptors.
    Indirect,
    /// Each slot owns three ring descriptors: a third as many requests.
    Direct,
}

/// The memory of a queue.
pub(crate) struct QueueMemory {
    /// The elements of the rings, and the fields around them.
    available: *mut u16,
    available_index: *mut u16,
    used: *mut u64,
    used_index: *mut u16,
    available_event: *mut u16,
    used_event: *mut u16,
    /// One less than the size, a power of two.
    mask: usize,
    size: u16,
    base: *mut u8,
    base_iova: Iova,
    layout: Layout,
    /// `None` once [`take_buffer`](Self::take_buffer) has ended the queue.
    buffer: Option<DmaBuffer>,
}

// SAFETY: the raw pointers point into `buffer`, which this value owns and which may be sent; they
// are used only by methods that take `&self` or `&mut self`, never from two threads at once,
// because the type is not `Sync`.
unsafe impl Send for QueueMemory {}

/// The memory of one slot.
///
/// It is only valid together with the [`QueueMemory`] that made it, and there is one for each slot;
/// the queue that holds them all sees to both.
pub(super) struct SlotMemory {
    lines: *mut SlotLines,
    /// The slot's second descriptor, which the third follows.
    chain: *mut Descriptor,
}

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for SlotMemory {}

/// What is added to an address of this process, wrapping, to make it the device's.
#[derive(Clone, Copy)]
pub(super) struct Displacement(u64);

/// Offsets inside the buffer.
#[derive(Clone, Copy)]
struct Layout {
    available: usize,
    used: usize,
    slots: usize,
    len: usize,
}

impl Layout {
    fn new(size: usize) -> Self {
        let available = size * size_of::<Descriptor>();
        // flags, idx, ring, used_event.
        let available_end = available + 2 + 2 + 2 * size + 2;
        // flags, idx, ring, avail_event. Four past a multiple of eight, so that the elements,
        // which begin four bytes in, can be read with one aligned access each.
        let used = available_end.next_multiple_of(64) + 4;
        let used_end = used + 2 + 2 + 8 * size + 2;
        let slots = used_end.next_multiple_of(align_of::<SlotLines>());
        Self {
            available,
            used,
            slots,
            len: slots + size * size_of::<SlotLines>(),
        }
    }
}

impl QueueMemory {
    pub(crate) fn allocate(arena: &DmaArena, size: u16) -> Result<Self> {
        let layout = Layout::new(size.into());
        let mut buffer = arena.allocate(layout.len)?;
        buffer.fill(0);
        let base = buffer.as_ptr();
        let at = |offset: usize| {
            assert!(offset < layout.len);
            // SAFETY: inside the buffer, as just checked.
            unsafe { base.add(offset) }
        };
        Ok(Self {
            available: at(layout.available + 4).cast(),
            available_index: at(layout.available + 2).cast(),
            used: at(layout.used + 4).cast(),
            used_index: at(layout.used + 2).cast(),
            available_event: at(layout.used + 4 + 8 * usize::from(size)).cast(),
            used_event: at(layout.available + 4 + 2 * usize::from(size)).cast(),
            mask: usize::from(size - 1),
            size,
            base,
            base_iova: buffer.iova(),
            layout,
            buffer: Some(buffer),
        })
    }

    /// Ends the queue and yields its memory, which the device may use until its reset. No other
    /// method may be called after this one.
    pub(crate) fn take_buffer(&mut self) -> Option<DmaBuffer> {
        self.buffer.take()
    }

    pub(super) fn displacement(&self) -> Displacement {
        Displacement(self.base_iova.0.wrapping_sub(self.base.addr() as u64))
    }

    pub(crate) fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: self.iova(0),
            driver: self.iova(self.layout.available),
            device: self.iova(self.layout.used),
        }
    }

    /// Writes what never changes about each slot's chain and yields the slots. Called once.
    pub(super) fn prepare(&mut self, chains: Chains) -> Vec<SlotMemory> {
        let count = match chains {
            Chains::Indirect => self.size,
            Chains::Direct => self.size / 3,
        };
        (0..count)
            .map(|slot| self.prepare_slot(slot, count, chains))
            .collect()
    }

    fn prepare_slot(&mut self, slot: u16, count: u16, chains: Chains) -> SlotMemory {
        const STEP: usize = size_of::<Descriptor>();
        let lines = self.layout.slots + usize::from(slot) * size_of::<SlotLines>();
        let head = |next| Descriptor {
            address: self.iova(lines + offset_of!(SlotLines, head)).0.to_le(),
            len: HEAD_LEN.to_le(),
            flags: NEXT.to_le(),
            next: u16::to_le(next),
        };
        // Where the chain continues after the head, and under which number.
        let in_ring = usize::from(slot) * STEP;
        let (chain, next) = match chains {
            Chains::Indirect => {
                let table = Descriptor {
                    address: self.iova(lines).0.to_le(),
                    // A chain may end before its table does.
                    len: (size_of::<[Descriptor; 3]>() as u32).to_le(),
                    flags: INDIRECT.to_le(),
                    next: 0,
                };
                self.put(in_ring, table);
                self.put(lines, head(1));
                (lines + STEP, 1)
            }
            Chains::Direct => {
                let second = count + 2 * slot;
                self.put(in_ring, head(second));
                (usize::from(second) * STEP, second)
            }
        };
        let link = |next, flags: u16| Descriptor {
            address: 0,
            len: 0,
            flags: flags.to_le(),
            next: u16::to_le(next),
        };
        self.put(chain, link(next + 1, 0));
        self.put(chain + STEP, link(0, WRITE));
        assert!(lines + size_of::<SlotLines>() <= self.layout.len);
        SlotMemory {
            // SAFETY: inside the buffer, as just checked.
            lines: unsafe { self.base.add(lines) }.cast(),
            // SAFETY: inside the buffer, as `put` has checked.
            chain: unsafe { self.base.add(chain) }.cast(),
        }
    }

    /// Puts `slot` into the available ring at `index`, which wraps.
    #[inline(always)]
    pub(super) fn set_available(&mut self, index: u16, slot: u16) {
        let at = usize::from(index) & self.mask;
        // SAFETY: the index is masked, so the element lies in the ring.
        unsafe { self.available.add(at).write_volatile(slot.to_le()) }
    }

    /// Makes the elements of the available ring below `index` visible to the device.
    #[inline]
    pub(super) fn publish(&mut self, index: u16) {
        // Release: whoever sees the index sees the elements and the requests that they name.
        self.atomic(self.available_index)
            .store(index.to_le(), Ordering::Release);
    }

    /// The index up to which the device has used requests.
    #[inline]
    pub(super) fn used_index(&self) -> u16 {
        // Acquire: what the device wrote before the index is seen after it.
        u16::from_le(self.atomic(self.used_index).load(Ordering::Acquire))
    }

    /// The used element at `index`, which wraps: a descriptor id and a length.
    #[inline(always)]
    pub(super) fn used_element(&self, index: u16) -> (u32, u32) {
        let at = usize::from(index) & self.mask;
        // SAFETY: the index is masked, so the element lies in the ring; `Layout` aligns it.
        let element = u64::from_le(unsafe { self.used.add(at).read_volatile() });
        (element as u32, (element >> 32) as u32)
    }

    /// The available index at which the device wants to be notified (EVENT_IDX).
    #[inline]
    pub(super) fn available_event(&self) -> u16 {
        u16::from_le(self.atomic(self.available_event).load(Ordering::Relaxed))
    }

    /// Whether the device wants to be notified at all (without EVENT_IDX).
    #[inline]
    pub(super) fn wants_notification(&self) -> bool {
        let flags = u16::from_le(
            self.atomic(self.flags(self.layout.used))
                .load(Ordering::Relaxed),
        );
        flags & VRING_USED_F_NO_NOTIFY as u16 == 0
    }

    /// Asks for an interrupt when the used index passes `index` (EVENT_IDX).
    #[inline]
    pub(super) fn set_used_event(&mut self, index: u16) {
        self.atomic(self.used_event)
            .store(index.to_le(), Ordering::Relaxed);
    }

    /// Asks for interrupts or for none (without EVENT_IDX).
    pub(super) fn set_interrupts(&mut self, wanted: bool) {
        let flags = if wanted {
            0
        } else {
            VRING_AVAIL_F_NO_INTERRUPT as u16
        };
        self.atomic(self.flags(self.layout.available))
            .store(flags.to_le(), Ordering::Relaxed);
    }

    /// The flags that begin a ring.
    fn flags(&self, ring: usize) -> *mut u16 {
        assert!(ring + 2 <= self.layout.len);
        // SAFETY: inside the buffer, as just checked.
        unsafe { self.base.add(ring) }.cast()
    }

    #[inline]
    fn atomic(&self, field: *mut u16) -> &AtomicU16 {
        // SAFETY: all callers pass a field of this queue's rings, which `Layout` placed at an even
        // offset inside the page-aligned buffer. An atomic may be changed by others at any time.
        unsafe { AtomicU16::from_ptr(field) }
    }

    fn put(&self, at: usize, descriptor: Descriptor) {
        assert!(at + size_of::<Descriptor>() <= self.layout.len);
        // SAFETY: inside the buffer, and aligned: all offsets of descriptors are multiples of 16.
        unsafe { ptr::write_volatile(self.base.add(at).cast(), descriptor) }
    }

    #[inline]
    fn iova(&self, offset: usize) -> Iova {
        Iova(self.base_iova.0 + offset as u64)
    }
}

impl SlotMemory {
    /// Writes a request: its head, its data if there are any (address, length, flags besides NEXT)
    /// and its tail of `tail_len` bytes, whose status is set to `status`.
    #[inline(always)]
    pub(super) fn write(
        &mut self,
        head: [u64; 2],
        data: Option<(Iova, u32, u16)>,
        tail_len: u32,
        status: u8,
        displacement: Displacement,
    ) {
        let tail_end = self.lines.addr() as u64 + TAIL_END as u64;
        let tail = tail_end
            .wrapping_add(displacement.0)
            .wrapping_sub(tail_len.into());
        // SAFETY: the pointers lie inside the queue's memory for as long as this value exists (see
        // the type). `&mut self` makes this the only access of this process, and the device does
        // not read a slot before it has been published.
        unsafe {
            (&raw mut (*self.lines).head[0]).write_volatile(head[0].to_le());
            (&raw mut (*self.lines).head[1]).write_volatile(head[1].to_le());
            (&raw mut (*self.lines).status).write_volatile(status);
            let last = match data {
                Some((address, len, flags)) => {
                    (&raw mut (*self.chain).address).write_volatile(address.0.to_le());
                    (&raw mut (*self.chain).len).write_volatile(len.to_le());
                    (&raw mut (*self.chain).flags).write_volatile((flags | NEXT).to_le());
                    self.chain.add(1)
                }
                None => {
                    (&raw mut (*self.chain).flags).write_volatile(WRITE.to_le());
                    self.chain
                }
            };
            (&raw mut (*last).address).write_volatile(tail.to_le());
            (&raw mut (*last).len).write_volatile(tail_len.to_le());
        }
    }

    /// The status byte that ends the tail.
    #[inline(always)]
    pub(super) fn status(&self) -> u8 {
        // SAFETY: as in `write`.
        unsafe { (&raw const (*self.lines).status).read_volatile() }
    }

    /// The le64 before the status byte.
    #[inline(always)]
    pub(super) fn value(&self) -> u64 {
        // SAFETY: as in `write`.
        u64::from_le(unsafe { (&raw const (*self.lines).value).read_volatile() })
    }
}
