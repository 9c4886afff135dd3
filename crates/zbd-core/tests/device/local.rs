//! A device that is driven by the thread that uses it.

use std::{
    cell::RefCell,
    mem,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};
use zbd_core::{
    Appended, ErrorKind, Local, OpenOptions, Result, Sector, WaitPolicy, ZoneId, ZoneLog,
    ZoneWriter, ZonedDevice,
    log::{LogOptions, RecordId},
    on_thread_park, on_thread_park_with_io,
};

use crate::{
    in_time::in_time,
    rig::{Device, open_options, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=1,queue-size=16";

fn open(device: &mut Device, wait: WaitPolicy) -> ZonedDevice<Local> {
    let options = OpenOptions {
        wait,
        ..open_options()
    };
    let queue = device.open(options).unwrap().pop().unwrap();
    ZonedDevice::from_queue(queue).unwrap()
}

/// A runtime of one thread that drives its devices, with tokio's I/O driver or without.
fn builder(with_io: bool) -> Builder {
    let mut builder = Builder::new_current_thread();
    match with_io {
        false => builder.on_thread_park(on_thread_park),
        true => builder.enable_io().on_thread_park(on_thread_park_with_io),
    };
    builder
}

async fn append(device: &ZonedDevice<Local>, zone: u32) -> Result<Appended> {
    let buffer = device.wait_for_buffer(4096).await?;
    device.append(ZoneId(zone), buffer).await
}

/// Appends from 64 tasks on one thread; checks that each place is taken once.
async fn appends_of_tasks(device: ZonedDevice<Local>, turns: u64) {
    let places = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (device, places) = (device.clone(), Rc::clone(&places));
            tokio::task::spawn_local(async move {
                for _ in 0..turns {
                    let at = append(&device, task % 4).await.unwrap().sector;
                    places.borrow_mut().push(at.0);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut places = places.take();
    assert_eq!(places.len() as u64, 64 * turns);
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len() as u64, 64 * turns, "two were put in one place");
}

#[test]
fn appends_of_tasks_on_every_runtime_and_policy_come_back() {
    for wait in [
        WaitPolicy::Poll,
        WaitPolicy::Adaptive,
        WaitPolicy::Interrupt,
    ] {
        for with_io in [false, true] {
            let mut device = Device::threaded(GEOMETRY);
            let local = open(&mut device, wait);
            let runtime = builder(with_io).build_local(Default::default()).unwrap();
            runtime.block_on(appends_of_tasks(local.clone(), 10));
            // One at a time, with the root future as the only one.
            for _ in 0..20 {
                runtime.block_on(local.flush()).unwrap();
            }
            drop(runtime);
            // A runtime of its own for the next.
            let runtime = Builder::new_current_thread()
                .enable_io()
                .on_thread_park(on_thread_park_with_io)
                .build()
                .unwrap();
            runtime.block_on(local.flush()).unwrap();
        }
    }
}

#[test]
fn a_thread_that_waits_for_a_slow_device_sleeps() {
    for with_io in [false, true] {
        let mut device = Device::threaded(GEOMETRY);
        let local = open(&mut device, WaitPolicy::Adaptive);
        let control = device.control.clone();
        control.hold();
        let releasing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            control.release();
        });
        let runtime = builder(with_io).build().unwrap();
        let (begun, worked) = (Instant::now(), cpu_time());
        runtime.block_on(append(&local, 0)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(400));
        let worked = cpu_time() - worked;
        assert!(worked < Duration::from_millis(150), "{worked:?}");
        releasing.join().unwrap();
    }
}

/// The processor time of this thread.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = stat.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

struct Count(std::sync::atomic::AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn any_executor_can_drive_the_device_itself() {
    let mut device = Device::stepped(GEOMETRY);
    let local = open(&mut device, WaitPolicy::Poll);
    let count = Arc::new(Count(0.into()));
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mut futures: Vec<_> = (0..20).map(|_| Box::pin(append(&local, 1))).collect();
    for future in &mut futures {
        assert!(future.as_mut().poll(&mut cx).is_pending());
    }
    let (before, doorbells) = (device.requests(), local.doorbells());
    device.step();
    assert_eq!(
        device.requests(),
        before,
        "nothing is shown until it is driven"
    );
    assert!(!local.drive());
    assert_eq!(local.doorbells(), doorbells + 1);
    device.step();
    assert_eq!(device.requests(), before + 16);
    assert!(local.drive());
    assert_eq!(
        count.0.load(std::sync::atomic::Ordering::Relaxed),
        16,
        "those who wait for slots are woken when there are some"
    );
    // The first sixteen end; the others have waited in line.
    let mut sectors = Vec::new();
    for _ in 0..2 {
        futures.retain_mut(|future| match future.as_mut().poll(&mut cx) {
            Poll::Ready(done) => {
                sectors.push(done.unwrap().sector);
                false
            }
            Poll::Pending => true,
        });
        local.drive();
        device.step();
        local.drive();
    }
    futures.retain_mut(|future| match future.as_mut().poll(&mut cx) {
        Poll::Ready(done) => {
            sectors.push(done.unwrap().sector);
            false
        }
        Poll::Pending => true,
    });
    assert!(futures.is_empty());
    let wanted: Vec<_> = (0..20).map(|i| Sector(2048 + 8 * i)).collect();
    assert_eq!(sectors, wanted);
}

#[test]
fn dropped_futures_run_to_their_ends_and_give_slots_and_buffers_back() {
    let mut device = Device::stepped(GEOMETRY);
    let local = open(&mut device, WaitPolicy::Poll);
    let waker = Waker::noop();
    let mut cx = Context::from_waker(waker);
    for round in 0..10 {
        let mut futures: Vec<_> = (0..24).map(|_| Box::pin(append(&local, 2))).collect();
        for future in &mut futures {
            assert!(future.as_mut().poll(&mut cx).is_pending());
        }
        // Some in flight, some in the line, in an order that differs each time.
        while !futures.is_empty() {
            let at = (round * 7 + futures.len() * 5) % futures.len();
            drop(futures.swap_remove(at));
        }
        local.drive();
        device.step();
        local.drive();
    }
    let mut all: Vec<_> = (0..16)
        .map(|_| {
            local
                .try_append(ZoneId(3), local.buffer(4096).unwrap())
                .unwrap()
        })
        .map(Box::pin)
        .collect();
    let error = local
        .try_append(ZoneId(3), local.buffer(4096).unwrap())
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert!(error.into_buffer().is_some());
    let mut barrier = Box::pin(local.zone(ZoneId(2)).reserve());
    assert!(barrier.as_mut().poll(&mut cx).is_ready());
    wait_until("all have ended", || {
        local.drive();
        device.step();
        local.drive();
        all.retain_mut(|future| future.as_mut().poll(&mut cx).is_pending());
        all.is_empty()
    });
}

#[test]
fn who_waits_for_orphans_is_kept_awake() {
    for wait in [WaitPolicy::Poll, WaitPolicy::Adaptive] {
        for with_io in [false, true] {
            let mut device = Device::threaded(&format!("{GEOMETRY},latency=20ms"));
            let local = open(&mut device, wait);
            let runtime = builder(with_io).build().unwrap();
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..3 {
                let mut orphan = Box::pin(append(&local, 1));
                assert!(orphan.as_mut().poll(&mut cx).is_pending());
            }
            let pointer = runtime.block_on(local.zone(ZoneId(1)).barrier()).unwrap();
            assert_eq!(pointer, Some(Sector(2048 + 24)), "{wait} {with_io}");
        }
    }
}

/// Does something on every kind of runtime; fails if that does not end.
fn on_runtimes(options: &'static str, what: impl Fn(Runtime, ZonedDevice<Local>) + Send + 'static) {
    in_time(move || {
        for wait in [WaitPolicy::Poll, WaitPolicy::Adaptive] {
            for with_io in [false, true] {
                let mut device = Device::threaded(&format!("{GEOMETRY},{options}"));
                let local = open(&mut device, wait);
                what(builder(with_io).build().unwrap(), local);
            }
        }
    });
}

#[test]
fn who_waits_in_line_behind_orphans_is_kept_awake() {
    on_runtimes("latency=20ms", |runtime, local| {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..16 {
            let mut orphan = Box::pin(append(&local, 1));
            assert!(orphan.as_mut().poll(&mut cx).is_pending());
        }
        runtime.block_on(append(&local, 2)).unwrap();
    });
}

/// What a writer has on its way wakes nobody when its future was dropped.
#[test]
fn who_waits_beside_a_writer_for_which_nobody_waits_is_kept_awake() {
    on_runtimes("latency=20ms", |runtime, local| {
        let buffer = || local.buffer(4096).unwrap();
        let mut writer = runtime
            .block_on(ZoneWriter::open(&local, ZoneId(1), 4))
            .unwrap();
        // What is looked at first is the writer's.
        runtime.block_on(async {
            let mut append = pin!(append(&local, 2));
            let mut has_begun = false;
            std::future::poll_fn(|cx| {
                let end = append.as_mut().poll(cx);
                if !mem::replace(&mut has_begun, true) {
                    let mut write = pin!(writer.write(buffer()));
                    assert!(write.as_mut().poll(cx).is_ready());
                }
                end
            })
            .await
            .unwrap();
        });
        // What ends first is the writer's.
        runtime.block_on(async {
            drop(writer.write(buffer()).await.unwrap());
            local.drive();
            thread::sleep(Duration::from_millis(10));
            append(&local, 2).await.unwrap();
        });
        // Who waited for the writer's has gone.
        runtime.block_on(async {
            let mut write = writer.write(buffer()).await.unwrap();
            let mut gone = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut write).poll(&mut gone).is_pending());
            drop(write);
            local.drive();
            thread::sleep(Duration::from_millis(10));
            append(&local, 2).await.unwrap();
        });
        runtime.block_on(writer.flush()).unwrap();
        assert_eq!(writer.durable().bytes(), 3 * 4096);
    });
}

/// As with a writer; who waits for a record waits for that only.
#[test]
fn who_waits_beside_a_log_for_whose_record_nobody_waits_is_kept_awake() {
    on_runtimes("latency=20ms", |runtime, local| {
        let options = LogOptions::new(ZoneId(2)..ZoneId(4));
        let (log, _) = runtime.block_on(ZoneLog::open(&local, &options)).unwrap();
        runtime.block_on(async {
            let mut gone = Context::from_waker(Waker::noop());
            let mut record = Box::pin(log.append(b"record"));
            assert!(record.as_mut().poll(&mut gone).is_pending());
            drop(record);
            local.drive();
            thread::sleep(Duration::from_millis(10));
            append(&local, 1).await.unwrap();
        });
        assert_eq!(runtime.block_on(log.sync()).unwrap(), RecordId(1));
    });
}

/// The device returns their memory when nobody awaits a request any more, and the executor has nothing
/// to do.
#[test]
fn who_waits_for_the_memory_of_late_requests_gets_it() {
    in_time(|| {
        for wait in [WaitPolicy::Poll, WaitPolicy::Interrupt] {
            for with_io in [false, true] {
                let mut device = Device::threaded(GEOMETRY);
                let local = open(&mut device, wait);
                let runtime = builder(with_io).build().unwrap();
                device.control.hold();
                let timed = local.with_timeout(Some(Duration::from_millis(1)));
                runtime.block_on(async {
                    for _ in 0..3 {
                        let error = append(&timed, 1).await.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Timeout);
                    }
                });
                let all: Vec<_> = std::iter::from_fn(|| local.buffer(4096).ok()).collect();
                assert!(!all.is_empty());
                let control = device.control.clone();
                let releasing = thread::spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    control.release();
                });
                runtime.block_on(local.wait_for_buffer(4096)).unwrap();
                releasing.join().unwrap();
            }
        }
    });
}
