//! In a QEMU guest, over VFIO: requests a second beside libblkio and the kernel, all in one boot, and
//! in another what the guest executes for a request, counted by a plugin of QEMU's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::budgets::{Budget, Budgets};
use super::statistics::Samples;
use crate::step::{cargo, execute, output, step};
use crate::{paths, setup, static_guest};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// By job (`DISK/OPERATION/DRIVER`) and what was measured.
type Measured = BTreeMap<(String, String), Samples>;

pub(crate) fn run(budgets: &mut Budgets) -> Result<()> {
    setup::run()?;
    static_guest::run()?;
    let built = Built::build()?;
    speed(&measure("speed", &[&built.peers])?, budgets);
    instructions(
        &measure("instructions", &[&built.peers, &built.plugin])?,
        budgets,
    );
    Ok(())
}

/// What only this benchmark needs.
struct Built {
    peers: PathBuf,
    plugin: PathBuf,
}

impl Built {
    fn build() -> Result<Self> {
        let into = paths::target()?.join("guest-peers");
        let build = |name: &str, arguments: &[&str], flags: &str| {
            step(name, || {
                let manifest = paths::root().join(name).join("Cargo.toml");
                let mut build = cargo(&["build", "--release", "--quiet", "--manifest-path"]);
                build.arg(manifest).args(arguments);
                build.arg("--target-dir").arg(&into);
                // Flags in the general variable would win over the ones for the target.
                build
                    .env_remove("RUSTFLAGS")
                    .env_remove("CARGO_ENCODED_RUSTFLAGS");
                build.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
                execute(&mut build)
            })
        };
        let is_static = "-C target-feature=+crt-static";
        build("tests/peers", &["--target", TARGET], is_static)?;
        build("tests/plugin", &[], "")?;
        Ok(Self {
            peers: into.join(TARGET).join("release/zbd-peers"),
            plugin: into.join("release/libzbd_count_plugin.so"),
        })
    }
}

/// Runs a measurement in the guest.
fn measure(what: &str, files: &[&Path]) -> Result<Measured> {
    let mut measured = Measured::new();
    step(&format!("{what} in a guest"), || {
        let mut bench = cargo(&["bench", "--quiet", "--package", "zbd-tests"]);
        bench.args(["--bench", "guest", "--", what]).args(files);
        for line in output(&mut bench)?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [job, _round, what, value] = words[..] else {
                continue;
            };
            if job.matches('/').count() == 2 {
                let value = value.parse().with_context(|| line.to_owned())?;
                let key = (job.to_owned(), what.to_owned());
                measured.entry(key).or_default().add(value);
            }
        }
        Ok(())
    })?;
    Ok(measured)
}

fn of<'a>(measured: &'a Measured, job: &str, what: &str) -> Option<&'a Samples> {
    measured.get(&(job.to_owned(), what.to_owned()))
}

const DISKS: [&str; 4] = [
    "merged-split",
    "merged-packed",
    "unmerged-split",
    "unmerged-packed",
];
const OPERATIONS: [&str; 3] = ["write", "read", "append"];
const DRIVERS: [&str; 4] = ["zbd", "libblkio", "kernel", "kernel-batched"];

fn speed(measured: &Measured, budgets: &mut Budgets) {
    let rounds = measured.values().next().map_or(0, Samples::len);
    println!(
        "\n4 KiB requests a second in a QEMU guest under TCG, depth 32, one zone, one queue; median \
         (least-greatest) of {rounds}\nalternating runs in one boot. QEMU merges neighbouring \
         writes and reads of the merged disks, as it does by default, and\nnever appends; the kernel \
         merges by itself. libblkio: the crate blkio 0.5.1, polled. kernel: io_uring, a system call\n\
         a request, as fio does it; kernel-batched: one for all that is ready.\n\
         per doorbell: requests a doorbell, the peers' a submission (what the kernel makes of one is \
         its affair);\nper operation: requests an operation on the file behind the disk; ratio: of \
         medians, zbd's over this one\n"
    );
    println!(
        "  {:16} {:7} {:15} {:24} {:>12} {:>13} {:>6}",
        "disk", "", "driver", "requests a second", "per doorbell", "per operation", "ratio"
    );
    for disk in DISKS {
        for operation in OPERATIONS {
            let ours = of(measured, &format!("{disk}/{operation}/zbd"), "iops");
            for driver in DRIVERS {
                let job = format!("{disk}/{operation}/{driver}");
                let Some(iops) = of(measured, &job, "iops") else {
                    continue;
                };
                let median = |what: &str| of(measured, &job, what).map_or(0.0, Samples::median);
                let ratio = ours.map_or(0.0, Samples::median) / iops.median();
                println!(
                    "  {disk:16} {operation:7} {driver:15} {:24} {:12.1} {:13.1} {ratio:6.2}",
                    format!("{iops:.0}"),
                    median("requests_per_doorbell"),
                    median("requests_per_operation"),
                );
                if disk.starts_with("merged") && operation != "append" {
                    let budget = match driver {
                        "libblkio" => Some(Budget::GuestOverLibblkio),
                        "kernel" => Some(Budget::GuestOverKernel),
                        _ => None,
                    };
                    if let Some(budget) = budget {
                        budgets.note(budget, ratio, &*job);
                    }
                }
                if driver == "zbd" {
                    let each = median("requests_per_doorbell");
                    budgets.note(Budget::GuestRequestsPerDoorbell, each, &*job);
                }
            }
        }
    }
    println!();
    for disk in DISKS {
        let ours = |operation: &str| of(measured, &format!("{disk}/{operation}/zbd"), "iops");
        if let (Some(append), Some(write)) = (ours("append"), ours("write")) {
            let ratio = append.median() / write.median();
            println!("  {disk:16} append over write {ratio:.2}");
            if disk.starts_with("unmerged") {
                budgets.note(Budget::GuestAppendOverWrite, ratio, disk);
            }
        }
    }
}

fn instructions(measured: &Measured, budgets: &mut Budgets) {
    let rounds = measured.values().next().map_or(0, Samples::len);
    println!(
        "\ninstructions that the whole guest executes per 4 KiB request, depth 32, polling and the \
         tool included: what 20,000\nrequests add to 1,000; median (least-greatest) of {rounds}. \
         The kernel's are its timer's, unless it makes the requests\n"
    );
    println!(
        "  {:16} {:7} {:15} {:22} {:22} {:>8}",
        "disk", "", "driver", "user mode", "kernel", "sum"
    );
    for disk in DISKS {
        for operation in OPERATIONS {
            for driver in DRIVERS {
                let job = format!("{disk}/{operation}/{driver}");
                let (Some(user), Some(kernel)) =
                    (of(measured, &job, "user"), of(measured, &job, "kernel"))
                else {
                    continue;
                };
                let sum = user.median() + kernel.median();
                println!(
                    "  {disk:16} {operation:7} {driver:15} {:22} {:22} {sum:8.0}",
                    format!("{user:.0}"),
                    format!("{kernel:.0}"),
                );
                if driver == "zbd" {
                    budgets.note(Budget::GuestInstructions, sum, &*job);
                }
            }
        }
    }
}
