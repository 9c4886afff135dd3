//! `cargo xtask pictures`: the charts and reports of `docs/measurements`, anew.

use std::fs;

use anyhow::Result;

use crate::step::{cargo, execute, step};
use crate::{paths, setup, static_guest};

/// Sweeps of the software device: what they are called, and of which device.
const EMULATED: [(&str, &str); 2] = [("emu-null", "emu:store=null"), ("emu-mem", "emu:")];

pub(crate) fn run() -> Result<()> {
    let into = paths::root().join("docs/measurements");
    fs::create_dir_all(&into)?;
    for (name, device) in EMULATED {
        step(&format!("sweep of {device}"), || {
            let file = |extension: &str| into.join(format!("{name}.{extension}"));
            let mut sweep = cargo(&[
                "run",
                "--release",
                "--quiet",
                "--package",
                "zbd-bench",
                "--",
            ]);
            sweep.args(["sweep", "--device", device, "--repeat", "5"]);
            sweep.arg("--plot").arg(file("svg"));
            sweep.arg("--output").arg(file("txt"));
            execute(&mut sweep)
        })?;
    }
    setup::run()?;
    static_guest::run()?;
    step("sweeps and more in a guest", || {
        let mut bench = cargo(&["bench", "--quiet", "--package", "zbd-tests"]);
        bench
            .args(["--bench", "guest", "--", "pictures"])
            .arg(&into);
        execute(&mut bench)
    })
}
