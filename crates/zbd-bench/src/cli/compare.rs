//! `zbd-bench compare`

use std::path::PathBuf;

use clap::Args;

use super::{DEVICE_HELP, JobArgs, PlainFormat};

#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// The devices; the others are compared with the first
    #[arg(value_name = "DEVICE", required = true, long_help = DEVICE_HELP)]
    pub(crate) devices: Vec<String>,
    /// Compare with this report of an earlier run, written with --format json
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// How often each device is measured; they take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Hand pci: devices to vfio-pci when it is their turn and back to the kernel afterwards, so
    /// that they can be compared with the kernel's driver of the same disk
    #[arg(long)]
    pub(crate) rebind: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
    /// Write the result to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}
