//! A plain disk whose size changes while it is open.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use zbd_core::{DeviceEvent, Error, ErrorKind, IoQueue, Request, Sector, SectorCount, ZonedDevice};

use super::Context;
use crate::inside::batch;
use crate::inside::claim::block_on;
use crate::inside::control::Control;
use crate::inside::record::UNIT;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

const DISK: &str = "plain";
const GROWTH: u64 = 32 << 20;
const SECTORS: u64 = UNIT as u64 / 512;

fn resize(control: &mut Control, bytes: u64) -> Result<()> {
    let arguments = json!({ "node-name": DISK, "size": bytes });
    control.execute("block_resize", &arguments).map(drop)
}

fn sectors(bytes: u64) -> SectorCount {
    SectorCount(bytes / 512)
}

/// Where the last unit of a disk begins.
fn last(bytes: u64) -> Sector {
    Sector(bytes / 512 - SECTORS)
}

pub(super) fn queue_learns_the_new_size(context: &mut Context) -> Result<()> {
    let small = context.function(DISK)?.disk.bytes;
    let large = small + GROWTH;
    let claim = context.claim(DISK)?;
    let mut control = context.control()?;
    let mut queue = IoQueue::open(&claim.spec())?;
    let beyond = attempt(&mut queue, last(large), 1)?;
    ensure!(beyond == Err(ErrorKind::InvalidRequest), "{beyond:?}");
    for (busy, before, now) in [
        (false, small, large),
        (true, large, small),
        (true, small, large),
        (false, large, small),
    ] {
        resize(&mut control, now)?;
        let event = next_event(&mut queue, busy)?;
        let (before, capacity) = (sectors(before), sectors(now));
        let expected = DeviceEvent::Resized {
            before,
            now: capacity,
        };
        ensure!(event == expected, "{event:?}, not {expected:?}");
        ensure!(queue.info().capacity == capacity, "{:?}", queue.info());
        let done = attempt(&mut queue, last(now), now as u8 | 1)?;
        ensure!(done.is_ok(), "the last sectors: {done:?}");
        let beyond = attempt(&mut queue, Sector(capacity.0), 1)?;
        ensure!(beyond == Err(ErrorKind::InvalidRequest), "{beyond:?}");
    }
    ensure!(queue.next_event().is_none(), "another event");
    drop(queue);
    claim.give_back()?;
    Ok(())
}

/// Polls until something is announced, with or without requests in flight.
fn next_event(queue: &mut IoQueue, busy: bool) -> Result<DeviceEvent> {
    let start = Instant::now();
    loop {
        if busy {
            let (at, buffer) = (Sector(0), queue.buffer(UNIT)?);
            let (ended, _) = batch::run(queue, [(0, Request::Read { at, buffer })])?;
            for done in ended {
                done.result?;
            }
        } else {
            ensure!(queue.poll().is_none(), "a completion of nothing");
            thread::yield_now();
        }
        if let Some(event) = queue.next_event() {
            return Ok(event);
        }
        if start.elapsed() > Duration::from_secs(5) {
            bail!("nothing was announced");
        }
    }
}

/// Writes a unit at `at`, and reads it back.
fn attempt(queue: &mut IoQueue, at: Sector, value: u8) -> Result<Result<(), ErrorKind>> {
    let mut buffer = queue.buffer(UNIT)?;
    buffer.fill(value);
    if let Err(rejected) = queue.submit(Request::Write { at, buffer }, 0) {
        return Ok(Err(rejected.error.kind()));
    }
    let (written, _) = batch::run(queue, [])?;
    let buffer = queue.buffer(UNIT)?;
    let (read, _) = batch::run(queue, [(1, Request::Read { at, buffer })])?;
    for done in written.iter().chain(&read) {
        if let Err(error) = &done.result {
            return Ok(Err(Error::kind(error)));
        }
    }
    let read = read.into_iter().next().context("nothing came back")?;
    let data = read.buffer.context("no buffer came back")?.to_vec();
    ensure!(data == [value; UNIT], "other data at {at}");
    Ok(Ok(()))
}

pub(super) fn tasks_learn_the_new_size(context: &mut Context) -> Result<()> {
    let small = context.function(DISK)?.disk.bytes;
    let large = small + GROWTH;
    let claim = context.claim(DISK)?;
    let mut control = context.control()?;
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        let mut events = device.events();
        for (before, now) in [(small, large), (large, small)] {
            resize(&mut control, now)?;
            let event = events.next().await.context("the device was closed")?;
            let (before, capacity) = (sectors(before), sectors(now));
            let expected = DeviceEvent::Resized {
                before,
                now: capacity,
            };
            ensure!(event == expected, "{event:?}, not {expected:?}");
            ensure!(device.info().capacity == capacity, "{:?}", device.info());
            let mut buffer = device.buffer(UNIT)?;
            buffer.fill(5);
            device.write(last(now), buffer).await?;
            let read = device.read(last(now), UNIT).await?.to_vec();
            ensure!(read == [5; UNIT], "other data");
            let beyond = device.read(Sector(capacity.0), UNIT).await;
            let kind = beyond.err().map(|error| error.kind());
            ensure!(kind == Some(ErrorKind::InvalidRequest), "{kind:?}");
        }
        Ok(())
    })?;
    drop(device);
    claim.give_back()?;
    Ok(())
}
