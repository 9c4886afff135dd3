//! Appends: round-robin over the zones, request by request.

use std::collections::VecDeque;

use zbd_core::ZoneId;

use super::{prepare::Area, source::Step};

/// A zone that is appended to.
#[derive(Clone, Copy, Debug)]
struct Zone {
    id: ZoneId,
    /// How many appends fit into it when it is empty.
    blocks: u64,
    /// How many more fit.
    left: u64,
}

/// Appends to the zones of one queue in turn. When all are full they are reset, the one that has
/// been full for longest first: all of them, so that the job goes on with as many zones as it began.
#[derive(Debug)]
pub(crate) struct Appends {
    /// The zones that are not full, in their order.
    open: Vec<Zone>,
    /// The place in `open` of the zone that is next.
    next: usize,
    /// The full zones, the oldest first.
    full: VecDeque<Zone>,
    /// How many more appends fit into all of them.
    left: u64,
    /// Whether the full zones are being reset.
    resetting: bool,
}

impl Appends {
    /// Appends to these zones, which are empty.
    pub(crate) fn new(areas: &[Area]) -> Self {
        let open: Vec<Zone> = areas
            .iter()
            .filter(|area| area.blocks > 0)
            .filter_map(|area| {
                Some(Zone {
                    id: area.zone?,
                    blocks: area.blocks,
                    left: area.blocks,
                })
            })
            .collect();
        Self {
            next: 0,
            full: VecDeque::with_capacity(open.len()),
            left: open.iter().map(|zone| zone.left).sum(),
            resetting: false,
            open,
        }
    }

    #[inline]
    pub(crate) fn step(&mut self, free: u64, in_flight: usize) -> Step {
        if self.left > 0 && !self.resetting {
            return Step::Submit(free.min(self.left));
        }
        self.all_full(in_flight)
    }

    #[cold]
    fn all_full(&mut self, in_flight: usize) -> Step {
        if in_flight > 0 {
            return Step::Drain;
        }
        match self.full.pop_front() {
            Some(zone) => {
                self.resetting = !self.full.is_empty();
                self.left += zone.blocks;
                self.open.push(Zone {
                    left: zone.blocks,
                    ..zone
                });
                Step::Reset(zone.id)
            }
            None => Step::Drain,
        }
    }

    /// The zone of the next append.
    #[inline]
    pub(crate) fn next_zone(&mut self) -> ZoneId {
        let zone = &mut self.open[self.next];
        let id = zone.id;
        zone.left -= 1;
        self.left -= 1;
        if zone.left == 0 {
            self.filled();
        } else {
            self.next += 1;
        }
        if self.next >= self.open.len() {
            self.next = 0;
        }
        id
    }

    /// Takes the zone that is next out of the turn, and keeps the order of the others.
    #[cold]
    fn filled(&mut self) {
        let zone = self.open.remove(self.next);
        self.full.push_back(zone);
    }
}

#[cfg(test)]
mod tests {
    use zbd_core::Sector;

    use super::*;

    fn areas(blocks: &[u64]) -> Vec<Area> {
        (0..)
            .zip(blocks)
            .map(|(i, &blocks)| Area {
                zone: Some(ZoneId(i)),
                start: Sector(0),
                blocks,
            })
            .collect()
    }

    fn zones(appends: &mut Appends, n: u64) -> Vec<u32> {
        (0..n).map(|_| appends.next_zone().0).collect()
    }

    #[test]
    fn zones_take_turns_until_each_is_full() {
        let mut appends = Appends::new(&areas(&[3, 1, 2]));
        assert_eq!(appends.step(32, 0), Step::Submit(6), "no more than fit");
        assert_eq!(zones(&mut appends, 6), [0, 1, 2, 0, 2, 0]);
    }

    #[test]
    fn all_full_zones_are_reset_the_oldest_first_when_nothing_is_in_flight() {
        let mut appends = Appends::new(&areas(&[2, 1]));
        assert_eq!(zones(&mut appends, 3), [0, 1, 0]);
        assert_eq!(appends.step(4, 3), Step::Drain);
        assert_eq!(appends.step(4, 0), Step::Reset(ZoneId(1)));
        assert_eq!(appends.step(4, 0), Step::Reset(ZoneId(0)));
        assert_eq!(appends.step(4, 0), Step::Submit(3));
        assert_eq!(zones(&mut appends, 3), [1, 0, 0]);
    }
}
