//! Drivers on devices that lie, as random bytes have it.
//!
//! `ZBD_HOSTILE_CASES` says how many strings of bytes each trial gets; without it, as many as a test
//! has time for.

use std::env;

use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, TestError, TestRunner},
};
use zbd_hostile::trial;

const CASES: u32 = 2000;

fn try_on(trial: fn(&[u8]), longest: usize) {
    let cases = match env::var("ZBD_HOSTILE_CASES") {
        Ok(cases) => cases.parse().expect("ZBD_HOSTILE_CASES is a number"),
        Err(_) => CASES,
    };
    let mut config = Config::with_cases(cases);
    config.failure_persistence = None;
    let outcome = TestRunner::new(config).run(&vec(any::<u8>(), 0..longest), |bytes| {
        trial(&bytes);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, bytes)) => panic!("{why}, with {bytes:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_driver_keeps_its_promises_on_a_device_that_lies_about_everything() {
    try_on(trial::function, 1024);
}

#[test]
fn a_split_queue_keeps_its_promises_to_a_device_that_lies() {
    try_on(trial::split_queue, 1024);
}

#[test]
fn a_packed_queue_keeps_its_promises_to_a_device_that_lies() {
    try_on(trial::packed_queue, 1024);
}

#[test]
fn reports_that_are_random_are_refused_or_make_sense() {
    try_on(trial::report, 512);
}
