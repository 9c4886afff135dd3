//! What comes next: where the requests of a queue go.

use zbd_core::{DmaBuffer, Request, Sector, ZoneId};

use super::{
    appends::Appends,
    mix::Mix,
    plan::Job,
    prepare::Area,
    reads::{RandomReads, Sweep},
    rotation::Policy,
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
    /// Finish this zone. Nothing is in flight.
    Finish(ZoneId),
    /// Reset this zone. Nothing is in flight.
    Reset(ZoneId),
}

/// Where the requests of one queue go.
#[derive(Debug)]
pub(crate) struct Source {
    pattern: Pattern,
    /// The reads among writes.
    mix: Option<Box<Mix>>,
}

#[derive(Debug)]
enum Pattern {
    Appends(Appends),
    ZoneWrites(ZoneWrites),
    Sweep(Sweep),
    RandomReads(RandomReads),
}

impl Source {
    /// A source over the areas of one of the job's queues, or of whatever else writes by itself:
    /// number `part` of so many.
    pub(crate) fn new(job: &Job, areas: &[Area], (part, parts): (usize, usize)) -> Self {
        let sectors = job.block_sectors();
        let seed = job.seed.wrapping_add(part as u64);
        let zoned = areas.iter().all(|area| area.zone.is_some());
        let pattern = match job.op {
            Op::Append => Pattern::Appends(Appends::new(areas, Policy::of(job, parts))),
            Op::Write if zoned => {
                Pattern::ZoneWrites(ZoneWrites::new(areas, Policy::of(job, parts), sectors))
            }
            Op::Write | Op::Read => Pattern::Sweep(Sweep::new(areas, sectors, job.op)),
            Op::Randread => Pattern::RandomReads(RandomReads::new(areas, sectors, seed)),
        };
        let mix =
            (job.read_mix > 0).then(|| Box::new(Mix::new(job.read_mix, areas, sectors, seed)));
        Self { pattern, mix }
    }

    /// Whether some of a writing job's requests are reads.
    pub(crate) fn is_mixed(&self) -> bool {
        self.mix.is_some()
    }

    /// What to do with `free` requests while so many are in flight.
    #[inline]
    pub(crate) fn step(&mut self, free: u64, in_flight: usize) -> Step {
        let step = match &mut self.pattern {
            Pattern::Appends(appends) => appends.step(free, in_flight),
            Pattern::ZoneWrites(writes) => writes.step(free, in_flight),
            Pattern::Sweep(_) | Pattern::RandomReads(_) => Step::Submit(free),
        };
        if let (Step::Reset(zone), Some(mix)) = (step, &mut self.mix) {
            mix.forget(zone);
        }
        step
    }

    /// The next of the requests that the last step spoke of.
    // A call would copy the buffer twice more; `submit` takes a third of what that costs.
    #[inline(always)]
    pub(crate) fn request(&mut self, buffer: DmaBuffer) -> Request {
        if let Some(mix) = &mut self.mix
            && let Some(at) = mix.draw()
        {
            return Request::Read { at, buffer };
        }
        match &mut self.pattern {
            Pattern::Appends(appends) => Request::Append {
                zone: appends.next_zone(),
                buffer,
            },
            Pattern::ZoneWrites(writes) => Request::Write {
                at: writes.next_sector(),
                buffer,
            },
            Pattern::Sweep(sweep) if sweep.op() == Op::Write => Request::Write {
                at: sweep.next_sector(),
                buffer,
            },
            Pattern::Sweep(sweep) => Request::Read {
                at: sweep.next_sector(),
                buffer,
            },
            Pattern::RandomReads(reads) => Request::Read {
                at: reads.next_sector(),
                buffer,
            },
        }
    }

    /// Something has been written to this sector and can be read.
    pub(crate) fn written(&mut self, at: Sector) {
        if let Some(mix) = &mut self.mix {
            mix.written(at);
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
                start: Sector(disk.start.0 + first * job.block_sectors()),
                blocks: blocks.min(disk.blocks - first),
                ..disk
            }]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn job(op: &str) -> Job {
        let args = Cli::try_parse_from(["zbd-bench", "--op", op]).unwrap().run;
        Job::resolve("emu:", &args.job, &"emu:".parse().unwrap()).unwrap()
    }

    fn zones(n: u32) -> Vec<Area> {
        (0..n)
            .map(|id| Area {
                zone: Some(ZoneId(id)),
                start: Sector(u64::from(id) * 1000),
                blocks: 100,
            })
            .collect()
    }

    fn starts(parts: &[Vec<Area>]) -> Vec<Vec<u64>> {
        let starts = |part: &Vec<Area>| part.iter().map(|area| area.start.0).collect();
        parts.iter().map(starts).collect()
    }

    #[test]
    fn every_zone_belongs_to_one_queue() {
        let parts = share(&job("append"), &zones(5), 2);
        assert_eq!(starts(&parts), [vec![0, 2000, 4000], vec![1000, 3000]]);
    }

    #[test]
    fn queues_share_zones_that_are_read_where_there_are_too_few() {
        let parts = share(&job("read"), &zones(2), 3);
        assert_eq!(starts(&parts), [[0], [1000], [0]]);
    }

    #[test]
    fn a_disk_is_cut_for_sequential_jobs_and_shared_for_random_ones() {
        let disk = [Area {
            zone: None,
            start: Sector(0),
            blocks: 7,
        }];
        let parts = share(&job("write"), &disk, 3);
        assert_eq!(starts(&parts), [[0], [16], [32]]);
        assert!(parts.iter().all(|part| part[0].blocks == 2));
        let parts = share(&job("randread"), &disk, 2);
        assert_eq!(starts(&parts), [[0], [0]]);
        let tiny = share(
            &job("write"),
            &[Area {
                blocks: 1,
                ..disk[0]
            }],
            2,
        );
        assert!(tiny.iter().all(|part| part[0].blocks == 1));
    }
}
