//! Requests at fixed times.
//!
//! A loop that submits a request when another has come back submits less while the device is slow,
//! and so hardly sees that it is ("coordinated omission"). Here the times are fixed beforehand, and
//! a latency counts from when its request was due, however late it could be submitted.

/// When the requests of one queue are due, in nanoseconds after its start, and which are in flight.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How many a second.
    rate: u64,
    /// When the first one is due.
    offset: u64,
    /// How many have been submitted.
    submitted: u64,
    /// The requests in flight: when they were due, and when they were submitted.
    flights: Vec<(u64, u64)>,
    /// The places in `flights` that are free.
    free: Vec<usize>,
}

const SECOND: u128 = 1_000_000_000;

impl Pace {
    /// So many requests a second in each of so many queues, of which this is number `queue`, and of
    /// which at most `depth` are in flight. The queues take turns.
    pub(crate) fn new(rate: u64, queue: usize, queues: usize, depth: usize) -> Self {
        let interval = SECOND / u128::from(rate.max(1));
        Self {
            rate: rate.max(1),
            offset: (interval * queue as u128 / queues.max(1) as u128) as u64,
            submitted: 0,
            flights: vec![(0, 0); depth],
            free: (0..depth).rev().collect(),
        }
    }

    /// When the next request is due.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        let after = u128::from(self.submitted) * SECOND / u128::from(self.rate);
        self.offset.saturating_add(after as u64)
    }

    /// How many requests are due now.
    #[inline]
    pub(crate) fn due(&self, now: u64) -> u64 {
        let Some(since) = now.checked_sub(self.offset) else {
            return 0;
        };
        let all = u128::from(since) * u128::from(self.rate) / SECOND + 1;
        (all as u64).saturating_sub(self.submitted)
    }

    /// Somebody submits the next request; returns when it is due.
    #[inline]
    pub(crate) fn claim(&mut self) -> u64 {
        let due = self.next();
        self.submitted += 1;
        due
    }

    /// The next request is being submitted; returns its number while it is in flight.
    #[inline]
    pub(crate) fn submit(&mut self, now: u64) -> u64 {
        let due = self.claim();
        let place = self.free.pop().unwrap_or_else(|| {
            self.flights.push((0, 0));
            self.flights.len() - 1
        });
        self.flights[place] = (due, now);
        place as u64
    }

    /// The request of this number has come back; returns when it was due and when it was submitted.
    #[inline]
    pub(crate) fn landed(&mut self, number: u64) -> (u64, u64) {
        let place = number as usize;
        self.free.push(place);
        self.flights[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_equal_distances() {
        let mut pace = Pace::new(3, 0, 1, 4);
        assert_eq!(pace.due(0), 1);
        let due: Vec<u64> = (0..4)
            .map(|_| {
                let number = pace.submit(0);
                pace.landed(number).0
            })
            .collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(pace.due(1_300_000_000), 0);
        assert_eq!(pace.next(), 1_333_333_333);
        assert_eq!(pace.due(2_000_000_001), 3);
    }

    #[test]
    fn a_late_request_counts_from_when_it_was_due() {
        let mut pace = Pace::new(1000, 0, 1, 1);
        pace.submit(0);
        let late = pace.submit(5_000_000);
        assert_eq!(pace.landed(late), (1_000_000, 5_000_000));
        assert_eq!(pace.due(5_000_000), 4);
    }

    #[test]
    fn queues_take_turns() {
        let first: Vec<u64> = (0..4).map(|i| Pace::new(1000, i, 4, 1).next()).collect();
        assert_eq!(first, [0, 250_000, 500_000, 750_000]);
        assert_eq!(Pace::new(1000, 1, 4, 1).due(249_999), 0);
    }

    #[test]
    fn an_hour_at_a_million_a_second_is_no_overflow() {
        let pace = Pace::new(1_000_000_000, 0, 1, 1);
        assert_eq!(pace.due(3_600_000_000_000), 3_600_000_000_001);
    }
}
