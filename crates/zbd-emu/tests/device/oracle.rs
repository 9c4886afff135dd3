//! What a device in a file may hold after its power was cut: a model that shares nothing with the
//! device but the rules.

use std::collections::BTreeSet;

use zbd_emu::ZoneState;

use crate::driver::{APPEND, FINISH, FLUSH, IN, OPEN, OUT, RESET, RESET_ALL, Rig, WRITE_ZEROES};

pub(crate) const BLOCK: usize = 4096;
const BLOCK_SECTORS: u64 = 8;
const CONVENTIONAL: usize = 2;
const ZONES: usize = 6;
/// In blocks.
const ZONE_BLOCKS: u64 = 8;
const CAPACITY: usize = 6;
pub(crate) const OPTIONS: &str =
    "zones=6,zone-size=32k,zone-cap=24k,conventional=2,max-open=0,max-active=0,queues=1";

/// A sequence of numbers that looks random.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

/// Something that a driver does. Zones and blocks of them are by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// So many blocks to the end of a zone, each with a tag of its own from this one on.
    Append(usize, usize, u64),
    /// The same by writes to the write pointer.
    Write(usize, usize, u64),
    /// Zeroes at the write pointer.
    WriteZeroes(usize, usize),
    /// A block of a conventional zone; tag 0 is zeroes.
    Overwrite(usize, usize, u64),
    Open(usize),
    Finish(usize),
    Reset(usize),
    ResetAll,
    Flush,
}

impl Deed {
    pub(crate) fn random(chance: &mut Chance, tag: &mut u64) -> Self {
        let zone = CONVENTIONAL + chance.below(ZONES - CONVENTIONAL);
        let count = 1 + chance.below(3);
        *tag += 4;
        match chance.below(24) {
            0..=6 => Self::Append(zone, count, *tag),
            7..=9 => Self::Write(zone, count, *tag),
            10 => Self::WriteZeroes(zone, count),
            11..=14 => Self::Overwrite(
                chance.below(CONVENTIONAL),
                chance.below(ZONE_BLOCKS as usize),
                *tag,
            ),
            15 => Self::Overwrite(chance.below(CONVENTIONAL), chance.below(8), 0),
            16 => Self::Open(zone),
            17 => Self::Finish(zone),
            18..=20 => Self::Reset(zone),
            21 if count == 1 => Self::ResetAll,
            _ => Self::Flush,
        }
    }
}

/// A block with a tag all over it.
pub(crate) fn block(tag: u64) -> Vec<u8> {
    tag.to_le_bytes().repeat(BLOCK / 8)
}

fn zone_start(zone: usize) -> u64 {
    zone as u64 * ZONE_BLOCKS * BLOCK_SECTORS
}

/// What was written to a zone from one reset to the next, by tags.
#[derive(Clone, Debug, Default)]
struct Life {
    tags: Vec<u64>,
    /// How much of it cannot be lost.
    flushed: usize,
    finished: bool,
    /// Whether that cannot be lost.
    finish_flushed: bool,
}

/// All that may be true.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    /// Of each sequential zone the lives since the last flush, the present one last.
    lives: Vec<Vec<Life>>,
    /// Of each conventional block what it may hold, what it holds now last.
    blocks: Vec<Vec<u64>>,
}

impl Oracle {
    /// Of a new device.
    pub(crate) fn new() -> Self {
        Self {
            lives: vec![vec![Life::default()]; ZONES - CONVENTIONAL],
            blocks: vec![vec![0]; CONVENTIONAL * ZONE_BLOCKS as usize],
        }
    }

    fn life(&mut self, zone: usize) -> &mut Life {
        self.lives[zone - CONVENTIONAL].last_mut().unwrap()
    }

    /// Notes what a deed does. False where a device must refuse it.
    pub(crate) fn note(&mut self, deed: Deed) -> bool {
        match deed {
            Deed::Append(zone, count, tag) | Deed::Write(zone, count, tag) => {
                self.extend(zone, (tag..).take(count))
            }
            Deed::WriteZeroes(zone, count) => self.extend(zone, std::iter::repeat_n(0, count)),
            Deed::Overwrite(zone, at, tag) => {
                self.blocks[zone * ZONE_BLOCKS as usize + at].push(tag);
                true
            }
            Deed::Open(zone) => !self.life(zone).is_full(),
            Deed::Finish(zone) => {
                self.life(zone).finished = true;
                true
            }
            Deed::Reset(zone) => {
                self.lives[zone - CONVENTIONAL].push(Life::default());
                true
            }
            Deed::ResetAll => {
                for lives in &mut self.lives {
                    lives.push(Life::default());
                }
                true
            }
            Deed::Flush => {
                self.flush();
                true
            }
        }
    }

    fn extend(&mut self, zone: usize, tags: impl Iterator<Item = u64>) -> bool {
        let life = self.life(zone);
        let before = life.tags.len();
        life.tags.extend(tags);
        let fits = !life.finished && life.tags.len() <= CAPACITY;
        if !fits {
            life.tags.truncate(before);
        }
        fits
    }

    /// All that is now stays.
    pub(crate) fn flush(&mut self) {
        for lives in &mut self.lives {
            lives.drain(..lives.len() - 1);
            lives[0].flushed = lives[0].tags.len();
            lives[0].finish_flushed = lives[0].finished;
        }
        for tags in &mut self.blocks {
            tags.drain(..tags.len() - 1);
        }
    }

    /// Checks the device against what may be, and takes what is as flushed from then on.
    pub(crate) fn check(&mut self, rig: &mut Rig, context: &dyn std::fmt::Debug) {
        for at in 0..self.blocks.len() {
            let found = tag_of(&read(rig, at as u64, 1));
            let tags = &mut self.blocks[at];
            let may = found.is_some_and(|found| tags.contains(&found));
            assert!(
                may,
                "{context:?}: block {at} holds {found:?}, not of {tags:?}"
            );
            tags.clear();
            tags.extend(found);
        }
        for zone in CONVENTIONAL..ZONES {
            let state = rig.control.zone_state(zone).unwrap();
            let pointer = write_pointer(rig, zone);
            let bytes = read(rig, zone as u64 * ZONE_BLOCKS, ZONE_BLOCKS);
            let lives = &mut self.lives[zone - CONVENTIONAL];
            let held = lives
                .iter()
                .find_map(|life| life.agrees(state, pointer, &bytes));
            let Some(held) = held else {
                let tags: Vec<_> = bytes.chunks(BLOCK).map(tag_of).collect();
                panic!("{context:?}: zone {zone} is {state:?}, {pointer:?} {tags:?}: {lives:#?}");
            };
            *lives = vec![held];
        }
    }

    /// Checks that the device is as its driver knows it.
    pub(crate) fn check_present(&self, rig: &mut Rig, context: &dyn std::fmt::Debug) {
        for (at, tags) in self.blocks.iter().enumerate() {
            assert_eq!(
                tag_of(&read(rig, at as u64, 1)).as_ref(),
                tags.last(),
                "{context:?}"
            );
        }
        for zone in CONVENTIONAL..ZONES {
            let life = self.lives[zone - CONVENTIONAL].last().unwrap();
            let bytes = read(rig, zone as u64 * ZONE_BLOCKS, ZONE_BLOCKS);
            assert!(
                life.reads_as(life.tags.len(), &bytes),
                "{context:?}: zone {zone}"
            );
        }
    }

    /// How many states there are that the zones may be in: 1 where nothing is unsure.
    pub(crate) fn is_sure(&self) -> bool {
        self.blocks.iter().all(|tags| tags.len() == 1)
            && self.lives.iter().all(|lives| {
                lives.len() == 1
                    && lives[0].flushed == lives[0].tags.len()
                    && lives[0].finished == lives[0].finish_flushed
            })
    }
}

impl Life {
    fn is_full(&self) -> bool {
        self.finished || self.tags.len() == CAPACITY
    }

    fn reads_as(&self, written: usize, bytes: &[u8]) -> bool {
        let (data, rest) = bytes.split_at(written * BLOCK);
        data.chunks(BLOCK)
            .zip(&self.tags)
            .all(|(bytes, tag)| *bytes == block(*tag))
            && rest.iter().all(|byte| *byte == 0)
    }

    /// What of this life is there, if that is what is found.
    fn agrees(&self, state: ZoneState, pointer: Option<usize>, bytes: &[u8]) -> Option<Self> {
        (self.flushed..=self.tags.len()).find_map(|written| {
            let whole = written == self.tags.len();
            let states: &[(ZoneState, Option<usize>)] = &[
                (ZoneState::Full, None),
                match written {
                    0 => (ZoneState::Empty, Some(0)),
                    _ => (ZoneState::Closed, Some(written)),
                },
            ];
            let may_be = match () {
                () if written == CAPACITY || self.finish_flushed => &states[..1],
                () if self.finished && whole => states,
                () => &states[1..],
            };
            let agrees = may_be.contains(&(state, pointer)) && self.reads_as(written, bytes);
            agrees.then(|| Self {
                tags: self.tags[..written].to_vec(),
                flushed: written,
                finished: state == ZoneState::Full,
                finish_flushed: state == ZoneState::Full,
            })
        })
    }
}

/// The write pointer that the device reports, in blocks of the zone; none where that says nothing.
fn write_pointer(rig: &mut Rig, zone: usize) -> Option<usize> {
    let report = rig.request(crate::driver::REPORT, zone_start(zone), &[], 128);
    assert_eq!(report.status, 0);
    let pointer = u64::from_le_bytes(report.bytes[80..88].try_into().unwrap());
    let full = report.bytes[89] == ZoneState::Full as u8;
    (!full).then(|| ((pointer - zone_start(zone)) / BLOCK_SECTORS) as usize)
}

fn read(rig: &mut Rig, block: u64, count: u64) -> Vec<u8> {
    let len = count as usize * BLOCK;
    let answer = rig.request(IN, block * BLOCK_SECTORS, &[], len as u32);
    assert_eq!(answer.status, 0);
    answer.bytes[..len].to_vec()
}

/// The tag that is all over a block.
fn tag_of(bytes: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (*bytes == block(tag)).then_some(tag)
}

/// Has the device do it. False where it refuses.
pub(crate) fn perform(rig: &mut Rig, deed: Deed, written: usize) -> bool {
    let pointer = |zone: usize| zone_start(zone) + written as u64 * BLOCK_SECTORS;
    let data = |count: usize, tag: u64| (tag..).take(count).flat_map(block).collect::<Vec<_>>();
    let status = match deed {
        Deed::Append(zone, count, tag) => {
            let answer = rig.request(APPEND, zone_start(zone), &data(count, tag), 0);
            assert!(answer.status != 0 || answer.sector() == pointer(zone));
            answer.status
        }
        Deed::Write(zone, count, tag) => {
            rig.request(OUT, pointer(zone), &data(count, tag), 0).status
        }
        Deed::WriteZeroes(zone, count) => zero(rig, pointer(zone), count),
        Deed::Overwrite(zone, at, 0) => zero(rig, zone_start(zone) + at as u64 * BLOCK_SECTORS, 1),
        Deed::Overwrite(zone, at, tag) => {
            let sector = zone_start(zone) + at as u64 * BLOCK_SECTORS;
            rig.request(OUT, sector, &block(tag), 0).status
        }
        Deed::Open(zone) => rig.command(OPEN, zone_start(zone)),
        Deed::Finish(zone) => rig.command(FINISH, zone_start(zone)),
        Deed::Reset(zone) => rig.command(RESET, zone_start(zone)),
        Deed::ResetAll => rig.command(RESET_ALL, 0),
        Deed::Flush => rig.command(FLUSH, 0),
    };
    status == 0
}

fn zero(rig: &mut Rig, sector: u64, blocks: usize) -> u8 {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend((blocks as u32 * BLOCK_SECTORS as u32).to_le_bytes());
    segment.extend([0; 4]);
    rig.request(WRITE_ZEROES, 0, &segment, 0).status
}

impl Oracle {
    /// Has the device do what the model does, and checks that both take or refuse it.
    pub(crate) fn go(&mut self, rig: &mut Rig, deed: Deed) {
        let written = match deed {
            Deed::Append(zone, ..) | Deed::Write(zone, ..) | Deed::WriteZeroes(zone, _) => {
                self.life(zone).tags.len()
            }
            _ => 0,
        };
        let done = perform(rig, deed, written);
        assert_eq!(done, self.note(deed), "{deed:?}");
    }

    /// The tags that are in use, so that none is used twice.
    pub(crate) fn tags(&self) -> BTreeSet<u64> {
        self.lives
            .iter()
            .flatten()
            .flat_map(|life| &life.tags)
            .chain(self.blocks.iter().flatten())
            .copied()
            .collect()
    }
}
