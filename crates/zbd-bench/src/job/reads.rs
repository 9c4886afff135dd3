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
    /// How many blocks each area has, if all have the same number. Then an area and a block in it
    /// are two draws instead of one and a search.
    each: Option<u64>,
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
        let first = areas.first().map(|area| area.blocks);
        Self {
            each: first.filter(|&each| areas.iter().all(|area| area.blocks == each)),
            areas: areas.to_vec(),
            blocks: ends.last().copied().unwrap_or_default(),
            ends,
            sectors,
            rng: Rng::with_seed(seed),
        }
    }

    #[inline]
    pub(crate) fn next_sector(&mut self) -> Sector {
        if let Some(each) = self.each {
            let area = &self.areas[self.rng.usize(..self.areas.len())];
            return Sector(area.start.0 + self.rng.u64(..each) * self.sectors);
        }
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

    fn area(zone: u32, start: u64, blocks: u64) -> Area {
        Area {
            zone: Some(ZoneId(zone)),
            start: Sector(start),
            blocks,
        }
    }

    fn unequal() -> Vec<Area> {
        vec![area(0, 0, 2), area(3, 300, 1), area(5, 500, 3)]
    }

    fn read(areas: &[Area], seed: u64) -> Vec<u64> {
        let mut reads = RandomReads::new(areas, 8, seed);
        (0..500).map(|_| reads.next_sector().0).collect()
    }

    #[test]
    fn a_sweep_reads_every_block_in_order_and_starts_again() {
        let mut sweep = Sweep::new(&unequal(), 8, Op::Read);
        let sectors: Vec<u64> = (0..8).map(|_| sweep.next_sector().0).collect();
        assert_eq!(sectors, [0, 8, 300, 500, 508, 516, 0, 8]);
    }

    #[test]
    fn random_reads_reach_every_block_and_nothing_else() {
        let sectors = BTreeSet::from_iter(read(&unequal(), 7));
        assert_eq!(sectors, BTreeSet::from([0, 8, 300, 500, 508, 516]));
        let equal = [area(0, 0, 2), area(1, 100, 2)];
        let sectors = BTreeSet::from_iter(read(&equal, 7));
        assert_eq!(sectors, BTreeSet::from([0, 8, 100, 108]));
    }

    #[test]
    fn a_large_area_is_read_more_often_than_a_small_one() {
        let areas = [area(0, 0, 1), area(1, 1000, 9)];
        let small = read(&areas, 7).iter().filter(|&&at| at == 0).count();
        assert!((25..100).contains(&small), "{small} of 500, should be 50");
    }

    #[test]
    fn the_same_seed_reads_the_same_blocks() {
        assert_eq!(read(&unequal(), 1), read(&unequal(), 1));
        assert_ne!(read(&unequal(), 1), read(&unequal(), 2));
    }
}
