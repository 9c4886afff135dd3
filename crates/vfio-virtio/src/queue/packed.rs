#![expect(
    unsafe_code,
    reason = "reads and writes rings in memory that a device reaches"
)]
//! The packed ring (VIRTIO 1.3, 2.8): one ring of descriptors that both sides write.
//!
//! Each side walks the ring and keeps a wrap counter, which flips with each lap. A descriptor is
//! available when its AVAIL bit is the driver's counter and its USED bit is not, and used when both
//! are the device's. The bits say whether everything else of the descriptor is valid, so they are
//! written last; of a batch only the first descriptor's are, because the device does not look past
//! one that is not available.

use std::{
    mem, ptr,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence},
};

use virtio_bindings::virtio_ring::{
    VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_F_WRAP_CTR,
    VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE,
};

use super::memory::{INDIRECT, QueueMemory, WRITE};
use crate::Iova;

const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
const EVENT_WRAP: u16 = 1 << VRING_PACKED_EVENT_F_WRAP_CTR;

/// A descriptor as both sides write it.
#[repr(C)]
struct Element {
    address: u64,
    len: u32,
    id: u16,
    flags: u16,
}

/// Where the id and the flags are in an element's second half, taken as one le64.
const ID_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 48;

/// The bits that make an element available while the driver's wrap counter is 1, as it is in the
/// first lap. The other way round, they do so while it is 0.
const AVAILABLE: u64 = (AVAIL as u64) << FLAGS_SHIFT;
const BOTH: u64 = ((AVAIL | USED) as u64) << FLAGS_SHIFT;
/// Bits that no element has.
const NO_BITS: u16 = 1;
/// Goes with the bits, because most elements are indirect.
const INDIRECT_BIT: u64 = (INDIRECT as u64) << FLAGS_SHIFT;

/// A packed ring.
///
/// It is only valid together with the [`QueueMemory`] that it was made of. All pointers to elements
/// lead into its ring, but for `end`.
pub(super) struct PackedRing {
    first: *mut Element,
    /// Behind the last.
    end: *mut Element,
    driver_event: *mut u32,
    device_event: *mut u32,
    /// The next element to be made available, the bits that do so, and the wrap counter as event
    /// structures have it.
    available: *mut Element,
    available_bits: u64,
    available_wrap: u16,
    /// The next element that the device will use, and the bits that say that it has.
    used: *mut Element,
    used_bits: u16,
    /// The bits that [`used`](Self::used) looks for.
    sought_bits: u16,
    /// The first element that was written since the last [`publish`](Self::publish), whose second
    /// half is still to be written; null if there is none.
    held: *mut Element,
    held_half: u64,
}

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// A ring whose elements are used one by one, or `in_order`.
    pub(super) fn new(memory: &QueueMemory, in_order: bool) -> Self {
        let first: *mut Element = memory.at(0).cast();
        Self {
            first,
            end: first.wrapping_add(memory.size().into()),
            driver_event: memory.at(memory.layout().driver).cast(),
            device_event: memory.at(memory.layout().device).cast(),
            available: first,
            available_bits: AVAILABLE | INDIRECT_BIT,
            available_wrap: EVENT_WRAP,
            used: first,
            used_bits: AVAIL | USED,
            sought_bits: if in_order { NO_BITS } else { AVAIL | USED },
            held: ptr::null_mut(),
            held_half: 0,
        }
    }

    /// Writes the next element, which points to a table. The device sees it after the next
    /// [`publish`](Self::publish).
    #[inline(always)]
    pub(super) fn put_table(&mut self, address: Iova, len: u32, id: u16) {
        let named = u64::from(len) | u64::from(id) << ID_SHIFT;
        self.write(address, named | self.available_bits);
    }

    /// Writes the next element, which points to a part of a request; otherwise as
    /// [`put_table`](Self::put_table).
    #[inline]
    pub(super) fn put(&mut self, address: Iova, len: u32, id: u16, flags: u16) {
        let named = u64::from(len) | u64::from(id) << ID_SHIFT;
        let flags = u64::from(flags) << FLAGS_SHIFT;
        self.write(address, named | flags | self.available_bits & !INDIRECT_BIT);
    }

    #[inline(always)]
    fn write(&mut self, address: Iova, half: u64) {
        let element = self.available;
        // SAFETY: an element of this ring, aligned. `&mut self` makes this the only access of this
        // process, and the device does not read the element while its bits say that it is not
        // available.
        unsafe { (&raw mut (*element).address).write_volatile(address.0.to_le()) }
        if self.held.is_null() {
            self.held = element;
            self.held_half = half;
        } else {
            // SAFETY: as above. The second half is aligned as the first.
            unsafe {
                let second = (&raw mut (*element).len).cast::<u64>();
                second.write_volatile(half.to_le());
            }
        }
        self.available = element.wrapping_add(1);
        if self.available == self.end {
            self.available = self.first;
            self.available_bits ^= BOTH;
            self.available_wrap ^= EVENT_WRAP;
        }
    }

    /// Makes what was written available. Yields the first of it, to be asked about.
    #[inline]
    pub(super) fn publish(&mut self) -> Published {
        let held = mem::replace(&mut self.held, ptr::null_mut());
        if !held.is_null() {
            // SAFETY: the second half of an element of this ring, aligned to 8. An atomic may be
            // changed by others at any time.
            let half = unsafe { AtomicU64::from_ptr((&raw mut (*held).len).cast()) };
            // Release: whoever sees these bits sees this element, those behind it, and the
            // requests that they stand for.
            half.store(self.held_half.to_le(), Ordering::Release);
        }
        Published(held)
    }

    /// Whether the device wants to be told of what was published. The caller has run a full fence
    /// since.
    #[inline]
    pub(super) fn wants_notification(&self, event_idx: bool, published: Published) -> bool {
        let event = u32::from_le(self.event(self.device_event).load(Ordering::Relaxed));
        match (event >> 16) & 3 {
            VRING_PACKED_EVENT_FLAG_DISABLE => false,
            VRING_PACKED_EVENT_FLAG_DESC if event_idx => self.passed(event as u16, published),
            _ => true,
        }
    }

    /// Whether the place `event` is among those that were published.
    #[inline]
    fn passed(&self, event: u16, Published(begin): Published) -> bool {
        let offset = |element: *mut Element| element.addr() - self.first.addr();
        let (begin, end) = (offset(begin), offset(self.available));
        // In the present lap, that is the offset; in the other, it is beyond all offsets.
        let event = usize::from(event ^ self.available_wrap) * size_of::<Element>();
        if begin < end {
            return (begin..end).contains(&event);
        }
        // The batch began in the lap before.
        let before = event ^ (usize::from(EVENT_WRAP) * size_of::<Element>());
        event < end || (begin..offset(self.end)).contains(&before)
    }

    /// The next place, as notifications have it.
    #[inline]
    pub(super) fn position(&self) -> u16 {
        self.index(self.available) | self.available_wrap
    }

    /// What the device has used next, if it has: an id and a length. Of a ring that is used in
    /// order that is [`used_in_order`](Self::used_in_order), and this finds nothing.
    #[inline(always)]
    pub(super) fn used(&self) -> Option<(u32, u32)> {
        self.seek(self.sought_bits)
    }

    /// What the device has used next, if it has.
    pub(super) fn used_in_order(&self) -> Option<(u32, u32)> {
        self.seek(self.used_bits)
    }

    #[inline(always)]
    fn seek(&self, bits: u16) -> Option<(u32, u32)> {
        // SAFETY: the flags of an element of this ring, aligned to 2. An atomic may be changed by
        // others at any time.
        let flags = unsafe { AtomicU16::from_ptr(&raw mut (*self.used).flags) };
        // Acquire: what the device wrote before the flags is seen after them.
        let flags = u16::from_le(flags.load(Ordering::Acquire));
        if flags & (AVAIL | USED) != bits {
            return None;
        }
        // SAFETY: an element of this ring, aligned; no reference to it is made.
        let (id, len) = unsafe {
            (
                u16::from_le((&raw const (*self.used).id).read_volatile()),
                u32::from_le((&raw const (*self.used).len).read_volatile()),
            )
        };
        // Without WRITE the length has no meaning (VIRTIO 1.3, 2.8.4 and 2.8.5).
        let len = if flags & WRITE != 0 { len } else { 0 };
        Some((id.into(), len))
    }

    /// Leaves `count` used elements behind, at most a lap.
    #[inline(always)]
    pub(super) fn advance(&mut self, count: u16) {
        self.used = self.used.wrapping_add(count.into());
        if self.used >= self.end {
            self.used = self.used.wrapping_sub(self.size().into());
            self.used_bits ^= AVAIL | USED;
            if self.sought_bits != NO_BITS {
                self.sought_bits = self.used_bits;
            }
        }
    }

    /// Asks for an interrupt when the device uses the next request. True if it has not yet: only
    /// then will the interrupt come.
    pub(super) fn arm(&mut self, event_idx: bool) -> bool {
        if event_idx {
            let wrap = if self.used_bits == 0 { 0 } else { EVENT_WRAP };
            let place = self.index(self.used) | wrap;
            self.set_driver_event(place, VRING_PACKED_EVENT_FLAG_DESC);
        } else {
            self.set_driver_event(0, VRING_PACKED_EVENT_FLAG_ENABLE);
        }
        // The wish must be visible before the ring is looked at; the device does the reverse.
        fence(Ordering::SeqCst);
        self.used_in_order().is_none()
    }

    /// Asks for no interrupts.
    pub(super) fn disarm(&mut self) {
        self.set_driver_event(0, VRING_PACKED_EVENT_FLAG_DISABLE);
    }

    fn set_driver_event(&self, place: u16, flags: u32) {
        let event = u32::from(place) | flags << 16;
        self.event(self.driver_event)
            .store(event.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn size(&self) -> u16 {
        self.index(self.end)
    }

    #[inline]
    fn index(&self, element: *mut Element) -> u16 {
        ((element.addr() - self.first.addr()) / size_of::<Element>()) as u16
    }

    #[inline]
    fn event(&self, event: *mut u32) -> &AtomicU32 {
        // SAFETY: both callers pass an event structure of this ring, which `Layout` placed at a
        // line of its own. An atomic may be changed by others at any time.
        unsafe { AtomicU32::from_ptr(event) }
    }
}

/// The first element that was published together with others.
#[derive(Clone, Copy)]
pub(super) struct Published(*mut Element);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DmaArena, queue::Format};

    /// The place that is reached after `count` elements, as an event has it.
    fn place(count: usize, size: usize) -> u16 {
        let wrap = if (count / size).is_multiple_of(2) {
            EVENT_WRAP
        } else {
            0
        };
        (count % size) as u16 | wrap
    }

    #[test]
    fn an_event_is_passed_exactly_when_it_lies_in_what_was_published() {
        let arena = DmaArena::detached(2 << 20).unwrap();
        for size in [1, 2, 3, 5, 8, 255] {
            for batch in 1..=size {
                let memory = QueueMemory::allocate(&arena, Format::Packed, size as u16).unwrap();
                let mut ring = PackedRing::new(&memory, false);
                let mut begin = 0;
                while begin < 4 * size {
                    assert_eq!(ring.position(), place(begin, size));
                    for id in 0..batch {
                        ring.put(Iova(0), 0, id as u16, 0);
                    }
                    let published = ring.publish();
                    let end = begin + batch;
                    // What the device may ask for: places at most a lap behind what it knew, or
                    // ahead of it.
                    for event in end.saturating_sub(size)..begin + size {
                        assert_eq!(
                            ring.passed(place(event, size), published),
                            (begin..end).contains(&event),
                            "{event} in {begin}..{end} of {size}"
                        );
                    }
                    begin = end;
                }
            }
        }
    }
}
