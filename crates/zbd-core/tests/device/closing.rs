//! The end of a shared device.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use zbd_core::{DmaArena, ErrorKind, Request, ZoneId, ZonedDevice};
use zbd_emu::ZoneState;

use crate::{
    blocking::{block_on, poll_once},
    in_time::in_time,
    rig::{Device, open_options, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=1,queue-size=8";

fn open(rig: &mut Device) -> (ZonedDevice, DmaArena) {
    let queues = rig.open(open_options()).unwrap();
    let arena = queues[0].memory().clone();
    (ZonedDevice::from_queues(queues).unwrap(), arena)
}

fn is_whole(arena: &DmaArena) -> bool {
    arena.allocate(arena.len_bytes()).is_ok()
}

#[test]
fn a_device_dropped_with_orphans_in_flight_ends_at_once_and_leaks_nothing() {
    // Requests on their way to the thread, and requests that are with the device.
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        let mut rig = Device::stepped(GEOMETRY);
        let (device, arena) = open(&mut rig);
        for zone in 0..4 {
            for _ in 0..2 {
                let buffer = device.buffer(4096).unwrap();
                let mut future: Pin<Box<dyn Future<Output = _>>> =
                    Box::pin(device.append(ZoneId(zone), buffer));
                assert!(poll_once(&mut future).is_none());
            }
        }
        std::thread::sleep(wait);
        assert!(!is_whole(&arena));
        let begun = Instant::now();
        drop(device);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(is_whole(&arena), "the reset gave all memory back");
        // The device can be opened again, and has carried out none of them.
        let (device, _) = open(&mut rig);
        drop(device);
        assert_eq!(rig.control.zone_state(0), Some(ZoneState::Empty));
    }
}

#[test]
fn clones_keep_the_device_open() {
    let mut rig = Device::threaded(GEOMETRY);
    let (device, arena) = open(&mut rig);
    let clone = device.clone();
    drop(device);
    let buffer = clone.buffer(4096).unwrap();
    let done = block_on(clone.append(ZoneId(0), buffer)).unwrap();
    drop(clone);
    // Buffers outlive their device, and still belong to its memory.
    assert_eq!(done.buffer.len(), 4096);
    assert!(!is_whole(&arena));
    drop(done);
    assert!(is_whole(&arena));
}

#[test]
fn an_idle_device_sleeps_and_is_dropped_at_once() {
    let mut rig = Device::threaded(GEOMETRY);
    let (device, arena) = open(&mut rig);
    std::thread::sleep(Duration::from_millis(20));
    block_on(device.flush()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let begun = Instant::now();
    drop(device);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(is_whole(&arena));
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor's task that is dropped as soon as it is woken, on the thread that wakes it.
#[derive(Default)]
struct DroppedWhenWoken {
    task: Mutex<Option<Task>>,
    woken: AtomicBool,
}

impl Wake for DroppedWhenWoken {
    fn wake(self: Arc<Self>) {
        let task = self.task.lock().unwrap().take();
        drop(task);
        self.woken.store(true, Ordering::Release);
    }
}

#[test]
fn a_waker_may_drop_the_last_clone_on_the_polling_thread() {
    for _ in 0..20 {
        let mut rig = Device::stepped(GEOMETRY);
        let (device, arena) = open(&mut rig);
        let holder = Arc::new(DroppedWhenWoken::default());
        let waker = Waker::from(Arc::clone(&holder));
        let mut task: Task = Box::pin(async move {
            let buffer = device.buffer(4096).unwrap();
            drop(device.append(ZoneId(0), buffer).await);
        });
        assert!(
            task.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        *holder.task.lock().unwrap() = Some(task);
        wait_until("the waker has dropped the device", || {
            rig.step();
            holder.woken.load(Ordering::Acquire)
        });
        wait_until("the thread has ended and reset the device", || {
            is_whole(&arena)
        });
    }
}

/// A waker of an executor that has gone to pieces: it panics the first time.
#[derive(Default)]
struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        let again = self.0.swap(true, Ordering::Relaxed);
        assert!(again, "this waker panics, as the test wants it");
    }
}

#[test]
fn a_waker_that_panics_ends_all_requests_and_hangs_none() {
    let mut rig = Device::stepped(GEOMETRY);
    let (device, arena) = open(&mut rig);
    let append = || -> Pin<Box<dyn Future<Output = _> + '_>> {
        Box::pin(device.append(ZoneId(0), device.buffer(4096).unwrap()))
    };
    let mut first = append();
    let panics = Waker::from(Arc::new(Panics::default()));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&panics))
            .is_pending()
    );
    // Four with slots, and some that wait for one.
    let mut others: Vec<_> = (0..12).map(|_| append()).collect();
    for future in &mut others {
        assert!(poll_once(future).is_none());
    }
    let mut failed = 0;
    let mut ended = 0;
    wait_until("all have ended", || {
        rig.step();
        others.retain_mut(|future| match poll_once(future) {
            None => true,
            Some(end) => {
                ended += 1;
                if let Err(error) = end {
                    assert_eq!(error.kind(), ErrorKind::DeviceGone);
                    failed += 1;
                }
                false
            }
        });
        others.is_empty()
    });
    assert_eq!(ended, 12);
    assert!(failed >= 5, "those without a slot at least: {failed}");
    drop(first);
    drop(others);
    let clone = device.clone();
    in_time(move || {
        let device = clone;
        let buffer = device.buffer(4096).unwrap();
        let error = block_on(device.append(ZoneId(1), buffer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        assert!(error.into_buffer().is_some());
    });
    drop(device);
    wait_until("all memory comes back", || is_whole(&arena));
}

#[test]
fn tasks_that_come_while_the_thread_ends_are_not_forgotten() {
    in_time(|| {
        for _ in 0..40 {
            let mut rig = Device::threaded("store=null,queues=1,queue-size=8,latency=50us");
            let (device, _) = open(&mut rig);
            let threads: Vec<_> = (0..4)
                .map(|zone| {
                    let device = device.clone();
                    std::thread::spawn(move || {
                        loop {
                            let buffer = device.buffer(4096).unwrap();
                            if let Err(error) = block_on(device.append(ZoneId(zone), buffer)) {
                                return error.kind();
                            }
                        }
                    })
                })
                .collect();
            let panics = Waker::from(Arc::new(Panics::default()));
            let mut future = Box::pin(device.flush());
            let mut cx = Context::from_waker(&panics);
            while !threads.iter().all(|thread| thread.is_finished()) {
                if future.as_mut().poll(&mut cx).is_ready() {
                    future = Box::pin(device.flush());
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            for thread in threads {
                assert_eq!(thread.join().unwrap(), ErrorKind::DeviceGone);
            }
        }
    });
}

#[test]
fn queues_that_are_in_use_cannot_be_shared() {
    let mut rig = Device::stepped(GEOMETRY);
    let mut queue = rig.open_queue();
    queue.submit(Request::Flush, 0).unwrap();
    let error = ZonedDevice::from_queues(vec![queue]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let error = ZonedDevice::from_queues(Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}
