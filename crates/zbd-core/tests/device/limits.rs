//! Requests outside the device's limits: refused before the device sees them, and handed back.

use zbd_core::{ErrorKind, Request, Sector, ZoneAction, ZoneId};

use crate::{
    requests::{describe, every_kind},
    rig::Rig,
};

/// Submits what must be refused with `kind` and words that contain `word`.
fn refuse(rig: &mut Rig, request: Request, kind: ErrorKind, word: &str) {
    let before = rig.device.control.counters();
    let same = format!("{request:?}");
    let rejected = rig.queue.submit(request, 0).unwrap_err();
    assert_eq!(rejected.error.kind(), kind, "{same}: {}", rejected.error);
    let words = rejected.error.to_string();
    assert!(words.contains(word), "{same}: {words} has no {word:?}");
    assert_eq!(describe(rejected.request).0, same);
    assert_eq!(rig.queue.in_flight(), 0);
    rig.queue.commit();
    rig.device.step();
    assert!(rig.queue.poll().is_none());
    assert_eq!(rig.device.control.counters(), before, "{same}");
}

fn invalid(rig: &mut Rig, request: Request, word: &str) {
    refuse(rig, request, ErrorKind::InvalidRequest, word);
}

const GEOMETRY: &str = "zones=4,zone-size=1m,zone-cap=512k,conventional=1,max-append=64k";
const END: u64 = 4 * 2048;

#[test]
fn appends_outside_the_limits_are_refused() {
    let mut rig = Rig::stepped(GEOMETRY);
    for (zone, len, word) in [
        (4, 4096, "no zone 4"),
        (u32::MAX, 4096, "no zone"),
        (0, 4096, "conventional"),
        (1, 1, "granularity of 4096"),
        (1, 512, "granularity of 4096"),
        (1, 4095, "granularity of 4096"),
        (1, 4097, "granularity of 4096"),
        (1, 65536 + 4096, "65536"),
        (1, 1 << 20, "65536"),
    ] {
        let request = rig.append(zone, len, 1);
        invalid(&mut rig, request, word);
    }
    // The greatest is allowed.
    let request = rig.append(1, 65536, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(2048));
}

#[test]
fn an_append_larger_than_its_zone_is_refused() {
    let mut rig = Rig::stepped("size=2560k,zone-size=1m,zone-cap=768k,max-append=1m");
    for (zone, len, word) in [
        (0, 768 * 1024 + 4096, "capacity"),
        // The last zone is short.
        (2, 512 * 1024 + 4096, "capacity"),
    ] {
        let request = rig.append(zone, len, 1);
        invalid(&mut rig, request, word);
    }
    let request = rig.append(2, 512 * 1024, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(4096));
}

#[test]
fn reads_and_writes_outside_the_device_or_its_blocks_are_refused() {
    let mut rig = Rig::stepped(GEOMETRY);
    for (at, len, word) in [
        (1, 4096, "whole blocks"),
        (7, 4096, "whole blocks"),
        (0, 1, "whole blocks"),
        (0, 512, "whole blocks"),
        (0, 4097, "whole blocks"),
        (END, 4096, "past the end"),
        (END - 8, 8192, "past the end"),
        (u64::MAX - 7, 4096, "past the end"),
        (u64::MAX, 4096, "whole blocks"),
        (1 << 63, 4096, "past the end"),
        ((u64::MAX / 512) & !7, 4096, "past the end"),
    ] {
        let buffer = rig.filled(len, 1);
        let at = Sector(at);
        invalid(&mut rig, Request::Read { at, buffer }, word);
        let buffer = rig.filled(len, 1);
        invalid(&mut rig, Request::Write { at, buffer }, word);
    }
    assert_eq!(rig.read(END - 8, 4096), [0; 4096]);
}

#[test]
fn reports_without_room_or_past_the_end_are_refused() {
    let mut rig = Rig::stepped(GEOMETRY);
    for (from, len, word) in [
        (0, 1, "128"),
        (0, 127, "128"),
        (END, 128, "past the end"),
        (u64::MAX, 128, "past the end"),
    ] {
        let buffer = rig.filled(len, 1);
        let from = Sector(from);
        invalid(&mut rig, Request::Report { from, buffer }, word);
    }
    let buffer = rig.filled(128, 1);
    let from = Sector(END - 1);
    let done = rig.run(Request::Report { from, buffer });
    let buffer = done.buffer.unwrap();
    let info = rig.queue.info();
    let zones = info.zoned().unwrap().parse_report(ZoneId(3), &buffer);
    assert_eq!(zones.unwrap()[0].start, Sector(3 * 2048));
}

#[test]
fn commands_on_zones_that_do_not_exist_are_refused() {
    let mut rig = Rig::stepped(GEOMETRY);
    for action in [
        ZoneAction::Open,
        ZoneAction::Close,
        ZoneAction::Finish,
        ZoneAction::Reset,
    ] {
        for zone in [ZoneId(4), ZoneId(u32::MAX)] {
            let request = Request::Manage { action, zone };
            invalid(&mut rig, request, "the device has 4");
        }
    }
}

#[test]
fn buffers_of_no_bytes_do_not_exist() {
    let rig = Rig::stepped(GEOMETRY);
    let kind = rig.queue.buffer(0).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::InvalidRequest);
}

#[test]
fn a_plain_disk_takes_no_zone_requests() {
    let mut rig = Rig::stepped("model=none,zones=4,zone-size=1m");
    for request in every_kind(&rig) {
        if !matches!(
            request,
            Request::Read { .. } | Request::Write { .. } | Request::Flush
        ) {
            refuse(&mut rig, request, ErrorKind::Unsupported, "zone");
        }
    }
}

#[test]
fn a_device_without_append_says_so() {
    let mut rig = Rig::stepped("max-append=0,zones=4,zone-size=1m,conventional=1");
    let request = rig.append(1, 4096, 1);
    refuse(
        &mut rig,
        request,
        ErrorKind::Unsupported,
        "max_append_sectors",
    );
    let request = rig.append(9, 4096, 1);
    invalid(&mut rig, request, "no zone 9");
}
