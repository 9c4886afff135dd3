//! Virtqueues: the request path.
//!
//! A queue has a fixed number of slots. A slot is a request's place from [`Virtqueue::push`] until
//! [`Virtqueue::pop`] returns it. The [`Slot`] owns the request's memory: the small parts for good,
//! the data buffer meanwhile. That ownership is the soundness argument of the request path: memory
//! that the device may write has an owner that nobody else can reach, and it is handed out again
//! only after the device has returned it, or after a reset.
//!
//! Nothing that the device writes is believed: an index or a used element is checked against the
//! private record of what is in flight before anything is done with it. The first contradiction
//! poisons the queue.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use crate::{
    DmaBuffer, Doorbell, Error, ErrorKind, Features, Result, arena::ArenaId, device::Core,
};

mod memory;
#[cfg(test)]
mod tests;

use memory::{Chains, Displacement, SlotMemory, TAIL_LEN_MAX};

pub(crate) use memory::QueueMemory;

/// A request's data and the direction in which they go.
#[derive(Debug)]
pub enum Data {
    /// The request has no data.
    None,
    /// The device reads the buffer.
    ToDevice(DmaBuffer),
    /// The device writes the buffer.
    FromDevice(DmaBuffer),
}

impl Data {
    /// The buffer, if there is one.
    pub fn into_buffer(self) -> Option<DmaBuffer> {
        match self {
            Self::None => None,
            Self::ToDevice(buffer) | Self::FromDevice(buffer) => Some(buffer),
        }
    }
}

/// What the device writes at the end of a request: a value of up to eight bytes, then a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The status byte alone.
    Status,
    /// A le64 and the status byte.
    ValueAndStatus,
}

impl Tail {
    const fn len(self) -> u32 {
        match self {
            Self::Status => 1,
            Self::ValueAndStatus => TAIL_LEN_MAX,
        }
    }
}

/// A request that was not accepted, handed back.
#[derive(Debug)]
pub struct Rejected {
    /// Why.
    pub error: Error,
    /// The data as they came in.
    pub data: Data,
}

/// A request that the device has returned.
#[derive(Debug)]
pub struct Used<C> {
    /// What the request was pushed with.
    pub context: C,
    /// The status byte that ends the request's tail.
    pub status: u8,
    /// The le64 before the status byte. Only requests with [`Tail::ValueAndStatus`] have one; for
    /// others it is some older one.
    pub value: u64,
    /// How many bytes the device says it wrote, data and tail together; never more than there was
    /// room for.
    pub written_len: u32,
    /// The data buffer.
    pub buffer: Option<DmaBuffer>,
}

/// A request's place. Its alignment saves the request path a multiplication.
#[repr(align(64))]
struct Slot<C> {
    context: C,
    buffer: Option<DmaBuffer>,
    memory: SlotMemory,
    /// One more than the device may write, 0 while the slot is free: so one comparison refuses
    /// both a length that is too large and a request that is not in flight.
    written_limit: u32,
    /// How many requests were pushed before this one.
    position: u64,
    /// The slot that is free after this one, while this one is free.
    next_free: u32,
}

/// The end of the list of free slots.
const NO_SLOT: u32 = u32::MAX;

/// Why a request is not accepted.
enum Refusal {
    Foreign,
    Full,
}

/// A contradiction between what the device wrote and what is in flight.
#[derive(Clone, Copy, Debug)]
enum Violation {
    UsedIndex { from: u16, to: u16, in_flight: u16 },
    UsedElement { id: u32, len: u32 },
}

/// A split virtqueue (VIRTIO 1.3, 2.7) with one owner.
///
/// `C` is a request's context: what its owner wants back with it.
///
/// Completions are polled. Dropped with requests in flight, it leaves their memory to the device
/// until that is reset.
pub struct Virtqueue<C> {
    memory: QueueMemory,
    slots: Box<[Slot<C>]>,
    /// The first of the free slots. The last one freed is taken next, because its lines are the
    /// ones in the cache.
    free: u32,
    displacement: Displacement,
    /// The arena that buffers must come from.
    arena: ArenaId,
    /// How many requests were pushed, shown to the device, and popped, ever. Their low 16 bits are
    /// the ring's indices; the rest tells a request that has long been in flight from one that the
    /// device has not been shown yet.
    pushed: u64,
    published: u64,
    popped: u64,
    /// How many requests the device had returned when it was last looked at.
    returned: u64,
    event_idx: bool,
    index: u16,
    doorbells: u64,
    doorbell: Box<dyn Doorbell>,
    violation: Option<Violation>,
    core: Arc<Core>,
}

impl<C: Copy + Default> Virtqueue<C> {
    pub(crate) fn new(
        core: Arc<Core>,
        mut memory: QueueMemory,
        index: u16,
        doorbell: Box<dyn Doorbell>,
    ) -> Self {
        let features = core.features();
        let chains = if features.contains(Features::INDIRECT_DESC) {
            Chains::Indirect
        } else {
            Chains::Direct
        };
        let slots: Box<[_]> = memory
            .prepare(chains)
            .into_iter()
            .zip(1..)
            .map(|(memory, next_free)| Slot {
                context: C::default(),
                buffer: None,
                memory,
                written_limit: 0,
                position: 0,
                next_free,
            })
            .collect();
        let mut queue = Self {
            displacement: memory.displacement(),
            memory,
            slots,
            free: 0,
            arena: core.arena().id(),
            pushed: 0,
            published: 0,
            popped: 0,
            returned: 0,
            event_idx: features.contains(Features::EVENT_IDX),
            index,
            doorbells: 0,
            doorbell,
            violation: None,
            core,
        };
        if let Some(last) = queue.slots.last_mut() {
            last.next_free = NO_SLOT;
        }
        queue.disarm();
        queue
    }

    /// How often the device has been notified.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Puts a request into the queue. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// `head` goes before the data; `tail` comes after them, its status preset to `status` so that
    /// a device that forgets to write it is found out.
    ///
    /// # Errors
    /// The request comes back when no slot is free, or when its buffer is not from the arena of
    /// this queue's device.
    #[inline(always)]
    pub fn push(
        &mut self,
        head: [u64; 2],
        data: Data,
        tail: Tail,
        status: u8,
        context: C,
    ) -> Result<(), Rejected> {
        let (buffer, flags) = match data {
            Data::None => (None, 0),
            Data::ToDevice(buffer) => (Some(buffer), 0),
            Data::FromDevice(buffer) => (Some(buffer), memory::WRITE),
        };
        if buffer
            .as_ref()
            .is_some_and(|buffer| buffer.arena_id() != self.arena)
        {
            return Err(self.reject(buffer, flags, Refusal::Foreign));
        }
        let id = self.free;
        let Some(slot) = self.slots.get_mut(id as usize) else {
            return Err(self.reject(buffer, flags, Refusal::Full));
        };
        self.free = slot.next_free;
        let segment = buffer
            .as_ref()
            .map(|buffer| (buffer.iova(), buffer.len() as u32, flags));
        let written = match segment {
            Some((_, len, memory::WRITE)) => len,
            _ => 0,
        };
        slot.memory
            .write(head, segment, tail.len(), status, self.displacement);
        let before = mem::replace(&mut slot.buffer, buffer);
        debug_assert!(before.is_none(), "a free slot owns nothing");
        mem::forget(before);
        slot.written_limit = written + tail.len() + 1;
        slot.context = context;
        slot.position = self.pushed;
        self.memory.set_available(self.pushed as u16, id as u16);
        self.pushed += 1;
        Ok(())
    }

    #[cold]
    fn reject(&self, buffer: Option<DmaBuffer>, flags: u16, refusal: Refusal) -> Rejected {
        let error = match refusal {
            _ if self.violation.is_some() => self.poisoned(),
            Refusal::Foreign => Error::new(
                ErrorKind::InvalidInput,
                "the buffer is not from this device's DMA memory",
            ),
            Refusal::Full => Error::new(
                ErrorKind::Busy,
                format!(
                    "all {} slots of queue {} are in use",
                    self.slots(),
                    self.index
                ),
            ),
        };
        let data = match buffer {
            None => Data::None,
            Some(buffer) if flags == memory::WRITE => Data::FromDevice(buffer),
            Some(buffer) => Data::ToDevice(buffer),
        };
        Rejected { error, data }
    }

    /// Shows the device all requests that were pushed, and notifies it if it asked for that.
    #[inline]
    pub fn commit(&mut self) {
        if self.pushed == self.published {
            return;
        }
        self.memory.publish(self.pushed as u16);
        // The index must be visible before the device's wish is read: the device, which publishes
        // its wish and then looks at the index again, would otherwise sleep while we see the wish
        // of before (VIRTIO 1.3, 2.7.13.4.1). A store followed by a load needs the full fence.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            passed(
                self.memory.available_event(),
                self.published as u16,
                self.pushed as u16,
            )
        } else {
            self.memory.wants_notification()
        };
        self.published = self.pushed;
        if wanted {
            self.doorbells += 1;
            self.doorbell.ring(self.index.into());
        }
    }

    /// The next request that the device has returned, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the device returned something that it cannot have. From then on
    /// nothing comes back any more, and the memory of the requests in flight only by a reset.
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Used<C>>> {
        if self.popped == self.returned && !self.look()? {
            return Ok(None);
        }
        let (id, written_len) = self.memory.used_element(self.popped as u16);
        match self.slots.get_mut(id as usize) {
            Some(slot) if written_len < slot.written_limit && slot.position < self.published => {
                slot.written_limit = 0;
                slot.next_free = self.free;
                self.free = id;
                self.popped += 1;
                Ok(Some(Used {
                    context: slot.context,
                    status: slot.memory.status(),
                    value: slot.memory.value(),
                    written_len,
                    buffer: slot.buffer.take(),
                }))
            }
            _ => Err(self.poison(Violation::UsedElement {
                id,
                len: written_len,
            })),
        }
    }

    /// Reads the used index; true if there is something to pop.
    #[inline]
    fn look(&mut self) -> Result<bool> {
        let index = self.memory.used_index();
        let new = u64::from(index.wrapping_sub(self.popped as u16));
        if new == 0 {
            return Ok(false);
        }
        if new > self.published - self.popped {
            return Err(self.poison(Violation::UsedIndex {
                from: self.popped as u16,
                to: index,
                in_flight: self.in_flight(),
            }));
        }
        self.returned = self.popped + new;
        if self.event_idx {
            self.park();
        }
        Ok(true)
    }

    /// Ends the requests that the device will not return, and yields their contexts without their
    /// memory: that stays with the device until its reset. Nothing can be pushed from then on.
    pub fn abandon(&mut self) -> Vec<C> {
        let in_flight = self.slots.iter().filter(|slot| slot.written_limit != 0);
        let contexts = in_flight.map(|slot| slot.context).collect();
        self.leave();
        contexts
    }

    /// Asks for an interrupt at the next completion. Returns true if there is none yet: only then
    /// will the interrupt come, and the caller may wait for it.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.memory.set_used_event(self.popped as u16);
        } else {
            self.memory.set_interrupts(true);
        }
        // The wish must be visible before the index is read; the device does the reverse. The
        // mirror image of the fence in `commit`.
        fence(Ordering::SeqCst);
        self.memory.used_index() == self.popped as u16
    }

    /// Asks for no interrupts: completions are polled.
    pub fn disarm(&mut self) {
        if self.event_idx {
            self.park();
        } else {
            self.memory.set_interrupts(false);
        }
    }

    /// Asks for an interrupt at the index just left behind, which is 65,535 completions away.
    /// With EVENT_IDX that is the only way to ask for none (VIRTIO 1.3, 2.7.10).
    #[inline]
    fn park(&mut self) {
        self.memory
            .set_used_event((self.popped as u16).wrapping_sub(1));
    }

    #[cold]
    fn poison(&mut self, violation: Violation) -> Error {
        self.end();
        self.violation.get_or_insert(violation);
        self.poisoned()
    }

    #[cold]
    fn poisoned(&self) -> Error {
        let what = match self.violation {
            Some(Violation::UsedIndex {
                from,
                to,
                in_flight,
            }) => format!(
                "its used index went from {from} to {to} with {in_flight} requests in flight"
            ),
            Some(Violation::UsedElement { id, len }) => format!(
                "it returned request {id} with {len} bytes written, which it did not have or which had less room"
            ),
            None => String::new(),
        };
        Error::new(
            ErrorKind::Protocol,
            format!("the device broke the rules of queue {}: {what}", self.index),
        )
    }
}

impl<C> Virtqueue<C> {
    /// How many requests can be in flight at once.
    pub fn slots(&self) -> u16 {
        self.slots.len() as u16
    }

    /// How many requests have been pushed and not yet popped.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        (self.pushed - self.popped) as u16
    }

    /// Nothing more is taken from the ring, because nothing counts as pushed; nothing more is put
    /// into it; and what the device has not been shown, it will not be.
    fn end(&mut self) {
        self.free = NO_SLOT;
        self.returned = self.popped;
        self.published = self.popped;
        self.pushed = self.popped;
    }

    /// Leaves the requests that the device will not return to it, with their memory, until its
    /// reset. Nothing can be pushed from then on.
    fn leave(&mut self) {
        self.end();
        for slot in &mut self.slots {
            slot.written_limit = 0;
            if let Some(buffer) = slot.buffer.take() {
                self.core.abandon(Box::new(buffer));
            }
        }
    }
}

/// Whether `event` lies in the range from `old` to before `new`, wrapping (VIRTIO 1.3, 2.7.10.1).
#[inline]
fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

impl<C> Drop for Virtqueue<C> {
    fn drop(&mut self) {
        // The rings stay known to the device until its reset even when nothing is in flight.
        self.core.abandon(Box::new(self.memory.take_buffer()));
        self.leave();
    }
}

impl<C> fmt::Debug for Virtqueue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtqueue")
            .field("index", &self.index)
            .field("slots", &self.slots())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
