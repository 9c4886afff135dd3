//! The PCI functions and the kernel's VFIO: the ground that a user-space driver stands on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::inside::kernel_view::State;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn every_disk_is_alone_in_its_iommu_group(context: &mut Context) -> Result<()> {
    for disk in context.machine.disks {
        let function = context.function(disk.name)?;
        let size = function.iommu_group_size().with_context(|| disk.name)?;
        ensure!(size == 1, "{}: {size} functions in its group", disk.name);
    }
    Ok(())
}

pub(super) fn function_goes_to_vfio_and_back(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let disk = function.bind_to_kernel()?;
    let zone = disk
        .report()?
        .into_iter()
        .find(|zone| zone.state == State::Empty);
    let zone = zone.context("no empty zone")?;
    disk.write(zone.start, &[9; 4096])?;
    drop(disk);
    function.bind("vfio-pci")?;
    let group = function.iommu_group().context("no IOMMU group")?;
    let node = Path::new("/dev/vfio").join(group);
    ensure!(node.exists(), "{} is missing", node.display());
    let disk = function.bind_to_kernel()?;
    let written = disk
        .report()?
        .into_iter()
        .find(|other| other.start == zone.start);
    ensure!(
        written.is_some_and(|zone| zone.written() == 8),
        "{written:?}"
    );
    Ok(())
}
