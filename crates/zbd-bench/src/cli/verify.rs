//! `zbd-bench verify`

use std::time::Duration;

use clap::Args;

use super::{DEVICE_HELP, PlainFormat, values::time};

#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  zbd-bench verify emu:                           the device that is built in
  zbd-bench verify pci:0000:00:01.0 --duration 1h --destroy
  zbd-bench verify emu:fault=flip-bit@100         what a failure looks like

Many tasks append records of a block to 1 MiB that say what they are and where
they belong; zones are opened, closed, finished and reset meanwhile. Then all of
it is read back and compared with what the device reported, and the next round
begins. Now and then the device is flushed, closed and opened again.

The seed decides everything but which task writes which record, and in which
order those in flight land.")]
pub(crate) struct VerifyArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// For how long to write [default: 10s; with --rounds as long as those take]
    #[arg(long, visible_alias = "runtime", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// End after so many rounds
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u32>,
    /// What the rounds are made from; the same seed makes the same [default: another each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many tasks write at the same time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) tasks: u32,
    /// How many appends each task has in flight
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) depth: u32,
    /// How many sequential zones, from the first on, to write to [default: 16, or as many as there
    /// are]
    #[arg(long, value_name = "N")]
    pub(crate) zones: Option<u32>,
    /// How many queues
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) queues: u16,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
    /// Allow data on a device other than emu: to be destroyed
    #[arg(long)]
    pub(crate) destroy: bool,
}
