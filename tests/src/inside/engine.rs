//! What a small storage engine does with a zoned device: one program for every back end.
//!
//! Nothing in here asks which back end it is on and then does less. What back ends differ in they say
//! in [`DeviceInfo`], and what is expected of them follows from that.

mod limits;
mod local;
mod log;
mod requests;
mod writer;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::LocalRuntime;
use tokio::task::JoinSet;
use zbd_core::{
    AppendSupport, Backend, DeviceInfo, Driver, ErrorKind, IoQueue, OpenOptions, WaitPolicy, Zone,
    ZoneId, ZoneType, ZonedDevice,
};

use super::claim::{block_on, records};
use super::record::{Placed, Record, UNIT, ensure_same};

/// The consent to lose what is on the device.
#[derive(Debug, Clone, Copy)]
pub struct Destroy;

/// Whether what is on a device is there when the device is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// It is.
    Lasting,
    /// It goes with the process's device.
    Passing,
}

/// All ways to wait.
pub const POLICIES: [WaitPolicy; 3] = [
    WaitPolicy::Poll,
    WaitPolicy::Adaptive,
    WaitPolicy::Interrupt,
];

/// Far more than any request takes that is not lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many sequential zones a device needs.
const ZONES: usize = 5;
/// How many tasks append at once, and how often each does to each zone.
const TASKS: u64 = 24;
const ROUNDS: u64 = 5;

/// Opens the device that `spec` names, uses it from several tasks on two threads, opens it again if
/// something is left of it, and then uses it from one thread that drives it itself, in every way to
/// wait.
///
/// # Errors
/// Says what was not as it should be.
pub fn exercise(spec: &str, destroy: Destroy, medium: Medium) -> Result<()> {
    let kept = shared(spec, destroy)?;
    if medium == Medium::Lasting {
        let device = ZonedDevice::open(spec)?;
        block_on(kept.check(&device)).context("after the device was opened again")?;
    }
    for wait in POLICIES {
        local::exercise(spec, wait).with_context(|| format!("on one thread, {wait}"))?;
    }
    Ok(())
}

/// A runtime of one thread, with a clock, which drives the devices of that thread and sleeps for
/// them and for all else at once.
///
/// # Errors
/// If the system has nothing to sleep in.
pub fn runtime() -> Result<LocalRuntime> {
    local::runtime()
}

/// What tasks on several threads do. Leaves a log behind.
fn shared(spec: &str, _: Destroy) -> Result<log::Kept> {
    let most = ZonedDevice::open(spec)?.info().max_queues;
    let queues = open(spec, most.min(2), WaitPolicy::Adaptive)?;
    let device = ZonedDevice::from_queues(queues)?.with_timeout(Some(PATIENCE));
    block_on(async move {
        ensure_sane(&device.info())?;
        device.reset_all().await?;
        let zones = sequential(&device).await?;
        appends_of_tasks(&device, &zones).await.context("appends")?;
        requests::exercise(&device, &zones).await?;
        limits::exercise(&device, &zones).await.context("limits")?;
        device.reset_all().await?;
        writer::exercise(&device, zones[0])
            .await
            .context("writer")?;
        log::exercise(&device, zones[1]..ZoneId(zones[1].0 + 3))
            .await
            .context("log")
    })
}

fn open(spec: &str, queues: u16, wait: WaitPolicy) -> Result<Vec<IoQueue>> {
    let options = OpenOptions {
        queues,
        wait,
        memory_len: 32 << 20,
        ..OpenOptions::default()
    };
    Ok(options.open(&spec.parse()?)?)
}

/// What a device says of itself agrees with itself.
fn ensure_sane(info: &DeviceInfo) -> Result<()> {
    let zoned = info.zoned()?;
    let expected = match info.backend {
        Backend::Kernel => AppendSupport::Emulated,
        _ => AppendSupport::Native,
    };
    ensure!(
        zoned.append == expected && zoned.max_append.bytes() >= 16 * UNIT as u64,
        "{info:?}"
    );
    ensure!(
        info.wait_method.is_some() == (info.wait != WaitPolicy::Poll),
        "{info:?}"
    );
    Ok(())
}

/// The zones that are written in sequence.
async fn sequential<D: Driver>(device: &ZonedDevice<D>) -> Result<Vec<ZoneId>> {
    let zones = device.report(..).await?;
    let wanted = zones
        .iter()
        .filter(|zone| zone.zone_type == ZoneType::SequentialRequired);
    let wanted: Vec<ZoneId> = wanted.map(|zone| zone.id).collect();
    ensure!(wanted.len() > ZONES, "too few zones: {zones:?}");
    Ok(wanted)
}

/// Appends a record, from a buffer that is waited for.
async fn append<D: Driver>(device: &ZonedDevice<D>, record: Record) -> Result<Placed> {
    let mut buffer = device.wait_for_buffer(record.len_bytes()).await?;
    buffer.copy_from_slice(&record.bytes());
    let appended = device.append(ZoneId(record.zone), buffer).await?;
    ensure!(
        appended.buffer.len() == record.len_bytes(),
        "another buffer came back"
    );
    let sector = appended.sector.0;
    Ok(Placed { sector, record })
}

/// One task's appends to `zones`.
async fn append_all<D: Driver>(
    device: ZonedDevice<D>,
    task: u64,
    zones: Vec<ZoneId>,
) -> Result<Vec<Placed>> {
    let mut placed = Vec::new();
    for round in 0..ROUNDS {
        for (zone, index) in zones.iter().zip(0..) {
            let sequence = round * zones.len() as u64 + index;
            let record = Record {
                seed: task,
                sequence,
                zone: zone.0,
                // Lengths differ, so that neither a shifted nor a swapped location can pass.
                units: 1 + ((task + sequence) % 4) as u32,
            };
            placed.push(append(&device, record).await?);
        }
    }
    Ok(placed)
}

async fn appends_of_tasks(device: &ZonedDevice, zones: &[ZoneId]) -> Result<()> {
    let zones = &zones[..3];
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(append_all(device.clone(), task, zones.to_vec()));
    }
    all_are_there(device, tasks, zones).await
}

/// Passes if what the tasks have appended is where the device said, and nothing else is in `zones`.
async fn all_are_there<D: Driver>(
    device: &ZonedDevice<D>,
    mut tasks: JoinSet<Result<Vec<Placed>>>,
    zones: &[ZoneId],
) -> Result<()> {
    let mut placed = Vec::new();
    while let Some(task) = tasks.join_next().await {
        placed.extend(task??);
    }
    ensure!(placed.len() as u64 == TASKS * ROUNDS * zones.len() as u64);
    device.flush().await?;
    let mut found = Vec::new();
    for zone in zones {
        found.extend(records(device, &report(device, *zone).await?).await?);
    }
    ensure_same(&placed, &found)
}

async fn report<D: Driver>(device: &ZonedDevice<D>, zone: ZoneId) -> Result<Zone> {
    Ok(device.zone(zone).report().await?)
}

/// Passes if `result` is an error of `kind` whose text has all of `words`; yields whether it gave a
/// buffer back.
fn refused<T>(
    result: zbd_core::Result<T>,
    kind: ErrorKind,
    words: &[&str],
    what: &str,
) -> Result<bool> {
    let error = result.err().with_context(|| format!("{what}: done"))?;
    let text = error.to_string();
    ensure!(
        error.kind() == kind && words.iter().all(|word| text.contains(word)),
        "{what}: {error:?}, not {kind:?} with {words:?}"
    );
    Ok(error.into_buffer().is_some())
}

/// Data that are told from all others by `seed`.
fn data(seed: u64, units: usize) -> Vec<u8> {
    let record = Record {
        seed,
        sequence: 0,
        zone: 0,
        units: units as u32,
    };
    record.bytes()
}
