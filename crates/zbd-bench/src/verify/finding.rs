//! What is wrong with a device.

pub(crate) use super::record::Stamp;
use super::record::{Bytes, SECTOR};

/// How many bytes of a sector are shown.
const SHOWN: usize = 32;

/// The kinds of what can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One bit of a sector is wrong.
    FlippedBit,
    /// More of a sector is wrong.
    DamagedData,
    /// Sectors of one record have changed places.
    SwappedSectors,
    /// A record lies elsewhere than the device said.
    MisplacedRecord,
    /// A record that was acknowledged is nowhere.
    LostAppend,
    /// A record is there twice.
    DuplicatedAppend,
    /// In the place of a record is what was there before the zone was reset.
    StaleData,
    /// A part of a record reads as zeroes.
    LostSectors,
    /// A part of a record holds another record.
    OverwrittenSectors,
    /// Between two records, or before the first, is something that was never acknowledged.
    Gap,
    /// Two records were reported in the same place.
    Overlap,
    /// The write pointer is not where the last record ends.
    WritePointer,
    /// The zone is in a state that it cannot be in.
    ZoneState,
    /// The same sectors were read wrong first and right then.
    UnstableRead,
    /// The device refused or failed what it has to do.
    RequestFailed,
}

impl Kind {
    /// What is wrong with records comes first: it is mostly the cause of what is wrong with zones, and
    /// of requests that fail.
    const fn rank(self) -> u8 {
        match self {
            Self::RequestFailed => 2,
            Self::Gap | Self::Overlap | Self::WritePointer | Self::ZoneState => 1,
            _ => 0,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FlippedBit => "flipped-bit",
            Self::DamagedData => "damaged-data",
            Self::SwappedSectors => "swapped-sectors",
            Self::MisplacedRecord => "misplaced-record",
            Self::LostAppend => "lost-append",
            Self::DuplicatedAppend => "duplicated-append",
            Self::StaleData => "stale-data",
            Self::LostSectors => "lost-sectors",
            Self::OverwrittenSectors => "overwritten-sectors",
            Self::Gap => "gap",
            Self::Overlap => "overlap",
            Self::WritePointer => "write-pointer",
            Self::ZoneState => "zone-state",
            Self::UnstableRead => "unstable-read",
            Self::RequestFailed => "request-failed",
        }
    }
}

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A whole sector of some record.
    Record(Stamp),
    Zeroes,
    /// No sector that this tool writes, or a damaged one.
    Unknown,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match Stamp::parse(bytes) {
            Some(stamp) => Self::Record(stamp),
            None if bytes.iter().all(|byte| *byte == 0) => Self::Zeroes,
            None => Self::Unknown,
        }
    }

    /// In words, as part of a run with this seed.
    pub(crate) fn describe(&self, seed: u64) -> String {
        match self {
            Self::Record(stamp) if stamp.seed == seed => describe(stamp),
            Self::Record(stamp) => {
                format!("{}, of a run with seed {}", describe(stamp), stamp.seed)
            }
            Self::Zeroes => "zeroes".to_owned(),
            Self::Unknown => "nothing that was ever written here, or a damaged sector".to_owned(),
        }
    }
}

/// A sector of a record in words.
pub(crate) fn describe(stamp: &Stamp) -> String {
    format!(
        "record {} of round {}, zone {}, task {}, sector {} of {}",
        stamp.sequence,
        stamp.round,
        stamp.zone,
        stamp.task,
        stamp.index + 1,
        stamp.sectors
    )
}

/// Where two sectors differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where in the sector what is shown begins.
    pub(crate) offset: usize,
    pub(crate) expected: [u8; SHOWN],
    pub(crate) found: [u8; SHOWN],
}

impl Difference {
    pub(super) fn between(expected: &Bytes, found: &Bytes) -> Option<Self> {
        let first = expected.iter().zip(found).position(|(a, b)| a != b)?;
        let offset = (first & !15).min(SECTOR - SHOWN);
        let shown = |bytes: &Bytes| {
            let mut shown = [0; SHOWN];
            shown.copy_from_slice(&bytes[offset..offset + SHOWN]);
            shown
        };
        Some(Self {
            offset,
            expected: shown(expected),
            found: shown(found),
        })
    }
}

/// A sector that should hold one thing and holds another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) expected: Stamp,
    pub(crate) found: Content,
    pub(crate) difference: Option<Difference>,
}

impl Evidence {
    pub(super) fn new(expected: Stamp, found: &Bytes) -> Self {
        Self {
            expected,
            found: Content::of(found),
            difference: Difference::between(&expected.bytes(), found),
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) zone: Option<u32>,
    /// The first sector that it is about.
    pub(crate) sector: Option<u64>,
    /// All of it in one line.
    pub(crate) text: String,
    pub(crate) evidence: Option<Evidence>,
}

/// What was found: the first few, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    pub(super) total: u64,
}

/// How many findings are kept of each rank, and told in all.
const KEPT: usize = 8;

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.total += 1;
        let rank = finding.kind.rank();
        let alike = self.kept.iter().filter(|kept| kept.kind.rank() == rank);
        // When one request to a zone fails, so do those beside it.
        let is_new = rank != Kind::RequestFailed.rank()
            || alike.clone().all(|kept| kept.zone != finding.zone);
        if is_new && alike.count() < KEPT {
            self.kept.push(finding);
        }
    }

    /// Counts what is not kept.
    pub(super) fn add_unseen(&mut self, count: u64) {
        self.total += count;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The first of them, causes before consequences.
    pub(super) fn told(mut self) -> Vec<Finding> {
        self.kept.sort_by_key(|finding| finding.kind.rank());
        self.kept.truncate(KEPT);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_difference_has_it_and_lies_in_the_sector() {
        let expected = [0; SECTOR];
        for at in [0, 15, 16, 100, 480, 511] {
            let mut found = expected;
            found[at] = 1;
            let difference = Difference::between(&expected, &found).unwrap();
            assert_eq!(difference.found[at - difference.offset], 1, "{at}");
        }
        assert_eq!(Difference::between(&expected, &expected), None);
    }
}
