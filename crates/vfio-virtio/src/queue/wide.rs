//! Requests that take more than the request path does: of several data segments, of memory that is
//! lent or registered, in direct chains, or returned in order.
//!
//! The free slots form a list here as there. In a split ring's direct chains a slot stands for a
//! descriptor of the table, and a request takes as many as its chain has, the first of which is its
//! slot; the list is then the private copy of which descriptor follows which, so that nothing is
//! read back from memory that the device can reach. With IN_ORDER the list is first in, first out,
//! which makes it the order of the ring that the specification asks for (VIRTIO 1.3, 2.7.9).

use std::mem;

use super::{
    Chains, FREE, NO_SLOT, Refusal, Rejected, Ring, Slot, Tail, Violation, Virtqueue, look,
    memory::{Descriptor, HEAD_LEN, INDIRECT, NEXT, PackedTable, SplitTable, TableFormat, WRITE},
    split::SplitRing,
};
use crate::{DmaBuffer, Iova, Result, Segment};

/// The greatest number of descriptors of a request with one data segment.
const CHAIN_LEN: usize = 3;

/// What the request path does without.
pub(super) struct Wide {
    chains: Chains,
    /// One for each slot.
    records: Box<[Record]>,
    /// The first free slot of direct chains.
    free: u32,
    /// The last free slot, where the list is first in, first out.
    last_free: u32,
    /// How many of the ring's descriptors direct chains have left.
    descriptors_left: u16,
    /// The oldest request in flight, where they are returned in order.
    oldest: u32,
    /// How many more requests the device has returned with one element, and the length that it
    /// gave for the last of them.
    batch: u64,
    batch_len: u32,
    /// Where a request's descriptors are gathered; kept so that nothing is allocated for one.
    parts: Vec<Part>,
}

#[derive(Default)]
struct Record {
    /// As the slot's `written_limit`, which is 0 then; 0 where that counts.
    written_limit: u32,
    /// How many of the ring's descriptors the request takes.
    descriptors: u16,
    /// The last of the slots that the request takes.
    last: u32,
    /// A table for more segments than the slot's own has room for, kept for the next such request.
    table: Option<DmaBuffer>,
    /// Whether the slot's descriptor of a split ring points to `table`.
    redirected: bool,
}

/// A descriptor to be.
pub(super) struct Part {
    pub(super) address: Iova,
    pub(super) len: u32,
    pub(super) flags: u16,
}

/// Whose indirect table a request's descriptors go into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// The slot's, if they fit and are laid out as most are.
    SlotWherePossible,
    /// One of the request's own.
    Own,
}

impl Wide {
    pub(super) fn new(chains: Chains, slots: usize) -> Self {
        Self {
            chains,
            records: (0..slots).map(|_| Record::default()).collect(),
            free: NO_SLOT,
            last_free: NO_SLOT,
            descriptors_left: slots as u16,
            oldest: 0,
            batch: 0,
            batch_len: 0,
            parts: Vec::new(),
        }
    }

    pub(super) fn chains(&self) -> Chains {
        self.chains
    }

    /// Notes what the request in slot `id` takes: the slots up to `last`, and `count` descriptors, of
    /// which the device may write `written` bytes.
    #[inline]
    pub(super) fn note(&mut self, id: u32, last: u32, count: usize, written: u32) {
        let record = &mut self.records[id as usize];
        record.descriptors = match self.chains {
            Chains::Indirect => 1,
            Chains::Direct => count as u16,
        };
        record.last = last;
        record.written_limit = written + 1;
    }

    /// Leaves no slot to take.
    pub(super) fn end(&mut self) {
        self.free = NO_SLOT;
        self.descriptors_left = 0;
        self.batch = 0;
    }

    /// Whether the device has returned requests that are still to be popped one by one.
    pub(super) fn is_in_batch(&self) -> bool {
        self.batch > 0
    }

    /// The tables, which the device may use until its reset.
    pub(super) fn take_tables(&mut self) -> impl Iterator<Item = DmaBuffer> {
        self.records
            .iter_mut()
            .filter_map(|record| record.table.take())
    }
}

impl<C: Copy + Default> Virtqueue<C> {
    /// Makes the list of free slots, once.
    pub(super) fn link(&mut self) {
        let last = self.slots.len() - 1;
        self.slots[last].next_free = NO_SLOT;
        self.wide.last_free = last as u32;
        match self.wide.chains {
            Chains::Indirect => self.free = 0,
            Chains::Direct => self.wide.free = 0,
        }
        if let (Ring::Split(ring), Chains::Indirect) = (&mut self.ring, self.wide.chains) {
            for (slot, id) in self.slots.iter().zip(0..) {
                let table = slot.memory.table(self.displacement);
                put_table(ring, id, table, CHAIN_LEN);
            }
        }
    }

    /// What [`push`](Self::push) does with what is not as simple as it looked.
    #[cold]
    #[inline(never)]
    pub(super) fn push_wide(
        &mut self,
        head: [u64; 2],
        buffer: Option<DmaBuffer>,
        flags: u16,
        tail: Tail,
        status: u8,
        context: C,
    ) -> Result<(), Rejected> {
        // Cold for the sake of the request path. Of direct chains this is the usual one, and what
        // is called cold is not made fast.
        self.push_chain(head, buffer, flags, tail, status, context)
    }

    #[inline(never)]
    fn push_chain(
        &mut self,
        head: [u64; 2],
        buffer: Option<DmaBuffer>,
        flags: u16,
        tail: Tail,
        status: u8,
        context: C,
    ) -> Result<(), Rejected> {
        let written = match (&buffer, flags) {
            (Some(buffer), WRITE) => buffer.len() as u32,
            _ => 0,
        };
        let segments = match &buffer {
            None => 0,
            Some(buffer) if buffer.is_contiguous() => 1,
            Some(buffer) => buffer.segments().count(),
        };
        let unusable = match &buffer {
            Some(buffer) if buffer.single_in() != self.arena => self.unusable(buffer, flags),
            _ => None,
        };
        let placed = match unusable {
            Some(refusal) => Err(refusal),
            None if segments + 2 > self.slots.len() => Err(Refusal::TooManySegments(segments)),
            None => self.place(segments + 2, Table::SlotWherePossible),
        };
        let (id, last) = match placed {
            Ok(slots) => slots,
            Err(refusal) => return Err(self.reject(buffer, flags, refusal)),
        };
        let slot = &mut self.slots[id as usize];
        slot.memory.write_ends(head, tail.len(), status);
        let first = Part {
            address: slot.memory.head(self.displacement),
            len: HEAD_LEN,
            flags: 0,
        };
        let end = Part {
            address: slot.memory.tail(tail.len(), self.displacement),
            len: tail.len(),
            flags: WRITE,
        };
        slot.written_limit = 0;
        slot.context = context;
        slot.position = self.pushed;
        self.wide.note(id, last, segments + 2, written + tail.len());
        let part = |segment: Segment| Part {
            address: segment.iova,
            len: segment.len_bytes,
            flags,
        };
        match &buffer {
            Some(buffer) if segments == 1 && self.wide.chains == Chains::Direct => {
                self.write_three(id, first, part(buffer.first_segment()), end);
            }
            data if segments <= 1 && self.wide.chains == Chains::Indirect => {
                let data = data
                    .as_ref()
                    .map(|buffer| (buffer.iova(), buffer.len() as u32, flags));
                self.write_own(id, head, data, tail, status);
            }
            _ => {
                let mut parts = mem::take(&mut self.wide.parts);
                parts.push(first);
                parts.extend(buffer.iter().flat_map(DmaBuffer::segments).map(part));
                parts.push(end);
                self.write_chain(id, &parts);
                parts.clear();
                self.wide.parts = parts;
            }
        }
        self.slots[id as usize].buffer = buffer;
        self.pushed += 1;
        Ok(())
    }

    /// Why a buffer that the request path does not know cannot be used, if it cannot. One that may
    /// not be written is always such.
    #[inline(never)]
    pub(super) fn unusable(&self, buffer: &DmaBuffer, flags: u16) -> Option<Refusal> {
        if buffer.device_id() != self.core.arena().device_id() {
            return Some(Refusal::Foreign);
        }
        (flags == WRITE && buffer.is_read_only()).then_some(Refusal::ReadOnly)
    }

    /// Writes the direct chain that most requests have; otherwise as
    /// [`write_chain`](Self::write_chain).
    #[inline]
    fn write_three(&mut self, id: u32, first: Part, data: Part, end: Part) {
        match &mut self.ring {
            Ring::Split(ring) => {
                let second = self.slots[id as usize].next_free;
                let third = self.slots[second as usize].next_free;
                let (at, next) = (id as u16, Some(second as u16));
                ring.put(at, first.address, first.len, first.flags, next);
                let (at, next) = (second as u16, Some(third as u16));
                ring.put(at, data.address, data.len, data.flags, next);
                ring.put(third as u16, end.address, end.len, end.flags, None);
                ring.set_available(self.pushed as u16, id as u16);
            }
            Ring::Packed(ring) => {
                let id = id as u16;
                ring.put(first.address, first.len, id, first.flags | NEXT);
                ring.put(data.address, data.len, id, data.flags | NEXT);
                ring.put(end.address, end.len, id, end.flags);
            }
        }
    }

    /// Writes the table that most requests have: the slot's own.
    #[inline(never)]
    fn write_own(
        &mut self,
        id: u32,
        head: [u64; 2],
        data: Option<(Iova, u32, u16)>,
        tail: Tail,
        status: u8,
    ) {
        let memory = &mut self.slots[id as usize].memory;
        let at = self.displacement;
        match &mut self.ring {
            Ring::Split(ring) => {
                memory.write::<SplitTable>(head, data, tail.len(), status, at);
                ring.set_available(self.pushed as u16, id as u16);
            }
            Ring::Packed(ring) => {
                let len = memory.write::<PackedTable>(head, data, tail.len(), status, at);
                ring.put_table(memory.table(at), len, id as u16);
            }
        }
    }

    /// Takes what a request of `count` descriptors needs: the first and the last of its slots.
    #[inline]
    pub(super) fn place(&mut self, count: usize, table: Table) -> Result<(u32, u32), Refusal> {
        let is_deep = self.in_flight() >= self.slots();
        let (first_free, slots) = match (self.wide.chains, &self.ring) {
            (Chains::Indirect, _) => (&mut self.free, 1),
            (Chains::Direct, _) if usize::from(self.wide.descriptors_left) < count || is_deep => {
                return Err(Refusal::Full);
            }
            (Chains::Direct, Ring::Split(_)) => (&mut self.wide.free, count),
            (Chains::Direct, Ring::Packed(_)) => (&mut self.wide.free, 1),
        };
        let first = *first_free;
        if first == NO_SLOT {
            return Err(Refusal::Full);
        }
        if self.wide.chains == Chains::Direct {
            self.wide.descriptors_left -= count as u16;
        } else if count > CHAIN_LEN || table == Table::Own {
            let table = &mut self.wide.records[first as usize].table;
            let len = count * Descriptor::LEN;
            if table.as_ref().is_none_or(|table| table.capacity() < len) {
                match self.core.arena().allocate(len) {
                    Ok(new) => *table = Some(new),
                    Err(error) => return Err(Refusal::NoTable(error)),
                }
            }
        }
        let mut last = first;
        for _ in 1..slots {
            last = self.slots[last as usize].next_free;
        }
        *first_free = self.slots[last as usize].next_free;
        Ok((first, last))
    }

    /// Writes a request's descriptors and puts it into the ring.
    #[inline]
    pub(super) fn write_chain(&mut self, id: u32, parts: &[Part]) {
        let record = &mut self.wide.records[id as usize];
        match (&mut self.ring, self.wide.chains) {
            (Ring::Split(ring), Chains::Indirect) => {
                if let Some(table) = &mut record.table {
                    fill::<SplitTable>(table, parts);
                    put_table(ring, id as u16, table.iova(), parts.len());
                    record.redirected = true;
                }
                ring.set_available(self.pushed as u16, id as u16);
            }
            (Ring::Packed(ring), Chains::Indirect) => {
                if let Some(table) = &mut record.table {
                    fill::<PackedTable>(table, parts);
                    let len = (parts.len() * Descriptor::LEN) as u32;
                    ring.put_table(table.iova(), len, id as u16);
                }
            }
            (Ring::Split(ring), Chains::Direct) => {
                let mut at = id;
                for (part, left) in parts.iter().zip((0..parts.len()).rev()) {
                    let next = self.slots[at as usize].next_free;
                    let follows = (left > 0).then_some(next as u16);
                    ring.put(at as u16, part.address, part.len, part.flags, follows);
                    at = next;
                }
                ring.set_available(self.pushed as u16, id as u16);
            }
            (Ring::Packed(ring), Chains::Direct) => {
                for (part, left) in parts.iter().zip((0..parts.len()).rev()) {
                    let next = if left > 0 { NEXT } else { 0 };
                    ring.put(part.address, part.len, id as u16, part.flags | next);
                }
            }
        }
    }

    /// The slot of a request that the device has returned and that is not as simple as it looked.
    #[cold]
    #[inline(never)]
    pub(super) fn find_wide(&mut self, id: u32, written_len: u32) -> Result<&mut Slot<C>> {
        self.find_chain(id, written_len)
    }

    #[inline(never)]
    fn find_chain(&mut self, id: u32, written_len: u32) -> Result<&mut Slot<C>> {
        if written_len < self.limit(id) {
            return Ok(self.release(id));
        }
        Err(self.poison(Violation::UsedElement {
            id,
            len: written_len,
        }))
    }

    /// One more than the device may have written of request `id`, 0 if it does not have it.
    #[inline]
    fn limit(&self, id: u32) -> u32 {
        match self.slots.get(id as usize) {
            Some(slot) if slot.position < self.published => {
                let record = &self.wide.records[id as usize];
                slot.written_limit.max(record.written_limit)
            }
            _ => 0,
        }
    }

    /// The next request that the device has returned in order, and how much it wrote: one used
    /// element may stand for several up to the one that it names (VIRTIO 1.3, 2.7.9 and 2.8.9).
    #[cold]
    #[inline(never)]
    pub(super) fn next_in_order(&mut self) -> Result<Option<(&mut Slot<C>, u32)>> {
        if self.wide.batch == 0 {
            let (id, len, most) = match &mut self.ring {
                Ring::Split(ring) => {
                    match look(ring, self.event_idx, self.popped, self.published) {
                        Ok(0) => return Ok(None),
                        Ok(new) => {
                            let (id, len) = ring.used_element(self.popped as u16);
                            (id, len, new)
                        }
                        Err(violation) => return Err(self.poison(violation)),
                    }
                }
                Ring::Packed(ring) => match ring.used_in_order() {
                    Some((id, len)) => (id, len, u64::MAX),
                    None => return Ok(None),
                },
            };
            if len >= self.limit(id) {
                return Err(self.poison(Violation::UsedElement { id, len }));
            }
            // The oldest is in flight if any is, and none of those is older.
            let oldest = self.slots[self.wide.oldest as usize].position;
            let position = self.slots[id as usize].position;
            let returned = position.wrapping_sub(oldest).wrapping_add(1);
            if returned > most || oldest == FREE {
                return Err(self.poison(Violation::OutOfOrder { id, returned: most }));
            }
            self.wide.batch = returned;
            self.wide.batch_len = len;
        }
        self.wide.batch -= 1;
        let id = self.wide.oldest;
        let len = match self.wide.batch {
            0 => self.wide.batch_len,
            // Those before the last one count as written in full.
            _ => self.limit(id).saturating_sub(1),
        };
        if let Ring::Packed(ring) = &mut self.ring {
            ring.advance(1);
        }
        // Nothing counts as returned that has not been popped.
        self.returned = self.popped + 1;
        Ok(Some((self.release(id), len)))
    }

    /// Frees the slots and descriptors of a request that the device has returned, and yields the
    /// slot with its parts.
    #[inline]
    fn release(&mut self, id: u32) -> &mut Slot<C> {
        let record = &mut self.wide.records[id as usize];
        let (descriptors, last) = match mem::take(&mut record.written_limit) {
            0 => (1, id),
            _ => (record.descriptors, record.last),
        };
        let redirected = mem::take(&mut record.redirected);
        let slot = &mut self.slots[id as usize];
        slot.written_limit = 0;
        match &mut self.ring {
            Ring::Split(ring) if redirected => {
                let table = slot.memory.table(self.displacement);
                put_table(ring, id as u16, table, CHAIN_LEN);
            }
            Ring::Split(_) => {}
            // The first was left behind when the element was read.
            Ring::Packed(ring) => ring.advance(descriptors - 1),
        }
        if self.wide.chains == Chains::Direct {
            self.wide.descriptors_left += descriptors;
        }
        self.popped += 1;
        self.give_back(id, last);
        &mut self.slots[id as usize]
    }

    /// Puts the slots from `first` to `last` back into the list.
    #[inline]
    fn give_back(&mut self, first: u32, last: u32) {
        let first_free = match self.wide.chains {
            Chains::Indirect => &mut self.free,
            Chains::Direct => &mut self.wide.free,
        };
        if !self.in_order {
            self.slots[last as usize].next_free = *first_free;
            *first_free = first;
            return;
        }
        self.slots[last as usize].next_free = NO_SLOT;
        if *first_free == NO_SLOT {
            *first_free = first;
        } else {
            self.slots[self.wide.last_free as usize].next_free = first;
        }
        self.wide.last_free = last;
        // In the order of the ring, the next request's first slot follows this one's last.
        self.wide.oldest = (last + 1) % self.slots.len() as u32;
    }
}

/// Points the descriptor of slot `id` to an indirect table of `count` descriptors. A chain may end
/// before its table does.
fn put_table(ring: &mut SplitRing, id: u16, table: Iova, count: usize) {
    let len = (count * Descriptor::LEN) as u32;
    ring.put(id, table, len, INDIRECT, None);
}

/// Writes an indirect table.
fn fill<F: TableFormat>(table: &mut DmaBuffer, parts: &[Part]) {
    table.set_len(table.capacity());
    for (i, part) in parts.iter().enumerate() {
        let next = (i + 1 < parts.len()).then_some(i as u16 + 1);
        let descriptor = Descriptor {
            address: part.address.0,
            len: part.len,
            word: F::word(part.flags, next),
        };
        table.write_at(i * Descriptor::LEN, &descriptor.to_bytes());
    }
}
