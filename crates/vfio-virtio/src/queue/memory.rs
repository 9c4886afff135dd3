#![expect(
    unsafe_code,
    reason = "reads and writes rings in memory that a device reaches"
)]
//! The memory of a split virtqueue (VIRTIO 1.3, 2.7) and of its requests.
//!
//! One buffer of the arena holds the descriptor table, the available ring, the used ring and, for
//! each slot, the small parts of a request: an indirect table of three descriptors, the head that
//! the device reads and the tail that it writes. A slot's table and head share a cache line; its
//! tail lies elsewhere, so that the device's writes do not take that line away.
//!
//! Every access goes through the methods here, which touch memory only inside that buffer: each
//! masks or asserts its index. No reference to the memory is made. Values that the device wrote
//! are returned as they are; it is the caller who judges them.

use std::{
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

/// What a slot's request consists of besides its data. 64 bytes, one cache line.
#[repr(C, align(64))]
struct SlotLine {
    table: [Descriptor; 3],
    head: [u64; 2],
}

/// 16 bytes, of which the last [`TAIL_LEN_MAX`] before `pad` are shown to the device: a shorter
/// tail ends at the same byte, so the status is always found there.
#[repr(C, align(16))]
struct SlotTail {
    value: u64,
    status: u8,
    pad: [u8; 7],
}

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(size_of::<SlotLine>() == 64);
const _: () = assert!(size_of::<SlotTail>() == 16);

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
    /// `None` once [`take_buffer`](Self::take_buffer) has ended the queue.
    buffer: Option<DmaBuffer>,
    base: *mut u8,
    base_iova: Iova,
    size: u16,
    mask: u16,
    layout: Layout,
    /// Where a slot's second descriptor is: `chain + slot * chain_stride`. The third follows it.
    chain: *mut u8,
    chain_stride: usize,
}

// SAFETY: the raw pointers point into `buffer`, which this value owns and which may be sent; they
// are used only by methods that take `&self` or `&mut self`, never from two threads at once,
// because the type is not `Sync`.
unsafe impl Send for QueueMemory {}

/// Offsets inside the buffer.
#[derive(Clone, Copy)]
struct Layout {
    available: usize,
    used: usize,
    lines: usize,
    tails: usize,
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
        let lines = used_end.next_multiple_of(64);
        let tails = lines + size * size_of::<SlotLine>();
        let len = tails + size * size_of::<SlotTail>();
        Self {
            available,
            used,
            lines,
            tails,
            len,
        }
    }
}

impl QueueMemory {
    pub(crate) fn allocate(arena: &DmaArena, size: u16) -> Result<Self> {
        let layout = Layout::new(size.into());
        let mut buffer = arena.allocate(layout.len)?;
        buffer.fill(0);
        let base = buffer.as_ptr();
        Ok(Self {
            base,
            base_iova: buffer.iova(),
            buffer: Some(buffer),
            size,
            mask: size - 1,
            layout,
            chain: base,
            chain_stride: 0,
        })
    }

    /// Ends the queue and yields its memory, which the device may use until its reset. No other
    /// method may be called after this one.
    pub(crate) fn take_buffer(&mut self) -> Option<DmaBuffer> {
        self.buffer.take()
    }

    pub(crate) fn addresses(&self) -> RingAddresses {
        RingAddresses {
            descriptors: self.iova(0),
            driver: self.iova(self.layout.available),
            device: self.iova(self.layout.used),
        }
    }

    /// Writes what never changes about each slot's chain and returns the number of slots.
    pub(crate) fn prepare(&mut self, chains: Chains) -> u16 {
        let slots = match chains {
            Chains::Indirect => self.size,
            Chains::Direct => self.size / 3,
        };
        let line = |slot: u16| self.layout.lines + usize::from(slot) * size_of::<SlotLine>();
        // Offsets of the second descriptor of slot 0 and from one slot's to the next one's.
        let (chain, stride) = match chains {
            Chains::Indirect => (line(0) + size_of::<Descriptor>(), size_of::<SlotLine>()),
            Chains::Direct => (usize::from(slots) * 16, 2 * size_of::<Descriptor>()),
        };
        // SAFETY: both cases name the second of a slot's descriptors inside the buffer.
        self.chain = unsafe { self.base.add(chain) };
        self.chain_stride = stride;
        for slot in 0..slots {
            let head = |next| Descriptor {
                address: self.iova(line(slot) + 48).0.to_le(),
                len: HEAD_LEN.to_le(),
                flags: NEXT.to_le(),
                next: u16::to_le(next),
            };
            let ring_at = usize::from(slot) * size_of::<Descriptor>();
            let second = match chains {
                Chains::Indirect => {
                    let table = Descriptor {
                        address: self.iova(line(slot)).0.to_le(),
                        len: (size_of::<[Descriptor; 3]>() as u32).to_le(),
                        flags: INDIRECT.to_le(),
                        next: 0,
                    };
                    self.put(ring_at, table);
                    self.put(line(slot), head(1));
                    1
                }
                Chains::Direct => {
                    self.put(ring_at, head(slots + 2 * slot));
                    slots + 2 * slot
                }
            };
            let link = |next, flags: u16| Descriptor {
                address: 0,
                len: 0,
                flags: flags.to_le(),
                next: u16::to_le(next),
            };
            self.put(chain + usize::from(slot) * stride, link(second + 1, 0));
            self.put(chain + usize::from(slot) * stride + 16, link(0, WRITE));
        }
        slots
    }

    /// Writes the request of `slot`: its head, its data if there are any (address, length, flags
    /// besides NEXT) and its tail of `tail_len` bytes, whose status is set to `status`.
    ///
    /// # Panics
    /// If `slot` is not one of the queue's.
    #[inline]
    pub(super) fn write_request(
        &mut self,
        slot: u16,
        head: [u64; 2],
        data: Option<(Iova, u32, u16)>,
        tail_len: u32,
        status: u8,
    ) {
        assert!(slot < self.size && (1..=TAIL_LEN_MAX).contains(&tail_len));
        let slot = usize::from(slot);
        let tail_at = self.layout.tails + slot * size_of::<SlotTail>();
        let tail_address = self.iova(tail_at).0 + u64::from(TAIL_LEN_MAX - tail_len);
        // SAFETY: `slot` was checked against the size for which the buffer was laid out, so the
        // slot's line, tail and chain lie inside it; `&mut self` makes this the only access of
        // this process, and the device does not read a slot before it has been published.
        unsafe {
            let line = self
                .base
                .add(self.layout.lines)
                .cast::<SlotLine>()
                .add(slot);
            (&raw mut (*line).head).write_volatile([head[0].to_le(), head[1].to_le()]);
            let tail = self.base.add(tail_at).cast::<SlotTail>();
            (&raw mut (*tail).status).write_volatile(status);
            let second = self
                .chain
                .add(slot * self.chain_stride)
                .cast::<Descriptor>();
            let last = match data {
                Some((address, len, flags)) => {
                    (&raw mut (*second).address).write_volatile(address.0.to_le());
                    (&raw mut (*second).len).write_volatile(len.to_le());
                    (&raw mut (*second).flags).write_volatile((flags | NEXT).to_le());
                    second.add(1)
                }
                None => {
                    (&raw mut (*second).flags).write_volatile(WRITE.to_le());
                    second
                }
            };
            (&raw mut (*last).address).write_volatile(tail_address.to_le());
            (&raw mut (*last).len).write_volatile(tail_len.to_le());
        }
    }

    /// The status byte that ends the tail of `slot`.
    #[inline]
    pub(super) fn status(&self, slot: u16) -> u8 {
        // SAFETY: `tail` returns a pointer inside the buffer.
        unsafe { (&raw const (*self.tail(slot)).status).read_volatile() }
    }

    /// The le64 before the status byte of `slot`.
    #[inline]
    pub(super) fn value(&self, slot: u16) -> u64 {
        // SAFETY: as in `status`.
        u64::from_le(unsafe { (&raw const (*self.tail(slot)).value).read_volatile() })
    }

    #[inline]
    fn tail(&self, slot: u16) -> *const SlotTail {
        let at = self.layout.tails + usize::from(slot & self.mask) * size_of::<SlotTail>();
        // SAFETY: the slot is masked to the size for which the buffer was laid out.
        unsafe { self.base.add(at).cast() }
    }

    /// Puts `slot` into the available ring at `index`, which wraps.
    #[inline]
    pub(super) fn set_available(&mut self, index: u16, slot: u16) {
        let at = self.layout.available + 4 + 2 * usize::from(index & self.mask);
        // SAFETY: the index is masked, so the element lies in the ring; it is aligned as the ring.
        unsafe { self.base.add(at).cast::<u16>().write_volatile(slot.to_le()) }
    }

    /// Makes the elements of the available ring below `index` visible to the device.
    #[inline]
    pub(super) fn publish(&mut self, index: u16) {
        // Release: whoever sees the index sees the elements and the requests that they name.
        self.atomic(self.layout.available + 2)
            .store(index.to_le(), Ordering::Release);
    }

    /// The index up to which the device has used requests.
    #[inline]
    pub(super) fn used_index(&self) -> u16 {
        // Acquire: what the device wrote before the index is seen after it.
        u16::from_le(self.atomic(self.layout.used + 2).load(Ordering::Acquire))
    }

    /// The used element at `index`, which wraps: a descriptor id and a length.
    #[inline]
    pub(super) fn used_element(&self, index: u16) -> (u32, u32) {
        let at = self.layout.used + 4 + 8 * usize::from(index & self.mask);
        // SAFETY: the index is masked, so the element lies in the ring; `Layout` aligns it.
        let element = u64::from_le(unsafe { self.base.add(at).cast::<u64>().read_volatile() });
        (element as u32, (element >> 32) as u32)
    }

    /// The available index at which the device wants to be notified (EVENT_IDX).
    #[inline]
    pub(super) fn available_event(&self) -> u16 {
        let at = self.layout.used + 4 + 8 * usize::from(self.size);
        u16::from_le(self.atomic(at).load(Ordering::Relaxed))
    }

    /// Whether the device wants to be notified at all (without EVENT_IDX).
    #[inline]
    pub(super) fn wants_notification(&self) -> bool {
        let flags = u16::from_le(self.atomic(self.layout.used).load(Ordering::Relaxed));
        flags & VRING_USED_F_NO_NOTIFY as u16 == 0
    }

    /// Asks for an interrupt when the used index passes `index` (EVENT_IDX).
    #[inline]
    pub(super) fn set_used_event(&mut self, index: u16) {
        let at = self.layout.available + 4 + 2 * usize::from(self.size);
        self.atomic(at).store(index.to_le(), Ordering::Relaxed);
    }

    /// Asks for interrupts or for none (without EVENT_IDX).
    pub(super) fn set_interrupts(&mut self, wanted: bool) {
        let flags = if wanted {
            0
        } else {
            VRING_AVAIL_F_NO_INTERRUPT as u16
        };
        self.atomic(self.layout.available)
            .store(flags.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn atomic(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at + 2 <= self.layout.len && at.is_multiple_of(2));
        // SAFETY: all callers pass an even offset that `Layout` placed inside the buffer, whose
        // base is page-aligned. An atomic may be changed by others at any time.
        unsafe { AtomicU16::from_ptr(self.base.add(at).cast()) }
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
