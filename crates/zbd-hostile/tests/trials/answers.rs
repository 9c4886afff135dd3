//! Lies of single answers, and of the configuration, that the fuzzer has found to be believed.

use std::sync::Arc;

use zbd_core::{
    Backend, Completion, DmaBuffer, ErrorKind, IoQueue, OpenOptions, Request, Sector, ZoneId,
    ZonedInfo,
};
use zbd_hostile::{Flaw, HostileFunction, Lies, Observer, Script};

/// A device of 4 zones that does not lie until it is told to.
fn open() -> (IoQueue, Observer) {
    let function = HostileFunction::new(&Script::new(&[]), Lies::Nowhere);
    let observer = function.observer();
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let queue = options
        .open_function(Arc::new(function), Backend::Emulated, "honest".into())
        .unwrap()
        .pop();
    (queue.unwrap(), observer)
}

fn run(queue: &mut IoQueue, request: Request) -> Completion {
    queue.submit(request, 0).unwrap();
    queue.commit();
    queue.poll().expect("the device answers at once")
}

fn append(queue: &mut IoQueue) -> Completion {
    let buffer = queue.buffer(512).unwrap();
    let zone = ZoneId(1);
    run(queue, Request::Append { zone, buffer })
}

#[test]
fn an_append_whose_place_is_not_said_does_not_get_that_of_an_earlier_one() {
    let (mut queue, observer) = open();
    assert_eq!(append(&mut queue).result.unwrap(), Sector(64));
    observer.set_flaw(Flaw::NoValue);
    for _ in 0..queue.depth() {
        let error = append(&mut queue).result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    observer.set_flaw(Flaw::None);
    assert_eq!(append(&mut queue).result.unwrap(), Sector(64));
}

#[test]
fn a_report_that_is_not_written_is_not_an_earlier_one() {
    let (mut queue, observer) = open();
    let buffer = queue.buffer(ZonedInfo::report_len(4)).unwrap();
    let from = Sector(0);
    let report = run(&mut queue, Request::Report { from, buffer });
    let buffer = report.buffer.unwrap();
    let zones = |queue: &IoQueue, buffer: &DmaBuffer| {
        let info = Arc::clone(queue.info());
        info.zoned().unwrap().parse_report(ZoneId(0), buffer)
    };
    assert_eq!(zones(&queue, &buffer).unwrap().len(), 4);
    observer.set_flaw(Flaw::NoData);
    let report = run(&mut queue, Request::Report { from, buffer });
    let buffer = report.buffer.unwrap();
    assert_eq!(zones(&queue, &buffer).unwrap(), []);
}

#[test]
fn a_device_cannot_have_zones_without_end() {
    // Of one sector each: 2^32 - 1, which would take 64 GiB to remember.
    let function = HostileFunction::new(&Script::new(&[]), Lies::Nowhere);
    let observer = function.observer();
    for (at, value) in [(0x00, u32::MAX), (0x48, 1)] {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            observer.set_field(at + i, byte);
        }
    }
    let error = OpenOptions::default()
        .open_function(Arc::new(function), Backend::Emulated, "huge".into())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("larger zones"), "{error}");
}
