//! What the polled door takes, hands back and returns.

use zbd_core::{ErrorKind, Request, Sector, ZoneAction, ZoneId};

use crate::rig::{Rig, pattern};

/// One request of each kind, none of them at zero where that is possible.
pub(crate) fn every_kind(rig: &Rig) -> Vec<Request> {
    let mut all = vec![
        rig.append(3, 4096, 1),
        rig.write(2048, 8192, 2),
        Request::Read {
            at: Sector(2056),
            buffer: rig.filled(4096, 3),
        },
        Request::Report {
            from: Sector(2 * 2048 + 17),
            buffer: rig.filled(192, 4),
        },
        Request::Flush,
        Request::ResetAll,
    ];
    for action in [
        ZoneAction::Open,
        ZoneAction::Close,
        ZoneAction::Finish,
        ZoneAction::Reset,
    ] {
        let zone = ZoneId(2);
        all.push(Request::Manage { action, zone });
    }
    all
}

/// A request as it can be compared, contents of its buffer included.
pub(crate) fn describe(request: Request) -> (String, Option<Vec<u8>>) {
    let words = format!("{request:?}");
    (words, request.into_buffer().map(|buffer| buffer.to_vec()))
}

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=1,queue-size=8";

#[test]
fn a_full_queue_hands_every_kind_of_request_back_whole() {
    let mut rig = Rig::stepped(GEOMETRY);
    for token in 0..8 {
        rig.queue.submit(Request::Flush, token).unwrap();
    }
    assert_eq!(rig.queue.in_flight(), 8);
    for (request, same) in every_kind(&rig).into_iter().zip(every_kind(&rig)) {
        let (words, bytes) = describe(same);
        let iova = words.split("iova").nth(1).map(str::to_owned);
        let rejected = rig.queue.submit(request, 99).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::QueueFull);
        assert!(
            rejected.error.to_string().contains('8'),
            "{}",
            rejected.error
        );
        let (back, bytes_back) = describe(rejected.request);
        assert_eq!(bytes_back, bytes);
        // The twin's buffer lies elsewhere; all else agrees.
        let iova_back = back.split("iova").nth(1).map(str::to_owned);
        let strip = |words: String, iova: Option<String>| match iova {
            Some(iova) => words.replace(iova.split(',').next().unwrap(), ""),
            None => words,
        };
        assert_eq!(strip(back, iova_back), strip(words, iova));
    }
    let mut tokens: Vec<_> = rig.finish().iter().map(|done| done.token).collect();
    tokens.sort_unstable();
    assert_eq!(
        tokens,
        [0, 1, 2, 3, 4, 5, 6, 7],
        "token 99 was never accepted"
    );
}

#[test]
fn a_slot_that_came_back_can_be_used_at_once() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m,queues=1,queue-size=4");
    assert_eq!(rig.queue.depth(), 4);
    for token in 0..4 {
        rig.queue.submit(Request::Flush, token).unwrap();
    }
    rig.queue.commit();
    rig.device.step();
    for token in 4..20 {
        let kind = rig
            .queue
            .submit(Request::Flush, token)
            .unwrap_err()
            .error
            .kind();
        assert_eq!(kind, ErrorKind::QueueFull);
        assert!(rig.queue.poll().unwrap().result.is_ok());
        rig.queue.submit(Request::Flush, token).unwrap();
        rig.queue.commit();
        rig.device.step();
    }
    assert_eq!(rig.finish().len(), 4);
}

#[test]
fn a_buffer_of_another_device_is_refused_and_handed_back() {
    let other = Rig::stepped(GEOMETRY);
    let mut rig = Rig::stepped(GEOMETRY);
    let before = rig.device.requests();
    for request in every_kind(&other) {
        let same = format!("{request:?}");
        if !same.contains("buffer") {
            continue;
        }
        let rejected = rig.queue.submit(request, 0).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(format!("{:?}", rejected.request), same);
    }
    rig.queue.commit();
    rig.device.step();
    assert_eq!(rig.device.requests(), before);
    assert_eq!(rig.queue.in_flight(), 0);
}

#[test]
fn a_write_at_the_write_pointer_reads_back_and_one_elsewhere_is_refused() {
    let mut rig = Rig::stepped(GEOMETRY);
    let request = rig.write(2048, 8192, 5);
    assert_eq!(rig.run(request).result.unwrap(), Sector(2048));
    assert_eq!(rig.read(2048, 8192), pattern(5, 8192));
    for at in [2048, 2056, 2072] {
        let request = rig.write(at, 4096, 6);
        let done = rig.run(request);
        let kind = done.result.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::UnalignedWritePointer);
        assert_eq!(done.buffer.unwrap().to_vec(), pattern(6, 4096));
    }
    assert_eq!(rig.read(2048 + 16, 4096), [0; 4096]);
}

#[test]
fn a_conventional_zone_is_written_and_read_anywhere() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m,conventional=2,block-size=512");
    for at in [4095, 0, 77, 2047, 2048] {
        let request = rig.write(at, 512, at);
        assert_eq!(rig.run(request).result.unwrap(), Sector(at));
    }
    // Conventional zones may be read across their border.
    let read = rig.read(2047, 1024);
    assert_eq!(read[..512], pattern(2047, 512));
    assert_eq!(read[512..], pattern(2048, 512));
    assert_eq!(rig.read(77, 512), pattern(77, 512));
    assert_eq!(rig.read(4095, 512), pattern(4095, 512));
}

#[test]
fn a_flush_ends_well_and_names_no_sector() {
    let mut rig = Rig::threaded(GEOMETRY);
    assert!(rig.queue.info().volatile_cache);
    let done = rig.run(Request::Flush);
    assert_eq!(done.result.unwrap(), Sector(0));
    assert!(done.buffer.is_none());
}

#[test]
fn buffers_of_a_queue_dropped_in_flight_return_with_its_reset() {
    let mut rig = Rig::stepped(GEOMETRY);
    let arena = rig.queue.memory().clone();
    for token in 0..8 {
        let request = rig.append(0, 4096, token);
        rig.queue.submit(request, token).unwrap();
        if token == 5 {
            rig.queue.commit();
        }
    }
    drop(rig.queue);
    assert_eq!(
        arena.allocate(arena.len_bytes()).unwrap().len(),
        arena.len_bytes()
    );
    // The device never looked at them, and can be opened again.
    rig.queue = rig.device.open_queue();
    let request = rig.append(0, 4096, 0);
    assert_eq!(rig.run(request).result.unwrap(), Sector(0));
}
