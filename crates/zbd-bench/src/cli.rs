//! The command line as it is written, before anything is made of it.

mod binding;
mod compare;
mod info;
mod job;
pub(crate) mod job_file;
mod list;
mod run;
mod sweep;
mod values;
mod verify;
mod zoneops;
mod zones;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use binding::{BindArgs, UnbindArgs};
pub(crate) use compare::CompareArgs;
pub(crate) use info::InfoArgs;
pub(crate) use job::{Api, JobArgs, Op, ResetPolicy, Wait};
pub(crate) use list::ListArgs;
pub(crate) use run::{RunArgs, RunFormat};
pub(crate) use sweep::{SweepArgs, SweepFormat};
pub(crate) use verify::VerifyArgs;
pub(crate) use zoneops::{ZoneOp, ZoneopsArgs};
pub(crate) use zones::{
    MapArgs, NamedZonesArgs, ResetAllArgs, SomeZonesArgs, ZonesArgs, ZonesCommand, ZonesFormat,
};

const DEVICE_HELP: &str = "emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…";

/// Measures zoned virtio-blk devices and manages their zones.
///
/// Without a command it runs a benchmark, and without arguments one on the device that is built
/// in, in a few seconds and without privileges.
#[derive(Debug, Parser)]
#[command(name = "zbd-bench", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit status: 0 done; 1 I/O or verification failed; 2 usage, or a value outside the \
                        device's limits; 3 the device cannot be opened or cannot do what is asked."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a benchmark (the default command)
    Run(RunArgs),
    /// Measure over depths, zones, block sizes and queues, as a table and a chart
    Sweep(Box<SweepArgs>),
    /// Run the same job on several devices in turn, and say what can be concluded
    Compare(Box<CompareArgs>),
    /// Write to a device, read everything back and compare it with what was reported
    Verify(VerifyArgs),
    /// Show what is known of a device: limits, queues, features
    Info(InfoArgs),
    /// Report and manage the zones of a device
    Zones(ZonesArgs),
    /// Measure what zone management costs, and what it does to appends beside it
    Zoneops(ZoneopsArgs),
    /// List the virtio-blk functions of this machine
    List(ListArgs),
    /// Hand a virtio-blk function to vfio-pci, so that it can be opened
    Bind(BindArgs),
    /// Hand a virtio-blk function back to the kernel's own driver
    Unbind(UnbindArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
