//! What the scenarios report, one JSON object a line on a serial port of its own, and what is made
//! of it outside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest is up and about to begin.
    Booted {
        /// Seconds since the kernel started.
        seconds: f64,
    },
    /// A scenario begins.
    Started {
        /// Which.
        scenario: String,
    },
    /// A scenario has ended.
    Finished {
        /// Which.
        scenario: String,
        /// How.
        outcome: Outcome,
    },
    /// The guest cannot go on.
    Broken {
        /// Why.
        message: String,
    },
    /// All scenarios have been run.
    Done,
}

/// How a scenario ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What failed, if anything did.
    pub failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What it measured.
    pub metrics: BTreeMap<String, f64>,
    /// Texts that it left behind.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// What a boot reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Seconds from the kernel's start to the first scenario.
    pub boot_seconds: f64,
    /// The scenarios that ended.
    pub outcomes: BTreeMap<String, Outcome>,
    /// The scenario that had begun and not ended.
    pub unfinished: Option<String>,
    /// Why the guest could not go on.
    pub broken: Option<String>,
    /// Did the guest come to its end?
    pub done: bool,
}

impl Report {
    /// Reads what came through the serial port. Lines that are none of ours are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for event in text
            .lines()
            .filter_map(|line| serde_json::from_str(line.trim()).ok())
        {
            match event {
                Event::Booted { seconds } => report.boot_seconds = seconds,
                Event::Started { scenario } => report.unfinished = Some(scenario),
                Event::Finished { scenario, outcome } => {
                    report.unfinished = None;
                    report.outcomes.insert(scenario, outcome);
                }
                Event::Broken { message } => report.broken = Some(message),
                Event::Done => report.done = true,
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_cut_off_names_the_scenario_that_was_running() {
        let events = [
            Event::Booted { seconds: 2.5 },
            Event::Started {
                scenario: "one".into(),
            },
            Event::Finished {
                scenario: "one".into(),
                outcome: Outcome::default(),
            },
            Event::Started {
                scenario: "two".into(),
            },
        ];
        let mut text = String::from("noise\r\n");
        for event in &events {
            text += &format!("{}\r\n", serde_json::to_string(event).unwrap());
        }
        text += "{\"event\":\"fini";
        let report = Report::parse(&text);
        assert_eq!(report.outcomes.len(), 1);
        assert_eq!(report.unfinished.as_deref(), Some("two"));
        assert!(!report.done);
    }
}
