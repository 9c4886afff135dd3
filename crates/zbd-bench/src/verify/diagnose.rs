//! Finds out what became of the records of a zone in which something is wrong.
//!
//! All that can be read of the zone is read, and each sector says itself of which record it is. So
//! it is known where each record lies, wholly or in part, whatever the device said. What is in the
//! place of those that are not where they should be is then looked at sector by sector.

use std::collections::HashMap;

use zbd_core::Error;

use super::{
    check::Reader,
    finding::{Content, Evidence, Finding, Findings, Kind},
    ledger::{Record, ZoneLedger},
    record::{Bytes, SECTOR, Stamp},
};

/// How many records are looked at closely; the others are counted.
const LOOKED_AT: usize = 8;

/// Where a record lies: what would be its first sector, by how many of its sectors.
type Places = Vec<(u64, u32)>;

/// What is wrong with the records of a zone.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    findings: Vec<Finding>,
    /// How many more records are wrong.
    unseen: u64,
}

impl Diagnosis {
    /// Reads the zone up to `end`.
    pub(super) async fn of(
        reader: &Reader<'_>,
        ledger: &ZoneLedger,
        seed: u64,
        end: u64,
    ) -> Result<Self, Error> {
        let zone = Patient {
            reader,
            ledger,
            seed,
            end,
            places: places(reader, ledger, seed, end).await?,
        };
        let mut diagnosis = Self::default();
        for record in &ledger.records {
            if zone.is_whole(record) {
                continue;
            }
            if diagnosis.findings.len() >= LOOKED_AT {
                diagnosis.unseen += 1;
                continue;
            }
            diagnosis.findings.push(zone.examine(record).await?);
        }
        Ok(diagnosis)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn tell(self, findings: &mut Findings) {
        for finding in self.findings {
            findings.add(finding);
        }
        findings.add_unseen(self.unseen);
    }
}

/// Where each record of the zone lies.
async fn places(
    reader: &Reader<'_>,
    ledger: &ZoneLedger,
    seed: u64,
    end: u64,
) -> Result<HashMap<u32, Places>, Error> {
    let mut places: HashMap<u32, Places> = ledger
        .records
        .iter()
        .map(|record| (record.sequence, Places::new()))
        .collect();
    let mut at = ledger.start;
    while at < end {
        let count = reader.chunk.min(end - at);
        let read = reader.read(at, count).await?;
        let mut bytes = [0; SECTOR];
        for i in 0..count {
            read.sector(i, &mut bytes);
            let Some(stamp) = Stamp::parse(&bytes) else {
                continue;
            };
            // Where the record would begin, if this sector is where it belongs.
            let base = (at + i).checked_sub(stamp.index.into());
            if let Some(base) = base
                && stamp.seed == seed
                && stamp.zone == ledger.id.0
                && let Some(places) = places.get_mut(&stamp.sequence)
            {
                match places.iter_mut().find(|place| place.0 == base) {
                    Some(place) => place.1 += 1,
                    None => places.push((base, 1)),
                }
            }
        }
        at += count;
    }
    Ok(places)
}

/// A zone in which something is wrong.
struct Patient<'a> {
    reader: &'a Reader<'a>,
    ledger: &'a ZoneLedger,
    seed: u64,
    /// Where the part ends that can be read.
    end: u64,
    places: HashMap<u32, Places>,
}

impl Patient<'_> {
    fn places(&self, record: &Record) -> &[(u64, u32)] {
        self.places.get(&record.sequence).map_or(&[], Vec::as_slice)
    }

    /// Whether the record lies where it was reported, and nowhere else.
    fn is_whole(&self, record: &Record) -> bool {
        self.places(record) == [(record.sector, record.sectors)]
    }

    /// Says what became of a record that is not whole.
    async fn examine(&self, record: &Record) -> Result<Finding, Error> {
        let here = self.here(record);
        let elsewhere = self
            .places(record)
            .iter()
            .filter(|place| place.0 != record.sector)
            .max_by_key(|place| place.1)
            .copied();
        let name = self.name(record);
        match elsewhere {
            Some((other, _)) if here == record.sectors => Ok(self.finding(
                Kind::DuplicatedAppend,
                other,
                format!(
                    "{name} lies at sector {}, where it was reported, and at sector {other} once \
                     more: it was carried out twice",
                    record.sector
                ),
                None,
            )),
            // Half of a record that is elsewhere is elsewhere; the rest of it may have been lost.
            Some((other, sectors)) if here == 0 && sectors > record.sectors / 2 => {
                let evidence = self.evidence(record, 0).await?;
                let text = format!(
                    "{name} was reported at sector {} and lies at sector {other}",
                    record.sector
                );
                Ok(self.finding(Kind::MisplacedRecord, record.sector, text, evidence))
            }
            _ => self.examine_sectors(record, here).await,
        }
    }

    /// Looks at the first sector of a record that is not what it should be.
    async fn examine_sectors(&self, record: &Record, here: u32) -> Result<Finding, Error> {
        for index in 0..record.sectors {
            let sector = record.sector + u64::from(index);
            let Some(bytes) = self.read(sector).await? else {
                let name = self.name(record);
                let text = format!(
                    "{name} was reported at sector {}, and the write pointer is at {}: it was lost",
                    record.sector, self.end
                );
                return Ok(self.finding(Kind::LostAppend, record.sector, text, None));
            };
            let stamp = self.ledger.stamp(self.seed, record, index);
            let evidence = Evidence::new(stamp, &bytes);
            if evidence.difference.is_some() {
                let (kind, text) = self.classify(record, here, index, &bytes);
                return Ok(self.finding(kind, sector, text, Some(evidence)));
            }
        }
        // Something was read wrong the first time.
        let text = format!("{} was read wrong at first", self.name(record));
        Ok(self.finding(Kind::UnstableRead, record.sector, text, None))
    }

    /// What it means that sector `index` of a record, of which so many are in place, is this.
    fn classify(&self, record: &Record, here: u32, index: u32, bytes: &Bytes) -> (Kind, String) {
        let name = self.name(record);
        let sector = record.sector + u64::from(index);
        let place = format!("sector {sector}, sector {} of {name},", index + 1);
        let content = Content::of(bytes);
        let holds = content.describe(self.seed);
        match content {
            Content::Record(found) if self.is_ours(&found, record) => {
                let text = format!(
                    "{place} holds sector {} of the same record: sectors have changed places",
                    found.index + 1
                );
                (Kind::SwappedSectors, text)
            }
            Content::Record(found) if self.is_known(&found) && here == 0 => {
                let text = format!(
                    "{name} was acknowledged at sector {} and is nowhere in the zone; its place \
                     holds {holds}",
                    record.sector
                );
                (Kind::LostAppend, text)
            }
            Content::Record(found) if self.is_known(&found) => {
                let text = format!("{place} holds {holds}");
                (Kind::OverwrittenSectors, text)
            }
            Content::Record(found) if found.seed == self.seed && found.zone != self.ledger.id.0 => {
                let text = format!("{place} holds what was written to another zone: {holds}");
                (Kind::MisplacedRecord, text)
            }
            Content::Record(_) => {
                let text = format!(
                    "{place} holds old data, from before the zone was reset: {holds}; the new data \
                     were never stored, or were lost"
                );
                (Kind::StaleData, text)
            }
            Content::Zeroes if here == 0 => {
                let text = format!(
                    "{name} was acknowledged at sector {} and is nowhere in the zone; its place \
                     reads as zeroes",
                    record.sector
                );
                (Kind::LostAppend, text)
            }
            Content::Zeroes => (Kind::LostSectors, format!("{place} reads as zeroes")),
            Content::Unknown => self.compare(record, index, &place, bytes),
        }
    }

    /// How a sector that cannot be read differs from what it should be.
    fn compare(&self, record: &Record, index: u32, place: &str, bytes: &Bytes) -> (Kind, String) {
        let expected = self.ledger.stamp(self.seed, record, index).bytes();
        let differing = || expected.iter().zip(bytes).enumerate();
        let wrong: u32 = differing().map(|(_, (a, b))| (a ^ b).count_ones()).sum();
        let first = differing().find(|(_, (a, b))| a != b);
        if let Some((byte, (expected, found))) = first
            && wrong == 1
        {
            let bit = (expected ^ found).trailing_zeros();
            let text = format!("{place} has one wrong bit: bit {bit} of byte {byte}");
            return (Kind::FlippedBit, text);
        }
        let byte = first.map_or(0, |(byte, _)| byte);
        let text = format!("{place} has {wrong} wrong bits, the first in byte {byte}");
        (Kind::DamagedData, text)
    }

    fn is_ours(&self, found: &Stamp, record: &Record) -> bool {
        self.ledger.stamp(self.seed, record, found.index) == *found
    }

    /// Whether it is of a record that is in the zone now.
    fn is_known(&self, found: &Stamp) -> bool {
        found.seed == self.seed
            && found.zone == self.ledger.id.0
            && self.places.contains_key(&found.sequence)
    }

    fn here(&self, record: &Record) -> u32 {
        let places = self.places(record).iter();
        let here = places.filter(|place| place.0 == record.sector);
        here.map(|place| place.1).sum()
    }

    async fn evidence(&self, record: &Record, index: u32) -> Result<Option<Evidence>, Error> {
        let bytes = self.read(record.sector + u64::from(index)).await?;
        let stamp = self.ledger.stamp(self.seed, record, index);
        Ok(bytes.map(|bytes| Evidence::new(stamp, &bytes)))
    }

    /// One sector; none beyond the part that can be read.
    async fn read(&self, sector: u64) -> Result<Option<Bytes>, Error> {
        if sector < self.ledger.start || sector >= self.end {
            return Ok(None);
        }
        let mut bytes = [0; SECTOR];
        self.reader.read(sector, 1).await?.sector(0, &mut bytes);
        Ok(Some(bytes))
    }

    fn name(&self, record: &Record) -> String {
        format!(
            "record {} of round {} (task {}, {} sectors)",
            record.sequence, record.round, record.task, record.sectors
        )
    }

    fn finding(
        &self,
        kind: Kind,
        sector: u64,
        text: String,
        evidence: Option<Evidence>,
    ) -> Finding {
        Finding {
            kind,
            zone: Some(self.ledger.id.0),
            sector: Some(sector),
            text: format!("zone {}: {text}", self.ledger.id),
            evidence,
        }
    }
}
