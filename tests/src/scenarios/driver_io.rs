//! The driver under test opens devices, reads and writes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use zbd_core::{
    Backend, IoQueue, Request, Sector, SectorCount, ZoneId, ZoneModel, ZoneState, ZoneType,
    ZonedDevice,
};

use super::Context;
use crate::inside::batch;
use crate::inside::claim::{block_on, ensure_same_zones, records};
use crate::inside::record::{Placed, Record, UNIT, ensure_same};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

const DEPTH: u64 = 32;
const SECTORS: u64 = UNIT as u64 / 512;
const SEED: u64 = 10;

pub(super) fn opened_device_is_what_was_described_and_goes_back_to_linux(
    context: &mut Context,
) -> Result<()> {
    for name in ["main", "unmerged"] {
        let geometry = context.geometry(name)?;
        let claim = context.claim(name)?;
        ensure!(claim.function.driver().as_deref() == Some("vfio-pci"));
        let disk = claim.function.disk;
        let device = ZonedDevice::open(&claim.spec())?;
        let info = device.info();
        ensure!(info.name == claim.spec() && info.backend == Backend::Vfio);
        ensure!(info.capacity == SectorCount(disk.bytes / 512), "{info:?}");
        ensure!(u64::from(info.block_size) == geometry.block, "{info:?}");
        ensure!(u64::from(info.physical_block_size) == geometry.block);
        ensure!(info.max_queues == disk.queues && info.queues == 1);
        ensure!(info.queue_depth <= disk.queue_size && info.queue_depth >= 128);
        ensure!(!info.read_only && info.volatile_cache, "{info:?}");
        for feature in ["zoned", "access_platform", "indirect_desc", "event_idx"] {
            ensure!(info.features.contains(&feature), "{feature}: {info:?}");
        }
        let zoned = info.zoned()?;
        let limit = |limit: Option<u32>| limit.map_or(0, u64::from);
        ensure!(zoned.model == ZoneModel::HostManaged, "{zoned:?}");
        ensure!(zoned.zone_size.bytes() == geometry.zone_size, "{zoned:?}");
        ensure!(u64::from(zoned.zone_count) == disk.bytes / geometry.zone_size);
        ensure!(limit(zoned.max_open) == geometry.max_open, "{zoned:?}");
        ensure!(limit(zoned.max_active) == geometry.max_active, "{zoned:?}");
        ensure!(zoned.max_append.bytes() == geometry.max_append, "{zoned:?}");
        ensure!(u64::from(zoned.write_granularity) == geometry.block);
        let report = block_on(async { Ok(device.report(..).await?) })?;
        for zone in &report {
            let conventional = u64::from(zone.id.0) < geometry.conventional;
            let (kind, state, capacity) = if conventional {
                let state = ZoneState::NotWritePointer;
                (ZoneType::Conventional, state, geometry.zone_size)
            } else {
                let kind = ZoneType::SequentialRequired;
                (kind, ZoneState::Empty, geometry.zone_capacity)
            };
            ensure!(zone.zone_type == kind && zone.state == state, "{zone:?}");
            ensure!(zone.capacity.bytes() == capacity, "{zone:?}");
            ensure!(zoned.capacity(zone.id) == Some(zone.capacity), "{zone:?}");
            ensure!(zoned.zone_type(zone.id) == Some(kind), "{zone:?}");
        }
        drop(device);
        let disk = claim.give_back()?;
        ensure_same_zones(&report, &disk.report()?).context(name)?;
    }
    note_clocksource(context)
}

/// What times are measured with in this guest; figures depend on it.
fn note_clocksource(context: &mut Context) -> Result<()> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let name = fs::read_to_string(path).context(path)?;
    context.metric(format!("clocksource_is_{}", name.trim()), 1.0);
    Ok(())
}

pub(super) fn sequential_writes_at_depth_are_read_back(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    let mut queue = IoQueue::open(&claim.spec())?;
    let zone = ZoneId(3);
    let zoned = queue.info().zoned()?;
    let (start, capacity) = (zoned.start(zone), zoned.capacity(zone));
    let count = capacity.context("no such zone")?.0 / SECTORS;
    let expected: Vec<Placed> = (0..count)
        .map(|sequence| Placed {
            sector: start.0 + sequence * SECTORS,
            record: Record {
                seed: SEED,
                sequence,
                zone: zone.0,
                units: 1,
            },
        })
        .collect();

    let written = Run::of(&mut queue, &expected, |placed, mut buffer| {
        buffer.copy_from_slice(&placed.record.bytes());
        let at = Sector(placed.sector);
        Request::Write { at, buffer }
    })?;
    written.note(context, "write");
    queue
        .submit(Request::Flush, 0)
        .map_err(zbd_core::Error::from)?;
    queue.commit();
    let flushed = wait(&mut queue);
    flushed.result.context("flush")?;

    let read = Run::of(&mut queue, &expected, |placed, mut buffer| {
        buffer.fill(0xee);
        let at = Sector(placed.sector);
        Request::Read { at, buffer }
    })?;
    read.note(context, "read");
    for (placed, data) in expected.iter().zip(&read.data) {
        ensure!(*data == placed.record.bytes(), "other data: {placed:?}");
    }

    drop(queue);
    block_on(async {
        let device = ZonedDevice::open(&claim.spec())?;
        let report = device.zone(zone).report().await?;
        ensure!(report.state == ZoneState::Full, "{report:?}");
        ensure_same(&expected, &records(&device, &report).await?)
    })
}

/// A request for each record, as many at a time as the depth allows, each batch with one commit.
struct Run {
    data: Vec<Vec<u8>>,
    seconds: f64,
    doorbells: u64,
}

impl Run {
    fn of(
        queue: &mut IoQueue,
        records: &[Placed],
        request: impl Fn(&Placed, zbd_core::DmaBuffer) -> Request,
    ) -> Result<Self> {
        let doorbells = queue.doorbells();
        let mut data = vec![Vec::new(); records.len()];
        let mut seconds = 0.0;
        for (number, records) in records.chunks(DEPTH as usize).enumerate() {
            let mut requests = Vec::new();
            for placed in records {
                requests.push(request(placed, queue.buffer(UNIT)?));
            }
            let tokens = number as u64 * DEPTH..;
            let (ended, took) = batch::run(queue, tokens.zip(requests))?;
            seconds += took;
            for done in ended {
                let index = usize::try_from(done.token)?;
                let sector = done.result.with_context(|| format!("request {index}"))?;
                let placed = &records[index % DEPTH as usize];
                ensure!(sector.0 == placed.sector, "{placed:?} ended at {sector}");
                ensure!(data[index].is_empty(), "request {index} ended twice");
                data[index] = done.buffer.context("no buffer came back")?.to_vec();
            }
        }
        Ok(Self {
            data,
            seconds,
            doorbells: queue.doorbells() - doorbells,
        })
    }

    fn note(&self, context: &mut Context, what: &str) {
        let requests = self.data.len() as f64;
        context.metric(
            format!("{what}_iops_depth_{DEPTH}"),
            requests / self.seconds,
        );
        let each = requests / self.doorbells as f64;
        context.metric(format!("{what}s_per_doorbell"), each);
    }
}

fn wait(queue: &mut IoQueue) -> zbd_core::Completion {
    loop {
        if let Some(done) = queue.poll() {
            return done;
        }
    }
}

pub(super) fn conventional_zone_and_plain_disk_are_written_anywhere(
    context: &mut Context,
) -> Result<()> {
    // Sectors of the first zone of `main`, which is conventional, and of a disk without zones.
    for (name, sectors) in [("main", [80, 0, 16_000]), ("plain", [131_064, 8, 4096])] {
        let claim = context.claim(name)?;
        let device = ZonedDevice::open(&claim.spec())?;
        block_on(async {
            for (value, sector) in (1..).zip(sectors) {
                for value in [0xff, value] {
                    let mut buffer = device.buffer(UNIT)?;
                    buffer.fill(value);
                    device.write(Sector(sector), buffer).await?;
                }
            }
            device.flush().await?;
            for (value, sector) in (1..).zip(sectors) {
                let data = device.read(Sector(sector), UNIT).await?.to_vec();
                ensure!(data == [value; UNIT], "{name}, sector {sector}");
            }
            Ok(())
        })?;
        drop(device);
        let disk = claim.give_back()?;
        for (value, sector) in (1..).zip(sectors) {
            let data = disk.read(sector, UNIT)?;
            ensure!(data == [value; UNIT], "Linux, {name}, sector {sector}");
        }
    }
    Ok(())
}
