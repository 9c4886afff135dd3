//! The split virtqueue (VIRTIO 1.3 §2.7).

use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{VolatileArrayRef, VolatileMemory};

use super::{Batch, Layout, OUT_OF_BOUNDS, RingMemory, Taken, Used, load, store};
use crate::{
    chain::{Access, Broken, Chain, ChainRules, Segment},
    config::Switch,
    memory::DmaMap,
};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
const DESCRIPTOR_BYTES: usize = size_of::<Descriptor>();

/// Offset of `idx` in both the available and the used ring, and of what follows it.
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
const AVAIL_ELEMENT_BYTES: usize = 2;
const USED_ELEMENT_BYTES: usize = 8;

const OUT_OF_ORDER: Broken = Broken("descriptors out of ring order though order was negotiated");

#[derive(Debug)]
pub(crate) struct Split {
    layout: Layout,
    next_avail: u16,
    /// The available index at the last look.
    seen_avail: u16,
    next_used: u16,
    /// `next_used` when the driver was last considered for an interrupt.
    considered: u16,
    /// Where the next chain must begin if order was negotiated.
    next_head: u16,
    batch: Batch,
}

impl Split {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            next_avail: 0,
            seen_avail: 0,
            next_used: 0,
            considered: 0,
            next_head: 0,
            batch: Batch::default(),
        }
    }

    #[inline]
    pub(super) fn memory<'m>(&self, dma: &'m DmaMap) -> Result<RingMemory<'m>, Broken> {
        let size = usize::from(self.layout.size);
        // Both rings end with the event index of the other side (§2.7.6, §2.7.8).
        let avail = ELEMENTS + size * AVAIL_ELEMENT_BYTES + 2;
        let used = ELEMENTS + size * USED_ELEMENT_BYTES + 2;
        Ok(RingMemory {
            desc: dma.slice(self.layout.desc, size * DESCRIPTOR_BYTES)?,
            driver: dma.slice(self.layout.driver, avail)?,
            device: dma.slice(self.layout.device, used)?,
        })
    }

    #[inline]
    pub(super) fn look(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        // Acquire: what the driver wrote before the index is seen after it.
        let index = load(&memory.driver, INDEX, Ordering::Acquire)?;
        if index.wrapping_sub(self.next_avail) > self.layout.size {
            return Err(Broken("an available index that jumped"));
        }
        self.seen_avail = index;
        Ok(index != self.next_avail)
    }

    /// The driver publishes before it notifies, so it cannot be further on than its index. It may
    /// have gone on since, by as much as a queue holds and the device takes at a time.
    pub(super) fn check_notice(&self, data: u16) -> Result<(), Broken> {
        match data.wrapping_sub(self.seen_avail) {
            1..0x4000 => Err(Broken("a notification ahead of the available index")),
            _ => Ok(()),
        }
    }

    #[inline]
    pub(super) fn take(
        &mut self,
        memory: &RingMemory<'_>,
        chain: &mut Chain,
        dma: &DmaMap,
    ) -> Result<Option<Taken>, Broken> {
        if self.next_avail == self.seen_avail {
            return Ok(None);
        }
        let slot = usize::from(self.next_avail & (self.layout.size - 1));
        let offset = ELEMENTS + slot * AVAIL_ELEMENT_BYTES;
        let head = load(&memory.driver, offset, Ordering::Relaxed)?;
        if head >= self.layout.size {
            return Err(Broken("a head beyond the queue"));
        }
        let rules = self.layout.rules();
        let descriptors = memory
            .desc
            .get_array_ref(0, usize::from(self.layout.size))
            .map_err(|_| OUT_OF_BOUNDS)?;
        let last = walk(&descriptors, head, rules, chain, dma)?;
        if self.layout.in_order == Switch::On {
            // §2.7.5: descriptors are used in ring order, from 0 on.
            if head != self.next_head {
                return Err(OUT_OF_ORDER);
            }
            self.next_head = (last + 1) & (self.layout.size - 1);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(Taken { id: head, slots: 1 }))
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
        self.place(memory, used, 1)
    }

    /// Writes `used` to the next place and skips as many as it stands for (§2.7.9 in the terms of
    /// §2.7.8: a batch has the element of its last request, at the place of its first).
    #[inline]
    fn place(&mut self, memory: &RingMemory<'_>, used: Used, requests: u16) -> Result<(), Broken> {
        let slot = usize::from(self.next_used & (self.layout.size - 1));
        let element = u64::from(used.id) | u64::from(used.len) << 32;
        memory
            .device
            .get_ref::<u64>(ELEMENTS + slot * USED_ELEMENT_BYTES)
            .map_err(|_| OUT_OF_BOUNDS)?
            .store(element.to_le());
        self.next_used = self.next_used.wrapping_add(requests);
        Ok(())
    }

    #[inline]
    pub(super) fn end_batch(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        let batch = std::mem::take(&mut self.batch);
        if batch.requests == 0 {
            return Ok(());
        }
        self.place(memory, batch.last, batch.requests)
    }

    pub(super) fn jump(&mut self, by: u16) {
        self.next_used = self.next_used.wrapping_add(by);
    }

    #[inline]
    pub(super) fn publish(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        self.end_batch(memory)?;
        // Release: the elements, and the data and status of their requests, are seen before the
        // index. Pairs with the driver's acquire load.
        memory
            .device
            .get_atomic_ref::<AtomicU16>(INDEX)
            .map_err(|_| OUT_OF_BOUNDS)?
            .store(self.next_used.to_le(), Ordering::Release);
        Ok(())
    }

    /// §2.7.7.
    #[inline]
    pub(super) fn wants_interrupt(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        let old = std::mem::replace(&mut self.considered, self.next_used);
        if old == self.next_used {
            return Ok(false);
        }
        // The used index is visible before the driver's wish is read. Pairs with the driver's
        // fence between telling its wish and looking at the index again: one of the two sees what
        // the other did.
        fence(Ordering::SeqCst);
        if self.layout.event_idx == Switch::Off {
            let flags = load(&memory.driver, 0, Ordering::Relaxed)?;
            return Ok(flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0);
        }
        let used_event = ELEMENTS + usize::from(self.layout.size) * AVAIL_ELEMENT_BYTES;
        let event = load(&memory.driver, used_event, Ordering::Relaxed)?;
        Ok(passed(event, self.next_used, old))
    }

    /// §2.7.10.
    pub(super) fn ask_for_kick(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self.layout.event_idx {
            Switch::On => {
                let avail_event = ELEMENTS + usize::from(self.layout.size) * USED_ELEMENT_BYTES;
                store(&memory.device, avail_event, self.next_avail)?;
            }
            Switch::Off => store(&memory.device, 0, 0)?,
        }
        // The wish is visible before the caller looks again. Pairs with the driver's fence between
        // publishing requests and reading the wish.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// With event indices there is nothing to do: an event that has passed is not asked for again.
    #[inline]
    pub(super) fn decline_kicks(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self.layout.event_idx {
            Switch::On => Ok(()),
            Switch::Off => store(&memory.device, 0, VRING_USED_F_NO_NOTIFY as u16),
        }
    }
}

/// Reads the chain that begins at `head` of the table (§2.7.5). The index of its last descriptor.
#[inline]
fn walk(
    table: &VolatileArrayRef<'_, Descriptor>,
    head: u16,
    rules: ChainRules,
    chain: &mut Chain,
    dma: &DmaMap,
) -> Result<u16, Broken> {
    chain.clear();
    let mut index = head;
    loop {
        if usize::from(index) >= table.len() {
            return Err(Broken("a descriptor index beyond the queue"));
        }
        let descriptor = table.load(usize::from(index));
        let flags = descriptor.flags();
        if flags & INDIRECT != 0 {
            walk_indirect(descriptor, rules, chain, dma)?;
            return Ok(index);
        }
        // §2.7.5.2: a chain is at most as long as the queue; a longer one is a loop.
        push(chain, descriptor, rules)?;
        if flags & NEXT == 0 {
            return Ok(index);
        }
        let following = (index + 1) & (rules.queue_size - 1);
        index = descriptor.next();
        if rules.in_order == Switch::On && index != following {
            return Err(OUT_OF_ORDER);
        }
    }
}

/// §2.7.5.3: a table of descriptors of its own, used as the last element of a chain.
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
    let mut index = 0;
    loop {
        if index >= table.len() {
            return Err(Broken("a descriptor index beyond the indirect table"));
        }
        let descriptor = table.load(index);
        let flags = descriptor.flags();
        if flags & INDIRECT != 0 {
            return Err(Broken("an indirect descriptor inside an indirect table"));
        }
        push(chain, descriptor, rules)?;
        if flags & NEXT == 0 {
            return Ok(());
        }
        let following = index + 1;
        index = usize::from(descriptor.next());
        if rules.in_order == Switch::On && index != following {
            return Err(OUT_OF_ORDER);
        }
    }
}

#[inline]
fn push(chain: &mut Chain, descriptor: Descriptor, rules: ChainRules) -> Result<(), Broken> {
    let segment = Segment {
        address: descriptor.addr().0,
        len: descriptor.len(),
    };
    chain.push(segment, Access::of(descriptor.flags()), rules)
}

/// Whether the index `event` was passed on the way from `old` to `new`: `vring_need_event` of
/// §2.7.7.1, in numbers that wrap.
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
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
