//! Appends, with and without operations beside them.
//!
//! One thread drives both: the appends in one queue, kept at their depth, and one operation after
//! the other in another queue, or in the same where the device has but one. What is compared are
//! windows in which the appends run at full depth, in turn with operations beside them and without:
//! pairs of equal length, of which now the one, now the other comes first.
//!
//! Where little makes a zone ready for the next repetition, that is repeated with the operation: a
//! zone is opened and closed again. Where much has to be written, a window lasts as long as there
//! are zones that were filled before, while nothing was in flight. That is short, often too short to
//! tell anything (see [`Beside::is_telling`](super::figures::Beside::is_telling)).

use std::{
    mem,
    time::{Duration, Instant},
};

use zbd_core::{Completion, DmaBuffer, Error, ErrorKind, IoQueue, Request, ZoneAction};

use super::{
    call::Call,
    figures::{Beside as Figures, Phase, Round},
    hands::{Hands, Trouble, Used, verb},
    operation::Operation,
    stream::Stream,
    work::{Step, Work, cycle, uses_up_zones},
};

/// In how many rounds each operation is measured: the spread is over these.
pub(super) const ROUNDS: usize = 5;
/// Into how many windows the time of a round is divided at the least.
const WINDOWS: u64 = 4;
/// How much longer than its measured time a round may take, preparations included.
const PATIENCE: u32 = 5;
/// How much is written to zones for one window.
const FILL_AT_ONCE: u64 = 64 << 20;
/// How long to wait for what is in flight when something has failed.
const QUIET: Duration = Duration::from_secs(2);
/// The token of an operation; those of appends are times.
const OPERATION: u64 = u64::MAX;

/// How long an operation is measured, and how much is written for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In a round, with the operation and without it.
    pub(super) runtime: Duration,
    pub(super) fill: u64,
}

/// The appends and the operations.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) hands: &'a mut Hands,
    /// The queue of the appends, unless they share that of the operations.
    appends: Option<IoQueue>,
    stream: Stream,
    targets: &'a mut [Used],
    /// Refill the queue when this many requests are free.
    batch: usize,
    random: fastrand::Rng,
    epoch: Instant,
}

/// One window as it goes on.
struct Window {
    /// Completions that are still to come until the queue has turned over once.
    settling: u64,
    /// For how long to go on then, in nanoseconds, so that windows begin anywhere in the device's
    /// rhythm.
    delay: u64,
    /// When it began to count.
    begun: Option<u64>,
    ended: Option<u64>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(
        hands: &'a mut Hands,
        appends: Option<IoQueue>,
        stream: Stream,
        targets: &'a mut [Used],
    ) -> Self {
        let depth = stream.depth;
        Self {
            hands,
            appends,
            stream,
            targets,
            batch: (depth * 3 / 4).max(1),
            random: fastrand::Rng::with_seed(1),
            epoch: Instant::now(),
        }
    }

    /// Whether appends and operations share a queue.
    pub(super) fn is_shared(&self) -> bool {
        self.appends.is_none()
    }

    /// Whether anything is with the device.
    pub(super) fn is_busy(&self) -> bool {
        let appends = self.appends.as_ref().map_or(0, IoQueue::in_flight);
        appends + self.hands.queue.in_flight() > 0
    }

    /// Measures one operation, on zones of which no more may be active at once, and writes no more
    /// than so many bytes to fill them. What was measured before it failed is kept.
    pub(super) fn measure(
        &mut self,
        operation: Operation,
        zones: &mut [Used],
        limits: Limits,
        figures: &mut Figures,
        mut tick: impl FnMut(),
    ) -> Result<(), Trouble> {
        for used in zones.iter_mut() {
            self.hands.empty(used)?;
        }
        for _ in 0..ROUNDS {
            if self.hands.stop.is_set() {
                break;
            }
            let round = self.round(operation, zones, limits)?;
            if round.counts() {
                figures.add(&round);
            }
            tick();
        }
        Ok(())
    }

    fn round(
        &mut self,
        operation: Operation,
        zones: &mut [Used],
        limits: Limits,
    ) -> Result<Round, Trouble> {
        let mut round = Round::new();
        let runtime = nanos(limits.runtime);
        let at_most = runtime / WINDOWS;
        let begun = Instant::now();
        let before = self.hands.filled;
        let mut length = at_most;
        let mut loaded_first = true;
        let zones = self.at_once(operation, zones);
        while round.loaded.time < runtime {
            self.prepare(operation, zones)?;
            if self.hands.stop.is_set() {
                break;
            }
            if !loaded_first {
                self.window(None, length, &mut round.alone)?;
            }
            let work = Work::new(operation, zones);
            length = self.window(Some(work), at_most, &mut round.loaded)?;
            if loaded_first {
                self.window(None, length, &mut round.alone)?;
            }
            loaded_first = !loaded_first;
            let filled = self.hands.filled - before;
            let late = begun.elapsed() > limits.runtime * PATIENCE;
            if self.hands.stop.is_set() || late || filled >= limits.fill / ROUNDS as u64 {
                break;
            }
        }
        Ok(round)
    }

    /// The zones of one window: one that goes through a cycle, or as many as can be filled.
    fn at_once<'z>(&self, operation: Operation, zones: &'z mut [Used]) -> &'z mut [Used] {
        let n = if uses_up_zones(operation) {
            let bytes = self.hands.measures.bytes(operation.fill());
            FILL_AT_ONCE.checked_div(bytes).unwrap_or(1).max(1)
        } else {
            1
        };
        let n = usize::try_from(n).map_or(zones.len(), |n| n.min(zones.len()));
        &mut zones[..n]
    }

    /// Makes zones what they are when the first step begins.
    fn prepare(&mut self, operation: Operation, zones: &mut [Used]) -> Result<(), Trouble> {
        for used in zones {
            match cycle(operation) {
                // Reports and flushes change no zone.
                [Step::Operation] if !uses_up_zones(operation) => {}
                [Step::Operation, ..] => self.hands.prepare(operation, used)?,
                _ => {
                    self.hands.empty(used)?;
                    used.touched = true;
                }
            }
        }
        Ok(())
    }

    /// One window, in nanoseconds. Nothing is in flight before, nor after.
    fn window(
        &mut self,
        mut work: Option<Work<'_>>,
        at_most: u64,
        phase: &mut Phase,
    ) -> Result<u64, Trouble> {
        self.make_room()?;
        for target in &mut *self.targets {
            target.touched = true;
        }
        let started = self.now();
        let mut window = Window {
            settling: (self.stream.depth as u64).min(self.stream.left() / 4),
            delay: 0,
            begun: None,
            ended: None,
        };
        let mut pause = self.hands.pause();
        loop {
            let open = window.ended.is_none();
            if open {
                self.refill()?;
            }
            let found = self.drain(&mut window, started, work.as_mut(), phase)?;
            if found {
                pause.reset();
            } else {
                pause
                    .once(&self.hands.stop)
                    .map_err(|error| self.silent(work.as_ref(), error))?;
            }
            if !open {
                if !self.is_busy() {
                    break;
                }
                continue;
            }
            self.advance(&mut window, work.as_mut(), at_most)?;
        }
        let length = match (window.begun, window.ended) {
            (Some(begun), Some(ended)) => ended - begun,
            _ => 0,
        };
        phase.time += length;
        phase.windows += u64::from(length > 0);
        Ok(length.max(1))
    }

    /// Begins operations, and ends the window.
    fn advance(
        &mut self,
        window: &mut Window,
        work: Option<&mut Work<'_>>,
        at_most: u64,
    ) -> Result<(), Trouble> {
        let out_of_room = self.stream.left() == 0;
        let Some(begun) = window.begun else {
            if out_of_room || self.hands.stop.is_set() {
                window.ended = Some(self.now());
            }
            return Ok(());
        };
        let now = self.now();
        let over = match work {
            None => now - begun >= at_most,
            Some(work) => {
                let in_time = now - begun < at_most || work.ended == 0;
                if work.submitted.is_none() && !work.is_used_up() && in_time && !out_of_room {
                    self.begin(work)?;
                }
                work.submitted.is_none() && (work.is_used_up() || !in_time)
            }
        };
        if over || out_of_room || self.hands.stop.is_set() {
            window.ended = Some(now);
        }
        Ok(())
    }

    /// Begins the next step.
    fn begin(&mut self, work: &mut Work<'_>) -> Result<(), Trouble> {
        let zone = work.zone();
        let failed = |error| Trouble::new(work.operation.op().name(), error);
        let request = match work.step() {
            Step::Operation => {
                let call = work
                    .call
                    .get_or_insert_with(|| Call::new(work.operation, zone, &self.hands.tools));
                call.request(&mut self.hands.tools).map_err(failed)?
            }
            Step::Manage(action) => Request::Manage {
                action,
                zone: zone.id,
            },
            Step::WriteBlock => Request::Write {
                at: zone.start,
                buffer: self.hands.block().map_err(failed)?,
            },
        };
        work.submitted = Some(nanos(self.epoch.elapsed()));
        let queue = &mut self.hands.queue;
        queue
            .submit(request, OPERATION)
            .map_err(|rejected| failed(rejected.error))?;
        queue.commit();
        Ok(())
    }

    /// Keeps the appends at their depth.
    #[inline]
    fn refill(&mut self) -> Result<(), Trouble> {
        let mut n = (self.stream.free.len() as u64).min(self.stream.left());
        if n < self.batch as u64 && n < self.stream.left() {
            return Ok(());
        }
        if self.stream.is_at_border() {
            if self.stream.free.len() < self.stream.depth {
                return Ok(());
            }
            self.stream.pass_border();
        }
        let now = self.now();
        let queue = self.appends.as_mut().unwrap_or(&mut self.hands.queue);
        while n > 0 {
            let Some(buffer) = self.stream.free.pop() else {
                break;
            };
            let request = self.stream.request(buffer);
            queue.submit(request, now).map_err(|rejected| {
                let what = format!("{} beside", self.stream.kind().name());
                Trouble::new(what, rejected.error)
            })?;
            n -= 1;
            if self.stream.is_at_border() {
                break;
            }
        }
        queue.commit();
        Ok(())
    }

    /// Takes what has come back, and says whether that was anything.
    #[inline]
    fn drain(
        &mut self,
        window: &mut Window,
        started: u64,
        work: Option<&mut Work<'_>>,
        phase: &mut Phase,
    ) -> Result<bool, Trouble> {
        let mut operation = None;
        let mut returned = 0;
        let mut now = None;
        let queue = self.appends.as_mut().unwrap_or(&mut self.hands.queue);
        while let Some(done) = queue.poll() {
            if done.token == OPERATION {
                operation = Some(done);
                continue;
            }
            let now = *now.get_or_insert_with(|| nanos(self.epoch.elapsed()));
            let latency = now.saturating_sub(done.token);
            self.stream
                .free
                .push(append_done(done, &self.stream, work.as_deref())?);
            returned += 1;
            // Those that end behind the window have felt it.
            if window.begun.is_some() {
                phase.latency.record(latency, 1);
            }
        }
        if window.begun.is_some() && window.ended.is_none() {
            phase.ios += returned;
        }
        if window.begun.is_none() && returned > 0 {
            self.settle(window, started, returned);
        }
        if self.appends.is_some() {
            operation = self.hands.queue.poll();
        }
        let found = returned > 0 || operation.is_some();
        if let (Some(done), Some(work)) = (operation, work) {
            self.step_done(done, window, work, phase)?;
        }
        if window.begun.is_none() && window.ended.is_none() && window.settling == 0 {
            let now = self.now();
            if now >= window.delay {
                window.begun = Some(now);
            }
        }
        Ok(found)
    }

    /// Counts down to the beginning of the window.
    fn settle(&mut self, window: &mut Window, started: u64, returned: u64) {
        if window.settling == 0 {
            return;
        }
        window.settling = window.settling.saturating_sub(returned);
        if window.settling == 0 {
            let now = self.now();
            window.delay = now + self.random.u64(0..=(now - started));
        }
    }

    /// A step's request has come back.
    fn step_done(
        &mut self,
        done: Completion,
        window: &Window,
        work: &mut Work<'_>,
        phase: &mut Phase,
    ) -> Result<(), Trouble> {
        let now = self.now();
        let took = now - work.submitted.take().unwrap_or(now);
        let done = match done.result {
            Ok(_) => done,
            Err(error) => {
                let step = match work.step() {
                    Step::Operation => work.operation.action(),
                    Step::Manage(action) => Some(action),
                    Step::WriteBlock => None,
                };
                return Err(self.step_failed(work, step, error));
            }
        };
        if work.step() == Step::WriteBlock {
            self.hands.give_back(done.buffer);
        } else if let Some(call) = &mut work.call {
            work.spent += took;
            let ended = call
                .is_done(done, &mut self.hands.tools)
                .map_err(|error| Trouble::new(work.operation.op().name(), error))?;
            if !ended {
                return self.begin(work);
            }
            work.call = None;
            work.ended += 1;
            let took = mem::take(&mut work.spent);
            // One that went on while the appends had no more room was not beside them.
            if window.ended.is_none_or(|ended| 2 * (now - ended) < took) {
                phase.operations.record(took, 1);
            }
        }
        work.step += 1;
        Ok(())
    }

    fn step_failed(
        &mut self,
        work: &Work<'_>,
        action: Option<ZoneAction>,
        error: Error,
    ) -> Trouble {
        let mut trouble = match (work.step(), action) {
            (Step::Operation, _) => self.hands.failed(work.operation, work.zone(), error),
            (_, Some(action)) => self.hands.trouble(verb(action), work.zone(), error),
            (_, None) => self.hands.trouble("write to", work.zone(), error),
        };
        trouble.what += &format!(" beside {}s", self.stream.kind().name());
        trouble
    }

    /// Empties the zones of the appends when less than half of them is left.
    fn make_room(&mut self) -> Result<(), Trouble> {
        if self.stream.left() > self.stream.room() / 2 {
            return Ok(());
        }
        for target in &mut *self.targets {
            self.hands.empty(target)?;
        }
        self.stream.start_over();
        Ok(())
    }

    /// Waits for what is in flight, however it ends. False if not all of it comes back.
    pub(super) fn quiet(&mut self) -> bool {
        let begun = Instant::now();
        while self.is_busy() && begun.elapsed() < QUIET {
            let _ = self.hands.queue.poll();
            let _ = self.appends.as_mut().and_then(IoQueue::poll);
        }
        !self.is_busy()
    }

    fn silent(&self, work: Option<&Work<'_>>, error: Error) -> Trouble {
        let what = match work {
            Some(work) if work.submitted.is_some() => work.operation.op().name(),
            _ => self.stream.kind().name(),
        };
        Trouble::new(format!("{what} beside each other"), error)
    }

    fn now(&self) -> u64 {
        nanos(self.epoch.elapsed())
    }
}

/// The buffer of an append that has succeeded.
#[inline]
fn append_done(
    done: Completion,
    stream: &Stream,
    work: Option<&Work<'_>>,
) -> Result<DmaBuffer, Trouble> {
    let trouble = |error| {
        let beside = match work {
            Some(work) => format!(" beside {}", work.operation.op().name()),
            None => String::new(),
        };
        let zones: Vec<_> = stream.zones().copied().collect();
        let zones = crate::job::select::names(&zones);
        Trouble::new(
            format!("{} to {zones}{beside}", stream.kind().name()),
            error,
        )
    };
    match (done.result, done.buffer) {
        (Ok(_), Some(buffer)) => Ok(buffer),
        (Err(error), _) => Err(trouble(error)),
        (Ok(_), None) => Err(trouble(Error::new(
            ErrorKind::Protocol,
            "a request came back without its buffer",
        ))),
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
