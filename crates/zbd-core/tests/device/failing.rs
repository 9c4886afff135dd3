//! Devices that go, or break down, with requests in flight.

use vfio_virtio::PciFunction;
use zbd_core::{Completion, ErrorKind, IoQueue, Request, Sector, ZoneId, ZonedDevice};
use zbd_emu::Fault;

use crate::{
    blocking::block_on,
    in_time::in_time,
    requests::every_kind,
    rig::{Device, Rig, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=1,queue-size=8";

/// A queue notices a dead device after so many polls that found nothing.
const POLLS: usize = 2 << 16;

fn next(queue: &mut IoQueue) -> Option<Completion> {
    (0..POLLS).find_map(|_| queue.poll())
}

fn ended(rig: &mut Rig, kind: ErrorKind, remedy: &str) {
    let mut tokens = Vec::new();
    while let Some(done) = next(&mut rig.queue) {
        let error = done.result.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(done.buffer.is_none());
        tokens.push(done.token);
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3, 4]);
    assert_eq!(rig.queue.in_flight(), 0);
    for request in every_kind(rig) {
        let words = format!("{request:?}");
        let rejected = rig.queue.submit(request, 9).unwrap_err();
        assert_eq!(rejected.error.kind(), kind);
        assert_eq!(format!("{:?}", rejected.request), words);
    }
    rig.queue.commit();
    assert!((0..64).all(|_| rig.queue.poll().is_none()));
}

fn in_flight(rig: &mut Rig) {
    for token in 0..5 {
        let request = rig.append(0, 4096, token);
        rig.queue.submit(request, token).unwrap();
        if token == 3 {
            rig.queue.commit();
        }
    }
}

#[test]
fn requests_of_an_unplugged_device_end_as_gone() {
    let mut rig = Rig::stepped(GEOMETRY);
    in_flight(&mut rig);
    rig.device.control.unplug();
    ended(&mut rig, ErrorKind::DeviceGone, "reopen");
    drop(rig);
    let mut rig = Rig::stepped("zones=4,zone-size=1m");
    let request = rig.append(0, 4096, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(0));
}

#[test]
fn an_unplugged_device_is_noticed_by_requests_that_come_later() {
    let mut rig = Rig::threaded(GEOMETRY);
    rig.device.control.unplug();
    in_flight(&mut rig);
    ended(&mut rig, ErrorKind::DeviceGone, "reopen");
}

#[test]
fn requests_of_a_device_that_breaks_down_end_and_say_that_it_needs_a_reset() {
    let mut rig = Rig::stepped(GEOMETRY);
    // A device that cannot reach its rings any more sets DEVICE_NEEDS_RESET.
    let iova = rig.queue.memory().iova();
    rig.device.function.unmap_dma(iova).unwrap();
    in_flight(&mut rig);
    rig.device.step();
    assert!(rig.device.control.broken().is_some());
    ended(&mut rig, ErrorKind::NeedsReset, "reset");
}

#[test]
fn an_unplugged_device_cannot_be_opened() {
    let mut device = Device::stepped("");
    device.control.unplug();
    let error = device.open(crate::rig::open_options()).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::DeviceGone | ErrorKind::Protocol
        ),
        "{error:?}"
    );
}

/// How 32 tasks on 8 slots end when `fail` befalls the device.
fn fail_under_tasks(options: &str, fail: fn(&Device), kind: ErrorKind) {
    let mut device = Device::threaded(options);
    let shared = device.open_shared();
    let before = device.requests();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let buffer = shared.buffer(4096).unwrap();
                let zone = ZoneId(task % 4);
                block_on(shared.append(zone, buffer)).unwrap_err().kind()
            })
        })
        .collect();
    wait_until("all slots are taken", || device.requests() == before + 8);
    fail(&device);
    in_time(move || {
        for task in tasks {
            assert_eq!(task.join().unwrap(), kind);
        }
    });
    in_time(move || {
        let buffer = shared.buffer(4096).unwrap();
        let error = block_on(shared.append(ZoneId(0), buffer)).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(
            error.into_buffer().is_some(),
            "the device has not seen this one"
        );
        let ends = [
            block_on(shared.flush()).unwrap_err().kind(),
            block_on(shared.report(..)).unwrap_err().kind(),
            block_on(shared.reset_all()).unwrap_err().kind(),
        ];
        assert_eq!(ends, [kind; 3]);
        drop(shared);
    });
}

#[test]
fn tasks_that_wait_when_the_device_is_unplugged_all_end() {
    // Opening takes a report, so the latency cannot be endless.
    fail_under_tasks(
        &format!("{GEOMETRY},latency=1s"),
        |device| device.control.unplug(),
        ErrorKind::DeviceGone,
    );
}

#[test]
fn tasks_that_wait_when_the_device_lies_all_end() {
    fail_under_tasks(
        &format!("{GEOMETRY},latency=500ms"),
        |device| device.control.inject(Fault::UsedId(5000)),
        ErrorKind::Protocol,
    );
}

#[test]
fn a_device_gone_while_nothing_is_in_flight_fails_the_next_request() {
    let mut device = Device::threaded("zones=4,zone-size=1m");
    let shared: ZonedDevice = device.open_shared();
    device.control.unplug();
    in_time(move || {
        let error = block_on(shared.flush()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
        let error = block_on(shared.read(Sector(0), 4096)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceGone);
    });
}

#[test]
fn a_request_that_waits_for_its_turn_survives_the_flush_before_it() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m,queues=1,queue-size=4");
    rig.device.control.inject(Fault::Status(1));
    rig.queue.submit(Request::Flush, 0).unwrap();
    let request = rig.append(0, 4096, 1);
    rig.queue.submit(request, 1).unwrap();
    let done = rig.finish();
    assert_eq!(
        done[0].result.as_ref().unwrap_err().kind(),
        ErrorKind::Medium
    );
    assert_eq!(*done[1].result.as_ref().unwrap(), Sector(0));
}
