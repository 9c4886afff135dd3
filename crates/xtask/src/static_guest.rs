//! `cargo xtask guest-build`: the static programs that run in the guest, and the shim under it.

use anyhow::{Result, ensure};

use crate::paths;
use crate::step::{cargo, execute, step};

/// The target of the static programs; named so that flags meant for them spare build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest is an x86-64 machine, and this is none"
    );
    let into = paths::target()?.join("guest-build");
    step("guest programs", || {
        let mut build = cargo(&["build", "--release", "--quiet", "--target", TARGET]);
        build.args(["--package", "zbd-tests", "--bin", "zbd-guest"]);
        build.args(["--package", "zbd-bench", "--bin", "zbd-bench"]);
        build.arg("--target-dir").arg(&into);
        // Flags in the general variable would win over the ones for the target.
        build
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        build.env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        );
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
