//! `zbd-bench zones`

use clap::{Args, Subcommand, ValueEnum};

use super::DEVICE_HELP;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZonesFormat {
    Text,
    Json,
    Csv,
}
