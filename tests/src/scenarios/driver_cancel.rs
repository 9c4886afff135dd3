//! Futures, queues and devices dropped while the device has their requests.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Waker};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use zbd_core::{DmaBuffer, IoQueue, OpenOptions, Request, ZoneId, ZonedDevice};

use super::Context;
use crate::inside::claim::{block_on, records};
use crate::inside::record::{Placed, Record, UNIT};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

const ZONE: ZoneId = ZoneId(2);
const DEPTH: u64 = 32;
const SECTORS: u64 = UNIT as u64 / 512;

fn record(seed: u64, sequence: u64) -> Record {
    Record {
        seed,
        sequence,
        zone: ZONE.0,
        units: 1,
    }
}

fn fill(mut buffer: DmaBuffer, record: Record) -> DmaBuffer {
    buffer.copy_from_slice(&record.bytes());
    buffer
}

pub(super) fn dropped_appends_run_to_their_end(context: &mut Context) -> Result<()> {
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    let options = OpenOptions {
        memory_len: 4 << 20,
        ..OpenOptions::default()
    };
    let device = ZonedDevice::open_with(&claim.spec().parse()?, &options)?;
    let free = free_buffers(&device);
    let held = panel.hold()?;
    let mut futures = Vec::new();
    for sequence in 0..2 * DEPTH {
        let buffer = fill(device.buffer(UNIT)?, record(1, sequence));
        futures.push(Box::pin(device.append(ZONE, buffer)));
    }
    // The second half of the futures is never polled: nothing comes of those.
    for future in &mut futures[..DEPTH as usize] {
        ensure!(poll_once(future.as_mut()).is_pending(), "the disk is held");
    }
    // Half of those that were polled go at once, half when the device has long seen them.
    drop(futures.split_off(DEPTH as usize / 2));
    thread::sleep(Duration::from_millis(200));
    drop(futures);
    drop(held);

    block_on(async {
        let report = wait_for(&device, DEPTH * SECTORS).await?;
        let found = records(&device, &report).await?;
        ensure_each_once(&found, 1, DEPTH)?;
        ensure!(found.len() as u64 == DEPTH, "{} records", found.len());
        // Every buffer has come back, those of futures that were never polled too.
        let now = free_buffers(&device);
        ensure!(now == free, "{now} buffers can be had, not {free}");
        let buffer = fill(device.buffer(UNIT)?, record(1, DEPTH));
        let at = device.append(ZONE, buffer).await?.sector;
        ensure!(at.0 == report.start.0 + DEPTH * SECTORS, "{at}");
        Ok(())
    })
}

/// How many buffers can be had.
fn free_buffers(device: &ZonedDevice) -> usize {
    let buffers: Vec<_> = std::iter::from_fn(|| device.buffer(UNIT).ok()).collect();
    buffers.len()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> task::Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

/// Waits until `sectors` of the zone are written.
async fn wait_for(device: &ZonedDevice, sectors: u64) -> Result<zbd_core::Zone> {
    let start = Instant::now();
    loop {
        let zone = device.zone(ZONE).report().await?;
        if zone.written().is_some_and(|written| written.0 >= sectors) {
            return Ok(zone);
        }
        if start.elapsed() > Duration::from_secs(10) {
            bail!("not {sectors} sectors after 10 s: {zone:?}");
        }
    }
}

/// Passes if all records are of the job `seed` and below `end`; that none is there twice and none
/// damaged has been seen to by whoever read them.
fn ensure_each_once(found: &[Placed], seed: u64, end: u64) -> Result<()> {
    crate::inside::record::ensure_present(&[], found)?;
    let strange = found
        .iter()
        .find(|placed| placed.record.seed != seed || placed.record.sequence >= end);
    ensure!(strange.is_none(), "{strange:?}");
    Ok(())
}

pub(super) fn device_is_dropped_with_requests_in_flight(context: &mut Context) -> Result<()> {
    // A reset waits for what is in flight, and QEMU lets nothing else happen meanwhile, not even the
    // guest's clock: a held disk would be the end of it, and a very slow one is as bad.
    const EACH_TAKES: Duration = Duration::from_millis(1);
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    for seed in 0..4 {
        {
            let _slow = panel.delay(u64::try_from(EACH_TAKES.as_micros())?)?;
            let start = Instant::now();
            if seed % 2 == 0 {
                drop_device(&claim.spec(), seed)?;
            } else {
                drop_queue(&claim.spec(), seed)?;
            }
            context.metric(
                format!("seconds_to_drop_{seed}"),
                start.elapsed().as_secs_f64(),
            );
        }
        let device = ZonedDevice::open(&claim.spec()).context("open it again")?;
        block_on(async {
            let zone = device.zone(ZONE).report().await?;
            let found = records(&device, &zone).await?;
            ensure_each_once(&found, seed, DEPTH)?;
            context.metric(format!("carried_out_{seed}"), found.len() as f64);
            let at = device.append(ZONE, device.buffer(UNIT)?).await?.sector;
            ensure!(Some(at) == zone.write_pointer, "{at}, {zone:?}");
            device.zone(ZONE).reset().await?;
            Ok(())
        })?;
    }
    claim.give_back()?;
    Ok(())
}

/// Drops a device right after its thread has been given appends.
fn drop_device(spec: &str, seed: u64) -> Result<()> {
    let device = ZonedDevice::open(spec)?;
    for sequence in 0..DEPTH {
        let buffer = fill(device.buffer(UNIT)?, record(seed, sequence));
        let mut future = Box::pin(device.append(ZONE, buffer));
        ensure!(poll_once(future.as_mut()).is_pending());
    }
    thread::sleep(Duration::from_millis(5));
    drop(device);
    Ok(())
}

/// Drops a queue with appends and reads in flight.
fn drop_queue(spec: &str, seed: u64) -> Result<()> {
    let mut queue = IoQueue::open(spec)?;
    for sequence in 0..DEPTH {
        let buffer = fill(queue.buffer(UNIT)?, record(seed, sequence));
        let append = Request::Append { zone: ZONE, buffer };
        let buffer = queue.buffer(UNIT)?;
        let at = zbd_core::Sector(0);
        let read = Request::Read { at, buffer };
        for request in [append, read] {
            queue
                .submit(request, sequence)
                .map_err(zbd_core::Error::from)?;
        }
    }
    queue.commit();
    ensure!(queue.in_flight() as u64 == 2 * DEPTH);
    drop(queue);
    Ok(())
}
