//! Requests whose data lie in several pieces.

use zbd_core::{DmaBuffer, ErrorKind, Request, Sector, ZoneId};

use crate::{
    random::Random,
    rig::{Device, RINGS, Rig, merged, open_options, pattern},
};

const GEOMETRY: &str = "zones=4,zone-size=4m,block-size=512,queues=1,queue-size=64";

fn rig(ring: &str) -> Rig {
    Rig::stepped(&merged(GEOMETRY, ring))
}

/// A buffer of pieces of these lengths, filled with [`pattern`].
fn joined(rig: &Rig, lens: &[usize], seed: u64) -> DmaBuffer {
    let mut pieces = lens.iter().map(|len| rig.queue.buffer(*len).unwrap());
    let mut buffer = pieces.next().unwrap();
    for piece in pieces {
        buffer.join(piece).unwrap();
    }
    buffer.copy_from_slice(&pattern(seed, lens.iter().sum()));
    buffer
}

fn addresses(buffer: &DmaBuffer) -> Vec<(u64, u32)> {
    let segments = buffer.segments();
    segments.map(|it| (it.iova.0, it.len_bytes)).collect()
}

#[test]
fn data_in_pieces_arrive_whole_and_the_pieces_come_back_joined() {
    for ring in RINGS {
        let mut rig = rig(ring);
        for (round, lens) in [
            &[512, 512][..],
            &[4096, 512, 8192],
            &[512; 7],
            &[1536, 512, 512, 4096, 4096, 512, 512, 512, 2048, 512],
        ]
        .into_iter()
        .enumerate()
        {
            let len: usize = lens.iter().sum();
            let seed = round as u64;
            let buffer = joined(&rig, lens, seed);
            let before = addresses(&buffer);
            assert_eq!(before.len(), lens.len());
            let zone = ZoneId(1);
            let done = rig.run(Request::Append { zone, buffer });
            let at = done.result.unwrap();
            let back = done.buffer.unwrap();
            assert_eq!(addresses(&back), before);
            assert_eq!(rig.read(at.0, len), pattern(seed, len), "{ring}");

            let mut buffer = back;
            buffer.fill(0);
            let done = rig.run(Request::Read { at, buffer });
            assert_eq!(done.result.unwrap(), at);
            let buffer = done.buffer.unwrap();
            assert_eq!(addresses(&buffer), before);
            assert_eq!(buffer.to_vec(), pattern(seed, len), "{ring}");

            let parts: Vec<_> = buffer.split().collect();
            assert!(parts.iter().map(DmaBuffer::len).eq(lens.iter().copied()));
            let pointer = rig.report()[2].written().unwrap().0;
            let at = Sector(2 * 8192 + pointer);
            let buffer = joined(&rig, lens, seed + 100);
            let done = rig.run(Request::Write { at, buffer });
            assert_eq!(done.result.unwrap(), at);
            assert_eq!(rig.read(at.0, len), pattern(seed + 100, len), "{ring}");
        }
    }
}

/// What a token stands for.
struct Sent {
    addresses: Vec<(u64, u32)>,
    len: usize,
    /// What is read, if it is a read.
    reads: Option<u64>,
}

#[test]
fn pieces_and_wholes_in_flight_together_do_not_get_mixed_up() {
    for (seed, ring) in (0..).zip(RINGS) {
        let mut rig = rig(ring);
        let arena = rig.queue.memory().clone();
        let mut random = Random::new(seed);
        // What lies in zone 0: a block of each seed.
        for block in 0..64 {
            let request = rig.append(0, 512, block);
            rig.run(request).result.unwrap();
        }
        let mut sent = std::collections::HashMap::new();
        let mut full = 0;
        for token in 0..4000 {
            let pieces = [1, 1, 1, 2, 3, 9][random.below(6) as usize];
            let lens: Vec<usize> = (0..pieces).map(|_| 512).collect();
            let mut buffer = joined(&rig, &lens, token);
            let reads = (random.below(2) == 0).then(|| random.below(64 - pieces));
            let known = Sent {
                addresses: addresses(&buffer),
                len: buffer.len(),
                reads,
            };
            let request = match reads {
                Some(block) => {
                    buffer.fill(0xee);
                    let at = Sector(block);
                    Request::Read { at, buffer }
                }
                None => Request::Append {
                    zone: ZoneId(1 + (token % 3) as u32),
                    buffer,
                },
            };
            match rig.queue.submit(request, token) {
                Ok(()) => {
                    sent.insert(token, known);
                }
                Err(rejected) => {
                    assert_eq!(rejected.error.kind(), ErrorKind::QueueFull);
                    let back = rejected.request.into_buffer().unwrap();
                    assert_eq!(addresses(&back), known.addresses);
                    full += 1;
                }
            }
            if random.below(4) == 0 {
                rig.queue.commit();
                rig.device.step();
            }
            for _ in 0..random.below(3) {
                let Some(done) = rig.queue.poll() else { break };
                check(&rig, sent.remove(&done.token).unwrap(), done);
            }
        }
        assert!(full > 0, "{ring}: never full");
        for done in rig.finish() {
            check(&rig, sent.remove(&done.token).unwrap(), done);
        }
        assert!(sent.is_empty());
        drop(rig);
        // Tables included, all memory comes back.
        assert!(arena.allocate(arena.len_bytes()).is_ok(), "{ring}");
    }
}

fn check(rig: &Rig, sent: Sent, done: zbd_core::Completion) {
    let _ = rig;
    let buffer = done.buffer.unwrap();
    done.result.unwrap();
    assert_eq!(addresses(&buffer), sent.addresses);
    let expected: Vec<u8> = match sent.reads {
        Some(block) => (block..)
            .take(sent.len / 512)
            .flat_map(|block| pattern(block, 512))
            .collect(),
        None => pattern(done.token, sent.len),
    };
    assert!(buffer.to_vec() == expected, "data of {}", done.token);
}

#[test]
fn appends_in_pieces_and_in_one_land_as_they_were() {
    for ring in RINGS {
        let mut rig = rig(ring);
        let mut lens = Vec::new();
        // Each slot is used for pieces and then for one, and the other way round.
        for round in 0..200u64 {
            let count = 1 + round % 4;
            for token in 0..count {
                let pieces = if (round + token) % 3 == 0 { 5 } else { 1 };
                let seed = lens.len() as u64;
                lens.push(pieces * 512);
                let buffer = joined(&rig, &vec![512; pieces], seed);
                let zone = ZoneId(0);
                rig.queue
                    .submit(Request::Append { zone, buffer }, token)
                    .unwrap();
            }
            for done in rig.finish() {
                done.result.unwrap();
            }
        }
        let mut at = 0;
        for (seed, len) in lens.into_iter().enumerate() {
            assert!(
                rig.read(at, len) == pattern(seed as u64, len),
                "{ring}: {seed}"
            );
            at += len as u64 / 512;
        }
    }
}

/// The words with which a request of these pieces is refused.
fn refusal(rig: &mut Rig, lens: &[usize]) -> String {
    let mut words = Vec::new();
    for kind in 0..3 {
        let buffer = joined(rig, lens, 1);
        let before = addresses(&buffer);
        let (zone, at) = (ZoneId(0), Sector(0));
        let request = match kind {
            0 => Request::Append { zone, buffer },
            1 => Request::Read { at, buffer },
            _ => Request::Write { at, buffer },
        };
        let rejected = rig.queue.submit(request, 1).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
        let back = rejected.request.into_buffer().unwrap();
        assert_eq!(addresses(&back), before);
        assert_eq!(back.to_vec(), pattern(1, lens.iter().sum()));
        words.push(rejected.error.to_string());
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
    words.pop().unwrap()
}

#[test]
fn pieces_outside_what_the_device_allows_are_refused() {
    let mut rig = rig("seg-max=3,size-max=8192,block-size=4096,max-append=20k");
    assert!(refusal(&mut rig, &[4096; 4]).contains("4 segments exceeds"));
    let words = refusal(&mut rig, &[4096, 12288]);
    assert!(
        words.contains("12288") && words.contains("size_max"),
        "{words}"
    );
    let words = refusal(&mut rig, &[512, 3584]);
    assert!(words.contains("512 bytes is not whole blocks"), "{words}");
    // What is allowed is taken, however it lies.
    let buffer = joined(&rig, &[4096, 8192, 8192], 1);
    let zone = ZoneId(0);
    assert!(rig.run(Request::Append { zone, buffer }).result.is_ok());
    // And the refusals have used up nothing.
    let arena = rig.queue.memory().clone();
    drop(rig);
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}

#[test]
fn more_pieces_than_the_queue_has_descriptors_are_refused() {
    // The device's queue may be larger than the one that is used.
    for ring in RINGS {
        let mut device = Device::stepped(&merged(GEOMETRY, ring));
        let options = zbd_core::OpenOptions {
            queue_size: Some(8),
            ..open_options()
        };
        let queue = device.open(options).unwrap().pop().unwrap();
        let mut rig = Rig { queue, device };
        let words = refusal(&mut rig, &[512; 7]);
        assert!(
            words.contains("7 segments") && words.contains("8 descriptors"),
            "{words}"
        );
        let buffer = joined(&rig, &[512; 6], 1);
        let zone = ZoneId(0);
        assert!(rig.run(Request::Append { zone, buffer }).result.is_ok());
    }
}

#[test]
fn pieces_of_another_device_are_refused() {
    let other = rig("");
    let mut rig = rig("");
    let mut buffer = rig.queue.buffer(512).unwrap();
    let (error, back) = buffer.join(other.queue.buffer(512).unwrap()).unwrap_err();
    assert!(error.to_string().contains("different devices"), "{error}");
    assert_eq!(back.len(), 512);
    assert!(buffer.is_contiguous());
    let buffer = joined(&other, &[512, 512], 1);
    let zone = ZoneId(0);
    let request = Request::Append { zone, buffer };
    let rejected = rig.queue.submit(request, 1).unwrap_err();
    assert_eq!(rejected.error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(rejected.request.into_buffer().unwrap().len(), 1024);
}

#[test]
fn tasks_wait_for_room_for_their_pieces() {
    use crate::{blocking::block_on, in_time::in_time};
    // Fourteen of these fit into a ring that has room for 21 of one piece.
    for ring in ["ring=split,indirect=off", "ring=packed,indirect=off"] {
        let mut device = Device::threaded(&merged(GEOMETRY, &format!("{ring},latency=1ms")));
        let shared = device.open_shared();
        let tasks: Vec<_> = (0..40)
            .map(|seed| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let mut buffer = shared.buffer(512).unwrap();
                    for _ in 0..9 {
                        buffer.join(shared.buffer(512).unwrap()).unwrap();
                    }
                    buffer.copy_from_slice(&pattern(seed, 5120));
                    let done = block_on(shared.append(ZoneId(0), buffer)).unwrap();
                    let read = block_on(shared.read(done.sector, 5120)).unwrap();
                    assert!(read.to_vec() == pattern(seed, 5120));
                })
            })
            .collect();
        in_time(move || tasks.into_iter().for_each(|task| task.join().unwrap()));
    }
}
