//! Use in order: one used element for a batch.

use crate::driver::{BASE, DATA, Desc, FLUSH, IN_ORDER, NEXT, Rig, Shape, TABLE, WRITE};
use zbd_emu::Fault;

/// Offers `count` reads of nothing with answers of different lengths.
fn offer(rig: &mut Rig, count: u16) -> Vec<(u32, u32)> {
    (0..count)
        .map(|i| {
            let at = DATA + 64 * usize::from(i);
            rig.put_header(at, 8, 0);
            let len = 1 + u32::from(i);
            let parts = [(at, 16, 0), (at + 16, len, WRITE)];
            (rig.submit(0, &parts, Shape::Direct).into(), len)
        })
        .collect()
}

#[test]
fn order_is_offered_when_asked_for() {
    assert_eq!(Rig::bare("").offered() & IN_ORDER, 0);
    assert_eq!(Rig::bare("in-order=on").offered() & IN_ORDER, IN_ORDER);
}

#[test]
fn one_used_element_stands_for_a_batch() {
    for ring in ["split", "packed"] {
        let mut rig = Rig::ready(&format!("ring={ring},in-order=on,queue-size=16"));
        for lap in 0..500u16 {
            let count = 1 + lap % 8;
            let offered = offer(&mut rig, count);
            rig.kick(0);
            rig.step();
            // Id and length are those of the last; taking it retires them all.
            assert_eq!(rig.take_used(0), offered.last().copied(), "{ring} {lap}");
            assert_eq!(rig.take_used(0), None, "{ring} {lap}");
            assert!(rig.queues[0].outstanding.is_empty());
        }
        assert_eq!(rig.control.broken(), None);
    }
}

#[test]
fn the_split_element_lies_at_the_first_place_of_the_batch() {
    let mut rig = Rig::ready("in-order=on,queue-size=16");
    rig.arena.write(0x2_0004, &[0xee; 64]);
    offer(&mut rig, 3);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.used_index(0), 3);
    assert_eq!(rig.arena.read(0x2_0004, 8), [4, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(rig.arena.read(0x2_000c, 8), [0xee; 8]);
}

#[test]
fn the_packed_descriptor_lies_at_the_first_place_of_the_batch() {
    let mut rig = Rig::ready("ring=packed,in-order=on,queue-size=16");
    let offered = offer(&mut rig, 3);
    let before = rig.arena.read(16, 240);
    rig.kick(0);
    rig.step();
    let (id, len) = offered[2];
    let mut expected = (u64::from(len) | u64::from(id) << 32).to_le_bytes();
    expected[6..].copy_from_slice(&0x8082u16.to_le_bytes());
    assert_eq!(rig.arena.read(8, 8), expected);
    assert_eq!(rig.arena.read(16, 240), before);
}

#[test]
fn a_fault_is_seen_although_later_requests_follow_it() {
    for ring in ["split", "packed"] {
        let mut rig = Rig::ready(&format!("ring={ring},in-order=on,queue-size=16"));
        let offered = offer(&mut rig, 2);
        rig.kick(0);
        rig.control.inject(Fault::UsedLen(99));
        rig.step();
        assert_eq!(rig.take_used(0), Some((offered[0].0, 99)), "{ring}");
        assert_eq!(rig.take_used(0), Some(offered[1]), "{ring}");
    }
}

#[test]
fn requests_held_back_are_completed_as_a_batch_too() {
    for ring in ["split", "packed"] {
        let mut rig = Rig::ready(&format!(
            "ring={ring},in-order=on,queue-size=16,latency=200us"
        ));
        let offered = offer(&mut rig, 4);
        rig.kick(0);
        rig.step();
        let mut last = None;
        while let Some(used) = rig.take_used(0) {
            last = Some(used);
        }
        assert_eq!(last, offered.last().copied(), "{ring}");
    }
}

#[test]
fn descriptors_out_of_ring_order_break_a_split_device() {
    let desc = |offset: usize, len, flags, next| Desc {
        address: BASE + offset as u64,
        len,
        flags,
        next,
    };
    let reason = "descriptors out of ring order though order was negotiated";
    let ready = || {
        let rig = Rig::ready("in-order=on,queue-size=16");
        rig.put_header(DATA, FLUSH, 0);
        rig
    };
    // A head that is not the next.
    let mut rig = ready();
    rig.lay_out(0, 2, DATA, 0, &[1]);
    assert_eq!(rig.breaks_with(2), reason);
    // A chain with a gap.
    let mut rig = ready();
    rig.set_desc(0, 0, desc(DATA, 16, NEXT, 2));
    rig.set_desc(0, 2, desc(DATA + 16, 1, WRITE, 0));
    assert_eq!(rig.breaks_with(0), reason);
    // An indirect table with a gap.
    let mut rig = ready();
    let table = [
        desc(DATA, 16, NEXT, 2),
        desc(0, 0, 0, 0),
        desc(DATA + 16, 1, WRITE, 0),
    ];
    for (i, entry) in table.iter().enumerate() {
        rig.arena.write(DATA + 0x1000 + 16 * i, &entry.bytes());
    }
    rig.set_desc(0, 0, desc(DATA + 0x1000, 48, TABLE, 0));
    assert_eq!(rig.breaks_with(0), reason);
}

#[test]
fn a_chain_wraps_around_the_end_of_the_split_table() {
    let mut rig = Rig::ready("in-order=on,queue-size=8");
    for lap in 0..50 {
        rig.put_header(DATA, FLUSH, 0);
        let parts = [(DATA, 5, 0), (DATA + 5, 11, 0), (DATA + 16, 1, WRITE)];
        let head = rig.submit(0, &parts, Shape::Direct);
        rig.kick(0);
        rig.step();
        assert_eq!(rig.take_used(0), Some((head.into(), 1)), "{lap}");
    }
}
