//! `zbd-bench zones`

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{DEVICE_HELP, examples, values::interval};

#[derive(Debug, Args)]
pub(crate) struct ZonesArgs {
    #[command(subcommand)]
    pub(crate) action: ZonesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ZonesCommand {
    /// Show zones, all of them unless some are named
    #[command(after_help = examples::ZONES_REPORT)]
    Report(SomeZonesArgs),
    /// Show the zones as a picture: states, fill, limits in use
    #[command(after_help = examples::ZONES_MAP)]
    Map(MapArgs),
    /// Open zones explicitly
    #[command(after_help = examples::ZONES_OPEN)]
    Open(NamedZonesArgs),
    /// Close zones
    #[command(after_help = examples::ZONES_CLOSE)]
    Close(NamedZonesArgs),
    /// Make zones full
    #[command(after_help = examples::ZONES_FINISH)]
    Finish(NamedZonesArgs),
    /// Empty zones; their data are gone
    #[command(after_help = examples::ZONES_RESET)]
    Reset(ResetArgs),
    /// Empty all sequential zones; their data are gone
    #[command(after_help = examples::ZONES_RESET_ALL)]
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
pub(crate) struct MapArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// Show it anew every INTERVAL, 1s unless it is given, until Ctrl-C
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "1s",
        value_parser = interval)]
    pub(crate) watch: Option<Duration>,
    /// Write it as SVG to this file, too
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) svg: Option<PathBuf>,
    /// Use no other characters than ASCII, as is done where the locale is not UTF-8
    #[arg(long)]
    pub(crate) ascii: bool,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZonesFormat {
    Text,
    Json,
    Csv,
}
