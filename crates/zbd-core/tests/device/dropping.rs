//! Futures of every kind, polled, dropped and ended in random schedules, with both drivers: no slot
//! and no buffer is lost, nobody waits in vain, and what was acknowledged is there.
//!
//! `ZBD_TEST_SCHEDULES` is how many schedules each test runs, and `ZBD_TEST_SEED` the first of them.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use zbd_core::{
    DmaBuffer, Driver, ErrorKind, OpenOptions, Result, Sector, SectorCount, Unmap, WriteCache,
    ZoneId, ZonedDevice,
};

use crate::{
    in_time::PATIENCE,
    random::Random,
    rig::{Device, free_pages, open_options, pattern, wait_until},
};

/// Few of everything, so that all of it is waited for.
const GEOMETRY: &str = "conventional=1,zones=10,zone-size=256k,max-open=3,max-active=6,\
    block-size=512,size-max=16k,max-append=12k,queues=1,queue-size=8,secure-erase=on";
const MEMORY: usize = 256 << 10;
/// What needs several requests.
const LARGE: usize = 32 << 10;
/// What is known to be written at most once in a schedule.
const CONVENTIONAL: u64 = 256 << 10;
/// Nothing but appends, so that what they said holds.
const KEPT: [u32; 2] = [1, 2];
const CHAOS: std::ops::Range<u32> = 3..10;
/// After so many schedules there is a new device.
const SCHEDULES_PER_DEVICE: u64 = 50;

/// A waker that says whether it was called.
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

struct Task<'a> {
    what: &'static str,
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    called: Arc<Called>,
    waker: Waker,
}

impl<'a> Task<'a> {
    fn new(what: &'static str, future: impl Future<Output = ()> + 'a) -> Self {
        let called = Arc::new(Called(AtomicBool::new(true)));
        Self {
            what,
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&called)),
            called,
        }
    }

    /// Polls, and is done if that is true.
    fn poll(&mut self) -> bool {
        self.called.0.store(false, Ordering::Release);
        let mut cx = Context::from_waker(&self.waker);
        self.future.as_mut().poll(&mut cx).is_ready()
    }

    /// Polls as an executor does: when the waker was called, and not otherwise.
    fn poll_if_called(&mut self) -> bool {
        self.called.0.load(Ordering::Acquire) && self.poll()
    }
}

/// What the futures of a schedule share.
#[derive(Default)]
struct Story {
    /// What was acknowledged.
    landed: RefCell<Vec<(Sector, Vec<u8>)>>,
    /// How much of the conventional zone has been given out.
    given: Cell<u64>,
    acknowledged: Cell<u64>,
}

impl Story {
    /// Whatever becomes of a request, it is one of those ends that it may come to.
    fn end<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => {
                self.acknowledged.set(self.acknowledged.get() + 1);
                return Some(value);
            }
            Err(error) => error,
        };
        assert!(
            matches!(
                error.kind(),
                ErrorKind::InvalidZoneState
                    | ErrorKind::UnalignedWritePointer
                    | ErrorKind::OpenLimit
                    | ErrorKind::ActiveLimit
                    | ErrorKind::OutOfMemory
                    | ErrorKind::QueueFull
                    | ErrorKind::Timeout
                    | ErrorKind::DeviceReset
            ),
            "{what}: {error:?}"
        );
        None
    }

    fn landed(&self, at: Sector, data: Vec<u8>) {
        self.landed.borrow_mut().push((at, data));
    }
}

async fn filled<D: Driver>(device: &ZonedDevice<D>, data: &[u8]) -> Result<DmaBuffer> {
    let mut buffer = device.wait_for_buffer(data.len()).await?;
    buffer.copy_from_slice(data);
    Ok(buffer)
}

/// What the device and its driver can stand in a schedule.
#[derive(Clone, Copy)]
struct Nature {
    can_recover: bool,
}

/// A future of some kind.
fn task<'a, D: Driver>(
    random: &mut Random,
    device: &'a ZonedDevice<D>,
    story: &'a Story,
    nature: Nature,
) -> Task<'a> {
    let seed = random.next();
    let len = 512 * (1 + random.below(20)) as usize;
    let kept = ZoneId(KEPT[random.below(2) as usize]);
    let chaos = ZoneId(CHAOS.start + random.below(u64::from(CHAOS.end - CHAOS.start)) as u32);
    let chaos_at = Sector(u64::from(chaos.0) * 512);
    let any_at = Sector(random.below(9 * 512));
    match random.below(36) {
        0..4 => Task::new("append", async move {
            let data = pattern(seed, len);
            let Some(buffer) = story.end("a buffer", filled(device, &data).await) else {
                return;
            };
            if let Some(done) = story.end("append", device.append(kept, buffer).await) {
                story.landed(done.sector, data);
            }
        }),
        4..6 => Task::new("append to any zone", async move {
            let data = pattern(seed, len);
            let Some(buffer) = story.end("a buffer", filled(device, &data).await) else {
                return;
            };
            let zone = device.zone(chaos);
            story.end("append to any zone", zone.append(buffer).await);
        }),
        6..8 => Task::new("try_append", async move {
            let data = pattern(seed, len);
            let Some(buffer) = story.end("a buffer", filled(device, &data).await) else {
                return;
            };
            match device.try_append(kept, buffer) {
                Ok(end) => {
                    if let Some(done) = story.end("try_append", end.await) {
                        story.landed(done.sector, data);
                    }
                }
                Err(error) => {
                    assert_eq!(error.into_buffer().unwrap().to_vec(), data);
                }
            }
        }),
        8..11 => {
            let len = [len, LARGE][(seed % 2) as usize];
            let at = story.given.get();
            if at + len as u64 > CONVENTIONAL {
                return Task::new("flush", async move {
                    story.end("flush", device.flush().await);
                });
            }
            story.given.set(at + len as u64);
            Task::new("write", async move {
                let (at, data) = (Sector(at / 512), pattern(seed, len));
                match seed % 3 {
                    0 => {
                        let written = device.write_bytes(at, data.clone().into()).await;
                        if story.end("write_bytes", written).is_some() {
                            story.landed(at, data);
                        }
                    }
                    _ => {
                        let Some(buffer) = story.end("a buffer", filled(device, &data).await)
                        else {
                            return;
                        };
                        if let Some(buffer) = story.end("write", device.write(at, buffer).await) {
                            assert_eq!(buffer.to_vec(), data);
                            story.landed(at, data);
                        }
                    }
                }
            })
        }
        11 => Task::new("a large write to a sequential zone", async move {
            let data = pattern(seed, LARGE);
            let Some(buffer) = story.end("a buffer", filled(device, &data).await) else {
                return;
            };
            let written = device.write(chaos_at, buffer).await;
            story.end("a large write to a sequential zone", written);
        }),
        12..14 => Task::new("read", async move {
            story.end("read", device.read(any_at, len).await);
        }),
        14 => Task::new("a large read", async move {
            story.end("a large read", device.read(any_at, LARGE).await);
        }),
        15 => Task::new("read_into", async move {
            if let Some(buffer) = story.end("a buffer", device.wait_for_buffer(len).await) {
                story.end("read_into", device.read_into(any_at, buffer).await);
            }
        }),
        16..18 => Task::new("append_vectored", async move {
            let data = pattern(seed, 3 * 512 * 4);
            let mut parts = Vec::new();
            for part in data.chunks(512 * 4) {
                match story.end("a buffer", filled(device, part).await) {
                    Some(buffer) => parts.push(buffer),
                    None => return,
                }
            }
            let done = device.append_vectored(kept, parts).await;
            if let Some((at, parts)) = story.end("append_vectored", done) {
                assert_eq!(parts.len(), 3);
                story.landed(at, data);
            }
        }),
        18..20 => Task::new("append_bytes", async move {
            let data = pattern(seed, len);
            let bytes = data.clone().into();
            if let Some(at) = story.end("append_bytes", device.append_bytes(kept, bytes).await) {
                story.landed(at, data);
            }
        }),
        20..22 => Task::new("append_bytes of lent ones", async move {
            let Some(bytes) = story.end("read_bytes", device.read_bytes(any_at, 4096).await) else {
                return;
            };
            let slice = bytes.slice(512..512 + len.min(3584));
            let data = slice.to_vec();
            drop(bytes);
            let done = device.append_bytes(kept, slice).await;
            if let Some(at) = story.end("append_bytes", done) {
                story.landed(at, data);
            }
        }),
        22 => Task::new("flush", async move {
            story.end("flush", device.flush().await);
        }),
        23 => Task::new("report", async move {
            if let Some(zones) = story.end("report", device.report(..).await) {
                assert_eq!(zones.len(), 10);
            }
        }),
        24 => Task::new("reports", async move {
            let mut reports = device.reports(chaos..).unwrap();
            while let Some(Some(zone)) = story.end("reports", reports.next().await) {
                assert!(zone.id >= chaos);
            }
        }),
        25 => Task::new("open", async move {
            story.end("open", device.zone(chaos).open().await);
        }),
        26 => Task::new("close", async move {
            story.end("close", device.zone(chaos).close().await);
        }),
        27 => Task::new("finish", async move {
            story.end("finish", device.zone(chaos).finish().await);
        }),
        28 => Task::new("reset", async move {
            story.end("reset", device.zone(chaos).reset().await);
        }),
        29 => Task::new("reserve", async move {
            story.end("reserve", device.zone(chaos).reserve().await);
        }),
        30 => Task::new("barrier", async move {
            story.end("barrier", device.zone(kept).barrier().await);
        }),
        31 => Task::new("wait_for_buffer", async move {
            story.end("wait_for_buffer", device.wait_for_buffer(len).await);
        }),
        32 => Task::new("erase", async move {
            let (at, len) = (chaos_at, SectorCount(512));
            story.end("secure_erase", device.secure_erase(at, len).await);
            let zeroes = device.write_zeroes(at, SectorCount(8), Unmap::Keep).await;
            story.end("write_zeroes", zeroes);
        }),
        33 => Task::new("about the device", async move {
            story.end("id", device.id().await);
            story.end("lifetime", device.lifetime().await);
        }),
        34 if nature.can_recover => Task::new("recover", async move {
            story.end("recover", device.recover().await);
        }),
        _ => Task::new("set_write_cache", async move {
            let mode = [WriteCache::Writeback, WriteCache::Writethrough][(seed % 2) as usize];
            story.end("set_write_cache", device.set_write_cache(mode).await);
        }),
    }
}

/// A device and one who uses it.
struct World<'a, D: Driver> {
    rig: &'a mut Device,
    device: &'a ZonedDevice<D>,
    drive: &'a dyn Fn(),
}

impl<D: Driver> World<'_, D> {
    /// Lets everybody work.
    fn turn(&mut self) {
        (self.drive)();
        self.rig.step();
        (self.drive)();
        self.rig.give_way();
    }

    /// Turns until `holds`.
    fn until(&mut self, what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "in vain: {}", what());
            self.turn();
            if begun.elapsed() > Duration::from_millis(1) {
                thread::yield_now();
            }
        }
    }

    /// Runs a future to its end, polled when its waker is called.
    fn run<T>(&mut self, what: &'static str, future: impl Future<Output = T>) -> T {
        let done = RefCell::new(None);
        let mut task = Task::new(what, async {
            let value = future.await;
            done.replace(Some(value));
        });
        self.until(|| what.to_owned(), || task.poll_if_called());
        drop(task);
        done.into_inner().unwrap()
    }

    /// Wide requests keep tables: as many as there can be are made.
    fn make_tables(&mut self, depth: usize) {
        let device = self.device;
        let mut tasks: Vec<_> = (0..depth)
            .map(|_| {
                Task::new("a wide read", async move {
                    let parts = vec![device.buffer(512).unwrap(), device.buffer(512).unwrap()];
                    device.read_vectored(Sector(0), parts).await.unwrap();
                })
            })
            .collect();
        // As many as there is room for at once: the device ends none of them before it has the last.
        // A direct chain of theirs takes four descriptors, of which there are three a slot.
        let at_once = match device.info().features.contains(&"indirect_desc") {
            true => depth,
            false => depth * 3 / 4,
        };
        self.rig.control.hold();
        let before = self.rig.requests();
        for task in &mut tasks {
            assert!(!task.poll());
        }
        let control = self.rig.control.clone();
        let taken = || control.counters().requests - before >= at_once as u64;
        self.until(|| "all wide reads are taken".to_owned(), taken);
        self.rig.control.release();
        drop(tasks);
        self.take_all_slots(depth);
    }

    /// As many requests as ever can be begun at once.
    fn take_all_slots(&mut self, depth: usize) {
        let device = self.device;
        let mut held = Vec::new();
        let begin = || device.try_read_into(Sector(0), device.buffer(512).unwrap());
        self.until(
            || "all slots come back".to_owned(),
            || {
                while held.len() < depth {
                    match begin() {
                        Ok(end) => held.push(Box::pin(end)),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::QueueFull);
                            return false;
                        }
                    }
                }
                true
            },
        );
        // Whether they have ended or not, they are there until they are looked at.
        let error = begin().err().expect("there are more slots than there were");
        assert_eq!(error.kind(), ErrorKind::QueueFull);
        for end in held {
            self.run("a read", end).unwrap();
        }
    }

    fn schedule(&mut self, random: &mut Random, nature: Nature, depth: usize, pages: usize) -> u64 {
        let story = Story::default();
        let device = self.device;
        let timed = device.with_timeout(Some(Duration::from_millis(1)));
        let is_timed = random.below(16) == 0;
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for _ in 0..random.below(60) + 10 {
            let any = random.below(tasks.len().max(1) as u64) as usize;
            match random.below(12) {
                0..4 if tasks.len() < 20 => {
                    let device = match is_timed && random.below(2) == 0 {
                        true => &timed,
                        false => device,
                    };
                    let mut task = task(random, device, &story, nature);
                    let polls = random.below(3);
                    if !(0..polls).any(|_| task.poll()) {
                        tasks.push(task);
                    }
                }
                4..7 if any < tasks.len() => {
                    if tasks[any].poll() {
                        tasks.swap_remove(any);
                    }
                }
                7 if any < tasks.len() => drop(tasks.swap_remove(any)),
                8 => drop(self.rig.stepper.as_mut().map(|stepper| stepper.step())),
                9 => (self.drive)(),
                10 => self.turn(),
                _ => match random.below(4) {
                    0 => self.rig.control.hold(),
                    1 => self.rig.control.release(),
                    _ => tasks.retain_mut(|task| !task.poll_if_called()),
                },
            }
        }
        self.rig.control.release();
        // One half runs to its end, polled when it is woken; the other is dropped in any order.
        while tasks.len() as u64 > random.below(20) {
            let any = random.below(tasks.len() as u64) as usize;
            drop(tasks.swap_remove(any));
        }
        // Those wait for others to give up zones, which perhaps nobody does.
        tasks.retain(|task| task.what != "reserve");
        let waiting = RefCell::new(tasks);
        let names = || {
            let names: Vec<_> = waiting.borrow().iter().map(|task| task.what).collect();
            names.join(", ")
        };
        self.until(names, || {
            let mut tasks = waiting.borrow_mut();
            tasks.retain_mut(|task| !task.poll_if_called());
            tasks.is_empty()
        });

        self.take_all_slots(depth);
        for zone in KEPT {
            let zone = device.zone(ZoneId(zone));
            self.run("barrier", zone.barrier()).unwrap();
        }
        for (at, data) in story.landed.take() {
            let read = self.run("read", device.read(at, data.len())).unwrap();
            assert_eq!(read.to_vec(), data, "what was put at {at}");
        }
        let acknowledged = story.acknowledged.get();
        self.run("reset_all", device.reset_all()).unwrap();
        if nature.can_recover {
            // A reset of the device frees the tables.
            self.make_tables(depth);
        }
        self.until(
            || format!("{pages} pages come back"),
            || free_pages(|len| device.buffer(len)) == pages,
        );
        acknowledged
    }
}

/// Says which schedule it was that failed.
struct Telling(u64);

impl Drop for Telling {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("ZBD_TEST_SEED={} ZBD_TEST_SCHEDULES=1", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap())
}

fn options() -> OpenOptions {
    OpenOptions {
        memory_len: MEMORY,
        ..open_options()
    }
}

fn schedules<D: Driver>(
    mut make: impl FnMut() -> (Device, ZonedDevice<D>),
    drive: impl Fn(&ZonedDevice<D>),
    usual: u64,
    nature: Nature,
) {
    let count = number("ZBD_TEST_SCHEDULES").unwrap_or(usual);
    let first = number("ZBD_TEST_SEED").unwrap_or(0);
    let mut acknowledged = 0;
    let seeds: Vec<_> = (first..first + count).collect();
    for seeds in seeds.chunks(SCHEDULES_PER_DEVICE as usize) {
        let (mut rig, device) = make();
        let mut world = World {
            rig: &mut rig,
            device: &device,
            drive: &|| drive(&device),
        };
        let depth = depth(&mut world);
        world.make_tables(depth);
        let pages = free_pages(|len| device.buffer(len));
        for &seed in seeds {
            let _telling = Telling(seed);
            let mut random = Random::new(seed);
            acknowledged += world.schedule(&mut random, nature, depth, pages);
        }
    }
    assert!(
        acknowledged > 5 * count,
        "{acknowledged} ends in {count} schedules"
    );
}

/// How many requests can be begun at once.
fn depth<D: Driver>(world: &mut World<'_, D>) -> usize {
    let device = world.device;
    let begin = || device.try_read_into(Sector(0), device.buffer(512).unwrap());
    let ends: Vec<_> = std::iter::from_fn(|| begin().ok()).collect();
    let depth = ends.len();
    for end in ends {
        world.run("a read", end).unwrap();
    }
    depth
}

fn lanes(mut rig: Device) -> (Device, ZonedDevice) {
    let device = ZonedDevice::from_queues(rig.open(options()).unwrap()).unwrap();
    (rig, device)
}

fn local(mut rig: Device) -> (Device, ZonedDevice<zbd_core::Local>) {
    let queue = rig.open(options()).unwrap().pop().unwrap();
    (rig, ZonedDevice::from_queue(queue).unwrap())
}

#[test]
fn futures_of_lanes_on_a_stepped_device_lose_nothing() {
    let nature = Nature { can_recover: true };
    schedules(|| lanes(Device::stepped(GEOMETRY)), |_| {}, 150, nature);
}

#[test]
fn futures_of_lanes_on_a_device_with_a_thread_lose_nothing() {
    let nature = Nature { can_recover: true };
    schedules(|| lanes(Device::threaded(GEOMETRY)), |_| {}, 150, nature);
}

#[test]
fn futures_of_a_thread_of_its_own_on_a_stepped_device_lose_nothing() {
    // A reset waits for the device, which nobody would step.
    let nature = Nature { can_recover: false };
    let drive = |device: &ZonedDevice<_>| {
        device.drive();
    };
    schedules(|| local(Device::stepped(GEOMETRY)), drive, 1500, nature);
}

#[test]
fn futures_of_a_thread_of_its_own_on_a_device_with_a_thread_lose_nothing() {
    let nature = Nature { can_recover: true };
    let drive = |device: &ZonedDevice<_>| {
        device.drive();
    };
    schedules(|| local(Device::threaded(GEOMETRY)), drive, 150, nature);
}

thread_local! {
    static DRIVEN: RefCell<Option<ZonedDevice<zbd_core::Local>>> = const { RefCell::new(None) };
}

/// An executor that does something at once when it is woken for the first time.
struct AtOnce(AtomicBool);

impl Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        DRIVEN.with_borrow(|device| {
            let device = device.as_ref().unwrap();
            device.drive();
            drop(device.try_read_into(Sector(0), device.buffer(4096).unwrap()));
        });
    }
}

/// The memory of requests whose futures were dropped, and of those whose time was up.
#[test]
fn whoever_waits_for_memory_may_use_the_device_at_once() {
    for is_late in [false, true] {
        let (mut rig, device) = local(Device::stepped(GEOMETRY));
        DRIVEN.replace(Some(device.clone()));
        let mut held: Vec<_> = std::iter::from_fn(|| device.buffer(4096).ok()).collect();
        let timed = device.with_timeout(Some(Duration::from_millis(1)));
        for page in held.split_off(held.len() - 2) {
            let device = if is_late { &timed } else { &device };
            let mut append = Task::new("append", async move {
                let error = device.append(ZoneId(1), page).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
            });
            assert!(!append.poll());
            if is_late {
                wait_until("its time is up", || {
                    device.drive();
                    append.poll_if_called()
                });
            }
        }
        let at_once = Arc::new(AtOnce(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&at_once));
        let mut cx = Context::from_waker(&waker);
        let mut wait = Box::pin(device.wait_for_buffer(4096));
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        device.drive();
        rig.step();
        device.drive();
        assert!(at_once.0.load(Ordering::Relaxed), "late: {is_late}");
        // What was done at once may have taken the memory again.
        device.drive();
        rig.step();
        device.drive();
        assert!(wait.as_mut().poll(&mut cx).is_ready(), "late: {is_late}");
        DRIVEN.take();
    }
}
