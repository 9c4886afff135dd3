//! `zbd-bench list`

use clap::Args;

use super::PlainFormat;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t = PlainFormat::Text)]
    pub(crate) format: PlainFormat,
}
