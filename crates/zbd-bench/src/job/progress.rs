//! The line on the terminal that shows that something is going on.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;
use indicatif::{ProgressBar, ProgressStyle};

use super::plan::{Job, Length};
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

/// A line on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    length: Length,
}

impl Progress {
    pub(crate) fn new(job: &Job) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(match job.length {
                Length::Runtime(time) => time.as_millis() as u64,
                Length::Count(count) => count,
            })
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            length: job.length,
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

    /// Shows how far the job is.
    pub(crate) fn show(&self, elapsed: Duration, done: u64, rate: f64) {
        self.bar.set_position(match self.length {
            Length::Runtime(_) => elapsed.as_millis() as u64,
            Length::Count(_) => done,
        });
        self.say(format!("{} IOPS", figures::rate(rate)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
