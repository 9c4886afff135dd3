//! Through the public door, on memory that no device reaches.

use std::time::Duration;

use ::bytes::Bytes;
use event_listener::Listener;

use super::*;

fn arena(len: usize) -> DmaArena {
    DmaArena::detached(len).unwrap()
}

#[test]
fn a_detached_arena_knows_its_buffers_by_their_addresses_in_this_process() {
    let arena = arena((2 << 20) + 1);
    assert!(arena.len_bytes() > 2 << 20);
    assert_eq!(arena.iova().0, arena.memory().as_ptr().addr() as u64);
    let buffers: Vec<_> = (1..9).map(|n| arena.allocate(n * PAGE).unwrap()).collect();
    for buffer in &buffers {
        assert_eq!(buffer.iova().0, buffer.as_ptr().addr() as u64);
    }
    let error = DmaArena::detached(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn buffers_do_not_overlap_and_come_back() {
    let arena = arena(2 << 20);
    let all: Vec<_> = (0..arena.len_bytes() / PAGE)
        .map(|i| {
            let mut buffer = arena.allocate(PAGE).unwrap();
            buffer.fill(i as u8);
            buffer
        })
        .collect();
    assert_eq!(
        arena.allocate(1).unwrap_err().kind(),
        ErrorKind::OutOfMemory
    );
    for (i, buffer) in all.iter().enumerate() {
        assert!(buffer.to_vec().iter().all(|&b| b == i as u8));
    }
    drop(all);
    // The single pages must merge again for one large piece to be found.
    assert_eq!(
        arena.allocate(arena.len_bytes()).unwrap().len(),
        arena.len_bytes()
    );
}

#[test]
fn a_length_beyond_the_arena_is_refused() {
    let arena = arena(2 << 20);
    assert!(arena.allocate(arena.len_bytes() + 1).is_err());
    assert!(arena.allocate(usize::MAX).is_err());
    assert_eq!(
        arena.allocate(0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
#[should_panic(expected = "exceeds the buffer's length")]
fn writing_past_the_end_panics() {
    arena(2 << 20).allocate(512).unwrap().write_at(510, &[0; 3]);
}

fn filled(arena: &DmaArena, len: usize, value: u8) -> DmaBuffer {
    let mut buffer = arena.allocate(len).unwrap();
    buffer.fill(value);
    buffer
}

#[test]
fn a_joined_buffer_is_read_and_written_across_its_segments() {
    let arena = arena(2 << 20);
    let mut buffer = filled(&arena, 512, 1);
    buffer.join(filled(&arena, 4096, 2)).unwrap();
    buffer.join(filled(&arena, 1024, 3)).unwrap();
    assert_eq!(buffer.len(), 512 + 4096 + 1024);
    let lens: Vec<_> = buffer.segments().map(|s| s.len_bytes).collect();
    assert_eq!(lens, [512, 4096, 1024]);

    let mut expected = [vec![1; 512], vec![2; 4096], vec![3; 1024]].concat();
    assert_eq!(buffer.to_vec(), expected);
    buffer.write_at(510, &[9; 4100]);
    expected[510..4610].fill(9);
    assert_eq!(buffer.to_vec(), expected);
    let mut across = [0; 6];
    buffer.read_at(4606, &mut across);
    assert_eq!(across, [9, 9, 9, 9, 3, 3]);
    buffer.write_at(buffer.len(), &[]);

    let parts: Vec<_> = buffer.split().collect();
    let split: Vec<_> = parts.iter().flat_map(DmaBuffer::to_vec).collect();
    assert_eq!(split, expected);
    assert!(parts.iter().all(|part| part.segments().count() == 1));
}

#[test]
fn a_joined_buffer_goes_back_whole() {
    let arena = arena(2 << 20);
    let mut buffer = arena.allocate(PAGE).unwrap();
    for _ in 1..arena.len_bytes() / PAGE {
        buffer.join(arena.allocate(PAGE).unwrap()).unwrap();
    }
    assert!(arena.allocate(1).is_err());
    // Half of it goes by way of its parts.
    let mut parts = buffer.split();
    parts.by_ref().take(100).for_each(drop);
    drop(parts);
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}

#[test]
fn buffers_of_different_arenas_are_not_joined() {
    let (one, other) = (arena(2 << 20), arena(2 << 20));
    let mut buffer = one.allocate(512).unwrap();
    let (error, back) = buffer.join(filled(&other, 512, 7)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(back.to_vec(), [7; 512]);
    assert_eq!(buffer.segments().count(), 1);
}

#[test]
#[should_panic(expected = "exceeds the buffer's length")]
fn writing_past_the_last_segment_panics() {
    let arena = arena(2 << 20);
    let mut buffer = arena.allocate(512).unwrap();
    buffer.join(arena.allocate(512).unwrap()).unwrap();
    buffer.write_at(1022, &[0; 3]);
}

/// How many of the arena's pages are free.
fn free_pages(arena: &DmaArena) -> usize {
    let all: Vec<_> = std::iter::from_fn(|| arena.allocate(1).ok()).collect();
    all.len()
}

fn numbered(arena: &DmaArena, len: usize) -> DmaBuffer {
    let mut buffer = arena.allocate(len).unwrap();
    buffer.copy_from_slice(&numbers(len));
    buffer
}

/// Bytes of which neighbours differ, and pages too.
fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn the_bytes_of_a_buffer_are_its_memory() {
    let arena = arena(2 << 20);
    let mut buffer = numbered(&arena, 10_000);
    buffer.set_len(9_000);
    let at = buffer.as_ptr().cast_const();
    let bytes = buffer.into_bytes();
    assert_eq!(bytes.as_ptr(), at, "copied");
    assert_eq!(bytes, numbers(9_000));
}

#[test]
fn slices_keep_the_memory() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let bytes = numbered(&arena, 2 * PAGE).into_bytes();
    let slice = bytes.slice(PAGE + 7..PAGE + 9);
    let empty = bytes.slice(5..5);
    drop(bytes);
    assert_eq!(free_pages(&arena), all - 2);
    // Who takes all free memory does not get at it.
    let others: Vec<_> = (0..all - 2).map(|_| filled(&arena, PAGE, 0xff)).collect();
    assert_eq!(slice, numbers(2 * PAGE)[PAGE + 7..PAGE + 9]);
    drop(others);
    let twin = slice.clone();
    drop((slice, empty));
    assert_eq!(free_pages(&arena), all - 2);
    drop(twin);
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn bytes_outlive_their_arena_and_go_to_other_threads() {
    let bytes = numbered(&arena(2 << 20), 5000).into_bytes();
    let read = std::thread::spawn(move || bytes.to_vec());
    assert_eq!(read.join().unwrap(), numbers(5000));
}

#[test]
fn bytes_of_several_segments_are_copied_and_free_the_memory() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let mut buffer = filled(&arena, 512, 1);
    buffer.join(filled(&arena, 4096, 2)).unwrap();
    let bytes = buffer.into_bytes();
    assert_eq!(bytes, [vec![1; 512], vec![2; 4096]].concat());
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn bytes_are_lent_from_where_they_lie() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let bytes = numbered(&arena, 10_000).into_bytes();
    for range in [0..10_000, 0..1, 9_999..10_000, 5..4097, 4095..9_000] {
        let lent = arena.lend(&bytes.slice(range.clone())).unwrap();
        assert_eq!(lent.as_ptr().cast_const(), bytes[range.clone()].as_ptr());
        assert_eq!(lent.iova().0, lent.as_ptr().addr() as u64);
        assert!(lent.is_read_only() && lent.is_contiguous());
        assert_eq!(lent.to_vec(), bytes[range.clone()]);
        assert_eq!((lent.len(), lent.capacity()), (range.len(), range.len()));
    }
    // Several overlap, and keep the memory when the bytes have gone.
    let (one, other) = (
        arena.lend(&bytes).unwrap(),
        arena.lend(&bytes.slice(100..)).unwrap(),
    );
    drop(bytes);
    drop(one);
    assert_eq!(free_pages(&arena), all - 4);
    assert_eq!(other.to_vec(), numbers(10_000)[100..]);
    drop(other);
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn bytes_that_lie_elsewhere_are_not_lent() {
    let (one, other) = (arena(2 << 20), arena(2 << 20));
    let bytes = numbered(&one, 100).into_bytes();
    assert!(other.lend(&bytes).is_none());
    assert!(one.lend(&Bytes::from(vec![1; 100])).is_none());
    assert!(one.lend(&Bytes::from_static(b"static")).is_none());
    assert!(one.lend(&bytes.slice(5..5)).is_none(), "no bytes");
}

#[test]
fn lent_bytes_become_bytes_again() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let bytes = numbered(&arena, 5000).into_bytes();
    let mut lent = arena.lend(&bytes.slice(10..)).unwrap();
    lent.set_len(20);
    let again = lent.into_bytes();
    assert_eq!(again.as_ptr(), bytes[10..].as_ptr());
    assert_eq!(again, bytes[10..30]);
    drop(bytes);
    assert_eq!(free_pages(&arena), all - 2);
    drop(again);
    assert_eq!(free_pages(&arena), all);
}

/// Whether `act` panics about lent bytes.
fn is_refused(buffer: &mut DmaBuffer, act: impl FnOnce(&mut DmaBuffer)) -> bool {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(buffer)));
    match panic {
        Ok(()) => false,
        Err(message) => {
            let message = message.downcast_ref::<&str>().unwrap();
            assert!(message.contains("lent bytes cannot be written"));
            true
        }
    }
}

#[test]
fn lent_bytes_are_not_written() {
    let arena = arena(2 << 20);
    let bytes = numbered(&arena, 4096).into_bytes();
    let mut lent = arena.lend(&bytes).unwrap();
    assert!(is_refused(&mut lent, |lent| lent.fill(0)));
    assert!(is_refused(&mut lent, |lent| lent.write_at(4095, &[0])));
    assert!(is_refused(&mut lent, |lent| lent.copy_from_slice(&[0; 4096])));
    lent.write_at(7, &[]);
    assert_eq!(bytes, numbers(4096));

    // Behind a header, they are as little written as in front of one.
    for lent_first in [true, false] {
        let header = filled(&arena, 512, 3);
        let lent = arena.lend(&bytes).unwrap();
        let (mut joined, other, at) = match lent_first {
            true => (lent, header, 4096),
            false => (header, lent, 0),
        };
        joined.join(other).unwrap();
        assert!(joined.is_read_only());
        joined.write_at(at, &[9; 512]);
        let edge = if lent_first { 4095 } else { 511 };
        assert!(is_refused(&mut joined, |joined| joined.write_at(edge, &[0; 2])));
        assert!(is_refused(&mut joined, |joined| joined.fill(0)));
        assert_eq!(bytes, numbers(4096));
        let parts: Vec<_> = joined.split().collect();
        assert_eq!(parts[0].is_read_only(), lent_first);
        assert_eq!(parts[1].is_read_only(), !lent_first);
        for part in &parts {
            // What the request path takes unseen may be written.
            assert_eq!(part.single_in() == arena.id(), !part.is_read_only());
        }
    }
}

#[test]
fn pieces_are_the_parts_of_a_buffer_and_make_it_again() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let mut buffer = numbered(&arena, 10_000);
    buffer.set_len(9_000);
    let (at, iova) = (buffer.as_ptr(), buffer.iova());
    let mut pieces = buffer.into_pieces(4_000);
    assert_eq!(pieces.len(), 3);
    let mut taken: Vec<_> = pieces.by_ref().collect();
    assert!(pieces.next().is_none());
    for (piece, from) in taken.iter_mut().zip((0..).step_by(4_000)) {
        let len = 4_000.min(9_000 - from);
        assert_eq!((piece.len(), piece.capacity()), (len, len));
        assert_eq!(piece.as_ptr(), at.wrapping_add(from));
        assert_eq!(piece.iova().0, iova.0 + from as u64);
        assert_eq!(piece.to_vec(), numbers(9_000)[from..from + len]);
        // As any other buffer, for the request path too.
        assert!(piece.single_in() == arena.id() && !piece.is_read_only());
        piece.write_at(len - 1, &[0xee]);
    }
    taken[1].set_len(1);
    taken[1].fill(0xdd);
    drop(taken.pop());
    let pieces = pieces.rejoin().unwrap_err();
    drop(taken);
    let whole = pieces.rejoin().unwrap();
    let mut expected = numbers(9_000);
    for (at, value) in [(3_999, 0xee), (7_999, 0xee), (8_999, 0xee), (4_000, 0xdd)] {
        expected[at] = value;
    }
    assert_eq!(whole.to_vec(), expected);
    assert_eq!((whole.as_ptr(), whole.capacity()), (at, 4 * PAGE));
    assert_eq!(free_pages(&arena), all - 4);
    drop(whole);
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn a_lost_piece_keeps_the_memory() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let mut pieces = numbered(&arena, 3 * PAGE).into_pieces(PAGE);
    let lost = pieces.nth(1).unwrap();
    assert_eq!(pieces.len(), 1);
    drop(pieces.rejoin().unwrap_err());
    assert_eq!(free_pages(&arena), all - 4);
    assert_eq!(lost.to_vec(), numbers(3 * PAGE)[PAGE..2 * PAGE]);
    // As bytes it keeps it too.
    let bytes = lost.into_bytes();
    assert_eq!(free_pages(&arena), all - 4);
    assert_eq!(bytes, numbers(3 * PAGE)[PAGE..2 * PAGE]);
    drop(bytes);
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn pieces_of_several_segments_are_cut_where_they_should_be() {
    let arena = arena(2 << 20);
    let all = free_pages(&arena);
    let bytes = filled(&arena, 1500, 3).into_bytes();
    let mut buffer = filled(&arena, 500, 1);
    buffer.join(filled(&arena, 1000, 2)).unwrap();
    buffer.join(arena.lend(&bytes).unwrap()).unwrap();
    let expected = [vec![1; 500], vec![2; 1000], vec![3; 1500]].concat();
    let mut pieces = buffer.into_pieces(700);
    let taken: Vec<_> = pieces.by_ref().collect();
    let segments: Vec<Vec<_>> = taken
        .iter()
        .map(|piece| piece.segments().map(|it| it.len_bytes).collect())
        .collect();
    assert_eq!(
        segments,
        [
            vec![500, 200],
            vec![700],
            vec![100, 600],
            vec![700],
            vec![200]
        ]
    );
    let read_only: Vec<_> = taken.iter().map(DmaBuffer::is_read_only).collect();
    assert_eq!(read_only, [false, false, true, true, true]);
    for (piece, part) in taken.iter().zip(expected.chunks(700)) {
        assert_eq!((piece.len(), piece.to_vec()), (part.len(), part.to_vec()));
        let plain = piece.is_contiguous() && !piece.is_read_only();
        assert_eq!(piece.single_in() == arena.id(), plain);
    }
    // Cut again, each lot by way of its parts.
    let smaller = taken.into_iter().flat_map(|piece| {
        let pieces = piece.into_pieces(300);
        pieces.flat_map(DmaBuffer::split)
    });
    let read: Vec<_> = smaller.flat_map(|piece| piece.to_vec()).collect();
    assert_eq!(read, expected);
    let buffer = pieces.rejoin().unwrap();
    assert_eq!(buffer.to_vec(), expected);
    assert_eq!(buffer.segments().count(), 3);
    drop((buffer, bytes));
    assert_eq!(free_pages(&arena), all);
}

#[test]
fn all_who_listen_are_told_of_freed_memory() {
    let arena = arena(2 << 20);
    let mut all: Vec<_> = std::iter::from_fn(|| arena.allocate(PAGE).ok()).collect();
    let told = |listener: EventListener| listener.wait_timeout(Duration::ZERO).is_some();
    let listeners = [arena.on_freed(), arena.on_freed()];
    drop(all.pop());
    assert!(listeners.into_iter().all(told));
    // Who listens afterwards is told of what comes then.
    assert!(!told(arena.on_freed()));
    let mut pieces = all.pop().unwrap().into_pieces(1000);
    let bytes = pieces.next().unwrap().into_bytes();
    let lent = arena.lend(&bytes).unwrap();
    let listener = arena.on_freed();
    drop(pieces);
    drop(bytes);
    assert!(!told(listener), "it is still lent");
    let listener = arena.on_freed();
    drop(lent);
    assert!(told(listener));
}

#[test]
fn no_wake_up_is_lost() {
    // Each buffer takes more than half of the arena, so that all depend on one another.
    let arena = arena(2 << 20);
    let len = arena.len_bytes() / 2 + 1;
    let (done, all_done) = std::sync::mpsc::channel();
    for _ in 0..4 {
        let (arena, done) = (arena.clone(), done.clone());
        std::thread::spawn(move || {
            for _ in 0..2_000 {
                let buffer = loop {
                    let freed = arena.on_freed();
                    match arena.allocate(len) {
                        Ok(buffer) => break buffer,
                        Err(_) => freed.wait(),
                    }
                };
                drop(buffer);
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..4 {
        all_done
            .recv_timeout(Duration::from_secs(60))
            .expect("a thread waits for memory that is free");
    }
}
