//! Discard, write zeroes and secure erase: limits, completion, and ranges longer than a request.

use zbd_core::{ErrorKind, Request, Sector, SectorCount, Unmap, ZonedDevice};
use zbd_emu::Fault;

use crate::{
    blocking::block_on,
    configuration::{
        DISCARD, LIFETIME, MAX_DISCARD, MAX_ERASE, MAX_ZEROES, MAY_UNMAP, SECURE_ERASE,
        WRITE_ZEROES, refusal,
    },
    disguise::Disguise,
    rig::{Rig, free_pages},
};

/// A disk of 8192 sectors: discards of 1000 sectors in units of 16, zeroes of 100 sectors, erasures
/// of 256 in units of 64.
fn ranged(options: &str) -> Rig {
    Disguise::offering(&[DISCARD, WRITE_ZEROES, SECURE_ERASE, LIFETIME])
        .le32(MAX_DISCARD, 1000)
        .le32(MAX_DISCARD + 4, 1)
        .le32(MAX_DISCARD + 8, 16)
        .le32(MAX_ZEROES, 100)
        .le32(MAX_ZEROES + 4, 1)
        .byte(MAY_UNMAP, 1)
        .le32(MAX_ERASE, 256)
        .le32(MAX_ERASE + 4, 1)
        .le32(MAX_ERASE + 8, 64)
        .rig(options)
}

const DISK: &str = "model=none,zones=4,zone-size=1m,queue-size=8";

fn discard(at: u64, len: u64) -> Request {
    Request::Discard {
        at: Sector(at),
        len: SectorCount(len),
    }
}

fn zeroes(at: u64, len: u64) -> Request {
    Request::WriteZeroes {
        at: Sector(at),
        len: SectorCount(len),
        unmap: Unmap::Allow,
    }
}

fn erase(at: u64, len: u64) -> Request {
    Request::SecureErase {
        at: Sector(at),
        len: SectorCount(len),
    }
}

fn every_range(rig: &Rig) -> Vec<Request> {
    let empty = |len| {
        let mut buffer = rig.queue.buffer(len).unwrap();
        buffer.fill(0);
        buffer
    };
    vec![
        discard(16, 32),
        zeroes(8, 24),
        Request::WriteZeroes {
            at: Sector(0),
            len: SectorCount(8),
            unmap: Unmap::Keep,
        },
        erase(64, 128),
        Request::GetId {
            buffer: empty(Request::ID_LEN),
        },
        Request::GetLifetime {
            buffer: empty(Request::LIFETIME_LEN),
        },
    ]
}

fn sector(request: &Request) -> Sector {
    match request {
        Request::Discard { at, .. }
        | Request::WriteZeroes { at, .. }
        | Request::SecureErase { at, .. } => *at,
        _ => Sector(0),
    }
}

#[test]
fn ranges_outside_the_limits_are_refused() {
    let mut rig = ranged(DISK);
    for (request, word) in [
        (discard(0, 0), "nothing"),
        (discard(8, 16), "multiples of 16"),
        (discard(8, 24), "multiples of 16"),
        (discard(0, 8), "multiples of 16"),
        (discard(16, 24), "multiples of 16"),
        (discard(0, 1008), "greatest of 1000"),
        (discard(8192, 16), "past the end"),
        (discard(8176, 32), "past the end"),
        (discard(u64::MAX - 15, 16), "past the end"),
        (discard(16, u64::MAX), "past the end"),
        (discard(1 << 63, 16), "past the end"),
        (zeroes(0, 0), "nothing"),
        (zeroes(1, 8), "multiples of 8"),
        (zeroes(1, 7), "multiples of 8"),
        (zeroes(0, 9), "multiples of 8"),
        (zeroes(0, 104), "greatest of 100"),
        (zeroes(8192, 8), "past the end"),
        (erase(0, 8), "multiples of 64"),
        (erase(8, 64), "multiples of 64"),
        (erase(8, 56), "multiples of 64"),
        (erase(0, 320), "greatest of 256"),
        (erase(0, 1 << 40), "past the end"),
    ] {
        let same = format!("{request:?}");
        let (kind, words) = refusal(&mut rig, request);
        assert_eq!(kind, ErrorKind::InvalidRequest, "{same}: {words}");
        assert!(words.contains(word), "{same}: {words}");
    }
}

#[test]
fn a_range_may_end_with_the_device_instead_of_a_multiple() {
    // 4 MiB and 4 KiB.
    let mut rig = ranged("model=none,size=4100k,zone-size=1m,queue-size=8");
    for request in [discard(8192, 8), discard(8176, 24), erase(8192, 8)] {
        rig.device.control.inject(Fault::Status(0));
        let at = sector(&request);
        assert_eq!(rig.run(request).result.unwrap(), at);
    }
    let (kind, _) = refusal(&mut rig, discard(8176, 8));
    assert_eq!(kind, ErrorKind::InvalidRequest);
}

#[test]
fn a_device_that_offers_none_of_it_is_asked_for_none() {
    const ALL: &[u32] = &[DISCARD, WRITE_ZEROES, SECURE_ERASE, LIFETIME];
    let mut rig = Disguise::default().hiding(ALL).rig(DISK);
    for (request, word) in [
        (discard(0, 16), "DISCARD"),
        (zeroes(0, 8), "WRITE_ZEROES"),
        (erase(0, 64), "SECURE_ERASE"),
        (
            Request::GetLifetime {
                buffer: rig.filled(6, 0),
            },
            "LIFETIME",
        ),
    ] {
        let (kind, words) = refusal(&mut rig, request);
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(words.contains(word), "{words}");
    }
    let Rig { queue, device } = rig;
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let before = device.requests();
    let (at, len) = (Sector(0), SectorCount(64));
    for error in [
        block_on(shared.discard(at, len)).unwrap_err(),
        block_on(shared.write_zeroes(at, len, Unmap::Keep)).unwrap_err(),
        block_on(shared.secure_erase(at, len)).unwrap_err(),
        block_on(shared.lifetime()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!(device.requests(), before);
}

#[test]
fn every_status_of_a_range_is_its_error_and_its_memory_comes_back() {
    let mut rig = ranged(DISK);
    let arena = rig.queue.memory().clone();
    let free = || free_pages(|len| Ok(arena.allocate(len)?));
    let before = free();
    for status in 0..=u8::MAX {
        for request in every_range(&rig) {
            let words = format!("{request:?}");
            let at = sector(&request);
            rig.device.control.inject(Fault::Status(status));
            let done = rig.run(request);
            assert_eq!(done.buffer.is_some(), words.contains("buffer"), "{words}");
            match done.result {
                Ok(sector) => assert_eq!((status, sector), (0, at), "{words}"),
                Err(error) => {
                    let kind = match status {
                        1 => ErrorKind::Medium,
                        2 => ErrorKind::Unsupported,
                        3 => ErrorKind::InvalidZoneState,
                        4 => ErrorKind::UnalignedWritePointer,
                        5 => ErrorKind::OpenLimit,
                        6 => ErrorKind::ActiveLimit,
                        _ => ErrorKind::Protocol,
                    };
                    assert_eq!(error.kind(), kind, "{status} for {words}");
                    let at = format!("sector {at}:");
                    assert!(error.to_string().contains(&at), "{error}");
                }
            }
        }
    }
    assert_eq!(free(), before);
}

#[test]
fn a_range_in_the_slot_of_an_append_is_not_taken_for_one() {
    let mut rig = ranged("zones=4,zone-size=1m,queue-size=4");
    for round in 0..8 {
        for zone in 0..4 {
            let request = rig.append(zone, 4096, 1);
            let at = u64::from(zone) * 2048 + round * 8;
            assert_eq!(rig.run(request).result.unwrap(), Sector(at));
        }
        rig.device.control.inject(Fault::Status(0));
        let done = rig.run(zeroes(round * 8, 8));
        assert_eq!(done.result.unwrap(), Sector(round * 8));
        assert!(done.buffer.is_none());
    }
}

#[test]
fn a_full_queue_hands_every_range_back() {
    let mut rig = ranged(DISK);
    let arena = rig.queue.memory().clone();
    let before = free_pages(|len| Ok(arena.allocate(len)?));
    for token in 0..u64::from(rig.queue.depth()) {
        rig.queue.submit(Request::Flush, token).unwrap();
    }
    for request in every_range(&rig) {
        let words = format!("{request:?}");
        let rejected = rig.queue.submit(request, 99).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::QueueFull);
        assert_eq!(format!("{:?}", rejected.request), words);
    }
    assert!(rig.finish().iter().all(|done| done.token != 99));
    assert_eq!(free_pages(|len| Ok(arena.allocate(len)?)), before);
}

#[test]
fn without_memory_a_range_comes_back() {
    let mut rig = ranged(DISK);
    let arena = rig.queue.memory().clone();
    let mut held = Vec::new();
    while let Ok(page) = arena.allocate(4096) {
        held.push(page);
    }
    for request in [discard(16, 32), zeroes(8, 24), erase(64, 128)] {
        let (kind, words) = refusal(&mut rig, request);
        assert_eq!(kind, ErrorKind::OutOfMemory, "{words}");
    }
    held.pop();
    rig.device.control.inject(Fault::Status(0));
    assert!(rig.run(discard(16, 32)).result.is_ok());
}

#[test]
fn ranges_of_a_device_that_fails_end_without_a_buffer() {
    let mut rig = ranged(DISK);
    rig.device.control.unplug();
    for (token, request) in (0..).zip([discard(16, 32), zeroes(8, 24), erase(64, 128)]) {
        rig.queue.submit(request, token).unwrap();
    }
    rig.queue.commit();
    let mut ended = 0;
    for _ in 0..1 << 18 {
        if let Some(done) = rig.queue.poll() {
            assert_eq!(done.result.unwrap_err().kind(), ErrorKind::DeviceGone);
            assert!(done.buffer.is_none());
            ended += 1;
        }
    }
    assert_eq!(ended, 3);
    for request in every_range(&rig) {
        let words = format!("{request:?}");
        let rejected = rig.queue.submit(request, 9).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::DeviceGone);
        assert_eq!(format!("{:?}", rejected.request), words);
    }
}

#[test]
fn long_ranges_go_in_as_few_requests_as_the_limits_allow() {
    let Rig { queue, device } = ranged(DISK);
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let whole = SectorCount(8192);
    let run = |pieces: u64, end: &dyn Fn() -> zbd_core::Result<()>| {
        for _ in 0..pieces {
            device.control.inject(Fault::Status(0));
        }
        let before = device.requests();
        end().unwrap();
        assert_eq!(device.requests() - before, pieces);
    };
    let at = Sector(0);
    // 992, 96 and 256 at once.
    run(9, &|| block_on(shared.discard(at, whole)));
    run(86, &|| {
        block_on(shared.write_zeroes(at, whole, Unmap::Keep))
    });
    run(32, &|| block_on(shared.secure_erase(at, whole)));
    run(1, &|| block_on(shared.discard(at, SectorCount(992))));
    run(2, &|| block_on(shared.discard(at, SectorCount(1008))));
}

#[test]
fn a_long_range_ends_with_its_first_failure() {
    let Rig { queue, device } = ranged(DISK);
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    for status in [0, 0, 1] {
        device.control.inject(Fault::Status(status));
    }
    let before = device.requests();
    let error = block_on(shared.discard(Sector(0), SectorCount(8192))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Medium);
    assert!(error.to_string().contains("sector 1984"), "{error}");
    assert!(error.into_buffer().is_none());
    assert_eq!(device.requests() - before, 3);
}

#[test]
fn a_long_range_that_is_wrong_does_nothing_at_all() {
    let Rig { queue, device } = ranged(DISK);
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let before = device.requests();
    for (at, len) in [(0, 8200), (16, 8192), (8, 8176), (0, 8184), (0, 0)] {
        let error = block_on(shared.discard(Sector(at), SectorCount(len))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{at} {len}");
    }
    assert_eq!(device.requests(), before);
}
