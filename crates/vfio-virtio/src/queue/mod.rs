//! Virtqueues: the request path.
//!
//! A queue has a fixed number of slots. A slot is a request's place from [`Virtqueue::push`] until
//! [`Virtqueue::pop`] returns it: its memory for the device, and its [`Flight`], which owns the
//! data buffer meanwhile. That ownership is the soundness argument of the request path: memory
//! that the device may write has an owner that nobody else can reach, and it is handed out again
//! only after the device has returned it, or after a reset.
//!
//! Nothing that the device writes is believed: an index or a used element is checked against the
//! private record of what is in flight before anything is done with it. The first contradiction
//! poisons the queue.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use crate::{DmaBuffer, Doorbell, Error, ErrorKind, Features, Result, device::Core};

mod memory;
#[cfg(test)]
mod tests;

use memory::{Chains, TAIL_LEN_MAX};

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
pub struct Used {
    /// The slot that the request had; it may be in use again after the next push.
    pub slot: u16,
    /// How many bytes the device says it wrote, data and tail together; never more than there was
    /// room for.
    pub written_len: u32,
    /// The data buffer.
    pub buffer: Option<DmaBuffer>,
}

/// What a slot's request owns while the device has it.
#[derive(Default)]
struct Flight {
    buffer: Option<DmaBuffer>,
    /// One more than the device may write, 0 while the slot is free: so one comparison refuses
    /// both a length that is too large and a request that is not in flight.
    written_limit: u32,
}

/// A contradiction between what the device wrote and what is in flight.
#[derive(Clone, Copy, Debug)]
enum Violation {
    UsedIndex { from: u16, to: u16, in_flight: u16 },
    UsedElement { id: u32, len: u32 },
}

/// A split virtqueue (VIRTIO 1.3, 2.7) with one owner.
///
/// Completions are polled. Dropped with requests in flight, it leaves their memory to the device
/// until that is reset.
pub struct Virtqueue {
    memory: QueueMemory,
    flights: Box<[Flight]>,
    /// The free slots; the last is taken next, because its lines are the ones in the cache.
    free: Vec<u16>,
    /// The available index after the last request pushed.
    available: u16,
    /// The available index that the device has been shown.
    published: u16,
    /// The used index after the last completion popped.
    used: u16,
    /// The used index that the device showed last.
    used_seen: u16,
    event_idx: bool,
    index: u16,
    doorbells: u64,
    doorbell: Box<dyn Doorbell>,
    violation: Option<Violation>,
    core: Arc<Core>,
}

impl Virtqueue {
    pub(crate) fn new(
        core: Arc<Core>,
        mut memory: QueueMemory,
        index: u16,
        doorbell: Box<dyn Doorbell>,
    ) -> Self {
        let features = core.features();
        let slots = memory.prepare(if features.contains(Features::INDIRECT_DESC) {
            Chains::Indirect
        } else {
            Chains::Direct
        });
        let mut queue = Self {
            memory,
            flights: (0..slots).map(|_| Flight::default()).collect(),
            free: (0..slots).rev().collect(),
            available: 0,
            published: 0,
            used: 0,
            used_seen: 0,
            event_idx: features.contains(Features::EVENT_IDX),
            index,
            doorbells: 0,
            doorbell,
            violation: None,
            core,
        };
        queue.disarm();
        queue
    }

    /// How many requests can be in flight at once.
    pub fn slots(&self) -> u16 {
        self.flights.len() as u16
    }

    /// How many requests can be pushed now.
    #[inline]
    pub fn free_slots(&self) -> u16 {
        self.free.len() as u16
    }

    /// How many requests have been pushed and not yet popped.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.slots() - self.free_slots()
    }

    /// How often the device has been notified.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// Puts a request into the queue and returns its slot. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// `head` goes before the data; `tail` comes after them, its status preset to `status` so that
    /// a device that forgets to write it is found out.
    ///
    /// # Errors
    /// The request comes back when no slot is free, or when its buffer is not from the arena of
    /// this queue's device.
    #[inline]
    pub fn push(
        &mut self,
        head: [u64; 2],
        data: Data,
        tail: Tail,
        status: u8,
    ) -> Result<u16, Rejected> {
        let (buffer, flags) = match data {
            Data::None => (None, 0),
            Data::ToDevice(buffer) => (Some(buffer), 0),
            Data::FromDevice(buffer) => (Some(buffer), memory::WRITE),
        };
        let foreign = buffer
            .as_ref()
            .is_some_and(|buffer| !buffer.is_from(self.core.arena()));
        let slot = match self.free.pop() {
            Some(slot) if !foreign => slot,
            slot => return Err(self.reject(slot, buffer, flags)),
        };
        let segment = buffer
            .as_ref()
            .map(|buffer| (buffer.iova(), buffer.len() as u32, flags));
        let written = match segment {
            Some((_, len, memory::WRITE)) => len,
            _ => 0,
        };
        self.memory
            .write_request(slot, head, segment, tail.len(), status);
        let flight = &mut self.flights[usize::from(slot)];
        flight.buffer = buffer;
        flight.written_limit = written + tail.len() + 1;
        self.memory.set_available(self.available, slot);
        self.available = self.available.wrapping_add(1);
        Ok(slot)
    }

    #[cold]
    fn reject(&mut self, slot: Option<u16>, buffer: Option<DmaBuffer>, flags: u16) -> Rejected {
        let error = match slot {
            _ if self.violation.is_some() => self.poisoned(),
            Some(slot) => {
                self.free.push(slot);
                Error::new(
                    ErrorKind::InvalidInput,
                    "the buffer is not from this device's DMA memory",
                )
            }
            None => Error::new(
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
        if self.available == self.published {
            return;
        }
        self.memory.publish(self.available);
        // The index must be visible before the device's wish is read: the device, which publishes
        // its wish and then looks at the index again, would otherwise sleep while we see the wish
        // of before (VIRTIO 1.3, 2.7.13.4.1). A store followed by a load needs the full fence.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            passed(
                self.memory.available_event(),
                self.published,
                self.available,
            )
        } else {
            self.memory.wants_notification()
        };
        self.published = self.available;
        if wanted {
            self.doorbells += 1;
            self.doorbell.ring(self.index);
        }
    }

    /// The next request that the device has returned, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the device returned something that it cannot have. From then on
    /// every call does, and the requests in flight come back only by a reset.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>> {
        if self.used == self.used_seen && !self.look()? {
            return Ok(None);
        }
        let (id, written_len) = self.memory.used_element(self.used);
        match self.flights.get_mut(id as usize) {
            Some(flight) if written_len < flight.written_limit => {
                flight.written_limit = 0;
                let slot = id as u16;
                self.used = self.used.wrapping_add(1);
                self.free.push(slot);
                Ok(Some(Used {
                    slot,
                    written_len,
                    buffer: flight.buffer.take(),
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
        let seen = self.memory.used_index();
        if seen == self.used && self.violation.is_none() {
            return Ok(false);
        }
        if seen.wrapping_sub(self.used) > self.in_flight() || self.violation.is_some() {
            return Err(self.poison(Violation::UsedIndex {
                from: self.used,
                to: seen,
                in_flight: self.in_flight(),
            }));
        }
        self.used_seen = seen;
        if self.event_idx {
            self.park();
        }
        Ok(true)
    }

    /// The status byte that the device wrote for the request that had `slot`.
    #[inline]
    pub fn status(&self, slot: u16) -> u8 {
        self.memory.status(slot)
    }

    /// The value that the device wrote for the request that had `slot`, pushed with
    /// [`Tail::ValueAndStatus`].
    #[inline]
    pub fn value(&self, slot: u16) -> u64 {
        self.memory.value(slot)
    }

    /// Asks for an interrupt at the next completion. Returns true if there is none yet: only then
    /// will the interrupt come, and the caller may wait for it.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.memory.set_used_event(self.used);
        } else {
            self.memory.set_interrupts(true);
        }
        // The wish must be visible before the index is read; the device does the reverse. The
        // mirror image of the fence in `commit`.
        fence(Ordering::SeqCst);
        self.memory.used_index() == self.used
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
        self.memory.set_used_event(self.used.wrapping_sub(1));
    }

    #[cold]
    fn poison(&mut self, violation: Violation) -> Error {
        // Nothing more is taken from the ring, and nothing more is put into it.
        self.used_seen = self.used;
        self.free.clear();
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

    /// Ends the requests that the device will not return and yields their slots, without their
    /// memory: that stays with the device until its reset. Nothing can be pushed from then on.
    pub fn abandon(&mut self) -> Vec<u16> {
        self.free.clear();
        let mut slots = Vec::new();
        for (flight, slot) in self.flights.iter_mut().zip(0..) {
            if flight.written_limit != 0 {
                flight.written_limit = 0;
                if let Some(buffer) = flight.buffer.take() {
                    self.core.abandon(Box::new(buffer));
                }
                slots.push(slot);
            }
        }
        slots
    }
}

/// Whether `event` lies in the range from `old` to before `new`, wrapping (VIRTIO 1.3, 2.7.10.1).
#[inline]
fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

impl Drop for Virtqueue {
    fn drop(&mut self) {
        // The rings stay known to the device until its reset even when nothing is in flight.
        self.core.abandon(Box::new(self.memory.take_buffer()));
        self.abandon();
    }
}

impl fmt::Debug for Virtqueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtqueue")
            .field("index", &self.index)
            .field("slots", &self.slots())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
