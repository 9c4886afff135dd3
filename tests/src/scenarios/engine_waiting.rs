//! What waiting costs and that it ends, with interrupts of a real function; and memory of the
//! engine's own.

use std::fs;
use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use memmap2::MmapOptions;
use zbd_core::{
    DmaArena, Driver, HostMemory, NoIoUring, OpenOptions, Sector, WaitMethod, WaitPolicy, ZoneId,
    ZonedDevice,
};

use super::Context;
use crate::inside::claim::block_on;
use crate::inside::engine;
use crate::inside::record::{Record, UNIT};

pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// The first sequential zone of `main`.
const ZONE: ZoneId = ZoneId(2);
/// How often a device goes idle and gets a request again, for each policy and form. All of them
/// together take some seconds of emulation.
const TURNS: u64 = 2500;
/// A request that takes longer was forgotten until something else woke whoever should have looked.
const LOST: Duration = Duration::from_secs(3);

fn options(wait: WaitPolicy) -> OpenOptions {
    OpenOptions {
        wait,
        memory_len: 4 << 20,
        ..OpenOptions::default()
    }
}

fn shared(spec: &str, wait: WaitPolicy) -> Result<ZonedDevice> {
    Ok(ZonedDevice::open_with(&spec.parse()?, &options(wait))?)
}

/// The processor time that all threads of this process have used.
fn worked() -> Result<Duration> {
    let mut all = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let nanos = text.split(' ').next().context("an empty schedstat")?;
        all += Duration::from_nanos(nanos.parse()?);
    }
    Ok(all)
}

pub(super) fn idle_device_takes_no_processor_time(context: &mut Context) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(2);
    let claim = context.claim("main")?;
    for wait in engine::POLICIES {
        let device = shared(&claim.spec(), wait)?;
        block_on(async {
            for _ in 0..50 {
                device.append(ZONE, device.buffer(UNIT)?).await?;
            }
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(200));
        let (start, before) = (Instant::now(), worked()?);
        thread::sleep(IDLE);
        let used = (worked()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
        context.metric(format!("idle_{wait}_percent_of_a_core"), used * 100.0);
        match wait {
            // It shows that what is measured is what is used.
            WaitPolicy::Poll => ensure!(used > 0.2, "polling took {used} of a core"),
            _ => ensure!(used < 0.01, "idle, {wait} took {used} of a core"),
        }
    }
    Ok(())
}

/// How many interrupts the functions that VFIO has have given so far.
fn interrupts() -> Result<u64> {
    let all = fs::read_to_string("/proc/interrupts")?;
    let of_vfio = all.lines().filter(|line| line.contains("vfio-msix"));
    let counts = of_vfio.flat_map(|line| line.split_whitespace().skip(1));
    Ok(counts.filter_map(|word| word.parse::<u64>().ok()).sum())
}

/// One request after another, each after a pause; the pauses are such that some requests meet a
/// thread that spins, some one that is about to sleep and some one that sleeps.
async fn turns<D: Driver>(device: &ZonedDevice<D>, at: Sector) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for turn in 0..TURNS {
        let pause = Duration::from_micros(turn * 37 % 211);
        let start = Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        if turn % 5 == 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        device.read(at, UNIT).await?;
        let took = start.elapsed();
        ensure!(took < LOST, "turn {turn} took {took:?}");
        longest = longest.max(took);
    }
    Ok(longest)
}

/// Makes the turns on a runtime with a clock, and looks whether anybody was interrupted.
fn measured(
    context: &mut Context,
    name: &str,
    run: impl FnOnce() -> Result<Duration>,
) -> Result<()> {
    let (start, before) = (Instant::now(), interrupts()?);
    let longest = run().with_context(|| name.to_owned())?;
    let came = interrupts()? - before;
    context.metric(format!("{name}_interrupts"), came as f64);
    context.metric(format!("{name}_longest_ms"), longest.as_secs_f64() * 1e3);
    context.metric(format!("{name}_seconds"), start.elapsed().as_secs_f64());
    ensure!(came > 0, "{name}: no interrupt in {TURNS} turns");
    Ok(())
}

fn timed<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_time();
    builder.build()?.block_on(future)
}

pub(super) fn first_request_after_idleness_is_not_lost(context: &mut Context) -> Result<()> {
    let claim = context.claim("main")?;
    for wait in [WaitPolicy::Adaptive, WaitPolicy::Interrupt] {
        let device = shared(&claim.spec(), wait)?;
        let at = device.info().zoned()?.start(ZoneId(0));
        measured(context, &format!("lanes_{wait}"), || {
            timed(turns(&device, at))
        })?;
        drop(device);

        let queue = options(wait).open(&claim.spec().parse()?)?.pop();
        let device = ZonedDevice::from_queue(queue.context("no queue")?)?;
        let runtime = engine::runtime()?;
        measured(context, &format!("local_{wait}"), || {
            runtime.block_on(turns(&device, at))
        })?;
    }
    Ok(())
}

/// Appends from memory of the engine's own, and reads into it.
async fn goes_both_ways<D: Driver>(device: &ZonedDevice<D>, arena: &DmaArena) -> Result<()> {
    for sequence in 0..32 {
        let record = Record {
            seed: 4000,
            sequence,
            zone: ZONE.0,
            units: 1 + (sequence % 5) as u32,
        };
        let mut buffer = arena.allocate(record.len_bytes())?;
        buffer.copy_from_slice(&record.bytes());
        let appended = device.append(ZONE, buffer).await?;
        let mut buffer = appended.buffer;
        buffer.fill(0xee);
        let buffer = device.read_into(appended.sector, buffer).await?;
        ensure!(buffer.to_vec() == record.bytes(), "{record:?}");
        let at = buffer.as_ptr() as usize;
        let memory = arena.memory().as_ptr() as usize;
        ensure!(
            (memory..memory + arena.len_bytes()).contains(&at),
            "the data went elsewhere"
        );
        // The same through the device's own memory.
        let read = device.read(appended.sector, record.len_bytes()).await?;
        ensure!(read.to_vec() == record.bytes(), "{record:?}");
    }
    Ok(())
}

pub(super) fn memory_of_the_engine_is_appended_from_and_read_into(
    context: &mut Context,
) -> Result<()> {
    let memory = || -> Result<HostMemory> {
        let map = MmapOptions::new().len(1 << 20).map_anon()?;
        Ok(HostMemory::from_mmap(map.into())?)
    };
    let claim = context.claim("main")?;
    let device = shared(&claim.spec(), WaitPolicy::Adaptive)?;
    let arenas = [device.register(memory()?)?, device.register(memory()?)?];
    for arena in &arenas {
        block_on(goes_both_ways(&device, arena))?;
        block_on(async { Ok(device.recover().await?) })?;
        block_on(goes_both_ways(&device, arena)).context("after a reset")?;
    }
    drop((device, arenas));
    let queue = options(WaitPolicy::Interrupt)
        .open(&claim.spec().parse()?)?
        .pop();
    let device = ZonedDevice::from_queue(queue.context("no queue")?)?;
    let arena = device.register(memory()?)?;
    engine::runtime()?.block_on(goes_both_ways(&device, &arena))
}

pub(super) fn threads_sleep_in_io_uring_or_say_why_not(context: &mut Context) -> Result<()> {
    const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
    let claim = context.claim("main")?;
    let method = |forbidden: &str| -> Result<Option<WaitMethod>> {
        fs::write(SWITCH, forbidden).context(SWITCH)?;
        let device = shared(&claim.spec(), WaitPolicy::Interrupt)?;
        ensure!(device.info().interrupts, "{:?}", device.info());
        let at = device.info().zoned()?.start(ZoneId(0));
        for _ in 0..50 {
            block_on(async { Ok(device.read(at, UNIT).await?) })?;
        }
        Ok(device.info().wait_method)
    };
    let allowed = method("0")?;
    let forbidden = method("2");
    fs::write(SWITCH, "0")?;
    let forbidden = forbidden?;
    match (allowed, forbidden) {
        (Some(WaitMethod::IoUring), Some(why @ WaitMethod::Epoll(NoIoUring::Forbidden))) => {
            ensure!(why.to_string().contains("not permitted"), "{why}");
            Ok(())
        }
        other => bail!("allowed, and forbidden: {other:?}"),
    }
}
