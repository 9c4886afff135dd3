//! `cargo xtask sanitize`: futures dropped at every await point, under AddressSanitizer.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::step::{execute, output, step};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// How many random schedules each test runs where nothing else is said.
const SCHEDULES: u64 = 2000;
/// The tests: what holds them, and a part of their names.
const TESTS: [(&str, &str); 5] = [
    ("device", "dropping::"),
    ("device", "cancellation::"),
    ("device", "bytes"),
    ("device", "large::"),
    ("log", "cancellation::"),
];

pub(crate) fn run(schedules: &[&str]) -> Result<()> {
    let schedules = match schedules {
        [] => SCHEDULES,
        [schedules] => schedules
            .parse()
            .with_context(|| format!("'{schedules}' is no number of schedules"))?,
        _ => bail!("one number, of schedules, is all that sanitize takes"),
    };
    output(Command::new("cargo").args(["+nightly", "--version"]))
        .context("AddressSanitizer takes a nightly toolchain: rustup toolchain install nightly")?;
    let target = crate::paths::target()?.join("sanitize");
    for (tests, name) in TESTS {
        step(&format!("{tests} {name} under AddressSanitizer"), || {
            execute(
                Command::new("cargo")
                    .args(["+nightly", "test", "-p", "zbd-core", "--target", TARGET])
                    .args(["--test", tests, "--", name])
                    .env("RUSTFLAGS", "-Zsanitizer=address")
                    // Apart, so that nothing else is built anew for the sake of the flags.
                    .env("CARGO_TARGET_DIR", &target)
                    .env("ZBD_TEST_SCHEDULES", schedules.to_string())
                    .current_dir(crate::paths::root()),
            )
        })?;
    }
    Ok(())
}
