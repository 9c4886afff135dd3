//! Which of the records that were found are the log. Nothing here touches the device.

use std::collections::BTreeMap;

use super::{
    options::{RecordId, RecordInfo},
    record::Kind,
    scan::Found,
};
use crate::{Error, ErrorKind, Result};

/// The log as it was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The greatest epoch that any record has, part of the log or not.
    pub(super) epoch: u64,
    /// The epoch of the last record; 0 if there is none.
    pub(super) previous: u64,
    /// The first id that has not been trimmed.
    pub(super) base: u64,
    /// What was durable as the log itself says.
    pub(super) durable: u64,
    /// The records from `base` on, without a gap.
    pub(super) records: Vec<RecordInfo>,
    /// How many intact records are not part of the log.
    pub(super) dropped: usize,
}

impl Recovered {
    /// The first id that the log does not have.
    pub(super) fn next(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    /// Whether `other` is the same log, of which more or less may be stored that is not part of it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.epoch, it.previous, it.base, it.durable);
        of(self) == of(other) && self.records == other.records
    }

    /// Fails if a record is missing that was durable.
    pub(super) fn check(&self) -> Result<()> {
        let next = self.next();
        if next >= self.durable {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "record {next} is missing or damaged, but the log says that all below {} were durable: the medium is damaged, or zones of the log were reset or written by others. To go on with the {} records before it and give up the others, open the log with OnLoss::Accept",
                self.durable,
                self.records.len()
            ),
        ))
    }
}

/// What an epoch says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Epoch {
    start: u64,
    previous: u64,
}

/// The ids for which an epoch counts.
struct Reign {
    start: u64,
    end: u64,
}

/// Makes a log of `found`.
pub(super) fn recover(found: &[Found]) -> Result<Recovered> {
    let reigns = reigns(found)?;
    let mut recovered = Recovered::default();
    let mut live: BTreeMap<u64, &Found> = BTreeMap::new();
    let mut intact = 0;
    for record in found {
        let header = &record.header;
        recovered.epoch = recovered.epoch.max(header.epoch);
        intact += usize::from(header.kind == Kind::Data && record.is_intact);
        let Some(reign) = reigns.get(&header.epoch) else {
            continue;
        };
        // Each epoch begins with what was known of those before, in every header. What a fenced
        // writer said later counts for nothing.
        if reign.end == u64::MAX {
            recovered.base = recovered.base.max(header.base);
            recovered.durable = recovered.durable.max(header.durable);
        }
        if header.kind == Kind::Data
            && record.is_intact
            && (reign.start..reign.end).contains(&header.id)
        {
            // Of one epoch and id there can be copies, which are the same.
            live.insert(header.id, record);
        }
    }
    intact -= live.range(..recovered.base).count();
    let mut next = recovered.base;
    for (&id, record) in live.range(recovered.base..) {
        if id != next {
            break;
        }
        let Some(after) = next.checked_add(1) else {
            break;
        };
        next = after;
        recovered.previous = record.header.epoch;
        recovered.records.push(RecordInfo {
            id: RecordId(id),
            epoch: record.header.epoch,
            zone: record.zone,
            sector: record.sector,
            len_bytes: record.header.len as usize,
        });
    }
    recovered.dropped = intact - recovered.records.len();
    Ok(recovered)
}

/// Which epoch counts for which ids.
///
/// The greatest epoch counts from its start on. Before it counts the one that it names, up to that
/// start, and so on. What is not named counts for nothing: it wrote nothing that was recovered.
fn reigns(found: &[Found]) -> Result<BTreeMap<u64, Reign>> {
    let mut epochs = BTreeMap::new();
    for Found { header, .. } in found {
        let epoch = Epoch {
            start: header.start,
            previous: header.previous,
        };
        if *epochs.entry(header.epoch).or_insert(epoch) != epoch {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "epoch {} of the log was begun twice: two processes wrote to its zones at once",
                    header.epoch
                ),
            ));
        }
    }
    let mut reigns = BTreeMap::new();
    let mut next = epochs.last_key_value().map(|(epoch, _)| *epoch);
    let mut end = u64::MAX;
    while let Some(number) = next
        && let Some(&Epoch { start, previous }) = epochs.get(&number)
    {
        let start = start.min(end);
        reigns.insert(number, Reign { start, end });
        end = start;
        next = (previous < number).then_some(previous);
    }
    Ok(reigns)
}
