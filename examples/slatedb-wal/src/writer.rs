//! The writer: takes SlateDB's write batches, and a task that makes them durable.
//!
//! A batch is written as soon as the device is done with what came before it. Those that have come
//! meanwhile share records and a flush, so that the log gives each of few clients the device's
//! latency, and many its bandwidth. There is no interval to tune.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use slatedb::RowEntry;
use slatedb::wal::{
    WalError, WalFlushResult, WalObserver, WalStatus, WalWriter as SlateDbWalWriter,
};
use tokio::task::JoinHandle;
use zbd_core::log::RecordId;
use zbd_core::{Error, ErrorKind, ZoneLog};

use crate::error::{unavailable, wal_error};
use crate::pending::{File, Pending};
use crate::progress::{Observer, Progress};
use crate::usage::Usage;
use crate::wal::Shared;

/// How many records are on their way at once, and about how many are written before a flush.
/// `join_all` polls up to 30 in their order, which is the order in which they get their ids.
const RECORDS: usize = 16;

/// Into how many parts the zones are divided: SlateDB is asked to flush its memtable when the log
/// has grown by one since the last time, so that a zone can be reset long before the last is full.
const PARTS: u64 = 4;

/// SlateDB's writer on a zone log.
#[derive(Debug)]
pub(crate) struct ZoneWalWriter {
    progress: Arc<Progress>,
    /// Ended and awaited by `close`.
    task: Option<JoinHandle<()>>,
    /// How many bytes of log are a part.
    part: u64,
}

impl ZoneWalWriter {
    /// A writer of epoch `epoch`, whose fence is record `fence`. `capacity` bytes fit into the log,
    /// and `written` are its records, by id, with their lengths.
    pub(crate) fn start(
        shared: Arc<Shared>,
        log: ZoneLog,
        epoch: u64,
        fence: u64,
        capacity: u64,
        written: impl Iterator<Item = (u64, usize)>,
    ) -> Self {
        let part = (capacity / PARTS).max(1);
        let mut usage = Usage::new(part / 16);
        let unit = shared.granularity();
        for (id, len) in written {
            usage.add(id, on_device(len, unit));
        }
        let pending = Pending::new(epoch, log.max_record_len(), fence + 1);
        let progress = Arc::new(Progress::new(pending, usage, fence));
        let committer = Committer {
            progress: Arc::clone(&progress),
            shared,
            log,
            unit,
        };
        let task = Some(tokio::spawn(committer.run()));
        Self {
            progress,
            task,
            part,
        }
    }
}

#[async_trait]
impl SlateDbWalWriter for ZoneWalWriter {
    async fn append(&mut self, write_batch: &[RowEntry]) -> Result<(), WalError> {
        let mut state = self.progress.state();
        state.check_open()?;
        state.pending.push(write_batch)?;
        drop(state);
        self.progress.work.notify_one();
        Ok(())
    }

    async fn flush(&mut self) -> Result<WalFlushResult, WalError> {
        let wal_id = {
            let mut state = self.progress.state();
            state.check_open()?;
            state.pending.seal()
        };
        self.progress.work.notify_one();
        let progress = Arc::clone(&self.progress);
        Ok(WalFlushResult {
            wal_id,
            completion: Box::pin(async move { progress.wait(wal_id).await }),
        })
    }

    fn should_flush_memtable(&self, replay_after_wal_id: u64) -> bool {
        let mut state = self.progress.state();
        state.usage.forget(replay_after_wal_id);
        state.usage.after(replay_after_wal_id) >= self.part
    }

    fn observer(&self) -> Box<dyn WalObserver> {
        Box::new(Observer(Arc::clone(&self.progress)))
    }

    fn status(&self) -> Result<WalStatus, WalStatus> {
        self.progress.status()
    }

    async fn close(&mut self) -> Result<(), WalError> {
        self.progress.end();
        if let Some(task) = self.task.take() {
            // It does not panic; if it did, what it did not do is what the status says.
            let _ = task.await;
        }
        self.progress.close(WalError::Closed);
        Ok(())
    }
}

impl Drop for ZoneWalWriter {
    fn drop(&mut self) {
        self.progress.end();
    }
}

/// What a record takes of its zone: the log's header is at most one unit.
fn on_device(len: usize, unit: u64) -> u64 {
    (len as u64).next_multiple_of(unit) + unit
}

/// The task that writes.
struct Committer {
    progress: Arc<Progress>,
    shared: Arc<Shared>,
    log: ZoneLog,
    unit: u64,
}

impl Committer {
    async fn run(self) {
        loop {
            let files = {
                let mut state = self.progress.state();
                if state.ending {
                    break;
                }
                state.take(RECORDS)
            };
            if files.is_empty() {
                self.progress.work.notified().await;
            } else if let Err(error) = self.write(files).await {
                self.progress.close(error);
                return;
            }
        }
        self.progress.close(WalError::Closed);
    }

    /// Writes files and makes them durable; waits for room where there is none.
    async fn write(&self, files: Vec<File>) -> Result<(), WalError> {
        let mut left = files.as_slice();
        // Of the first of `left`.
        let mut written = 0;
        while !left.is_empty() {
            let end = match self.append(left, written).await {
                Ok(()) => End::Reached,
                Err((more, error)) if error.kind() == ErrorKind::LogFull => End::Full(more, error),
                Err((_, error)) => return Err(wal_error(&error)),
            };
            // What was acknowledged is durable, and nothing else is.
            self.log.sync().await.map_err(|error| wal_error(&error))?;
            match end {
                End::Reached => {
                    self.durable(left);
                    break;
                }
                End::Full(more, error) => {
                    written += more;
                    let whole = left.iter().take_while(|file| {
                        let fits = file.records.len() <= written;
                        written -= if fits { file.records.len() } else { 0 };
                        fits
                    });
                    let (done, rest) = left.split_at(whole.count());
                    self.durable(done);
                    left = rest;
                    self.wait_for_room(&error).await?;
                }
            }
        }
        Ok(())
    }

    /// Appends the records of `files` from the one after the first `skip` on.
    ///
    /// Fails with how many of them were appended before the first that was not, and why not. Those
    /// after it cannot have been: each takes the id that it says or none.
    async fn append(&self, files: &[File], skip: usize) -> Result<(), (usize, Error)> {
        let first = files.first().map_or(0, |file| file.first_id);
        let records = files.iter().flat_map(|file| &file.records).enumerate();
        let left: Vec<_> = records
            .map(|(number, record)| (RecordId(first + number as u64), record))
            .skip(skip)
            .collect();
        let mut left = left.as_slice();
        let mut appended = 0;
        while !left.is_empty() {
            let appends = left
                .iter()
                .take(RECORDS)
                .map(|(id, record)| self.log.append_as(*id, record));
            let results = join_all(appends).await;
            let done = results.iter().take_while(|result| result.is_ok()).count();
            let failed = results.into_iter().find_map(Result::err);
            appended += done;
            left = &left[done..];
            match failed {
                None => {}
                // The one before it had to wait for a zone, so that it was not its turn.
                Some(error) if done > 0 && error.kind() == ErrorKind::InvalidRequest => {}
                Some(error) => return Err((appended, error)),
            }
        }
        Ok(())
    }

    /// Tells readers first: who knows that a put is durable can read it.
    fn durable(&self, files: &[File]) {
        let Some(last) = files.last() else { return };
        self.shared.durable(last.id());
        let unit = self.unit;
        let bytes = |file: &File| {
            let records = file.records.iter();
            records.map(|record| on_device(record.len(), unit)).sum()
        };
        self.progress.written(files, bytes);
    }

    /// Waits until zones have been reset. SlateDB has been asked to flush its memtable by now, and
    /// its garbage collector gives the zones up after that.
    async fn wait_for_room(&self, full: &Error) -> Result<(), WalError> {
        let patience = self.shared.patience();
        let deadline = tokio::time::sleep(patience);
        tokio::select! {
            () = self.shared.room() => Ok(()),
            () = self.ending() => Err(WalError::Closed),
            () = deadline => Err(unavailable(format!(
                "{full}; no zone was given up within {patience:?}: the database needs a garbage \
                 collector with this log (`with_wal_gc`), checkpoints that last no longer than the \
                 zones do, or more zones"
            ))),
        }
    }

    /// Waits until the writer has been closed.
    async fn ending(&self) {
        while !self.progress.state().ending {
            // Work that is announced meanwhile is looked for anyway.
            let _ = tokio::time::timeout(Duration::from_millis(50), self.progress.work.notified())
                .await;
        }
    }
}

/// How far an attempt to write came.
enum End {
    Reached,
    /// After so many records.
    Full(usize, Error),
}
