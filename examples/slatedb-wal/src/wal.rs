//! The log as SlateDB opens, fences, reads and trims it.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use slatedb::wal::{WalError, WalFileRange, WalGc, WriterInit, WriterInitResult, WriterManifest};
use tokio::sync::{Notify, watch};
use zbd_core::log::{LogOptions, RecordId, Recovery};
use zbd_core::{ErrorKind, Result, ZoneId, ZoneLog, ZoneType, ZonedDevice};

use crate::error::{data_error, unavailable, wal_error};
use crate::part::{self, Part};
use crate::reader::ZoneWalIterator;
use crate::writer::ZoneWalWriter;

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct ZoneWalOptions {
    /// Its zones, two at least; all sequential zones that follow one another, if `None`.
    pub zones: Option<Range<ZoneId>>,
    /// How long a write waits for a zone to be reset when all are full.
    pub patience: Duration,
}

impl Default for ZoneWalOptions {
    fn default() -> Self {
        Self {
            zones: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// SlateDB's write-ahead log on the zones of a device.
///
/// Clones share the log, and what SlateDB takes by itself is a clone: the initializer of writers
/// (`with_wal_writer`), the garbage collector's part (`with_wal_gc`) and the reader's
/// (`with_wal_reader`). A log is one database's.
#[derive(Clone, Debug)]
pub struct ZoneWal(Arc<Shared>);

pub(crate) struct Shared {
    device: ZonedDevice,
    zones: Range<ZoneId>,
    patience: Duration,
    /// One database at a time becomes the writer.
    opening: tokio::sync::Mutex<()>,
    /// As it was opened last.
    log: Mutex<Option<ZoneLog>>,
    durable: watch::Sender<u64>,
    room: Notify,
    /// Ids below which nothing was wanted any more, with when that was first said.
    unwanted: Mutex<VecDeque<(Instant, u64)>>,
}

impl ZoneWal {
    /// The log on `device`. It is opened, or made if its zones are all empty, when a database is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the device has not two sequential zones.
    pub fn new(device: ZonedDevice, options: ZoneWalOptions) -> Result<Self> {
        let zones = match options.zones {
            Some(zones) => zones,
            None => sequential_zones(&device)?,
        };
        Ok(Self(Arc::new(Shared {
            device,
            zones,
            patience: options.patience,
            opening: tokio::sync::Mutex::new(()),
            log: Mutex::new(None),
            durable: watch::Sender::new(0),
            room: Notify::new(),
            unwanted: Mutex::new(VecDeque::new()),
        })))
    }

    /// The zones of the log.
    pub fn zones(&self) -> Range<ZoneId> {
        self.0.zones.clone()
    }

    /// The log under it, once a database has been opened.
    pub fn log(&self) -> Option<ZoneLog> {
        self.0.log().clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

/// The longest run of sequential zones.
fn sequential_zones(device: &ZonedDevice) -> Result<Range<ZoneId>> {
    let info = device.info();
    let zoned = info.zoned()?;
    let sequential = |zone: u32| {
        matches!(
            zoned.zone_type(ZoneId(zone)),
            Some(ZoneType::SequentialRequired)
        )
    };
    let (mut longest, mut begin) = (0..0, 0);
    for zone in 0..=zoned.zone_count {
        if zone == zoned.zone_count || !sequential(zone) {
            if zone - begin > longest.end - longest.start {
                longest = begin..zone;
            }
            begin = zone + 1;
        }
    }
    if longest.len() < 2 {
        return Err(zbd_core::Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} has not two sequential zones in a row, and a log needs them",
                info.name
            ),
        ));
    }
    Ok(ZoneId(longest.start)..ZoneId(longest.end))
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Option<ZoneLog>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit in which the log is written, in bytes.
    pub(crate) fn granularity(&self) -> u64 {
        let info = self.device.info();
        info.zoned
            .as_ref()
            .map_or(512, |zoned| u64::from(zoned.write_granularity))
    }

    /// How many bytes the zones take.
    fn capacity(&self) -> u64 {
        let info = self.device.info();
        let zones = self.zones.start.0..self.zones.end.0;
        let capacity = |zone| info.zoned.as_ref()?.capacity(ZoneId(zone));
        zones
            .filter_map(capacity)
            .map(|sectors| sectors.0 * 512)
            .sum()
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits until zones may have been reset.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// Files up to `id` are durable. A writer that has been fenced may say so late.
    pub(crate) fn durable(&self, id: u64) {
        self.durable.send_if_modified(|durable| {
            let more = id > *durable;
            *durable = id.max(*durable);
            more
        });
    }

    pub(crate) fn durable_ids(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// A record's payload.
    pub(crate) async fn read(&self, id: u64) -> std::result::Result<Vec<u8>, WalError> {
        let log = self.log().clone().ok_or_else(not_open)?;
        match log.read(RecordId(id)).await {
            Ok(payload) => Ok(payload),
            Err(_) if log.first_id() > RecordId(id) => Err(WalError::WalTruncated(id)),
            Err(error) => Err(wal_error(&error)),
        }
    }

    /// Refuses a log that is not the database's, or does not hold what the database needs of it.
    async fn check(
        &self,
        log: &ZoneLog,
        found: &Recovery,
        manifest: &WriterManifest,
    ) -> std::result::Result<(), WalError> {
        let name = &self.device.info().name;
        let remedy = "open the database with the device that it was written with";
        if let Some(last) = found.records.last() {
            let payload = log.read(last.id).await;
            let payload = payload.map_err(|error| wal_error(&error))?;
            let epoch = Part::decode(last.id.0, payload.into())?.epoch;
            let ours = manifest.epoch();
            if epoch >= ours {
                return Err(data_error(format!(
                    "the log on {name} has been written by epoch {epoch}, and this database is \
                     only at epoch {ours}, so it is another's: {remedy}, or reset the zones if \
                     nothing in them is wanted"
                )));
            }
        }
        let known = manifest.manifest().next_wal_sst_id();
        if found.next_id.0 < known {
            return Err(data_error(format!(
                "the log on {name} ends before record {}, and the database knows of records \
                 before {known}: {remedy}",
                found.next_id
            )));
        }
        let wanted = manifest.replay_after_wal_id() + 1;
        if found.first_id.0 > wanted {
            return Err(data_error(format!(
                "the log on {name} begins with record {}, and the database still needs record \
                 {wanted}: {remedy}",
                found.first_id
            )));
        }
        Ok(())
    }
}

fn not_open() -> WalError {
    unavailable("no database has opened the log in this process, which has the device to itself")
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("device", &self.device)
            .field("zones", &self.zones)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl WriterInit for ZoneWal {
    /// Opening the log fences every writer before this one: nothing that they write from now on
    /// becomes part of it, or is acknowledged. The first record of the new writer is its epoch.
    async fn fence_and_init(
        &self,
        manifest: &mut WriterManifest,
    ) -> std::result::Result<WriterInitResult, WalError> {
        let shared = &self.0;
        let _opening = shared.opening.lock().await;
        // A database that has been fenced meanwhile must not fence the one that did so.
        manifest.refresh().await?;
        let mut options = LogOptions::new(shared.zones.clone());
        // SlateDB counts log files from 1 on; 0 is before the first.
        options.first_id = RecordId(1);
        let opened = ZoneLog::open(&shared.device, &options).await;
        let (log, found) = opened.map_err(|error| wal_error(&error))?;
        shared.check(&log, &found, manifest).await?;
        let epoch = manifest.epoch();
        let fence = part::encode(epoch, true, true, &[]);
        let fence = log
            .append_durable(&fence)
            .await
            .map_err(|error| wal_error(&error))?
            .0;
        *shared.log() = Some(log.clone());
        shared.durable(fence);
        let records = found.records.iter();
        let writer = ZoneWalWriter::start(
            Arc::clone(shared),
            log,
            epoch,
            fence,
            shared.capacity(),
            records.map(|record| (record.id.0, record.len_bytes)),
        );
        let start = manifest.replay_after_wal_id() + 1;
        let replay = ZoneWalIterator::new(Arc::clone(shared), start, Some(fence + 1));
        Ok(WriterInitResult {
            replay_iterator: Box::new(replay),
            wal_writer: Box::new(writer),
        })
    }
}

#[async_trait]
impl WalGc for ZoneWal {
    /// Trims the log up to the first file that is referenced, which resets the zones that are left
    /// without records. The last record stays, because it tells whose log this is.
    async fn collect(
        &self,
        referenced_ranges: Vec<WalFileRange>,
        min_age: Duration,
        dry_run: bool,
    ) -> std::result::Result<(), WalError> {
        let shared = &self.0;
        let Some(log) = self.log() else {
            return Ok(());
        };
        let durable = *shared.durable_ids().borrow();
        let wanted = referenced_ranges.iter().map(|range| match range.0 {
            Bound::Included(id) => id,
            Bound::Excluded(id) => id.saturating_add(1),
            Bound::Unbounded => 0,
        });
        let wanted = wanted.fold(durable, u64::min);
        let Some(below) = shared.old_enough(wanted, min_age) else {
            return Ok(());
        };
        if dry_run || RecordId(below) <= log.first_id() {
            return Ok(());
        }
        let trimmed = log.trim(RecordId(below)).await;
        trimmed.map_err(|error| wal_error(&error))?;
        shared.room.notify_one();
        Ok(())
    }
}

impl Shared {
    /// The greatest id of those below which nothing has been wanted for `min_age`. Records carry no
    /// time of day, so this is what was seen by this process.
    fn old_enough(&self, unwanted_below: u64, min_age: Duration) -> Option<u64> {
        let mut seen = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // A checkpoint of an older state can make what was unwanted wanted again.
        while seen
            .back()
            .is_some_and(|&(_, below)| below > unwanted_below)
        {
            seen.pop_back();
        }
        if seen.back().is_none_or(|&(_, below)| below < unwanted_below) {
            seen.push_back((now, unwanted_below));
        }
        let old = seen.partition_point(|&(since, _)| now.duration_since(since) >= min_age);
        let last = old.checked_sub(1)?;
        seen.drain(..last);
        seen.front().map(|&(_, below)| below)
    }
}
