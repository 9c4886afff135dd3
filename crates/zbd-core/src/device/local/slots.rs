//! Where a request of a thread of its own lives from submission to completion: as with lanes, but
//! that nobody else comes near.

use std::{collections::VecDeque, mem, task::Waker};

use vfio_virtio::DmaBuffer;

use super::News;
use crate::{
    Completion, Error, Sector,
    device::{
        accounts::{Books, Flight},
        driver::Finished,
    },
};

/// See the states of a lane's slots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Orphaned,
    Done,
}

/// What is not part of the state stays where it is, so that a change of the state moves nothing.
struct Slot {
    state: State,
    /// While it waits: what its request means for the zones.
    flight: Flight,
    /// While it waits: who is to be woken.
    waker: Option<Waker>,
    /// When it is done, until they have been taken: how it ended, and its buffer.
    sector: Sector,
    error: Option<Error>,
    buffer: Option<DmaBuffer>,
}

/// A place in the line of those who wait for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

pub(super) struct Slots {
    slots: Box<[Slot]>,
    free: Vec<u32>,
    /// Those who wait, in the order in which they came.
    line: VecDeque<(Ticket, Waker)>,
    next: u64,
    /// A slot that is likely to be waited for.
    likely: u32,
}

/// What was in a slot, or waited for one: to be dropped when nothing is borrowed.
pub(super) struct Leftover {
    _waker: Option<Waker>,
    _buffer: Option<DmaBuffer>,
}

impl Slots {
    pub(super) fn new(count: u16) -> Self {
        Self {
            slots: (0..count)
                .map(|_| Slot {
                    state: State::Free,
                    flight: Flight::NONE,
                    waker: None,
                    sector: Sector(0),
                    error: None,
                    buffer: None,
                })
                .collect(),
            free: (0..count.into()).rev().collect(),
            line: VecDeque::new(),
            next: 0,
            likely: 0,
        }
    }

    /// Takes a free slot, if it is the turn of whoever asks: those in the line come first.
    #[inline(always)]
    pub(super) fn take(&mut self, ticket: Option<Ticket>) -> Option<u32> {
        if (ticket.is_some() || !self.line.is_empty()) && !self.is_turn_of(ticket) {
            return None;
        }
        let id = self.free.pop()?;
        self.slots[id as usize].state = State::Waiting;
        Some(id)
    }

    /// Whether a slot is free for this place in the line, which is given up then.
    #[cold]
    fn is_turn_of(&mut self, ticket: Option<Ticket>) -> bool {
        match ticket.and_then(|ticket| self.position(ticket)) {
            Some(at) if at < self.free.len() => {
                // Whoever took the place is polled now, so the waker is its own.
                self.line.remove(at);
                true
            }
            _ => false,
        }
    }

    fn position(&self, ticket: Ticket) -> Option<usize> {
        self.line
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            .ok()
    }

    /// Joins the line, or stays in it with another waker; what was there before comes back.
    pub(super) fn stand_in_line(
        &mut self,
        ticket: Option<Ticket>,
        waker: Waker,
    ) -> (Ticket, Option<Waker>) {
        if let Some(ticket) = ticket
            && let Some(at) = self.position(ticket)
        {
            let before = mem::replace(&mut self.line[at].1, waker);
            return (ticket, Some(before));
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.line.push_back((ticket, waker));
        (ticket, None)
    }

    pub(super) fn leave_line(&mut self, ticket: Ticket) -> Option<Waker> {
        let at = self.position(ticket)?;
        self.line.remove(at).map(|(_, waker)| waker)
    }

    /// Wakes those whose turn has come.
    #[inline]
    pub(super) fn pass_on(&mut self, news: &mut News) {
        if self.line.is_empty() {
            return;
        }
        let next = self.line.iter().take(self.free.len());
        news.woken.extend(next.map(|(_, waker)| waker.clone()));
    }

    /// Whether there are some who wait for a slot.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        !self.line.is_empty()
    }

    /// A request is about to be submitted for a slot that has just been taken.
    #[inline(always)]
    pub(super) fn begin(&mut self, id: u32, flight: Flight, waker: Option<Waker>) {
        self.likely = id;
        let slot = &mut self.slots[id as usize];
        slot.flight = flight;
        slot.waker = waker;
    }

    /// Hands the completion of the request in its slot to whoever waits for it.
    #[inline(always)]
    pub(super) fn complete(&mut self, done: Completion, books: &Books, news: &mut News) {
        let id = done.token as u32;
        let slot = &mut self.slots[id as usize];
        if slot.state != State::Waiting {
            return self.complete_orphan(done, news);
        }
        slot.state = State::Done;
        slot.buffer = done.buffer;
        let place = match done.result {
            Ok(sector) => {
                slot.sector = sector;
                Some(sector)
            }
            Err(error) => {
                slot.error = Some(error);
                None
            }
        };
        if let Some(waker) = slot.waker.take() {
            news.woken.push(waker);
        }
        if !books.ended_in_silence(slot.flight, place) {
            news.ended.push((slot.flight, place));
        }
    }

    /// As [`complete`](Self::complete), for a request that was not sent.
    #[cold]
    pub(super) fn refuse(&mut self, done: Completion, books: &Books, news: &mut News) {
        let slot = &mut self.slots[done.token as usize];
        slot.flight = slot.flight.unsent();
        self.complete(done, books, news);
    }

    /// Nobody will look: the buffer goes back to the pool.
    #[cold]
    fn complete_orphan(&mut self, done: Completion, news: &mut News) {
        let id = done.token as u32;
        let slot = &mut self.slots[id as usize];
        if slot.state == State::Orphaned {
            slot.state = State::Free;
            self.free.push(id);
            news.orphans.extend(done.buffer);
            news.ended.push((slot.flight, done.result.ok()));
        }
    }

    /// What the request came to, if it has ended; the slot is free then.
    #[inline(always)]
    pub(super) fn take_done(&mut self, id: u32) -> Option<Finished> {
        let slot = &mut self.slots[id as usize];
        if slot.state != State::Done {
            return None;
        }
        slot.state = State::Free;
        self.free.push(id);
        let buffer = slot.buffer.take();
        Some(match slot.error.take() {
            None => Ok((slot.sector, buffer)),
            Some(error) => Err(error.with_buffer(buffer)),
        })
    }

    /// Remembers whom to wake; who was to be woken before comes back.
    pub(super) fn wait(&mut self, id: u32, waker: Waker) -> Option<Waker> {
        self.likely = id;
        let slot = &mut self.slots[id as usize];
        match slot.state {
            State::Waiting => slot.waker.replace(waker),
            _ => Some(waker),
        }
    }

    /// The slot's owner goes: it is released, now or when its request has ended.
    pub(super) fn leave(&mut self, id: u32) -> Leftover {
        let slot = &mut self.slots[id as usize];
        slot.error = None;
        let leftover = Leftover {
            _waker: slot.waker.take(),
            _buffer: slot.buffer.take(),
        };
        match slot.state {
            State::Waiting => slot.state = State::Orphaned,
            State::Done => {
                slot.state = State::Free;
                self.free.push(id);
            }
            State::Free | State::Orphaned => {}
        }
        leftover
    }

    /// A task that waits, after `skip` others, and how many come before it. First comes the one that is
    /// most likely to wait.
    pub(super) fn awaited(&self, skip: usize) -> Option<(usize, Waker)> {
        let (before, after) = self.slots.split_at(self.likely as usize);
        let slots = after.iter().chain(before).map(|slot| slot.waker.as_ref());
        let line = self.line.iter().map(|(_, waker)| Some(waker));
        let mut all = slots.chain(line).enumerate().skip(skip);
        all.find_map(|(at, waker)| Some((at, waker?.clone())))
    }

    /// The one that [`awaited`](Self::awaited) found after `skip` others is the first from now on.
    pub(super) fn set_likely(&mut self, skip: usize) {
        if skip < self.slots.len() {
            self.likely = ((self.likely as usize + skip) % self.slots.len()) as u32;
        }
    }
}
