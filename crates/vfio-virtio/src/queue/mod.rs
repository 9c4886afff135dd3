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
//!
//! What most requests are (one data segment at the most, in an indirect table, returned one by one)
//! is done here; `wide.rs` does the rest, and `life.rs` ends requests that the device will not
//! return.

use std::{
    fmt, mem,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use crate::{
    DmaBuffer, Error, ErrorKind, EventFd, Features, Result, arena::ArenaId, device::Core, event,
    transport::Notification,
};

mod life;
mod memory;
mod packed;
mod raw;
mod split;
#[cfg(test)]
mod tests;
mod wide;

use memory::{Displacement, PackedTable, SlotMemory, SplitTable, TAIL_LEN_MAX};
use packed::PackedRing;
use split::SplitRing;
use wide::Wide;

pub use life::Ended;
pub(crate) use memory::{Format, QueueMemory};

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
    /// The le64 before the status byte, all ones if the device did not write it. Only requests with
    /// [`Tail::ValueAndStatus`] have one; for others it is some older one.
    pub value: u64,
    /// How many bytes the device says it wrote, data and tail together; never more than there was
    /// room for, and 0 where a packed ring's device does not say.
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
    /// How many requests were pushed before this one; [`FREE`] while the slot is free.
    position: u64,
    /// One more than the device may write. 0 for a request whose return takes more than the
    /// request path does; its [`Wide`] has the limit then.
    written_limit: u32,
    /// The slot that is free after this one, while this one is free.
    next_free: u32,
}

/// The position of no request: the device has never been shown so many.
const FREE: u64 = u64::MAX;

/// The end of the list of free slots.
const NO_SLOT: u32 = u32::MAX;

/// Where the descriptors of a request lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chains {
    /// In a table of the request; one descriptor of the ring points to it.
    Indirect,
    /// In the ring.
    Direct,
}

enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

/// Why a request is not accepted.
enum Refusal {
    Foreign,
    ReadOnly,
    Full,
    NoTable(Error),
    TooManySegments(usize),
}

/// A contradiction between what the device wrote and what is in flight.
#[derive(Clone, Copy, Debug)]
enum Violation {
    UsedIndex { from: u16, to: u16, in_flight: u16 },
    UsedElement { id: u32, len: u32 },
    OutOfOrder { id: u32, returned: u64 },
}

/// A split or packed virtqueue (VIRTIO 1.3, 2.7 and 2.8) with one owner.
///
/// `C` is a request's context: what its owner wants back with it.
///
/// Completions are polled, or waited for between [`arm`](Self::arm) and the queue's
/// [interrupt](Self::interrupt). Dropped with requests in flight, the queue leaves their memory to
/// the device until that is reset.
pub struct Virtqueue<C> {
    ring: Ring,
    slots: Box<[Slot<C>]>,
    /// The first of the free slots. The last one freed is taken next, because its lines are the
    /// ones in the cache. [`NO_SLOT`] for direct chains, which take other paths.
    free: u32,
    displacement: Displacement,
    /// The device's own arena, from which most buffers come.
    arena: ArenaId,
    /// How many requests were pushed, shown to the device, and popped, ever. Their low 16 bits are
    /// a split ring's indices; the rest tells a request that has long been in flight from one that
    /// the device has not been shown yet.
    pushed: u64,
    published: u64,
    popped: u64,
    /// How many requests the device of a split ring had returned when it was last looked at. Not
    /// more than were popped where they are returned in order.
    returned: u64,
    event_idx: bool,
    in_order: bool,
    wide: Wide,
    index: u16,
    doorbells: u64,
    notification: Notification,
    interrupt: Option<EventFd>,
    violation: Option<Violation>,
    memory: QueueMemory,
    /// The number of the device's life, or the queue's, in which it was set up.
    life: u32,
    core: Arc<Core>,
}

impl<C: Copy + Default> Virtqueue<C> {
    pub(crate) fn new(
        core: Arc<Core>,
        mut memory: QueueMemory,
        index: u16,
        notification: Notification,
        interrupt: Option<EventFd>,
    ) -> Self {
        let features = core.features();
        let chains = if features.contains(Features::INDIRECT_DESC) {
            Chains::Indirect
        } else {
            Chains::Direct
        };
        let slots: Box<[_]> = memory
            .slots()
            .into_iter()
            .zip(1..)
            .map(|(memory, next_free)| Slot {
                context: C::default(),
                buffer: None,
                memory,
                position: FREE,
                written_limit: 0,
                next_free,
            })
            .collect();
        let in_order = features.contains(Features::IN_ORDER);
        let ring = match memory.format() {
            Format::Split => Ring::Split(SplitRing::new(&memory)),
            Format::Packed => Ring::Packed(PackedRing::new(&memory, in_order)),
        };
        let mut queue = Self {
            ring,
            free: NO_SLOT,
            displacement: memory.displacement(),
            arena: core.arena().id(),
            pushed: 0,
            published: 0,
            popped: 0,
            returned: 0,
            event_idx: features.contains(Features::EVENT_IDX),
            in_order,
            wide: Wide::new(chains, slots.len()),
            slots,
            index,
            doorbells: 0,
            notification,
            interrupt,
            violation: None,
            memory,
            life: core.life(index),
            core,
        };
        queue.link();
        queue.disarm();
        queue
    }

    /// Puts a request into the queue. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// `head` goes before the data; `tail` comes after them, its status preset to `status` so that
    /// a device that forgets to write it is found out.
    ///
    /// # Errors
    /// The request comes back when no slot is free, when its buffer is not from an arena of this
    /// queue's device, has more segments than the queue has descriptors for, or
    /// [is read-only](DmaBuffer::is_read_only) and the device is to write it.
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
        let elsewhere = buffer
            .as_ref()
            .is_some_and(|buffer| buffer.single_in() != self.arena);
        let id = self.free;
        let slot = match self.slots.get_mut(id as usize) {
            Some(slot) if !elsewhere => slot,
            _ => return self.push_wide(head, buffer, flags, tail, status, context),
        };
        self.free = slot.next_free;
        let pushed = self.pushed;
        let segment = buffer
            .as_ref()
            .map(|buffer| (buffer.iova(), buffer.len() as u32, flags));
        let written = match segment {
            Some((_, len, memory::WRITE)) => len,
            _ => 0,
        };
        slot.written_limit = written + tail.len() + 1;
        slot.context = context;
        slot.position = pushed;
        self.pushed = pushed + 1;
        let before = mem::replace(&mut slot.buffer, buffer);
        debug_assert!(before.is_none(), "a free slot owns nothing");
        mem::forget(before);
        match &mut self.ring {
            Ring::Split(ring) => {
                slot.memory.write::<SplitTable>(
                    head,
                    segment,
                    tail.len(),
                    status,
                    self.displacement,
                );
                ring.set_available(pushed as u16, id as u16);
            }
            Ring::Packed(ring) => {
                let table_len = slot.memory.write::<PackedTable>(
                    head,
                    segment,
                    tail.len(),
                    status,
                    self.displacement,
                );
                let table = slot.memory.table(self.displacement);
                ring.put_table(table, table_len, id as u16);
            }
        }
        Ok(())
    }

    #[cold]
    fn reject(&self, buffer: Option<DmaBuffer>, flags: u16, refusal: Refusal) -> Rejected {
        let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
        let error = match refusal {
            _ if self.violation.is_some() => self.poisoned(),
            Refusal::Foreign => {
                invalid("the buffer is not from this device's DMA memory".to_owned())
            }
            Refusal::ReadOnly => invalid(
                "the buffer was lent from bytes, which the device must not write; read into an \
                 allocated one"
                    .to_owned(),
            ),
            Refusal::Full => Error::new(
                ErrorKind::Busy,
                format!(
                    "all {} slots of queue {} are in use",
                    self.slots(),
                    self.index
                ),
            ),
            Refusal::NoTable(error) => error,
            Refusal::TooManySegments(segments) => invalid(format!(
                "a request of {segments} segments does not fit into queue {} of {} descriptors",
                self.index,
                self.memory.size()
            )),
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
        let (pushed, published) = (self.pushed, self.published);
        if pushed == published {
            return;
        }
        // In both formats, what was pushed must be visible before the device's wish is read: the
        // device, which publishes its wish and then looks at the ring again, would otherwise sleep
        // while we see the wish of before (VIRTIO 1.3, 2.7.13.4.1 and 2.8.21.3.1). A store followed
        // by a load needs the full fence.
        self.published = pushed;
        let is_wanted = match &mut self.ring {
            Ring::Split(ring) => {
                let (old, new) = (published as u16, pushed as u16);
                ring.publish(new);
                fence(Ordering::SeqCst);
                ring.wants_notification(self.event_idx, old, new)
            }
            Ring::Packed(ring) => {
                let published = ring.publish();
                fence(Ordering::SeqCst);
                ring.wants_notification(self.event_idx, published)
            }
        };
        if is_wanted {
            self.doorbells += 1;
            self.notification.send(|| match &self.ring {
                Ring::Split(_) => pushed as u16,
                Ring::Packed(ring) => ring.position(),
            });
        }
    }

    /// The next request that the device has returned, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the device returned something that it cannot have. From then on
    /// nothing comes back any more, and the memory of the requests in flight only by a reset.
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Used<C>>> {
        // Slower paths end here and there; what becomes of the slot is written once, so that the
        // result is made in registers.
        let popped = self.popped;
        let used = match &mut self.ring {
            Ring::Split(ring) if popped != self.returned => Some(ring.used_element(popped as u16)),
            Ring::Split(ring) => match look(ring, self.event_idx, popped, self.published) {
                Ok(0) => return Ok(None),
                Ok(_) if self.in_order => None,
                Ok(new) => {
                    self.returned = popped + new;
                    Some(ring.used_element(popped as u16))
                }
                Err(violation) => return Err(self.poison(violation)),
            },
            Ring::Packed(ring) => match ring.used() {
                None if self.in_order => None,
                None => return Ok(None),
                used => {
                    ring.advance(1);
                    used
                }
            },
        };
        let (slot, written_len) = match used {
            Some((id, written_len)) => match self.slots.get_mut(id as usize) {
                Some(slot)
                    if written_len < slot.written_limit && slot.position < self.published =>
                {
                    slot.next_free = self.free;
                    self.free = id;
                    self.popped = popped + 1;
                    (slot, written_len)
                }
                _ => (self.find_wide(id, written_len)?, written_len),
            },
            None => match self.next_in_order()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        slot.position = FREE;
        Ok(Some(Used {
            context: slot.context,
            status: slot.memory.status(),
            value: slot.memory.value(),
            written_len,
            buffer: slot.buffer.take(),
        }))
    }

    /// Asks for an interrupt at the next completion. Returns true if there is none yet: only then
    /// will the interrupt come, and the caller may wait for it.
    pub fn arm(&mut self) -> bool {
        // The mirror image of the fence in `commit` is in there.
        let is_idle = match &mut self.ring {
            Ring::Split(ring) => ring.arm(self.event_idx, self.popped as u16),
            Ring::Packed(ring) => ring.arm(self.event_idx),
        };
        // In a batch, a packed ring has nothing at the next place although there is more to pop.
        is_idle && !self.wide.is_in_batch()
    }

    /// Asks for no interrupts: completions are polled.
    pub fn disarm(&mut self) {
        match &mut self.ring {
            Ring::Split(ring) => ring.disarm(self.event_idx, self.popped as u16),
            Ring::Packed(ring) => ring.disarm(),
        }
    }

    /// Waits until there is something to pop, for `timeout` at the most: [arms](Self::arm) the
    /// queue's interrupt, waits for it unless something has come already, and disarms it. May
    /// return early.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the queue has no interrupt, and [`ErrorKind::Io`] if the system
    /// does not wait.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let Some(interrupt) = &self.interrupt else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("queue {} has no interrupt: poll it", self.index),
            ));
        };
        // Interrupts of before have been seen to.
        drop(interrupt.read());
        let interrupt = interrupt.as_raw_fd();
        let waited = match self.arm() {
            true => event::wait(interrupt, timeout),
            false => Ok(()),
        };
        self.disarm();
        waited
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
            Some(Violation::OutOfOrder { id, returned }) => format!(
                "it promised to keep the order and returned {returned} requests, of which {id} cannot be the last"
            ),
            None => "it returned a request after the queue had ended".to_owned(),
        };
        Error::new(
            ErrorKind::Protocol,
            format!("the device broke the rules of queue {}: {what}", self.index),
        )
    }
}

impl<C> Virtqueue<C> {
    /// How many requests of one data segment can be in flight at once.
    pub fn slots(&self) -> u16 {
        match self.wide.chains() {
            Chains::Indirect => self.memory.size(),
            Chains::Direct => self.memory.size() / 3,
        }
    }

    /// How many requests have been pushed and not yet popped.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        (self.pushed - self.popped) as u16
    }

    /// How many requests have been popped since the queue was set up.
    #[inline]
    pub fn popped(&self) -> u64 {
        self.popped
    }

    /// How often the device has been notified.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// What an interrupt of this queue is delivered to, if it has a vector. Reading it is up to
    /// whoever waits on it.
    pub fn interrupt(&self) -> Option<&EventFd> {
        self.interrupt.as_ref()
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl<C> fmt::Debug for Virtqueue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtqueue")
            .field("index", &self.index)
            .field("format", &self.memory.format())
            .field("slots", &self.slots())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Reads a split ring's used index: how many requests the device has returned besides the `popped`
/// ones, of `published` that it was shown.
#[inline]
fn look(
    ring: &mut SplitRing,
    event_idx: bool,
    popped: u64,
    published: u64,
) -> Result<u64, Violation> {
    let (from, to) = (popped as u16, ring.used_index());
    if to == from {
        return Ok(0);
    }
    let new = u64::from(to.wrapping_sub(from));
    let in_flight = published - popped;
    if new > in_flight {
        let in_flight = in_flight as u16;
        return Err(Violation::UsedIndex {
            from,
            to,
            in_flight,
        });
    }
    if event_idx {
        ring.disarm(true, from);
    }
    Ok(new)
}
