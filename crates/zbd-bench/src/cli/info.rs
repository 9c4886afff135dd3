//! `zbd-bench info`

use clap::Args;

use super::{DEVICE_HELP, PlainFormat};

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP)]
    pub(crate) device: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
}
