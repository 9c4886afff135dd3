//! A back end that stalls: callers learn it in time, what the device may still write is not handed
//! out, and a reset brings everything back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::task::JoinSet;
use zbd_core::{
    Completion, DeviceEvent, DmaArena, DmaBuffer, Error, ErrorKind, IoQueue, OpenOptions, Request,
    Sector, WriteCache, Zone, ZoneId, ZonedDevice, ZonedInfo,
};

use super::Context;
use crate::inside::batch;
use crate::inside::claim::{Claim, block_on, records};
use crate::inside::process_memory::ProcessMemory;
use crate::inside::record::{Placed, Record, UNIT, ensure_present};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

const ZONE: ZoneId = ZoneId(2);
/// Requests of each kind in flight.
const DEPTH: u64 = 8;
const TIMEOUT: Duration = Duration::from_millis(300);
/// How much later than that a caller may learn it, on a machine with better things to do.
const SLACK: Duration = Duration::from_secs(1);
/// How long each operation of a slow back end takes.
const SLOW_MICROSECONDS: u64 = 10_000;
/// No record has such a byte throughout.
const PATTERN: u8 = 0x5a;

fn open(claim: &Claim, queues: u16) -> Result<Vec<IoQueue>> {
    let options = OpenOptions {
        queues,
        memory_len: 4 << 20,
        ..OpenOptions::default()
    };
    Ok(options.open(&claim.spec().parse()?)?)
}

fn one_queue(claim: &Claim) -> Result<IoQueue> {
    open(claim, 1)?.pop().context("no queue")
}

fn record(seed: u64, sequence: u64) -> Record {
    Record {
        seed,
        sequence,
        zone: ZONE.0,
        units: 1,
    }
}

/// All the buffers that can be had, filled with the pattern.
struct Hoard(Vec<DmaBuffer>);

impl Hoard {
    fn take(memory: &DmaArena) -> Self {
        let mut all: Vec<DmaBuffer> = std::iter::from_fn(|| memory.allocate(UNIT).ok()).collect();
        for buffer in &mut all {
            buffer.fill(PATTERN);
        }
        Self(all)
    }

    fn ensure_untouched(&self) -> Result<()> {
        for (index, buffer) in self.0.iter().enumerate() {
            let wrong = buffer.to_vec().iter().position(|byte| *byte != PATTERN);
            ensure!(
                wrong.is_none(),
                "byte {wrong:?} of buffer {index}, which was handed out, has changed"
            );
        }
        Ok(())
    }
}

/// Puts appends and reads into the queue, and shows them to the device.
fn send(queue: &mut IoQueue, seed: u64, timeout: Option<Duration>) -> Result<()> {
    for sequence in 0..DEPTH {
        let mut buffer = queue.buffer(UNIT)?;
        buffer.copy_from_slice(&record(seed, sequence).bytes());
        let append = Request::Append { zone: ZONE, buffer };
        let buffer = queue.buffer(UNIT)?;
        let at = Sector(sequence * 8);
        let read = Request::Read { at, buffer };
        for (request, token) in [(append, sequence), (read, DEPTH + sequence)] {
            let submitted = match timeout {
                Some(timeout) => queue.submit_within(request, token, timeout),
                None => queue.submit(request, token),
            };
            submitted.map_err(Error::from)?;
        }
    }
    queue.commit();
    Ok(())
}

/// Polls until everything has ended.
fn drain(queue: &mut IoQueue) -> Result<Vec<Completion>> {
    let start = Instant::now();
    let mut ended = Vec::new();
    while queue.in_flight() > 0 {
        ended.extend(queue.poll());
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "{} have not ended",
            queue.in_flight()
        );
    }
    Ok(ended)
}

/// Passes if each of these tokens ended once.
fn ensure_all_ended(ended: &[Completion], count: u64) -> Result<()> {
    let mut tokens: Vec<u64> = ended.iter().map(|done| done.token).collect();
    tokens.sort_unstable();
    ensure!(tokens.iter().copied().eq(0..count), "{tokens:?}");
    Ok(())
}

/// Passes if the zone holds each of the `acknowledged` records, those of other requests at most
/// once, nothing else, and takes more.
fn ensure_works(queue: &mut IoQueue, acknowledged: &[Placed]) -> Result<()> {
    let mut buffer = queue.buffer(ZonedInfo::report_len(1))?;
    buffer.fill(0);
    let from = queue.info().zoned()?.start(ZONE);
    let report = only(queue, Request::Report { from, buffer })?;
    let zone = report_of(queue, report)?;
    let written = zone.written().context("no write pointer")?;
    let mut data = Vec::new();
    while (data.len() as u64) < written.bytes() {
        let left = written.bytes() - data.len() as u64;
        let buffer = queue.buffer(usize::try_from(left.min(64 << 10))?)?;
        let at = Sector(from.0 + data.len() as u64 / 512);
        let read = only(queue, Request::Read { at, buffer })?;
        read.result?;
        data.extend(read.buffer.context("no buffer came back")?.to_vec());
    }
    let found = crate::inside::record::parse_all(from.0, &data)?;
    ensure_present(acknowledged, &found)?;
    let mut buffer = queue.buffer(UNIT)?;
    buffer.copy_from_slice(&record(99, 0).bytes());
    let append = only(queue, Request::Append { zone: ZONE, buffer })?;
    ensure!(Some(append.result?) == zone.write_pointer, "{zone:?}");
    Ok(())
}

fn report_of(queue: &IoQueue, done: Completion) -> Result<Zone> {
    done.result.context("report")?;
    let buffer = done.buffer.context("no buffer came back")?;
    let zones = queue.info().zoned()?.parse_report(ZONE, &buffer)?;
    zones.into_iter().next().context("no zone reported")
}

fn only(queue: &mut IoQueue, request: Request) -> Result<Completion> {
    let (mut ended, _) = batch::run(queue, [(0, request)])?;
    ended.pop().context("nothing came back")
}

pub(super) fn held_requests_time_out_and_keep_their_memory(context: &mut Context) -> Result<()> {
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    let mut queue = one_queue(&claim)?;
    let memory = queue.memory().clone();
    let all = Hoard::take(&memory).0.len();

    let held = panel.hold()?;
    let start = Instant::now();
    send(&mut queue, 1, Some(TIMEOUT))?;
    let ended = drain(&mut queue)?;
    let took = start.elapsed();
    context.metric("seconds_until_timeout", took.as_secs_f64());
    ensure!((TIMEOUT..TIMEOUT + SLACK).contains(&took), "after {took:?}");
    ensure_all_ended(&ended, 2 * DEPTH)?;
    for done in ended {
        let kind = done.result.as_ref().err().map(Error::kind);
        ensure!(kind == Some(ErrorKind::Timeout), "{:?}", done.result);
        ensure!(done.buffer.is_none(), "memory that the device may write");
    }
    let meanwhile = Hoard::take(&memory);
    let kept = all - meanwhile.0.len();
    ensure!(kept as u64 == 2 * DEPTH, "{kept} buffers are kept");

    // It moves again, but slowly: the reset comes while the device is at it.
    let slow = panel.delay(SLOW_MICROSECONDS)?;
    queue.recover().context("recover")?;
    drop((slow, held));
    ensure!(queue.poll().is_none() && queue.in_flight() == 0);
    ensure!(queue.next_event() == Some(DeviceEvent::Reset));
    meanwhile.ensure_untouched()?;
    // All memory has come back, and the device has let go of it.
    drop(meanwhile);
    let afterwards = Hoard::take(&memory);
    ensure!(afterwards.0.len() == all, "{} of {all}", afterwards.0.len());
    thread::sleep(Duration::from_millis(300));
    afterwards.ensure_untouched().context("after the reset")?;
    drop(afterwards);
    ensure_works(&mut queue, &[])
}

pub(super) fn late_completions_are_nobodys(context: &mut Context) -> Result<()> {
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    let mut queue = one_queue(&claim)?;
    let memory = queue.memory().clone();
    let all = Hoard::take(&memory).0.len();
    let held = panel.hold()?;
    send(&mut queue, 1, Some(TIMEOUT))?;
    ensure_all_ended(&drain(&mut queue)?, 2 * DEPTH)?;
    drop(held);
    // The device returns them by itself; what comes out then is ours alone.
    let read = |queue: &IoQueue| -> Result<Request> {
        let (at, buffer) = (Sector(0), queue.buffer(UNIT)?);
        Ok(Request::Read { at, buffer })
    };
    let start = Instant::now();
    while Hoard::take(&memory).0.len() < all {
        let request = read(&queue)?;
        let (ended, _) = batch::run(&mut queue, [(77, request)])?;
        ensure!(ended.len() == 1 && ended[0].token == 77, "{ended:?}");
        ensure!(start.elapsed() < Duration::from_secs(10), "memory is lost");
    }
    ensure_works(&mut queue, &[])
}

pub(super) fn reset_ends_the_requests_of_all_queues(context: &mut Context) -> Result<()> {
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    let mut queues = open(&claim, 2)?;
    let memory = queues[0].memory().clone();
    let all = Hoard::take(&memory).0.len();
    let (mut other, mut queue) = (
        queues.pop().context("no queue")?,
        queues.pop().context("no queue")?,
    );
    let slow = panel.delay(SLOW_MICROSECONDS)?;
    let is_recovered = AtomicBool::new(false);
    let (mut placed, resets) = thread::scope(|scope| {
        let appending = scope.spawn(|| append_until(&mut other, &is_recovered));
        thread::sleep(Duration::from_millis(50));
        send(&mut queue, 1, None)?;
        let recovered = queue.recover();
        is_recovered.store(true, Ordering::Relaxed);
        let done = appending.join().map_err(|_| anyhow!("a panic"))??;
        recovered.context("recover")?;
        anyhow::Ok(done)
    })?;
    drop(slow);
    ensure!(resets > 0, "the other queue has not noticed");
    let event = other.next_event();
    ensure!(event == Some(DeviceEvent::Reset), "{event:?}");
    context.metric("resets_seen_by_the_other_queue", resets as f64);
    let ended = drain(&mut queue)?;
    ensure_all_ended(&ended, 2 * DEPTH)?;
    // QEMU finishes what it has begun; what it returned before its reset ends as it ended.
    let mut reset = 0;
    for done in ended {
        ensure!(done.buffer.is_some(), "no buffer: {:?}", done.result);
        match done.result {
            Ok(Sector(sector)) if done.token < DEPTH => {
                let record = record(1, done.token);
                placed.push(Placed { sector, record });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::DeviceReset => reset += 1,
            Err(error) => bail!("{error:?}"),
        }
    }
    context.metric("ended_by_the_reset", f64::from(reset));
    let afterwards = Hoard::take(&memory);
    ensure!(afterwards.0.len() == all, "{} of {all}", afterwards.0.len());
    drop(afterwards);
    ensure_works(&mut other, &placed)
}

/// Appends with a few in flight until the flag is set and some have succeeded after it. Returns what
/// was acknowledged, and how many requests a reset ended.
fn append_until(queue: &mut IoQueue, flag: &AtomicBool) -> Result<(Vec<Placed>, usize)> {
    let (mut placed, mut resets, mut next, mut after) = (Vec::new(), 0, 0, 0);
    let start = Instant::now();
    while after < 4 {
        ensure!(start.elapsed() < Duration::from_secs(20), "{after} since");
        while queue.in_flight() < 4 {
            let mut buffer = queue.buffer(UNIT)?;
            buffer.copy_from_slice(&record(2, next).bytes());
            let append = Request::Append { zone: ZONE, buffer };
            queue.submit(append, next).map_err(Error::from)?;
            next += 1;
        }
        queue.commit();
        let is_after = flag.load(Ordering::Relaxed);
        while let Some(done) = queue.poll() {
            ensure!(done.buffer.is_some(), "no buffer: {:?}", done.result);
            match done.result {
                Ok(Sector(sector)) => {
                    let record = record(2, done.token);
                    placed.push(Placed { sector, record });
                    after += usize::from(is_after && resets > 0);
                }
                Err(error) if error.kind() == ErrorKind::DeviceReset => resets += 1,
                Err(error) => bail!("{error:?}"),
            }
        }
        thread::yield_now();
    }
    for done in drain(queue)? {
        let record = record(2, done.token);
        let sector = done.result?.0;
        placed.push(Placed { sector, record });
    }
    Ok((placed, resets))
}

pub(super) fn tasks_learn_of_a_stall_and_go_on_after_it(context: &mut Context) -> Result<()> {
    const TASKS: u64 = 24;
    let panel = context.panel("main")?;
    let claim = context.claim("main")?;
    let queues = open(&claim, 2)?;
    let memory = queues[0].memory().clone();
    let all = Hoard::take(&memory).0.len();
    let device = ZonedDevice::from_queues(queues)?;
    block_on(async {
        let append = |device: &ZonedDevice, seed: u64, sequence: u64| {
            let device = device.clone();
            async move {
                let mut buffer = device.buffer(UNIT)?;
                buffer.copy_from_slice(&record(seed, sequence).bytes());
                let sector = device.append(ZONE, buffer).await?.sector.0;
                let record = record(seed, sequence);
                zbd_core::Result::Ok(Placed { sector, record })
            }
        };
        let mut events = device.events();
        let held = panel.hold()?;
        let hasty = device.with_timeout(Some(TIMEOUT));
        let (mut ending, mut staying) = (JoinSet::new(), JoinSet::new());
        let start = Instant::now();
        for sequence in 0..TASKS {
            ending.spawn(append(&hasty, 1, sequence));
            staying.spawn(append(&device, 2, sequence));
        }
        while let Some(ended) = ending.join_next().await {
            let kind = ended?.err().map(|error: Error| error.kind());
            ensure!(kind == Some(ErrorKind::Timeout), "{kind:?}");
        }
        let took = start.elapsed();
        context.metric("seconds_until_timeout", took.as_secs_f64());
        ensure!((TIMEOUT..TIMEOUT + SLACK).contains(&took), "after {took:?}");
        ensure!(staying.try_join_next().is_none(), "the disk is held");
        let meanwhile = Hoard::take(&memory);

        let slow = panel.delay(SLOW_MICROSECONDS / 4)?;
        device.recover().await.context("recover")?;
        drop((slow, held));
        let (mut placed, mut resets) = (Vec::new(), 0);
        while let Some(ended) = staying.join_next().await {
            match ended? {
                Ok(one) => placed.push(one),
                Err(error) if error.kind() == ErrorKind::DeviceReset => {
                    ensure!(error.into_buffer().is_some(), "no buffer came back");
                    resets += 1;
                }
                Err(error) => bail!("{error:?}"),
            }
        }
        context.metric("ended_by_the_reset", f64::from(resets));
        ensure!(events.next().await == Some(DeviceEvent::Reset));
        meanwhile.ensure_untouched()?;
        drop(meanwhile);
        let now = Hoard::take(&memory).0.len();
        ensure!(now == all, "{now} of {all} buffers");

        for sequence in 0..4 {
            placed.push(append(&device, 3, sequence).await?);
        }
        let zone = device.zone(ZONE).report().await?;
        ensure_present(&placed, &records(&device, &zone).await?)
    })
}

pub(super) fn device_that_asks_for_a_reset_gets_it(context: &mut Context) -> Result<()> {
    // With a split ring: on packed ones, such a request makes QEMU 10.0 look at the ring forever,
    // and nothing of its machine moves any more.
    let claim = context.claim("main")?;
    let mut queue = one_queue(&claim)?;
    let memory = queue.memory().clone();
    let all = Hoard::take(&memory).0.len();
    // A request that the device cannot make sense of: where its descriptor says 4096 bytes, we
    // write 0.
    let mut buffer = queue.buffer(UNIT)?;
    buffer.copy_from_slice(&record(1, 0).bytes());
    let mut descriptor = buffer.iova().0.to_le_bytes().to_vec();
    descriptor.extend((UNIT as u32).to_le_bytes());
    let append = Request::Append { zone: ZONE, buffer };
    queue.submit(append, 0).map_err(Error::from)?;
    let process = ProcessMemory::open()?;
    let found = process.find(&memory, &descriptor)?;
    let [at] = found[..] else {
        bail!("{} descriptors of the one buffer", found.len());
    };
    process.write(at + 8, &0_u32.to_le_bytes())?;
    queue.commit();
    let ended = drain(&mut queue)?;
    ensure_all_ended(&ended, 1)?;
    let error = ended[0].result.as_ref().err().context("it was done")?;
    ensure!(error.kind() == ErrorKind::NeedsReset, "{error:?}");
    ensure!(ended[0].buffer.is_none());
    ensure!(queue.next_event() == Some(DeviceEvent::Failed));
    let buffer = queue.buffer(UNIT)?;
    let refused = queue.submit(Request::Append { zone: ZONE, buffer }, 1);
    let refused = refused.err().context("it was accepted")?;
    ensure!(refused.error.kind() == ErrorKind::NeedsReset);
    drop(refused);

    queue.recover().context("recover")?;
    ensure!(queue.next_event() == Some(DeviceEvent::Reset));
    let now = Hoard::take(&memory).0.len();
    ensure!(now == all, "{now} of {all} buffers");
    ensure_works(&mut queue, &[])
}

/// QEMU forgets it with the reset, as a device may.
pub(super) fn mode_of_the_cache_outlives_a_reset(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    let mut queue = one_queue(&claim)?;
    for mode in [WriteCache::Writethrough, WriteCache::Writeback] {
        queue.set_write_cache(mode)?;
        queue.recover().context("recover")?;
        let now = queue.write_cache()?;
        ensure!(now == mode, "{mode} became {now}");
    }
    ensure_works(&mut queue, &[])
}
