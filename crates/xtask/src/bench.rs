//! `cargo xtask bench`: what the driver does for one request, counted, against its budgets.
//!
//! Instructions are counted by callgrind, in the driver's functions only, on a software device that
//! is stepped: the figures are the same on every run and every x86-64 machine. The peer is the
//! crate `virtio-driver`, counted by the same loops in the same run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::step::{cargo, output, step};

/// How many requests are counted each time.
const REQUESTS: u32 = 12_800;
const OPERATIONS: &[&str] = &["append", "write", "read"];
const DEPTHS: &[u32] = &[1, 32, 128];
/// What the loops around the layers cost is counted apart and taken off.
const HARNESS: &str = "harness";

struct Layer {
    name: &'static str,
    what: &'static str,
    /// The most instructions a request may take at depth 1, and at 32 and more.
    budget: Option<(f64, f64)>,
    operations: &'static [&'static str],
    /// The greatest depth that the layer can hold.
    depth_max: u32,
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "blk-queue",
        what: "ring and virtio-blk layer (split, indirect)",
        budget: Some((180.0, 80.0)),
        operations: OPERATIONS,
        depth_max: 256,
    },
    Layer {
        name: "io-queue",
        what: "IoQueue, the whole of it",
        budget: Some((f64::INFINITY, 180.0)),
        operations: OPERATIONS,
        depth_max: 256,
    },
    Layer {
        name: "virtio-driver",
        what: "the crate virtio-driver, for comparison (knows no append)",
        budget: None,
        operations: &["write", "read"],
        // It never uses INDIRECT: 256 entries hold 85 requests.
        depth_max: 85,
    },
];

pub(crate) fn run() -> Result<()> {
    let program = build()?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!("valgrind is missing; install it (Debian: apt-get install valgrind)");
    }
    println!("instructions per 4 KiB request, submit and complete, by callgrind");
    // The harness does the same whatever the operation.
    let mut harness = BTreeMap::new();
    for &depth in DEPTHS {
        harness.insert(depth, count(&program, HARNESS, OPERATIONS[0], depth)?);
    }
    let mut missed = 0;
    for layer in LAYERS {
        println!("\n{}", layer.what);
        println!("  operation  depth      all  harness      net   budget");
        for operation in layer.operations {
            for &depth in DEPTHS.iter().filter(|depth| **depth <= layer.depth_max) {
                let all = count(&program, layer.name, operation, depth)?;
                let harness = harness[&depth];
                let net = all - harness;
                let budget = layer
                    .budget
                    .map(|(one, many)| if depth == 1 { one } else { many });
                let verdict = match budget.filter(|budget| budget.is_finite()) {
                    None => "-".to_owned(),
                    Some(budget) if net <= budget => format!("{budget:.0}, met"),
                    Some(budget) => {
                        missed += 1;
                        format!("{budget:.0}, MISSED")
                    }
                };
                println!("  {operation:9} {depth:6} {all:8.1} {harness:8.1} {net:8.1}   {verdict}");
            }
        }
    }
    if missed > 0 {
        bail!("{missed} budgets missed");
    }
    Ok(())
}

/// Builds the benchmark and returns the program.
fn build() -> Result<PathBuf> {
    let mut program = None;
    step("build", || {
        let built = output(&mut cargo(&[
            "bench",
            "--package",
            "zbd-core",
            "--bench",
            "requests",
            "--no-run",
            "--message-format=json",
        ]))?;
        program = built.lines().rev().find_map(executable);
        Ok(())
    })?;
    program.context("cargo did not say where the benchmark is")
}

/// The program that a line of cargo's JSON names, if it does.
fn executable(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(path.into())
}

/// Instructions per request.
fn count(program: &PathBuf, layer: &str, operation: &str, depth: u32) -> Result<f64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*counted_*")
        .arg(program)
        .args([layer, operation, &depth.to_string(), &REQUESTS.to_string()]);
    let done = command.output().context("cannot start valgrind")?;
    let log = String::from_utf8_lossy(&done.stderr);
    let collected = log
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse::<f64>().ok());
    match collected {
        Some(collected) if done.status.success() => Ok(collected / f64::from(REQUESTS)),
        _ => bail!(
            "{layer} {operation} at depth {depth}: {}\n{log}",
            done.status
        ),
    }
}
