//! Packed rings: wrap counters, events, chains, and what breaks them.

use vfio_virtio::Width;

use crate::driver::{
    BASE, DATA, Desc, EVENT_IDX, FLUSH, INDIRECT, NEXT, PACKED, Rig, Shape, TABLE, WRITE,
};

const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT_PLACE: u16 = 2;

/// Offers `count` flushes, of 2 descriptors or with `cut` of 3. Their ids.
fn offer(rig: &mut Rig, queue: u16, count: u16, cut: bool) -> Vec<u32> {
    (0..count)
        .map(|i| {
            let at = DATA + 64 * usize::from(i);
            rig.put_header(at, FLUSH, 0);
            rig.arena.write(at + 16, &[0xaa]);
            let mut parts = vec![(at, 16, 0), (at + 16, 1, WRITE)];
            if cut {
                parts.splice(..1, [(at, 5, 0), (at + 5, 11, 0)]);
            }
            rig.submit(queue, &parts, Shape::Direct).into()
        })
        .collect()
}

fn drain(rig: &mut Rig, queue: u16) -> Vec<u32> {
    std::iter::from_fn(|| rig.take_used(queue).map(|(id, _)| id)).collect()
}

fn desc(offset: usize, len: u32, flags: u16) -> Desc {
    Desc {
        address: BASE + offset as u64,
        len,
        flags,
        next: 0,
    }
}

#[test]
fn a_driver_may_use_split_rings_where_packed_ones_are_offered() {
    let mut rig = Rig::bare("ring=packed");
    assert_eq!(rig.offered() & PACKED, PACKED);
    rig.start(!PACKED);
    assert_eq!(rig.command(FLUSH, 0), 0);
    assert_eq!(rig.used_index(0), 1);
    rig.start(u64::MAX);
    assert_eq!(rig.command(FLUSH, 0), 0);
    assert_eq!(rig.queues[0].avail, 2);
    assert_eq!(Rig::bare("").offered() & PACKED, 0);
}

#[test]
fn requests_are_used_over_many_laps_of_rings_of_any_size() {
    for size in [4, 7, 9, 16, 100] {
        let mut rig = Rig::ready(&format!("ring=packed,queue-size={size}"));
        for lap in 0..600u16 {
            let cut = lap % 3 == 0;
            let most = size / if cut { 3 } else { 2 };
            let ids = offer(&mut rig, 0, 1 + lap % most, cut);
            rig.kick(0);
            rig.step();
            assert_eq!(drain(&mut rig, 0), ids, "lap {lap} of {size}");
            assert_eq!(rig.arena.read(DATA + 16, 1), [0]);
        }
        assert_eq!(rig.control.broken(), None);
    }
}

#[test]
fn the_largest_ring_wraps_like_any_other() {
    let mut rig = Rig::ready("ring=packed,queue-size=32768,queues=1");
    assert_eq!(rig.queues[0].size, 32768);
    let mut done = 0;
    while done < 3 * 32768 / 2 {
        let ids = offer(&mut rig, 0, 512, false);
        rig.kick(0);
        rig.step();
        assert_eq!(drain(&mut rig, 0), ids);
        done += 512;
    }
    assert!(!rig.queues[0].used_wrap);
}

#[test]
fn a_ring_may_be_filled_to_the_last_descriptor() {
    let mut rig = Rig::ready("ring=packed,queue-size=6");
    for _ in 0..7 {
        let ids = offer(&mut rig, 0, 3, false);
        rig.kick(0);
        rig.step();
        assert_eq!(drain(&mut rig, 0), ids);
        // Off the beginning of the ring.
        let ids = offer(&mut rig, 0, 1, true);
        rig.kick(0);
        rig.step();
        assert_eq!(drain(&mut rig, 0), ids);
    }
}

#[test]
fn one_used_descriptor_is_written_for_a_chain() {
    let mut rig = Rig::ready("ring=packed,queue-size=8");
    offer(&mut rig, 0, 1, true);
    let before = rig.arena.read(16, 48);
    rig.kick(0);
    rig.step();
    // The address stays; length, id and flags say that one byte was written.
    assert_eq!(rig.arena.read(0, 8), (BASE + DATA as u64).to_le_bytes());
    assert_eq!(rig.arena.read(8, 8), [1, 0, 0, 0, 0, 0, 0x82, 0x80]);
    assert_eq!(rig.arena.read(16, 48), before);
}

#[test]
fn an_indirect_table_is_consecutive_whatever_its_flags_say() {
    let mut rig = Rig::ready("ring=packed,queue-size=5");
    for lap in 0..20u16 {
        rig.put_header(DATA, FLUSH, 0);
        rig.arena.write(DATA + 16, &[0xaa]);
        let table = [
            desc(DATA, 7, 0x8085),
            desc(DATA + 7, 9, NEXT | TABLE),
            desc(DATA + 16, 1, WRITE | NEXT | 0x80),
        ];
        for (i, entry) in table.into_iter().enumerate() {
            let entry = Desc { next: 77, ..entry };
            rig.arena
                .write(DATA + 0x1003 + 16 * i, &entry.packed_bytes());
        }
        // The write flag of the descriptor that refers to the table is ignored.
        let flags = TABLE | if lap % 2 == 0 { WRITE } else { 0 };
        let id = rig.submit_packed(0, &[desc(DATA + 0x1003, 48, flags)]);
        rig.kick(0);
        rig.step();
        assert_eq!(rig.take_used(0), Some((id.into(), 1)), "{lap}");
        assert_eq!(rig.arena.read(DATA + 16, 1), [0]);
    }
}

#[test]
fn flags_enable_and_disable_interrupts() {
    for options in ["ring=packed,event-idx=off", "ring=packed"] {
        let mut rig = Rig::ready(options);
        for (flags, expected) in [(ENABLE, true), (DISABLE, false), (ENABLE, true)] {
            rig.set_driver_event(0, flags, 0, true);
            offer(&mut rig, 0, 2, false);
            rig.kick(0);
            rig.step();
            assert_eq!(rig.interrupted(1), expected, "{options} {flags}");
            assert_eq!(drain(&mut rig, 0).len(), 2);
        }
    }
}

#[test]
fn an_event_for_a_place_asks_for_one_interrupt_on_its_lap() {
    // Ten descriptors, two a request: five places that used descriptors are written to.
    let mut rig = Rig::ready("ring=packed,queue-size=10");
    for (count, place, wrap, expected) in [
        (1, 0, true, true),
        // At 2 of the first lap.
        (2, 6, true, false),
        (1, 0, true, false),
        // At 8 of the first lap.
        (2, 0, false, true),
        // At 2 of the second lap.
        (1, 4, true, false),
        (1, 4, false, true),
        // In the midst of what a chain takes: passed when the chain is skipped.
        (1, 7, false, true),
        (4, 8, true, false),
        (4, 2, false, true),
    ] {
        rig.set_driver_event(0, AT_PLACE, place, wrap);
        offer(&mut rig, 0, count, false);
        rig.kick(0);
        rig.step();
        assert_eq!(rig.interrupted(1), expected, "{place} {wrap}");
        assert_eq!(drain(&mut rig, 0).len(), usize::from(count));
    }
}

#[test]
fn an_idle_device_asks_for_the_next_descriptor_and_a_busy_one_for_none() {
    let mut rig = Rig::ready("ring=packed,queue-size=6");
    let mut stepper = rig.stepper.take().unwrap();
    assert_eq!(rig.device_event(0).0, ENABLE);
    for (place, wrap) in [(2, true), (4, true), (0, false), (2, false)] {
        offer(&mut rig, 0, 1, false);
        rig.kick(0);
        stepper.step();
        assert_eq!(rig.device_event(0).0, DISABLE);
        stepper.run_until_idle();
        assert_eq!(rig.device_event(0), (AT_PLACE, place, wrap));
        assert_eq!(drain(&mut rig, 0).len(), 1);
    }
    let mut plain = Rig::bare("ring=packed");
    plain.start(!EVENT_IDX);
    assert_eq!(plain.command(FLUSH, 0), 0);
    assert_eq!(plain.device_event(0).0, ENABLE);
}

#[test]
fn a_packed_device_that_was_not_notified_does_not_look() {
    let mut rig = Rig::ready("ring=packed");
    let ids = offer(&mut rig, 0, 1, false);
    rig.step();
    assert!(drain(&mut rig, 0).is_empty());
    rig.kick(0);
    rig.step();
    assert_eq!(drain(&mut rig, 0), ids);
}

#[test]
fn sizes_that_are_no_power_of_two_are_for_packed_rings() {
    let mut rig = Rig::bare("ring=packed,queue-size=100");
    let offered = rig.offered();
    assert!(rig.negotiate(offered));
    rig.write(0x16, Width::Word, 0);
    for (size, kept) in [(101, 100), (37, 37), (0, 37), (1, 1)] {
        rig.write(0x18, Width::Word, size);
        assert_eq!(rig.read(0x18, Width::Word), kept);
    }
    assert!(rig.negotiate(offered & !PACKED));
    rig.write(0x16, Width::Word, 0);
    assert_eq!(rig.read(0x18, Width::Word), 100);
    // As it stands, a split queue of this size is not enabled.
    rig.write(0x1c, Width::Word, 1);
    assert_eq!(rig.read(0x1c, Width::Word), 0);
    for (size, kept) in [(37, 100), (128, 100), (64, 64)] {
        rig.write(0x18, Width::Word, size);
        assert_eq!(rig.read(0x18, Width::Word), kept);
    }
    rig.write(0x1c, Width::Word, 1);
    assert_eq!(rig.read(0x1c, Width::Word), 1);
}

#[test]
fn malformed_packed_chains_break_the_device() {
    let header = desc(DATA, 16, NEXT);
    let status = desc(DATA + 16, 1, WRITE);
    let whole = "an indirect table that is no whole number of descriptors";
    for (chain, reason) in [
        (
            vec![desc(DATA, 16, TABLE | NEXT), status],
            "an indirect descriptor with a next one",
        ),
        (
            vec![header, desc(DATA, 16, TABLE)],
            "an indirect descriptor inside a chain",
        ),
        (vec![desc(DATA, 17, TABLE)], whole),
        (vec![desc(DATA, 0, TABLE)], whole),
        (
            vec![desc(DATA, 16 * 7, TABLE)],
            "a chain longer than the queue",
        ),
        (
            vec![desc(usize::MAX - BASE as usize - 100, 32, TABLE)],
            "an address that is not mapped",
        ),
        (
            vec![desc(DATA, 16, WRITE | NEXT), desc(DATA, 16, 0)],
            "a buffer to be read after one to be written",
        ),
        (vec![desc(DATA, 16, 0)], "a request without a status byte"),
        // The list does not end where the driver stopped.
        (
            vec![header, desc(DATA, 16, NEXT)],
            "a chain with a descriptor that is not available",
        ),
    ] {
        let mut rig = Rig::ready("ring=packed,queue-size=6");
        // Zeroes are a table of reads of nothing.
        rig.submit_packed(0, &chain);
        rig.kick(0);
        rig.step();
        assert_eq!(rig.control.broken(), Some(reason));
        assert_eq!(rig.status() & 64, 64);
        assert!(rig.interrupted(0));
    }
}

#[test]
fn a_packed_chain_without_end_breaks_the_device() {
    let mut rig = Rig::ready("ring=packed,queue-size=4");
    // The fifth descriptor is the first again, which is no longer available on this lap.
    let chain = [desc(DATA, 16, NEXT); 4];
    rig.submit_packed(0, &chain);
    rig.kick(0);
    rig.step();
    let reason = "a chain with a descriptor that is not available";
    assert_eq!(rig.control.broken(), Some(reason));
}

#[test]
fn a_packed_indirect_table_that_was_not_negotiated_breaks_the_device() {
    let mut rig = Rig::bare("ring=packed");
    rig.start(!INDIRECT);
    rig.submit_packed(0, &[desc(DATA, 32, TABLE)]);
    rig.kick(0);
    rig.step();
    let reason = "an indirect descriptor that was not negotiated";
    assert_eq!(rig.control.broken(), Some(reason));
}

#[test]
fn what_came_before_a_malformed_packed_request_is_completed() {
    let mut rig = Rig::ready("ring=packed");
    let ids = offer(&mut rig, 0, 2, false);
    rig.submit_packed(0, &[desc(DATA, 16, 0)]);
    rig.kick(0);
    rig.step();
    assert_eq!(drain(&mut rig, 0), ids);
    assert!(rig.control.broken().is_some());
}

#[test]
fn misaligned_packed_rings_break_the_device() {
    for wrong in [
        [BASE + 8, BASE + 0x1_0000, BASE + 0x2_0000],
        [BASE, BASE + 0x1_0002, BASE + 0x2_0000],
        [BASE, BASE + 0x1_0000, BASE + 0x2_0002],
    ] {
        let mut rig = Rig::bare("ring=packed,queues=1");
        rig.start(u64::MAX);
        rig.write(0x16, Width::Word, 0);
        rig.write(0x3a, Width::Word, 1);
        for (register, address) in [0x20, 0x28, 0x30].into_iter().zip(wrong) {
            rig.write(register, Width::Long, address as u32);
            rig.write(register + 4, Width::Long, (address >> 32) as u32);
        }
        rig.write(0x1c, Width::Word, 1);
        offer(&mut rig, 0, 1, false);
        rig.kick(0);
        rig.step();
        let reason = "a ring out of bounds or misaligned";
        assert_eq!(rig.control.broken(), Some(reason));
    }
}

#[test]
fn a_threaded_device_serves_packed_rings_and_wakes_for_them() {
    let mut rig = Rig::threaded("ring=packed,queue-size=9,queues=1");
    for round in 0..2000u16 {
        let count = 1 + round % 4;
        let ids = offer(&mut rig, 0, count, false);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        // With one event in flight a notification too many is no mistake.
        if rig.device_event(0).0 != DISABLE {
            rig.kick(0);
        }
        for id in ids {
            assert_eq!(rig.wait_used(0), (id, 1), "{round}");
        }
        if round % 500 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }
}

#[test]
fn a_packed_queue_starts_afresh_after_its_reset() {
    let mut rig = Rig::ready("ring=packed,queue-size=6");
    for _ in 0..5 {
        offer(&mut rig, 0, 1, true);
        rig.kick(0);
        rig.step();
    }
    rig.write(0x16, Width::Word, 0);
    rig.write(0x3a, Width::Word, 1);
    rig.enable(0);
    let ids = offer(&mut rig, 0, 2, false);
    rig.kick(0);
    rig.step();
    assert_eq!(drain(&mut rig, 0), ids);
}
