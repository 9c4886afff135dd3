//! Faults that are asked for happen once.

use zbd_emu::{Fault, ZoneState};

use crate::driver::{APPEND, DATA, FLUSH, IN, OUT, REPORT, RESET, RESET_ALL, Rig, Shape, WRITE};

#[test]
fn an_append_reports_a_sector_that_is_not_its_own_once() {
    let mut rig = Rig::ready("");
    rig.control.inject(Fault::AppendSector(131_072));
    let answer = rig.request(APPEND, 0, &[1; 4096], 0);
    assert_eq!((answer.status, answer.sector()), (0, 131_072));
    assert_eq!(rig.request(APPEND, 0, &[1; 4096], 0).sector(), 8);
}

#[test]
fn a_request_that_fails_by_order_is_not_carried_out() {
    let mut rig = Rig::ready("");
    rig.control.inject(Fault::Status(1));
    assert_eq!(rig.request(APPEND, 0, &[1; 4096], 0).status, 1);
    assert_eq!(rig.request(APPEND, 0, &[1; 4096], 0).sector(), 0);
}

#[test]
fn used_elements_are_falsified() {
    let mut rig = Rig::ready("queue-size=16");
    rig.put_header(DATA, FLUSH, 0);
    rig.lay_out(0, 0, DATA, 0, &[1]);
    for fault in [
        Fault::UsedId(77),
        Fault::UsedLen(9),
        Fault::UsedIndexJump(5),
    ] {
        rig.control.inject(fault);
        rig.offer(0, 0);
        rig.kick(0);
        rig.step();
    }
    assert_eq!(rig.take_used(0), Some((77, 1)));
    assert_eq!(rig.take_used(0), Some((0, 9)));
    assert_eq!(rig.used_index(0), 3 + 5);
}

#[test]
fn used_descriptors_of_a_packed_ring_are_falsified() {
    let mut rig = Rig::ready("ring=packed,queue-size=16");
    rig.put_header(DATA, FLUSH, 0);
    for fault in [
        Fault::UsedId(0x1_0077),
        Fault::UsedLen(9),
        Fault::UsedIndexJump(5),
        Fault::UsedLen(8),
    ] {
        rig.control.inject(fault);
        let parts = [(DATA, 16, 0), (DATA + 16, 1, WRITE)];
        rig.submit(0, &parts, Shape::Direct);
        rig.kick(0);
        rig.step();
    }
    let used = |slot: usize| rig.arena.read(16 * slot + 8, 8);
    assert_eq!(used(0), [1, 0, 0, 0, 0x77, 0, 0x82, 0x80]);
    assert_eq!(used(2)[..4], [9, 0, 0, 0]);
    assert_eq!(used(4)[..4], [1, 0, 0, 0]);
    // What was expected at 6 is 5 further on.
    assert_eq!(used(11)[..4], [8, 0, 0, 0]);
    assert_eq!(used(11)[6..], [0x82, 0x80]);
}

#[test]
fn failed_zones_refuse_what_they_must() {
    let mut rig = Rig::ready("zones=4,zone-size=1m,max-open=1,max-active=1");
    assert_eq!(rig.request(APPEND, 0, &[9; 4096], 0).status, 0);
    rig.control.fail_zone(0, ZoneState::ReadOnly).unwrap();
    // Its resources are free again.
    assert_eq!(rig.request(APPEND, 2048, &[9; 4096], 0).status, 0);
    assert_eq!(rig.request(APPEND, 0, &[9; 4096], 0).status, 3);
    assert_eq!(rig.request(OUT, 8, &[9; 4096], 0).status, 3);
    assert_eq!(rig.command(RESET, 0), 3);
    assert_eq!(rig.command(RESET_ALL, 0), 0);
    let read = rig.request(IN, 0, &[], 8192);
    assert_eq!(read.status, 0);
    assert!(read.bytes[..4096].iter().all(|byte| *byte == 9));
    assert!(read.bytes[4096..].iter().all(|byte| *byte == 0));
    rig.control.fail_zone(0, ZoneState::Offline).unwrap();
    assert_eq!(rig.request(IN, 0, &[], 4096).status, 3);
    let report = rig.request(REPORT, 0, &[], 128);
    assert_eq!(report.bytes[64 + 25], 15);
    assert!(rig.control.fail_zone(0, ZoneState::ReadOnly).is_err());
    assert!(rig.control.fail_zone(1, ZoneState::Full).is_err());
    assert!(rig.control.fail_zone(4, ZoneState::Offline).is_err());
}

/// Two blocks whose sectors differ, and from those of other tags.
fn blocks(tag: u8) -> Vec<u8> {
    (0..16).flat_map(|sector| [tag + sector; 512]).collect()
}

fn stored(rig: &mut Rig, sector: u64, len: u32) -> Vec<u8> {
    let read = rig.request(IN, sector, &[], len);
    assert_eq!(read.status, 0);
    read.bytes[..len as usize].to_vec()
}

/// A device in memory, and one in a file behind a cache that holds no more than two blocks.
fn with_fault(fault: &str, test: impl Fn(&mut Rig)) {
    let directory = tempfile::tempdir().unwrap();
    let shape = "zones=4,zone-size=64k";
    let path = directory.path().join("disk");
    let file = format!("{shape},fault={fault},store={},cache=8k", path.display());
    test(&mut Rig::ready(&format!("{shape},fault={fault}")));
    test(&mut Rig::ready(&file));
}

/// Appends so often, and where the appends say that they landed.
fn append(rig: &mut Rig, tags: &[u8]) -> Vec<u64> {
    tags.iter()
        .map(|tag| {
            let answer = rig.request(APPEND, 0, &blocks(*tag), 0);
            assert_eq!(answer.status, 0);
            answer.sector()
        })
        .collect()
}

fn write_pointer(rig: &mut Rig) -> u64 {
    let report = rig.request(REPORT, 0, &[], 128);
    u64::from_le_bytes(report.bytes[80..88].try_into().unwrap())
}

#[test]
fn one_bit_of_one_write_is_flipped() {
    with_fault("flip-bit@2", |rig| {
        assert_eq!(append(rig, &[1, 50, 100]), [0, 16, 32]);
        assert_eq!(stored(rig, 0, 8192), blocks(1));
        assert_eq!(stored(rig, 32, 8192), blocks(100));
        let (expected, found) = (blocks(50), stored(rig, 16, 8192));
        let wrong: u32 = expected
            .iter()
            .zip(&found)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(wrong, 1);
        // A write is as good as an append.
        assert_eq!(rig.request(OUT, 48, &blocks(7), 0).status, 0);
        assert_eq!(stored(rig, 48, 8192), blocks(7));
    });
    let mut rig = Rig::ready("fault=flip-bit@every:1");
    assert_eq!(rig.request(OUT, 0, &blocks(7), 0).status, 0);
    assert_ne!(stored(&mut rig, 0, 8192), blocks(7));
}

#[test]
fn the_outer_sectors_of_one_write_change_places() {
    with_fault("swap-sectors@1", |rig| {
        append(rig, &[1, 50]);
        let mut swapped = blocks(1);
        swapped[..512].fill(16);
        swapped[512 * 15..].fill(1);
        assert_eq!(stored(rig, 0, 8192), swapped);
        assert_eq!(stored(rig, 16, 8192), blocks(50));
    });
}

#[test]
fn the_data_of_one_write_are_lost() {
    with_fault("lose-data@2", |rig| {
        assert_eq!(append(rig, &[1, 50, 100]), [0, 16, 32]);
        assert_eq!(write_pointer(rig), 48);
        assert_eq!(stored(rig, 16, 8192), [0; 8192]);
        assert_eq!(stored(rig, 32, 8192), blocks(100));
    });
    // What was there before the zone was reset comes back.
    with_fault("lose-data@2", |rig| {
        append(rig, &[1]);
        assert_eq!(rig.command(RESET, 0), 0);
        append(rig, &[50]);
        assert_eq!(stored(rig, 0, 8192), blocks(1));
    });
}

#[test]
fn an_append_is_lost_and_the_next_takes_its_place() {
    with_fault("lose-append@2", |rig| {
        assert_eq!(append(rig, &[1, 50, 100]), [0, 16, 16]);
        assert_eq!(write_pointer(rig), 32);
        assert_eq!(stored(rig, 16, 8192), blocks(100));
    });
}

#[test]
fn an_append_is_carried_out_twice() {
    with_fault("repeat-append@2", |rig| {
        assert_eq!(append(rig, &[1, 50, 100]), [0, 32, 48]);
        assert_eq!(write_pointer(rig), 64);
        assert_eq!(stored(rig, 16, 8192), blocks(50));
        assert_eq!(stored(rig, 32, 8192), blocks(50));
    });
}

#[test]
fn an_append_reports_the_block_before_its_own() {
    with_fault("misreport@1", |rig| {
        assert_eq!(append(rig, &[1, 50, 100]), [0, 8, 32]);
        assert_eq!(stored(rig, 16, 8192), blocks(50));
    });
}
