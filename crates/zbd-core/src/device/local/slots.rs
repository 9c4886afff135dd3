//! Where a request of a thread of its own lives from submission to completion: as with lanes, but
//! that nobody else comes near.

use std::{collections::VecDeque, mem, task::Waker};

use super::News;
use crate::{Completion, device::accounts::Flight};

/// See the states of a lane's slots.
enum State {
    Free,
    Waiting(Option<Waker>, Flight),
    Orphaned(Flight),
    Done(Completion),
}

/// A place in the line of those who wait for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

pub(super) struct Slots {
    states: Box<[State]>,
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
    _done: Option<Completion>,
}

impl Slots {
    pub(super) fn new(count: u16) -> Self {
        Self {
            states: (0..count).map(|_| State::Free).collect(),
            free: (0..count.into()).rev().collect(),
            line: VecDeque::new(),
            next: 0,
            likely: 0,
        }
    }

    /// Takes a free slot, if it is the turn of whoever asks: those in the line come first.
    #[inline]
    pub(super) fn take(&mut self, ticket: Option<Ticket>) -> Option<u32> {
        match ticket {
            None if !self.line.is_empty() => return None,
            None => {}
            Some(ticket) => {
                let at = self.position(ticket)?;
                if at >= self.free.len() {
                    return None;
                }
                // Whoever took its place is polled now, so its waker is its own.
                self.line.remove(at);
            }
        }
        let id = self.free.pop()?;
        self.states[id as usize] = State::Waiting(None, Flight::NONE);
        Some(id)
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

    #[inline]
    pub(super) fn begin(&mut self, id: u32, flight: Flight) {
        if let State::Waiting(_, known) = &mut self.states[id as usize] {
            *known = flight;
        }
    }

    /// Hands the completion of the request in its slot to whoever waits for it.
    #[inline]
    pub(super) fn complete(&mut self, done: Completion, news: &mut News) {
        let place = done.result.as_ref().ok().copied();
        let id = done.token as u32;
        let state = &mut self.states[id as usize];
        match mem::replace(state, State::Free) {
            State::Waiting(waker, flight) => {
                *state = State::Done(done);
                news.ended.push((flight, place));
                news.woken.extend(waker);
            }
            State::Orphaned(flight) => {
                // Nobody will look: the buffer goes back to the pool.
                news.orphans.extend(done.buffer);
                news.ended.push((flight, place));
                self.free.push(id);
            }
            ended @ (State::Free | State::Done(_)) => *state = ended,
        }
    }

    /// The completion, if there is one; the slot is released when it is left.
    #[inline]
    pub(super) fn take_done(&mut self, id: u32) -> Option<Completion> {
        let state = &mut self.states[id as usize];
        match mem::replace(state, State::Free) {
            State::Done(done) => Some(done),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Remembers whom to wake; who was to be woken before comes back.
    #[inline]
    pub(super) fn wait(&mut self, id: u32, waker: Waker) -> Option<Waker> {
        self.likely = id;
        match &mut self.states[id as usize] {
            State::Waiting(known, _) => known.replace(waker),
            _ => Some(waker),
        }
    }

    /// The slot's owner goes: it is released, now or when its request has ended.
    #[inline]
    pub(super) fn leave(&mut self, id: u32) -> Leftover {
        let state = &mut self.states[id as usize];
        let (waker, done) = match mem::replace(state, State::Free) {
            State::Waiting(waker, flight) => {
                *state = State::Orphaned(flight);
                return Leftover {
                    _waker: waker,
                    _done: None,
                };
            }
            State::Done(done) => (None, Some(done)),
            State::Free | State::Orphaned(_) => (None, None),
        };
        self.free.push(id);
        Leftover {
            _waker: waker,
            _done: done,
        }
    }

    /// A task that waits, if there is one.
    pub(super) fn anybody(&mut self) -> Option<Waker> {
        let waker_of = |state: &State| match state {
            State::Waiting(waker, _) => waker.clone(),
            _ => None,
        };
        if let Some(waker) = waker_of(&self.states[self.likely as usize]) {
            return Some(waker);
        }
        let at = self
            .states
            .iter()
            .position(|state| waker_of(state).is_some())?;
        self.likely = at as u32;
        waker_of(&self.states[at])
    }
}
