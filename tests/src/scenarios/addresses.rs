//! IOMMUs that do not map every address.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vfio_virtio::{ErrorKind, HostMemory, Iova, PciFunction as _, Translation, VfioFunction};

use super::Context;
use crate::guest::machine::Iommu;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn memory_is_mapped_where_the_iommu_reaches(context: &mut Context) -> Result<()> {
    /// Writes there are interrupts.
    const INTERRUPTS: u64 = 0xfee0_0000;
    let Iommu::Intel { bits } = context.machine.iommu else {
        anyhow::bail!("no IOMMU");
    };
    let claim = context.claim("main")?;
    let function = VfioFunction::open(claim.address())?;
    ensure!(function.translation() == Translation::Iommu);
    let ranges = function.iova_ranges()?;
    let last = ranges.last().context("no ranges")?;
    ensure!(*last.end() == (1 << bits) - 1, "{ranges:x?}");
    ensure!(
        !ranges.iter().any(|range| range.contains(&INTERRUPTS)),
        "{ranges:x?}"
    );

    let memory = || HostMemory::new(4096).map(Arc::new);
    let len = memory()?.len_bytes() as u64;
    // The first and the last that fit, and the first that do not.
    for start in [*last.start(), last.end() + 1 - len] {
        function.map_dma(Iova(start), memory()?)?;
        function.unmap_dma(Iova(start))?;
    }
    for start in [INTERRUPTS / len * len, last.end() + 1] {
        let Err(error) = function.map_dma(Iova(start), memory()?) else {
            anyhow::bail!("mapped at {start:x}");
        };
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error:?}");
        ensure!(error.to_string().contains("outside"), "{error}");
    }
    // No physical address is to be had.
    let refused = function.pin_dma(memory()?).map(drop);
    ensure!(refused.is_err_and(|error| error.kind() == ErrorKind::Unsupported));
    drop(function);
    claim.give_back()?;
    Ok(())
}
