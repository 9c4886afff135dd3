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
use tokio::sync::Semaphore;

use crate::Completion;

enum State {
    Free,
    Waiting(Option<Waker>),
    Orphaned,
    Done(Completion),
}

/// The slots of one queue.
pub(super) struct Slots {
    states: Box<[Mutex<State>]>,
    free: ArrayQueue<u32>,
    /// One permit for each free slot. Waiters get them first come, first served.
    permits: Semaphore,
}

impl Slots {
    pub(super) fn new(count: u16) -> Self {
        let free = ArrayQueue::new(count.max(1).into());
        for id in 0..u32::from(count) {
            // Cannot fail: the queue has room for all of them.
            let _ = free.push(id);
        }
        Self {
            states: (0..count).map(|_| Mutex::new(State::Free)).collect(),
            free,
            permits: Semaphore::new(count.into()),
        }
    }

    /// Waits for a free slot; `None` once the engine has stopped.
    pub(super) async fn acquire(&self) -> Option<Slot<'_>> {
        let permit = self.permits.acquire().await.ok()?;
        let id = self.free.pop()?;
        permit.forget();
        *self.lock(id) = State::Waiting(None);
        Some(Slot { slots: self, id })
    }

    /// Hands the completion of the request in its slot to whoever waits for it. A request that has
    /// ended already, because the lane was closed, stays as it ended.
    pub(super) fn complete(&self, done: Completion) {
        let id = done.token as u32;
        let mut state = self.lock(id);
        match mem::replace(&mut *state, State::Free) {
            State::Waiting(waker) => {
                *state = State::Done(done);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Orphaned => {
                drop(state);
                // Nobody will look: the buffer goes back to the pool.
                drop(done);
                self.release(id);
            }
            ended @ (State::Free | State::Done(_)) => *state = ended,
        }
    }

    /// Lets nobody acquire a slot any more, and ends what waits with completions made by `end`.
    pub(super) fn close(&self, end: impl Fn(u64) -> Completion) {
        self.permits.close();
        for id in 0..self.states.len() as u32 {
            if matches!(*self.lock(id), State::Waiting(_)) {
                self.complete(end(id.into()));
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

    /// The completion, if there is one; otherwise it will wake `cx`.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Completion> {
        let mut state = self.slots.lock(self.id);
        match mem::replace(&mut *state, State::Free) {
            State::Done(done) => {
                // The slot itself is released when this handle is dropped.
                Poll::Ready(done)
            }
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                *state = State::Waiting(Some(waker));
                Poll::Pending
            }
            _ => {
                *state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.lock(self.id);
        let before = mem::replace(&mut *state, State::Free);
        if let State::Waiting(_) = before {
            *state = State::Orphaned;
            return;
        }
        drop(state);
        drop(before);
        self.slots.release(self.id);
    }
}
