//! Devices that break the rules of the ring.

use zbd_core::{ErrorKind, IoQueue, Request, Sector};
use zbd_emu::{Fault, ZoneState};

use crate::{
    requests::{describe, every_kind},
    rig::{Device, Rig, merged, pattern},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=1,queue-size=16";

/// Takes all that comes within more polls than there can be completions, and counts what failed.
fn end_all(queue: &mut IoQueue, tokens: std::ops::Range<u64>) -> usize {
    let mut ended = Vec::new();
    let mut failed = 0;
    for _ in 0..64 {
        let Some(done) = queue.poll() else { continue };
        ended.push(done.token);
        if let Err(error) = done.result {
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
            assert!(done.buffer.is_none(), "the device may still be using it");
            failed += 1;
        } else {
            assert_eq!(failed, 0, "nothing is believed after the first lie");
        }
    }
    ended.sort_unstable();
    assert!(
        ended.into_iter().eq(tokens),
        "each request ends exactly once"
    );
    assert_eq!(queue.in_flight(), 0);
    failed
}

/// Nothing can be done any more, and nothing is taken away.
fn refuses_all(rig: &mut Rig, kind: ErrorKind) {
    for request in every_kind(rig) {
        let words = format!("{request:?}");
        let rejected = rig.queue.submit(request, 7).unwrap_err();
        assert_eq!(rejected.error.kind(), kind, "{words}: {}", rejected.error);
        assert!(!rejected.error.to_string().is_empty());
        assert_eq!(describe(rejected.request).0, words);
    }
    rig.queue.commit();
    rig.device.step();
    assert_eq!(rig.queue.in_flight(), 0);
    assert!((0..64).all(|_| rig.queue.poll().is_none()));
}

/// A reset brings back all memory, and the device works again.
fn works_after_reopening(mut rig: Rig) {
    let arena = rig.queue.memory().clone();
    drop(rig.queue);
    assert!(
        arena.allocate(arena.len_bytes()).is_ok(),
        "all buffers came back"
    );
    drop(arena);
    rig.queue = rig.device.open_queue();
    let request = rig.append(3, 4096, 42);
    let at = rig.run(request).result.unwrap();
    assert_eq!(rig.read(at.0, 4096), pattern(42, 4096));
}

/// Four requests end well, then the device lies about the next of six, two of which it has not
/// been shown.
fn lie(fault: Fault) {
    lie_on("", fault);
}

fn lie_on(more: &str, fault: Fault) {
    let mut rig = Rig::stepped(&merged(GEOMETRY, more));
    for token in 0..4 {
        let request = rig.append(0, 4096, token);
        rig.queue.submit(request, token).unwrap();
    }
    rig.queue.commit();
    rig.device.step();
    rig.device.control.inject(fault);
    for token in 4..10 {
        let request = match token {
            6 => Request::Flush,
            7 => Request::Read {
                at: Sector(0),
                buffer: rig.filled(4096, token),
            },
            _ => rig.append(0, 4096, token),
        };
        rig.queue.submit(request, token).unwrap();
        if token == 7 {
            rig.queue.commit();
        }
    }
    rig.device.step();
    let failed = end_all(&mut rig.queue, 0..10);
    assert!(failed >= 6, "{fault:?}: {failed}");
    refuses_all(&mut rig, ErrorKind::Protocol);
    works_after_reopening(rig);
}

#[test]
fn an_id_that_is_not_in_flight_ends_the_queue() {
    // Beyond the slots, beyond 16 bits, a slot that is free, and two not yet shown to the device.
    for id in [16, 17, 255, 65535, 65536, 1 << 31, u32::MAX, 15, 8, 9] {
        // In order, 9 is a lie of another kind: see `packed`.
        lie_on("in-order=off", Fault::UsedId(id));
    }
}

#[test]
fn a_length_beyond_the_room_ends_the_queue() {
    // The first request lied about is an append, whose answer has 9 bytes.
    for len in [10, 4096, 65536, 1 << 31, u32::MAX] {
        lie(Fault::UsedLen(len));
    }
}

#[test]
fn an_index_that_jumps_ends_the_queue() {
    for by in [5, 16, 17, 0x7fff, 0x8000, 0xfff0] {
        // A packed ring has no index.
        lie_on("ring=split,indirect=on", Fault::UsedIndexJump(by));
    }
}

#[test]
fn the_greatest_lengths_that_are_true_are_believed() {
    let mut rig = Rig::stepped(GEOMETRY);
    rig.device.control.inject(Fault::UsedLen(9));
    let request = rig.append(0, 4096, 1);
    assert!(rig.run(request).result.is_ok());
    rig.device.control.inject(Fault::UsedLen(4097));
    assert_eq!(rig.read(0, 4096), pattern(1, 4096));
    rig.device.control.inject(Fault::UsedLen(1));
    assert!(rig.run(Request::Flush).result.is_ok());
}

#[test]
fn lengths_of_requests_without_data_are_checked_too() {
    for len in [2, 9, 10] {
        let mut rig = Rig::stepped(GEOMETRY);
        rig.device.control.inject(Fault::UsedLen(len));
        rig.queue.submit(Request::Flush, 0).unwrap();
        rig.queue.commit();
        rig.device.step();
        assert_eq!(end_all(&mut rig.queue, 0..1), 1, "{len}");
    }
}

#[test]
fn a_stray_append_ends_as_an_error_and_the_queue_goes_on() {
    let mut rig = Rig::stepped(GEOMETRY);
    rig.device.control.inject(Fault::AppendSector(2048));
    let request = rig.append(0, 4096, 1);
    let done = rig.run(request);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Protocol);
    // The device has returned it: the buffer is the caller's again.
    assert_eq!(done.buffer.unwrap().to_vec(), pattern(1, 4096));
    let request = rig.append(0, 4096, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(8));
}

#[test]
fn an_append_inside_its_zone_but_inside_a_block_is_an_error() {
    let mut rig = Rig::stepped(GEOMETRY);
    rig.device.control.inject(Fault::AppendSector(1));
    let request = rig.append(0, 4096, 1);
    let done = rig.run(request);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn what_was_not_committed_when_the_device_lied_is_never_carried_out() {
    let mut rig = Rig::stepped(GEOMETRY);
    rig.device.control.inject(Fault::UsedId(77));
    rig.queue.submit(Request::Flush, 0).unwrap();
    rig.queue.commit();
    rig.device.step();
    let request = rig.append(2, 4096, 1);
    rig.queue.submit(request, 1).unwrap();
    assert_eq!(end_all(&mut rig.queue, 0..2), 2);
    // Its end has been reported: a later commit must not bring it about.
    let before = rig.device.requests();
    rig.queue.commit();
    rig.device.step();
    assert_eq!(rig.device.requests(), before);
    assert_eq!(rig.device.control.zone_state(2), Some(ZoneState::Empty));
}

#[test]
fn one_queue_that_is_lied_to_leaves_the_other_working() {
    let mut device = Device::stepped("zones=4,zone-size=1m,queues=2");
    let options = zbd_core::OpenOptions {
        queues: 2,
        ..crate::rig::open_options()
    };
    let mut queues = device.open(options).unwrap();
    let mut other = queues.pop().unwrap();
    let mut rig = Rig {
        queue: queues.pop().unwrap(),
        device,
    };
    rig.device.control.inject(Fault::UsedId(9999));
    rig.queue.submit(Request::Flush, 0).unwrap();
    rig.queue.commit();
    rig.device.step();
    assert_eq!(end_all(&mut rig.queue, 0..1), 1);
    refuses_all(&mut rig, ErrorKind::Protocol);
    std::mem::swap(&mut rig.queue, &mut other);
    let request = rig.append(1, 4096, 3);
    assert_eq!(rig.run(request).result.unwrap(), Sector(2048));
    // Memory of the broken one stays away until both are gone.
    let arena = rig.queue.memory().clone();
    drop(other);
    let request = rig.append(1, 4096, 3);
    assert!(rig.run(request).result.is_ok());
    drop(rig.queue);
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}
