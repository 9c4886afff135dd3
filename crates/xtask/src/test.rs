//! `cargo xtask test`: everything that has to hold, in the order of what fails soonest.

use anyhow::Result;

use crate::step::{cargo, execute, step};
use crate::{setup, static_guest};

/// The rings on which the tests of the doors are run besides the software device's default, as its
/// options.
const DEVICES: [&str; 5] = [
    "in-order=on",
    "ring=packed",
    "ring=packed,in-order=on",
    "ring=packed,notification-data=on,notif-config-data=on",
    "ring=packed,indirect=off,in-order=on",
];

pub(crate) fn run() -> Result<()> {
    step("format", || run_cargo(&["fmt", "--all", "--check"]))?;
    setup::run()?;
    step("lints", || {
        run_cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    step("docs", || {
        execute(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    // All but the example with a large engine, whose tests are the step after the guest's programs.
    step("tests", || run_cargo(&["test"]))?;
    for device in DEVICES {
        step(&format!("tests on {device}"), || {
            // Not of one package: with the features of that alone, all would be built again. What
            // other packages have under this name takes seconds.
            let mut tests = cargo(&["test", "--test", "device"]);
            execute(tests.env("ZBD_TEST_DEVICE", device))
        })?;
    }
    static_guest::run()?;
    step("tests of the engine", static_guest::engine_tests)?;
    step("tests in a guest", || {
        run_cargo(&[
            "test",
            "-p",
            "zbd-tests",
            "--test",
            "main",
            "--",
            "--ignored",
            "--show-output",
        ])
    })
}

fn run_cargo(arguments: &[&str]) -> Result<()> {
    execute(&mut cargo(arguments))
}
