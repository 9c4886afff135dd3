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

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use virtio_bindings::virtio_ring::{
    VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_F_WRAP_CTR,
    VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE,
};

use super::memory::{Descriptors, QueueMemory, WRITE};
use crate::Iova;

const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
const EVENT_WRAP: u16 = 1 << VRING_PACKED_EVENT_F_WRAP_CTR;

/// Where the last words of a descriptor are in its second half: le32 len, le16 id, le16 flags.
const ID_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 48;

/// A place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u16,
    /// The wrap counter, as the bits that it sets.
    bits: u16,
}

impl Place {
    /// The place `count` descriptors on, at most a lap.
    #[inline(always)]
    fn advance(&mut self, count: u16, size: u16) {
        // No overflow: a ring has at most 32,768 descriptors.
        self.index += count;
        if self.index >= size {
            self.index -= size;
            self.bits ^= AVAIL | USED;
        }
    }

    /// The place as event structures and notifications have it: le15 offset, one bit wrap counter.
    fn offset_and_wrap(self, wrapped: u16) -> u16 {
        match self.bits == wrapped {
            true => self.index | EVENT_WRAP,
            false => self.index,
        }
    }
}

/// The bits of the first lap, in which the wrap counters are 1.
const AVAILABLE_IN_FIRST_LAP: u16 = AVAIL;
const USED_IN_FIRST_LAP: u16 = AVAIL | USED;

/// A packed ring.
///
/// It is only valid together with the [`QueueMemory`] that it was made of.
pub(super) struct PackedRing {
    descriptors: Descriptors,
    driver_event: *mut u32,
    device_event: *mut u32,
    /// The next descriptor to be made available.
    available: Place,
    /// The next descriptor to be used by the device.
    used: Place,
    /// How many descriptors have been written since the last [`publish`](Self::publish).
    unpublished: u16,
    /// The first of them, whose second half is still to be written.
    first: u16,
    first_half: u64,
}

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for PackedRing {}

impl PackedRing {
    pub(super) fn new(memory: &QueueMemory) -> Self {
        assert!((1..=1 << 15).contains(&memory.size()));
        Self {
            descriptors: Descriptors::new(memory),
            driver_event: memory.at(memory.layout().driver).cast(),
            device_event: memory.at(memory.layout().device).cast(),
            available: Place {
                index: 0,
                bits: AVAILABLE_IN_FIRST_LAP,
            },
            used: Place {
                index: 0,
                bits: USED_IN_FIRST_LAP,
            },
            unpublished: 0,
            first: 0,
            first_half: 0,
        }
    }

    /// Writes the next descriptor. The device sees it after the next [`publish`](Self::publish).
    #[inline(always)]
    pub(super) fn put(&mut self, address: Iova, len: u32, id: u16, flags: u16) {
        let half = u64::from(len)
            | u64::from(id) << ID_SHIFT
            | u64::from(flags | self.available.bits) << FLAGS_SHIFT;
        let at = self.halves(self.available.index);
        // SAFETY: `halves` leads to a descriptor of this ring, aligned. `&mut self` makes this the
        // only access of this process, and the device does not read the descriptor while its bits
        // say that it is not available.
        unsafe { at.write_volatile(address.0.to_le()) }
        if self.unpublished == 0 {
            self.first = self.available.index;
            self.first_half = half;
        } else {
            // SAFETY: as above, the descriptor's second half.
            unsafe { at.add(1).write_volatile(half.to_le()) }
        }
        self.unpublished += 1;
        self.available.advance(1, self.descriptors.size());
    }

    /// Makes what was written available and yields how many descriptors that are.
    #[inline]
    pub(super) fn publish(&mut self) -> u16 {
        if self.unpublished > 0 {
            // Release: whoever sees these bits sees this descriptor, those behind it, and the
            // requests that they stand for.
            self.second_half(self.first)
                .store(self.first_half.to_le(), Ordering::Release);
        }
        std::mem::take(&mut self.unpublished)
    }

    /// Whether the device wants to be told of the last `added` descriptors. The caller has run a
    /// full fence since it published.
    #[inline]
    pub(super) fn wants_notification(&self, event_idx: bool, added: u16) -> bool {
        let event = u32::from_le(self.event(self.device_event).load(Ordering::Relaxed));
        let (offset, flags) = (event as u16, (event >> 16) as u16 & 3);
        match u32::from(flags) {
            VRING_PACKED_EVENT_FLAG_DISABLE => false,
            VRING_PACKED_EVENT_FLAG_DESC if event_idx => {
                let now = self.available.offset_and_wrap(AVAILABLE_IN_FIRST_LAP);
                passed(offset, now, added, self.descriptors.size())
            }
            _ => true,
        }
    }

    /// The next place, for notifications that carry it.
    pub(super) fn position(&self) -> u16 {
        self.available.offset_and_wrap(AVAILABLE_IN_FIRST_LAP)
    }

    /// What the device has used next, if it has: an id and a length.
    #[inline(always)]
    pub(super) fn used(&self) -> Option<(u32, u32)> {
        // Acquire: what the device wrote before the bits is seen after them.
        let half = u64::from_le(self.second_half(self.used.index).load(Ordering::Acquire));
        let flags = (half >> FLAGS_SHIFT) as u16;
        if flags & (AVAIL | USED) != self.used.bits {
            return None;
        }
        // Without WRITE the length has no meaning (VIRTIO 1.3, 2.8.4 and 2.8.5).
        let len = if flags & WRITE != 0 { half as u32 } else { 0 };
        Some((u32::from((half >> ID_SHIFT) as u16), len))
    }

    /// Leaves the next used request, which took `descriptors`, behind.
    #[inline(always)]
    pub(super) fn advance(&mut self, descriptors: u16) {
        self.used.advance(descriptors, self.descriptors.size());
    }

    /// Asks for an interrupt when the device uses the next request. True if it has not yet: only
    /// then will the interrupt come.
    pub(super) fn arm(&mut self, event_idx: bool) -> bool {
        let (offset, flags) = match event_idx {
            true => (
                self.used.offset_and_wrap(USED_IN_FIRST_LAP),
                VRING_PACKED_EVENT_FLAG_DESC,
            ),
            false => (0, VRING_PACKED_EVENT_FLAG_ENABLE),
        };
        self.set_driver_event(offset, flags);
        // The wish must be visible before the ring is looked at; the device does the reverse.
        fence(Ordering::SeqCst);
        self.used().is_none()
    }

    /// Asks for no interrupts.
    pub(super) fn disarm(&mut self) {
        self.set_driver_event(0, VRING_PACKED_EVENT_FLAG_DISABLE);
    }

    fn set_driver_event(&self, offset: u16, flags: u32) {
        let event = u32::from(offset) | flags << 16;
        self.event(self.driver_event)
            .store(event.to_le(), Ordering::Relaxed);
    }

    /// The two halves of the descriptor at `index`, which must be that of a place of this ring.
    #[inline(always)]
    fn halves(&self, index: u16) -> *mut u64 {
        debug_assert!(index < self.descriptors.size());
        // Inside the ring: `Place::advance` keeps indices below the size.
        self.descriptors.first().wrapping_add(index.into()).cast()
    }

    #[inline(always)]
    fn second_half(&self, index: u16) -> &AtomicU64 {
        // SAFETY: the second half of a descriptor of this ring, aligned to 8. An atomic may be
        // changed by others at any time.
        unsafe { AtomicU64::from_ptr(self.halves(index).add(1)) }
    }

    #[inline]
    fn event(&self, event: *mut u32) -> &AtomicU32 {
        // SAFETY: both callers pass an event structure of this ring, which `Layout` placed at a
        // line of its own. An atomic may be changed by others at any time.
        unsafe { AtomicU32::from_ptr(event) }
    }
}

/// Whether the place `event` is among the `added` places that end before the place `now` of a ring
/// of `size`. Both are an offset with the wrap counter on top.
fn passed(event: u16, now: u16, added: u16, size: u16) -> bool {
    let offset = |place: u16| i32::from(place & !EVENT_WRAP);
    let same_lap = (event ^ now) & EVENT_WRAP == 0;
    let lap = if same_lap { 0 } else { i32::from(size) };
    let behind = offset(now) + lap - offset(event);
    (1..=i32::from(added)).contains(&behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place that is reached after `count` descriptors, as an event has it.
    fn place(count: u32, size: u32) -> u16 {
        let wrap = if (count / size).is_multiple_of(2) {
            EVENT_WRAP
        } else {
            0
        };
        (count % size) as u16 | wrap
    }

    #[test]
    fn an_event_is_passed_exactly_when_it_lies_in_what_was_added() {
        for size in [1_u32, 2, 3, 5, 8, 255] {
            for now in 0..4 * size {
                for added in 0..=size.min(now) {
                    // The device looks for something at most a lap behind or ahead of what it
                    // knows, which is where the batch began.
                    let begin = now - added;
                    for event in begin.saturating_sub(size - added)..begin + size {
                        let inside = (begin..now).contains(&event);
                        assert_eq!(
                            passed(
                                place(event, size),
                                place(now, size),
                                added as u16,
                                size as u16
                            ),
                            inside,
                            "{event} in {begin}..{now} of {size}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn places_alternate_their_bits_with_each_lap() {
        let mut at = Place {
            index: 0,
            bits: AVAILABLE_IN_FIRST_LAP,
        };
        for count in 0..40 {
            assert_eq!(
                at.offset_and_wrap(AVAILABLE_IN_FIRST_LAP),
                place(3 * count, 7)
            );
            at.advance(3, 7);
        }
    }
}
