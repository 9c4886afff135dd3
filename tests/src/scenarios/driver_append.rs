//! Appends: the device chooses the sector, says which it was, and the data are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use zbd_core::{ErrorKind, IoQueue, Request, ZoneId, ZoneState, ZonedDevice};

use super::Context;
use crate::inside::batch;
use crate::inside::claim::{block_on, ensure_same_zones, records, records_seen_by_linux};
use crate::inside::record::{Placed, Record, UNIT, ensure_same};

pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// Zones that the tasks of one job append to.
pub(super) const ZONES: u32 = 3;

/// Records appended by many tasks at once.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// How many tasks, each with one append in flight; also the seed.
    pub(super) depth: u32,
    pub(super) count: u64,
    pub(super) first_zone: u32,
}

impl Job {
    fn record(self, sequence: u64) -> Record {
        Record {
            seed: self.depth.into(),
            sequence,
            zone: self.first_zone + (sequence % u64::from(ZONES)) as u32,
            // Lengths differ, so that neither a shifted nor a swapped location can pass.
            units: 1 + (sequence % 4) as u32,
        }
    }

    pub(super) async fn run(self, device: &ZonedDevice) -> Result<Vec<Placed>> {
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..self.depth {
            tasks.spawn(self.task(device.clone(), Arc::clone(&next)));
        }
        let mut placed = Vec::new();
        while let Some(task) = tasks.join_next().await {
            placed.extend(task??);
        }
        Ok(placed)
    }

    async fn task(self, device: ZonedDevice, next: Arc<AtomicU64>) -> Result<Vec<Placed>> {
        let mut placed = Vec::new();
        loop {
            let record = self.record(next.fetch_add(1, Ordering::Relaxed));
            if record.sequence >= self.count {
                return Ok(placed);
            }
            let mut buffer = device.buffer(record.len_bytes())?;
            buffer.copy_from_slice(&record.bytes());
            let appended = device.append(ZoneId(record.zone), buffer).await?;
            ensure!(
                appended.buffer.len() == record.len_bytes(),
                "another buffer came back"
            );
            let sector = appended.sector.0;
            placed.push(Placed { sector, record });
        }
    }
}

pub(super) fn appends_of_many_tasks_land_where_the_device_says(
    context: &mut Context,
) -> Result<()> {
    for name in ["main", "unmerged"] {
        // As many zones in all as may be active on `main`, and more than may be open.
        let first = u32::try_from(context.geometry(name)?.conventional)?;
        let jobs = [(1, 60), (8, 300), (32, 900), (128, 1500)];
        let jobs: Vec<Job> = (0..)
            .zip(jobs)
            .map(|(index, (depth, count))| Job {
                depth,
                count,
                first_zone: first + index * ZONES,
            })
            .collect();
        let claim = context.claim(name)?;
        let device = ZonedDevice::open(&claim.spec())?;
        let mut placed = Vec::new();
        let report = block_on(async {
            for job in &jobs {
                let start = Instant::now();
                placed.extend(job.run(&device).await?);
                let iops = job.count as f64 / start.elapsed().as_secs_f64();
                context.metric(
                    format!("{name}_async_append_iops_depth_{}", job.depth),
                    iops,
                );
            }
            let report = device.report(..).await?;
            let mut found = Vec::new();
            for zone in &report[first as usize..] {
                found.extend(records(&device, zone).await?);
            }
            // Records found lie inside their zones and below the write pointers, without gaps.
            ensure_same(&placed, &found).context(name)?;
            ensure!(found.iter().all(|found| {
                let zone = &report[found.record.zone as usize];
                (zone.start..zone.capacity_end()).contains(&zbd_core::Sector(found.sector))
            }));
            Ok(report)
        })?;
        let count: u64 = jobs.iter().map(|job| job.count).sum();
        ensure!(placed.len() as u64 == count);
        drop(device);

        let disk = claim.give_back()?;
        ensure_same_zones(&report, &disk.report()?).context(name)?;
        let zones: Vec<ZoneId> = report[first as usize..]
            .iter()
            .map(|zone| zone.id)
            .collect();
        let found = records_seen_by_linux(&disk, &zones)?;
        ensure_same(&placed, &found).context("what Linux reads")?;
    }
    Ok(())
}

pub(super) fn batch_of_appends_takes_one_doorbell(context: &mut Context) -> Result<()> {
    const DEPTH: u64 = 32;
    const BATCHES: u64 = 40;
    let claim = context.claim("main")?;
    let mut queue = IoQueue::open(&claim.spec())?;
    let before = queue.doorbells();
    let mut placed = Vec::new();
    let mut seconds = 0.0;
    for number in 0..BATCHES {
        let record = |sequence: u64| Record {
            seed: 3,
            sequence,
            zone: 2 + (sequence % 4) as u32,
            units: 1,
        };
        let sequences = number * DEPTH..(number + 1) * DEPTH;
        let mut requests = Vec::new();
        for sequence in sequences.clone() {
            let mut buffer = queue.buffer(UNIT)?;
            buffer.copy_from_slice(&record(sequence).bytes());
            let zone = ZoneId(record(sequence).zone);
            requests.push((sequence, Request::Append { zone, buffer }));
        }
        let (ended, took) = batch::run(&mut queue, requests)?;
        seconds += took;
        let mut tokens: Vec<u64> = ended.iter().map(|done| done.token).collect();
        tokens.sort_unstable();
        ensure!(tokens.iter().copied().eq(sequences), "{tokens:?}");
        for done in ended {
            let record = record(done.token);
            let buffer = done.buffer.context("no buffer came back")?;
            ensure!(buffer.to_vec() == record.bytes(), "another buffer");
            let sector = done.result?.0;
            placed.push(Placed { sector, record });
        }
    }
    let doorbells = queue.doorbells() - before;
    ensure!(doorbells <= BATCHES, "{doorbells} for {BATCHES} batches");
    let appends = (BATCHES * DEPTH) as f64;
    context.metric("appends_per_doorbell", appends / doorbells as f64);
    context.metric("append_iops_depth_32", appends / seconds);
    drop(queue);

    let disk = claim.give_back()?;
    let zones = [2, 3, 4, 5].map(ZoneId);
    ensure_same(&placed, &records_seen_by_linux(&disk, &zones)?)
}

pub(super) fn full_zone_takes_no_more(context: &mut Context) -> Result<()> {
    let full = ZoneId(4);
    let next = ZoneId(5);
    for name in ["main", "unmerged"] {
        let geometry = context.geometry(name)?;
        let claim = context.claim(name)?;
        let device = ZonedDevice::open(&claim.spec())?;
        let units = u32::try_from(geometry.max_append / UNIT as u64)?;
        let mut placed = Vec::new();
        block_on(async {
            for sequence in 0..geometry.zone_capacity / geometry.max_append {
                let record = Record {
                    seed: 5,
                    sequence,
                    zone: full.0,
                    units,
                };
                let zone = device.zone(full).report().await?;
                ensure!(zone.state != ZoneState::Full, "too soon: {zone:?}");
                let mut buffer = device.buffer(record.len_bytes())?;
                buffer.copy_from_slice(&record.bytes());
                let sector = device.append(full, buffer).await?.sector.0;
                placed.push(Placed { sector, record });
            }
            let zone = device.zone(full).report().await?;
            ensure!(zone.state == ZoneState::Full, "{zone:?}");
            ensure!(zone.write_pointer.is_none(), "{zone:?}");

            // QEMU refuses the first where the capacity is smaller than the zone, and puts the next
            // into the zone behind.
            let mut strays = 0;
            for _ in 0..2 {
                let error = match device.append(full, device.buffer(UNIT)?).await {
                    Ok(appended) => anyhow::bail!("{name}: {appended:?} in a full zone"),
                    Err(error) => error,
                };
                let text = error.to_string();
                match error.kind() {
                    ErrorKind::InvalidZoneState => {}
                    ErrorKind::Protocol => {
                        strays += 1;
                        for zone in [full, next] {
                            ensure!(text.contains(&format!("zone {zone}")), "{text}");
                        }
                    }
                    _ => anyhow::bail!("{error:?}"),
                }
                ensure!(error.into_buffer().is_some(), "the buffer is gone: {text}");
            }
            ensure!(strays > 0, "QEMU put no append into the next zone");
            context.metric(format!("{name}_stray_appends"), f64::from(strays));

            // The device is none the worse for it.
            ensure_same(&placed, &records(&device, &zone).await?)?;
            device.zone(next).reset().await?;
            let at = device.append(next, device.buffer(UNIT)?).await?.sector;
            ensure!(at == device.zone(next).report().await?.start, "{at}");
            Ok(())
        })?;
        drop(device);
        let disk = claim.give_back()?;
        ensure_same(&placed, &records_seen_by_linux(&disk, &[full])?)?;
    }
    Ok(())
}
