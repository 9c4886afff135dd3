//! The packed virtqueue (VIRTIO 1.3 §2.8).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use virtio_bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE,
    VRING_PACKED_EVENT_FLAG_ENABLE,
};
use virtio_queue::desc::packed::Descriptor;
use vm_memory::{VolatileArrayRef, VolatileMemory, VolatileSlice};

use super::{Batch, Layout, OUT_OF_BOUNDS, RingMemory, Taken, Used, load};
use crate::{
    chain::{Access, Broken, Chain, ChainRules, Segment},
    config::Switch,
    memory::DmaMap,
};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;

const DESCRIPTOR_BYTES: usize = size_of::<Descriptor>();
/// Offset of length, id and flags in a descriptor: a double word.
const LEN: usize = 8;
const FLAGS: usize = 14;
/// The length of `struct pvirtq_event_suppress` (§2.8.14): `desc`, then `flags`.
const EVENT_BYTES: usize = 4;
const EVENT_FLAGS: u32 = 0x3;

/// A place in the ring on one of its laps (§2.8.1). There are as many as twice the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u16,
    /// The wrap counter.
    wrap: bool,
}

impl Place {
    const FIRST: Self = Self {
        slot: 0,
        wrap: true,
    };

    #[inline]
    fn advance(&mut self, by: u64, size: u16) {
        let size = u64::from(size);
        let slot = u64::from(self.slot) + by;
        if slot < size {
            self.slot = slot as u16;
        } else {
            // One lap, but for a driver that does not wait for what it hands out again.
            self.slot = (slot % size) as u16;
            self.wrap ^= !(slot / size).is_multiple_of(2);
        }
    }

    /// How far it is from `self` on to `other`, which comes later.
    fn distance(self, other: Self, size: u16) -> u32 {
        let size = u32::from(size);
        let number = |place: Self| u32::from(place.slot) + if place.wrap { 0 } else { size };
        (number(other) + 2 * size - number(self)) % (2 * size)
    }

    /// As `desc` of the event suppression structure has it.
    fn event(self) -> u16 {
        self.slot | u16::from(self.wrap) << 15
    }

    /// Whether a descriptor at this place, with these flags, is available.
    #[inline]
    fn is_available(self, flags: u16) -> bool {
        let expected = if self.wrap { AVAIL } else { USED };
        flags & (AVAIL | USED) == expected
    }
}

#[derive(Debug)]
pub(crate) struct Packed {
    layout: Layout,
    next_avail: Place,
    next_used: Place,
    /// `next_used` when the driver was last considered for an interrupt.
    considered: Place,
    /// The first used descriptor that is not published yet. The driver looks at no other before it
    /// has seen this one, so the rest is written at once.
    unpublished: Option<(u16, u64)>,
    batch: Batch,
}

impl Packed {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            next_avail: Place::FIRST,
            next_used: Place::FIRST,
            considered: Place::FIRST,
            unpublished: None,
            batch: Batch::default(),
        }
    }

    #[inline]
    pub(super) fn memory<'m>(&self, dma: &'m DmaMap) -> Result<RingMemory<'m>, Broken> {
        // §2.8.10.1. The alignment of the others shows when they are accessed.
        if !self.layout.desc.is_multiple_of(DESCRIPTOR_BYTES as u64) {
            return Err(OUT_OF_BOUNDS);
        }
        let ring = usize::from(self.layout.size) * DESCRIPTOR_BYTES;
        Ok(RingMemory {
            desc: dma.slice(self.layout.desc, ring)?,
            driver: dma.slice(self.layout.driver, EVENT_BYTES)?,
            device: dma.slice(self.layout.device, EVENT_BYTES)?,
        })
    }

    #[inline]
    pub(super) fn look(&self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        let at = usize::from(self.next_avail.slot) * DESCRIPTOR_BYTES;
        // Acquire: what the driver wrote before these flags, the rest of the chain included, is
        // seen after them.
        let flags = load(&memory.desc, at + FLAGS, Ordering::Acquire)?;
        Ok(self.next_avail.is_available(flags))
    }

    pub(super) fn check_notice(&self, data: u16) -> Result<(), Broken> {
        if data & 0x7fff >= self.layout.size {
            return Err(Broken("a notification of a place beyond the queue"));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        memory: &RingMemory<'_>,
        chain: &mut Chain,
        dma: &DmaMap,
    ) -> Result<Option<Taken>, Broken> {
        if !self.look(memory)? {
            return Ok(None);
        }
        let rules = self.layout.rules();
        let ring: VolatileArrayRef<'_, Descriptor> = memory
            .desc
            .get_array_ref(0, usize::from(self.layout.size))
            .map_err(|_| OUT_OF_BOUNDS)?;
        chain.clear();
        let mut place = self.next_avail;
        let mut slots = 0;
        loop {
            let descriptor = ring.load(usize::from(place.slot));
            let flags = descriptor.flags();
            // §2.8.6: every descriptor of a list is marked, not just the first.
            if !place.is_available(flags) {
                return Err(Broken("a chain with a descriptor that is not available"));
            }
            slots += 1;
            place.advance(1, self.layout.size);
            if flags & INDIRECT != 0 {
                // §2.8.5: a list is of one kind.
                if slots != 1 {
                    return Err(Broken("an indirect descriptor inside a chain"));
                }
                walk_indirect(descriptor, rules, chain, dma)?;
            } else {
                push(chain, descriptor, rules)?;
                if flags & NEXT != 0 {
                    continue;
                }
            }
            self.next_avail = place;
            let id = descriptor.id();
            return Ok(Some(Taken { id, slots }));
        }
    }

    #[inline]
    pub(super) fn put(
        &mut self,
        memory: &RingMemory<'_>,
        taken: Taken,
        used: Used,
    ) -> Result<(), Broken> {
        if self.layout.in_order == Switch::On {
            self.batch.add(taken, used);
            return Ok(());
        }
        self.place(memory, used, taken.slots.into())
    }

    /// Makes the next descriptor a used one and skips as many as it stands for (§2.8.6, §2.8.8).
    #[inline]
    fn place(&mut self, memory: &RingMemory<'_>, used: Used, slots: u64) -> Result<(), Broken> {
        let mut flags = if self.next_used.wrap { AVAIL | USED } else { 0 };
        if used.len != 0 {
            flags |= WRITE;
        }
        let id = used.id as u16;
        let word = u64::from(used.len) | u64::from(id) << 32 | u64::from(flags) << 48;
        let slot = self.next_used.slot;
        if self.unpublished.is_none() {
            self.unpublished = Some((slot, word));
        } else {
            write(&memory.desc, slot, word, Ordering::Relaxed)?;
        }
        self.next_used.advance(slots, self.layout.size);
        Ok(())
    }

    #[inline]
    pub(super) fn end_batch(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        let batch = std::mem::take(&mut self.batch);
        if batch.requests == 0 {
            return Ok(());
        }
        self.place(memory, batch.last, batch.slots)
    }

    pub(super) fn jump(&mut self, by: u16) {
        self.next_used.advance(by.into(), self.layout.size);
    }

    #[inline]
    pub(super) fn publish(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        self.end_batch(memory)?;
        let Some((slot, word)) = self.unpublished.take() else {
            return Ok(());
        };
        // Release: the other used descriptors, and the data and status of all requests, are seen
        // before these flags; length and id are part of the same store. Pairs with the driver's
        // acquire load of the flags.
        write(&memory.desc, slot, word, Ordering::Release)
    }

    /// §2.8.10.
    #[inline]
    pub(super) fn wants_interrupt(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        let old = std::mem::replace(&mut self.considered, self.next_used);
        if old == self.next_used {
            return Ok(false);
        }
        // What was published is visible before the driver's wish is read. Pairs with the driver's
        // fence between telling its wish and looking at the ring again.
        fence(Ordering::SeqCst);
        let event = memory
            .driver
            .get_atomic_ref::<AtomicU32>(0)
            .map_err(|_| OUT_OF_BOUNDS)?
            .load(Ordering::Relaxed);
        let event = u32::from_le(event);
        let place = Place {
            slot: event as u16 & 0x7fff,
            wrap: event & 0x8000 != 0,
        };
        let size = self.layout.size;
        Ok(match (event >> 16) & EVENT_FLAGS {
            VRING_PACKED_EVENT_FLAG_DISABLE => false,
            VRING_PACKED_EVENT_FLAG_DESC
                if self.layout.event_idx == Switch::On && place.slot < size =>
            {
                old.distance(place, size) < old.distance(self.next_used, size)
            }
            // Enabled, or what has no meaning: an interrupt too many does no harm.
            _ => true,
        })
    }

    pub(super) fn ask_for_kick(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        let wish = match self.layout.event_idx {
            Switch::On => u32::from(self.next_avail.event()) | VRING_PACKED_EVENT_FLAG_DESC << 16,
            Switch::Off => VRING_PACKED_EVENT_FLAG_ENABLE << 16,
        };
        set_event(memory, wish)?;
        // The wish is visible before the caller looks again. Pairs with the driver's fence between
        // making requests available and reading the wish.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Events for a descriptor come round every other lap, so they are declined as well.
    #[inline]
    pub(super) fn decline_kicks(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        set_event(memory, VRING_PACKED_EVENT_FLAG_DISABLE << 16)
    }
}

/// Writes the device event suppression structure, both fields at once.
#[inline]
fn set_event(memory: &RingMemory<'_>, event: u32) -> Result<(), Broken> {
    memory
        .device
        .get_atomic_ref::<AtomicU32>(0)
        .map_err(|_| OUT_OF_BOUNDS)?
        .store(event.to_le(), Ordering::Relaxed);
    Ok(())
}

/// Writes length, id and flags of a descriptor in one store.
#[inline]
fn write(ring: &VolatileSlice<'_>, slot: u16, word: u64, order: Ordering) -> Result<(), Broken> {
    ring.get_atomic_ref::<AtomicU64>(usize::from(slot) * DESCRIPTOR_BYTES + LEN)
        .map_err(|_| OUT_OF_BOUNDS)?
        .store(word.to_le(), order);
    Ok(())
}

/// §2.8.7: a table of descriptors, all of them in use and in order; of their flags only WRITE
/// counts.
#[inline]
fn walk_indirect(
    table: Descriptor,
    rules: ChainRules,
    chain: &mut Chain,
    dma: &DmaMap,
) -> Result<(), Broken> {
    let memory = super::indirect_table(
        table.addr().0,
        table.len(),
        table.flags() & NEXT != 0,
        rules,
        dma,
    )?;
    let table: VolatileArrayRef<'_, Descriptor> = memory
        .get_array_ref(0, memory.len() / DESCRIPTOR_BYTES)
        .map_err(|_| Broken("an indirect table out of bounds"))?;
    for index in 0..table.len() {
        push(chain, table.load(index), rules)?;
    }
    Ok(())
}

#[inline]
fn push(chain: &mut Chain, descriptor: Descriptor, rules: ChainRules) -> Result<(), Broken> {
    let segment = Segment {
        address: descriptor.addr().0,
        len: descriptor.len(),
    };
    chain.push(segment, Access::of(descriptor.flags()), rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(size: u16) -> Vec<Place> {
        let mut place = Place::FIRST;
        (0..2 * size)
            .map(|_| {
                let here = place;
                place.advance(1, size);
                here
            })
            .collect()
    }

    #[test]
    fn places_come_round_after_two_laps_and_distances_add_up() {
        for size in [1, 3, 8, 100] {
            let places = places(size);
            for (i, from) in places.iter().enumerate() {
                for ahead in 0..places.len() {
                    let to = places[(i + ahead) % places.len()];
                    assert_eq!(from.distance(to, size), ahead as u32, "{size}");
                    let mut moved = *from;
                    moved.advance(ahead as u64, size);
                    assert_eq!(moved, to);
                }
            }
        }
        let mut place = Place::FIRST;
        place.advance(u64::from(u16::MAX), 32768);
        assert_eq!(place.event(), 32767);
    }

    #[test]
    fn a_descriptor_is_available_when_its_bits_differ_as_on_this_lap() {
        let lap = |wrap| Place { slot: 0, wrap };
        for (flags, first, second) in [
            (0, false, false),
            (AVAIL, true, false),
            (USED, false, true),
            (AVAIL | USED, false, false),
        ] {
            assert_eq!(lap(true).is_available(flags), first);
            assert_eq!(lap(false).is_available(flags), second);
        }
    }
}
