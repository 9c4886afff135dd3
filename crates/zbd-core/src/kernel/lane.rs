//! A queue's part of the device: its ring, and what is known of its requests.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use vfio_virtio::{DmaBuffer, EventFd};

use super::{ring::Ring, turns::Step};
use crate::{Completion, Sector, SectorCount, Unmap, ZoneAction, ZoneId};

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    /// A write; to a sequential zone if there is one.
    Write(Option<ZoneId>),
    Append(ZoneId),
    Flush,
    Id,
    Report,
    Manage(ZoneAction, ZoneId),
    ResetAll,
    Discard,
    Zeroes(Unmap),
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    Free,
    /// It has been submitted and not committed.
    Staged,
    /// It waits for its turn in its zone.
    Queued,
    /// The kernel has it, or the device's worker.
    Begun,
}

/// A place for a request.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) token: u64,
    pub(super) work: Work,
    pub(super) stage: Stage,
    /// Where it begins. An append's place is known once its turn has come.
    pub(super) at: Sector,
    pub(super) len: SectorCount,
    /// The buffer, unless the ring has it.
    pub(super) buffer: Option<DmaBuffer>,
    /// The caller's buffer, if the kernel gets a copy of it.
    pub(super) original: Option<DmaBuffer>,
    pub(super) due: Option<Instant>,
    /// Its caller has been told that its time was up: nobody waits for it any more.
    pub(super) is_expired: bool,
    /// How often an append has been sent elsewhere than where it went first.
    pub(super) tries: u8,
}

impl Slot {
    const VACANT: Self = Self {
        token: 0,
        work: Work::Flush,
        stage: Stage::Free,
        at: Sector(0),
        len: SectorCount(0),
        buffer: None,
        original: None,
        due: None,
        is_expired: false,
        tries: 0,
    };
}

/// What a request is made of, before it has a slot.
pub(super) struct Entry {
    pub(super) token: u64,
    pub(super) work: Work,
    pub(super) at: Sector,
    pub(super) len: SectorCount,
    pub(super) buffer: Option<DmaBuffer>,
    pub(super) original: Option<DmaBuffer>,
    pub(super) due: Option<Instant>,
}

/// What the owner of a queue and those who help it share.
pub(super) struct Lane {
    state: Mutex<State>,
    /// Signalled when a request has ended that its owner may be waiting for.
    pub(super) event: EventFd,
}

impl Lane {
    pub(super) fn new(ring: Ring, depth: u16, event: EventFd) -> Self {
        Self {
            state: Mutex::new(State {
                ring,
                slots: (0..depth).map(|_| Slot::VACANT).collect(),
                free: (0..depth).rev().collect(),
                staged: Vec::with_capacity(depth.into()),
                ended: VecDeque::new(),
                freed: Vec::new(),
                queued: 0,
                expired: 0,
                next_due: None,
                is_waited_for: false,
                steps: Vec::new(),
            }),
            event,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless somebody else has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Lets the owner look.
    pub(super) fn wake(&self) {
        // It fails only where it has been signalled more often than can be counted.
        let _ = self.event.write(1);
    }
}

/// The requests of a queue.
pub(super) struct State {
    pub(super) ring: Ring,
    pub(super) slots: Box<[Slot]>,
    free: Vec<u16>,
    /// Submitted and not committed, in order.
    pub(super) staged: Vec<u16>,
    /// What has ended and has not been handed out.
    pub(super) ended: VecDeque<Completion>,
    /// Buffers that nobody waits for. Dropped without the lock, because that wakes others.
    pub(super) freed: Vec<DmaBuffer>,
    /// How many wait for their turn in a zone.
    pub(super) queued: usize,
    /// How many have been given up by their callers, and not by the kernel.
    pub(super) expired: usize,
    /// When the time of the first is up; no later than that, perhaps earlier.
    pub(super) next_due: Option<Instant>,
    /// Whether the owner has ever waited for the event.
    pub(super) is_waited_for: bool,
    /// Kept for its memory.
    pub(super) steps: Vec<Step>,
}

impl State {
    /// How many slots are taken.
    /// How much there is for the owner to take.
    pub(super) fn taken_back(&self) -> usize {
        self.ended.len() + self.freed.len()
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot for a request; `None` if there is none.
    pub(super) fn stage(&mut self, entry: Entry) -> Option<()> {
        let slot = self.free.pop()?;
        self.slots[usize::from(slot)] = Slot {
            token: entry.token,
            work: entry.work,
            stage: Stage::Staged,
            at: entry.at,
            len: entry.len,
            buffer: entry.buffer,
            original: entry.original,
            due: entry.due,
            is_expired: false,
            tries: 0,
        };
        self.staged.push(slot);
        if let Some(due) = entry.due {
            self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        }
        Some(())
    }

    pub(super) fn slot(&mut self, slot: u16) -> &mut Slot {
        &mut self.slots[usize::from(slot)]
    }

    /// Ends a request and frees its slot.
    pub(super) fn end(&mut self, slot: u16, result: crate::Result<Sector>) {
        let place = &mut self.slots[usize::from(slot)];
        let sent = place.buffer.take();
        let (buffer, copy) = match place.original.take() {
            Some(original) => (Some(original), sent),
            None => (sent, None),
        };
        self.freed.extend(copy);
        if place.stage == Stage::Queued {
            self.queued -= 1;
        }
        place.stage = Stage::Free;
        self.free.push(slot);
        if place.is_expired {
            self.expired -= 1;
            self.freed.extend(buffer);
            return;
        }
        self.ended.push_back(Completion {
            token: place.token,
            result,
            buffer,
        });
    }
}
