//! What requests wait for besides slots: zones that the device has resources for, memory, and the
//! end of what is in flight. With both drivers where they differ.

use std::{future::Future, pin::Pin, time::Duration};

use zbd_core::{
    Appended, DeviceEvent, DmaBuffer, Driver, Error, ErrorKind, OpenOptions, Result, Sector,
    ZoneId, ZonedDevice,
};
use zbd_emu::Fault;

use crate::{
    blocking::{block_on, poll_once},
    in_time::{in_time, within},
    rig::{Device, open_options, wait_until},
};

const GEOMETRY: &str = "zones=8,zone-size=64k,queues=1,queue-size=8";

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

fn shared(options: &str) -> (Device, ZonedDevice) {
    let mut rig = Device::threaded(&format!("{GEOMETRY},{options}"));
    let device = rig.open_shared();
    (rig, device)
}

fn append(device: &ZonedDevice, zone: u32) -> Result<Appended> {
    let buffer = device.buffer(4096).unwrap();
    block_on(device.append(ZoneId(zone), buffer))
}

#[track_caller]
fn refused(error: Error, kind: ErrorKind, says: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_eq!(error.into_buffer().map(|buffer| buffer.len()), Some(4096));
}

/// All memory.
fn all<D: Driver>(device: &ZonedDevice<D>) -> Vec<DmaBuffer> {
    std::iter::from_fn(|| device.buffer(4096).ok()).collect()
}

#[test]
fn who_exceeds_the_active_zones_is_told_which_they_are() {
    let (_rig, device) = shared("max-open=2,max-active=2");
    append(&device, 5).unwrap();
    append(&device, 3).unwrap();
    for _ in 0..3 {
        let error = append(&device, 1).unwrap_err();
        refused(
            error,
            ErrorKind::ActiveLimit,
            "and these are: 3, 5; finish or reset",
        );
        append(&device, 3).unwrap();
    }
    let at = Sector(128);
    let error = block_on(device.write(at, device.buffer(4096).unwrap())).unwrap_err();
    refused(error, ErrorKind::ActiveLimit, "zone 1 cannot be written to");
    block_on(device.zone(ZoneId(3)).finish()).unwrap();
    append(&device, 1).unwrap();
    let error = append(&device, 0).unwrap_err();
    refused(error, ErrorKind::ActiveLimit, "and these are: 1, 5;");
    block_on(device.zone(ZoneId(5)).reset()).unwrap();
    block_on(device.write(Sector(0), device.buffer(4096).unwrap())).unwrap();
    // A zone that is written to its end gives up what it held.
    for _ in 1..16 {
        append(&device, 0).unwrap();
    }
    append(&device, 7).unwrap();
    let error = append(&device, 0).unwrap_err();
    refused(error, ErrorKind::InvalidZoneState, "");
    block_on(device.reset_all()).unwrap();
    append(&device, 0).unwrap();
    append(&device, 2).unwrap();
}

#[test]
fn who_exceeds_the_open_zones_is_told_which_they_are() {
    let (_rig, device) = shared("max-open=2,max-active=4");
    block_on(device.zone(ZoneId(6)).open()).unwrap();
    append(&device, 0).unwrap();
    block_on(device.zone(ZoneId(2)).open()).unwrap();
    for zone in [0, 1] {
        let error = append(&device, zone).unwrap_err();
        refused(
            error,
            ErrorKind::OpenLimit,
            "explicitly open: 2, 6; close, finish or reset",
        );
    }
    let error = block_on(device.zone(ZoneId(1)).open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OpenLimit);
    assert!(error.to_string().contains("open: 2, 6;"), "{error}");
    append(&device, 6).unwrap();
    block_on(device.zone(ZoneId(6)).close()).unwrap();
    append(&device, 0).unwrap();
    append(&device, 1).unwrap();
}

#[test]
fn those_who_reserve_zones_get_them_in_their_order() {
    let (_rig, device) = shared("max-open=1,max-active=1");
    let zone = |zone| device.zone(ZoneId(zone));
    append(&device, 0).unwrap();
    let mut first: Boxed<'_, _> = Box::pin(zone(1).reserve());
    let mut gives_up: Boxed<'_, _> = Box::pin(zone(2).reserve());
    let mut second: Boxed<'_, _> = Box::pin(zone(3).reserve());
    let mut third: Boxed<'_, _> = Box::pin(zone(4).reserve());
    let waits = |future: &mut Boxed<'_, _>| {
        for _ in 0..20 {
            assert!(poll_once(future).is_none());
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    for future in [&mut first, &mut gives_up, &mut second, &mut third] {
        waits(future);
    }
    block_on(zone(0).finish()).unwrap();
    waits(&mut second);
    in_time_on_this_thread("the first", &mut first).unwrap();
    drop(gives_up);
    // The first has not written yet, and yet holds what it was given.
    waits(&mut second);
    append(&device, 1).unwrap();
    waits(&mut second);
    block_on(zone(1).reset()).unwrap();
    in_time_on_this_thread("the second", &mut second).unwrap();
    waits(&mut third);
    for _ in 0..16 {
        append(&device, 3).unwrap();
    }
    in_time_on_this_thread("the third", &mut third).unwrap();
    append(&device, 4).unwrap();
    assert!(block_on(zone(4).reserve()).is_ok(), "it is held already");
}

fn in_time_on_this_thread<T>(what: &str, future: &mut Boxed<'_, T>) -> T {
    let mut end = None;
    wait_until(what, || {
        end = poll_once(future);
        end.is_some()
    });
    end.unwrap()
}

#[test]
fn a_reserved_zone_is_in_the_way_of_others_until_it_is_given_up() {
    let (_rig, device) = shared("max-open=1,max-active=1");
    block_on(device.zone(ZoneId(2)).reserve()).unwrap();
    for zone in [0, 1] {
        let error = append(&device, zone).unwrap_err();
        refused(error, ErrorKind::ActiveLimit, "and these are: 2;");
    }
    append(&device, 2).unwrap();
    block_on(device.zone(ZoneId(2)).reset()).unwrap();
    append(&device, 0).unwrap();
    block_on(device.reset_all()).unwrap();
    block_on(device.zone(ZoneId(3)).reserve()).unwrap();
    // Nothing was written to it; nevertheless this ends what was reserved.
    block_on(device.zone(ZoneId(3)).reset()).unwrap();
    append(&device, 4).unwrap();
}

#[test]
fn a_barrier_ends_when_what_was_dropped_has_landed() {
    let (rig, device) = shared("");
    rig.control.hold();
    let before = rig.requests();
    let append = |zone| device.append(ZoneId(zone), device.buffer(4096).unwrap());
    for zone in [1, 2, 1, 1] {
        let mut dropped: Boxed<'_, _> = Box::pin(append(zone));
        assert!(poll_once(&mut dropped).is_none());
    }
    wait_until("the device has them", || rig.requests() == before + 4);
    let mut barriers: Vec<Boxed<'_, Result<Option<Sector>>>> = [1, 2]
        .map(|zone| {
            Box::pin(device.zone(ZoneId(zone)).barrier()) as Boxed<'_, Result<Option<Sector>>>
        })
        .into();
    for _ in 0..20 {
        for barrier in &mut barriers {
            assert!(poll_once(barrier).is_none());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(rig.requests(), before + 4, "zones are reported too early");
    rig.control.release();
    let ends = barriers
        .iter_mut()
        .map(|barrier| in_time_on_this_thread("a barrier", barrier).unwrap());
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends, [Some(Sector(128 + 24)), Some(Sector(256 + 8))]);
    // What is refused before it is sent, fails, or is not there, is not waited for.
    let short = device.buffer(512).unwrap();
    block_on(device.append(ZoneId(1), short)).unwrap_err();
    rig.control.inject(Fault::Status(1));
    block_on(append(1)).unwrap_err();
    for zone in [1, 7] {
        block_on(device.zone(ZoneId(zone)).barrier()).unwrap();
    }
    let error = block_on(device.zone(ZoneId(8)).barrier()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

/// With and without requests that wait for slots of such whose time was up. That the device has gone is
/// seen within a second or so, which the second of these would not if only polls were counted.
#[test]
fn barriers_and_requests_on_a_device_that_goes_end() {
    within(Duration::from_secs(10), || {
        for has_backlog in [false, true] {
            let (rig, device) = shared("");
            rig.control.hold();
            let timed = device.with_timeout(Some(Duration::from_millis(1)));
            let append = |device: &ZonedDevice| {
                let device = device.clone();
                async move {
                    let buffer = device.wait_for_buffer(4096).await.unwrap();
                    device.append(ZoneId(1), buffer).await
                }
            };
            for _ in 0..8 {
                let mut first: Boxed<'_, _> = Box::pin(append(&timed));
                match has_backlog {
                    true => {
                        let error = block_on(first).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Timeout);
                    }
                    false => assert!(poll_once(&mut first).is_none()),
                }
            }
            let mut waiting: Boxed<'_, _> = Box::pin(append(&device));
            assert!(poll_once(&mut waiting).is_none());
            for _ in 0..3 {
                let mut dropped: Boxed<'_, _> = Box::pin(append(&device));
                assert!(poll_once(&mut dropped).is_none());
            }
            let mut barrier: Boxed<'_, _> = Box::pin(device.zone(ZoneId(1)).barrier());
            assert!(poll_once(&mut barrier).is_none() || !has_backlog);
            std::thread::sleep(Duration::from_millis(2));
            rig.control.unplug();
            let error = block_on(waiting).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceGone);
            // What the device was never shown is not lost with it.
            assert!(error.into_buffer().is_some());
            let error = block_on(barrier).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceGone);
        }
    });
}

#[test]
fn requests_that_a_local_device_has_no_slot_for_end_when_it_goes() {
    let mut rig = Device::threaded(GEOMETRY);
    let queue = rig.open(open_options()).unwrap().pop().unwrap();
    let device = ZonedDevice::from_queue(queue).unwrap();
    rig.control.hold();
    let timed = device.with_timeout(Some(Duration::from_millis(1)));
    for device in [&timed, &device] {
        let mut ends: Vec<Boxed<'_, Result<Appended>>> = (0..8)
            .map(|_| device.append(ZoneId(1), device.buffer(4096).unwrap()))
            .map(|end| Box::pin(end) as Boxed<'_, Result<Appended>>)
            .collect();
        let mut kinds = Vec::new();
        let mut turn = || {
            ends.retain_mut(|end| {
                let end = poll_once(end);
                let is_pending = end.is_none();
                kinds.extend(end.map(|end| end.unwrap_err().kind()));
                is_pending
            });
            device.drive();
            ends.is_empty()
        };
        if device.buffer(4096).is_ok() && !std::ptr::eq(device, &timed) {
            assert!(!turn());
            rig.control.unplug();
        }
        wait_until("all end", turn);
        let kind = match std::ptr::eq(device, &timed) {
            true => ErrorKind::Timeout,
            false => ErrorKind::DeviceGone,
        };
        assert_eq!(kinds, [kind; 8]);
    }
}

#[test]
fn those_who_wait_for_memory_get_it_in_their_order() {
    let (_rig, device) = shared("");
    let mut held = all(&device);
    assert_eq!(
        device.buffer(4096).unwrap_err().kind(),
        ErrorKind::OutOfMemory
    );
    let wait = |len| Box::pin(device.wait_for_buffer(len)) as Boxed<'_, Result<DmaBuffer>>;
    let [mut first, mut gives_up, mut second, mut third] = [8192, 4096, 4096, 4096].map(wait);
    for future in [&mut first, &mut gives_up, &mut second, &mut third] {
        assert!(poll_once(future).is_none());
    }
    // One page is not enough for the first, and not for those behind it.
    drop(held.remove(0));
    for future in [&mut second, &mut third, &mut first, &mut gives_up] {
        assert!(poll_once(future).is_none());
    }
    drop(gives_up);
    drop(held.remove(0));
    let pair = poll_once(&mut first).unwrap().unwrap();
    assert!(poll_once(&mut third).is_none());
    assert!(poll_once(&mut second).is_none());
    drop(first);
    drop(held.remove(0));
    assert!(poll_once(&mut third).is_none());
    let page = poll_once(&mut second).unwrap().unwrap();
    assert!(poll_once(&mut third).is_none());
    drop((pair, page));
    assert!(poll_once(&mut third).unwrap().is_ok());
    drop(held);
    let too_much = device.memory().contiguous_len();
    let never = block_on(device.wait_for_buffer(2 * too_much)).unwrap_err();
    assert_eq!(never.kind(), ErrorKind::OutOfMemory);
}

#[test]
fn what_cannot_be_begun_at_once_comes_back_with_its_buffer() {
    let (rig, device) = shared("max-open=2,max-active=2");
    let page = || device.buffer(4096).unwrap();
    for zone in [1, 4] {
        block_on(device.try_append(ZoneId(zone), page()).unwrap()).unwrap();
    }
    let error = device.try_append(ZoneId(0), page()).err().unwrap();
    refused(error, ErrorKind::ActiveLimit, "and these are: 1, 4;");
    // From now on the device would have to be asked.
    let error = device.try_append(ZoneId(0), page()).err().unwrap();
    refused(error, ErrorKind::QueueFull, "use the waiting form");
    let error = device.try_write(Sector(0), page()).err().unwrap();
    refused(error, ErrorKind::QueueFull, "use the waiting form");
    // Those that are admitted are not asked about.
    let end = device.try_write(Sector(128 + 8), page()).unwrap();
    block_on(end).unwrap();
    rig.control.hold();
    let held: Vec<_> = (0..8)
        .map(|_| device.try_append(ZoneId(1), page()).unwrap())
        .collect();
    let errors = [
        device.try_append(ZoneId(4), page()).err().unwrap(),
        device.try_write(Sector(4 * 128 + 8), page()).err().unwrap(),
        device.try_read_into(Sector(0), page()).err().unwrap(),
    ];
    for error in errors {
        refused(error, ErrorKind::QueueFull, "wait for a slot");
    }
    rig.control.release();
    for end in held {
        block_on(end).unwrap();
    }
}

/// Whichever lane it is whose turn has come.
#[test]
fn a_slot_of_any_lane_will_do() {
    in_time(|| {
        let mut rig = Device::threaded("zones=8,zone-size=64k,queues=2,queue-size=8");
        let options = OpenOptions {
            queues: 2,
            ..open_options()
        };
        let device = ZonedDevice::from_queues(rig.open(options).unwrap()).unwrap();
        let begin = || device.try_read_into(Sector(0), device.buffer(4096).unwrap());
        let mut ends: Vec<_> = std::iter::from_fn(|| begin().ok()).collect();
        let slots = ends.len();
        for _ in 0..5 {
            // They were begun on the lanes in turn: these are of one.
            for at in [2, 0] {
                block_on(ends.remove(at)).unwrap();
            }
            // What is awaited finds one of them, and so does what is tried.
            block_on(device.read(Sector(0), 4096)).unwrap();
            ends.extend([begin().unwrap(), begin().unwrap()]);
            assert_eq!(ends.len(), slots);
            refused(
                begin().err().unwrap(),
                ErrorKind::QueueFull,
                "wait for a slot",
            );
        }
    });
}

#[test]
fn an_append_that_exceeds_the_greatest_is_refused_with_the_limit() {
    for limits in ["", ",max-open=2,max-active=2"] {
        let (rig, device) = shared(&format!("max-append=8k{limits}"));
        let before = rig.requests();
        for is_try in [true, false] {
            let buffer = device.buffer(12288).unwrap();
            let done = match is_try {
                false => block_on(device.append(ZoneId(0), buffer)),
                true => block_on(device.try_append(ZoneId(0), buffer).unwrap()),
            };
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            let text = error.to_string();
            assert!(text.contains("greatest of 8192 bytes"), "{text}");
            assert_eq!(error.into_buffer().unwrap().len(), 12288);
            assert_eq!(rig.requests(), before);
        }
    }
}

/// A request that is not sent changes nothing, so that nobody has to ask the device what it did: not
/// where its zone is written to already, and not where it is not, which takes nothing from others.
#[test]
fn what_is_refused_before_it_is_sent_leaves_the_accounts_alone() {
    in_time(|| {
        let (rig, device) = shared("max-open=2,max-active=2");
        leaves_the_accounts_alone(&rig, &device, || {});
        let mut rig = Device::threaded(&format!("{GEOMETRY},max-open=2,max-active=2"));
        let queue = rig.open(open_options()).unwrap().pop().unwrap();
        let device = ZonedDevice::from_queue(queue).unwrap();
        leaves_the_accounts_alone(&rig, &device, || {
            device.drive();
        });
    });
}

fn leaves_the_accounts_alone<D: Driver>(rig: &Device, device: &ZonedDevice<D>, turn: impl Fn()) {
    let run = |mut end: Boxed<'_, Result<Appended>>| {
        let mut done = None;
        wait_until("an append", || {
            done = poll_once(&mut end);
            turn();
            done.is_some()
        });
        done.unwrap()
    };
    let buffer = |len| device.buffer(len).unwrap();
    run(Box::pin(device.append(ZoneId(1), buffer(4096)))).unwrap();
    let before = rig.requests();
    // The second zone is the last that can be had.
    for zone in [1, 2, 3, 4, 2] {
        for is_try in [false, true] {
            let end: Boxed<'_, _> = match is_try {
                false => Box::pin(device.append(ZoneId(zone), buffer(100))),
                true => Box::pin(device.try_append(ZoneId(zone), buffer(100)).unwrap()),
            };
            let error = run(end).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        }
    }
    assert_eq!(rig.requests(), before, "the device was asked");
    for (zone, count) in [(1, 1), (5, 2)] {
        let end = device.try_append(ZoneId(zone), buffer(4096)).unwrap();
        run(Box::pin(end)).unwrap();
        assert_eq!(rig.requests(), before + count);
    }
}

/// Whoever holds all of the memory in buffers that are to be written gets errors, not silence: an
/// error is not explained then, and the device is not asked what is open.
#[test]
fn appends_that_hold_all_memory_end() {
    in_time(|| {
        let (_rig, device) = shared("max-open=2,max-active=2");
        for _ in 0..16 {
            append(&device, 0).unwrap();
        }
        // What is open is not known any more.
        append(&device, 1).unwrap();
        block_on(device.zone(ZoneId(1)).close()).unwrap();
        append(&device, 2).unwrap();
        block_on(device.zone(ZoneId(2)).close()).unwrap();
        let mut held = all(&device);
        let at = block_on(device.append(ZoneId(1), held.pop().unwrap())).unwrap();
        held.push(at.buffer);
        let error = block_on(device.append(ZoneId(0), held.pop().unwrap())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidZoneState);
        held.push(error.into_buffer().unwrap());
        let error = block_on(device.append(ZoneId(3), held.pop().unwrap())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ActiveLimit, "{error}");
    });
}

#[test]
fn whoever_listens_hears_what_the_device_announces() {
    let (rig, device) = shared("max-open=2,max-active=2");
    let (mut events, mut late) = (device.events(), device.events());
    block_on(device.recover()).unwrap();
    assert_eq!(block_on(events.next()), Some(DeviceEvent::Reset));
    // More than are kept.
    for _ in 0..30 {
        block_on(device.recover()).unwrap();
    }
    rig.control.unplug();
    append(&device, 0).unwrap_err();
    for events in [&mut events, &mut late] {
        let mut count = 0;
        let last = loop {
            match block_on(events.next()) {
                Some(DeviceEvent::Reset) => count += 1,
                other => break other,
            }
        };
        assert_eq!(last, Some(DeviceEvent::Gone));
        // The request can end before the announcement is there.
        assert!((15..=16).contains(&count), "{count}");
    }
    drop(device);
    assert_eq!(block_on(events.next()), None);
}
