//! On the embedded device: no privileges, any machine. The same records as on the real one.

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use zbd_core::{Zone, ZoneId, ZoneState, ZoneType, ZonedDevice};
use zbd_tests::inside::claim::{block_on, records};
use zbd_tests::inside::record::{Placed, Record, UNIT, ensure_same};

const TASKS: u32 = 32;
/// Each task appends so many records to each zone.
const ROUNDS: u64 = 10;

/// Geometries that differ in what a driver can get wrong.
const DEVICES: &[&str] = &[
    "emu:",
    "emu:zones=7,zone-size=5m,zone-cap=4m,conventional=2,max-append=64k,block-size=512",
    "emu:size=50m,zone-size=12m,indirect=off,event-idx=off,queue-size=16",
    "emu:zones=6,zone-size=8m,max-open=2,max-active=6,latency=20us",
];

fn sequential(zones: &[Zone]) -> Vec<ZoneId> {
    let wanted = zones
        .iter()
        .filter(|zone| zone.zone_type == ZoneType::SequentialRequired);
    wanted.map(|zone| zone.id).take(4).collect()
}

async fn append_all(device: ZonedDevice, task: u32, zones: Vec<ZoneId>) -> Result<Vec<Placed>> {
    let mut placed = Vec::new();
    for round in 0..ROUNDS {
        for (zone, index) in zones.iter().zip(0..) {
            let sequence = round * zones.len() as u64 + index;
            let record = Record {
                seed: task.into(),
                sequence,
                zone: zone.0,
                units: 1 + (task + sequence as u32) % 3,
            };
            // Without tables, a buffer of many pieces takes the place of several requests.
            let mut buffer = device.buffer(UNIT)?;
            for _ in 1..record.units {
                let piece = device.buffer(UNIT)?;
                buffer.join(piece).map_err(|(error, _)| error)?;
            }
            buffer.copy_from_slice(&record.bytes());
            let sector = device.append(*zone, buffer).await?.sector.0;
            placed.push(Placed { sector, record });
        }
    }
    Ok(placed)
}

/// Appends from many tasks, reads everything back, and finishes and resets what was written.
async fn exercise(device: &ZonedDevice) -> Result<()> {
    let zones = sequential(&device.report(..).await?);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(append_all(device.clone(), task, zones.clone()));
    }
    let mut placed = Vec::new();
    while let Some(task) = tasks.join_next().await {
        placed.extend(task??);
    }
    ensure!(placed.len() == TASKS as usize * ROUNDS as usize * zones.len());
    device.flush().await?;

    let mut found = Vec::new();
    for zone in &zones {
        found.extend(records(device, &device.zone(*zone).report().await?).await?);
    }
    ensure_same(&placed, &found)?;

    for zone in zones {
        let zone = device.zone(zone);
        zone.finish().await?;
        ensure!(zone.report().await?.state == ZoneState::Full);
        zone.reset().await?;
        ensure!(zone.report().await?.state == ZoneState::Empty);
    }
    Ok(())
}

#[test]
fn appends_of_many_tasks_land_where_the_device_says() -> Result<()> {
    for spec in DEVICES {
        let device = ZonedDevice::open(spec)?;
        block_on(exercise(&device)).context(*spec)?;
    }
    Ok(())
}
