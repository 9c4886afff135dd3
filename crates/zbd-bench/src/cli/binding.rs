//! `zbd-bench bind` and `zbd-bench unbind`

use clap::Args;
use zbd_core::sysfs::{Owner, PciAddress};

use super::values::{address, owner};

#[derive(Debug, Args)]
pub(crate) struct BindArgs {
    /// The PCI address, such as 0000:00:01.0
    #[arg(value_name = "BDF", value_parser = address)]
    pub(crate) address: PciAddress,
    /// Who may open the device: a user name, UID or UID:GID
    #[arg(long, value_name = "USER", value_parser = owner)]
    pub(crate) owner: Option<Owner>,
}

#[derive(Debug, Args)]
pub(crate) struct UnbindArgs {
    /// The PCI address, such as 0000:00:01.0
    #[arg(value_name = "BDF", value_parser = address)]
    pub(crate) address: PciAddress,
}
