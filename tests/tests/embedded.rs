//! On the embedded device: no privileges, any machine. The same records as on the real one.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use zbd_core::{Zone, ZoneId, ZoneState, ZoneType, ZonedDevice};
use zbd_tests::inside::claim::{block_on, records};
use zbd_tests::inside::engine::{self, Destroy, Medium};
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

/// Limits of every kind, and devices without.
const ENGINES: &[&str] = &[
    "emu:",
    "emu:queues=2,zones=16,zone-size=8m,zone-cap=6m,conventional=2,max-append=64k,block-size=512,\
     max-open=4,max-active=6",
    "emu:queues=2,zones=12,zone-size=8m,max-open=0,max-active=0,ring=packed,latency=30us",
    "emu:zones=12,zone-size=8m,max-open=6,max-active=6,queue-size=32",
];

#[test]
fn one_engine_runs_on_every_emulated_device() -> Result<()> {
    for spec in ENGINES {
        engine::exercise(spec, Destroy, Medium::Passing).context(*spec)?;
    }
    Ok(())
}

#[test]
fn one_engine_runs_on_a_file_and_finds_its_log_again() -> Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine.zbd");
    // One that a test which was killed has left behind.
    let _ = fs::remove_file(&path);
    let spec = format!("emu:store={},zones=24,zone-size=8m", path.display());
    engine::exercise(&spec, Destroy, Medium::Lasting)?;
    fs::remove_file(&path)?;
    Ok(())
}
