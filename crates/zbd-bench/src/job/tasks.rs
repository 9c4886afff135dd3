//! The same jobs through the async door: tasks on a runtime of one thread.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::Notify,
    task::{JoinSet, LocalSet},
    time::timeout,
};
use zbd_core::{DmaBuffer, Error, ErrorKind, Request, ZoneId, ZonedDevice};

use super::{
    outcome::Measured,
    queue::{STALLED, STALLED_AFTER_INTERRUPT},
    source::{Source, Step},
    stop::Stop,
};
use crate::failure::Failure;

/// How often a task of its own looks whether the others get on.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// What the tasks shall do.
#[derive(Debug)]
pub(crate) struct Tasks<'a> {
    /// Where their requests go, and the buffers of the tasks that share each source.
    pub(crate) sources: Vec<(Source, Vec<DmaBuffer>)>,
    /// How many requests to submit in all.
    pub(crate) count: u64,
    /// When to submit no more.
    pub(crate) runtime: Option<Duration>,
    pub(crate) stop: &'a Stop,
    pub(crate) completed: &'a AtomicU64,
}

/// Does it, from now on.
pub(crate) fn drive(device: ZonedDevice, tasks: Tasks<'_>) -> Result<Measured, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure::device(format!("cannot start an async runtime: {error}")))?;
    let doorbells = device.doorbells();
    let shared = Rc::new(Shared {
        device,
        stop: tasks.stop.clone(),
        left: Cell::new(tasks.count),
        runtime: tasks.runtime,
        latest: Cell::new(Instant::now()),
        measured: RefCell::new(Measured::new()),
        begun: Instant::now(),
    });
    let local = LocalSet::new();
    runtime.block_on(local.run_until(run(&shared, tasks.sources, tasks.completed)));
    // What is left of a stalled job goes with its tasks; its buffers stay with the device.
    drop(local);
    let mut measured = shared.measured.replace(Measured::new());
    let time = shared.latest.get() - shared.begun;
    measured.time = time.saturating_sub(measured.reset_time);
    measured.doorbells = shared.device.doorbells() - doorbells;
    Ok(measured)
}

/// What all tasks share.
struct Shared {
    device: ZonedDevice,
    stop: Stop,
    left: Cell<u64>,
    runtime: Option<Duration>,
    /// When something was completed last.
    latest: Cell<Instant>,
    measured: RefCell<Measured>,
    begun: Instant,
}

/// What the tasks of one source share.
struct Group {
    source: RefCell<Source>,
    in_flight: Cell<usize>,
    /// Whether one of them resets a zone.
    resetting: Cell<bool>,
    /// Rung when nothing is in flight, and when a reset has ended.
    quiet: Notify,
}

async fn run(shared: &Rc<Shared>, sources: Vec<(Source, Vec<DmaBuffer>)>, completed: &AtomicU64) {
    let mut set = JoinSet::new();
    for (source, buffers) in sources {
        let group = Rc::new(Group {
            source: RefCell::new(source),
            in_flight: Cell::new(0),
            resetting: Cell::new(false),
            quiet: Notify::new(),
        });
        for buffer in buffers {
            set.spawn_local(work(Rc::clone(shared), Rc::clone(&group), buffer));
        }
    }
    loop {
        match timeout(WATCH_INTERVAL, set.join_next()).await {
            Ok(None) => break,
            Ok(Some(_)) => {}
            Err(_) if shared.is_stalled() => break,
            Err(_) => completed.store(shared.measured.borrow().ios, Ordering::Relaxed),
        }
    }
}

/// One request after the other until the job ends.
async fn work(shared: Rc<Shared>, group: Rc<Group>, mut buffer: DmaBuffer) {
    while !shared.is_over() {
        if group.resetting.get() {
            group.quiet.notified().await;
            continue;
        }
        let step = group.source.borrow_mut().step(1, group.in_flight.get());
        match step {
            Step::Submit(_) => {
                shared.left.set(shared.left.get() - 1);
                group.in_flight.set(group.in_flight.get() + 1);
                let request = group.source.borrow_mut().request(buffer);
                let begun = Instant::now();
                let result = shared.request(request).await;
                group.in_flight.set(group.in_flight.get() - 1);
                if group.in_flight.get() == 0 {
                    group.quiet.notify_waiters();
                }
                match result {
                    Ok(back) => {
                        shared.succeed(begun);
                        buffer = back;
                    }
                    Err(error) => return shared.fail(&error),
                }
            }
            Step::Drain => group.quiet.notified().await,
            Step::Reset(zone) => {
                group.resetting.set(true);
                shared.reset(zone).await;
                group.resetting.set(false);
                group.quiet.notify_waiters();
            }
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.left.get() == 0
            || self.stop.is_set()
            || self
                .runtime
                .is_some_and(|runtime| self.latest.get() - self.begun >= runtime)
    }

    async fn request(&self, request: Request) -> Result<DmaBuffer, Error> {
        match request {
            Request::Append { zone, buffer } => {
                let done = self.device.append(zone, buffer).await?;
                Ok(done.buffer)
            }
            Request::Write { at, buffer } => self.device.write(at, buffer).await,
            Request::Read { at, buffer } => self.device.read_into(at, buffer).await,
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "the job makes no such requests",
            )),
        }
    }

    fn succeed(&self, begun: Instant) {
        let now = Instant::now();
        self.latest.set(now);
        let mut measured = self.measured.borrow_mut();
        measured.ios += 1;
        let time = (now - begun).as_nanos();
        measured
            .latency
            .record(time.try_into().unwrap_or(u64::MAX), 1);
    }

    fn fail(&self, error: &Error) {
        self.latest.set(Instant::now());
        self.measured.borrow_mut().errors.add(error);
        self.stop.set();
    }

    async fn reset(&self, zone: ZoneId) {
        let begun = Instant::now();
        let result = self.device.zone(zone).reset().await;
        if let Err(error) = result {
            self.fail(&error);
        }
        let now = Instant::now();
        self.latest.set(now);
        let mut measured = self.measured.borrow_mut();
        measured.zone_resets += 1;
        measured.reset_time += now - begun;
    }

    fn is_stalled(&self) -> bool {
        let patience = if self.stop.is_interrupted() {
            STALLED_AFTER_INTERRUPT
        } else {
            STALLED
        };
        if self.latest.get().elapsed() < patience {
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
