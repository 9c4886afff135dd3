//! The ordered writer of a zone.

use anyhow::{Context as _, Result, ensure};
use zbd_core::{SectorCount, ZoneId, ZoneState, ZoneWriter, ZonedDevice};

use super::{data, refused, report};
use crate::inside::record::UNIT;

pub(super) async fn exercise(device: &ZonedDevice, zone: ZoneId) -> Result<()> {
    let info = device.info();
    let zoned = info.zoned()?;
    let most = zoned.max_append.bytes() as usize / UNIT;
    let capacity = zoned.capacity(zone).context("no capacity")?;
    let mut writer = ZoneWriter::open(device, zone, 16).await?;
    let mut writes = Vec::new();
    let lens = [1, 3, 8, most, most + 1, 1, 2 * most + 3, 2];
    for (seed, units) in (100..).zip(lens) {
        let all = data(seed, units);
        if all.len() as u64 > writer.room().bytes() {
            // Appends of this device are as long as its zones.
            continue;
        }
        let mut buffer = device.wait_for_buffer(all.len()).await?;
        buffer.copy_from_slice(&all);
        writes.push((all, writer.write(buffer).await?));
    }
    ensure!(writes.len() > 4, "{} writes fit", writes.len());
    let total: usize = writes.iter().map(|(all, _)| all.len()).sum();
    ensure!(writer.submitted().bytes() == total as u64);
    ensure!(
        writer.flush().await?.bytes() == total as u64 && writer.durable() == writer.submitted()
    );
    ensure!(writer.room() == SectorCount(capacity.0 - writer.submitted().0));
    // In another order than they were made.
    for (all, write) in writes.into_iter().rev() {
        let written = write.await?;
        ensure!(written.buffer.to_vec() == all, "another buffer came back");
        let mut stored = Vec::new();
        for extent in &written.extents {
            ensure!(extent.len <= zoned.max_append, "{extent:?}");
            let read = device.read_bytes(extent.sector, extent.len.bytes() as usize);
            stored.extend_from_slice(&read.await?);
        }
        ensure!(
            stored == all,
            "{} bytes in {:?} are others",
            all.len(),
            written.extents
        );
    }
    writer.finish().await?;
    ensure!(report(device, zone).await?.state == ZoneState::Full);
    refused(
        writer.write(device.buffer(UNIT)?).await,
        zbd_core::ErrorKind::InvalidZoneState,
        &[],
        "write behind the end",
    )?;
    Ok(())
}
