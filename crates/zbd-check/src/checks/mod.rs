//! The requirements, each next to the code that looks whether it is met.

mod appends;
mod configuration;
mod conventional;
mod failed;
mod features;
mod framing;
mod limits;
mod ranges;
mod reads;
mod reports;
mod requests;
mod states;
mod writes;

use crate::Requirement;

pub(crate) const ALL: &[&[Requirement]] = &[
    features::ALL,
    configuration::ALL,
    framing::ALL,
    requests::ALL,
    ranges::ALL,
    reports::ALL,
    conventional::ALL,
    states::ALL,
    limits::ALL,
    writes::ALL,
    appends::ALL,
    reads::ALL,
    failed::ALL,
];
