//! The line on the terminal that shows what is being measured.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A line on standard error, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shows a number of steps.
    pub(super) fn new(steps: u64) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(steps)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg:<36}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows what is being done.
    pub(super) fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// So many steps have been made.
    pub(super) fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
