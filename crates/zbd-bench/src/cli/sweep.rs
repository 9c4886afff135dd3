//! `zbd-bench sweep`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    JobArgs, Op,
    values::{picture, size},
};

#[derive(Clone, Debug, Args)]
pub(crate) struct SweepArgs {
    /// The device: emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…
    #[arg(long, alias = "filename", default_value = "emu:")]
    pub(crate) device: String,
    /// What to do at each point [default: append,write]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "OP,…")]
    pub(crate) ops: Vec<Op>,
    /// The depths [default: 1,2,4,… up to 128 or what the device allows]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(crate) depths: Vec<u64>,
    /// The numbers of zones [default: --zones]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(crate) zones_list: Vec<u64>,
    /// The block sizes [default: --block-size]
    #[arg(long, value_delimiter = ',', value_name = "SIZE,…", value_parser = size)]
    pub(crate) block_sizes: Vec<u64>,
    /// The numbers of queues [default: --queues]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(crate) queues_list: Vec<u64>,
    /// How often each point is measured; the rounds go over all points in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Draw charts into this file, .svg or .html; may be given more than once
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub(crate) plot: Vec<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = SweepFormat::Text)]
    pub(crate) format: SweepFormat,
    /// Write the result to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SweepFormat {
    Text,
    Json,
    Csv,
}
