//! A log on zones: append records, find them again after a crash, trim what is no longer wanted.

mod options;

use std::{fmt, ops::RangeBounds};

pub use options::{LogOptions, OnLoss, RecordId, RecordInfo, Recovery};

use crate::{Error, ErrorKind, Result, ZonedDevice};

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
#[derive(Clone)]
pub struct ZoneLog {
    device: ZonedDevice,
}

impl ZoneLog {
    /// Makes a log of zones that are all empty.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: a zone is not empty, or is no sequential zone. Nothing is
    ///   ever reset here.
    /// - As [`open`](Self::open).
    ///
    /// # Cancellation
    /// The zones may hold the beginning of a log without records, which [`open`](Self::open) opens.
    pub async fn create(device: &ZonedDevice, options: &LogOptions) -> Result<Self> {
        let _ = options;
        Err(unfinished(device))
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
    pub async fn open(device: &ZonedDevice, options: &LogOptions) -> Result<(Self, Recovery)> {
        let _ = options;
        Err(unfinished(device))
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
        let _ = payload;
        Err(unfinished(&self.device))
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
        let _ = (id, payload);
        Err(unfinished(&self.device))
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
        let _ = payload;
        Err(unfinished(&self.device))
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
        Err(unfinished(&self.device))
    }

    /// Reads a record's payload, durable or not.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such record (any more), or it has not been
    ///   written yet.
    /// - [`ErrorKind::Corrupt`]: what is stored is not the record.
    pub async fn read(&self, id: RecordId) -> Result<Vec<u8>> {
        let _ = id;
        Err(unfinished(&self.device))
    }

    /// Gives up all records below `below`, durably, and resets the zones that hold no others. If
    /// they are not durable yet, they are made so first.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: `below` exceeds the next id.
    /// - As [`sync`](Self::sync).
    ///
    /// # Cancellation
    /// The records are given up in this process at once; a later [`trim`](Self::trim) or
    /// [`sync`](Self::sync) does the rest.
    pub async fn trim(&self, below: RecordId) -> Result<()> {
        let _ = below;
        Err(unfinished(&self.device))
    }

    /// The records in `ids` that can be read, in their order.
    pub fn records(&self, ids: impl RangeBounds<RecordId>) -> Vec<RecordInfo> {
        let _ = ids;
        Vec::new()
    }

    /// The first record that has not been given up.
    pub fn first_id(&self) -> RecordId {
        RecordId(0)
    }

    /// The id of the record that is appended next.
    pub fn next_id(&self) -> RecordId {
        RecordId(0)
    }

    /// All records below are durable.
    pub fn watermark(&self) -> RecordId {
        RecordId(0)
    }

    /// The epoch of this handle: greater than that of every handle before it.
    pub fn epoch(&self) -> u64 {
        0
    }

    /// Whether the log has been opened anew, so that this handle is no longer its writer.
    pub fn is_fenced(&self) -> bool {
        false
    }

    /// What tells this log from others.
    pub fn identity(&self) -> u128 {
        0
    }

    /// The greatest length of a record in bytes: what one append of the device takes, without the
    /// header.
    pub fn max_record_len(&self) -> usize {
        0
    }
}

/// What is not built yet says so.
fn unfinished(device: &ZonedDevice) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the log on {} is being built", device.info().name),
    )
}

impl fmt::Debug for ZoneLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZoneLog").finish_non_exhaustive()
    }
}
