//! The device's side of a split virtqueue (VIRTIO 1.3 §2.7).
//!
//! Built on `vm-memory`'s volatile accesses. `virtio-queue`'s `Queue` would look up an address and
//! publish the used index for each request, and does not know `VIRTQ_AVAIL_F_NO_INTERRUPT`; here
//! the three parts of the ring are looked up once and the index is published once a batch.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{VolatileArrayRef, VolatileMemory, VolatileSlice};

use crate::{
    chain::{Broken, ChainRules},
    config::Switch,
    memory::DmaMap,
};

/// Offset of `idx` in both the available and the used ring, and of what follows it.
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
const AVAIL_ELEMENT_BYTES: usize = 2;
const USED_ELEMENT_BYTES: usize = 8;

/// Where the driver put the parts of a ring, and how it may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// A power of two.
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    pub(crate) indirect: Switch,
    pub(crate) event_idx: Switch,
}

/// A ring in use.
#[derive(Debug)]
pub(crate) struct Ring {
    layout: Layout,
    next_avail: u16,
    next_used: u16,
    /// `next_used` when the driver was last considered for an interrupt.
    considered: u16,
}

/// The memory of a ring, looked up.
pub(crate) struct RingMemory<'m> {
    desc: VolatileSlice<'m>,
    avail: VolatileSlice<'m>,
    used: VolatileSlice<'m>,
}

impl RingMemory<'_> {
    /// The descriptor table.
    #[inline]
    pub(crate) fn descriptors(&self) -> Result<VolatileArrayRef<'_, Descriptor>, Broken> {
        self.desc
            .get_array_ref(0, self.desc.len() / size_of::<Descriptor>())
            .map_err(|_| OUT_OF_BOUNDS)
    }
}

const OUT_OF_BOUNDS: Broken = Broken("a ring out of bounds or misaligned");

impl Ring {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            next_avail: 0,
            next_used: 0,
            considered: 0,
        }
    }

    pub(crate) fn rules(&self) -> ChainRules {
        ChainRules {
            queue_size: self.layout.size,
            indirect: self.layout.indirect,
        }
    }

    /// Looks the ring's memory up; each of its parts must lie in one mapping.
    #[inline]
    pub(crate) fn memory<'m>(&self, dma: &'m DmaMap) -> Result<RingMemory<'m>, Broken> {
        let size = usize::from(self.layout.size);
        // Both rings end with the event index of the other side (§2.7.6, §2.7.8).
        let avail = ELEMENTS + size * AVAIL_ELEMENT_BYTES + 2;
        let used = ELEMENTS + size * USED_ELEMENT_BYTES + 2;
        Ok(RingMemory {
            desc: dma.slice(self.layout.desc, size * size_of::<Descriptor>())?,
            avail: dma.slice(self.layout.driver, avail)?,
            used: dma.slice(self.layout.device, used)?,
        })
    }

    /// How many requests wait to be taken.
    #[inline]
    pub(crate) fn waiting(&self, memory: &RingMemory<'_>) -> Result<u16, Broken> {
        // Acquire: what the driver wrote before the index is seen after it.
        let index = load(&memory.avail, INDEX, Ordering::Acquire)?;
        let waiting = index.wrapping_sub(self.next_avail);
        if waiting > self.layout.size {
            return Err(Broken("an available index that jumped"));
        }
        Ok(waiting)
    }

    /// Takes the head of the next request, of which one must be waiting.
    #[inline]
    pub(crate) fn take(&mut self, memory: &RingMemory<'_>) -> Result<u16, Broken> {
        let slot = usize::from(self.next_avail & (self.layout.size - 1));
        let offset = ELEMENTS + slot * AVAIL_ELEMENT_BYTES;
        let head = load(&memory.avail, offset, Ordering::Relaxed)?;
        if head >= self.layout.size {
            return Err(Broken("a head beyond the queue"));
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(head)
    }

    /// Puts a used element in place. The driver sees it once it is published.
    #[inline]
    pub(crate) fn put(&mut self, memory: &RingMemory<'_>, id: u32, len: u32) -> Result<(), Broken> {
        let slot = usize::from(self.next_used & (self.layout.size - 1));
        let element = u64::from(id) | u64::from(len) << 32;
        memory
            .used
            .get_ref::<u64>(ELEMENTS + slot * USED_ELEMENT_BYTES)
            .map_err(|_| OUT_OF_BOUNDS)?
            .store(element.to_le());
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Lets the used index jump, as no device should.
    pub(crate) fn jump(&mut self, by: u16) {
        self.next_used = self.next_used.wrapping_add(by);
    }

    /// Shows the driver what was put in place.
    #[inline]
    pub(crate) fn publish(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        // Release: the elements, and the data and status of their requests, are seen before the
        // index. Pairs with the driver's acquire load.
        memory
            .used
            .get_atomic_ref::<AtomicU16>(INDEX)
            .map_err(|_| OUT_OF_BOUNDS)?
            .store(self.next_used.to_le(), Ordering::Release);
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was published since the last call
    /// (§2.7.7).
    #[inline]
    pub(crate) fn wants_interrupt(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        let old = std::mem::replace(&mut self.considered, self.next_used);
        if old == self.next_used {
            return Ok(false);
        }
        // The used index is visible before the driver's wish is read. Pairs with the driver's
        // fence between telling its wish and looking at the index again: one of the two sees what
        // the other did.
        fence(Ordering::SeqCst);
        if self.layout.event_idx == Switch::Off {
            let flags = load(&memory.avail, 0, Ordering::Relaxed)?;
            return Ok(flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
        }
        let used_event = ELEMENTS + usize::from(self.layout.size) * AVAIL_ELEMENT_BYTES;
        let event = load(&memory.avail, used_event, Ordering::Relaxed)?;
        Ok(passed(event, self.next_used, old))
    }

    /// Asks the driver for a notification of the next request (§2.7.10). The caller must look for
    /// requests once more afterwards.
    pub(crate) fn ask_for_kick(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self.layout.event_idx {
            Switch::On => {
                let avail_event = ELEMENTS + usize::from(self.layout.size) * USED_ELEMENT_BYTES;
                store(&memory.used, avail_event, self.next_avail)?;
            }
            Switch::Off => store(&memory.used, 0, 0)?,
        }
        // The wish is visible before the caller looks again. Pairs with the driver's fence between
        // publishing requests and reading the wish.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Tells the driver that notifications are of no use for now. With event indices there is
    /// nothing to do: an event that has passed is not asked for again.
    #[inline]
    pub(crate) fn decline_kicks(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self.layout.event_idx {
            Switch::On => Ok(()),
            Switch::Off => store(&memory.used, 0, VRING_USED_F_NO_NOTIFY as u16),
        }
    }
}

/// Whether the index `event` was passed on the way from `old` to `new`: `vring_need_event` of
/// §2.7.7.1, in numbers that wrap.
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[inline]
fn load(slice: &VolatileSlice<'_>, offset: usize, order: Ordering) -> Result<u16, Broken> {
    let value = slice
        .get_atomic_ref::<AtomicU16>(offset)
        .map_err(|_| OUT_OF_BOUNDS)?
        .load(order);
    Ok(u16::from_le(value))
}

#[inline]
fn store(slice: &VolatileSlice<'_>, offset: usize, value: u16) -> Result<(), Broken> {
    slice
        .get_atomic_ref::<AtomicU16>(offset)
        .map_err(|_| OUT_OF_BOUNDS)?
        .store(value.to_le(), Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_exactly_when_it_lies_between_old_and_new() {
        for old in (0..=u16::MAX).step_by(257) {
            for count in [1, 2, 31, 256, 32768] {
                let new = u16::wrapping_add(old, count);
                for ahead in 0..=count {
                    let event = old.wrapping_add(ahead);
                    assert_eq!(
                        passed(event, new, old),
                        ahead < count,
                        "{event} {new} {old}"
                    );
                }
                assert!(!passed(old.wrapping_sub(1), new, old));
            }
        }
    }
}
