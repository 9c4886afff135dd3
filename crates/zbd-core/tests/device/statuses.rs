//! How a device says no, and what becomes of it.

use zbd_core::{ErrorKind, Request, Sector, ZoneAction, ZoneId};
use zbd_emu::Fault;

use crate::rig::{Rig, pattern};

/// VIRTIO 1.3, 5.2.6.
fn meaning(status: u8) -> Option<ErrorKind> {
    match status {
        0 => None,
        1 => Some(ErrorKind::Medium),
        2 => Some(ErrorKind::Unsupported),
        3 => Some(ErrorKind::InvalidZoneState),
        4 => Some(ErrorKind::UnalignedWritePointer),
        5 => Some(ErrorKind::OpenLimit),
        6 => Some(ErrorKind::ActiveLimit),
        _ => Some(ErrorKind::Protocol),
    }
}

#[test]
fn every_status_of_every_request_is_its_error_and_brings_the_buffer_back() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m,queues=1,queue-size=4");
    let read = |rig: &Rig| Request::Read {
        at: Sector(8),
        buffer: rig.filled(4096, 2),
    };
    for status in 0..=u8::MAX {
        let requests = [
            rig.write(0, 4096, 1),
            read(&rig),
            Request::Flush,
            Request::ResetAll,
            Request::Manage {
                action: ZoneAction::Finish,
                zone: ZoneId(1),
            },
        ];
        for request in requests {
            let words = format!("{request:?}");
            let had_buffer = words.contains("buffer");
            rig.device.control.inject(Fault::Status(status));
            let done = rig.run(request);
            let kind = done.result.as_ref().err().map(|error| error.kind());
            assert_eq!(kind, meaning(status), "{status} for {words}");
            assert_eq!(done.buffer.is_some(), had_buffer, "{status} for {words}");
        }
    }
    assert!(
        rig.report()
            .iter()
            .all(|zone| zone.written().unwrap().0 == 0)
    );
}

#[test]
fn every_status_of_an_append_is_its_error_and_brings_the_buffer_back() {
    let mut rig = Rig::threaded("zones=4,zone-size=1m,queues=1,queue-size=4");
    for status in 0..=u8::MAX {
        rig.device.control.inject(Fault::Status(status));
        let request = rig.append(2, 4096, status.into());
        let done = rig.run(request);
        let kind = done.result.unwrap_err().kind();
        // OK without a place is no success.
        assert_eq!(kind, meaning(status).unwrap_or(ErrorKind::Protocol));
        assert_eq!(done.buffer.unwrap().to_vec(), pattern(status.into(), 4096));
    }
    // None of them did anything, and the queue works on.
    let request = rig.append(2, 4096, 0);
    assert_eq!(rig.run(request).result.unwrap(), Sector(4096));
}

#[test]
fn errors_say_which_request_of_which_device() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m");
    rig.device.control.inject(Fault::Status(1));
    let request = rig.append(3, 4096, 0);
    let error = rig.run(request).result.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("emu:") && words.contains("6144"), "{words}");
}

#[test]
fn an_append_outside_its_zone_is_a_protocol_error_that_names_both() {
    let mut rig = Rig::stepped("zones=8,zone-size=1m,zone-cap=512k");
    // Zone 2 takes appends from sector 4096 to 5120, those of 8 sectors up to 5112.
    for (sector, named) in [
        (4095, "zone 1"),
        (5113, "zone 2"),
        (5120, "zone 2"),
        (6144, "zone 3"),
        (0, "zone 0"),
        (8 * 2048, "no zone"),
        (u64::MAX - 1, "no zone"),
        (u64::MAX, "no zone"),
    ] {
        rig.device.control.inject(Fault::AppendSector(sector));
        let request = rig.append(2, 4096, 0);
        let done = rig.run(request);
        let error = done.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{sector}");
        let words = error.to_string();
        assert!(words.contains("append to zone 2"), "{words}");
        assert!(words.contains(&sector.to_string()), "{words}");
        assert!(words.contains(&format!("in {named}")), "{words}");
        assert_eq!(done.buffer.unwrap().len(), 4096);
    }
    for sector in [4096, 5112] {
        rig.device.control.inject(Fault::AppendSector(sector));
        let request = rig.append(2, 4096, 0);
        assert_eq!(rig.run(request).result.unwrap(), Sector(sector));
    }
}
