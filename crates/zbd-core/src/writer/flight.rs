//! Requests that belong to an object, not to the futures that wait for them.
//!
//! An owner (a [`ZoneWriter`](crate::ZoneWriter), a [`ZoneLog`](crate::ZoneLog)) submits operations
//! here. Whoever waits for anything of the owner polls all operations that have been woken, so one
//! whose own future was dropped goes on as long as somebody waits, and nobody needs a runtime to
//! spawn it.
//!
//! Nothing is polled, woken or dropped under a lock of this module: all of these may run code of the
//! device or of an executor, which may come back here.

use std::{
    future::{self, Future},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use event_listener::Event;

use crate::{
    Driver, ZonedDevice,
    device::{Finished, Operation, woken_in_vain},
};

/// How many times in a row what has been woken is polled. Operations that end submit others; a
/// future that wakes itself for ever must not hold a thread.
const ROUNDS: usize = 8;

/// Operations on their way, each of which is for a job `J` of the owner.
pub(crate) struct Flight<D: Driver, J> {
    hub: Arc<Hub>,
    slots: Mutex<Slots<D, J>>,
}

struct Slots<D: Driver, J> {
    all: Vec<Slot<D, J>>,
    free: Vec<usize>,
}

struct Slot<D: Driver, J> {
    waker: Waker,
    state: SlotState<D, J>,
}

enum SlotState<D: Driver, J> {
    Free,
    Idle(D::Going, J),
    /// Someone polls it.
    Polled {
        /// It has been woken meanwhile.
        again: bool,
    },
    /// Its end is being told to the owner.
    Ended,
}

/// Names an operation; that it has ended and another has its slot can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    slot: usize,
    number: u64,
}

/// Who is to be woken. It holds no operations, so that wakers which outlive the owner keep nothing.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    wakers: Mutex<Wakers>,
    /// That nothing is on its way any more. Whoever waits for this polls nothing, and may be on another
    /// thread, so wakers of operations do not count them.
    emptied: Event,
}

#[derive(Debug, Default)]
struct Wakers {
    /// Slots whose operation has been woken and not yet been polled.
    ready: Vec<usize>,
    /// Of each slot, what is to be done when its operation is woken.
    slots: Vec<Watched>,
    /// Who waits for anything else of the owner.
    waiting: Vec<(u64, Waker)>,
    /// The last number given away.
    last: u64,
    /// How many operations have not ended.
    on_way: usize,
}

#[derive(Debug, Default)]
struct Watched {
    /// That of its operation.
    number: u64,
    is_ready: bool,
    /// Who waits for this operation.
    watcher: Option<Waker>,
}

struct SlotWaker {
    hub: Arc<Hub>,
    slot: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut wakers = self.hub.lock();
        // Those who wait for something else have been woken by the first and poll all there is.
        let others = if wakers.ready.is_empty() {
            mem::take(&mut wakers.waiting)
        } else {
            Vec::new()
        };
        let slot = &mut wakers.slots[self.slot];
        let watcher = slot.watcher.take();
        if !mem::replace(&mut slot.is_ready, true) {
            wakers.ready.push(self.slot);
        }
        drop(wakers);
        if others.is_empty() && watcher.is_none() {
            woken_in_vain();
        }
        wake_all(others);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }
}

fn wake_all(wakers: Vec<(u64, Waker)>) {
    for (_, waker) in wakers {
        waker.wake();
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has been woken.
    fn take_ready(&self) -> Vec<usize> {
        let mut wakers = self.lock();
        let ready = mem::take(&mut wakers.ready);
        for slot in &ready {
            wakers.slots[*slot].is_ready = false;
        }
        ready
    }

    /// How many operations have not ended, or their owner does not know.
    pub(crate) fn on_way(&self) -> usize {
        self.lock().on_way
    }

    /// Waits until all operations have ended, or the owner is gone. Somebody else has to poll them.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.listen();
            if self.on_way() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Wakes all who wait for something else than a certain operation.
    pub(crate) fn wake_waiting(&self) {
        let waiting = mem::take(&mut self.lock().waiting);
        wake_all(waiting);
    }
}

/// One who waits for what comes of a [`Flight`]. Dropped, it is woken no more.
#[derive(Debug)]
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    /// What it waits under for anything.
    key: Option<u64>,
    /// The operation that it waits for.
    watched: Option<Ticket>,
}

impl Waiter {
    /// Whether it has waited before.
    pub(crate) fn is_known(&self) -> bool {
        self.key.is_some() || self.watched.is_some()
    }

    /// Lets `waker` be woken when the operation ends or needs to be polled. False if the operation
    /// has ended and its owner knows.
    fn watch(&mut self, ticket: Ticket, waker: &Waker) -> bool {
        if self.watched != Some(ticket) {
            self.forget();
        }
        let mut wakers = self.hub.lock();
        let Watched {
            number, watcher, ..
        } = &mut wakers.slots[ticket.slot];
        if *number != ticket.number {
            return false;
        }
        self.watched = Some(ticket);
        let former = match watcher {
            Some(known) if known.will_wake(waker) => None,
            _ => watcher.replace(waker.clone()),
        };
        drop(wakers);
        drop(former);
        true
    }

    /// A poll of [`Flight::until`].
    pub(crate) fn poll_until<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut ticket: impl FnMut() -> Option<Ticket>,
        turn: impl Fn(),
        mut check: impl FnMut(&mut Context<'_>) -> Option<R>,
    ) -> Poll<R> {
        loop {
            if let Some(value) = check(cx) {
                return Poll::Ready(value);
            }
            match ticket() {
                // Each time it is too late, the owner has learnt something in between.
                Some(ticket) if !self.watch(ticket, cx.waker()) => continue,
                Some(_) => {}
                None => self.register(cx.waker()),
            }
            break;
        }
        turn();
        match check(cx) {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }

    /// Lets `waker` be woken when anything happens.
    fn register(&mut self, waker: &Waker) {
        let mut wakers = self.hub.lock();
        let key = match self.key {
            Some(key) => key,
            None => {
                wakers.last += 1;
                *self.key.insert(wakers.last)
            }
        };
        let former = match wakers.waiting.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) if known.will_wake(waker) => None,
            Some((_, known)) => Some(mem::replace(known, waker.clone())),
            None => {
                wakers.waiting.push((key, waker.clone()));
                None
            }
        };
        drop(wakers);
        drop(former);
    }

    /// Waits for no operation any more.
    fn forget(&mut self) {
        let Some(ticket) = self.watched.take() else {
            return;
        };
        let mut wakers = self.hub.lock();
        let watched = &mut wakers.slots[ticket.slot];
        let former = match watched.number == ticket.number {
            true => watched.watcher.take(),
            false => None,
        };
        drop(wakers);
        drop(former);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.forget();
        let Some(key) = self.key else { return };
        let mut wakers = self.hub.lock();
        let at = wakers.waiting.iter().position(|(known, _)| *known == key);
        let former = at.map(|at| wakers.waiting.swap_remove(at));
        drop(wakers);
        drop(former);
    }
}

impl<D: Driver, J> Flight<D, J> {
    pub(crate) fn new() -> Self {
        Self {
            hub: Arc::default(),
            slots: Mutex::new(Slots {
                all: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// Who is to be woken.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Takes an operation up. It begins with the next [`turn`](Self::turn).
    pub(crate) fn submit(&self, device: &ZonedDevice<D>, operation: Operation, job: J) -> Ticket {
        let going = D::launch(device.clone(), operation);
        let mut slots = self.lock();
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = slots.all.len();
                let hub = Arc::clone(&self.hub);
                slots.all.push(Slot {
                    waker: Waker::from(Arc::new(SlotWaker { hub, slot })),
                    state: SlotState::Free,
                });
                slot
            }
        };
        slots.all[slot].state = SlotState::Idle(going, job);
        let mut wakers = self.hub.lock();
        wakers.on_way += 1;
        wakers.last += 1;
        let number = wakers.last;
        if wakers.slots.len() <= slot {
            wakers.slots.resize_with(slot + 1, Default::default);
        }
        wakers.slots[slot] = Watched {
            number,
            is_ready: true,
            watcher: None,
        };
        wakers.ready.push(slot);
        Ticket { slot, number }
    }

    /// Polls all operations that have been woken, and tells `end` of those that have ended.
    pub(crate) fn turn(&self, mut end: impl FnMut(J, Finished)) {
        let mut any = false;
        for _ in 0..ROUNDS {
            let batch = self.hub.take_ready();
            if batch.is_empty() {
                break;
            }
            for slot in batch {
                if let Some((job, finished)) = self.poll(slot) {
                    any = true;
                    end(job, finished);
                    self.release(slot);
                }
            }
        }
        if any || !self.hub.lock().ready.is_empty() {
            self.hub.wake_waiting();
        }
    }

    fn poll(&self, slot: usize) -> Option<(J, Finished)> {
        let mut slots = self.lock();
        let Slot { waker, state } = &mut slots.all[slot];
        let waker = waker.clone();
        let (mut operation, job) = match mem::replace(state, SlotState::Polled { again: false }) {
            SlotState::Idle(operation, job) => (operation, job),
            SlotState::Polled { .. } => {
                *state = SlotState::Polled { again: true };
                return None;
            }
            ended @ (SlotState::Free | SlotState::Ended) => {
                *state = ended;
                return None;
            }
        };
        drop(slots);
        loop {
            let poll = Pin::new(&mut operation).poll(&mut Context::from_waker(&waker));
            let mut slots = self.lock();
            let state = &mut slots.all[slot].state;
            match poll {
                Poll::Ready(finished) => {
                    *state = SlotState::Ended;
                    drop(slots);
                    drop(operation);
                    return Some((job, finished));
                }
                Poll::Pending => {
                    if matches!(state, SlotState::Polled { again: true }) {
                        *state = SlotState::Polled { again: false };
                        continue;
                    }
                    *state = SlotState::Idle(operation, job);
                    return None;
                }
            }
        }
    }

    /// Gives a slot back once the owner knows how its operation has ended, and wakes who waits for
    /// that: whoever begins to wait afterwards finds what the owner knows.
    fn release(&self, slot: usize) {
        let mut wakers = self.hub.lock();
        let Watched { watcher, .. } = mem::take(&mut wakers.slots[slot]);
        wakers.on_way -= 1;
        let is_empty = wakers.on_way == 0;
        drop(wakers);
        let mut slots = self.lock();
        slots.all[slot].state = SlotState::Free;
        slots.free.push(slot);
        drop(slots);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
        if is_empty {
            self.hub.emptied.notify(usize::MAX);
        }
    }

    /// One who will wait.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter {
            hub: Arc::clone(&self.hub),
            key: None,
            watched: None,
        }
    }

    /// Waits until `check` yields something. Between two checks it calls `turn`, which must call
    /// [`turn`](Self::turn), and it is woken when the operation that `ticket` names ends, or, if it
    /// names none, when any does.
    pub(crate) async fn until<R>(
        &self,
        mut ticket: impl FnMut() -> Option<Ticket>,
        turn: impl Fn(),
        mut check: impl FnMut(&mut Context<'_>) -> Option<R>,
    ) -> R {
        let mut waiter = self.waiter();
        future::poll_fn(|cx| waiter.poll_until(cx, &mut ticket, &turn, &mut check)).await
    }

    fn lock(&self) -> MutexGuard<'_, Slots<D, J>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Driver, J> Drop for Flight<D, J> {
    fn drop(&mut self) {
        drop(mem::take(&mut self.lock().all));
        self.hub.lock().on_way = 0;
        self.hub.emptied.notify(usize::MAX);
    }
}
