//! `zbd-bench run`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::JobArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// The device: emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/… [fio: filename]
    #[arg(long, alias = "filename", default_value = "emu:")]
    pub(crate) device: String,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Run the jobs of this file, one after the other. It is TOML: an array "job" of tables, whose
    /// keys are these options; those above the first are for all jobs. What is given here as well
    /// overrides the file
    #[arg(long, value_name = "FILE")]
    pub(crate) job_file: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = RunFormat::Text)]
    pub(crate) format: RunFormat,
    /// Write the result to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunFormat {
    Text,
    Json,
    Fio,
}
