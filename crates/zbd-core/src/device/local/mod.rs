//! A device driven by the thread that uses it: no other thread, no lock, and no system call while
//! requests keep coming.
//!
//! Requests go into the ring when their futures are first polled. The ring is shown to the device,
//! and looked at, when the executor has nothing else to do: see [`on_thread_park`].

use std::{
    cell::{Cell, RefCell},
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, DmaBuffer, RunningDevice};

use super::{
    accounts::{Accounts, Books, Flight, Tidings},
    backlog::{self, Backlog, Refused, Submission},
    driver::{Drive, Driver, Place},
};
use crate::{
    Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, IoQueue, Request, Result, Sector,
};

mod park;
mod slots;

use park::Parking;
use slots::{Slots, Ticket};

pub use park::{on_thread_park, on_thread_park_with_io};

/// How many events a receiver may be behind; the oldest go first.
const EVENTS_KEPT: usize = 16;

/// The thread that uses the device: what drives a device of one queue without any other thread.
///
/// It cannot leave its thread. Its futures come to their ends when the queue is looked at, which
/// [`on_thread_park`] does for tokio's runtimes, and [`ZonedDevice::drive`](crate::ZonedDevice::drive) for
/// everybody else.
#[derive(Clone)]
pub struct Local(Rc<Thread>);

struct Thread {
    /// Borrowed by nothing that runs foreign code: wakers are woken, and dropped, outside.
    core: RefCell<Core>,
    books: Books,
    memory: DmaArena,
    info: RefCell<Arc<DeviceInfo>>,
    events: broadcast::Sender<DeviceEvent>,
    /// How many requests have been submitted since the queue was last driven.
    undriven: Cell<u32>,
    parking: RefCell<Parking>,
}

struct Core {
    queue: IoQueue,
    slots: Slots,
    backlog: Backlog,
    /// Kept for its memory.
    news: News,
}

/// What is to be told when the core is no longer borrowed: whoever is told may come back at once.
#[derive(Default)]
struct News {
    woken: Vec<Waker>,
    ended: Vec<(Flight, Option<Sector>)>,
    /// What comes back to the pool, for which somebody may wait.
    orphans: Vec<DmaBuffer>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.ended.is_empty()
    }
}

/// After so many requests the queue is driven in between: an executor that always has something to
/// do parks too seldom.
const MOST_UNDRIVEN: u32 = 64;

impl Local {
    pub(super) fn new(queue: IoQueue) -> Result<Self> {
        if queue.in_flight() > 0 {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a queue with requests in flight cannot be driven by futures",
            ));
        }
        let thread = Rc::new(Thread {
            books: Books::new(queue.info()),
            memory: queue.memory().clone(),
            info: RefCell::new(Arc::clone(queue.info())),
            events: broadcast::Sender::new(EVENTS_KEPT),
            undriven: Cell::new(0),
            parking: RefCell::default(),
            core: RefCell::new(Core {
                slots: Slots::new(queue.depth()),
                backlog: Backlog::default(),
                news: News::default(),
                queue,
            }),
        });
        park::register(&thread);
        Ok(Self(thread))
    }

    /// See [`ZonedDevice::drive`](crate::ZonedDevice::drive).
    pub(super) fn drive(&self) -> bool {
        self.0.drive()
    }
}

impl Core {
    /// Shows the device what was submitted and takes what it has returned.
    fn turn(&mut self, thread: &Thread) {
        let Self {
            queue,
            slots,
            backlog,
            news,
        } = self;
        if !backlog.is_empty() {
            backlog.expire(|done| slots.complete(done, news));
            backlog.submit(queue, |done| slots.complete(done, news));
        }
        queue.commit();
        while let Some(done) = queue.poll() {
            slots.complete(done, news);
        }
        while let Some(event) = queue.next_event() {
            *thread.info.borrow_mut() = Arc::clone(queue.info());
            // It fails where nobody listens.
            let _ = thread.events.send(event);
        }
        slots.pass_on(news);
    }
}

impl Thread {
    /// Shows the device what was submitted and takes what it has returned; true if somebody was told
    /// of something.
    fn drive(&self) -> bool {
        self.undriven.set(0);
        self.with(|core| core.turn(self))
    }

    /// Does something to the core, and then tells what came of it; true if there was something.
    #[inline]
    fn with(&self, work: impl FnOnce(&mut Core)) -> bool {
        let mut news = {
            let mut core = self.core.borrow_mut();
            work(&mut core);
            if core.news.is_empty() {
                return false;
            }
            mem::take(&mut core.news)
        };
        let mut tidings = Tidings::default();
        for (flight, place) in news.ended.drain(..) {
            tidings = tidings.and(self.books.ended(flight, place));
        }
        self.books.tell(tidings);
        news.orphans.clear();
        for waker in news.woken.drain(..) {
            waker.wake();
        }
        let mut core = self.core.borrow_mut();
        if core.news.woken.capacity() == 0 {
            core.news.woken = news.woken;
        }
        if core.news.ended.capacity() == 0 {
            core.news.ended = news.ended;
        }
        if core.news.orphans.capacity() == 0 {
            core.news.orphans = news.orphans;
        }
        true
    }

    /// How many requests are in flight or on their way.
    fn expected(&self) -> usize {
        let core = self.core.borrow();
        core.queue.in_flight() + usize::from(!core.backlog.is_empty())
    }
}

/// A slot of the queue.
pub struct LocalSlot<'a> {
    thread: &'a Thread,
    id: u32,
}

impl Place for LocalSlot<'_> {
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Completion> {
        // A waker is cloned and dropped while nothing is borrowed: both may run foreign code.
        let done = self.thread.core.borrow_mut().slots.take_done(self.id);
        if let Some(done) = done {
            return Poll::Ready(done);
        }
        let waker = cx.waker().clone();
        let before = self.thread.core.borrow_mut().slots.wait(self.id, waker);
        drop(before);
        Poll::Pending
    }
}

impl Drop for LocalSlot<'_> {
    fn drop(&mut self) {
        let mut before = None;
        self.thread.with(|core| {
            before = Some(core.slots.leave(self.id));
            core.slots.pass_on(&mut core.news);
        });
    }
}

/// Waits for a slot.
struct Acquire<'a> {
    thread: &'a Thread,
    ticket: Option<Ticket>,
}

impl<'a> Future for Acquire<'a> {
    type Output = LocalSlot<'a>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LocalSlot<'a>> {
        let thread = self.thread;
        let id = thread.core.borrow_mut().slots.take(self.ticket);
        if let Some(id) = id {
            self.ticket = None;
            return Poll::Ready(LocalSlot { thread, id });
        }
        let waker = cx.waker().clone();
        let (ticket, before) = {
            let mut core = thread.core.borrow_mut();
            core.slots.stand_in_line(self.ticket, waker)
        };
        drop(before);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut before = None;
            self.thread.with(|core| {
                before = core.slots.leave_line(ticket);
                core.slots.pass_on(&mut core.news);
            });
        }
    }
}

impl Driver for Local {}

impl Drive for Local {
    type Slot<'a> = LocalSlot<'a>;

    async fn acquire(&self) -> Result<LocalSlot<'_>> {
        let acquire = Acquire {
            thread: &self.0,
            ticket: None,
        };
        Ok(acquire.await)
    }

    fn try_acquire(&self) -> Result<Option<LocalSlot<'_>>> {
        let id = self.0.core.borrow_mut().slots.take(None);
        Ok(id.map(|id| LocalSlot {
            thread: &self.0,
            id,
        }))
    }

    #[inline]
    fn submit(&self, slot: &LocalSlot<'_>, request: Request, timeout: Option<Duration>) {
        let thread = &*self.0;
        let flight = thread.books.begun(&request);
        thread.with(|core| {
            core.slots.begin(slot.id, flight);
            let submission = Submission {
                token: slot.id.into(),
                request,
                timeout,
            };
            if !core.backlog.is_empty() {
                return core.backlog.add(submission);
            }
            match backlog::submit(&mut core.queue, submission) {
                Ok(()) => {}
                Err(Refused::Later(submission)) => core.backlog.add(submission),
                Err(Refused::Never(done)) => core.slots.complete(done, &mut core.news),
            }
        });
        let undriven = thread.undriven.get() + 1;
        thread.undriven.set(undriven);
        if undriven >= MOST_UNDRIVEN {
            thread.drive();
        }
    }

    fn info(&self) -> Arc<DeviceInfo> {
        Arc::clone(&self.0.info.borrow())
    }

    fn accounts(&self) -> &Accounts {
        self.0.books.accounts()
    }

    fn memory(&self) -> &DmaArena {
        &self.0.memory
    }

    fn device(&self) -> Result<Option<Arc<RunningDevice>>> {
        Ok(self.0.core.borrow().queue.device().cloned())
    }

    fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.0.events.subscribe()
    }

    async fn recover(&self) -> Result<()> {
        let mut outcome = Ok(());
        self.0.with(|core| {
            outcome = core.queue.recover();
            core.turn(&self.0);
        });
        outcome
    }

    fn doorbells(&self) -> u64 {
        self.0.core.borrow().queue.doorbells()
    }
}
