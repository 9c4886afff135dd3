//! The line on the terminal that shows that something is going on.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;
use indicatif::{ProgressBar, ProgressStyle};

use super::plan::Length;
use crate::report::figures;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// How many requests each queue has completed so far, for whoever looks from outside.
#[derive(Debug)]
pub(crate) struct Counters(Box<[CachePadded<AtomicU64>]>);

impl Counters {
    pub(crate) fn new(queues: u16) -> Self {
        Self((0..queues).map(|_| CachePadded::default()).collect())
    }

    /// The counter of a queue, which alone stores to it.
    pub(crate) fn of(&self, queue: usize) -> &AtomicU64 {
        &self.0[queue]
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Total {
    /// Whatever can be done in this time.
    Time(Duration),
    /// So many requests.
    Count(u64),
    /// So many parts, which take about as long each.
    Steps(u64),
}

impl From<Length> for Total {
    fn from(length: Length) -> Self {
        match length {
            Length::Runtime(time) => Self::Time(time),
            Length::Count(count) => Self::Count(count),
        }
    }
}

impl Total {
    /// How long it will take after this time and so much done, unless that is not known yet.
    fn left(self, elapsed: Duration, done: u64) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time.saturating_sub(elapsed)),
            Self::Count(_) | Self::Steps(_) if done == 0 => None,
            Self::Count(total) | Self::Steps(total) => {
                let left = total.saturating_sub(done) as f64 / done as f64;
                Duration::try_from_secs_f64(elapsed.as_secs_f64() * left).ok()
            }
        }
    }
}

/// A line on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    total: Total,
}

impl Progress {
    pub(crate) fn new(total: impl Into<Total>) -> Self {
        let total = total.into();
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(match total {
                Total::Time(time) => time.as_millis() as u64,
                Total::Count(count) | Total::Steps(count) => count,
            })
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar, total }
    }

    /// Nothing on any terminal.
    pub(crate) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            total: Total::Steps(0),
        }
    }

    /// Shows what is being done.
    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows how far the job is until `ended`.
    pub(crate) fn follow(&self, counters: &Counters, ended: impl Fn() -> bool) {
        let begun = Instant::now();
        let mut before = (begun, 0);
        while !ended() {
            std::thread::sleep(INTERVAL);
            let (now, done) = (Instant::now(), counters.sum());
            let rate = (done - before.1) as f64 / (now - before.0).as_secs_f64();
            before = (now, done);
            self.show(now - begun, done, rate);
        }
    }

    /// Shows how far the job is, and how fast.
    pub(crate) fn show(&self, elapsed: Duration, done: u64, rate: f64) {
        self.advance(elapsed, done, &format!("{} IOPS", figures::rate(rate)));
    }

    /// Shows how far it is, with the time that is left after what else there is to say.
    pub(crate) fn advance(&self, elapsed: Duration, done: u64, what: &str) {
        self.bar.set_position(match self.total {
            Total::Time(_) => elapsed.as_millis() as u64,
            Total::Count(_) | Total::Steps(_) => done,
        });
        self.say(match self.total.left(elapsed, done) {
            Some(left) => format!("{what}, {} left", clock(left)),
            None => what.to_owned(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A time as a clock shows it, which keeps its width while it runs down.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_left_follows_from_what_was_done() {
        assert_eq!(
            Total::Time(5 * SECOND).left(2 * SECOND, 7),
            Some(3 * SECOND)
        );
        assert_eq!(
            Total::Time(SECOND).left(2 * SECOND, 0),
            Some(Duration::ZERO)
        );
        assert_eq!(Total::Count(400).left(SECOND, 100), Some(3 * SECOND));
        assert_eq!(Total::Count(400).left(SECOND, 500), Some(Duration::ZERO));
        assert_eq!(Total::Steps(3).left(4 * SECOND, 2), Some(2 * SECOND));
        assert_eq!(Total::Steps(3).left(SECOND, 0), None);
        assert_eq!(Total::Count(u64::MAX).left(Duration::MAX, 1), None);
    }

    #[test]
    fn times_are_shown_as_on_a_clock() {
        assert_eq!(clock(Duration::from_millis(1)), "0:01");
        assert_eq!(clock(SECOND * 90), "1:30");
        assert_eq!(clock(SECOND * 3_661), "1:01:01");
    }
}
