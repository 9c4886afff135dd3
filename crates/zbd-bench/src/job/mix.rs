//! The reads among the requests of a writing job.

use fastrand::Rng;
use zbd_core::{Sector, ZoneId};

use super::prepare::Area;

/// How many places are remembered at the most.
const REMEMBERED: usize = 1 << 16;

/// Reads of what the job has written, at random: of all of it, or of so many places of it that were
/// written at any time, the later the more likely.
#[derive(Debug)]
pub(crate) struct Mix {
    percent: u8,
    written: Vec<Sector>,
    areas: Vec<Area>,
    /// The length of a request.
    sectors: u64,
    rng: Rng,
}

impl Mix {
    /// So many percent of the requests of a queue that writes to these areas.
    pub(crate) fn new(percent: u8, areas: &[Area], sectors: u64, seed: u64) -> Self {
        let blocks: u64 = areas.iter().map(|area| area.blocks).sum();
        Self {
            percent,
            written: Vec::with_capacity(REMEMBERED.min(blocks as usize)),
            areas: areas.to_vec(),
            sectors,
            rng: Rng::with_seed(seed),
        }
    }

    /// Where to read, if the next request is a read. There is none as long as nothing is written.
    #[inline]
    pub(crate) fn draw(&mut self) -> Option<Sector> {
        if self.rng.u8(..100) >= self.percent {
            return None;
        }
        self.rng.choice(&self.written).copied()
    }

    /// A request to this sector has been written.
    #[inline]
    pub(crate) fn written(&mut self, at: Sector) {
        if self.written.len() < self.written.capacity() {
            self.written.push(at);
        } else if !self.written.is_empty() {
            let forgotten = self.rng.usize(..self.written.len());
            self.written[forgotten] = at;
        }
    }

    /// The zone is being reset.
    #[cold]
    pub(crate) fn forget(&mut self, zone: ZoneId) {
        if let Some(area) = self.areas.iter().find(|area| area.zone == Some(zone)) {
            let start = area.start.0;
            let range = start..start + area.blocks * self.sectors;
            self.written.retain(|at| !range.contains(&at.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::job::rotation::tests::areas;

    fn drawn(mix: &mut Mix) -> BTreeSet<u64> {
        (0..1000)
            .filter_map(|_| mix.draw())
            .map(|at| at.0)
            .collect()
    }

    #[test]
    fn what_was_written_is_read_as_often_as_asked_and_nothing_else() {
        let mut mix = Mix::new(30, &areas(&[10, 10]), 8, 1);
        assert!(drawn(&mut mix).is_empty());
        for at in [0, 8, 1000] {
            mix.written(Sector(at));
        }
        assert_eq!(drawn(&mut mix), BTreeSet::from([0, 8, 1000]));
        let reads = (0..10_000).filter(|_| mix.draw().is_some()).count();
        assert!((2700..3300).contains(&reads), "{reads}");
    }

    #[test]
    fn what_was_reset_is_not_read() {
        let mut mix = Mix::new(50, &areas(&[10, 10]), 8, 1);
        for at in [0, 72, 1000] {
            mix.written(Sector(at));
        }
        mix.forget(ZoneId(0));
        assert_eq!(drawn(&mut mix), BTreeSet::from([1000]));
    }

    #[test]
    fn memory_stays_bounded() {
        let mut mix = Mix::new(50, &areas(&[u64::MAX / 16]), 8, 1);
        let room = mix.written.capacity();
        for at in 0..2 * room as u64 {
            mix.written(Sector(at * 8));
        }
        assert_eq!(mix.written.capacity(), room);
        assert_eq!(mix.written.len(), room);
    }
}
