//! Which scenarios to run: those whose tests were asked for on the test binary's command line.

use super::machine::Machine;
use crate::scenarios::{self, Scenario};

/// The module of the test binary in which the scenarios' tests lie.
pub const MODULE: &str = "guest";

/// Names of the scenarios on `machine` that this test run will look at.
#[must_use]
pub fn selected(machine: &Machine) -> Vec<String> {
    let filters = Filters::parse(std::env::args().skip(1));
    let on_machine = |scenario: &&Scenario| scenario.machine.name == machine.name;
    let names = scenarios::ALL
        .iter()
        .filter(on_machine)
        .map(|scenario| scenario.name.to_owned());
    names
        .filter(|name| filters.ask_for(&format!("{MODULE}::{name}")))
        .collect()
}

/// The part of libtest's options that selects tests.
#[derive(Debug, Default)]
struct Filters {
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
}

impl Filters {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut filters = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => filters.exact = true,
                "--skip" => filters.skipped.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                option if option.starts_with('-') => {}
                _ => filters.names.push(argument),
            }
        }
        filters
    }

    fn ask_for(&self, test: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact {
                test == filter
            } else {
                test.contains(filter.as_str())
            }
        };
        (self.names.is_empty() || self.names.iter().any(matches))
            && !self.skipped.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(arguments: &str, test: &str) -> bool {
        Filters::parse(arguments.split_whitespace().map(str::to_owned)).ask_for(test)
    }

    #[test]
    fn selection_follows_the_test_runners_own() {
        assert!(asks(
            "--ignored --test-threads 2",
            "guest::main::kernel::one"
        ));
        assert!(asks(
            "--ignored kernel embedded",
            "guest::main::kernel::one"
        ));
        assert!(!asks("--ignored kernel", "guest::main::append::one"));
        assert!(!asks("--exact kernel", "guest::main::kernel::one"));
        assert!(!asks("kernel --skip one", "guest::main::kernel::one"));
    }
}
