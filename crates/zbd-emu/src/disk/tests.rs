//! Crashes of the machine under a device in a file: whatever writes since the last sync of the file
//! reached it, by sectors, it is that of a device that lost some unflushed changes and no more.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

use vfio_virtio::{HostMemory, Iova};

use super::Disk;
use crate::{
    EmulatedConfig, StoreIo,
    chain::{Access, Chain, ChainRules, Segment},
    config::Switch,
    memory::{DmaMap, IOVA_RANGE},
    request::Request,
    store::{Io, Op, Opened, Store},
    wire::request,
    zone::ZoneState,
};

const BLOCK: usize = 4096;
const BLOCK_SECTORS: u64 = 8;
const ZONE_BLOCKS: usize = 8;
const ZONES: usize = 4;
const SECTOR: usize = 512;

/// A sequence of numbers that looks random.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

/// What a zone was from one reset to the next: of each block what it may hold, the last of which it
/// does for its driver.
#[derive(Clone, Debug, Default)]
struct Life {
    flushed: usize,
    blocks: Vec<Vec<u64>>,
}

/// All that may be true of a device, zone by zone.
#[derive(Clone, Debug)]
struct Model(Vec<Vec<Life>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// A block of a zone and its tag; 0 is zeroes by a discard.
    Put(usize, usize, u64),
    Reset(usize),
    Flush,
}

impl Model {
    fn new(conventional: usize) -> Self {
        let life = |zone| Life {
            flushed: 0,
            blocks: match zone < conventional {
                true => vec![vec![0]; ZONE_BLOCKS],
                false => Vec::new(),
            },
        };
        Self((0..ZONES).map(|zone| vec![life(zone)]).collect())
    }

    fn present(&self, zone: usize) -> &Life {
        self.0[zone].last().unwrap()
    }

    fn note(&mut self, deed: Deed) {
        match deed {
            Deed::Put(zone, at, tag) => {
                let blocks = &mut self.0[zone].last_mut().unwrap().blocks;
                match blocks.get_mut(at) {
                    Some(block) => block.push(tag),
                    // A discard beyond the write pointer is nothing.
                    None if tag == 0 => {}
                    None => {
                        blocks.resize(at, vec![0]);
                        blocks.push(vec![tag]);
                    }
                }
            }
            Deed::Reset(zone) => self.0[zone].push(Life::default()),
            Deed::Flush => {
                for lives in &mut self.0 {
                    lives.drain(..lives.len() - 1);
                    lives[0].flushed = lives[0].blocks.len();
                    for block in &mut lives[0].blocks {
                        block.drain(..block.len() - 1);
                    }
                }
            }
        }
    }

    fn allows(&self, zone: usize, blocks: &[Option<u64>]) -> bool {
        self.0[zone].iter().any(|life| {
            (life.flushed..=life.blocks.len()).contains(&blocks.len())
                && blocks
                    .iter()
                    .zip(&life.blocks)
                    .all(|(tag, may)| tag.is_some_and(|tag| may.contains(&tag)))
        })
    }
}

/// A device whose every change of its file is on record.
struct Harness {
    disk: Disk,
    dma: DmaMap,
    config: EmulatedConfig,
}

impl Harness {
    fn new(path: &Path, options: &str) -> Self {
        let config: EmulatedConfig = format!("store={},{options}", path.display())
            .parse()
            .unwrap();
        let (resolved, file) = Opened::settle(&config).unwrap();
        let mut dma = DmaMap::default();
        let memory = Arc::new(HostMemory::new(1 << 20).unwrap());
        dma.map(Iova(*IOVA_RANGE.start()), memory).unwrap();
        Self {
            disk: Disk::new(&resolved, file).unwrap(),
            dma,
            config,
        }
    }

    fn file(&mut self) -> &mut crate::store::FileStore {
        match &mut self.disk.store {
            Store::File(file) => file,
            _ => panic!("the store is no file"),
        }
    }

    fn trace(&mut self) -> &mut Vec<Op> {
        self.file().io().trace.get_or_insert_default()
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let address = *IOVA_RANGE.start();
        let rules = ChainRules {
            queue_size: 4,
            indirect: Switch::Off,
            in_order: Switch::Off,
        };
        let mut chain = Chain::with_capacity(1);
        if !data.is_empty() {
            self.dma.slice(address, data.len()).unwrap().copy_from(data);
            let len = data.len() as u32;
            chain
                .push(Segment { address, len }, Access::Read, rules)
                .unwrap();
        }
        let request = Request {
            kind,
            sector,
            data_out: chain.readable(),
            data_in: chain.writable(),
            answer: chain.writable(),
            used_len: 0,
        };
        let outcome = self.disk.execute(&request, u64::MAX, &self.dma);
        outcome.unwrap().status
    }

    fn perform(&mut self, deed: Deed) {
        let sector = |zone: usize, at: usize| (zone * ZONE_BLOCKS + at) as u64 * BLOCK_SECTORS;
        let status = match deed {
            Deed::Put(zone, at, 0) => {
                let mut segment = [0; 16];
                segment[..8].copy_from_slice(&sector(zone, at).to_le_bytes());
                segment[8] = BLOCK_SECTORS as u8;
                self.request(request::DISCARD, 0, &segment)
            }
            Deed::Put(zone, at, tag) => {
                let data = tag.to_le_bytes().repeat(BLOCK / 8);
                self.request(request::OUT, sector(zone, at), &data)
            }
            Deed::Reset(zone) => self.request(request::ZONE_RESET, sector(zone, 0), &[]),
            Deed::Flush => self.request(request::FLUSH, 0, &[]),
        };
        assert_eq!(status, 0, "{deed:?}");
    }
}

/// The file after a crash before change `cut` of `trace`.
fn crash(trace: &[Op], cut: usize, chance: &mut Chance, image: &File) {
    let synced = trace[..cut]
        .iter()
        .rposition(|op| matches!(op, Op::Sync))
        .unwrap_or(0);
    for (index, op) in trace[..cut].iter().enumerate() {
        let sure = index < synced;
        // Most or few of what was on its way arrived.
        let odds = 1 + chance.below(4);
        let mut arrives = || sure || chance.below(5) < odds;
        match op {
            Op::Write(at, data) if sure => image.write_all_at(data, *at).unwrap(),
            Op::Write(at, data) => {
                for (sector, data) in data.chunks(SECTOR).enumerate() {
                    if arrives() {
                        let at = at + (sector * SECTOR) as u64;
                        image.write_all_at(data, at).unwrap();
                    }
                }
            }
            Op::Zero(range) => {
                if arrives() {
                    let zeroes = vec![0; (range.end - range.start) as usize];
                    image.write_all_at(&zeroes, range.start).unwrap();
                }
            }
            Op::Sync => {}
        }
    }
}

fn crash_everywhere(options: &str, conventional: usize, anywhere: bool) {
    // Where there is one in memory, a sync takes no time there.
    let directory = match std::fs::metadata("/dev/shm") {
        Ok(_) => tempfile::tempdir_in("/dev/shm").unwrap(),
        Err(_) => tempfile::tempdir().unwrap(),
    };
    let mut chance = Chance(conventional as u64);
    let mut tag = 0;
    for round in 0..6 {
        let path = directory.path().join(format!("disk{round}"));
        let mut harness = Harness::new(&path, options);
        if round % 2 == 1 {
            // The record is the same without io_uring.
            harness.file().io().forbid_io_uring();
            assert_eq!(harness.disk.store_io(), Some(StoreIo::Syscalls));
        }
        let extent = harness.file().extent();
        let mut before = vec![0; extent.start as usize];
        let original = harness.file().io().file().try_clone().unwrap();
        original.read_exact_at(&mut before, 0).unwrap();
        // How far the record had got when a deed was done, and what may be true until the next is.
        let mut history = vec![(0, Model::new(conventional))];
        let mut model = Model::new(conventional);
        harness.trace().clear();
        for _ in 0..60 {
            tag += 1;
            let zone = chance.below(ZONES);
            let written = model.present(zone).blocks.len();
            let deed = match chance.below(16) {
                0..=8 if anywhere || zone < conventional => {
                    Deed::Put(zone, chance.below(ZONE_BLOCKS), tag)
                }
                0..=8 if written < ZONE_BLOCKS => Deed::Put(zone, written, tag),
                9 | 10 => Deed::Put(zone, chance.below(ZONE_BLOCKS), 0),
                11 | 12 if zone >= conventional => Deed::Reset(zone),
                _ => Deed::Flush,
            };
            // While it is being done, it may be done.
            if deed != Deed::Flush {
                model.note(deed);
            }
            history.last_mut().unwrap().1 = model.clone();
            harness.perform(deed);
            model.note(if deed == Deed::Flush { deed } else { continue });
            let done = harness.trace().len();
            history.push((done, model.clone()));
        }
        let trace = std::mem::take(harness.trace());
        let config = harness.config.clone();
        drop(harness);
        assert!(trace.len() > 30);
        for cut in 0..=trace.len() {
            std::fs::remove_file(&path).unwrap();
            let image = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .unwrap();
            image.set_len(extent.end).unwrap();
            image.write_all_at(&before, 0).unwrap();
            crash(&trace, cut, &mut chance, &image);
            let (resolved, file) = Opened::settle(&config).unwrap();
            let disk = Disk::new(&resolved, file).unwrap();
            let (_, model) = history.iter().rfind(|(done, _)| *done <= cut).unwrap();
            for (index, zone) in disk.zones.zones().iter().enumerate() {
                let count = (zone.written_end - zone.start) / BLOCK_SECTORS;
                let blocks: Vec<_> = (0..count)
                    .map(|at| {
                        let mut bytes = [0; BLOCK];
                        let at = extent.start + zone.start * SECTOR as u64 + at * BLOCK as u64;
                        image.read_exact_at(&mut bytes, at).unwrap();
                        let words = bytes.as_chunks::<8>().0;
                        let whole = words.iter().all(|word| *word == words[0]);
                        whole.then(|| u64::from_le_bytes(words[0]))
                    })
                    .collect();
                assert!(
                    model.allows(index, &blocks),
                    "round {round}, cut {cut} of {}: zone {index} holds {blocks:?}, may {:#?}",
                    trace.len(),
                    model.0[index]
                );
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_io_error_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let mut harness = Harness::new(&path, "zones=4,zone-size=32k,conventional=1,cache=8k");
    let data = [7; BLOCK];
    assert_eq!(harness.request(request::OUT, 64, &data), 0);
    assert_eq!(harness.request(request::OUT, 0, &data), 0);
    for (with_ring, other) in [(true, 2), (false, 3)] {
        *harness.file().io() = Io::new(File::open(&path).unwrap());
        if !with_ring {
            harness.file().io().forbid_io_uring();
        }
        assert_eq!(harness.request(request::FLUSH, 0, &[]), 1);
        assert!(harness.disk.store_error().is_some());
        // The cache is full: there is no room without the file, and the zone stays as it was.
        assert_eq!(harness.request(request::OUT, 72, &data), 1);
        assert!(harness.disk.fail_zone(other, ZoneState::Offline).is_err());
        assert!(!harness.disk.set_writethrough(true));
        assert_eq!(harness.disk.cached_bytes(), 2 * BLOCK as u64);
    }
    let writable = File::options().read(true).write(true).open(&path).unwrap();
    *harness.file().io() = Io::new(writable);
    assert_eq!(harness.request(request::FLUSH, 0, &[]), 0);
    assert_eq!(harness.request(request::OUT, 72, &data), 0);
    drop(harness);
    let mut harness = Harness::new(&path, "");
    let written = harness.disk.zones.zones()[1].written_end;
    assert_eq!(written, 72);
    let file = File::open(&path).unwrap();
    for sector in [0, 64] {
        let mut held = [0; BLOCK];
        let at = harness.file().extent().start + sector * SECTOR as u64;
        file.read_exact_at(&mut held, at).unwrap();
        assert!(held == data, "{sector}");
    }
}

#[test]
fn crashes_of_a_host_managed_device() {
    crash_everywhere(
        "zones=4,zone-size=32k,conventional=1,max-open=0,max-active=0",
        1,
        false,
    );
}

#[test]
fn crashes_of_a_device_that_writes_back_early() {
    crash_everywhere(
        "zones=4,zone-size=32k,conventional=1,max-open=0,max-active=0,cache=12k",
        1,
        false,
    );
}

#[test]
fn crashes_of_a_host_aware_device() {
    crash_everywhere("zones=4,zone-size=32k,model=ha", 0, true);
}

#[test]
fn crashes_of_a_disk_without_zones() {
    crash_everywhere("zones=4,zone-size=32k,model=none", 4, true);
}
