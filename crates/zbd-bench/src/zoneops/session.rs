//! The operations, one after the other: alone, then beside appends.

use std::{sync::Arc, time::Instant};

use zbd_core::{DeviceInfo, DmaBuffer, ErrorKind, IoQueue, Zone, ZoneState};

use super::{
    Finished, Load, Sampled,
    beside::{self, Limits, Pair},
    figures,
    hands::{self, Hands, Trouble, Used},
    operation::{self, Operation},
    plan::{Layout, Plan},
    stream::Stream,
};
use crate::{
    failure::{During, Failure, chain},
    job::{
        control,
        latency::Latency,
        progress::{Progress, Total},
        stop::Stop,
    },
};

/// The operations, one after the other.
pub(super) struct Session {
    plan: Plan,
    info: Arc<DeviceInfo>,
    hands: Hands,
    appended: Vec<Used>,
    managed: Vec<Used>,
    room: Option<u32>,
    no_load: Option<String>,
    operations: Vec<Operation>,
    results: Vec<Sampled>,
    load: Option<Load>,
    notes: Vec<String>,
    trouble: Option<Trouble>,
    /// Whether zones can still be managed.
    answers: bool,
    steps: Steps,
}

/// How far it is, on the terminal.
struct Steps {
    progress: Progress,
    begun: Instant,
    made: u64,
}

impl Steps {
    fn new(steps: u64) -> Self {
        Self {
            progress: Progress::new(Total::Steps(steps)),
            begun: Instant::now(),
            made: 0,
        }
    }

    fn say(&self, what: &str) {
        self.progress.advance(self.begun.elapsed(), self.made, what);
    }

    fn made(&mut self, what: &str) {
        self.made += 1;
        self.say(what);
    }
}

impl Session {
    /// Chooses the zones and makes ready. `stop` is made when nothing is refused any more.
    pub(super) fn begin(
        plan: Plan,
        mut queue: IoQueue,
        stop: impl FnOnce() -> Stop,
    ) -> Result<Self, Failure> {
        let in_use = |error| Failure::from_device(During::Use, &error);
        let info = Arc::clone(queue.info());
        plan.check(&info)?;
        let report = control::report(&mut queue, 0..u32::MAX).map_err(in_use)?;
        let layout = plan.layout(&info, &report)?;
        // Until here an interrupt ends the process at once.
        let hands = Hands::new(queue, layout.measures, stop()).map_err(in_use)?;
        Ok(Self::new(plan, info, &layout, hands))
    }

    fn new(plan: Plan, info: Arc<DeviceInfo>, layout: &Layout, hands: Hands) -> Self {
        let operations = operation::operations(&plan.ops, &layout.measures);
        let used = |zones: &[Zone]| -> Vec<Used> {
            let used = |zone: &Zone| Used::new(zone, zone.state != ZoneState::Empty);
            zones.iter().map(used).collect()
        };
        let rounds = match layout.appended.is_empty() {
            true => 0,
            false => beside::ROUNDS as u64,
        };
        let steps = operations.len() as u64 * (1 + rounds);
        Self {
            info,
            appended: used(&layout.appended),
            managed: used(&layout.managed),
            room: layout.room,
            no_load: layout.no_load.clone(),
            hands,
            operations,
            results: Vec::new(),
            load: None,
            notes: Vec::new(),
            trouble: None,
            answers: true,
            steps: Steps::new(steps),
            plan,
        }
    }

    pub(super) fn measure(&mut self, appends: Option<IoQueue>) {
        if let Err(trouble) = self.alone() {
            return self.failed(trouble);
        }
        if let Some(why) = &self.no_load {
            self.notes
                .push(format!("Nothing was measured beside appends: {why}."));
        }
        if self.appended.is_empty() || self.hands.stop.is_set() {
            return;
        }
        if let Err(trouble) = self.beside(appends) {
            self.failed(trouble);
        }
    }

    fn failed(&mut self, trouble: Trouble) {
        self.answers &= hands::answers(&trouble.error);
        self.trouble = Some(trouble);
    }

    /// Each operation with nothing beside it.
    fn alone(&mut self) -> Result<(), Trouble> {
        for used in self.appended.iter_mut().chain(&mut self.managed) {
            self.hands.empty(used)?;
        }
        for operation in self.operations.clone() {
            if self.hands.stop.is_set() {
                break;
            }
            self.steps.say(operation.op().name());
            let at = self.results.len();
            let (fill, zones) = self.extent(operation);
            self.results.push(Sampled {
                operation,
                fill,
                zones,
                latency: Latency::new(),
                errors: 0,
                refused: None,
                beside: None,
            });
            self.sample(operation, at)?;
            self.steps.made(operation.op().name());
        }
        Ok(())
    }

    /// How much is written to each zone before an operation, and how many zones it is about.
    fn extent(&self, operation: Operation) -> (u64, u32) {
        let fill = self.hands.measures.bytes(operation.fill());
        let zones = match operation {
            Operation::ReportAll => self.hands.tools.zoned.zone_count,
            Operation::ResetAll => {
                // As many as can be filled for three samples at least.
                let affordable = self.plan.fill_limit / 3 / fill.max(1);
                let used = (self.appended.len() + self.managed.len()) as u64;
                used.min(affordable.max(1)) as u32
            }
            Operation::Flush => 0,
            _ => 1,
        };
        (fill, zones)
    }

    fn sample(&mut self, operation: Operation, at: usize) -> Result<(), Trouble> {
        let (fill, zones) = self.extent(operation);
        let count = match operation {
            Operation::ResetAll => self.plan.samples(fill * u64::from(zones)),
            _ => self.plan.samples(fill),
        };
        for sample in 0..count as usize {
            let range = match operation {
                Operation::ResetAll => 0..zones as usize,
                // One that is being filled needs no reset for every sample.
                Operation::Flush => 0..1,
                _ => sample % self.managed.len()..sample % self.managed.len() + 1,
            };
            let used = self.managed.iter_mut().chain(&mut self.appended);
            let mut used: Vec<&mut Used> = used.take(range.end).skip(range.start).collect();
            if operation.needs_zones() {
                for used in &mut used {
                    self.hands.prepare(operation, used)?;
                }
            }
            let Some(zone) = used.first().map(|used| used.zone) else {
                break;
            };
            if self.hands.stop.is_set() {
                break;
            }
            match self.hands.time(operation, &zone) {
                Ok(ns) => self.results[at].latency.record(ns, 1),
                Err(trouble) if operation.may_be_refused() && refuses(&trouble) => {
                    self.results[at].refused = Some(chain(&trouble.error));
                    break;
                }
                Err(trouble) => {
                    self.results[at].errors += 1;
                    return Err(trouble);
                }
            }
            // What is left open would count against the limits of what comes next.
            if operation != Operation::Flush {
                for used in used {
                    self.hands.empty(used)?;
                }
            }
        }
        for used in self.managed.iter_mut().chain(&mut self.appended) {
            self.hands.empty(used)?;
        }
        Ok(())
    }

    /// Each operation that was measured, beside appends.
    fn beside(&mut self, queue: Option<IoQueue>) -> Result<(), Trouble> {
        let zones: Vec<Zone> = self.appended.iter().map(|used| used.zone).collect();
        let kind = Plan::beside(&self.info, &zones);
        let no_memory = |error| Trouble::new("have buffers for appends", error);
        let mut buffers = Vec::new();
        for _ in 0..self.plan.depth {
            let from = queue.as_ref().unwrap_or(&self.hands.queue);
            let mut buffer: DmaBuffer = from
                .buffer(self.plan.block_size as usize)
                .map_err(no_memory)?;
            buffer.fill(0xa5);
            buffers.push(buffer);
        }
        let stream = Stream::new(kind, &zones, self.plan.block_size.into(), buffers);
        let mut pair = Pair::new(&mut self.hands, queue, stream, &mut self.appended);
        self.load = Some(Load {
            kind,
            zones: zones.len() as u32,
            shared: pair.is_shared(),
        });
        let mut outcome = Ok(());
        let mut skipped = Vec::new();
        let limits = Limits {
            runtime: self.plan.runtime,
            fill: self.plan.fill_limit,
        };
        for sampled in &mut self.results {
            let operation = sampled.operation;
            if pair.hands.stop.is_set() {
                break;
            }
            if sampled.refused.is_some() || !operation.goes_beside() {
                continue;
            }
            let at_once = match self.room {
                Some(room) if operation.action().is_some() => room as usize,
                _ => usize::MAX,
            };
            let at_once = at_once.min(self.managed.len());
            if at_once == 0 {
                skipped.push(operation.op().name());
                continue;
            }
            let name = operation.op().name();
            let what = format!("{name} beside {}s", kind.name());
            let steps = &mut self.steps;
            steps.say(&what);
            let mut figures = figures::Beside::new();
            outcome = pair.measure(
                operation,
                &mut self.managed[..at_once],
                limits,
                &mut figures,
                || steps.made(&what),
            );
            sampled.beside = (!figures.rounds.is_empty()).then_some(figures);
            if outcome.is_err() {
                sampled.errors += 1;
                break;
            }
        }
        skipped.dedup();
        if !skipped.is_empty() {
            self.notes.push(format!(
                "Not measured beside {}s: {}, for which the device lets too few zones be open.",
                kind.name(),
                skipped.join(", ")
            ));
        }
        // Zones are managed by a queue that has nothing else in flight.
        self.answers = pair.quiet();
        outcome
    }

    /// Leaves the zones empty that were used.
    pub(super) fn finish(mut self, begun: Instant) -> Finished {
        let mut not_emptied = None;
        if self.answers {
            for used in self.appended.iter_mut().chain(&mut self.managed) {
                if let Err(trouble) = self.hands.empty(used) {
                    not_emptied = Some(trouble.text());
                    break;
                }
            }
        } else {
            not_emptied = Some("the device does not answer".to_owned());
        }
        let used = self.appended.iter().chain(&self.managed);
        Finished {
            zones: used.map(|used| used.zone).collect(),
            filled: self.hands.filled,
            time: begun.elapsed(),
            interrupted: self.hands.stop.is_interrupted(),
            plan: self.plan,
            info: self.info,
            results: self.results,
            load: self.load,
            notes: self.notes,
            trouble: self.trouble,
            not_emptied,
        }
    }
}

/// Whether the device has refused to finish an empty zone, which is empty all the same.
fn refuses(trouble: &Trouble) -> bool {
    let refused = matches!(
        trouble.error.kind(),
        ErrorKind::InvalidZoneState | ErrorKind::Unsupported | ErrorKind::Medium | ErrorKind::Io
    );
    refused && trouble.state == Some(ZoneState::Empty)
}

#[cfg(test)]
mod tests;
