//! Appends: round-robin over the zones, request by request.

use std::collections::VecDeque;

use zbd_core::ZoneId;

use super::{
    prepare::Area,
    rotation::{Policy, Rotation, Zone},
    source::Step,
};

/// Appends to the open zones of one queue in turn.
#[derive(Debug)]
pub(crate) struct Appends {
    rotation: Rotation,
    /// The zones that are appended to, in their order.
    open: VecDeque<Zone>,
    /// The place in `open` of the zone that is next.
    next: usize,
    /// How many more appends are to go to all of them.
    left: u64,
}

impl Appends {
    /// Appends to these zones, which are empty.
    pub(crate) fn new(areas: &[Area], policy: Policy) -> Self {
        Self {
            rotation: Rotation::new(areas, policy),
            open: VecDeque::with_capacity(areas.len()),
            next: 0,
            left: 0,
        }
    }

    #[inline]
    pub(crate) fn step(&mut self, free: u64, in_flight: usize) -> Step {
        if self.left > 0 && !self.rotation.is_due() {
            return Step::Submit(free.min(self.left));
        }
        self.turn(free, in_flight)
    }

    #[cold]
    fn turn(&mut self, free: u64, in_flight: usize) -> Step {
        if let Some(step) = self.rotation.step(&mut self.open, in_flight) {
            return step;
        }
        self.left = self.open.iter().map(Zone::left).sum();
        Step::Submit(free.min(self.left))
    }

    /// The zone of the next append.
    #[inline]
    pub(crate) fn next_zone(&mut self) -> ZoneId {
        let zone = &mut self.open[self.next];
        let id = zone.id;
        zone.written += 1;
        self.left -= 1;
        if zone.left() == 0 {
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
        if let Some(zone) = self.open.remove(self.next) {
            self.rotation.filled(zone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::rotation::tests::{ALL, areas};

    fn zones(appends: &mut Appends, n: u64) -> Vec<u32> {
        (0..n).map(|_| appends.next_zone().0).collect()
    }

    #[test]
    fn zones_take_turns_until_each_is_full() {
        let mut appends = Appends::new(&areas(&[3, 1, 2]), ALL);
        assert_eq!(appends.step(32, 0), Step::Submit(6), "no more than fit");
        assert_eq!(zones(&mut appends, 6), [0, 1, 2, 0, 2, 0]);
    }

    #[test]
    fn all_full_zones_are_reset_the_oldest_first_when_nothing_is_in_flight() {
        let mut appends = Appends::new(&areas(&[2, 1]), ALL);
        assert_eq!(appends.step(4, 0), Step::Submit(3));
        assert_eq!(zones(&mut appends, 3), [0, 1, 0]);
        assert_eq!(appends.step(4, 3), Step::Drain);
        assert_eq!(appends.step(4, 0), Step::Reset(ZoneId(1)));
        assert_eq!(appends.step(4, 0), Step::Reset(ZoneId(0)));
        assert_eq!(appends.step(4, 0), Step::Submit(3));
        assert_eq!(zones(&mut appends, 3), [1, 0, 0]);
    }

    #[test]
    fn no_more_zones_are_appended_to_than_there_are_places() {
        let policy = Policy { places: 2, ..ALL };
        let mut appends = Appends::new(&areas(&[2, 4, 3]), policy);
        assert_eq!(appends.step(3, 0), Step::Submit(3));
        assert_eq!(zones(&mut appends, 3), [0, 1, 0]);
        assert_eq!(appends.step(3, 3), Step::Drain);
        assert_eq!(appends.step(4, 0), Step::Submit(4));
        assert_eq!(zones(&mut appends, 4), [1, 2, 1, 2]);
    }
}
