//! What `cargo xtask bench --guest` measures: our driver beside libblkio and the kernel's, on the
//! same disks, in one boot.
//!
//! Every job is 4 KiB requests at depth 32 on one zone that was reset before; a reading job reads
//! what was written to it just before. Jobs alternate: all of them run, and then all of them again.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Context, Scenario};
use crate::guest::machine;
use crate::inside::function::Function;
use crate::inside::{marker, tool};

/// Where the other drivers' program lies in the guest.
const PEERS: &str = "/bin/zbd-peers";
/// How often every job runs.
pub const ROUNDS: usize = 11;
/// How often every job runs to have its instructions counted.
pub const COUNTED_ROUNDS: usize = 5;
/// What is counted is what so many requests add to some: the start and the end of the process and
/// the device are the same.
pub const COUNTED_REQUESTS: u32 = 20_000;
const SOME: u32 = 1_000;
const DEPTH: u32 = 32;

/// The measurements. They are no tests, and run only when the benchmark asks for them.
pub static ALL: &[Scenario] = &[
    Scenario {
        name: "bench::measure::speed",
        machine: &machine::bench,
        limit: Duration::from_secs(1800),
        run: speed,
    },
    Scenario {
        name: "bench::measure::instructions",
        machine: &machine::bench,
        limit: Duration::from_secs(900),
        run: instructions,
    },
];

/// Who makes the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `zbd-bench`.
    Zbd,
    /// libblkio over VFIO, polled.
    Libblkio,
    /// io_uring on the kernel's disk, a system call for each request.
    Kernel,
    /// io_uring on the kernel's disk, a system call for all that is ready.
    KernelBatched,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// The disk: how it merges, and the format of its rings.
    pub disk: &'static str,
    /// Who makes them.
    pub driver: Driver,
    /// `write`, `append` or `read`.
    pub operation: &'static str,
    /// How many.
    pub count: u32,
}

const fn job(disk: &'static str, driver: Driver, operation: &'static str, count: u32) -> Job {
    Job {
        disk,
        driver,
        operation,
        count,
    }
}

/// What `speed` runs.
pub const SPEED: &[Job] = &[
    job("merged-split", Driver::Zbd, "write", 20_000),
    job("merged-split", Driver::Libblkio, "write", 20_000),
    job("merged-split", Driver::Kernel, "write", 10_000),
    job("merged-split", Driver::KernelBatched, "write", 10_000),
    job("merged-split", Driver::Zbd, "read", 20_000),
    job("merged-split", Driver::Libblkio, "read", 20_000),
    job("merged-split", Driver::Kernel, "read", 10_000),
    job("merged-split", Driver::KernelBatched, "read", 10_000),
    job("merged-split", Driver::Zbd, "append", 8_000),
    job("merged-packed", Driver::Zbd, "write", 20_000),
    job("merged-packed", Driver::Libblkio, "write", 20_000),
    job("merged-packed", Driver::Kernel, "write", 10_000),
    job("merged-packed", Driver::KernelBatched, "write", 10_000),
    job("merged-packed", Driver::Zbd, "read", 20_000),
    job("merged-packed", Driver::Libblkio, "read", 20_000),
    job("merged-packed", Driver::Zbd, "append", 8_000),
    job("unmerged-split", Driver::Zbd, "append", 8_000),
    job("unmerged-split", Driver::Zbd, "write", 8_000),
    job("unmerged-split", Driver::Libblkio, "write", 8_000),
    job("unmerged-split", Driver::Kernel, "write", 8_000),
    job("unmerged-packed", Driver::Zbd, "append", 8_000),
    job("unmerged-packed", Driver::Zbd, "write", 8_000),
    job("unmerged-packed", Driver::Libblkio, "write", 8_000),
];

/// What `instructions` runs, each twice a round, with few requests and with so many more.
pub const COUNTED: &[Job] = &[
    job("merged-split", Driver::Zbd, "write", COUNTED_REQUESTS),
    job("merged-split", Driver::Zbd, "read", COUNTED_REQUESTS),
    job("merged-split", Driver::Zbd, "append", COUNTED_REQUESTS),
    job("merged-packed", Driver::Zbd, "write", COUNTED_REQUESTS),
    job("merged-packed", Driver::Zbd, "read", COUNTED_REQUESTS),
    job("merged-packed", Driver::Zbd, "append", COUNTED_REQUESTS),
    job("unmerged-split", Driver::Zbd, "append", COUNTED_REQUESTS),
    job("merged-split", Driver::Libblkio, "write", COUNTED_REQUESTS),
    job("merged-split", Driver::Libblkio, "read", COUNTED_REQUESTS),
    job("merged-packed", Driver::Libblkio, "write", COUNTED_REQUESTS),
    job("merged-split", Driver::Kernel, "write", COUNTED_REQUESTS),
    job(
        "merged-split",
        Driver::KernelBatched,
        "write",
        COUNTED_REQUESTS,
    ),
];

impl Driver {
    /// What it is called in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zbd => "zbd",
            Self::Libblkio => "libblkio",
            Self::Kernel => "kernel",
            Self::KernelBatched => "kernel-batched",
        }
    }

    fn is_kernel(self) -> bool {
        matches!(self, Self::Kernel | Self::KernelBatched)
    }
}

impl Job {
    /// What it is called in results.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.disk, self.operation, self.driver.name())
    }

    /// Empties the disk's zones, writes what is going to be read, and hands the disk to the driver.
    fn prepare(&self, function: &Function) -> Result<()> {
        function.bind_to_kernel()?.reset_all()?;
        if self.operation == "read" {
            function.bind("vfio-pci")?;
            let count = self.count;
            run(&mut zbd(&function.address(), "write", count))?;
        }
        if self.driver.is_kernel() {
            function.bind_to_kernel()?;
        } else {
            function.bind("vfio-pci")?;
        }
        Ok(())
    }

    /// The process that makes the requests.
    fn command(&self, function: &Function) -> Result<Command> {
        let address = function.address();
        if self.driver == Driver::Zbd {
            return Ok(zbd(&address, self.operation, self.count));
        }
        let place = match self.driver.is_kernel() {
            true => format!("/dev/{}", function.block_device()?),
            false => format!("/sys/bus/pci/devices/{address}"),
        };
        let mut command = Command::new(PEERS);
        command.args([self.driver.name(), &place, self.operation]);
        command.args([DEPTH.to_string(), self.count.to_string()]);
        Ok(command)
    }
}

fn zbd(address: &str, operation: &str, count: u32) -> Command {
    tool::command(&format!(
        "run --device pci:{address} --op {operation} --block-size 4k --depth {DEPTH} --zones 1 \
         --count {count} --format json --destroy"
    ))
}

/// Runs a process and returns its one result.
fn run(command: &mut Command) -> Result<Value> {
    let output = command.output().context("cannot be started")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let result = document["results"][0].clone();
    ensure!(result["errors"] == 0, "{command:?}: {result}");
    Ok(result)
}

/// `JOB/ROUND/{iops,requests_per_doorbell,requests_per_operation}`; a peer's doorbells are its
/// submissions, of which not all need one.
fn speed(context: &mut Context) -> Result<()> {
    for round in 0..ROUNDS {
        for job in SPEED {
            let function = context.function(job.disk)?;
            job.prepare(&function)?;
            let mut command = job.command(&function)?;
            let panel = context.panel(job.disk)?;
            let before = panel.counters()?;
            let result = run(&mut command).with_context(|| job.name())?;
            let after = panel.counters()?;
            ensure!(result["ios"] == job.count, "{}: {result}", job.name());
            let reached = |what: &str| after[what] - before[what];
            let operations = (reached("reads") + reached("writes")).max(1) as f64;
            let number = |what: &str| {
                let number = result[what].as_f64();
                number.with_context(|| format!("{what}: {result}"))
            };
            let doorbells = number("doorbells")?.max(1.0);
            let count = f64::from(job.count);
            let mut note = |what: &str, value| {
                context.metric(format!("{}/{round}/{what}", job.name()), value);
            };
            note("iops", number("iops")?);
            note("requests_per_doorbell", count / doorbells);
            note("requests_per_operation", count / operations);
        }
    }
    Ok(())
}

/// Runs the jobs between marks, for a plugin of QEMU to count what the guest executes.
fn instructions(context: &mut Context) -> Result<()> {
    for _ in 0..COUNTED_ROUNDS {
        for job in COUNTED {
            for count in [SOME, SOME + job.count] {
                let job = Job { count, ..*job };
                let function = context.function(job.disk)?;
                job.prepare(&function)?;
                let mut command = job.command(&function)?;
                marker::begin();
                let result = run(&mut command);
                marker::end();
                result.with_context(|| job.name())?;
            }
        }
    }
    Ok(())
}
