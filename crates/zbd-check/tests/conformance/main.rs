//! The suite on the software device: as it is, and as it should not be.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod conforming;
mod deviating;

use std::sync::Arc;

use vfio_virtio::PciFunction;
use zbd_check::{Options, Outcome, Suite, requirements};
use zbd_emu::EmulatedFunction;

/// The smallest zones with room for what the checks do.
const SMALL: &str = "zones=8,zone-size=64k,block-size=4096,max-append=16k,max-open=3,max-active=5";

/// What came of every requirement.
fn outcomes(function: Arc<dyn PciFunction>) -> Vec<(&'static str, Outcome)> {
    let mut options = Options::default();
    // No device here takes long; one that never answers shall not hold the tests up.
    options.patience = std::time::Duration::from_secs(2);
    let mut suite = Suite::open(function, options).unwrap();
    requirements()
        .into_iter()
        .map(|requirement| (requirement.id, suite.check(requirement)))
        .collect()
}

fn emulated(options: &str) -> EmulatedFunction {
    EmulatedFunction::new(&options.parse().unwrap()).unwrap()
}

/// The requirements that are not met, each with its evidence.
fn failing(outcomes: &[(&'static str, Outcome)]) -> Vec<(&'static str, String)> {
    outcomes
        .iter()
        .filter_map(|(id, outcome)| match outcome {
            Outcome::Fail(evidence) => {
                let told: Vec<_> = evidence.exchanges.iter().map(ToString::to_string).collect();
                Some((*id, format!("{}\n{}", evidence.found, told.join("\n"))))
            }
            _ => None,
        })
        .collect()
}

/// The names of the requirements with this outcome.
fn named(outcomes: &[(&'static str, Outcome)], name: &str) -> Vec<&'static str> {
    outcomes
        .iter()
        .filter(|(_, outcome)| outcome.name() == name)
        .map(|(id, _)| *id)
        .collect()
}
