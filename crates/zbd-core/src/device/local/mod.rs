//! A device driven by the thread that uses it: no other thread, no lock, and no system call while
//! requests keep coming.
//!
//! Requests go into the ring when their futures are first polled. The ring is shown to the device,
//! and looked at, when the executor has nothing else to do: see [`on_thread_park`].

use std::{
    cell::{Cell, RefCell, RefMut},
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
    driver::{Drive, Driver, Finished, Place},
    operation::{self, Operation},
};
use crate::{
    DeviceEvent, DeviceInfo, Error, ErrorKind, IoQueue, Request, Result, Sector, WriteCache,
    ZonedDevice, ZonedInfo, log::Writers,
};

mod park;
mod run;
mod slots;

use park::{Parking, in_vain};
use run::Run;
use slots::{Slots, Ticket};

pub(crate) use park::woken_in_vain;
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
    /// Tasks that wait for what comes of requests, though not of their own.
    kept: RefCell<Vec<Waker>>,
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
        self.woken.is_empty() && self.ended.is_empty() && self.orphans.is_empty()
    }
}

/// After so many requests the queue is driven in between: an executor that always has something to
/// do parks too seldom.
const MOST_UNDRIVEN: u32 = 64;

/// How many tasks that wait for others' requests are remembered at the most.
const MOST_KEPT: usize = 64;

impl Local {
    pub(super) fn new(mut queue: IoQueue) -> Result<Self> {
        if queue.in_flight() > 0 {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a queue with requests in flight cannot be driven by futures",
            ));
        }
        queue.keep_freed();
        let thread = Rc::new(Thread {
            books: Books::new(queue.info()),
            memory: queue.memory().clone(),
            info: RefCell::new(Arc::clone(queue.info())),
            events: broadcast::Sender::new(EVENTS_KEPT),
            undriven: Cell::new(0),
            kept: RefCell::default(),
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
    #[inline]
    fn turn(&mut self, thread: &Thread) {
        let Self {
            queue,
            slots,
            backlog,
            news,
        } = self;
        if !backlog.is_empty() {
            backlog.expire(|done| slots.refuse(done, &thread.books, news));
            backlog.submit(queue, |done| slots.refuse(done, &thread.books, news));
        }
        queue.commit();
        while let Some(done) = queue.poll() {
            slots.complete(done, &thread.books, news);
        }
        news.orphans.append(queue.freed());
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
    #[inline(always)]
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
        let (count, before) = (news.woken.len(), in_vain());
        for waker in news.woken.drain(..) {
            waker.wake();
        }
        if in_vain().wrapping_sub(before) == count {
            // What ended was an orphan's: whoever else waits needs an executor that stays awake.
            self.keep_awake();
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

    /// Submits a request, at whose end `waker` is woken, if there is a slot for it: those in line come
    /// first. Both come back if not.
    #[inline(always)]
    fn begin<R: Into<Request>>(
        &self,
        ticket: Option<Ticket>,
        request: R,
        timeout: Option<Duration>,
        waker: Waker,
    ) -> std::result::Result<LocalSlot<'_>, (R, Waker)> {
        // A waker is cloned and dropped while nothing is borrowed: both may run foreign code.
        let mut core = self.core.borrow_mut();
        let Some(id) = core.slots.take(ticket) else {
            return Err((request, waker));
        };
        self.submit(core, id, request, timeout, Some(waker));
        Ok(LocalSlot { thread: self, id })
    }

    /// Submits the request of slot `id`, at whose end `waker` is woken.
    #[inline(always)]
    fn submit(
        &self,
        mut core: RefMut<'_, Core>,
        id: u32,
        request: impl Into<Request>,
        timeout: Option<Duration>,
        waker: Option<Waker>,
    ) {
        // What kind of request it is is known here, so that all other paths fold away.
        if timeout.is_none() && core.backlog.is_empty() {
            let request = request.into();
            core.slots.begin(id, self.books.begun_here(&request), waker);
            let submitted = core.queue.submit(request, id.into());
            drop(core);
            if let Err(rejected) = submitted {
                self.refused(backlog::refused(rejected, id.into(), None));
            }
        } else {
            self.submit_late(core, id, request.into(), timeout, waker);
        }
        let undriven = self.undriven.get() + 1;
        self.undriven.set(undriven);
        if undriven >= MOST_UNDRIVEN {
            self.drive();
        }
    }

    /// Submits a request that has a deadline, or after those for which there was no room.
    #[cold]
    fn submit_late(
        &self,
        mut core: RefMut<'_, Core>,
        id: u32,
        request: Request,
        timeout: Option<Duration>,
        waker: Option<Waker>,
    ) {
        core.slots.begin(id, self.books.begun_here(&request), waker);
        let submission = Submission {
            token: id.into(),
            request,
            timeout,
        };
        if !core.backlog.is_empty() {
            return core.backlog.add(submission);
        }
        let submitted = backlog::submit(&mut core.queue, submission);
        drop(core);
        if let Err(refused) = submitted {
            self.refused(refused);
        }
    }

    /// The queue does not take a request, now or ever.
    #[cold]
    fn refused(&self, refused: Refused) {
        self.with(|core| match refused {
            Refused::Later(submission) => core.backlog.add(submission),
            Refused::Never(done) => core.slots.refuse(done, &self.books, &mut core.news),
        });
    }

    /// What the request of slot `id` came to, if it has ended; the slot is free then.
    #[inline(always)]
    fn take_done(&self, id: u32) -> Option<Finished> {
        let mut core = self.core.borrow_mut();
        let is_awaited = core.slots.is_awaited();
        let done = core.slots.take_done(id)?;
        drop(core);
        if is_awaited {
            self.pass_on();
        }
        Some(done)
    }

    #[cold]
    fn pass_on(&self) {
        self.with(|core| core.slots.pass_on(&mut core.news));
    }

    /// Remembers whom to wake at the end of the request in slot `id`.
    #[cold]
    fn wait(&self, id: u32, cx: &Context<'_>) {
        // A waker is cloned and dropped while nothing is borrowed: both may run foreign code.
        let waker = cx.waker().clone();
        let before = self.core.borrow_mut().slots.wait(id, waker);
        drop(before);
    }

    /// Gives slot `id` up: at once, or when its request has ended.
    fn leave(&self, id: u32) {
        let mut before = None;
        self.with(|core| {
            before = Some(core.slots.leave(id));
            core.slots.pass_on(&mut core.news);
        });
    }

    /// Takes a place in the line, or keeps it.
    #[cold]
    fn stand_in_line(&self, ticket: Option<Ticket>, waker: Waker) -> Ticket {
        let (ticket, before) = {
            let mut core = self.core.borrow_mut();
            core.slots.stand_in_line(ticket, waker)
        };
        drop(before);
        ticket
    }

    /// Gives a place in the line up.
    #[cold]
    fn leave_line(&self, ticket: Ticket) {
        let mut before = None;
        self.with(|core| {
            before = core.slots.leave_line(ticket);
            core.slots.pass_on(&mut core.news);
        });
    }

    /// How many requests are in flight or on their way. Those whose time was up count as one if
    /// somebody waits for what comes of others': it may be their memory.
    fn expected(&self) -> usize {
        let core = self.core.borrow();
        let is_late = core.queue.has_expired() && !self.kept.borrow().is_empty();
        core.queue.in_flight() + usize::from(is_late) + usize::from(!core.backlog.is_empty())
    }
}

/// A slot of the queue. When its completion has been taken it is free, and this stands for none.
pub struct LocalSlot<'a> {
    thread: &'a Thread,
    id: u32,
}

/// No slot has this number: a queue has fewer.
const NO_SLOT: u32 = u32::MAX;

impl Place for LocalSlot<'_> {
    #[inline(always)]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        let Some(done) = self.thread.take_done(self.id) else {
            self.thread.wait(self.id, cx);
            return Poll::Pending;
        };
        self.id = NO_SLOT;
        Poll::Ready(done)
    }
}

impl Drop for LocalSlot<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.id != NO_SLOT {
            self.thread.leave(self.id);
        }
    }
}

impl Driver for Local {}

impl Drive for Local {
    type Slot<'a> = LocalSlot<'a>;
    type Run<'a, R: Into<Request> + 'a> = Run<'a, R>;
    type Going = Pin<Box<dyn Future<Output = Finished>>>;

    #[inline]
    fn run<'a, R: Into<Request> + 'a>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
    ) -> Run<'a, R> {
        Run::new(&self.0, request, timeout)
    }

    #[inline(always)]
    fn begin<'a, R: Into<Request>>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> std::result::Result<(LocalSlot<'a>, Poll<Finished>), R> {
        let thread = &*self.0;
        // It wakes `cx` when it has ended, even if it has ended at once.
        let slot = thread.begin(None, request, timeout, cx.waker().clone());
        slot.map(|slot| (slot, Poll::Pending))
            .map_err(|(request, _)| request)
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
        let core = self.0.core.borrow_mut();
        self.0.submit(core, slot.id, request, timeout, None);
    }

    fn launch(device: ZonedDevice<Self>, operation: Operation) -> Self::Going {
        Box::pin(operation::carry_out(device, operation))
    }

    fn keep(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut kept = self.0.kept.borrow_mut();
        if kept.iter().any(|known| known.will_wake(&waker)) {
            return;
        }
        kept.push(waker);
        if kept.len() < MOST_KEPT {
            return;
        }
        // Among them are tasks that have long been gone; those that are not come again. They are not
        // woken under the borrow: see `News`.
        let all = mem::take(&mut *kept);
        drop(kept);
        all.into_iter().for_each(Waker::wake);
    }

    fn with_log_writers<R>(work: impl FnOnce(&Writers<Self>) -> R) -> R {
        thread_local! {
            static WRITERS: Writers<Local> = const { Writers::new() };
        }
        WRITERS.with(work)
    }

    fn opened(&self) -> &Arc<DeviceInfo> {
        self.0.books.opened()
    }

    fn info(&self) -> Arc<DeviceInfo> {
        Arc::clone(&self.0.info.borrow())
    }

    #[inline]
    fn accounts(&self) -> &Accounts {
        self.0.books.accounts()
    }

    #[inline]
    fn zoned(&self) -> Option<&ZonedInfo> {
        self.0.books.zoned()
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

    async fn set_write_cache(&self, mode: WriteCache) -> Result<()> {
        self.0.core.borrow_mut().queue.set_write_cache(mode)
    }

    fn doorbells(&self) -> u64 {
        self.0.core.borrow().queue.doorbells()
    }
}
