//! What happened in each second.

/// The length of an interval in nanoseconds.
const INTERVAL: u64 = 1_000_000_000;

/// One second of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// How many requests succeeded in it.
    pub(crate) ios: u64,
    /// The sum of their latencies in nanoseconds, and the greatest.
    pub(crate) latency_sum: u64,
    pub(crate) latency_max: u64,
}

impl Second {
    /// The mean of the latencies in nanoseconds, 0 if there are none.
    pub(crate) fn latency_mean(&self) -> f64 {
        match self.ios {
            0 => 0.0,
            ios => self.latency_sum as f64 / ios as f64,
        }
    }
}

/// The seconds of a job, the last of which may be incomplete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    seconds: Vec<Second>,
}

impl Series {
    /// Has room for a while, so that it seldom allocates.
    pub(crate) fn new() -> Self {
        Self {
            seconds: Vec::with_capacity(1024),
        }
    }

    /// So many requests ended at this time after the start, after so long; all in nanoseconds.
    #[inline]
    pub(crate) fn add(&mut self, at: u64, latency: u64, count: u64) {
        let end = self.seconds.len() as u64 * INTERVAL;
        if at >= end {
            self.advance(at);
        }
        // Times never go back.
        if let Some(second) = self.seconds.last_mut() {
            second.ios += count;
            second.latency_sum = second.latency_sum.saturating_add(latency * count);
            second.latency_max = second.latency_max.max(latency);
        }
    }

    #[cold]
    fn advance(&mut self, at: u64) {
        let seconds = (at / INTERVAL + 1) as usize;
        self.seconds.resize(seconds, Second::default());
    }

    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// Adds what happened elsewhere in the same seconds.
    pub(crate) fn merge(&mut self, other: &Self) {
        let len = self.seconds.len().max(other.seconds.len());
        self.seconds.resize(len, Second::default());
        for (ours, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            ours.ios += theirs.ios;
            ours.latency_sum = ours.latency_sum.saturating_add(theirs.latency_sum);
            ours.latency_max = ours.latency_max.max(theirs.latency_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(requests: &[(u64, u64, u64)]) -> Series {
        let mut series = Series::new();
        for &(at, latency, count) in requests {
            series.add(at, latency, count);
        }
        series
    }

    #[test]
    fn requests_count_in_the_second_in_which_they_end() {
        let series = series(&[
            (0, 10, 1),
            (999_999_999, 30, 3),
            (1_000_000_000, 7, 1),
            (3_500_000_000, 5, 1),
        ]);
        let ios: Vec<u64> = series.seconds().iter().map(|second| second.ios).collect();
        assert_eq!(ios, [4, 1, 0, 1]);
        assert_eq!(series.seconds()[0].latency_mean(), 25.0);
        assert_eq!(series.seconds()[0].latency_max, 30);
        assert_eq!(series.seconds()[2].latency_mean(), 0.0);
    }

    #[test]
    fn queues_are_added_second_by_second() {
        let mut one = series(&[(0, 10, 1)]);
        one.merge(&series(&[(0, 20, 1), (1_000_000_000, 5, 2)]));
        let ios: Vec<u64> = one.seconds().iter().map(|second| second.ios).collect();
        assert_eq!(ios, [2, 2]);
        assert_eq!(one.seconds()[0].latency_mean(), 15.0);
    }
}
