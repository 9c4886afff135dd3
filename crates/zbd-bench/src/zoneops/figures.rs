//! What was measured.

use crate::{job::latency::Latency, spread::Spread};

/// The windows of one kind in a round.
#[derive(Debug)]
pub(crate) struct Phase {
    /// In nanoseconds.
    pub(crate) time: u64,
    pub(crate) windows: u64,
    /// Appends that ended in this time.
    pub(crate) ios: u64,
    /// Of appends that were in flight in this time.
    pub(crate) latency: Latency,
    /// Of the operations beside them.
    pub(crate) operations: Latency,
}

/// The appends alone, and beside an operation.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) alone: Phase,
    pub(crate) loaded: Phase,
}

/// All rounds of an operation beside appends.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) rounds: Vec<RoundFigures>,
    pub(crate) alone: Phase,
    pub(crate) loaded: Phase,
}

/// What is kept of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundFigures {
    pub(crate) alone: AppendFigures,
    pub(crate) loaded: AppendFigures,
}

/// The appends of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendFigures {
    pub(crate) iops: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl Phase {
    pub(crate) fn new() -> Self {
        Self {
            time: 0,
            windows: 0,
            ios: 0,
            latency: Latency::new(),
            operations: Latency::new(),
        }
    }

    /// How many appends ended in a second.
    pub(crate) fn iops(&self) -> f64 {
        match self.time {
            0 => 0.0,
            time => self.ios as f64 * 1e9 / time as f64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.time += other.time;
        self.windows += other.windows;
        self.ios += other.ios;
        self.latency.merge(&other.latency);
        self.operations.merge(&other.operations);
    }

    fn figures(&self) -> AppendFigures {
        AppendFigures {
            iops: self.iops(),
            p50: self.latency.percentile(50.0),
            p99: self.latency.percentile(99.0),
        }
    }
}

impl Round {
    pub(crate) fn new() -> Self {
        Self {
            alone: Phase::new(),
            loaded: Phase::new(),
        }
    }

    /// Whether there is something to compare.
    pub(crate) fn counts(&self) -> bool {
        let comparable = |phase: &Phase| phase.time > 0 && phase.latency.count() > 0;
        self.alone.ios > 0 && comparable(&self.alone) && comparable(&self.loaded)
    }
}

impl Beside {
    pub(crate) fn new() -> Self {
        Self {
            rounds: Vec::new(),
            alone: Phase::new(),
            loaded: Phase::new(),
        }
    }

    pub(crate) fn add(&mut self, round: &Round) {
        self.rounds.push(RoundFigures {
            alone: round.alone.figures(),
            loaded: round.loaded.figures(),
        });
        self.alone.add(&round.alone);
        self.loaded.add(&round.loaded);
    }

    /// How much of their rate the appends keep, over the rounds, of which there is one at least.
    pub(crate) fn iops_ratio(&self) -> Spread {
        self.spread(|round| round.loaded.iops / round.alone.iops)
    }

    /// How much longer half of the appends take.
    pub(crate) fn p50_ratio(&self) -> Spread {
        self.spread(|round| ratio(round.loaded.p50, round.alone.p50))
    }

    /// How much longer the slowest of a hundred appends take.
    pub(crate) fn p99_ratio(&self) -> Spread {
        self.spread(|round| ratio(round.loaded.p99, round.alone.p99))
    }

    /// Whether the windows were long enough to compare rates: several times as long as all appends
    /// of a queue take. In shorter ones it counts too much with which of them they begin and end.
    pub(crate) fn is_telling(&self, depth: u16) -> bool {
        const TURNS: f64 = 8.0;
        let window = self.loaded.time as f64 / self.loaded.windows.max(1) as f64;
        let turn = f64::from(depth) * 1e9 / self.alone.iops();
        window >= TURNS * turn
    }

    fn spread(&self, of: impl Fn(&RoundFigures) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(of))
    }
}

fn ratio(loaded: u64, alone: u64) -> f64 {
    loaded as f64 / alone.max(1) as f64
}

/// Where the ratios lie, all of them.
pub(crate) fn side(ratios: Spread) -> Side {
    if ratios.max < 1.0 {
        Side::Below
    } else if ratios.min > 1.0 {
        Side::Above
    } else {
        Side::Around
    }
}

/// Where ratios lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Below,
    Around,
    Above,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(time: u64, ios: u64, latency: u64) -> Phase {
        let mut phase = Phase::new();
        phase.time = time;
        phase.ios = ios;
        phase.latency.record(latency, ios);
        phase
    }

    #[test]
    fn ratios_of_all_rounds_tell_on_which_side_they_lie() {
        let of = |ratios: [f64; 2]| side(Spread::of(ratios));
        assert_eq!(of([0.5, 0.9]), Side::Below);
        assert_eq!(of([0.5, 1.1]), Side::Around);
        assert_eq!(of([1.1, 1.9]), Side::Above);
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let mut beside = Beside::new();
        for (factor, ios) in [(1, 1000), (2, 500), (4, 250)] {
            // The device gets slower from round to round, and operations halve what is left.
            beside.add(&Round {
                alone: phase(1_000_000, ios, 100 * factor),
                loaded: phase(2_000_000, ios, 300 * factor),
            });
        }
        let iops = beside.iops_ratio();
        assert_eq!((iops.min, iops.median, iops.max), (0.5, 0.5, 0.5));
        let p99 = beside.p99_ratio();
        assert!((p99.median - 3.0).abs() < 0.02, "{p99:?}");
        assert_eq!(beside.alone.ios, 1750);
    }

    #[test]
    fn a_round_in_which_nothing_ended_does_not_count() {
        let empty = Round::new();
        assert!(!empty.counts());
        // An operation that stops all appends does.
        let mut stopped = phase(1_000_000, 0, 0);
        stopped.latency.record(2_000_000, 32);
        let round = Round {
            alone: phase(1_000_000, 100, 100),
            loaded: stopped,
        };
        assert!(round.counts());
    }
}
