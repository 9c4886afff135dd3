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

/// An operation on its way.
pub(crate) type Operation<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How many times in a row what has been woken is polled. Operations that end submit others; a
/// future that wakes itself for ever must not hold a thread.
const ROUNDS: usize = 8;

/// Operations on their way, of which each ends with a `T`.
pub(crate) struct Flight<T> {
    hub: Arc<Hub>,
    slots: Mutex<Slots<T>>,
}

struct Slots<T> {
    all: Vec<Slot<T>>,
    free: Vec<usize>,
}

struct Slot<T> {
    waker: Waker,
    state: SlotState<T>,
}

enum SlotState<T> {
    Free,
    Idle(Operation<T>),
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
#[derive(Default)]
struct Hub(Mutex<Wakers>);

#[derive(Default)]
struct Wakers {
    /// Slots whose operation has been woken and not yet been polled.
    ready: Vec<usize>,
    /// Of each slot, the number of its operation and who waits for that one.
    watched: Vec<(u64, Option<Waker>)>,
    /// Who waits for anything else of the owner.
    waiting: Vec<(u64, Waker)>,
    /// The last number given away.
    last: u64,
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
        wakers.ready.push(self.slot);
        let watcher = wakers.watched[self.slot].1.clone();
        drop(wakers);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `waker` be woken when the operation ends or needs to be polled. False if the operation
    /// has ended and its owner knows.
    fn watch(&self, ticket: Ticket, waker: &Waker) -> bool {
        let mut wakers = self.lock();
        let (number, watcher) = &mut wakers.watched[ticket.slot];
        if *number != ticket.number {
            return false;
        }
        let former = match watcher {
            Some(known) if known.will_wake(waker) => None,
            _ => watcher.replace(waker.clone()),
        };
        drop(wakers);
        drop(former);
        true
    }

    fn wake_waiting(&self) {
        let waiting = mem::take(&mut self.lock().waiting);
        wake_all(waiting);
    }
}

/// One who waits for something else than a certain operation.
struct Waiter<'a> {
    hub: &'a Hub,
    key: Option<u64>,
}

impl Waiter<'_> {
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
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut wakers = self.hub.lock();
        let at = wakers.waiting.iter().position(|(known, _)| *known == key);
        let former = at.map(|at| wakers.waiting.swap_remove(at));
        drop(wakers);
        drop(former);
    }
}

impl<T> Flight<T> {
    pub(crate) fn new() -> Self {
        Self {
            hub: Arc::default(),
            slots: Mutex::new(Slots {
                all: Vec::new(),
                free: Vec::new(),
            }),
        }
    }

    /// Takes an operation up. It begins with the next [`turn`](Self::turn).
    pub(crate) fn submit(&self, operation: Operation<T>) -> Ticket {
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
        slots.all[slot].state = SlotState::Idle(operation);
        let mut wakers = self.hub.lock();
        wakers.last += 1;
        let number = wakers.last;
        if wakers.watched.len() <= slot {
            wakers.watched.resize_with(slot + 1, Default::default);
        }
        wakers.watched[slot] = (number, None);
        wakers.ready.push(slot);
        Ticket { slot, number }
    }

    /// How many operations have not ended.
    pub(crate) fn len(&self) -> usize {
        let slots = self.lock();
        slots.all.len() - slots.free.len()
    }

    /// Polls all operations that have been woken, and tells `end` of those that have ended.
    pub(crate) fn turn(&self, mut end: impl FnMut(T)) {
        let mut any = false;
        for _ in 0..ROUNDS {
            let batch = mem::take(&mut self.hub.lock().ready);
            if batch.is_empty() {
                break;
            }
            for slot in batch {
                if let Some(value) = self.poll(slot) {
                    any = true;
                    end(value);
                    self.release(slot);
                }
            }
        }
        if any || !self.hub.lock().ready.is_empty() {
            self.hub.wake_waiting();
        }
    }

    fn poll(&self, slot: usize) -> Option<T> {
        let mut slots = self.lock();
        let Slot { waker, state } = &mut slots.all[slot];
        let waker = waker.clone();
        let mut operation = match mem::replace(state, SlotState::Polled { again: false }) {
            SlotState::Idle(operation) => operation,
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
            let poll = operation.as_mut().poll(&mut Context::from_waker(&waker));
            let mut slots = self.lock();
            let state = &mut slots.all[slot].state;
            match poll {
                Poll::Ready(value) => {
                    *state = SlotState::Ended;
                    drop(slots);
                    drop(operation);
                    return Some(value);
                }
                Poll::Pending => {
                    if matches!(state, SlotState::Polled { again: true }) {
                        *state = SlotState::Polled { again: false };
                        continue;
                    }
                    *state = SlotState::Idle(operation);
                    return None;
                }
            }
        }
    }

    /// Gives a slot back once the owner knows how its operation has ended, and wakes who waits for
    /// that: whoever begins to wait afterwards finds what the owner knows.
    fn release(&self, slot: usize) {
        let (_, watcher) = mem::take(&mut self.hub.lock().watched[slot]);
        let mut slots = self.lock();
        slots.all[slot].state = SlotState::Free;
        slots.free.push(slot);
        drop(slots);
        if let Some(watcher) = watcher {
            watcher.wake();
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
        let mut waiter = Waiter {
            hub: &self.hub,
            key: None,
        };
        future::poll_fn(|cx| {
            loop {
                if let Some(value) = check(cx) {
                    return Poll::Ready(value);
                }
                match ticket() {
                    // Each time it is too late, the owner has learnt something in between.
                    Some(ticket) if !self.hub.watch(ticket, cx.waker()) => continue,
                    Some(_) => {}
                    None => waiter.register(cx.waker()),
                }
                break;
            }
            turn();
            match check(cx) {
                Some(value) => Poll::Ready(value),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Wakes all who wait for something else than a certain operation.
    pub(crate) fn wake(&self) {
        self.hub.wake_waiting();
    }

    fn lock(&self) -> MutexGuard<'_, Slots<T>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
