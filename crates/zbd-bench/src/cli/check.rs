//! `zbd-bench check`

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{DEVICE_HELP, values::time};

/// Looks whether a virtio-blk device does what VIRTIO 1.3 asks of it.
///
/// Every requirement is looked at with requests of its own, also with such as no driver sends. A
/// device that breaks is reset, and the next one follows. All data on the device are lost.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 all that is required is met; 1 something is not, or the check was \
                  interrupted; 2 usage; 3 the device cannot be opened or may not be destroyed.\n\n\
                  What should be and is not is shown as a warning, and counts with --strict only. \
                  What the specification leaves open is no requirement.\n\n\
                  Examples:\n  \
                  zbd-bench check emu:max-open=4\n  \
                  zbd-bench check pci:0000:00:10.0 --destroy --format junit > check.xml\n  \
                  zbd-bench check --list"
)]
pub(crate) struct CheckArgs {
    #[arg(value_name = "DEVICE", help = DEVICE_HELP, required_unless_present = "list")]
    pub(crate) device: Option<String>,
    /// Allow the data on a device other than emu: to be destroyed
    #[arg(long)]
    pub(crate) destroy: bool,
    /// Look at these requirements only; may be given more than once
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Show the requirements, without a device
    #[arg(long)]
    pub(crate) list: bool,
    /// Fail for what should be, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// How long an answer may take before the device is reset
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) patience: Duration,
    /// How to print it
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    pub(crate) format: CheckFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    Text,
    Json,
    Junit,
}
