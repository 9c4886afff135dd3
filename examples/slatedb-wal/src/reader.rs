//! Reading the log: for replay, and for those who follow a database.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use slatedb::wal::{WalError, WalFileRange, WalIterator, WalReader, WalRows};
use tokio::sync::watch;

use crate::error::{data_error, internal_error};
use crate::part::Part;
use crate::rows;
use crate::wal::{Shared, ZoneWal};

/// Files of the log in their order.
pub(crate) struct ZoneWalIterator {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    next: u64,
    /// The id after the last; none for as long as the log goes on.
    end: Option<u64>,
}

impl ZoneWalIterator {
    pub(crate) fn new(shared: Arc<Shared>, start: u64, end: Option<u64>) -> Self {
        Self {
            durable: shared.durable_ids(),
            shared,
            next: start,
            end,
        }
    }

    /// The next record, if the range has one more.
    async fn part(&mut self) -> Result<Option<Part>, WalError> {
        let id = self.next;
        if self.end.is_some_and(|end| id >= end) {
            return Ok(None);
        }
        if *self.durable.borrow() < id {
            if self.end.is_some() {
                return Ok(None);
            }
            let waited = self.durable.wait_for(|&durable| durable >= id).await;
            waited.map_err(|_| WalError::Closed)?;
        }
        let payload = self.shared.read(id).await?;
        self.next += 1;
        Part::decode(id, payload.into()).map(Some)
    }
}

#[async_trait]
impl WalIterator for ZoneWalIterator {
    async fn next(&mut self) -> Result<Option<WalRows>, WalError> {
        let mut file: Option<Vec<u8>> = None;
        while let Some(part) = self.part().await? {
            let id = self.next - 1;
            // A file that another follows before it ended is what a crash left of one.
            let bytes = match (part.begins, file.take()) {
                (true, _) => part.rows,
                (false, Some(mut before)) => {
                    before.extend_from_slice(&part.rows);
                    Bytes::from(before)
                }
                (false, None) => {
                    return Err(data_error(format!(
                        "record {id} goes on with a file of which the beginning is missing"
                    )));
                }
            };
            if part.ends {
                return Ok(Some(WalRows {
                    rows: rows::decode(bytes)?,
                    last_consumed_wal_file_id: id,
                }));
            }
            file = Some(bytes.into());
        }
        Ok(None)
    }
}

/// Works in the process of the database that writes, because that has the device to itself.
#[async_trait]
impl WalReader for ZoneWal {
    async fn iterator(&self, range: WalFileRange) -> Result<Box<dyn WalIterator>, WalError> {
        let start = match range.0 {
            Bound::Included(id) => id,
            Bound::Excluded(id) => id.saturating_add(1),
            Bound::Unbounded => return Err(internal_error("a range of log files has no start")),
        };
        let end = match range.1 {
            Bound::Included(id) => Some(id.saturating_add(1)),
            Bound::Excluded(id) => Some(id),
            Bound::Unbounded => None,
        };
        let shared = Arc::clone(self.shared());
        Ok(Box::new(ZoneWalIterator::new(shared, start, end)))
    }

    async fn last_wal_file_id(&self, replay_after_wal_id: u64) -> Result<u64, WalError> {
        let durable = *self.shared().durable_ids().borrow();
        Ok(durable.max(replay_after_wal_id))
    }
}
