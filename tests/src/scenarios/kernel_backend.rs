//! The back end that leaves the device to Linux: virtio_blk's disks and null_blk's.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use zbd_core::{
    AppendSupport, Backend, Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, IoQueue,
    OpenOptions, Request, Sector, SectorCount, Unmap, WaitPolicy, WriteCache, ZoneAction, ZoneId,
    ZoneState, ZonedDevice,
};

use super::Context;
use super::driver_append::{self, Job};
use crate::inside::batch;
use crate::inside::claim::{block_on, ensure_same_zones, records, records_seen_by_linux};
use crate::inside::kernel_view::{Command, KernelDisk};
use crate::inside::null_block::NullBlock;
use crate::inside::record::{Placed, UNIT, ensure_same};
use crate::inside::suite::{self, Suite, Waiting};
use crate::inside::tool::{run, run_as_user};

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// The first sequential zone of all disks but `unmerged`.
const ZONE: ZoneId = ZoneId(2);
/// How long something may take that should not take long.
const PATIENCE: Duration = Duration::from_secs(10);

fn path(disk: &KernelDisk) -> String {
    disk.path().display().to_string()
}

fn options(queues: u16, wait: WaitPolicy) -> OpenOptions {
    OpenOptions {
        queues,
        wait,
        memory_len: 16 << 20,
        ..OpenOptions::default()
    }
}

fn open(path: &str, queues: u16, wait: WaitPolicy) -> Result<Vec<IoQueue>> {
    Ok(options(queues, wait).open(&path.parse()?)?)
}

fn open_one(path: &str) -> Result<IoQueue> {
    open(path, 1, WaitPolicy::Poll)?.pop().context("no queue")
}

pub(super) fn disks_are_what_linux_says_they_are(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    let null = made.kernel_disk()?;
    for disk in [
        context.kernel_disk("main")?,
        context.kernel_disk("unmerged")?,
        null,
    ] {
        let info = DeviceInfo::clone(open_one(&path(&disk))?.info());
        let zoned = info.zoned()?;
        let limit = |n: Option<u32>| u64::from(n.unwrap_or(0));
        for (attribute, found) in [
            ("size", info.capacity.0),
            ("queue/logical_block_size", info.block_size.into()),
            ("queue/physical_block_size", info.physical_block_size.into()),
            ("queue/chunk_sectors", zoned.zone_size.0),
            ("queue/nr_zones", zoned.zone_count.into()),
            ("queue/max_open_zones", limit(zoned.max_open)),
            ("queue/max_active_zones", limit(zoned.max_active)),
            (
                "queue/zone_write_granularity",
                zoned.write_granularity.into(),
            ),
        ] {
            let expected = disk.number(attribute)?;
            ensure!(found == expected, "{attribute} is {expected}: {info:?}");
        }
        let append = zoned.max_append.bytes();
        ensure!(append >= 64 << 10, "{info:?}");
        for (attribute, unit) in [
            ("queue/zone_append_max_bytes", 1),
            ("queue/max_sectors_kb", 1024),
            ("queue/max_segments", 4096),
        ] {
            let most = disk.number(attribute)?;
            ensure!(most == 0 || append <= most * unit, "{attribute}: {info:?}");
        }
        ensure!(info.backend == Backend::Kernel && zoned.append == AppendSupport::Emulated);
        ensure!(info.features.contains(&"registered-buffers"), "{info:?}");
        let is_volatile = disk.attribute("queue/write_cache")? == "write back";
        ensure!(info.volatile_cache == is_volatile, "{info:?}");
        for (id, zone) in (0..).map(ZoneId).zip(disk.report()?) {
            let capacity = zoned.capacity(id).context("no such zone")?;
            ensure!(capacity.0 == zone.capacity, "{id}: {zone:?}");
        }
    }
    Ok(())
}

pub(super) fn queues_do_everything_on_any_disk(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[("zone_max_open", 0), ("zone_max_active", 0)])?;
    for (name, interrupts, waiting) in [
        ("main", WaitPolicy::Poll, Waiting::Polling),
        ("unmerged", WaitPolicy::Interrupt, Waiting::Sleeping),
        ("nullb0", WaitPolicy::Poll, Waiting::Polling),
        ("nullb0", WaitPolicy::Interrupt, Waiting::Sleeping),
    ] {
        let disk = match name {
            "nullb0" => made.kernel_disk()?,
            _ => context.kernel_disk(name)?,
        };
        disk.reset_all()?;
        let start = Instant::now();
        let placed = {
            let mut queue = open(&path(&disk), 1, interrupts)?
                .pop()
                .context("no queue")?;
            let suite = Suite::new(&mut queue, ZONE.0, waiting);
            match name {
                "nullb0" => suite.run_without_id(),
                _ => suite.run(name),
            }
            .with_context(|| format!("{name}, {waiting:?}"))?
        };
        context.metric(
            format!("{name}_{waiting:?}_seconds"),
            start.elapsed().as_secs_f64(),
        );
        let zones: Vec<ZoneId> = (ZONE.0..ZONE.0 + suite::ZONES).map(ZoneId).collect();
        let found = records_seen_by_linux(&disk, &zones)?;
        ensure_same(&placed, &found).with_context(|| format!("{name}: what Linux reads"))?;
    }
    Ok(())
}

pub(super) fn appends_of_many_tasks_land_where_the_device_says(
    context: &mut Context,
) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    for (disk, queues) in [
        (context.kernel_disk("main")?, 1),
        (context.kernel_disk("unmerged")?, 2),
        (made.kernel_disk()?, 1),
        (made.kernel_disk()?, 3),
    ] {
        disk.reset_all()?;
        let name = path(&disk);
        let device = ZonedDevice::from_queues(open(&name, queues, WaitPolicy::Poll)?)?;
        let jobs = [(1, 60), (128, 1500)];
        let jobs: Vec<Job> = (0..)
            .zip(jobs)
            .map(|(index, (depth, count))| Job {
                depth,
                count,
                first_zone: ZONE.0 + index * driver_append::ZONES,
            })
            .collect();
        let mut placed = Vec::new();
        let report = block_on(async {
            for job in &jobs {
                let start = Instant::now();
                placed.extend(job.run(&device).await?);
                let iops = job.count as f64 / start.elapsed().as_secs_f64();
                let depth = job.depth;
                context.metric(format!("{name}_{queues}_append_iops_depth_{depth}"), iops);
            }
            let report = device.report(..).await?;
            let mut found = Vec::new();
            for zone in &report[ZONE.0 as usize..] {
                found.extend(records(&device, zone).await?);
            }
            ensure_same(&placed, &found).context(name.clone())?;
            Ok(report)
        })?;
        drop(device);
        ensure_same_zones(&report, &disk.report()?).context(name)?;
    }
    Ok(())
}

/// One record of one unit, and where it went.
fn record(sequence: u64, zone: ZoneId) -> crate::inside::record::Record {
    crate::inside::record::Record {
        seed: 77,
        sequence,
        zone: zone.0,
        units: 1,
    }
}

fn append(queue: &mut IoQueue, zone: ZoneId, token: u64) -> Result<()> {
    let mut buffer = queue.buffer(UNIT)?;
    buffer.copy_from_slice(&record(token, zone).bytes());
    queue
        .submit(Request::Append { zone, buffer }, token)
        .map_err(Error::from)?;
    queue.commit();
    Ok(())
}

fn one(queue: &mut IoQueue, request: Request) -> Result<Completion> {
    let (mut ended, _) = batch::run(queue, [(0, request)])?;
    ended.pop().context("nothing has ended")
}

/// Polls, or waits, until `count` requests have ended.
fn ended(queue: &mut IoQueue, count: usize, waiting: Waiting) -> Result<Vec<Completion>> {
    let start = Instant::now();
    let mut ended = Vec::new();
    while ended.len() < count {
        match queue.poll() {
            Some(done) => ended.push(done),
            None if waiting == Waiting::Sleeping => queue.wait(PATIENCE)?,
            None => {}
        }
        ensure!(
            start.elapsed() < PATIENCE / 2,
            "{} of {count} after {:?}",
            ended.len(),
            start.elapsed()
        );
    }
    Ok(ended)
}

/// Whoever waits for a turn that another queue has gets it, even if nobody looks after that queue.
pub(super) fn no_queue_waits_for_the_owner_of_another(_: &mut Context) -> Result<()> {
    // Slow enough for all to be in flight together.
    let made = NullBlock::zoned("nullb0", &[("irqmode", 2), ("completion_nsec", 3_000_000)])?;
    for waiting in [Waiting::Polling, Waiting::Sleeping] {
        for round in 0..20 {
            let disk = made.kernel_disk()?;
            disk.reset_all()?;
            let mut queues = open(&made.path(), 3, WaitPolicy::Interrupt)?;
            for token in 0..12 {
                append(&mut queues[token as usize % 3], ZONE, token)?;
            }
            // The last first; what the others have to do for it nobody asks them to.
            let mut placed = Vec::new();
            for index in [2, 0, 1].map(|index| (index + round) % 3) {
                let queue = &mut queues[index];
                for done in ended(queue, 4, waiting)
                    .with_context(|| format!("queue {index}, {waiting:?}, round {round}"))?
                {
                    placed.push(Placed {
                        sector: done.result?.0,
                        record: record(done.token, ZONE),
                    });
                }
                ensure!(queue.in_flight() == 0);
            }
            drop(queues);
            ensure_same(&placed, &records_seen_by_linux(&disk, &[ZONE])?)?;
        }
    }
    Ok(())
}

pub(super) fn queues_on_threads_share_zones(context: &mut Context) -> Result<()> {
    const COUNT: u64 = 600;
    let made = NullBlock::zoned("nullb0", &[])?;
    for disk in [context.kernel_disk("unmerged")?, made.kernel_disk()?] {
        disk.reset_all()?;
        let queues = open(&path(&disk), 4, WaitPolicy::Interrupt)?;
        let running: Vec<_> = (0..)
            .zip(queues)
            .map(|(index, mut queue)| {
                thread::spawn(move || -> Result<Vec<Placed>> {
                    let waiting = match index % 2 {
                        0 => Waiting::Polling,
                        _ => Waiting::Sleeping,
                    };
                    let zone = |token| ZoneId(ZONE.0 + (token / 7 % 2) as u32);
                    let (mut next, mut placed) = (0, Vec::new());
                    while (placed.len() as u64) < COUNT {
                        while next < COUNT && queue.in_flight() < 16 {
                            let token = index * COUNT + next;
                            append(&mut queue, zone(token), token)?;
                            next += 1;
                        }
                        for done in ended(&mut queue, 1, waiting)? {
                            let record = record(done.token, zone(done.token));
                            let sector = done.result?.0;
                            placed.push(Placed { sector, record });
                        }
                    }
                    Ok(placed)
                })
            })
            .collect();
        let mut placed = Vec::new();
        for running in running {
            placed.extend(running.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        let found = records_seen_by_linux(&disk, &[ZONE, ZoneId(ZONE.0 + 1)])?;
        ensure_same(&placed, &found).context(path(&disk))?;
    }
    Ok(())
}

pub(super) fn refusals_have_the_kinds_of_the_virtio_back_end(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    for disk in [context.kernel_disk("main")?, made.kernel_disk()?] {
        let name = path(&disk);
        disk.reset_all()?;
        let mut queue = open_one(&name)?;
        refusals(&mut queue).with_context(|| name.clone())?;
        one(&mut queue, Request::ResetAll)?.result?;
        limits(&mut queue).with_context(|| format!("{name}: limits"))?;
    }
    Ok(())
}

fn expect(done: Completion, kind: ErrorKind, what: &str) -> Result<()> {
    match done.result {
        Ok(at) => bail!("{what}: done, at sector {at}"),
        Err(error) => ensure!(error.kind() == kind, "{what}: {error:?}, not {kind:?}"),
    }
    Ok(())
}

fn manage(queue: &mut IoQueue, action: ZoneAction, zone: ZoneId) -> Result<Completion> {
    one(queue, Request::Manage { action, zone })
}

fn append_one(queue: &mut IoQueue, zone: ZoneId) -> Result<Completion> {
    let buffer = queue.buffer(UNIT)?;
    one(queue, Request::Append { zone, buffer })
}

fn refusals(queue: &mut IoQueue) -> Result<()> {
    use ZoneAction::{Close, Finish, Open, Reset};
    let start = queue.info().zoned()?.start(ZONE);
    let write = |queue: &mut IoQueue, sectors: u64| {
        let buffer = queue.buffer(UNIT)?;
        let at = Sector(start.0 + sectors);
        one(queue, Request::Write { at, buffer })
    };
    for action in [Open, Close, Finish, Reset] {
        let done = manage(queue, action, ZoneId(0))?;
        expect(done, ErrorKind::InvalidZoneState, &format!("{action:?} 0"))?;
    }
    // A write past the write pointer, and below it; those at it go on afterwards.
    let misplaced = ErrorKind::UnalignedWritePointer;
    expect(write(queue, 64)?, misplaced, "past the pointer")?;
    write(queue, 0)?.result?;
    expect(write(queue, 0)?, misplaced, "below the pointer")?;
    write(queue, 8)?.result?;
    ensure!(append_one(queue, ZONE)?.result?.0 == start.0 + 16);
    write(queue, 24)?.result?;
    ensure!(append_one(queue, ZONE)?.result?.0 == start.0 + 32);
    // A full zone.
    manage(queue, Finish, ZONE)?.result?;
    for _ in 0..2 {
        let done = append_one(queue, ZONE)?;
        ensure!(done.buffer.is_some(), "the buffer stays away");
        expect(done, ErrorKind::InvalidZoneState, "append to a full zone")?;
    }
    expect(
        write(queue, 40)?,
        ErrorKind::InvalidZoneState,
        "write to a full zone",
    )?;
    for action in [Open, Close] {
        let done = manage(queue, action, ZONE)?;
        expect(
            done,
            ErrorKind::InvalidZoneState,
            &format!("{action:?} full"),
        )?;
    }
    manage(queue, Reset, ZONE)?.result?;
    ensure!(append_one(queue, ZONE)?.result? == start);
    // The last append that does not fit, and one after it that does.
    let zoned = queue.info().zoned()?;
    let (capacity, most) = (
        zoned.capacity(ZONE).context("no capacity")?.bytes(),
        zoned.max_append.bytes(),
    );
    let mut left = capacity - UNIT as u64;
    while left > UNIT as u64 {
        let len = most.min(left - UNIT as u64);
        let buffer = queue.buffer(usize::try_from(len)?)?;
        one(queue, Request::Append { zone: ZONE, buffer })?.result?;
        left -= len;
    }
    let buffer = queue.buffer(2 * UNIT)?;
    let done = one(queue, Request::Append { zone: ZONE, buffer })?;
    expect(
        done,
        ErrorKind::InvalidZoneState,
        "append that does not fit",
    )?;
    append_one(queue, ZONE)?.result?;
    let report = one_zone(queue, ZONE)?;
    ensure!(report.state == ZoneState::Full, "{report:?}");
    Ok(())
}

fn one_zone(queue: &mut IoQueue, zone: ZoneId) -> Result<zbd_core::Zone> {
    let zoned = queue.info().zoned()?;
    let (from, buffer) = (
        zoned.start(zone),
        queue.buffer(zbd_core::ZonedInfo::report_len(1))?,
    );
    let done = one(queue, Request::Report { from, buffer })?;
    done.result?;
    let buffer = done.buffer.context("no buffer came back")?;
    let zones = queue.info().zoned()?.parse_report(zone, &buffer)?;
    zones.first().copied().context("no zone")
}

fn limits(queue: &mut IoQueue) -> Result<()> {
    use ZoneAction::{Close, Finish, Open};
    let zoned = queue.info().zoned()?;
    let open = zoned.max_open.context("no limit")?;
    let active = zoned.max_active.context("no limit")?;
    let zone = |index| ZoneId(ZONE.0 + index);
    for index in 0..open {
        manage(queue, Open, zone(index))?.result?;
    }
    let done = manage(queue, Open, zone(open))?;
    expect(done, ErrorKind::OpenLimit, "open beyond the limit")?;
    let done = append_one(queue, zone(open))?;
    expect(done, ErrorKind::OpenLimit, "append beyond the limit")?;
    manage(queue, Close, zone(0))?.result?;
    append_one(queue, zone(open))?.result?;
    for index in 0..active {
        let done = append_one(queue, zone(index))?.result;
        done.with_context(|| format!("active zone {index}"))?;
        manage(queue, Close, zone(index))?.result?;
    }
    let done = manage(queue, Open, zone(active))?;
    expect(done, ErrorKind::ActiveLimit, "open beyond the active limit")?;
    let done = append_one(queue, zone(active))?;
    expect(
        done,
        ErrorKind::ActiveLimit,
        "append beyond the active limit",
    )?;
    manage(queue, Finish, zone(0))?.result?;
    append_one(queue, zone(active))?.result?;
    Ok(())
}

/// Somebody who does not ask for exclusive use can still write and reset zones.
pub(super) fn appends_go_on_where_others_have_moved_the_pointer(_: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    let disk = made.kernel_disk()?;
    let mut queue = open_one(&made.path())?;
    let start = queue.info().zoned()?.start(ZONE).0;
    let size = queue.info().zoned()?.zone_size.0;
    for expected in [start, start + 8, start + 16] {
        ensure!(append_one(&mut queue, ZONE)?.result?.0 == expected);
    }
    disk.command(Command::Reset, start, size)?;
    ensure!(append_one(&mut queue, ZONE)?.result?.0 == start);
    for sector in [8, 16, 24] {
        disk.write(start + sector, &[1; UNIT])?;
    }
    ensure!(append_one(&mut queue, ZONE)?.result?.0 == start + 32);
    // Full when it was last looked at.
    disk.command(Command::Finish, start, size)?;
    expect(
        append_one(&mut queue, ZONE)?,
        ErrorKind::InvalidZoneState,
        "append to a zone that is full now",
    )?;
    disk.command(Command::Reset, start, size)?;
    ensure!(append_one(&mut queue, ZONE)?.result?.0 == start);
    Ok(())
}

pub(super) fn late_requests_time_out_and_keep_their_memory(_: &mut Context) -> Result<()> {
    const DELAY: Duration = Duration::from_millis(400);
    let delay = DELAY.as_nanos() as u64;
    let made = NullBlock::zoned("nullb0", &[("irqmode", 2), ("completion_nsec", delay)])?;
    for waiting in [Waiting::Polling, Waiting::Sleeping] {
        made.kernel_disk()?.reset_all()?;
        let mut queues = open(&made.path(), 1, WaitPolicy::Interrupt)?;
        let queue = &mut queues[0];
        let start = queue.info().zoned()?.start(ZONE);
        let begun = Instant::now();
        for token in 0..3 {
            let mut buffer = queue.buffer(UNIT)?;
            buffer.copy_from_slice(&record(token, ZONE).bytes());
            let append = Request::Append { zone: ZONE, buffer };
            match token {
                2 => queue.submit(append, token),
                _ => queue.submit_within(append, token, DELAY / 8),
            }
            .map_err(Error::from)?;
        }
        queue.commit();
        let mut late = BTreeMap::new();
        for done in ended(queue, 2, waiting)? {
            let error = done.result.err().context("it came in time")?;
            ensure!(error.kind() == ErrorKind::Timeout, "{error:?}");
            late.insert(done.token, done.buffer.is_some());
        }
        ensure!(begun.elapsed() < DELAY, "{:?}", begun.elapsed());
        // The first is with the kernel; the second had not been sent yet, and never will be.
        ensure!(late == BTreeMap::from([(0, false), (1, true)]), "{late:?}");
        ensure!(queue.in_flight() == 1);
        let done = ended(queue, 1, waiting)?.pop().context("nothing")?;
        ensure!(done.token == 2 && done.result?.0 == start.0 + 8);
        ensure!(begun.elapsed() >= 2 * DELAY && queue.in_flight() == 0);
        drop(queues);
        let disk = made.kernel_disk()?;
        let found = records_seen_by_linux(&disk, &[ZONE])?;
        let sequences: Vec<u64> = found.iter().map(|placed| placed.record.sequence).collect();
        ensure!(sequences == [0, 2], "{sequences:?}");
    }
    Ok(())
}

pub(super) fn device_is_dropped_with_requests_in_flight(_: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[("irqmode", 2), ("completion_nsec", 30_000_000)])?;
    let disk = made.kernel_disk()?;
    for round in 0..8 {
        disk.reset_all()?;
        let mut queues = open(&made.path(), 2, WaitPolicy::Interrupt)?;
        let memory = queues[0].memory().clone();
        for token in 0..16 {
            append(
                &mut queues[token as usize % 2],
                ZoneId(ZONE.0 + token as u32 % 3),
                token,
            )?;
        }
        if round % 2 == 1 {
            // The other queue lives on, and its requests end.
            drop(queues.remove(0));
            ended(&mut queues[0], 8, Waiting::Sleeping).context("beside a dropped queue")?;
        }
        drop(queues);
        // All memory is back, and the device is closed: it can be opened for exclusive use.
        let all = memory.len_bytes();
        memory.allocate(all).context("memory was lost")?;
        drop(open_one(&made.path()).context("right after it was closed")?);
        // What was carried out was carried out whole.
        for zone in 0..3 {
            records_seen_by_linux(&disk, &[ZoneId(ZONE.0 + zone)])?;
        }
    }
    Ok(())
}

pub(super) fn requests_end_when_the_device_goes(_: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[("irqmode", 2), ("completion_nsec", 50_000_000)])?;
    let mut queue = open_one(&made.path())?;
    for token in 0..4 {
        append(&mut queue, ZONE, token)?;
    }
    made.take_away()?;
    let start = Instant::now();
    let (mut ends, mut events) = (0, Vec::new());
    while queue.is_gone().is_none() {
        if let Some(done) = queue.poll() {
            ends += 1;
            if let Err(error) = done.result {
                ensure!(error.kind() == ErrorKind::DeviceGone, "{error:?}");
            }
        }
        events.extend(queue.next_event());
        ensure!(start.elapsed() < PATIENCE, "{ends} have ended: {queue:?}");
    }
    ensure!(
        ends == 4 && events == [DeviceEvent::Gone],
        "{ends}, {events:?}"
    );
    let buffer = queue.buffer(UNIT)?;
    let refused = queue.submit(Request::Append { zone: ZONE, buffer }, 9);
    let rejected = refused.err().context("it was taken")?;
    ensure!(
        rejected.error.kind() == ErrorKind::DeviceGone,
        "{:?}",
        rejected.error
    );
    Ok(())
}

pub(super) fn plain_disk_is_read_written_and_zeroed(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("plain")?;
    let made = NullBlock::make("nullb1", &[("discard", 1)])?;
    for (name, disk) in [("plain", disk), ("nullb1", made.kernel_disk()?)] {
        let mut queue = open_one(&path(&disk))?;
        let info = DeviceInfo::clone(queue.info());
        ensure!(info.zoned.is_none() && info.backend == Backend::Kernel);
        let requests = (0..64_u64).rev().map(|index| {
            let mut buffer = queue.buffer(UNIT)?;
            buffer.fill(index as u8);
            let at = Sector(index * 24);
            Ok((index, Request::Write { at, buffer }))
        });
        let requests = requests.collect::<Result<Vec<_>>>()?;
        let before = queue.doorbells();
        for done in batch::run(&mut queue, requests)?.0 {
            ensure!(done.result?.0 == done.token * 24);
        }
        ensure!(queue.doorbells() == before + 1, "more than one call");
        // With a volatile cache or without.
        one(&mut queue, Request::Flush)?.result?;
        ensure!((queue.write_cache()? == WriteCache::Writeback) == info.volatile_cache);
        // Bytes that begin anywhere, and come back as they are.
        let mut bytes = queue.buffer(2 * UNIT)?;
        bytes.write_at(3, &[0xab; UNIT]);
        let bytes = bytes.into_bytes().slice(3..3 + UNIT);
        let buffer = queue.memory().lend(&bytes).context("not lent")?;
        let at = Sector(64 * 24);
        let done = one(&mut queue, Request::Write { at, buffer })?;
        ensure!(done.result? == at);
        ensure!(done.buffer.context("no buffer")?.to_vec() == [0xab; UNIT]);
        ensure!(disk.read(at.0, UNIT)? == [0xab; UNIT]);
        let buffer = queue.memory().lend(&bytes).context("not lent")?;
        let refused = queue.submit(Request::Read { at, buffer }, 0);
        let refused = refused.err().context("read into lent bytes")?;
        ensure!(refused.error.kind() == ErrorKind::InvalidRequest);
        for index in 0..64 {
            ensure!(disk.read(index * 24, UNIT)? == [index as u8; UNIT]);
        }
        let (at, len) = (Sector(24), SectorCount(8));
        if info.write_zeroes.is_some() {
            for unmap in [Unmap::Keep, Unmap::Allow] {
                one(&mut queue, Request::WriteZeroes { at, len, unmap })?.result?;
            }
            ensure!(disk.read(24, UNIT)? == [0; UNIT] && disk.read(0, UNIT)? == [0; UNIT]);
            ensure!(disk.read(48, UNIT)? == [2; UNIT], "too much was zeroed");
        }
        if info.discard.is_some() {
            one(&mut queue, Request::Discard { at, len })?.result?;
            ensure!(disk.read(48, UNIT)? == [2; UNIT], "too much was discarded");
        }
        ensure!(
            info.discard.is_some() || name == "plain",
            "{name} takes no discard: {info:?}"
        );
        let buffer = queue.buffer(UNIT)?;
        let append = Request::Append { zone: ZONE, buffer };
        let refused = queue.submit(append, 0).err().context("append")?;
        ensure!(refused.error.kind() == ErrorKind::Unsupported);
        let past = queue.buffer(UNIT)?;
        let past = Request::Read {
            at: Sector(info.capacity.0),
            buffer: past,
        };
        let refused = queue.submit(past, 0).err().context("past the end")?;
        ensure!(refused.error.kind() == ErrorKind::InvalidRequest);
    }
    Ok(())
}

fn refused(path: &str, kind: ErrorKind, words: &str) -> Result<()> {
    let error = match open(path, 1, WaitPolicy::Poll) {
        Ok(_) => bail!("{path} was opened"),
        Err(error) => error.downcast::<Error>()?,
    };
    let text = format!("{error}");
    ensure!(error.kind() == kind && text.contains(words), "{error:?}");
    Ok(())
}

pub(super) fn devices_that_cannot_be_had_are_refused(_: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    let at = made.path();
    let held = open_one(&at)?;
    refused(&at, ErrorKind::Busy, "in use")?;
    drop(held);

    drop(open_one(&at)?);

    run_as_user(&format!("info {at}"))?.refused(3, &[&at, "root"])?;
    const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
    fs::write(SWITCH, "2").context(SWITCH)?;
    let forbidden = refused(&at, ErrorKind::PermissionDenied, "kernel.io_uring_disabled");
    fs::write(SWITCH, "0")?;
    forbidden
}

/// A user without lockable memory works all the same, and is told.
pub(super) fn user_without_lockable_memory_is_served(_: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    let at = made.path();
    fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let limit = |bytes| {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(64 << 30),
        };
        setrlimit(Resource::Memlock, limit)
    };
    limit(4096)?;
    let info = run_as_user(&format!("info {at} --format json"))?.json()?;
    let features = info["device"]["features"].to_string();
    ensure!(features.contains("\"unregistered-buffers\""), "{features}");
    let job = format!("run --device {at} --op append --count 200 --format json --destroy");
    let ran = run_as_user(&job)?.json()?;
    ensure!(ran["results"][0]["ios"] == 200, "{ran}");
    limit(1 << 30)?;
    let info = run_as_user(&format!("info {at} --format json"))?.json()?;
    let features = info["device"]["features"].to_string();
    ensure!(features.contains("\"registered-buffers\""), "{features}");
    Ok(())
}

pub(super) fn tool_does_its_work(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    for disk in [made.kernel_disk()?, context.kernel_disk("main")?] {
        let at = path(&disk);
        let info = run(&format!("info {at} --format json"))?.json()?;
        let device = &info["device"];
        ensure!(device["name"] == *at, "{device}");
        ensure!(
            device["backend"] == "Linux block device through io_uring",
            "{device}"
        );
        ensure!(device["zoned"]["append"] == "emulated", "{device}");
        let text = run(&format!("info {at}"))?;
        ensure!(
            text.printed()?
                .contains("emulated, one write at a time in each zone"),
            "{text}"
        );
        let report = run(&format!("zones report {at} --format json"))?.json()?;
        let zones = report["zones"].as_array().context("no zones")?;
        ensure!(zones.len() == disk.report()?.len(), "{report}");

        // What is on a disk that is not the tool's own takes consent to be destroyed.
        run(&format!("zones finish {at} --zone 3"))?.printed()?;
        run(&format!("zones reset {at} --zone 3"))?.refused(3, &["--destroy"])?;
        run(&format!("zones reset {at} --zone 3 --destroy"))?.printed()?;
        for (op, api, queues) in [
            ("append", "queue", 1),
            ("append", "async", 2),
            ("append", "queue", 2),
            ("write", "queue", 1),
            ("read", "queue", 1),
            ("randread", "async", 1),
        ] {
            let job = format!(
                "run --device {at} --op {op} --api {api} --queues {queues} --depth 32 --count 2000 \
                 --format json --destroy"
            );
            let ran = run(&job)?.json()?;
            let result = &ran["results"][0];
            ensure!(result["ios"] == 2000, "{op}: {ran}");
            ensure!(result["errors"] == 0, "{ran}");
            if let Some(iops) = result["iops"].as_f64() {
                context.metric(format!("{at}_{op}_{api}_{queues}_iops"), iops);
            }
        }
    }
    run("info /dev/none")?.refused(3, &["/dev/none", "no such device"])?;
    run("info /init")?.refused(3, &["/init", "emu:store=/init"])
}
