//! Compares what is on the device with what it said.

use std::{mem, rc::Rc};

use tokio::task::JoinSet;
use zbd_core::{Error, SECTOR_LEN, Sector, Zone, ZonedDevice};

use super::{
    diagnose::Diagnosis,
    finding::{Evidence, Finding, Kind},
    ledger::{Record, ZoneLedger},
    record::{Bytes, SECTOR, Stamp},
    shared::Shared,
    write::all,
};

/// What is read at a time.
const CHUNK: u64 = (256 << 10) / SECTOR_LEN;
/// How many zones are read at the same time.
const ZONES_AT_ONCE: usize = 16;

/// Whether the device was closed and opened since the zones were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Writing,
    Reopening,
}

/// Verifies these of the zones that are used.
pub(super) async fn zones(shared: &Rc<Shared>, places: Vec<usize>, after: After) {
    let places = Rc::new(places);
    let mut set = JoinSet::new();
    for first in 0..ZONES_AT_ONCE.min(places.len()) {
        let (shared, places) = (Rc::clone(shared), Rc::clone(&places));
        set.spawn_local(async move {
            for place in places.iter().skip(first).step_by(ZONES_AT_ONCE) {
                if shared.is_ended() {
                    return;
                }
                let zone = shared.ledgers.borrow()[*place].id;
                if let Err(error) = verify(&shared, *place, after).await {
                    let what = format!("read zone {zone} back");
                    shared.failed(&what, Some(zone.0), &error);
                }
            }
        });
    }
    all(set).await;
}

async fn verify(shared: &Shared, place: usize, after: After) -> Result<(), Error> {
    let device = shared.device()?;
    let id = shared.ledgers.borrow()[place].id;
    let report = device.zone(id).report().await?;
    // Nobody else needs the records meanwhile, and there can be many.
    let (ledger, mut findings) = {
        let mut ledgers = shared.ledgers.borrow_mut();
        let findings = compare_report(&mut ledgers[place], &report, after);
        let records = mem::take(&mut ledgers[place].records);
        let mut ledger = ledgers[place].clone();
        ledger.records = records;
        ledger.records.sort_unstable_by_key(|record| record.sector);
        (ledger, findings)
    };
    shared.count(|counts| counts.zones_reported += 1);
    findings.extend(compare_places(&ledger));
    let outcome = compare_data(shared, &device, &ledger, &report, findings).await;
    shared.ledgers.borrow_mut()[place].records = ledger.records;
    outcome
}

/// The state and the write pointer that the device reports.
fn compare_report(ledger: &mut ZoneLedger, report: &Zone, after: After) -> Vec<Finding> {
    let mut findings = Vec::new();
    let id = ledger.id;
    let mut find = |kind, sector, text| {
        findings.push(Finding {
            kind,
            zone: Some(id.0),
            sector,
            text,
            evidence: None,
        });
    };
    if ledger.doubtful {
        return findings;
    }
    let expected = ledger.condition;
    let allowed = match after {
        After::Writing => expected.allows(report.state),
        After::Reopening => ledger.reopened(report.state),
    };
    if !allowed {
        let text = format!(
            "zone {id} is reported {}, and by what was done to it it is {}",
            report.state,
            expected.name()
        );
        find(Kind::ZoneState, None, text);
    }
    if report.start.0 != ledger.start || report.capacity.0 != ledger.capacity {
        let text = format!(
            "zone {id} began at sector {} with a capacity of {} sectors, and is reported to begin \
             at {} with {}",
            ledger.start, ledger.capacity, report.start, report.capacity
        );
        find(Kind::ZoneState, Some(report.start.0), text);
    }
    let expected = ledger.write_pointer();
    if let Some(found) = report.write_pointer
        && found != expected
    {
        let text = format!(
            "the write pointer of zone {id} is reported at sector {found}, and the records in it \
             end at {expected}"
        );
        find(Kind::WritePointer, Some(found.0), text);
    }
    findings
}

/// Whether the places of the records, which are sorted, join without gaps and overlaps.
fn compare_places(ledger: &ZoneLedger) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut end = ledger.start;
    if ledger.doubtful {
        return findings;
    }
    for record in &ledger.records {
        let (kind, what) = match record.sector.cmp(&end) {
            std::cmp::Ordering::Equal => {
                end = record.end();
                continue;
            }
            std::cmp::Ordering::Greater => (Kind::Gap, "was not acknowledged to hold anything"),
            std::cmp::Ordering::Less => (Kind::Overlap, "belongs to two records"),
        };
        let (from, to) = (record.sector.min(end), record.sector.max(end));
        findings.push(Finding {
            kind,
            zone: Some(ledger.id.0),
            sector: Some(from),
            text: format!(
                "zone {}: what lies from sector {from} to {to} {what}, by what the device reported",
                ledger.id
            ),
            evidence: None,
        });
        end = end.max(record.end());
    }
    findings
}

/// Reads everything that was acknowledged, and if anything at all is wrong, finds out what.
async fn compare_data(
    shared: &Shared,
    device: &ZonedDevice,
    ledger: &ZoneLedger,
    report: &Zone,
    findings: Vec<Finding>,
) -> Result<(), Error> {
    let reader = Reader::new(device);
    // Reading beyond the write pointer means nothing.
    let readable = match report.write_pointer {
        Some(pointer) => pointer.0.saturating_sub(ledger.start).min(ledger.capacity),
        None => ledger.capacity,
    };
    let mut wrong = None;
    if findings.is_empty() {
        wrong = first_mismatch(shared, &reader, ledger).await?;
        // What a request that failed has left behind may be in the way of others.
        if wrong.is_none() && !ledger.doubtful {
            return Ok(());
        }
    }
    if shared.is_ended() {
        return Ok(());
    }
    let seed = shared.settings.seed;
    let diagnosis = Diagnosis::of(&reader, ledger, seed, ledger.start + readable).await?;
    let mut found = shared.findings.borrow_mut();
    if diagnosis.is_empty() {
        // What the device reports is wrong, or the data were only for a moment.
        for finding in findings {
            found.add(finding);
        }
        if let Some((sector, evidence)) = wrong {
            found.add(unstable(ledger, sector, evidence));
        }
    } else {
        diagnosis.tell(&mut found);
    }
    Ok(())
}

fn unstable(ledger: &ZoneLedger, sector: u64, evidence: Evidence) -> Finding {
    Finding {
        kind: Kind::UnstableRead,
        zone: Some(ledger.id.0),
        sector: Some(sector),
        text: format!(
            "sector {sector} of zone {} was read wrong at first and right when it was read again",
            ledger.id
        ),
        evidence: Some(evidence),
    }
}

/// The first sector that does not hold what it should, if there is one; of a zone whose records
/// join.
async fn first_mismatch(
    shared: &Shared,
    reader: &Reader<'_>,
    ledger: &ZoneLedger,
) -> Result<Option<(u64, Evidence)>, Error> {
    let (mut records, mut bytes) = (0, 0);
    let mut wrong = None;
    let mut expected = ledger.records.iter().flat_map(sectors_of);
    let end = ledger.records.last().map_or(ledger.start, Record::end);
    let begin = ledger.records.first().map_or(end, |record| record.sector);
    let mut at = begin;
    'reading: while at < end && !shared.is_ended() {
        let count = reader.chunk.min(end - at);
        let buffer = reader.read(at, count).await?;
        let mut sector = [0; SECTOR];
        for i in 0..count {
            // A doubtful zone may have gaps, which say nothing.
            let Some((record, index)) = expected.next() else {
                break 'reading;
            };
            if record.sector + u64::from(index) != at + i {
                break 'reading;
            }
            buffer.sector(i, &mut sector);
            let stamp = ledger.stamp(shared.settings.seed, record, index);
            if Stamp::parse(&sector) != Some(stamp) {
                wrong = Some((at + i, Evidence::new(stamp, &sector)));
                break 'reading;
            }
            bytes += SECTOR_LEN;
            records += u64::from(index + 1 == record.sectors);
        }
        at += count;
    }
    shared.count(|counts| {
        counts.records_verified += records;
        counts.bytes_verified += bytes;
    });
    Ok(wrong)
}

fn sectors_of(record: &Record) -> impl Iterator<Item = (&Record, u32)> {
    (0..record.sectors).map(move |index| (record, index))
}

/// Reads in pieces that the device takes.
pub(super) struct Reader<'a> {
    device: &'a ZonedDevice,
    /// How many sectors are read at a time.
    pub(super) chunk: u64,
    block: u64,
}

/// Some sectors.
pub(super) struct Read {
    buffer: zbd_core::DmaBuffer,
    /// How many sectors come before the first that was asked for.
    before: u64,
}

impl<'a> Reader<'a> {
    fn new(device: &'a ZonedDevice) -> Self {
        let info = device.info();
        let block = u64::from(info.block_size).max(SECTOR_LEN) / SECTOR_LEN;
        let most = u64::from(info.max_transfer.min(info.max_segment)) / SECTOR_LEN;
        Self {
            device,
            chunk: (CHUNK.min(most) / block * block).max(block),
            block,
        }
    }

    /// Reads `count` sectors, no more than a chunk, from `sector` on.
    pub(super) async fn read(&self, sector: u64, count: u64) -> Result<Read, Error> {
        // A device may report sectors that are not the first of a block.
        let before = sector % self.block;
        let count = (before + count).next_multiple_of(self.block);
        let at = Sector(sector - before);
        let len = (count * SECTOR_LEN) as usize;
        Ok(Read {
            buffer: self.device.read(at, len).await?,
            before,
        })
    }
}

impl Read {
    /// Copies the `index`th sector of those that were asked for.
    pub(super) fn sector(&self, index: u64, bytes: &mut Bytes) {
        self.buffer
            .read_at((self.before + index) as usize * SECTOR, bytes);
    }
}

#[cfg(test)]
mod tests;
