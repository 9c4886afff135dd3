//! Data that come and go as `Bytes`, without copies.

use memmap2::{MmapOptions, MmapRaw};
use vfio_virtio::{Iova, PciFunction};
use zbd_core::{DmaArena, ErrorKind, HostMemory, Request, Sector, ZoneId};

use crate::rig::{RINGS, Rig, free_pages, merged, pattern};

const GEOMETRY: &str = "zones=4,zone-size=4m,block-size=512,queues=1,queue-size=64";

fn rig(ring: &str) -> Rig {
    Rig::stepped(&merged(GEOMETRY, ring))
}

fn free(rig: &Rig) -> usize {
    free_pages(|len| rig.queue.buffer(len))
}

#[test]
fn what_was_read_is_appended_again_without_a_copy() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let free_at_first = free(&rig);
        let request = rig.append(0, 8192, 1);
        rig.run(request).result.unwrap();
        let buffer = rig.queue.buffer(8192).unwrap();
        let at = buffer.as_ptr().cast_const();
        let done = rig.run(Request::Read {
            at: Sector(0),
            buffer,
        });
        let bytes = done.buffer.unwrap().into_bytes();
        assert_eq!(bytes.as_ptr(), at, "copied");
        assert_eq!(bytes, pattern(1, 8192), "{ring}");

        // More often than there are slots, overlapping ones at once.
        for round in 0..40 {
            let slices = [bytes.slice(512..1024), bytes.slice(1000..2536)];
            for (token, slice) in (0..).zip(&slices) {
                let buffer = rig.queue.memory().lend(slice).unwrap();
                assert_eq!(buffer.as_ptr().cast_const(), slice.as_ptr());
                let zone = ZoneId(1);
                let request = Request::Append { zone, buffer };
                rig.queue.submit(request, token).unwrap();
            }
            // The request holds on to the bytes.
            drop(slices);
            for done in rig.finish() {
                let sector = done.result.unwrap();
                let lent = done.buffer.unwrap();
                assert!(lent.is_read_only());
                assert_eq!(
                    rig.read(sector.0, lent.len()),
                    lent.to_vec(),
                    "{round} {ring}"
                );
            }
        }
        let buffer = rig.queue.memory().lend(&bytes.slice(1..513)).unwrap();
        let at = Sector(2 * 8192);
        let done = rig.run(Request::Write { at, buffer });
        done.result.unwrap();
        drop(done.buffer);
        assert_eq!(rig.read(at.0, 512), bytes[1..513]);
        // No tables were needed, and all memory comes back with the last slice.
        let slice = bytes.slice(8191..);
        drop(bytes);
        assert_eq!(free(&rig), free_at_first - 2, "{ring}");
        drop(slice);
        assert_eq!(free(&rig), free_at_first, "{ring}");
    }
}

#[test]
fn a_header_of_ones_own_goes_before_lent_bytes() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let payload = rig.filled(1024, 5).into_bytes();
        let mut buffer = rig.filled(512, 6);
        let lent = rig.queue.memory().lend(&payload).unwrap();
        buffer.join(lent).unwrap();
        let zone = ZoneId(3);
        let done = rig.run(Request::Append { zone, buffer });
        let at = done.result.unwrap();
        let expected = [pattern(6, 512), pattern(5, 1024)].concat();
        assert_eq!(rig.read(at.0, 1536), expected, "{ring}");
    }
}

#[test]
fn lent_bytes_are_refused_for_what_the_device_writes() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let bytes = rig.filled(4096, 5).into_bytes();
        let requests = rig.device.requests();
        for joined in [false, true] {
            let buffer = |len| {
                let mut buffer = rig.queue.memory().lend(&bytes.slice(..len)).unwrap();
                if joined {
                    let mut first = rig.queue.buffer(512).unwrap();
                    first.join(buffer).unwrap();
                    buffer = first;
                }
                buffer
            };
            let mut requests = vec![
                Request::Read {
                    at: Sector(0),
                    buffer: buffer(1024),
                },
                Request::Report {
                    from: Sector(0),
                    buffer: buffer(1024),
                },
            ];
            if !joined {
                let buffer = buffer(Request::ID_LEN);
                requests.push(Request::GetId { buffer });
            }
            for request in requests {
                let rejected = rig.queue.submit(request, 1).unwrap_err();
                assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
                let text = rejected.error.to_string();
                assert!(text.contains("lent from bytes"), "{text}");
                assert!(rejected.request.into_buffer().unwrap().is_read_only());
            }
        }
        assert_eq!(rig.queue.in_flight(), 0);
        rig.finish();
        assert_eq!(rig.device.requests(), requests);
        assert_eq!(bytes, pattern(5, 4096), "{ring}");
    }
}

#[test]
fn bytes_outlive_the_device() {
    let mut rig = rig("");
    let request = rig.append(0, 4096, 9);
    rig.run(request).result.unwrap();
    let buffer = rig.queue.buffer(4096).unwrap();
    let at = Sector(0);
    let bytes = rig.run(Request::Read { at, buffer }).buffer.unwrap();
    let bytes = bytes.into_bytes();
    drop(rig);
    assert_eq!(bytes, pattern(9, 4096));
}

#[test]
fn a_large_buffer_goes_in_pieces_at_once_and_is_one_again() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let free_at_first = free(&rig);
        let mut pieces = rig.filled(10 * 4096 + 512, 3).into_pieces(8192);
        for (token, buffer) in (0..).zip(&mut pieces) {
            let at = Sector(token * 16);
            let request = Request::Write { at, buffer };
            rig.queue.submit(request, token).unwrap();
        }
        let done = rig.finish();
        assert_eq!(done.len(), 6);
        for completion in &done {
            completion.result.as_ref().unwrap();
        }
        let pieces = pieces.rejoin().unwrap_err();
        drop(done);
        let mut buffer = pieces.rejoin().unwrap();
        buffer.fill(0xee);
        let mut pieces = buffer.into_pieces(512);
        for (token, buffer) in (0..).zip(&mut pieces) {
            let at = Sector(token);
            let request = Request::Read { at, buffer };
            rig.queue.submit(request, token).unwrap();
            if token % 16 == 15 {
                for done in rig.finish() {
                    done.result.unwrap();
                }
            }
        }
        for done in rig.finish() {
            done.result.unwrap();
        }
        let buffer = pieces.rejoin().unwrap();
        assert_eq!(buffer.to_vec(), pattern(3, 10 * 4096 + 512), "{ring}");
        drop(buffer);
        assert_eq!(free(&rig), free_at_first, "{ring}");
    }
}

/// An arena over memory of the test's own.
fn registered(rig: &Rig, map: MmapRaw) -> DmaArena {
    let memory = HostMemory::from_mmap(map).unwrap();
    rig.queue.register(memory).unwrap()
}

fn anonymous(len: usize) -> MmapRaw {
    MmapOptions::new().len(len).map_anon().unwrap().into()
}

/// Appends from one arena and reads into it.
fn goes_both_ways(rig: &mut Rig, arena: &DmaArena, seed: u64) {
    let mut buffer = arena.allocate(4096).unwrap();
    buffer.copy_from_slice(&pattern(seed, 4096));
    let zone = ZoneId(1);
    let done = rig.run(Request::Append { zone, buffer });
    let at = done.result.unwrap();
    let mut buffer = done.buffer.unwrap();
    buffer.fill(0xee);
    let done = rig.run(Request::Read { at, buffer });
    done.result.unwrap();
    assert_eq!(done.buffer.unwrap().to_vec(), pattern(seed, 4096));
    // What was read through another arena is the same.
    assert_eq!(rig.read(at.0, 4096), pattern(seed, 4096));
}

#[test]
fn registered_memory_serves_until_the_device_is_closed() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let own = rig.queue.memory().clone();
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 10).unwrap();
        let arenas = [
            registered(&rig, anonymous(64 << 10)),
            registered(&rig, MmapOptions::new().map_raw(&file).unwrap()),
        ];
        let free_at_first = free(&rig);
        for round in 0..2 {
            for seed in 0..40 {
                for arena in &arenas {
                    goes_both_ways(&mut rig, arena, round * 100 + seed);
                }
                goes_both_ways(&mut rig, &own, seed);
            }
            // Of one device, they gather in one request.
            let parts = [&own, &arenas[0], &arenas[1]].map(|arena| {
                let mut part = arena.allocate(512).unwrap();
                part.copy_from_slice(&pattern(arena.iova().0, 512));
                part
            });
            let mut buffer = None;
            for part in parts {
                match &mut buffer {
                    None => buffer = Some(part),
                    Some(buffer) => buffer.join(part).unwrap(),
                }
            }
            let (zone, buffer) = (ZoneId(2), buffer.unwrap());
            let expected = buffer.to_vec();
            let done = rig.run(Request::Append { zone, buffer });
            assert_eq!(rig.read(done.result.unwrap().0, 1536), expected, "{ring}");
            drop(done.buffer);
            if round == 0 {
                assert_eq!(free(&rig), free_at_first - tables(ring), "{ring}");
                recover(&mut rig);
            }
        }
        let function = std::sync::Arc::clone(&rig.device.function);
        let Rig { queue, mut device } = rig;
        let closing = std::thread::spawn(move || drop(queue));
        while !closing.is_finished() {
            device.step();
        }
        // The device reaches none of it any more.
        for arena in arenas.iter().chain([&own]) {
            assert!(function.unmap_dma(arena.iova()).is_err());
        }
        assert!(arenas[0].allocate(16 << 10).is_ok(), "the memory lives on");
    }
}

/// Requests of several segments in tables keep one of these a slot.
fn tables(ring: &str) -> usize {
    usize::from(ring.contains("indirect=on"))
}

/// Resets the device, which is stepped meanwhile.
fn recover(rig: &mut Rig) {
    let Rig { queue, device } = rig;
    std::thread::scope(|scope| {
        let recovering = scope.spawn(|| queue.recover());
        while !recovering.is_finished() {
            device.step();
        }
        recovering.join().unwrap().unwrap();
    });
}

#[test]
fn bytes_of_registered_memory_are_lent_and_those_that_others_may_change_are_copied() {
    let mut rig = rig("");
    let arena = registered(&rig, anonymous(64 << 10));
    let mut buffer = arena.allocate(4096).unwrap();
    buffer.copy_from_slice(&pattern(1, 4096));
    let at = buffer.as_ptr().cast_const();
    let bytes = buffer.into_bytes();
    assert_eq!(bytes.as_ptr(), at);
    assert!(rig.queue.memory().lend(&bytes).is_none());
    let buffer = arena.lend(&bytes.slice(1024..)).unwrap();
    let zone = ZoneId(0);
    let done = rig.run(Request::Append { zone, buffer });
    done.result.unwrap();
    assert_eq!(rig.read(0, 3072), bytes[1024..]);
    let buffer = arena.lend(&bytes).unwrap();
    let at = Sector(0);
    let rejected = rig.queue.submit(Request::Read { at, buffer }, 1);
    let text = rejected.unwrap_err().error.to_string();
    assert!(text.contains("lent from bytes"), "{text}");

    let file = tempfile::tempfile().unwrap();
    file.set_len(64 << 10).unwrap();
    let arena = registered(&rig, MmapOptions::new().map_raw(&file).unwrap());
    let mut buffer = arena.allocate(4096).unwrap();
    buffer.copy_from_slice(&pattern(2, 4096));
    let at = buffer.as_ptr().cast_const();
    let bytes = buffer.into_bytes();
    assert_eq!(bytes, pattern(2, 4096));
    assert_ne!(bytes.as_ptr(), at, "a file can be written by others");
}

#[test]
fn registered_memory_is_another_devices_no_more_than_its_own() {
    let (mut rig, other) = (rig(""), rig(""));
    let arena = registered(&other, anonymous(64 << 10));
    for _ in 0..3 {
        // At the same address as something of this device's.
        registered(&rig, anonymous(64 << 10));
    }
    assert_ne!(arena.iova(), Iova(0));
    let (zone, buffer) = (ZoneId(0), arena.allocate(4096).unwrap());
    let rejected = rig.queue.submit(Request::Append { zone, buffer }, 1);
    let rejected = rejected.unwrap_err();
    assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
    let mut buffer = rig.queue.buffer(512).unwrap();
    assert!(
        buffer
            .join(rejected.request.into_buffer().unwrap())
            .is_err()
    );
    rig.finish();
}
