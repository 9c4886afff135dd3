//! A log on zones: append records, find them again after a crash, trim what is no longer wanted.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use zbd_core::{ZoneId, ZoneLog, ZonedDevice, log::LogOptions};
//!
//! let device = ZonedDevice::open("emu:")?;
//! let options = LogOptions::new(ZoneId(0)..ZoneId(4));
//! let (log, recovery) = ZoneLog::open(&device, &options).await?;
//! assert!(recovery.records.is_empty());
//! let id = log.append_durable(b"a record").await?;
//! assert_eq!(log.read(id).await?, b"a record");
//! log.trim(log.next_id()).await?;
//! # Ok::<(), zbd_core::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Promises
//!
//! - A record is durable when [`append_durable`](ZoneLog::append_durable) or
//!   [`sync`](ZoneLog::sync) has said so, and so are all before it. After a crash all of those are
//!   there, with their bytes and under their ids.
//! - Records that were not durable are there up to the first that is missing. Those behind it are
//!   gone for good, although they may still be stored.
//! - Only zones of which nothing is wanted are reset, and zones that hold what is not of the log
//!   make [`open`](ZoneLog::open) fail.
//! - Of all handles that were opened one after the other only the last is the writer. The others are
//!   fenced: from then on they call nothing durable, and what of theirs still lands counts for
//!   nothing. This is decided in the process that has the device open, on whichever threads the
//!   handles are.
//!
//! # On the device
//!
//! A record is one zone append: a header, the payload, and zeroes up to a multiple of the write
//! granularity. Appends of many records are in flight at once and land in any order, in a zone and
//! over several, so the ids say the order, not the sectors. Numbers are little-endian.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | `zbd log` and a zero |
//! | 8..10 | version | 1 |
//! | 10 | kind | 1 data, 2 mark, 3 seal |
//! | 11 | | 0 |
//! | 12..16 | length | of the payload, in bytes |
//! | 16..32 | identity | a random number that tells this log from others |
//! | 32..40 | epoch | of the handle that wrote this; greater than those of all before |
//! | 40..48 | start | the first id of the epoch |
//! | 48..56 | previous | the epoch of the record before `start` |
//! | 56..64 | id | of the record; of a mark, the id of the next record |
//! | 64..72 | base | all records below are trimmed |
//! | 72..80 | durable | all records below were durable when this was written |
//! | 80..84 | checksum | CRC-32C of the payload |
//! | 84..88 | checksum | CRC-32C of the bytes before it |
//!
//! Marks carry no payload. One is written, and flushed, when the log is opened, before any record
//! of the new epoch; and one when it is trimmed, before any zone is reset. The zone with the last
//! one is not reset. Records leave one zone empty: after a crash the zone that was written may be one
//! that cannot be written on, and the mark of the next handle needs a place. A log that is full and is
//! opened again and again without being trimmed fills even that zone, with marks.
//!
//! A zone that is finished before it is full gets a seal behind its last record, which is flushed
//! first. A device may let one read, in a finished zone, what was there before its reset or was lost
//! in a crash; nothing behind a seal is read.
//!
//! # Recovery
//!
//! 1. Each zone is read up to its write pointer or its seal. A granule that begins with a sound
//!    header begins a record; if its payload does not match its checksum, or it goes on past the
//!    write pointer, it is none, and the next granule is looked at.
//! 2. The greatest epoch counts for the ids from its start on. Before, the epoch that it names as
//!    previous counts, up to that start, and so on. Records of other epochs, or outside the ids of
//!    theirs, count for nothing: they were not there, or behind a gap, when a later epoch began.
//! 3. The greatest base in the headers of the greatest epoch is the trim point; what is below was
//!    trimmed, whether its zone has been reset or not. The log are the records from there on up to
//!    the first id that is missing.
//! 4. If that id is below what the greatest epoch says is durable, a record is missing that had been acknowledged:
//!    no crash does that, and [`OnLoss`] says what then.
//! 5. All is flushed, and a mark begins a new epoch at the first missing id. When it is durable,
//!    zones of which nothing is wanted are reset.

mod engine;
mod fence;
mod geometry;
mod open;
mod options;
mod record;
mod recover;
mod scan;
mod state;

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use engine::Engine;

pub(crate) use fence::Writers;
pub use options::{LogOptions, OnLoss, RecordId, RecordInfo, Recovery};

#[cfg(doc)]
use crate::ErrorKind;
use crate::{Driver, Lanes, Result, ZonedDevice};

/// A log on a set of sequential zones, used by any number of tasks at once.
///
/// Clones share the log. Records get ids that follow one another; any number of them can be on
/// their way at once, and a crash leaves those up to the first that is missing.
///
/// # Cancellation
///
/// Requests belong to the log, not to the futures that wait for them. A future that is dropped
/// before its record has got an id has done nothing; after that the record is part of the log as if
/// the future had been awaited, and a later [`sync`](Self::sync) covers it.
///
/// # Threads
///
/// It works on either kind of device: on one that is driven by [`Lanes`] it can be sent and shared as
/// that can, and on one that is driven by its own thread ([`Local`](crate::Local)) it stays there.
#[derive(Clone)]
pub struct ZoneLog<D: Driver = Lanes> {
    engine: Arc<Engine<D>>,
}

impl<D: Driver> ZoneLog<D> {
    /// Makes a log of zones that are all empty.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: a zone is not empty, or is no sequential zone. Nothing is
    ///   ever reset here.
    /// - As [`open`](Self::open).
    ///
    /// # Cancellation
    /// The zones may hold the beginning of a log without records, which [`open`](Self::open) opens.
    pub async fn create(device: &ZonedDevice<D>, options: &LogOptions) -> Result<Self> {
        let engine = open::create(device, options).await?;
        Ok(Self { engine })
    }

    /// Opens the log that the zones hold, or makes one if they are all empty, and becomes its
    /// writer: every handle that was opened before is fenced.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: the zones hold something that is not one log.
    /// - [`ErrorKind::Corrupt`]: a record is missing of which the log knows that it was durable;
    ///   see [`OnLoss`].
    /// - [`ErrorKind::LogFull`]: there is no room for the epoch record.
    ///
    /// # Cancellation
    /// Handles that were opened before may or may not be fenced. The log stays as it is.
    ///
    /// # Threads
    /// What the handle before has on its way ends first. If that handle is on another
    /// [`ZonedDevice<Local>`](crate::Local), of the same open device and on another thread, that thread
    /// has to go on driving its device and polling futures of the handle, or drop it: only then can
    /// this end.
    pub async fn open(device: &ZonedDevice<D>, options: &LogOptions) -> Result<(Self, Recovery)> {
        let (engine, recovery) = open::open(device, options).await?;
        Ok((Self { engine }, recovery))
    }

    /// Appends a record and yields its id when it has been written, which is not yet durable.
    ///
    /// Waits while as many records as [`LogOptions::window`] says are on their way.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: the record is longer than
    ///   [`max_record_len`](Self::max_record_len).
    /// - [`ErrorKind::LogFull`]: [trim](Self::trim) the log.
    /// - [`ErrorKind::Fenced`]: the log has been opened anew.
    /// - Others: the record, or one before it, could not be written. The log takes no more then;
    ///   open it anew.
    ///
    /// # Cancellation
    /// See [`ZoneLog`].
    pub async fn append(&self, payload: &[u8]) -> Result<RecordId> {
        self.engine.add(payload, None).await.map(RecordId)
    }

    /// As [`append`](Self::append), if the record gets the id `id`.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: the next id is another one; nothing was written.
    /// - As [`append`](Self::append).
    ///
    /// # Cancellation
    /// See [`ZoneLog`].
    pub async fn append_as(&self, id: RecordId, payload: &[u8]) -> Result<()> {
        self.engine.add(payload, Some(id.0)).await.map(drop)
    }

    /// Appends a record and yields its id when it and all before it are durable. Several at a time
    /// share a flush.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`sync`](Self::sync).
    ///
    /// # Cancellation
    /// See [`ZoneLog`].
    pub async fn append_durable(&self, payload: &[u8]) -> Result<RecordId> {
        let id = self.engine.add(payload, None).await?;
        self.engine.sync(id.saturating_add(1)).await?;
        Ok(RecordId(id))
    }

    /// Makes all records durable that have got their ids before, and yields the
    /// [`watermark`](Self::watermark).
    ///
    /// # Errors
    /// - [`ErrorKind::Fenced`]: the log has been opened anew; whether records that were not durable
    ///   before have become part of it is not known.
    /// - Others: a record could not be written, or the device could not make it durable. What is
    ///   before it is durable as far as the watermark says.
    ///
    /// # Cancellation
    /// A flush that has begun goes on.
    pub async fn sync(&self) -> Result<RecordId> {
        let target = self.engine.state().next();
        self.engine.sync(target).await.map(RecordId)
    }

    /// Reads a record's payload, durable or not.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such record (any more), or it has not been
    ///   written yet.
    /// - [`ErrorKind::Corrupt`]: what is stored is not the record.
    pub async fn read(&self, id: RecordId) -> Result<Vec<u8>> {
        self.engine.read(id.0).await
    }

    /// Gives up all records below `below`, durably, and resets the zones that hold no others. If
    /// they are not durable yet, they are made so first.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: `below` exceeds the next id.
    /// - As [`sync`](Self::sync).
    ///
    /// # Cancellation
    /// The records may be given up in this process and be back when the log is opened anew. Trimming
    /// again, to the same point, does the rest.
    pub async fn trim(&self, below: RecordId) -> Result<()> {
        self.engine.trim(below.0).await
    }

    /// The records in `ids` that can be read, in their order.
    pub fn records(&self, ids: impl RangeBounds<RecordId>) -> Vec<RecordInfo> {
        let state = self.engine.state();
        let first = match ids.start_bound() {
            Bound::Included(id) => id.0,
            Bound::Excluded(id) => id.0.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match ids.end_bound() {
            Bound::Included(id) => id.0.saturating_add(1),
            Bound::Excluded(id) => id.0,
            Bound::Unbounded => u64::MAX,
        };
        (first.max(state.base)..end.min(state.next()))
            .filter_map(|id| state.info(id, &self.engine.geometry))
            .collect()
    }

    /// The first record that has not been given up.
    pub fn first_id(&self) -> RecordId {
        RecordId(self.engine.state().base)
    }

    /// The id of the record that is appended next.
    pub fn next_id(&self) -> RecordId {
        RecordId(self.engine.state().next())
    }

    /// All records below are durable.
    pub fn watermark(&self) -> RecordId {
        RecordId(self.engine.state().durable)
    }

    /// The epoch of this handle: greater than that of every handle before it.
    pub fn epoch(&self) -> u64 {
        self.engine.state().epoch
    }

    /// Whether the log has been opened anew, so that this handle is no longer its writer.
    pub fn is_fenced(&self) -> bool {
        self.engine.fence.is_raised()
    }

    /// What tells this log from others.
    pub fn identity(&self) -> u128 {
        self.engine.state().identity
    }

    /// The greatest length of a record in bytes: what one append of the device takes, without the
    /// header.
    pub fn max_record_len(&self) -> usize {
        self.engine.geometry.max_payload
    }
}

impl<D: Driver> fmt::Debug for ZoneLog<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.engine.state();
        f.debug_struct("ZoneLog")
            .field("zones", &self.engine.geometry.zones)
            .field("epoch", &state.epoch)
            .field("first_id", &state.base)
            .field("next_id", &state.next())
            .finish_non_exhaustive()
    }
}
