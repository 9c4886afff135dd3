//! Latencies, and figures of several rounds.

use std::time::Duration;

/// Percentiles of one round, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

impl Percentiles {
    /// Of at least one time.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            let time = times.get(rank.saturating_sub(1));
            time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
        }
    }
}

/// The middle of several figures, with the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (figures.len().saturating_sub(1) / 2, figures.len() / 2);
        Self {
            median: f64::midpoint(at(low), at(high)),
            least: at(0),
            greatest: at(figures.len().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        let percentiles = Percentiles::of(times);
        let near = |figure: f64, expected: f64| (figure - expected).abs() < 1e-6;
        assert!(near(percentiles.p50, 50.0) && near(percentiles.p90, 90.0));
        assert!(near(percentiles.p99, 99.0), "{percentiles:?}");
    }

    #[test]
    fn spread_has_the_middle() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert!((spread(&[3.0, 1.0, 2.0]).median - 2.0).abs() < 1e-9);
        let even = spread(&[4.0, 1.0, 2.0, 3.0]);
        assert!((even.median - 2.5).abs() < 1e-9);
        assert!((even.least - 1.0).abs() < 1e-9 && (even.greatest - 4.0).abs() < 1e-9);
    }
}
