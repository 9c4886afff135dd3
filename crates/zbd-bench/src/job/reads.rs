//! Requests whose sectors nothing depends on: reads, and writes to a disk without zones.

use fastrand::Rng;
use zbd_core::Sector;

use super::prepare::Area;
use crate::cli::Op;

/// Goes over the areas from the first block to the last, again and again.
#[derive(Debug)]
pub(crate) struct Sweep {
    areas: Vec<Area>,
    sectors: u64,
    op: Op,
    /// The area that is being gone over.
    area: usize,
    next: Sector,
    /// How many blocks of the area are left.
    left: u64,
}

impl Sweep {
    /// A sweep in steps of so many sectors over the areas, of which none may be empty.
    pub(crate) fn new(areas: &[Area], sectors: u64, op: Op) -> Self {
        Self {
            areas: areas.to_vec(),
            sectors,
            op,
            area: areas.len().saturating_sub(1),
            next: Sector(0),
            left: 0,
        }
    }

    pub(crate) fn op(&self) -> Op {
        self.op
    }

    #[inline]
    pub(crate) fn next_sector(&mut self) -> Sector {
        if self.left == 0 {
            self.turn();
        }
        let at = self.next;
        self.next = Sector(at.0 + self.sectors);
        self.left -= 1;
        at
    }

    #[cold]
    fn turn(&mut self) {
        self.area = (self.area + 1) % self.areas.len();
        let area = self.areas[self.area];
        self.next = area.start;
        self.left = area.blocks;
    }
}

/// Picks any block of the areas, all with the same probability.
#[derive(Debug)]
pub(crate) struct RandomReads {
    areas: Vec<Area>,
    /// How many blocks there are up to the end of each area.
    ends: Vec<u64>,
    blocks: u64,
    sectors: u64,
    rng: Rng,
}

impl RandomReads {
    /// Blocks of so many sectors.
    pub(crate) fn new(areas: &[Area], sectors: u64, seed: u64) -> Self {
        let ends: Vec<u64> = areas
            .iter()
            .scan(0, |end, area| {
                *end += area.blocks;
                Some(*end)
            })
            .collect();
        Self {
            areas: areas.to_vec(),
            blocks: ends.last().copied().unwrap_or_default(),
            ends,
            sectors,
            rng: Rng::with_seed(seed),
        }
    }

    #[inline]
    pub(crate) fn next_sector(&mut self) -> Sector {
        let block = self.rng.u64(..self.blocks);
        let index = self.ends.partition_point(|&end| end <= block);
        let area = &self.areas[index];
        let before = self.ends[index] - area.blocks;
        Sector(area.start.0 + (block - before) * self.sectors)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zbd_core::ZoneId;

    use super::*;

    fn areas() -> Vec<Area> {
        let area = |zone, start, blocks| Area {
            zone: Some(ZoneId(zone)),
            start: Sector(start),
            blocks,
        };
        vec![area(0, 0, 2), area(3, 300, 1), area(5, 500, 3)]
    }

    const ALL: [u64; 6] = [0, 8, 300, 500, 508, 516];

    #[test]
    fn a_sweep_reads_every_block_in_order_and_starts_again() {
        let mut sweep = Sweep::new(&areas(), 8, Op::Read);
        let sectors: Vec<u64> = (0..8).map(|_| sweep.next_sector().0).collect();
        assert_eq!(sectors, [0, 8, 300, 500, 508, 516, 0, 8]);
    }

    #[test]
    fn random_reads_reach_every_block_and_nothing_else() {
        let mut reads = RandomReads::new(&areas(), 8, 7);
        let sectors: BTreeSet<u64> = (0..500).map(|_| reads.next_sector().0).collect();
        assert_eq!(sectors, BTreeSet::from(ALL));
    }

    #[test]
    fn the_same_seed_reads_the_same_blocks() {
        let sectors = |seed| {
            let mut reads = RandomReads::new(&areas(), 8, seed);
            (0..50).map(|_| reads.next_sector()).collect::<Vec<_>>()
        };
        assert_eq!(sectors(1), sectors(1));
        assert_ne!(sectors(1), sectors(2));
    }
}
