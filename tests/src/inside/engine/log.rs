//! A log on zones, which is found again.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use zbd_core::log::{LogOptions, RecordId};
use zbd_core::{ErrorKind, ZoneId, ZoneLog, ZonedDevice};

use super::refused;

const TASKS: u64 = 8;
const EACH: u64 = 20;

/// What is in a log.
#[derive(Debug)]
pub(super) struct Kept {
    zones: Range<ZoneId>,
    first: RecordId,
    records: BTreeMap<RecordId, Vec<u8>>,
}

/// Makes a log of `zones`, which are empty, appends, reads, trims, and opens it again.
pub(super) async fn exercise(device: &ZonedDevice, zones: Range<ZoneId>) -> Result<Kept> {
    let options = LogOptions::new(zones.clone());
    let log = ZoneLog::create(device, &options).await?;
    let mut kept = Kept {
        zones,
        first: RecordId(0),
        records: BTreeMap::new(),
    };
    kept.append(&log, 0).await?;
    kept.compare(&log).await?;
    let watermark = log.sync().await?;
    ensure!(watermark == RecordId(TASKS * EACH), "{watermark}");

    kept.first = RecordId(TASKS * EACH / 2);
    log.trim(kept.first).await?;
    refused(
        log.read(RecordId(0)).await,
        ErrorKind::InvalidRequest,
        &[],
        "read what was trimmed",
    )?;
    kept.records = kept.records.split_off(&kept.first);

    // The other writer is one no more.
    let anew = kept.check(device).await?;
    refused(
        log.append(b"late").await,
        ErrorKind::Fenced,
        &[],
        "append to a log that was opened anew",
    )?;
    drop(log);
    kept.append(&anew, 1).await?;
    anew.sync().await?;
    kept.compare(&anew).await?;
    drop(anew);
    Ok(kept)
}

fn payload(task: u64, number: u64, round: u64) -> Vec<u8> {
    let text = format!("{round}/{task}/{number} ");
    let len = (task * 7919 + number * 104_729 + round) % 20_000;
    text.bytes().cycle().take(len as usize).collect()
}

impl Kept {
    /// Appends from many tasks at once.
    async fn append(&mut self, log: &ZoneLog, round: u64) -> Result<()> {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let log = log.clone();
            tasks.spawn(async move {
                let mut appended = Vec::new();
                for number in 0..EACH {
                    let record = payload(task, number, round);
                    let id = match number % 8 {
                        7 => log.append_durable(&record).await?,
                        _ => log.append(&record).await?,
                    };
                    ensure!(
                        number % 8 < 7 || log.watermark() > id,
                        "{id} is not durable"
                    );
                    appended.push((id, record));
                }
                Ok(appended)
            });
        }
        let before = self.records.len();
        while let Some(task) = tasks.join_next().await {
            self.records.extend(task??);
        }
        ensure!(
            self.records.len() as u64 == before as u64 + TASKS * EACH,
            "two records got one id"
        );
        Ok(())
    }

    /// Opens the log and compares.
    pub(super) async fn check(&self, device: &ZonedDevice) -> Result<ZoneLog> {
        let options = LogOptions::new(self.zones.clone());
        let (log, recovery) = ZoneLog::open(device, &options).await?;
        ensure!(
            recovery.dropped == 0 && recovery.damaged == 0 && recovery.first_id == self.first,
            "{recovery:?}"
        );
        let found = recovery.records.iter().map(|record| record.id);
        ensure!(found.eq(self.records.keys().copied()), "{recovery:?}");
        self.compare(&log).await?;
        Ok(log)
    }

    async fn compare(&self, log: &ZoneLog) -> Result<()> {
        let next = self.records.keys().next_back().map_or(0, |id| id.0 + 1);
        ensure!(log.first_id() == self.first && log.next_id().0 == next);
        ensure!(log.records(..).len() == self.records.len());
        for (id, record) in &self.records {
            ensure!(log.read(*id).await? == *record, "record {id}");
        }
        Ok(())
    }
}
