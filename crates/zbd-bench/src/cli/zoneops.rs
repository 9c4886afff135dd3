//! `zbd-bench zoneops`

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{
    DEVICE_HELP, PlainFormat,
    values::{size, time},
};

const EXAMPLES: &str = "\
Examples:
  zbd-bench zoneops emu:
  zbd-bench zoneops emu: --ops finish,reset --repeat 100 --no-load
  zbd-bench zoneops pci:0000:00:01.0 --zones 4 --destroy --format json

Alone, each sample is one operation with nothing else in flight, from its submission to the poll \
that finds it completed. Zones are filled for it as need be, and that is not measured. Then the \
operations are repeated beside appends, in turn with the appends alone. In the end the zones that \
were used are empty.";

/// What zone management costs, and what it does to appends beside it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ZoneopsArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// What to measure [default: all of it]
    #[arg(long, value_enum, value_name = "OP,…", value_delimiter = ',')]
    pub(crate) ops: Vec<ZoneOp>,
    /// How many samples of each operation
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) repeat: u64,
    /// How many sequential zones to use, from the first on; half of them, but no more than 4, are
    /// appended to [default: 8, or as many as there are]
    #[arg(long, value_name = "N")]
    pub(crate) zones: Option<u64>,
    /// The length of each append, and of the one block that is written to a zone
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size)]
    pub(crate) block_size: u64,
    /// How many appends are in flight beside the operations
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) depth: u64,
    /// For how long the appends are measured with each operation, and for how long without it, in
    /// each of 5 rounds
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub(crate) runtime: Duration,
    /// How much to write to fill zones for one operation, and once more beside appends; rather than
    /// write more, take fewer samples, but at least 3
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = size)]
    pub(crate) fill_limit: u64,
    /// Measure the operations alone, without appends beside them
    #[arg(long)]
    pub(crate) no_load: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
    /// Allow zones of a device other than emu: to be emptied
    #[arg(long)]
    pub(crate) destroy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZoneOp {
    /// Report all zones, and one
    Report,
    /// Open zones that are empty or closed
    Open,
    /// Close open zones
    Close,
    /// Make zones full that are filled so far
    Finish,
    /// Empty zones that are filled so far
    Reset,
    /// Empty all zones at once
    ResetAll,
    /// Make a written block durable
    Flush,
}

impl ZoneOp {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Open => "open",
            Self::Close => "close",
            Self::Finish => "finish",
            Self::Reset => "reset",
            Self::ResetAll => "reset-all",
            Self::Flush => "flush",
        }
    }
}
