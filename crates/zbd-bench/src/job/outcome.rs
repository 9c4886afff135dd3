//! What a job measured.

use std::{collections::BTreeMap, time::Duration};

use zbd_core::{Error, ErrorKind};

use super::latency::Latency;
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

/// What one queue, or all of them, measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Requests that succeeded.
    pub(crate) ios: u64,
    /// From the start to the last completion, without resets.
    pub(crate) time: Duration,
    pub(crate) latency: Latency,
    pub(crate) doorbells: u64,
    pub(crate) zone_resets: u64,
    pub(crate) reset_time: Duration,
    pub(crate) errors: Errors,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self {
            ios: 0,
            time: Duration::ZERO,
            latency: Latency::new(),
            doorbells: 0,
            zone_resets: 0,
            reset_time: Duration::ZERO,
            errors: Errors::default(),
        }
    }

    /// Adds what another queue measured at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.ios += other.ios;
        self.time = self.time.max(other.time);
        self.latency.merge(&other.latency);
        self.doorbells += other.doorbells;
        self.zone_resets += other.zone_resets;
        self.reset_time += other.reset_time;
        self.errors.merge(other.errors);
    }
}
