//! What a log is opened with, and what is found then.

use std::{fmt, ops::Range};

use crate::{Sector, ZoneId};

/// The number of a record in its log. Those of one log follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a [`ZoneLog`](crate::ZoneLog) is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// The zones of the log, two at least, all of them sequential. The log is alone in them, and keeps
    /// one of them empty.
    pub zones: Range<ZoneId>,
    /// How many appends are in flight at the most.
    pub window: usize,
    /// The id of the first record of a log that is made.
    pub first_id: RecordId,
    /// What to do about durable records that are missing.
    pub on_loss: OnLoss,
}

impl LogOptions {
    /// A log on `zones`, 64 appends in flight, ids from 0 on, loss refused.
    pub fn new(zones: Range<ZoneId>) -> Self {
        Self {
            zones,
            window: 64,
            first_id: RecordId(0),
            on_loss: OnLoss::Refuse,
        }
    }
}

/// What [`ZoneLog::open`](crate::ZoneLog::open) does if a record is missing or damaged of which
/// later records say that it was durable. That is damage to the medium, not a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Fails as [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and changes nothing.
    Refuse,
    /// Lets the log end before the record, for good.
    Accept,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordInfo {
    /// Its number.
    pub id: RecordId,
    /// The epoch of the handle that wrote it.
    pub epoch: u64,
    /// The zone that holds it.
    pub zone: ZoneId,
    /// Where its header begins.
    pub sector: Sector,
    /// The length of its payload in bytes.
    pub len_bytes: usize,
}

/// What [`ZoneLog::open`](crate::ZoneLog::open) has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// The log's records in the order of their ids, which follow one another.
    pub records: Vec<RecordInfo>,
    /// The first id that has not been trimmed.
    pub first_id: RecordId,
    /// The id that the next record gets.
    pub next_id: RecordId,
    /// How many intact records were dropped because one before them is missing or because they are
    /// of a writer that had been fenced. They do not come back.
    pub dropped: usize,
    /// How many records were found damaged. Those of a crash are, if they were being written.
    pub damaged: usize,
}
