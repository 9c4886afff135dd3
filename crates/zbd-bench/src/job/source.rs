//! What comes next: where the requests of a queue go.

use zbd_core::{DmaBuffer, Request, ZoneId};

use super::{
    appends::Appends,
    plan::Job,
    prepare::Area,
    reads::{RandomReads, Sweep},
    writes::ZoneWrites,
};
use crate::cli::Op;

/// What a queue shall do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Submit this many requests, at least one, and commit them together.
    Submit(u64),
    /// Wait until nothing is in flight.
    Drain,
    /// Reset this zone. Nothing is in flight.
    Reset(ZoneId),
}

/// Where the requests of one queue go.
#[derive(Debug)]
pub(crate) enum Source {
    Appends(Appends),
    ZoneWrites(ZoneWrites),
    Sweep(Sweep),
    RandomReads(RandomReads),
}

impl Source {
    /// A source over the areas of one of the job's queues.
    pub(crate) fn new(job: &Job, queue: usize, areas: &[Area]) -> Self {
        let sectors = job.block_sectors();
        let zoned = areas.iter().all(|area| area.zone.is_some());
        match job.op {
            Op::Append => Self::Appends(Appends::new(areas)),
            Op::Write if zoned => Self::ZoneWrites(ZoneWrites::new(areas, sectors)),
            Op::Write | Op::Read => Self::Sweep(Sweep::new(areas, sectors, job.op)),
            Op::Randread => {
                let seed = job.seed.wrapping_add(queue as u64);
                Self::RandomReads(RandomReads::new(areas, sectors, seed))
            }
        }
    }

    /// What to do with `free` requests while so many are in flight.
    #[inline]
    pub(crate) fn step(&mut self, free: u64, in_flight: usize) -> Step {
        match self {
            Self::Appends(appends) => appends.step(free, in_flight),
            Self::ZoneWrites(writes) => writes.step(free, in_flight),
            Self::Sweep(_) | Self::RandomReads(_) => Step::Submit(free),
        }
    }

    /// The next of the requests that the last step spoke of.
    #[inline]
    pub(crate) fn request(&mut self, buffer: DmaBuffer) -> Request {
        match self {
            Self::Appends(appends) => Request::Append {
                zone: appends.next_zone(),
                buffer,
            },
            Self::ZoneWrites(writes) => Request::Write {
                at: writes.next_sector(),
                buffer,
            },
            Self::Sweep(sweep) if sweep.op() == Op::Write => Request::Write {
                at: sweep.next_sector(),
                buffer,
            },
            Self::Sweep(sweep) => Request::Read {
                at: sweep.next_sector(),
                buffer,
            },
            Self::RandomReads(reads) => Request::Read {
                at: reads.next_sector(),
                buffer,
            },
        }
    }
}

/// Shares the areas out: what is written belongs to one part alone; what is read may be shared
/// where there are fewer areas than parts, and a disk without zones is cut into pieces.
pub(crate) fn share(job: &Job, areas: &[Area], parts: usize) -> Vec<Vec<Area>> {
    match areas {
        [disk] if disk.zone.is_none() && job.op != Op::Randread => cut(*disk, parts, job),
        _ if areas.len() < parts => (0..parts).map(|i| vec![areas[i % areas.len()]]).collect(),
        _ => (0..parts)
            .map(|part| areas.iter().skip(part).step_by(parts).copied().collect())
            .collect(),
    }
}

fn cut(disk: Area, parts: usize, job: &Job) -> Vec<Vec<Area>> {
    // A disk of fewer blocks than parts is not worth more than being shared.
    let blocks = (disk.blocks / parts as u64).max(1);
    (0..parts as u64)
        .map(|part| {
            let first = (part * blocks).min(disk.blocks - 1);
            vec![Area {
                start: zbd_core::Sector(disk.start.0 + first * job.block_sectors()),
                blocks: blocks.min(disk.blocks - first),
                ..disk
            }]
        })
        .collect()
}
