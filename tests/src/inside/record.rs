//! Records that say themselves what they are, so that whatever is found on a disk can be told from
//! what should be there, byte by byte.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

/// All records are multiples of this.
pub const UNIT: usize = 4096;
const SECTOR: u64 = 512;
const MAGIC: u64 = u64::from_le_bytes(*b"zbd-rec1");
const HEADER_WORDS: usize = 5;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Tells the records of one job from those of another.
    pub seed: u64,
    /// Its number in its job.
    pub sequence: u64,
    /// The zone that it was meant for.
    pub zone: u32,
    /// Its length in units.
    pub units: u32,
}

/// A record and the sector that it begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The sector.
    pub sector: u64,
    /// The record.
    pub record: Record,
}

impl Record {
    /// Its length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.units as usize * UNIT
    }

    /// Its bytes: a header, and after it what follows from the header.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len_bytes());
        for word in self.words() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        let header: [u64; HEADER_WORDS] = [
            MAGIC,
            self.seed,
            self.sequence,
            self.zone.into(),
            self.units.into(),
        ];
        let mut state = header.iter().fold(0, |state, word| mix(state ^ word));
        let body = std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        let count = self.len_bytes() / size_of::<u64>();
        header.into_iter().chain(body).take(count)
    }

    /// The record that `bytes` begin with.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let words = bytes.as_chunks().0;
        let header: Vec<u64> = words
            .iter()
            .take(HEADER_WORDS)
            .map(|word| u64::from_le_bytes(*word))
            .collect();
        let [MAGIC, seed, sequence, zone, units] = header[..] else {
            bail!("not a record: {header:x?}");
        };
        let record = Self {
            seed,
            sequence,
            zone: u32::try_from(zone).context("zone")?,
            units: u32::try_from(units).context("length")?,
        };
        ensure!(
            units > 0 && record.len_bytes() <= bytes.len(),
            "{record:?} is longer than the {} bytes that are left",
            bytes.len()
        );
        let wrong = record
            .words()
            .zip(words)
            .position(|(expected, found)| expected.to_le_bytes() != *found);
        match wrong {
            None => Ok(record),
            Some(word) => bail!("{record:?} is damaged at byte {}", word * size_of::<u64>()),
        }
    }
}

/// The records that `data`, read from `sector` on, consists of.
///
/// # Errors
/// If there is anything else in it, or a damaged record.
pub fn parse_all(sector: u64, data: &[u8]) -> Result<Vec<Placed>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let sector = sector + at as u64 / SECTOR;
        let record = Record::parse(&data[at..]).with_context(|| format!("at sector {sector}"))?;
        found.push(Placed { sector, record });
        at += record.len_bytes();
    }
    Ok(found)
}

/// Passes if `found` is exactly what was `acknowledged`: no record missing, none elsewhere, none
/// twice, none that nobody wrote. Both in any order.
///
/// # Errors
/// Names some that differ.
pub fn ensure_same(acknowledged: &[Placed], found: &[Placed]) -> Result<()> {
    ensure_present(acknowledged, found)?;
    let known: BTreeSet<_> = acknowledged.iter().collect();
    let unknown: Vec<_> = found
        .iter()
        .filter(|placed| !known.contains(placed))
        .collect();
    ensure!(
        unknown.is_empty(),
        "{} records that were not acknowledged there, such as {:?}",
        unknown.len(),
        unknown[0]
    );
    Ok(())
}

/// Passes if all that was `acknowledged` was `found`, and nothing was found twice.
///
/// # Errors
/// Names some that are missing.
pub fn ensure_present(acknowledged: &[Placed], found: &[Placed]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for Placed { record, sector } in found {
        ensure!(
            seen.insert((record.seed, record.sequence)),
            "{record:?} is there twice, the second time at sector {sector}"
        );
    }
    let there: BTreeSet<_> = found.iter().collect();
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|placed| !there.contains(placed))
        .collect();
    ensure!(
        missing.is_empty(),
        "{} acknowledged records are not where they should be, such as {:?}",
        missing.len(),
        missing[0]
    );
    Ok(())
}

/// The finisher of splitmix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<Placed>, Vec<u8>) {
        let mut data = Vec::new();
        let mut placed = Vec::new();
        for sequence in 0..3 {
            let record = Record {
                seed: 5,
                sequence,
                zone: 2,
                units: 1 + sequence as u32,
            };
            let sector = 4096 + data.len() as u64 / SECTOR;
            placed.push(Placed { sector, record });
            data.extend(record.bytes());
        }
        (placed, data)
    }

    #[test]
    fn records_are_read_back_as_they_were_placed() {
        let (placed, data) = three();
        let found = parse_all(4096, &data).unwrap();
        assert_eq!(found, placed);
        assert!(ensure_same(&placed, &found).is_ok());
    }

    #[test]
    fn one_wrong_byte_is_found_wherever_it_is() {
        let (_, data) = three();
        for at in (0..data.len()).step_by(509) {
            let mut data = data.clone();
            data[at] ^= 0x10;
            assert!(parse_all(4096, &data).is_err(), "byte {at}");
        }
        assert!(parse_all(4096, &data[..data.len() - 8]).is_err());
    }

    #[test]
    fn missing_moved_doubled_and_unknown_records_are_told() {
        let (placed, data) = three();
        let found = parse_all(4096, &data).unwrap();
        assert!(ensure_same(&placed, &found[1..]).is_err());
        assert!(ensure_same(&placed[1..], &found).is_err());
        assert!(ensure_present(&placed[1..], &found).is_ok());
        assert!(ensure_present(&placed, &parse_all(0, &data).unwrap()).is_err());
        let doubled = [found.clone(), found].concat();
        assert!(ensure_present(&placed, &doubled).is_err());
    }
}
