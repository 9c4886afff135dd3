//! `cargo xtask setup`: what the guest tests need and a developer's machine may lack.

use anyhow::Result;

use crate::step::step;
use crate::{kernel, no_iommu, qemu};

pub(crate) fn run() -> Result<()> {
    step("QEMU", qemu::install)?;
    step("guest kernel", kernel::fetch)?;
    step("guest kernel's VFIO without an IOMMU", no_iommu::build)
}
