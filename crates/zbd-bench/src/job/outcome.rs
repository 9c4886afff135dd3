//! What a job measured.

use std::{collections::BTreeMap, time::Duration};

use zbd_core::{Error, ErrorKind, ZoneAction};

use super::{latency::Latency, plan::Job, series::Series};
use crate::failure::chain;

/// The errors of a job.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    /// How many of each kind.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// The text of the first.
    pub(crate) first: Option<String>,
}

impl Errors {
    #[cold]
    pub(crate) fn add(&mut self, error: &Error) {
        self.add_many(error.kind(), 1, || chain(error));
    }

    #[cold]
    pub(crate) fn add_many(&mut self, kind: ErrorKind, count: u64, text: impl FnOnce() -> String) {
        *self.kinds.entry(format!("{kind:?}")).or_default() += count;
        self.first.get_or_insert_with(text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(crate) fn total(&self) -> u64 {
        self.kinds.values().sum()
    }

    fn merge(&mut self, other: Self) {
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.first = self.first.take().or(other.first);
    }
}

/// The requests of one kind.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Requests that succeeded.
    pub(crate) ios: u64,
    /// From when they were submitted; from when they were due, where that was fixed beforehand.
    pub(crate) latency: Latency,
    /// From when they were submitted, where that is something else.
    pub(crate) service: Option<Latency>,
    pub(crate) series: Series,
}

impl Tally {
    fn new(paced: bool) -> Self {
        Self {
            ios: 0,
            latency: Latency::new(),
            service: paced.then(Latency::new),
            series: Series::new(),
        }
    }

    /// `count` requests have ended at this time after the start, after so long.
    #[inline]
    pub(crate) fn record(&mut self, at: u64, latency: u64, count: u64) {
        self.ios += count;
        self.latency.record(latency, count);
        self.series.add(at, latency, count);
    }

    fn merge(&mut self, other: &Self) {
        self.ios += other.ios;
        self.latency.merge(&other.latency);
        if let (Some(ours), Some(theirs)) = (&mut self.service, &other.service) {
            ours.merge(theirs);
        }
        self.series.merge(&other.series);
    }
}

/// What the job has done to zones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Management {
    pub(crate) resets: u64,
    pub(crate) reset_time: Duration,
    pub(crate) finishes: u64,
    pub(crate) finish_time: Duration,
}

impl Management {
    /// A zone was managed, which took so long.
    pub(crate) fn add(&mut self, action: ZoneAction, time: Duration) {
        if action == ZoneAction::Finish {
            self.finishes += 1;
            self.finish_time += time;
        } else {
            self.resets += 1;
            self.reset_time += time;
        }
    }

    /// How long all of it took.
    pub(crate) fn time(&self) -> Duration {
        self.reset_time + self.finish_time
    }

    fn merge(&mut self, other: &Self) {
        self.resets += other.resets;
        self.reset_time += other.reset_time;
        self.finishes += other.finishes;
        self.finish_time += other.finish_time;
    }
}

/// What one queue, or all of them, measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The requests of the job's operation.
    pub(crate) done: Tally,
    /// The reads among the requests of a writing job.
    pub(crate) reads: Option<Tally>,
    /// From the start to the last completion, without managing zones.
    pub(crate) time: Duration,
    pub(crate) doorbells: u64,
    pub(crate) management: Management,
    /// How many requests were due and never submitted.
    pub(crate) unsent: u64,
    pub(crate) errors: Errors,
}

impl Measured {
    /// Of requests at fixed times, if `paced`; with reads among the writes, if `mixed`.
    pub(crate) fn new(paced: bool, mixed: bool) -> Self {
        Self {
            done: Tally::new(paced),
            reads: mixed.then(|| Tally::new(paced)),
            time: Duration::ZERO,
            doorbells: 0,
            management: Management::default(),
            unsent: 0,
            errors: Errors::default(),
        }
    }

    /// What a job measures.
    pub(crate) fn of(job: &Job) -> Self {
        Self::new(job.rate.is_some(), job.read_mix > 0)
    }

    /// How many requests succeeded, of whatever kind.
    pub(crate) fn ios(&self) -> u64 {
        self.done.ios + self.reads.as_ref().map_or(0, |reads| reads.ios)
    }

    /// Adds what another queue measured at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.done.merge(&other.done);
        if let (Some(ours), Some(theirs)) = (&mut self.reads, &other.reads) {
            ours.merge(theirs);
        }
        self.time = self.time.max(other.time);
        self.doorbells += other.doorbells;
        self.management.merge(&other.management);
        self.unsent += other.unsent;
        self.errors.merge(other.errors);
    }
}
