//! The loop that is measured: one thread and its queue.
//!
//! A queue is refilled when at least a batch of its requests is free and a poll has found nothing
//! more, so that many requests share a doorbell, and the clock is read once for each commit and
//! once for each drain that found something: in a virtual machine either may leave the guest.
//! Requests carry the time of their commit as their token, so those of one commit that come back
//! in one drain are recorded at once. Nothing here allocates, locks or calls the kernel until
//! something fails.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crossbeam_utils::Backoff;
use zbd_core::{DmaBuffer, Error, ErrorKind, IoQueue, Result, Sector, ZoneAction, ZoneId};

use super::{
    control,
    outcome::Measured,
    source::{Source, Step},
    spin::Spin,
    stop::Stop,
};

/// After so many polls in a row that found nothing, the clock is looked at.
const POLLS_PER_LOOK: u32 = 4096;
/// The same where most of them slept, for so long at the most.
const SLEEPS_PER_LOOK: u32 = 64;
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// For how long a device may return nothing before the job gives up.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
/// The same once somebody has interrupted the job.
pub(crate) const STALLED_AFTER_INTERRUPT: Duration = Duration::from_secs(2);

/// What a thread does between polls that find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// It spins.
    Spin,
    /// It spins, then lets others run, one of which may be what it waits for.
    Yield,
    /// What the policy says that the queue was opened with.
    Sleep,
}

/// What one queue shall do.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) source: Source,
    /// One buffer for each request in flight.
    pub(crate) buffers: Vec<DmaBuffer>,
    /// How many requests must be free before the queue is refilled.
    pub(crate) batch: usize,
    /// How many requests to submit in all.
    pub(crate) count: u64,
    /// When to submit no more.
    pub(crate) runtime: Option<Duration>,
    pub(crate) idle: Idle,
    pub(crate) stop: &'a Stop,
    pub(crate) completed: &'a AtomicU64,
}

/// Does it, from now on.
pub(crate) fn drive(queue: &mut IoQueue, task: Task<'_>) -> Measured {
    let depth = task.buffers.len();
    let driver = Driver {
        doorbells: queue.doorbells(),
        queue,
        free: task.buffers,
        groups: Vec::with_capacity(depth + 2),
        depth,
        batch: task.batch,
        left: task.count,
        deadline: task.runtime.map_or(u64::MAX, nanos),
        source: task.source,
        idle: task.idle,
        stop: task.stop,
        completed: task.completed,
        measured: Measured::new(),
        now: 0,
        begun: Instant::now(),
    };
    driver.run()
}

struct Driver<'a> {
    queue: &'a mut IoQueue,
    source: Source,
    /// The buffers of the requests that are not in flight.
    free: Vec<DmaBuffer>,
    /// What a drain found: so many requests of the commit at this time.
    groups: Vec<(u64, u64)>,
    depth: usize,
    batch: usize,
    /// How many requests are still to be submitted.
    left: u64,
    /// In nanoseconds after `begun`.
    deadline: u64,
    idle: Idle,
    stop: &'a Stop,
    completed: &'a AtomicU64,
    /// The doorbells that do not count.
    doorbells: u64,
    measured: Measured,
    /// The clock when it was last read, in nanoseconds after `begun`.
    now: u64,
    begun: Instant,
}

impl Driver<'_> {
    fn run(mut self) -> Measured {
        while self.left > 0 && self.now < self.deadline && !self.stop.is_set() {
            let free = self.left.min(self.free.len() as u64);
            match self.source.step(free, self.queue.in_flight()) {
                Step::Submit(n) => {
                    self.submit(n);
                    self.wait(self.batch);
                }
                Step::Drain => self.wait(self.depth),
                Step::Reset(zone) => self.reset(zone),
            }
        }
        self.wait(self.depth);
        let time = Duration::from_nanos(self.now);
        self.measured.time = time.saturating_sub(self.measured.reset_time);
        self.measured.doorbells = self.queue.doorbells() - self.doorbells;
        self.measured
    }

    #[inline]
    fn look_at_clock(&mut self) -> u64 {
        self.now = nanos(self.begun.elapsed());
        self.now
    }

    #[inline]
    fn submit(&mut self, n: u64) {
        let now = self.look_at_clock();
        self.left -= n;
        for _ in 0..n {
            let Some(buffer) = self.free.pop() else {
                break;
            };
            let request = self.source.request(buffer);
            if let Err(rejected) = self.queue.submit(request, now) {
                self.free.extend(rejected.request.into_buffer());
                self.fail(&rejected.error);
                break;
            }
        }
        self.queue.commit();
    }

    /// Waits until so many requests are free and none has come back just now, or nothing is in
    /// flight, or the device has stopped answering.
    #[inline]
    fn wait(&mut self, free: usize) {
        let backoff = Backoff::new();
        let mut spin = Spin::default();
        let mut fruitless = 0;
        while self.queue.in_flight() > 0 {
            let drained = self.drain();
            if drained > 0 {
                fruitless = 0;
                backoff.reset();
                // What comes back in company mostly has more right behind it.
                if drained > 1 {
                    spin = Spin::default();
                }
                if self.free.len() >= free {
                    return;
                }
                continue;
            }
            fruitless += 1;
            let polls_per_look = match self.idle {
                Idle::Sleep => SLEEPS_PER_LOOK,
                _ => POLLS_PER_LOOK,
            };
            if fruitless % polls_per_look == 0 && self.is_stalled() {
                return;
            }
            match self.idle {
                Idle::Sleep => {
                    if let Err(error) = self.queue.idle(LONGEST_SLEEP) {
                        return self.fail(&error);
                    }
                }
                Idle::Yield => backoff.snooze(),
                Idle::Spin => spin.once(),
            }
        }
    }

    /// Takes everything that has come back and returns how much that was.
    #[inline]
    fn drain(&mut self) -> u64 {
        let mut next = self.queue.poll();
        if next.is_none() {
            return 0;
        }
        let before = self.free.len() as u64;
        let mut submitted = 0;
        let mut count = 0;
        while let Some(done) = next {
            if done.token != submitted {
                self.groups.push((submitted, count));
                submitted = done.token;
                count = 0;
            }
            match (done.result, done.buffer) {
                (Ok(_), Some(buffer)) => {
                    self.free.push(buffer);
                    count += 1;
                }
                (result, buffer) => self.failed(result, buffer),
            }
            next = self.queue.poll();
        }
        self.groups.push((submitted, count));
        let now = self.look_at_clock();
        for (submitted, count) in self.groups.drain(..) {
            if count > 0 {
                self.measured.ios += count;
                self.measured.latency.record(now - submitted, count);
            }
        }
        self.completed.store(self.measured.ios, Ordering::Relaxed);
        // One that failed may have left its buffer with the device.
        (self.free.len() as u64 - before).max(1)
    }

    #[cold]
    fn failed(&mut self, result: Result<Sector>, buffer: Option<DmaBuffer>) {
        self.free.extend(buffer);
        match result {
            Err(error) => self.fail(&error),
            Ok(_) => self.fail(&Error::new(
                ErrorKind::Protocol,
                "a request came back without its buffer",
            )),
        }
    }

    /// The first error ends the job: what would follow rests on it.
    #[cold]
    fn fail(&mut self, error: &Error) {
        self.measured.errors.add(error);
        self.left = 0;
        self.stop.set();
    }

    /// Whether the device has returned nothing for so long that waiting is over. Ends the job at
    /// its time even if nothing comes back then.
    #[cold]
    fn is_stalled(&mut self) -> bool {
        let patience = if self.stop.is_interrupted() {
            STALLED_AFTER_INTERRUPT
        } else {
            STALLED
        };
        let waited = self.begun.elapsed() - Duration::from_nanos(self.now);
        if waited < patience {
            return false;
        }
        let in_flight = self.queue.in_flight() as u64;
        self.measured
            .errors
            .add_many(ErrorKind::Timeout, in_flight, || {
                format!("the device has returned none of {in_flight} requests for {patience:?}")
            });
        self.left = 0;
        self.stop.set();
        true
    }

    #[cold]
    fn reset(&mut self, zone: ZoneId) {
        let begun = Instant::now();
        let doorbells = self.queue.doorbells();
        let result = control::manage(self.queue, ZoneAction::Reset, zone);
        self.doorbells += self.queue.doorbells() - doorbells;
        self.measured.reset_time += begun.elapsed();
        self.measured.zone_resets += 1;
        self.look_at_clock();
        if let Err(error) = result {
            self.fail(&error);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
