//! A disk unplugged under load: everything ends, everyone learns it, and nobody is kept waiting, the
//! kernel included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::task::JoinSet;
use zbd_core::{
    DeviceEvent, DmaBuffer, Error, ErrorKind, IoQueue, OpenOptions, Request, Sector, ZoneId,
    ZonedDevice,
};

use super::Context;
use crate::inside::claim::{Claim, block_on};
use crate::inside::control::Control;
use crate::inside::record::UNIT;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

const DISK: &str = "unplugged";
/// What a queue has in flight, or could have.
const DEPTH: u16 = 16;
/// How many requests are carried out before the disk goes.
const BEFORE: u64 = 200;
/// How long those who have the disk may take to learn that it goes.
const LEARNING: Duration = Duration::from_secs(10);

fn open(claim: &Claim) -> Result<Vec<IoQueue>> {
    let options = OpenOptions {
        queues: 2,
        queue_size: Some(DEPTH),
        memory_len: 4 << 20,
        ..OpenOptions::default()
    };
    Ok(options.open(&claim.spec().parse()?)?)
}

/// Reads, writes and appends in turn. The conventional zone takes all the writes.
fn request(number: u64, buffer: DmaBuffer) -> Request {
    let at = Sector(number % 100 * 8);
    match number % 3 {
        0 => Request::Read { at, buffer },
        1 => Request::Write { at, buffer },
        _ => {
            let zone = ZoneId(1 + (number % 15) as u32);
            Request::Append { zone, buffer }
        }
    }
}

/// Unplugs the disk once some requests have been carried out.
fn unplug(control: &mut Control, claim: &Claim, carried_out: &AtomicU64) -> Result<()> {
    let start = Instant::now();
    while carried_out.load(Ordering::Relaxed) < BEFORE {
        ensure!(start.elapsed() < LEARNING, "there is no load");
        thread::sleep(Duration::from_millis(1));
    }
    control.unplug(&claim.function)
}

/// Plugs the disk in again, and uses it.
fn reopen(control: &mut Control, claim: &Claim) -> Result<()> {
    control.plug(&claim.function)?;
    let claim = Claim::take(claim.function.clone())?;
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        device.reset_all().await?;
        let mut buffer = device.buffer(UNIT)?;
        buffer.fill(7);
        let at = device.append(ZoneId(1), buffer).await?.sector;
        ensure!(device.read(at, UNIT).await?.to_vec() == [7; UNIT]);
        Ok(())
    })?;
    drop(device);
    claim.give_back()?;
    Ok(())
}

pub(super) fn queues_learn_that_their_device_is_gone(context: &mut Context) -> Result<()> {
    let claim = context.claim(DISK)?;
    let mut control = context.control()?;
    let queues = open(&claim)?;
    let carried_out = AtomicU64::new(0);
    let start = Instant::now();
    let ended = thread::scope(|scope| {
        let loads: Vec<_> = queues
            .into_iter()
            .map(|queue| scope.spawn(|| load(queue, &carried_out)))
            .collect();
        unplug(&mut control, &claim, &carried_out)?;
        let mut ended = 0;
        for load in loads {
            ended += load.join().map_err(|_| anyhow!("a panic"))??;
        }
        anyhow::Ok(ended)
    })?;
    ensure!(ended > 0, "nothing was in flight");
    context.metric("ended_as_gone", ended as f64);
    control.unplugged(&claim.function)?;
    context.metric("seconds_until_gone", start.elapsed().as_secs_f64());
    reopen(&mut control, &claim)
}

/// Keeps requests in flight until the device has gone, and drops the queue. Returns how many ended
/// for that reason.
fn load(mut queue: IoQueue, carried_out: &AtomicU64) -> Result<u64> {
    let start = Instant::now();
    let (mut number, mut ended) = (0, 0);
    while queue.is_gone().is_none() {
        ensure!(start.elapsed() < 2 * LEARNING, "it has not gone");
        while queue.in_flight() < usize::from(DEPTH) {
            let request = request(number, queue.buffer(UNIT)?);
            match queue.submit(request, number) {
                Ok(()) => number += 1,
                Err(rejected) if rejected.error.kind() == ErrorKind::DeviceGone => break,
                Err(rejected) => return Err(rejected.error.into()),
            }
        }
        queue.commit();
        while let Some(done) = queue.poll() {
            match done.result {
                Ok(_) => drop(carried_out.fetch_add(1, Ordering::Relaxed)),
                Err(error) if error.kind() == ErrorKind::DeviceGone => ended += 1,
                Err(error) => bail!("request {}: {error:?}", done.token),
            }
        }
    }
    ensure!(queue.in_flight() == 0, "{} in flight", queue.in_flight());
    let mut events = std::iter::from_fn(|| queue.next_event());
    ensure!(events.any(|event| event == DeviceEvent::Gone), "no event");
    let flush = queue.submit(Request::Flush, number);
    let refused = flush.err().context("a device that has gone took a flush")?;
    ensure!(refused.error.kind() == ErrorKind::DeviceGone);
    Ok(ended)
}

pub(super) fn shared_device_is_let_go_without_its_users(context: &mut Context) -> Result<()> {
    // More than there are slots: some tasks wait for one.
    const TASKS: u64 = 64;
    let claim = context.claim(DISK)?;
    let mut control = context.control()?;
    let device = ZonedDevice::from_queues(open(&claim)?)?;
    // What a user may keep for as long as he likes.
    let mut kept = device.buffer(UNIT)?;
    kept.fill(3);
    let carried_out = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&carried_out);
    let start = Instant::now();
    block_on(async {
        let mut events = device.events();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(keep_busy(device.clone(), task, Arc::clone(&counter)));
        }
        unplug(&mut control, &claim, &counter)?;
        while let Some(ended) = tasks.join_next().await {
            let error = ended?;
            ensure!(error.kind() == ErrorKind::DeviceGone, "{error:?}");
        }
        while events.next().await.context("no event")? != DeviceEvent::Gone {}
        Ok(())
    })?;
    context.metric("carried_out", carried_out.load(Ordering::Relaxed) as f64);
    // The device, its clone's buffers and its events are all there, and nothing is kept from going.
    control.unplugged(&claim.function)?;
    context.metric("seconds_until_gone", start.elapsed().as_secs_f64());
    ensure!(kept.to_vec() == [3; UNIT], "the buffer has changed");
    let done = block_on(async { Ok(device.append(ZoneId(1), kept).await) })?;
    let error = done.err().context("an append to a device that has gone")?;
    ensure!(error.kind() == ErrorKind::DeviceGone, "{error:?}");
    reopen(&mut control, &claim)?;
    drop(device);
    Ok(())
}

/// Sends one request after the other until one fails.
async fn keep_busy(device: ZonedDevice, task: u64, carried_out: Arc<AtomicU64>) -> Error {
    let once = async |number: u64| -> zbd_core::Result<()> {
        match request(number, device.buffer(UNIT)?) {
            Request::Write { at, buffer } => device.write(at, buffer).await.map(drop),
            Request::Append { zone, buffer } => device.append(zone, buffer).await.map(drop),
            _ => device.read(Sector(0), UNIT).await.map(drop),
        }
    };
    let mut number = task;
    loop {
        if let Err(error) = once(number).await {
            return error;
        }
        carried_out.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
}
