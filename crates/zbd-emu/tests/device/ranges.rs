//! Discard, write zeroes and secure erase, and the rest of what is not reading and writing.

use vfio_virtio::Width;
use zbd_emu::ZoneState;

use crate::driver::{
    APPEND, DATA, DISCARD, FINISH, FLUSH, GET_ID, GET_LIFETIME, IN, OPEN, OUT, REPORT, RESET, Rig,
    SECURE_ERASE, Shape, WRITE, WRITE_ZEROES, ZONED,
};

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const INVALID: u8 = 3;
const UNALIGNED: u8 = 4;
const TOO_MANY_ACTIVE: u8 = 6;

/// The segments of a request, each of first sector, number and flags.
fn segments(ranges: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sector, sectors, flags) in ranges {
        bytes.extend(sector.to_le_bytes());
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
    bytes
}

fn erase(rig: &mut Rig, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
    rig.request(kind, 0, &segments(ranges), 0).status
}

/// Which of the first `count` sectors hold anything but zeroes.
fn written(rig: &mut Rig, count: u32) -> Vec<usize> {
    let read = rig.request(IN, 0, &[], 512 * count);
    assert_eq!(read.status, OK);
    (0..count as usize)
        .filter(|sector| read.bytes[512 * sector..512 * (sector + 1)] != [0; 512])
        .collect()
}

#[test]
fn ranges_are_made_zero_and_nothing_else_is() {
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        let mut rig = Rig::ready("model=none,zones=4,zone-size=1m");
        assert_eq!(rig.request(OUT, 0, &[7; 8192], 0).status, OK);
        assert_eq!(
            erase(&mut rig, kind, &[(1, 2, 0), (9, 1, 0), (5, 0, 0)]),
            OK
        );
        assert_eq!(
            written(&mut rig, 16),
            [0, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15],
            "{kind}"
        );
        // A range may run through what would be several zones.
        assert_eq!(erase(&mut rig, kind, &[(0, 4096, 0)]), OK);
        assert!(written(&mut rig, 16).is_empty());
    }
}

#[test]
fn flags_that_a_request_does_not_know_are_unsupported() {
    let mut rig = Rig::ready("model=none,zones=4,zone-size=1m");
    assert_eq!(rig.request(OUT, 0, &[7; 8192], 0).status, OK);
    for (kind, flags, status) in [
        (WRITE_ZEROES, 2, UNSUPP),
        (WRITE_ZEROES, 3, UNSUPP),
        (DISCARD, 1, UNSUPP),
        (DISCARD, 1 << 31, UNSUPP),
        (SECURE_ERASE, 1, UNSUPP),
    ] {
        assert_eq!(erase(&mut rig, kind, &[(0, 8, 0), (8, 8, flags)]), status);
        // Not even the segment before has been carried out.
        assert_eq!(written(&mut rig, 16).len(), 16, "{kind} {flags}");
    }
    assert_eq!(erase(&mut rig, WRITE_ZEROES, &[(0, 8, 1)]), OK);
    assert_eq!(written(&mut rig, 16).len(), 8);
}

#[test]
fn ranges_beyond_the_device_or_a_limit_are_io_errors() {
    let mut rig = Rig::ready("model=none,zones=64,zone-size=1m");
    assert_eq!(rig.request(OUT, 0, &[7; 4096], 0).status, OK);
    let end = 64 * 2048;
    for (kind, most_sectors, most_segments) in [
        (DISCARD, 1 << 15, 32),
        (WRITE_ZEROES, 1 << 14, 8),
        (SECURE_ERASE, 1 << 13, 4),
    ] {
        let empty: Vec<_> = (0..=most_segments).map(|_| (4096, 8, 0)).collect();
        for ranges in [
            &[][..],
            &[(0, 8, 0), (end - 1, 2, 0)],
            &[(0, 8, 0), (u64::MAX, 1, 0)],
            &[(0, 8, 0), (0, most_sectors + 1, 0)],
            &empty,
        ] {
            assert_eq!(erase(&mut rig, kind, ranges), IOERR, "{kind} {ranges:?}");
        }
        assert_eq!(written(&mut rig, 8).len(), 8);
        let ragged = rig.request(kind, 0, &[0; 17], 0);
        assert_eq!(ragged.status, IOERR);
        assert_eq!(erase(&mut rig, kind, &empty[1..]), OK);
        assert_eq!(erase(&mut rig, kind, &[(8, most_sectors, 0)]), OK);
        assert_eq!(erase(&mut rig, kind, &[(end - 1, 1, 0)]), OK);
    }
}

#[test]
fn the_configuration_tells_the_limits_of_what_is_offered() {
    let fields = |options: &str| {
        let rig = Rig::bare(options);
        (0x24..0x48)
            .step_by(4)
            .map(|offset| rig.read(0x2000 + offset, Width::Long))
            .collect::<Vec<_>>()
    };
    let [discard, zeroes, erase] = [[32768, 32, 8], [16384, 8, 1], [8192, 4, 8]];
    let none = [0; 3];
    for (options, expected) in [
        ("", [none, zeroes, none]),
        ("discard=on", [discard, zeroes, none]),
        ("model=ha", [discard, zeroes, none]),
        ("model=none", [discard, zeroes, erase]),
        (
            "model=none,write-zeroes=off,discard=off",
            [none, none, erase],
        ),
    ] {
        assert_eq!(fields(options), expected.concat(), "{options}");
        let rig = Rig::bare(options);
        let offered = rig.offered();
        for (bit, limits) in [13, 14, 16].into_iter().zip(expected) {
            assert_eq!(offered >> bit & 1 == 1, limits != none, "{options} {bit}");
        }
    }
}

#[test]
fn a_zoned_device_tells_that_it_erases_whole_zones() {
    let limits = |rig: &Rig| [0x3c, 0x40, 0x44].map(|at| rig.read(0x2000 + at, Width::Long));
    for model in ["hm", "ha"] {
        for (zone_size, expected) in [
            ("1m", [8192, 4, 2048]),
            // Two zones have room, three have not.
            ("1536k", [6144, 4, 3072]),
            ("4m", [8192, 4, 8192]),
            ("5m", [10240, 4, 10240]),
        ] {
            let options = format!("model={model},zones=4,zone-size={zone_size},secure-erase=on");
            let mut rig = Rig::bare(&options);
            assert_eq!(limits(&rig), expected, "{options}");
            if model == "ha" {
                rig.start(!ZONED);
                assert_eq!(limits(&rig), expected, "{options}");
            }
        }
    }
    let plain = Rig::bare("model=none,zones=4,zone-size=5m,block-size=512");
    assert_eq!(limits(&plain), [8192, 4, 1]);
}

#[test]
fn zeroes_are_written_at_the_write_pointer_of_a_sequential_zone() {
    let mut rig = Rig::ready("zones=4,zone-size=1m,conventional=1,max-open=1");
    assert_eq!(rig.request(APPEND, 2048, &[7; 4096], 0).sector(), 2048);
    let zeroes = WRITE_ZEROES;
    assert_eq!(erase(&mut rig, zeroes, &[(2048, 8, 0)]), UNALIGNED);
    assert_eq!(erase(&mut rig, zeroes, &[(2056, 7, 0)]), UNALIGNED);
    assert_eq!(erase(&mut rig, zeroes, &[(2056, 8, 0), (2064, 16, 1)]), OK);
    assert_eq!(rig.request(APPEND, 2048, &[7; 4096], 0).sector(), 2080);
    assert_eq!(erase(&mut rig, zeroes, &[(2088, 2048, 0)]), INVALID);
    // To the end of the zone: it is full.
    assert_eq!(erase(&mut rig, zeroes, &[(2088, 2008, 0)]), OK);
    assert_eq!(rig.control.zone_state(1), Some(ZoneState::Full));
    assert_eq!(erase(&mut rig, zeroes, &[(2048, 8, 0)]), INVALID);
    // In a conventional zone anywhere.
    assert_eq!(rig.request(OUT, 100, &[7; 512], 0).status, OK);
    assert_eq!(erase(&mut rig, zeroes, &[(100, 1, 0)]), OK);
    assert!(written(&mut rig, 200).is_empty());
    // What a reset zone held before does not show through.
    assert_eq!(rig.command(24, 2048), OK);
    assert_eq!(erase(&mut rig, zeroes, &[(2048, 8, 0)]), OK);
    assert_eq!(rig.request(IN, 2048, &[], 4096).bytes[..4096], [0; 4096]);
}

#[test]
fn zeroes_written_beyond_a_host_aware_write_pointer_leave_no_old_data() {
    let mut rig = Rig::ready("zones=2,zone-size=1m,model=ha");
    assert_eq!(rig.request(OUT, 0, &[5; 8192], 0).status, OK);
    assert_eq!(rig.command(24, 0), OK);
    assert_eq!(erase(&mut rig, WRITE_ZEROES, &[(8, 8, 0)]), OK);
    assert!(written(&mut rig, 24).is_empty());
}

#[test]
fn discard_leaves_write_pointers_where_they_are() {
    let mut rig = Rig::ready("zones=4,zone-size=1m,discard=on");
    assert_eq!(rig.request(APPEND, 0, &[7; 8192], 0).status, OK);
    assert_eq!(erase(&mut rig, DISCARD, &[(0, 8, 0)]), OK);
    assert_eq!(written(&mut rig, 16).len(), 8);
    assert_eq!(rig.request(APPEND, 0, &[7; 4096], 0).sector(), 16);
    rig.control.fail_zone(1, ZoneState::ReadOnly).unwrap();
    assert_eq!(erase(&mut rig, DISCARD, &[(2040, 8, 0)]), OK);
    assert_eq!(erase(&mut rig, DISCARD, &[(2040, 9, 0)]), INVALID);
}

#[test]
fn secure_erase_resets_the_zones_that_it_names() {
    let limits = "max-open=3,max-active=3";
    let zones = "size=5632k,zone-size=1m,zone-cap=512k,conventional=1";
    let mut rig = Rig::ready(&format!("{zones},{limits},secure-erase=on"));
    assert_eq!(rig.request(OUT, 2040, &[7; 4096], 0).status, OK);
    let data = |zone: u64, rig: &mut Rig| rig.request(APPEND, 2048 * zone, &[7; 4096], 0).status;
    assert_eq!(data(1, &mut rig), OK);
    assert_eq!(rig.command(OPEN, 2 * 2048), OK);
    assert_eq!(rig.command(FINISH, 3 * 2048), OK);
    assert_eq!(data(5, &mut rig), OK);
    assert_eq!(data(4, &mut rig), TOO_MANY_ACTIVE);
    // Two zones each; the last one is half as long as the others.
    let most = [(0, 4096, 0), (4 * 2048, 2048 + 1024, 0)];
    assert_eq!(erase(&mut rig, SECURE_ERASE, &most), OK);
    let states = |rig: &Rig| {
        (0..6)
            .map(|i| rig.control.zone_state(i))
            .collect::<Vec<_>>()
    };
    let (conventional, empty) = (ZoneState::NotWritePointer, ZoneState::Empty);
    let (open, full) = (ZoneState::ExplicitlyOpen, ZoneState::Full);
    let expected = [conventional, empty, open, full, empty, empty];
    assert_eq!(states(&rig), expected.map(Some));
    assert_eq!(rig.request(IN, 2040, &[], 4096).bytes, [0; 4097]);
    // Write pointers are back and resources free again.
    for zone in [1, 5] {
        let appended = rig.request(APPEND, 2048 * zone, &[7; 4096], 0);
        assert_eq!((appended.status, appended.sector()), (OK, 2048 * zone));
    }
    assert_eq!(data(4, &mut rig), TOO_MANY_ACTIVE);
    assert_eq!(
        erase(&mut rig, SECURE_ERASE, &[(2 * 2048, 2 * 2048, 0)]),
        OK
    );
    assert_eq!(rig.control.zone_state(2), Some(empty));
    assert_eq!(rig.control.zone_state(3), Some(empty));
    assert_eq!(data(4, &mut rig), OK);
    assert_eq!(data(3, &mut rig), TOO_MANY_ACTIVE);
}

#[test]
fn secure_erase_empties_a_host_aware_zone_whether_the_driver_knows_of_zones_or_not() {
    for features in [u64::MAX, !ZONED] {
        let mut rig = Rig::bare("model=ha,zones=4,zone-size=1m,secure-erase=on");
        rig.start(features);
        assert_eq!(rig.request(OUT, 2048, &[7; 4096], 0).status, OK);
        assert_eq!(erase(&mut rig, SECURE_ERASE, &[(2048, 8, 0)]), INVALID);
        assert_eq!(erase(&mut rig, SECURE_ERASE, &[(2048, 2048, 0)]), OK);
        assert_eq!(rig.control.zone_state(1), Some(ZoneState::Empty));
        assert_eq!(rig.request(IN, 2048, &[], 4096).bytes, [0; 4097]);
    }
}

#[test]
fn a_secure_erase_of_anything_but_whole_zones_changes_nothing() {
    // Three zones and a half.
    let end = 7 * 1024;
    let mut rig = Rig::ready("size=3584k,zone-size=1m,conventional=1,secure-erase=on");
    let filled = |rig: &mut Rig| {
        assert_eq!(rig.request(OUT, 0, &[7; 4096], 0).status, OK);
        assert_eq!(rig.command(RESET, 2048), OK);
        assert_eq!(rig.request(APPEND, 2048, &[7; 4096], 0).status, OK);
    };
    filled(&mut rig);
    let whole = (0, 4096, 0);
    for (range, status) in [
        ((2048, 8, 0), INVALID),
        ((2048, 1024, 0), INVALID),
        ((2056, 2040, 0), INVALID),
        ((2056, 2048, 0), INVALID),
        ((2047, 2049, 0), INVALID),
        ((8, 0, 0), INVALID),
        ((end - 1024, 1016, 0), INVALID),
        ((end - 8, 8, 0), INVALID),
        ((end - 1024, 2048, 0), IOERR),
        ((0, 8192, 0), IOERR),
        ((2048, 8, 1), UNSUPP),
    ] {
        assert_eq!(
            erase(&mut rig, SECURE_ERASE, &[whole, range]),
            status,
            "{range:?}"
        );
        assert_eq!(written(&mut rig, 8).len(), 8, "{range:?}");
        let zone = rig.control.zone_state(1);
        assert_eq!(zone, Some(ZoneState::ImplicitlyOpen), "{range:?}");
    }
    // Nothing is whole too, where zones begin and where the device ends.
    let nothing = [(0, 0, 0), (2048, 0, 0), (end, 0, 0)];
    assert_eq!(erase(&mut rig, SECURE_ERASE, &nothing), OK);
    assert_eq!(written(&mut rig, 8).len(), 8);
    // What is beyond the range is left alone.
    assert_eq!(
        erase(&mut rig, SECURE_ERASE, &[(4096, end as u32 - 4096, 0)]),
        OK
    );
    assert_eq!(rig.control.zone_state(1), Some(ZoneState::ImplicitlyOpen));
    assert_eq!(erase(&mut rig, SECURE_ERASE, &[whole]), OK);
    assert!(written(&mut rig, 8).is_empty());
}

#[test]
fn a_secure_erase_of_a_failed_zone_changes_nothing() {
    for state in [ZoneState::ReadOnly, ZoneState::Offline] {
        let mut rig = Rig::ready("zones=4,zone-size=1m,conventional=1,secure-erase=on");
        assert_eq!(rig.request(OUT, 0, &[7; 4096], 0).status, OK);
        assert_eq!(rig.request(APPEND, 2048, &[7; 4096], 0).status, OK);
        assert_eq!(rig.request(APPEND, 6144, &[7; 4096], 0).status, OK);
        rig.control.fail_zone(3, state).unwrap();
        for ranges in [
            &[(0, 8192, 0)][..],
            &[(0, 4096, 0), (6144, 2048, 0)],
            &[(0, 4096, 0), (4096, 4096, 0)],
        ] {
            assert_eq!(erase(&mut rig, SECURE_ERASE, ranges), INVALID);
            assert_eq!(written(&mut rig, 8).len(), 8);
            let zone = rig.control.zone_state(1);
            assert_eq!(zone, Some(ZoneState::ImplicitlyOpen));
            assert_eq!(rig.control.zone_state(3), Some(state));
        }
        assert_eq!(erase(&mut rig, SECURE_ERASE, &[(0, 6144, 0)]), OK);
        assert_eq!(rig.control.zone_state(1), Some(ZoneState::Empty));
        assert!(written(&mut rig, 8).is_empty());
    }
}

#[test]
fn the_lifetime_has_three_numbers() {
    let mut rig = Rig::ready("");
    let answer = rig.request(GET_LIFETIME, 0, &[], 6);
    assert_eq!(answer.bytes, [1, 0, 2, 0, 3, 0, 0]);
    let long = rig.request(GET_LIFETIME, 0, &[], 8);
    assert_eq!(long.bytes, [1, 0, 2, 0, 3, 0, 0, 0, 0]);
    assert_eq!(
        rig.request(GET_LIFETIME, 0, &[], 5).bytes,
        [0, 0, 0, 0, 0, 1]
    );
}

#[test]
fn the_serial_is_what_was_configured() {
    let mut rig = Rig::ready("serial=12345678901234567890");
    let id = rig.request(GET_ID, 0, &[], 20);
    assert_eq!(&id.bytes[..20], b"12345678901234567890");
    let mut rig = Rig::ready("serial=");
    assert_eq!(rig.request(GET_ID, 0, &[], 20).bytes, [0; 21]);
}

#[test]
fn a_read_only_device_changes_nothing() {
    let mut rig = Rig::ready("readonly=on,discard=on,secure-erase=on,conventional=1,zone-size=1m");
    assert_eq!(rig.offered() >> 5 & 1, 1);
    assert_eq!(rig.request(OUT, 0, &[7; 4096], 0).status, IOERR);
    assert_eq!(rig.request(APPEND, 2048, &[7; 4096], 0).status, IOERR);
    for kind in [18, 20, 22, 24, 26] {
        assert_eq!(rig.command(kind, 2048), IOERR, "{kind}");
    }
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        assert_eq!(erase(&mut rig, kind, &[(0, 8, 0)]), IOERR);
    }
    assert_eq!(rig.control.zone_state(1), Some(ZoneState::Empty));
    assert!(written(&mut rig, 8).is_empty());
    assert_eq!(rig.request(REPORT, 0, &[], 128).status, OK);
    assert_eq!(rig.request(GET_ID, 0, &[], 20).status, OK);
    assert_eq!(rig.request(GET_LIFETIME, 0, &[], 6).status, OK);
    assert_eq!(rig.command(FLUSH, 0), OK);
    assert_eq!(Rig::bare("").offered() >> 5 & 1, 0);
}

#[test]
fn data_are_held_to_the_limits_of_segments_where_these_are_given() {
    let mut rig = Rig::ready("seg-max=3,size-max=4k,max-append=12k");
    assert_eq!(rig.offered() >> 1 & 1, 1);
    assert_eq!(rig.read(0x2008, Width::Long), 4096);
    assert_eq!(rig.read(0x200c, Width::Long), 3);
    let mut read = |pieces: &[u32]| {
        rig.put_header(DATA, IN, 0);
        let mut parts = vec![(DATA, 16, 0)];
        let mut at = DATA + 16;
        for len in pieces {
            parts.push((at, *len, WRITE));
            at += *len as usize;
        }
        parts.push((at, 1, WRITE));
        rig.submit(0, &parts, Shape::Direct);
        rig.kick(0);
        rig.step();
        assert!(rig.take_used(0).is_some());
        rig.arena.read(at, 1)[0]
    };
    assert_eq!(read(&[4096, 4096, 4096]), OK);
    assert_eq!(read(&[512, 512, 512, 512]), IOERR);
    assert_eq!(read(&[4608]), IOERR);
    assert_eq!(rig.request(OUT, 0, &[0; 8192], 0).status, IOERR);
    assert_eq!(rig.control.zone_state(0), Some(ZoneState::Empty));
    let plain = Rig::bare("");
    assert_eq!(plain.offered() >> 1 & 1, 0);
    assert_eq!(plain.read(0x2008, Width::Long), 0);
}

#[test]
fn a_device_without_flush_has_no_cache_to_switch() {
    let rig = Rig::bare("flush=off");
    assert_eq!(rig.offered() & (1 << 9 | 1 << 11), 0);
    let rig = Rig::ready("flush=off");
    assert_eq!(rig.read(0x2020, Width::Byte), 0);
    rig.write(0x2020, Width::Byte, 1);
    assert_eq!(rig.read(0x2020, Width::Byte), 0);
}
