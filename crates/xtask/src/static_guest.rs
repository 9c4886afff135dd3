//! `cargo xtask guest-build`: the static programs that run in the guest, and the shim under it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::paths;
use crate::step::{cargo, execute, step};

/// The engine's own tests, built as the program for the guest is, so that the engine is built once.
pub(crate) fn engine_tests() -> Result<()> {
    let into = paths::target()?.join("guest-build");
    let mut tests = static_cargo("test", &into);
    execute(tests.args(["--profile", "engine", "--package", "slatedb-wal"]))
}

/// Cargo, making static programs in `into`.
fn static_cargo(command: &str, into: &Path) -> Command {
    let mut cargo = cargo(&[command, "--target", TARGET, "--target-dir"]);
    cargo.arg(into);
    // Flags in the general variable would win over the ones for the target.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env(
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-C target-feature=+crt-static",
    );
    cargo
}

/// The target of the static programs; named so that flags meant for them spare build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest is an x86-64 machine, and this is none"
    );
    let into = paths::target()?.join("guest-build");
    step("guest programs", || {
        let mut build = static_cargo("build", &into);
        build.args(["--release", "--quiet"]);
        build.args(["--package", "zbd-tests", "--bin", "zbd-guest"]);
        build.args(["--package", "zbd-bench", "--bin", "zbd-bench"]);
        execute(&mut build)
    })?;
    step("guest engine", || {
        let mut build = static_cargo("build", &into);
        build.args(["--quiet", "--profile", "engine", "--package", "slatedb-wal"]);
        execute(&mut build)
    })?;
    step("zoned-file shim", || {
        let mut build = cargo(&[
            "build",
            "--release",
            "--quiet",
            "--package",
            "zbd-zoned-file-shim",
        ]);
        execute(build.arg("--target-dir").arg(&into))
    })
}
