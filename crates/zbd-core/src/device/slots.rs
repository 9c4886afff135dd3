//! Where a request of the async door lives from submission to completion.
//!
//! A slot outlives the future that filled it: a future dropped in flight leaves its slot orphaned,
//! and the engine frees it when the request ends. So at any time exactly one side frees:
//!
//! ```text
//! Free -> Waiting -> Done -> Free          the future takes the completion, or is dropped
//!               `-> Orphaned -> Free       the future was dropped: the engine frees
//! ```

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

use super::{
    accounts::{Books, Flight},
    driver::{Finished, Place, finished},
};
use crate::{Completion, Request};

enum State {
    Free,
    Waiting(Option<Waker>, Flight),
    Orphaned(Flight),
    Done(Completion),
}

/// The slots of one queue.
pub(super) struct Slots {
    states: Box<[Mutex<State>]>,
    free: ArrayQueue<u32>,
    /// One permit for each free slot. Waiters get them first come, first served.
    permits: Semaphore,
    ledger: Books,
}

impl Slots {
    pub(super) fn new(count: u16, ledger: Books) -> Self {
        let free = ArrayQueue::new(count.max(1).into());
        for id in 0..u32::from(count) {
            // Cannot fail: the queue has room for all of them.
            let _ = free.push(id);
        }
        Self {
            states: (0..count).map(|_| Mutex::new(State::Free)).collect(),
            free,
            permits: Semaphore::new(count.into()),
            ledger,
        }
    }

    /// Waits for a free slot; `None` once the engine has stopped.
    pub(super) async fn acquire(&self) -> Option<Slot<'_>> {
        let permit = self.permits.acquire().await.ok()?;
        self.take(permit)
    }

    /// A free slot, if there is one and nobody waits for it.
    pub(super) fn try_acquire(&self) -> Result<Option<Slot<'_>>, TryAcquireError> {
        match self.permits.try_acquire() {
            Ok(permit) => Ok(self.take(permit)),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(closed) => Err(closed),
        }
    }

    /// Whether nobody can acquire a slot any more.
    pub(super) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    fn take(&self, permit: SemaphorePermit<'_>) -> Option<Slot<'_>> {
        let id = self.free.pop()?;
        permit.forget();
        *self.lock(id) = State::Waiting(None, Flight::NONE);
        Some(Slot { slots: self, id })
    }

    /// Takes note that `request` is about to be submitted for slot `token`.
    pub(super) fn begin(&self, token: u64, request: &Request) {
        let flight = self.ledger.begun(request);
        if let State::Waiting(_, known) = &mut *self.lock(token as u32) {
            *known = flight;
            return;
        }
        // The lane was closed in between, which ended the request before it was counted.
        self.ledger.tell(self.ledger.ended(flight, None));
    }

    /// Hands the completion of the request in its slot to whoever waits for it. A request that has
    /// ended already, because the lane was closed, stays as it ended.
    pub(super) fn complete(&self, done: Completion) {
        let id = done.token as u32;
        let place = done.result.as_ref().ok().copied();
        let mut state = self.lock(id);
        let tidings = match &*state {
            State::Waiting(_, flight) | State::Orphaned(flight) => {
                self.ledger.ended(*flight, place)
            }
            State::Free | State::Done(_) => return,
        };
        match mem::replace(&mut *state, State::Free) {
            State::Waiting(waker, _) => {
                *state = State::Done(done);
                drop(state);
                self.ledger.tell(tidings);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Orphaned(_) | State::Free | State::Done(_) => {
                drop(state);
                // Nobody will look: the buffer goes back to the pool.
                drop(done);
                self.release(id);
                self.ledger.tell(tidings);
            }
        }
    }

    /// As [`complete`](Self::complete), for a request that was not sent.
    pub(super) fn refuse(&self, done: Completion) {
        if let State::Waiting(_, flight) | State::Orphaned(flight) =
            &mut *self.lock(done.token as u32)
        {
            *flight = flight.unsent();
        }
        self.complete(done);
    }

    /// Lets nobody acquire a slot any more, and ends what waits with completions made by `end`.
    pub(super) fn close(&self, end: impl Fn(u64) -> Completion) {
        self.permits.close();
        for id in 0..self.states.len() as u32 {
            let mut state = self.lock(id);
            match &*state {
                State::Waiting(..) => {
                    drop(state);
                    self.complete(end(id.into()));
                }
                State::Orphaned(flight) => {
                    let tidings = self.ledger.ended(*flight, None);
                    // Not released: nobody is to have it any more.
                    *state = State::Free;
                    drop(state);
                    self.ledger.tell(tidings);
                }
                State::Free | State::Done(_) => {}
            }
        }
    }

    fn release(&self, id: u32) {
        // Cannot fail: the queue has room for all slots, and each is released once.
        let _ = self.free.push(id);
        self.permits.add_permits(1);
    }

    fn lock(&self, id: u32) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.states[id as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot as its future holds it. Dropped in flight, it becomes an orphan.
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    id: u32,
}

impl Slot<'_> {
    /// The token under which the engine submits the slot's request.
    pub(super) fn token(&self) -> u64 {
        self.id.into()
    }
}

impl Place for Slot<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        let mut state = self.slots.lock(self.id);
        match mem::replace(&mut *state, State::Free) {
            State::Done(done) => {
                // The slot itself is released when this handle is dropped.
                Poll::Ready(finished(done))
            }
            State::Waiting(Some(waker), flight) if waker.will_wake(cx.waker()) => {
                *state = State::Waiting(Some(waker), flight);
                Poll::Pending
            }
            State::Waiting(_, flight) => {
                *state = State::Waiting(Some(cx.waker().clone()), flight);
                Poll::Pending
            }
            // Polled again after its end, which no future here does.
            ended @ (State::Free | State::Orphaned(_)) => {
                *state = ended;
                Poll::Pending
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.lock(self.id);
        let before = mem::replace(&mut *state, State::Free);
        if let State::Waiting(_, flight) = before {
            *state = State::Orphaned(flight);
            return;
        }
        drop(state);
        drop(before);
        self.slots.release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind, IoQueue, ZoneId};

    fn gone(token: u64) -> Completion {
        Completion {
            token,
            result: Err(Error::new(ErrorKind::DeviceGone, "gone")),
            buffer: None,
        }
    }

    #[test]
    fn nothing_stays_counted_when_a_lane_is_closed() {
        let queue = IoQueue::open("emu:zones=2,zone-size=1m").unwrap();
        let books = Books::new(queue.info());
        let append = || Request::Append {
            zone: ZoneId(1),
            buffer: queue.buffer(4096).unwrap(),
        };
        let slots = Slots::new(3, books.clone());
        let acquire = || slots.try_acquire().unwrap().unwrap();
        // One that waits, one whose future is gone, and one that is about to be submitted.
        let [waiting, orphan, late] = [acquire(), acquire(), acquire()];
        slots.begin(waiting.token(), &append());
        slots.begin(orphan.token(), &append());
        drop(orphan);
        assert!(!books.accounts().is_settled(ZoneId(1)));
        slots.close(gone);
        assert!(books.accounts().is_settled(ZoneId(1)));
        slots.begin(late.token(), &append());
        assert!(books.accounts().is_settled(ZoneId(1)));
        assert!(slots.try_acquire().is_err());
    }
}
