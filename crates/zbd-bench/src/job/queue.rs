//! The loop that is measured: one thread and its queue.
//!
//! A queue is refilled when at least a batch of its requests is free and a poll has found nothing
//! more, so that many requests share a doorbell, and the clock is read once for each commit and
//! once for each drain that found something: in a virtual machine either may leave the guest.
//! Requests carry the time of their commit as their token, so those of one commit that come back
//! in one drain are recorded at once. Requests at fixed times carry their number instead
//! ([`Pace`]). Nothing here allocates, locks or calls the kernel until something fails, but for
//! what each second of the job takes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_utils::Backoff;
use zbd_core::{
    Completion, DmaBuffer, Error, ErrorKind, IoQueue, Request, Result, Sector, ZoneAction, ZoneId,
};

use super::{
    control,
    outcome::{Management, Measured},
    pace::Pace,
    source::{Source, Step},
    spin::Spin,
    stop::Stop,
};

/// After so many polls in a row that found nothing, the clock is looked at.
const POLLS_PER_LOOK: u32 = 4096;
/// The same where most of them slept, for so long at the most.
const SLEEPS_PER_LOOK: u32 = 64;
const LONGEST_SLEEP: Duration = Duration::from_millis(10);
/// How much earlier than asked for a sleep has to end to be in time.
const SLEEP_SLACK: Duration = Duration::from_micros(100);
/// Marks the tokens of reads among writes.
const READ: u64 = 1 << 63;
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
pub(crate) struct Task<'a> {
    pub(crate) source: Source,
    /// One buffer for each request in flight.
    pub(crate) buffers: Vec<DmaBuffer>,
    /// How many requests must be free before the queue is refilled.
    pub(crate) batch: usize,
    /// When requests are due, if that is fixed.
    pub(crate) pace: Option<Pace>,
    /// For how long nothing is measured.
    pub(crate) ramp: Duration,
    /// How many requests to submit in all while it is measured.
    pub(crate) count: u64,
    /// For how long to submit any.
    pub(crate) runtime: Option<Duration>,
    pub(crate) idle: Idle,
    pub(crate) stop: &'a Stop,
    pub(crate) completed: &'a AtomicU64,
    /// Called when measuring begins.
    pub(crate) begin: &'a (dyn Fn() + Sync),
}

/// Does it, from now on.
pub(crate) fn drive(queue: &mut IoQueue, task: Task<'_>) -> Measured {
    let depth = task.buffers.len();
    let is_mixed = task.source.is_mixed();
    let ramp = nanos(task.ramp);
    let driver = Driver {
        doorbells: queue.doorbells(),
        queue,
        free: task.buffers,
        groups: Vec::with_capacity(depth + 2),
        depth,
        batch: task.batch,
        left: u64::MAX,
        count: task.count,
        measuring: ramp,
        start: u64::MAX,
        deadline: task
            .runtime
            .map_or(u64::MAX, |runtime| ramp.saturating_add(nanos(runtime))),
        measured: Measured::new(task.pace.is_some(), is_mixed),
        pace: task.pace,
        source: task.source,
        is_mixed,
        idle: task.idle,
        stop: task.stop,
        returned: 0,
        completed: task.completed,
        begin: task.begin,
        now: 0,
        begun: Instant::now(),
    };
    driver.run()
}

struct Driver<'a> {
    queue: &'a mut IoQueue,
    source: Source,
    /// Whether some of a writing job's requests are reads.
    is_mixed: bool,
    pace: Option<Pace>,
    /// The buffers of the requests that are not in flight.
    free: Vec<DmaBuffer>,
    /// What a drain found: so many requests with this token.
    groups: Vec<(u64, u64)>,
    depth: usize,
    batch: usize,
    /// How many requests are still to be submitted, and how many once measuring has begun.
    left: u64,
    count: u64,
    /// When measuring begins, and when it began, the greatest number until then; these and what
    /// follows in nanoseconds after `begun`. What was submitted earlier is not measured.
    measuring: u64,
    start: u64,
    deadline: u64,
    idle: Idle,
    stop: &'a Stop,
    /// How many requests have come back, measured or not.
    returned: u64,
    completed: &'a AtomicU64,
    begin: &'a (dyn Fn() + Sync),
    /// The doorbells that do not count.
    doorbells: u64,
    measured: Measured,
    /// The clock when it was last read.
    now: u64,
    begun: Instant,
}

impl Driver<'_> {
    fn run(mut self) -> Measured {
        while self.left > 0 && self.now < self.deadline && !self.stop.is_set() {
            if self.now >= self.measuring {
                self.begin_measuring();
            }
            if self.free.is_empty() {
                self.wait(1);
                continue;
            }
            let free = self.left.min(self.free.len() as u64);
            match self.source.step(free, self.queue.in_flight()) {
                Step::Submit(n) if self.pace.is_some() => self.submit_due(n),
                Step::Submit(n) => {
                    self.submit(n);
                    self.wait(self.batch);
                }
                Step::Drain => self.wait(self.depth),
                Step::Finish(zone) => self.manage(ZoneAction::Finish, zone),
                Step::Reset(zone) => self.manage(ZoneAction::Reset, zone),
            }
        }
        self.end()
    }

    #[cold]
    fn begin_measuring(&mut self) {
        self.measuring = u64::MAX;
        self.start = self.now;
        self.left = self.count;
        self.doorbells = self.queue.doorbells();
        self.measured.management = Management::default();
        (self.begin)();
    }

    fn end(mut self) -> Measured {
        if let Some(pace) = &self.pace
            && self.left > 0
        {
            self.measured.unsent = pace.due(self.now.min(self.deadline));
        }
        self.wait(self.depth);
        // It may have ended before anything was measured.
        let time = Duration::from_nanos(self.now.saturating_sub(self.start));
        self.measured.time = time.saturating_sub(self.measured.management.time());
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
            let mut token = match &mut self.pace {
                None => now,
                Some(pace) => pace.submit(now),
            };
            if self.is_mixed && matches!(request, Request::Read { .. }) {
                token |= READ;
            }
            if let Err(rejected) = self.queue.submit(request, token) {
                self.free.extend(rejected.request.into_buffer());
                self.fail(&rejected.error);
                break;
            }
        }
        self.queue.commit();
    }

    /// Submits what is due, `n` requests at the most; waits for the time when something is due if
    /// nothing is.
    fn submit_due(&mut self, n: u64) {
        let now = self.look_at_clock();
        let (due, next) = match &self.pace {
            Some(pace) => (pace.due(now), pace.next()),
            None => (n, now),
        };
        match due.min(n) {
            0 => self.wait_until(next.min(self.deadline).min(self.measuring)),
            n => self.submit(n),
        }
    }

    /// Looks for what comes back until it is this time.
    fn wait_until(&mut self, time: u64) {
        let backoff = Backoff::new();
        while self.look_at_clock() < time && !self.stop.is_set() {
            if self.drain() > 0 {
                continue;
            }
            let left = Duration::from_nanos(time - self.now).min(LONGEST_SLEEP);
            match self.idle {
                Idle::Sleep if left <= SLEEP_SLACK => std::hint::spin_loop(),
                Idle::Sleep if self.queue.in_flight() == 0 => thread::sleep(left - SLEEP_SLACK),
                Idle::Sleep => {
                    if let Err(error) = self.queue.idle(left - SLEEP_SLACK) {
                        return self.fail(&error);
                    }
                }
                Idle::Yield => backoff.snooze(),
                Idle::Spin => std::hint::spin_loop(),
            }
        }
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
        let mut token = 0;
        let mut count = 0;
        while let Some(done) = next {
            if done.token != token {
                self.groups.push((token, count));
                token = done.token;
                count = 0;
            }
            match done {
                Completion {
                    result: Ok(at),
                    buffer: Some(buffer),
                    ..
                } => {
                    self.free.push(buffer);
                    count += 1;
                    if self.is_mixed && token & READ == 0 {
                        self.source.written(at);
                    }
                }
                Completion { result, buffer, .. } => self.failed(result, buffer),
            }
            next = self.queue.poll();
        }
        self.groups.push((token, count));
        self.record();
        // One that failed may have left its buffer with the device.
        (self.free.len() as u64 - before).max(1)
    }

    /// Records what a drain has found.
    #[inline]
    fn record(&mut self) {
        let now = self.look_at_clock();
        for (token, count) in self.groups.drain(..) {
            self.returned += count;
            let (due, submitted) = match &mut self.pace {
                _ if count == 0 => continue,
                None => (token & !READ, token & !READ),
                Some(pace) => pace.landed(token & !READ),
            };
            if submitted < self.start {
                continue;
            }
            let tally = match &mut self.measured.reads {
                Some(reads) if token & READ != 0 => reads,
                _ => &mut self.measured.done,
            };
            if let Some(service) = &mut tally.service {
                service.record(now - submitted, count);
            }
            tally.record(now - self.start, now - due, count);
        }
        self.completed.store(self.returned, Ordering::Relaxed);
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
    fn manage(&mut self, action: ZoneAction, zone: ZoneId) {
        let begun = Instant::now();
        let doorbells = self.queue.doorbells();
        let result = control::manage(self.queue, action, zone);
        self.doorbells += self.queue.doorbells() - doorbells;
        self.measured.management.add(action, begun.elapsed());
        self.look_at_clock();
        if let Err(error) = result {
            self.fail(&error);
        }
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
