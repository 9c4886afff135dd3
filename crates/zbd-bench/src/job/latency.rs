//! Latencies, kept so that recording one neither allocates nor fails.

use hdrhistogram::Histogram;

/// Latencies up to this are told apart; longer ones count as this.
const MAX_NS: u64 = 100_000_000_000;
/// One part in a thousand.
const DIGITS: u8 = 3;

/// The latencies of a job in nanoseconds.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants that are allowed"
    )]
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("the bounds are valid"))
    }

    /// Records that `count` requests took `ns`.
    #[inline]
    pub(crate) fn record(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Cannot fail: the bounds are the same.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The shortest, 0 if there are none.
    pub(crate) fn min(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.min() }
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    /// How many requests took how long.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value()))
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.mean()
    }

    pub(crate) fn stddev(&self) -> f64 {
        self.0.stdev()
    }

    /// What so many percent of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_bounds_counts_as_the_greatest() {
        let mut latency = Latency::new();
        latency.record(u64::MAX, 1);
        latency.record(0, 3);
        assert_eq!(latency.count(), 4);
        assert!(latency.max() >= MAX_NS);
        assert_eq!(latency.percentile(50.0), 0);
    }
}
