//! The line on the terminal that shows that something is going on.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::{settings::Settings, shared::Shared};
use crate::report::figures;

/// A line on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(settings: &Settings) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(match (settings.duration, settings.rounds) {
                (Some(time), _) => time.as_millis() as u64,
                (None, rounds) => rounds.unwrap_or_default().into(),
            })
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            begun: Instant::now(),
        }
    }

    pub(super) fn show(&self, shared: &Shared) {
        if self.bar.is_hidden() {
            return;
        }
        let round = shared.round.get();
        let counts = *shared.counts.borrow();
        self.bar.set_position(match shared.settings.duration {
            Some(_) => self.begun.elapsed().as_millis() as u64,
            None => round.into(),
        });
        self.bar.set_message(format!(
            "round {round}, {} written, {} verified",
            figures::plural(counts.appends + counts.writes, "record"),
            figures::count(counts.records_verified)
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
