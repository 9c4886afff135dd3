//! Requests of which every byte and every segment is the caller's: what a test of a device sends.
//!
//! They are as safe as others. What the device may write is owned by the slot, and how much it says
//! it wrote is checked; what a request means is no matter of the ring.

use super::{
    Refusal, Rejected, Virtqueue,
    memory::WRITE,
    wide::{Part, Table},
};
use crate::DmaBuffer;

impl<C: Copy + Default> Virtqueue<C> {
    /// Puts a chain into the queue as it is: a descriptor for each segment of `chain`, of which the
    /// device reads the first `readable` and writes the others. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// Nothing is added to it and nothing preset. [`pop`](Self::pop) returns it as the request's
    /// buffer; the status and the value that come with it mean nothing, for where these are, if
    /// anywhere, is known to the caller alone.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_raw(
        &mut self,
        chain: DmaBuffer,
        readable: usize,
        context: C,
    ) -> Result<(), Rejected> {
        let count = chain.segments().count();
        let flags_of = |segment: usize| if segment < readable { 0 } else { WRITE };
        let flags = flags_of(count - 1);
        let placed = match self.unusable(&chain, flags) {
            Some(refusal) => Err(refusal),
            None if count > self.slots.len() => Err(Refusal::TooManySegments(count)),
            None => self.place(count, Table::Own),
        };
        let (id, last) = match placed {
            Ok(slots) => slots,
            Err(refusal) => return Err(self.reject(Some(chain), flags, refusal)),
        };
        let parts: Vec<_> = chain
            .segments()
            .zip(0..)
            .map(|(segment, index)| Part {
                address: segment.iova,
                len: segment.len_bytes,
                flags: flags_of(index),
            })
            .collect();
        let written = parts
            .iter()
            .filter(|part| part.flags == WRITE)
            .map(|part| part.len)
            .sum();
        self.wide.note(id, last, count, written);
        self.write_chain(id, &parts);
        let slot = &mut self.slots[id as usize];
        slot.written_limit = 0;
        slot.context = context;
        slot.position = self.pushed;
        slot.buffer = Some(chain);
        self.pushed += 1;
        Ok(())
    }
}
