//! `cargo xtask test`: everything that has to hold, in the order of what fails soonest.

use anyhow::Result;

use crate::step::{cargo, execute, step};
use crate::{setup, static_guest};

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
    step("tests", || run_cargo(&["test", "--workspace"]))?;
    static_guest::run()?;
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
