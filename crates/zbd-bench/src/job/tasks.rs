//! The same jobs through the async door: tasks on runtimes of one thread each.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::Notify,
    task::{JoinSet, LocalSet, yield_now},
    time::{sleep, timeout},
};
use zbd_core::{DmaBuffer, Error, ErrorKind, Request, Sector, ZoneAction, ZoneId, ZonedDevice};

use super::{
    outcome::{Management, Measured},
    pace::Pace,
    queue::{STALLED, STALLED_AFTER_INTERRUPT, nanos},
    source::{Source, Step},
    stop::Stop,
};
use crate::failure::Failure;

/// How often a task of its own looks whether the others get on.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Tasks do not sleep for less: their runtime's timer is no finer.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);

/// What the tasks of one thread shall do.
pub(crate) struct Tasks<'a> {
    /// Where their requests go, and the buffers of the tasks that share each source.
    pub(crate) sources: Vec<(Source, Vec<DmaBuffer>)>,
    /// When requests are due, if that is fixed.
    pub(crate) pace: Option<Pace>,
    /// For how long nothing is measured.
    pub(crate) ramp: Duration,
    /// How many requests to submit in all while it is measured.
    pub(crate) count: u64,
    /// For how long to submit any.
    pub(crate) runtime: Option<Duration>,
    pub(crate) stop: &'a Stop,
    pub(crate) completed: &'a AtomicU64,
}

/// Does it, from now on, and calls `begin` when measuring begins. What it measured lacks the
/// doorbells.
pub(crate) fn drive(
    device: &ZonedDevice,
    tasks: Tasks<'_>,
    begin: &(dyn Fn() + Sync),
) -> Result<Measured, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure::device(format!("cannot start an async runtime: {error}")))?;
    let is_mixed = tasks.sources.iter().any(|(source, _)| source.is_mixed());
    let deadline = tasks.runtime.map(|runtime| tasks.ramp + runtime);
    let shared = Rc::new(Shared {
        device: device.clone(),
        stop: tasks.stop.clone(),
        left: Cell::new(u64::MAX),
        count: tasks.count,
        measuring: Cell::new(nanos(tasks.ramp)),
        start: Cell::new(u64::MAX),
        deadline: deadline.map_or(u64::MAX, nanos),
        measured: RefCell::new(Measured::new(tasks.pace.is_some(), is_mixed)),
        pace: tasks.pace.map(RefCell::new),
        returned: Cell::new(0),
        now: Cell::new(0),
        latest: Cell::new(0),
        progress: Cell::new(0),
        in_flight: Cell::new(0),
        begun: Instant::now(),
    });
    let local = LocalSet::new();
    let all = run(&shared, tasks.sources, tasks.completed, begin);
    runtime.block_on(local.run_until(all));
    // What is left of a stalled job goes with its tasks; its buffers stay with the device.
    drop(local);
    Ok(shared.end())
}

/// What all tasks of a thread share. Times are in nanoseconds after `begun`.
struct Shared {
    device: ZonedDevice,
    stop: Stop,
    /// How many requests are still to be submitted, and how many once measuring has begun.
    left: Cell<u64>,
    count: u64,
    /// When measuring begins, and when it began, the greatest number until then. What was submitted
    /// earlier is not measured.
    measuring: Cell<u64>,
    start: Cell<u64>,
    deadline: u64,
    measured: RefCell<Measured>,
    pace: Option<RefCell<Pace>>,
    /// How many requests have come back, measured or not.
    returned: Cell<u64>,
    /// The clock when it was last read.
    now: Cell<u64>,
    /// When something was completed last.
    latest: Cell<u64>,
    /// The same, or when something was submitted after nothing had been in flight.
    progress: Cell<u64>,
    in_flight: Cell<u64>,
    begun: Instant,
}

/// What the tasks of one source share.
struct Group {
    source: RefCell<Source>,
    in_flight: Cell<usize>,
    /// Whether one of them manages a zone.
    managing: Cell<bool>,
    /// Rung when nothing is in flight, and when a zone has been managed.
    quiet: Notify,
}

/// When a request was due, if that was fixed, and when it was submitted.
#[derive(Clone, Copy)]
struct Times {
    due: Option<u64>,
    submitted: u64,
}

async fn run(
    shared: &Rc<Shared>,
    sources: Vec<(Source, Vec<DmaBuffer>)>,
    completed: &AtomicU64,
    begin: &(dyn Fn() + Sync),
) {
    let mut set = JoinSet::new();
    for (source, buffers) in sources {
        let group = Rc::new(Group {
            source: RefCell::new(source),
            in_flight: Cell::new(0),
            managing: Cell::new(false),
            quiet: Notify::new(),
        });
        for buffer in buffers {
            set.spawn_local(work(Rc::clone(shared), Rc::clone(&group), buffer));
        }
    }
    let mut is_told = false;
    loop {
        let now = shared.look_at_clock();
        if !is_told && now >= shared.start.get() {
            is_told = true;
            begin();
        }
        let ramp = Duration::from_nanos(shared.measuring.get() - now);
        match timeout(ramp.min(WATCH_INTERVAL), set.join_next()).await {
            Ok(None) => break,
            Ok(Some(_)) => {}
            Err(_) if shared.is_stalled() => break,
            Err(_) => completed.store(shared.returned.get(), Ordering::Relaxed),
        }
    }
}

/// One request after the other until the job ends.
async fn work(shared: Rc<Shared>, group: Rc<Group>, mut buffer: DmaBuffer) {
    let mut due = None;
    while !shared.is_over() {
        if group.managing.get() {
            group.quiet.notified().await;
            continue;
        }
        if let Some(pace) = &shared.pace
            && due.is_none()
        {
            let claimed = pace.borrow_mut().claim();
            due = Some(claimed);
            shared.wait_until(claimed).await;
            continue;
        }
        let step = group.source.borrow_mut().step(1, group.in_flight.get());
        match step {
            Step::Submit(_) => {
                shared.left.set(shared.left.get() - 1);
                group.in_flight.set(group.in_flight.get() + 1);
                shared.submitting();
                let request = group.source.borrow_mut().request(buffer);
                let is_read = matches!(request, Request::Read { .. });
                let times = Times {
                    due: due.take(),
                    submitted: shared.look_at_clock(),
                };
                let result = shared.request(request).await;
                group.in_flight.set(group.in_flight.get() - 1);
                shared.in_flight.set(shared.in_flight.get() - 1);
                if group.in_flight.get() == 0 {
                    group.quiet.notify_waiters();
                }
                match result {
                    Ok((at, back)) => {
                        if !is_read {
                            group.source.borrow_mut().written(at);
                        }
                        shared.succeed(times, is_read);
                        buffer = back;
                    }
                    Err(error) => return shared.fail(&error),
                }
            }
            Step::Drain => group.quiet.notified().await,
            Step::Finish(zone) => shared.manage(&group, ZoneAction::Finish, zone).await,
            Step::Reset(zone) => shared.manage(&group, ZoneAction::Reset, zone).await,
        }
    }
}

impl Shared {
    fn look_at_clock(&self) -> u64 {
        let now = nanos(self.begun.elapsed());
        self.now.set(now);
        if now >= self.measuring.get() {
            self.measuring.set(u64::MAX);
            self.start.set(now);
            self.left.set(self.count);
            self.measured.borrow_mut().management = Management::default();
        }
        now
    }

    fn submitting(&self) {
        if self.in_flight.replace(self.in_flight.get() + 1) == 0 {
            self.progress.set(self.now.get());
        }
    }

    fn is_over(&self) -> bool {
        self.left.get() == 0 || self.stop.is_set() || self.now.get() >= self.deadline
    }

    /// Waits until it is this time, or the job is over.
    async fn wait_until(&self, time: u64) {
        let time = time.min(self.deadline);
        while self.look_at_clock() < time && !self.is_over() {
            let left = Duration::from_nanos(time - self.now.get());
            if left > SHORTEST_SLEEP {
                sleep((left - SHORTEST_SLEEP).min(WATCH_INTERVAL)).await;
            } else {
                yield_now().await;
            }
        }
    }

    async fn request(&self, request: Request) -> Result<(Sector, DmaBuffer), Error> {
        match request {
            Request::Append { zone, buffer } => {
                let done = self.device.append(zone, buffer).await?;
                Ok((done.sector, done.buffer))
            }
            Request::Write { at, buffer } => Ok((at, self.device.write(at, buffer).await?)),
            Request::Read { at, buffer } => Ok((at, self.device.read_into(at, buffer).await?)),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "the job makes no such requests",
            )),
        }
    }

    fn succeed(&self, times: Times, is_read: bool) {
        let now = self.look_at_clock();
        self.latest.set(now);
        self.returned.set(self.returned.get() + 1);
        if times.submitted < self.start.get() {
            return;
        }
        let mut measured = self.measured.borrow_mut();
        let measured = &mut *measured;
        let tally = match &mut measured.reads {
            Some(reads) if is_read => reads,
            _ => &mut measured.done,
        };
        if let Some(service) = &mut tally.service {
            service.record(now - times.submitted, 1);
        }
        let since = times.due.unwrap_or(times.submitted);
        tally.record(now - self.start.get(), now - since, 1);
    }

    fn fail(&self, error: &Error) {
        self.latest.set(self.look_at_clock());
        self.measured.borrow_mut().errors.add(error);
        self.stop.set();
    }

    async fn manage(&self, group: &Group, action: ZoneAction, zone: ZoneId) {
        group.managing.set(true);
        let begun = Instant::now();
        let zone = self.device.zone(zone);
        let result = match action {
            ZoneAction::Finish => zone.finish().await.map(drop),
            _ => zone.reset().await.map(drop),
        };
        if let Err(error) = result {
            self.fail(&error);
        }
        self.latest.set(self.look_at_clock());
        let mut measured = self.measured.borrow_mut();
        measured.management.add(action, begun.elapsed());
        group.managing.set(false);
        group.quiet.notify_waiters();
    }

    fn end(&self) -> Measured {
        let mut measured = self.measured.replace(Measured::new(false, false));
        // It may have ended before anything was measured.
        let time = Duration::from_nanos(self.latest.get().saturating_sub(self.start.get()));
        measured.time = time.saturating_sub(measured.management.time());
        if let Some(pace) = &self.pace
            && self.left.get() > 0
        {
            measured.unsent = pace.borrow().due(self.now.get().min(self.deadline));
        }
        measured
    }

    fn is_stalled(&self) -> bool {
        let patience = if self.stop.is_interrupted() {
            STALLED_AFTER_INTERRUPT
        } else {
            STALLED
        };
        let since = self.latest.get().max(self.progress.get());
        let waited = self.look_at_clock() - since;
        if waited < nanos(patience) || self.in_flight.get() == 0 && self.pace.is_some() {
            return false;
        }
        self.measured
            .borrow_mut()
            .errors
            .add_many(ErrorKind::Timeout, 1, || {
                format!("the device has returned nothing for {patience:?}")
            });
        self.stop.set();
        true
    }
}
