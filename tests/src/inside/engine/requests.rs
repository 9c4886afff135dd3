//! Every form of request, on whatever drives the device.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use zbd_core::{
    Backend, DmaBuffer, Driver, ErrorKind, Sector, ZoneId, ZoneState, ZoneType, ZonedDevice,
};

use super::{append, data, refused, report};
use crate::inside::claim::records;
use crate::inside::record::{Placed, Record, UNIT};

const SECTOR: u64 = 512;
/// The largest buffer that is asked for.
const LARGE: u64 = 4 << 20;

/// Leaves the first zones as it likes.
pub(super) async fn exercise<D: Driver>(device: &ZonedDevice<D>, zones: &[ZoneId]) -> Result<()> {
    for zone in &zones[..super::ZONES] {
        device.zone(*zone).reset().await?;
    }
    extents_and_slices(device, zones[0], zones[1])
        .await
        .context("extents and slices")?;
    vectored(device, zones[2]).await.context("vectored")?;
    large(device, zones[3]).await.context("large")?;
    conventional(device).await.context("conventional")?;
    dropped(device, zones[4]).await.context("dropped")?;
    refusals(device, zones[2]).await.context("refusals")?;
    stream(device).await.context("stream")?;
    commands(device, zones[0]).await.context("commands")
}

fn filled<D: Driver>(device: &ZonedDevice<D>, data: &[u8]) -> Result<DmaBuffer> {
    let mut buffer = device.buffer(data.len())?;
    buffer.copy_from_slice(data);
    Ok(buffer)
}

/// Small records, read back as one extent and taken from it as slices, which go elsewhere again.
async fn extents_and_slices<D: Driver>(
    device: &ZonedDevice<D>,
    from: ZoneId,
    to: ZoneId,
) -> Result<()> {
    let mut placed = Vec::new();
    for sequence in 0..40 {
        let record = Record {
            seed: 1000,
            sequence,
            zone: from.0,
            units: 1 + (sequence % 13) as u32,
        };
        placed.push(append(device, record).await?);
    }
    let zone = report(device, from).await?;
    let written = zone.written().context("no write pointer")?.bytes();
    let extent = device.read_bytes(zone.start, written as usize).await?;
    for Placed { sector, record } in &placed {
        let at = ((sector - zone.start.0) * SECTOR) as usize;
        let slice = extent.slice(at..at + record.len_bytes());
        ensure!(slice == record.bytes(), "{record:?}");
        ensure!(
            device.memory().lend(&slice).is_some(),
            "what was read is not the device's memory"
        );
        let copy = device.append_bytes(to, slice).await?;
        let read = device.read_bytes(copy, record.len_bytes()).await?;
        ensure!(read == record.bytes(), "{record:?} at sector {copy}");
    }
    // Bytes of the process's own, and bytes at the write pointer.
    let own = Bytes::from(data(1, 3));
    let at = device.append_bytes(to, own.clone()).await?;
    ensure!(device.read_bytes(at, own.len()).await? == own);
    let pointer = device.zone(to).barrier().await?.context("no pointer")?;
    ensure!(pointer.0 == at.0 + own.len() as u64 / SECTOR);
    device.write_bytes(pointer, own.clone()).await?;
    ensure!(device.read_bytes(pointer, own.len()).await? == own);
    Ok(())
}

async fn vectored<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<()> {
    let all = data(2, 4);
    let parts = || -> Result<Vec<DmaBuffer>> {
        let parts = [&all[..UNIT], &all[UNIT..3 * UNIT], &all[3 * UNIT..]];
        parts.iter().map(|part| filled(device, part)).collect()
    };
    for _ in 0..8 {
        let (at, parts) = device.append_vectored(zone, parts()?).await?;
        let lens: Vec<usize> = parts.iter().map(DmaBuffer::len).collect();
        ensure!(lens == [UNIT, 2 * UNIT, UNIT], "{lens:?} came back");
        let into = [3, 1].map(|units| device.buffer(units * UNIT));
        let into: Result<Vec<DmaBuffer>, _> = into.into_iter().collect();
        let read = device.read_vectored(at, into?).await?;
        let read: Vec<u8> = read.iter().flat_map(DmaBuffer::to_vec).collect();
        ensure!(read == all, "what was appended at sector {at}");
    }
    let pointer = device.zone(zone).barrier().await?.context("no pointer")?;
    device.write_vectored(pointer, parts()?).await?;
    ensure!(device.read(pointer, all.len()).await?.to_vec() == all);
    Ok(())
}

/// What no single request takes, as far as a zone and the memory have room for it.
async fn large<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<()> {
    let info = device.info();
    let zoned = info.zoned()?;
    let capacity = zoned.capacity(zone).context("no capacity")?.bytes();
    let wanted = u64::from(info.max_transfer.min(info.max_segment)) * 2 + UNIT as u64;
    let units = wanted.min(capacity).min(LARGE) / UNIT as u64;
    let all = data(3, units as usize);
    let at = zoned.start(zone);
    let buffer = device.write(at, filled(device, &all)?).await?;
    ensure!(buffer.len() == all.len());
    // Nothing of what is read can be what was there.
    let mut buffer = buffer;
    buffer.fill(0xee);
    ensure!(device.read_into(at, buffer).await?.to_vec() == all);
    let pointer = device.zone(zone).barrier().await?;
    ensure!(
        pointer.is_none_or(|pointer| pointer.0 == at.0 + all.len() as u64 / SECTOR),
        "the write pointer is at {pointer:?}"
    );
    Ok(())
}

/// Zones that are written anywhere and again, if the device says that it has such.
async fn conventional<D: Driver>(device: &ZonedDevice<D>) -> Result<()> {
    let info = device.info();
    let zoned = info.zoned()?;
    let all = (0..zoned.zone_count).map(ZoneId);
    let conventional = all.filter(|zone| zoned.zone_type(*zone) == Some(ZoneType::Conventional));
    for zone in conventional {
        let at = Sector(zoned.start(zone).0 + 5 * UNIT as u64 / SECTOR);
        for seed in 0..3 {
            let all = data(seed, 5);
            device.write(at, filled(device, &all)?).await?;
            ensure!(device.read(at, all.len()).await?.to_vec() == all);
        }
        ensure!(device.zone(zone).barrier().await?.is_none());
        refused(
            device.append(zone, device.buffer(UNIT)?).await,
            ErrorKind::InvalidRequest,
            &["conventional"],
            "append to a conventional zone",
        )?;
    }
    Ok(())
}

/// What nobody waits for lands all the same, and a barrier says when it has.
async fn dropped<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<()> {
    let start = device.info().zoned()?.start(zone).0;
    let record = |sequence| Record {
        seed: 2000,
        sequence,
        zone: zone.0,
        units: 2,
    };
    append(device, record(0)).await?;
    let mut begun = 1;
    for round in 0..4 {
        for _ in 0..12 {
            let buffer = filled(device, &record(begun).bytes())?;
            match device.try_append(zone, buffer) {
                Ok(end) => drop(end),
                // Those before have not ended yet.
                Err(error) => {
                    ensure!(error.kind() == ErrorKind::QueueFull, "{error:?}");
                    break;
                }
            }
            begun += 1;
        }
        let pointer = device.zone(zone).barrier().await?.context("no pointer")?;
        let expected = start + begun * 2 * UNIT as u64 / SECTOR;
        ensure!(
            pointer.0 == expected,
            "round {round}: the write pointer is at {pointer}, not {expected}"
        );
    }
    ensure!(begun > 4 * 4, "{begun}");
    let found = records(device, &report(device, zone).await?).await?;
    let mut sequences: Vec<u64> = found.iter().map(|found| found.record.sequence).collect();
    sequences.sort_unstable();
    ensure!(sequences.into_iter().eq(0..begun));
    Ok(())
}

/// Errors that name the limit, and buffers that come back.
async fn refusals<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<()> {
    let info = device.info();
    let zoned = info.zoned()?;
    let most = zoned.max_append.bytes();
    let came_back = refused(
        device
            .append(zone, device.buffer(most as usize + UNIT)?)
            .await,
        ErrorKind::InvalidRequest,
        &[&most.to_string()],
        "append beyond the limit",
    )?;
    ensure!(came_back, "the buffer stays away");
    let none = ZoneId(zoned.zone_count);
    refused(
        device.append(none, device.buffer(UNIT)?).await,
        ErrorKind::InvalidRequest,
        &[&format!("no zone {none}")],
        "append to no zone",
    )?;
    let pointer = report(device, zone).await?.write_pointer;
    let misplaced = Sector(pointer.context("no pointer")?.0 + 64);
    // QEMU does not say what was wrong.
    let kind = match info.backend {
        Backend::Vfio => ErrorKind::Medium,
        _ => ErrorKind::UnalignedWritePointer,
    };
    let came_back = refused(
        device.write(misplaced, device.buffer(UNIT)?).await,
        kind,
        &[],
        "write past the write pointer",
    )?;
    ensure!(came_back, "the buffer stays away");
    refused(
        device.read(Sector(info.capacity.0), UNIT).await,
        ErrorKind::InvalidRequest,
        &["past the end"],
        "read past the end",
    )?;
    Ok(())
}

/// Zones one after the other are the same as all at once.
async fn stream<D: Driver>(device: &ZonedDevice<D>) -> Result<()> {
    let count = device.info().zoned()?.zone_count;
    let all = device.report(..).await?;
    ensure!(all.len() == count as usize);
    for range in [0..count, 1..count, 2..4] {
        let mut reports = device.reports(ZoneId(range.start)..ZoneId(range.end))?;
        for id in range.clone() {
            let zone = reports.next().await?.context("it ends too soon")?;
            ensure!(zone.id == ZoneId(id) && zone == all[id as usize]);
        }
        ensure!(reports.next().await?.is_none(), "{range:?} does not end");
    }
    Ok(())
}

async fn commands<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<()> {
    let handle = device.zone(zone);
    handle.reset().await?;
    ensure!(report(device, zone).await?.state == ZoneState::Empty);
    handle.open().await?;
    ensure!(report(device, zone).await?.state == ZoneState::ExplicitlyOpen);
    handle.append(device.buffer(UNIT)?).await?;
    handle.close().await?;
    ensure!(report(device, zone).await?.state == ZoneState::Closed);
    handle.finish().await?;
    ensure!(report(device, zone).await?.state == ZoneState::Full);
    ensure!(handle.barrier().await?.is_none(), "full, with a pointer");
    let came_back = refused(
        handle.append(device.buffer(UNIT)?).await,
        ErrorKind::InvalidZoneState,
        &[],
        "append to a full zone",
    )?;
    ensure!(came_back, "the buffer stays away");
    handle.reset().await?;
    let appended = handle.append(device.buffer(UNIT)?).await?;
    ensure!(appended.sector == device.info().zoned()?.start(zone));
    Ok(())
}
