//! Sequential writes to zones: each commit to one zone, in the order of its sectors.

use std::collections::VecDeque;

use zbd_core::Sector;

use super::{
    prepare::Area,
    rotation::{Policy, Rotation, Zone},
    source::Step,
};

/// Writes to the open zones of one queue, a commit to each in turn, so that a hypervisor may merge
/// the writes of a commit.
///
/// Hypervisors merge across the borders of zones, too, and such a write fails as a whole: after
/// the last write to a zone everything in flight is waited for.
#[derive(Debug)]
pub(crate) struct ZoneWrites {
    rotation: Rotation,
    /// The zone of the commit under way.
    current: Option<Zone>,
    /// The other open zones, the next one first.
    open: VecDeque<Zone>,
    /// The length of a write.
    sectors: u64,
    /// Whether a zone has been filled and what is in flight must be waited for.
    at_border: bool,
}

impl ZoneWrites {
    /// Writes of so many sectors to these zones, which are empty.
    pub(crate) fn new(areas: &[Area], policy: Policy, sectors: u64) -> Self {
        Self {
            rotation: Rotation::new(areas, policy),
            current: None,
            open: VecDeque::with_capacity(areas.len() + 1),
            sectors,
            at_border: false,
        }
    }

    #[inline]
    pub(crate) fn step(&mut self, free: u64, in_flight: usize) -> Step {
        if self.at_border {
            if in_flight > 0 {
                return Step::Drain;
            }
            self.at_border = false;
        }
        self.open.extend(self.current.take());
        if (self.rotation.is_due() || self.open.is_empty())
            && let Some(step) = self.rotation.step(&mut self.open, in_flight)
        {
            return step;
        }
        match self.open.pop_front() {
            Some(zone) => {
                self.current = Some(zone);
                Step::Submit(free.min(zone.left()))
            }
            None => Step::Drain,
        }
    }

    /// The first sector of the next write.
    #[inline]
    pub(crate) fn next_sector(&mut self) -> Sector {
        // A step has chosen the zone, and no more writes than fit are asked for.
        let Some(zone) = &mut self.current else {
            return Sector(u64::MAX);
        };
        let at = Sector(zone.start.0 + zone.written * self.sectors);
        zone.written += 1;
        if zone.left() == 0 {
            let zone = *zone;
            self.current = None;
            self.rotation.filled(zone);
            self.at_border = true;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use zbd_core::ZoneId;

    use super::*;
    use crate::job::rotation::tests::{ALL, areas};

    const SECTORS: u64 = 8;

    fn writes(blocks: &[u64]) -> ZoneWrites {
        ZoneWrites::new(&areas(blocks), ALL, SECTORS)
    }

    fn sectors(writes: &mut ZoneWrites, n: u64) -> Vec<u64> {
        (0..n).map(|_| writes.next_sector().0).collect()
    }

    #[test]
    fn a_commit_goes_to_one_zone_in_order_and_the_next_to_the_next() {
        let mut writes = writes(&[100, 100]);
        assert_eq!(writes.step(3, 0), Step::Submit(3));
        assert_eq!(sectors(&mut writes, 3), [0, 8, 16]);
        assert_eq!(writes.step(2, 3), Step::Submit(2));
        assert_eq!(sectors(&mut writes, 2), [1000, 1008]);
        assert_eq!(writes.step(2, 4), Step::Submit(2));
        assert_eq!(sectors(&mut writes, 2), [24, 32]);
    }

    #[test]
    fn the_end_of_a_zone_is_waited_for() {
        let mut writes = writes(&[2, 5]);
        assert_eq!(writes.step(4, 0), Step::Submit(2), "no more than fit");
        assert_eq!(sectors(&mut writes, 2), [0, 8]);
        assert_eq!(writes.step(2, 2), Step::Drain);
        assert_eq!(writes.step(2, 1), Step::Drain);
        assert_eq!(writes.step(4, 0), Step::Submit(4));
        assert_eq!(sectors(&mut writes, 4), [1000, 1008, 1016, 1024]);
    }

    #[test]
    fn full_zones_are_reset_and_written_from_their_start() {
        let mut writes = writes(&[1, 1]);
        for zone in [0, 1000] {
            assert_eq!(writes.step(4, 0), Step::Submit(1));
            assert_eq!(sectors(&mut writes, 1), [zone]);
        }
        assert_eq!(writes.step(4, 1), Step::Drain);
        for zone in [0, 1] {
            assert_eq!(writes.step(4, 0), Step::Reset(ZoneId(zone)));
        }
        for zone in [0, 1000] {
            assert_eq!(writes.step(4, 0), Step::Submit(1));
            assert_eq!(sectors(&mut writes, 1), [zone]);
        }
    }
}
