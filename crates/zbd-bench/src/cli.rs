//! The command line as it is written, before anything is made of it.

mod values;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use values::{address, owner, size, time};
use zbd_core::{
    WaitPolicy,
    sysfs::{Owner, PciAddress},
};

const DEVICE_HELP: &str = "emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…";

/// Measures zoned virtio-blk devices and manages their zones.
///
/// Without a command it runs a benchmark, and without arguments one on the device that is built
/// in, in a few seconds and without privileges.
#[derive(Debug, Parser)]
#[command(name = "zbd-bench", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit status: 0 done; 1 I/O failed; 2 usage, or a value outside the \
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
    /// Show what is known of a device: limits, queues, features
    Info(InfoArgs),
    /// Report and manage the zones of a device
    Zones(ZonesArgs),
    /// List the virtio-blk functions of this machine
    List(ListArgs),
    /// Hand a virtio-blk function to vfio-pci, so that it can be opened
    Bind(BindArgs),
    /// Hand a virtio-blk function back to the kernel's own driver
    Unbind(UnbindArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// The device: emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…
    #[arg(long, default_value = "emu:")]
    pub(crate) device: String,
    /// What to do
    #[arg(long, value_enum, default_value_t = Op::Append)]
    pub(crate) op: Op,
    /// The length of each request; k, m and g are powers of 1024
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size)]
    pub(crate) block_size: u64,
    /// The greatest number of requests in flight in each queue
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) depth: u64,
    /// How many queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) queues: u64,
    /// How many sequential zones, from the first on, shared out among the queues
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) zones: u64,
    /// For how long [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    pub(crate) runtime: Option<Duration>,
    /// How many requests, over all queues
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Refill a queue when this many of its requests are free, with one doorbell [default: 3/4 of
    /// the depth]. What fio calls iodepth_batch_submit and iodepth_batch_complete_min
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// How to wait for completions [default: poll with --api queue, which gives the best figures;
    /// adaptive with --api async, whose tasks need the processor, too]
    #[arg(long, value_enum)]
    pub(crate) wait: Option<Wait>,
    /// Polled queues, or async tasks: as many as the depth in each queue. Async sequential writes
    /// have one request in flight in each zone, for more would have to arrive in order
    #[arg(long, value_enum, default_value_t = Api::Queue)]
    pub(crate) api: Api,
    /// Where randread begins; the same seed reads the same blocks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = RunFormat::Text)]
    pub(crate) format: RunFormat,
    /// Allow data on a device other than emu: to be destroyed
    #[arg(long)]
    pub(crate) destroy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ZonesArgs {
    #[command(subcommand)]
    pub(crate) action: ZonesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ZonesCommand {
    /// Show zones, all of them unless some are named
    Report(SomeZonesArgs),
    /// Open zones explicitly
    Open(NamedZonesArgs),
    /// Close zones
    Close(NamedZonesArgs),
    /// Make zones full
    Finish(NamedZonesArgs),
    /// Empty zones; their data are gone
    Reset(ResetArgs),
    /// Empty all sequential zones; their data are gone
    ResetAll(ResetAllArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SomeZonesArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// The number of a zone; may be given more than once
    #[arg(long = "zone", value_name = "N")]
    pub(crate) zones: Vec<u32>,
    /// How to print them
    #[arg(long, value_enum, default_value_t = ZonesFormat::Text)]
    pub(crate) format: ZonesFormat,
}

#[derive(Debug, Args)]
pub(crate) struct NamedZonesArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// The number of a zone; may be given more than once
    #[arg(long = "zone", value_name = "N", required = true)]
    pub(crate) zones: Vec<u32>,
    /// How to print the zones as they are then
    #[arg(long, value_enum, default_value_t = ZonesFormat::Text)]
    pub(crate) format: ZonesFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) named: NamedZonesArgs,
    /// Allow zones of a device other than emu: to be reset that are not empty
    #[arg(long)]
    pub(crate) destroy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetAllArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// How to print the zones as they are then
    #[arg(long, value_enum, default_value_t = ZonesFormat::Text)]
    pub(crate) format: ZonesFormat,
    /// Allow zones of a device other than emu: to be reset that are not empty
    #[arg(long)]
    pub(crate) destroy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
}

#[derive(Debug, Args)]
pub(crate) struct BindArgs {
    /// The PCI address, such as 0000:00:01.0
    #[arg(value_name = "BDF", value_parser = address)]
    pub(crate) address: PciAddress,
    /// Who may open the device: a user name, UID or UID:GID
    #[arg(long, value_name = "USER", value_parser = owner)]
    pub(crate) owner: Option<Owner>,
}

#[derive(Debug, Args)]
pub(crate) struct UnbindArgs {
    /// The PCI address, such as 0000:00:01.0
    #[arg(value_name = "BDF", value_parser = address)]
    pub(crate) address: PciAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// Zone appends: the device chooses the sector
    Append,
    /// Sequential writes at the write pointers
    Write,
    /// Sequential reads below the write pointers
    Read,
    /// Random reads below the write pointers
    Randread,
}

impl Op {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Write => "write",
            Self::Read => "read",
            Self::Randread => "randread",
        }
    }

    pub(crate) const fn is_writing(self) -> bool {
        matches!(self, Self::Append | Self::Write)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Look without end
    Poll,
    /// Look for a while, then sleep until the device interrupts
    Adaptive,
    /// Sleep at once
    Interrupt,
}

impl From<Wait> for WaitPolicy {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Poll => Self::Poll,
            Wait::Adaptive => Self::Adaptive,
            Wait::Interrupt => Self::Interrupt,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    Queue,
    Async,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunFormat {
    Text,
    Json,
    Fio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZonesFormat {
    Text,
    Json,
    Csv,
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
