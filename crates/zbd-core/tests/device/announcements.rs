//! What a device and its platform announce.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use zbd_core::{
    DeviceEvent, ErrorKind, OpenOptions, Request, Sector, SectorCount, ZoneId, ZonedDevice,
};

use crate::{
    blocking::block_on,
    in_time::PATIENCE,
    in_time::in_time,
    rig::{Device, Rig, open_options, wait_until},
};

const PLAIN: &str = "model=none,zones=4,zone-size=1m,queues=2";
const ZONED: &str = "zones=4,zone-size=1m,queues=2";

/// The next event, which polling finds.
fn event(rig: &mut Rig) -> DeviceEvent {
    let begun = Instant::now();
    loop {
        assert!(rig.queue.poll().is_none());
        if let Some(event) = rig.queue.next_event() {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is announced");
        thread::yield_now();
    }
}

#[test]
fn a_plain_device_is_used_with_its_new_size() {
    let mut rig = Rig::threaded(PLAIN);
    let before = SectorCount(8192);
    for now in [16384, 8192, 4096].map(SectorCount) {
        let old = rig.queue.info().capacity;
        rig.device.control.resize(now.0).unwrap();
        assert_eq!(event(&mut rig), DeviceEvent::Resized { before: old, now });
        assert_eq!(rig.queue.info().capacity, now);
        assert!(rig.queue.next_event().is_none());
        rig.read(now.0 - 8, 4096);
        let buffer = rig.queue.buffer(4096).unwrap();
        let at = Sector(now.0);
        let rejected = rig
            .queue
            .submit(Request::Read { at, buffer }, 1)
            .unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
        assert!(rejected.error.to_string().contains("past the end"));
    }
    rig.device.control.resize(4096).unwrap();
    assert_eq!(event(&mut rig), DeviceEvent::ConfigChanged);
    rig.device.control.resize(before.0).unwrap();
    event(&mut rig);
}

#[test]
fn a_shared_device_is_used_with_its_new_size() {
    let mut device = Device::threaded(PLAIN);
    let options = OpenOptions {
        queues: 2,
        ..open_options()
    };
    let shared = ZonedDevice::from_queues(device.open(options).unwrap()).unwrap();
    let mut events = shared.events();
    device.control.resize(16384).unwrap();
    let expected = DeviceEvent::Resized {
        before: SectorCount(8192),
        now: SectorCount(16384),
    };
    in_time(move || {
        assert_eq!(block_on(events.next()), Some(expected));
        assert_eq!(shared.info().capacity, SectorCount(16384));
        // On either queue.
        wait_until("both know", || {
            (0..4).all(|_| block_on(shared.read(Sector(16376), 4096)).is_ok())
        });
        drop(shared);
        assert_eq!(block_on(events.next()), None);
    });
}

#[test]
fn a_device_that_fails_says_so_and_a_reset_is_announced() {
    let mut rig = Rig::threaded(ZONED);
    rig.device.control.needs_reset();
    assert_eq!(event(&mut rig), DeviceEvent::Failed);
    rig.queue.recover().unwrap();
    assert_eq!(event(&mut rig), DeviceEvent::Reset);
}

#[test]
fn a_function_that_is_wanted_back_or_broken_ends_what_is_in_flight() {
    for is_release in [true, false] {
        let mut rig = Rig::threaded(ZONED);
        rig.device.control.hold();
        let request = rig.append(0, 4096, 1);
        rig.queue.submit(request, 5).unwrap();
        rig.queue.commit();
        let begun = Instant::now();
        assert!(match is_release {
            true => rig.device.control.request_release(),
            false => rig.device.control.bus_error(),
        });
        let done = loop {
            match rig.queue.poll() {
                Some(done) => break done,
                None => assert!(begun.elapsed() < PATIENCE),
            }
        };
        let error = done.result.unwrap_err();
        assert_eq!((done.token, error.kind()), (5, ErrorKind::DeviceGone));
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(rig.queue.next_event(), Some(DeviceEvent::Gone));
        assert!(rig.queue.is_gone().is_some());
        let rejected = rig.queue.submit(Request::Flush, 1).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::DeviceGone);
    }
}

#[test]
fn an_idle_device_that_is_wanted_back_is_closed_under_its_users() {
    for queues in [1, 2] {
        let mut device = Device::threaded(ZONED);
        let options = OpenOptions {
            queues,
            ..open_options()
        };
        let shared = ZonedDevice::from_queues(device.open(options).unwrap()).unwrap();
        let mut events = shared.events();
        // Its threads sleep by then.
        thread::sleep(Duration::from_millis(20));
        assert!(Arc::strong_count(&device.function) > 1);
        device.control.request_release();
        wait_until("nobody holds the function", || {
            Arc::strong_count(&device.function) == 1
        });
        in_time(move || {
            assert_eq!(block_on(events.next()), Some(DeviceEvent::Gone));
            let buffer = shared.buffer(4096).unwrap();
            let error = block_on(shared.append(ZoneId(0), buffer)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceGone);
            assert!(error.to_string().contains("reopen"), "{error}");
            assert!(error.into_buffer().is_some());
            let error = block_on(shared.recover()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceGone);
        });
        // It can be opened again.
        let shared = device.open_shared();
        in_time(move || block_on(shared.flush()).unwrap());
    }
}

#[test]
fn a_busy_device_that_is_wanted_back_is_closed_under_its_users() {
    let mut device = Device::threaded(ZONED);
    let shared = device.open_shared();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                loop {
                    if let Err(error) = block_on(shared.read(Sector(0), 4096)) {
                        return error.kind();
                    }
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    device.control.request_release();
    in_time(move || {
        for task in tasks {
            assert_eq!(task.join().unwrap(), ErrorKind::DeviceGone);
        }
    });
    wait_until("nobody holds the function", || {
        Arc::strong_count(&device.function) == 1
    });
    drop(shared);
}

#[test]
fn a_queue_that_is_always_busy_hears_of_it() {
    let mut rig = Rig::stepped(ZONED);
    assert!(rig.device.control.request_release());
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it does not hear");
        if let Err(rejected) = rig.queue.submit(Request::Flush, 1) {
            assert_eq!(rejected.error.kind(), ErrorKind::DeviceGone);
            return;
        }
        rig.queue.commit();
        rig.device.step();
        // No poll finds nothing.
        assert!(rig.queue.poll().is_some());
    }
}
