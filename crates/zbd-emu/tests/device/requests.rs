//! Requests of every type, in every shape of buffers.

use proptest::prelude::*;

use crate::driver::{
    APPEND, BASE, DATA, Desc, FLUSH, GET_ID, IN, NEXT, OUT, REPORT, Rig, WRITE, ZONED,
};

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

#[test]
fn what_was_appended_is_read_back() {
    let mut rig = Rig::ready("zones=4,zone-size=1m");
    let (first, second) = (pattern(1, 8192), pattern(2, 4096));
    assert_eq!(rig.request(APPEND, 2048, &first, 0).sector(), 2048);
    let answer = rig.request(APPEND, 2048, &second, 0);
    assert_eq!(
        (answer.status, answer.sector(), answer.used_len),
        (0, 2064, 9)
    );
    let read = rig.request(IN, 2048, &[], 16384);
    assert_eq!((read.status, read.used_len), (0, 16385));
    assert_eq!(read.bytes[..8192], first);
    assert_eq!(read.bytes[8192..12288], second);
    assert!(read.bytes[12288..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_reset_zone_reads_as_zeroes() {
    let mut rig = Rig::ready("zones=4,zone-size=1m");
    assert_eq!(rig.request(OUT, 0, &pattern(1, 8192), 0).status, 0);
    assert_eq!(rig.command(24, 0), 0);
    assert_eq!(rig.request(OUT, 0, &pattern(2, 4096), 0).status, 0);
    let read = rig.request(IN, 0, &[], 8192);
    assert_eq!(read.bytes[..4096], pattern(2, 4096));
    assert!(read.bytes[4096..].iter().all(|byte| *byte == 0));
    // Finishing leaves the rest of the zone unwritten.
    assert_eq!(rig.command(22, 0), 0);
    let read = rig.request(IN, 8, &[], 4096);
    assert!(read.bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn the_null_store_keeps_zones_and_no_data() {
    let mut rig = Rig::ready("store=null");
    assert_eq!(rig.request(APPEND, 0, &pattern(1, 4096), 0).sector(), 0);
    assert_eq!(rig.request(APPEND, 0, &pattern(1, 4096), 0).sector(), 8);
    let read = rig.request(IN, 0, &[], 4096);
    assert!(read.bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn a_report_counts_the_zones_that_fit() {
    let mut rig = Rig::ready("size=5m,zone-size=1m,conventional=1");
    assert_eq!(rig.request(APPEND, 2048, &[1; 4096], 0).status, 0);
    let report = rig.request(REPORT, 2049, &[], 64 + 2 * 64 + 63);
    assert_eq!((report.status, report.used_len), (0, 64 + 2 * 64 + 63 + 1));
    let long = |at: usize| u64::from_le_bytes(report.bytes[at..at + 8].try_into().unwrap());
    assert_eq!(long(0), 2);
    assert_eq!([long(64), long(72), long(80)], [2048, 2048, 2056]);
    assert_eq!(report.bytes[88..90], [2, 2]);
    assert_eq!([long(128), long(136), long(144)], [2048, 4096, 4096]);
    assert_eq!(report.bytes[152..154], [2, 1]);
    assert!(report.bytes[192..].iter().all(|byte| *byte == 0));
    let first = rig.request(REPORT, 0, &[], 4096);
    assert_eq!(first.bytes[0], 5);
    assert_eq!(first.bytes[88..90], [1, 0]);
}

#[test]
fn a_report_of_a_header_alone_has_no_zones_and_a_smaller_one_is_invalid() {
    let mut rig = Rig::ready("");
    let header = rig.request(REPORT, 0, &[], 64);
    assert_eq!((header.status, header.bytes[0]), (0, 0));
    assert_eq!(rig.request(REPORT, 0, &[], 63).status, 3);
    assert_eq!(rig.request(REPORT, u64::MAX, &[], 4096).status, 3);
}

#[test]
fn the_id_is_padded_with_zeroes() {
    let mut rig = Rig::ready("");
    let id = rig.request(GET_ID, 0, &[], 20);
    assert_eq!(&id.bytes[..20], b"zbd-emu\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!((id.status, id.used_len), (0, 21));
}

#[test]
fn types_that_are_not_offered_are_unsupported() {
    let mut rig = Rig::ready("write-zeroes=off,lifetime=off,flush=off");
    for kind in [2, 4, 10, 11, 13, 14, 17, 28, u32::MAX] {
        assert_eq!(rig.request(kind, 0, &[0; 16], 0).status, 2, "{kind}");
    }
    // What is offered but was not accepted is no better.
    let mut rig = Rig::bare("model=none");
    rig.start((1 << 32) | (1 << 33));
    for kind in [4, 10, 11, 13, 14] {
        assert_eq!(rig.request(kind, 0, &[0; 16], 0).status, 2, "{kind}");
    }
}

#[test]
fn zone_requests_are_unsupported_where_zoned_was_not_negotiated() {
    for options in ["model=none", "model=ha"] {
        let mut rig = Rig::bare(options);
        rig.start(!ZONED);
        for kind in [APPEND, REPORT, 18, 20, 22, 24, 26] {
            assert_eq!(rig.request(kind, 0, &[], 4096).status, 2, "{kind}");
        }
        assert_eq!(rig.request(OUT, 12_345, &pattern(3, 1024), 0).status, 0);
        assert_eq!(
            rig.request(IN, 12_345, &[], 1024).bytes[..1024],
            pattern(3, 1024)
        );
    }
}

#[test]
fn ranges_beyond_the_device_and_fractions_of_sectors_are_io_errors() {
    let mut rig = Rig::ready("zones=4,zone-size=1m,conventional=4");
    assert_eq!(rig.request(IN, 8191, &[], 1024).status, 1);
    assert_eq!(rig.request(OUT, 8192, &[0; 512], 0).status, 1);
    assert_eq!(rig.request(OUT, u64::MAX, &[0; 512], 0).status, 1);
    assert_eq!(rig.request(IN, 0, &[], 511).status, 1);
    assert_eq!(rig.request(OUT, 0, &[0; 513], 0).status, 1);
    let failed = rig.request(IN, 9000, &[], 512);
    assert_eq!(
        (failed.used_len, &failed.bytes[..512]),
        (513, &[0; 512][..])
    );
}

#[test]
fn appends_are_held_to_their_largest_size() {
    let mut rig = Rig::ready("max-append=8k");
    assert_eq!(rig.request(APPEND, 0, &[0; 12288], 0).status, 3);
    assert_eq!(rig.request(APPEND, 0, &[0; 8192], 0).status, 0);
    let mut none = Rig::ready("max-append=0");
    assert_eq!(none.request(APPEND, 0, &[0; 4096], 0).status, 2);
}

#[test]
fn requests_of_no_data_do_nothing() {
    let mut rig = Rig::ready("");
    assert_eq!(rig.request(OUT, 0, &[], 0).status, 0);
    assert_eq!(rig.request(IN, 0, &[], 0).status, 0);
    assert_eq!(rig.request(APPEND, 0, &[], 0).status, 3);
    assert_eq!(rig.control.zone_state(0), Some(zbd_emu::ZoneState::Empty));
    assert_eq!(rig.request(FLUSH, 0, &[0; 16], 0).status, 0);
}

#[test]
fn a_request_may_cross_from_one_mapping_to_the_next() {
    use std::sync::Arc;
    use vfio_virtio::{HostMemory, Iova, PciFunction};

    let mut rig = Rig::ready("");
    let end = BASE + rig.arena.memory().len_bytes() as u64;
    let more = Arc::new(HostMemory::new(4096).unwrap());
    rig.function.map_dma(Iova(end), more).unwrap();
    rig.put_header(DATA, IN, 0);
    rig.arena.write((8 << 20) - 512, &[0xaa; 512]);
    rig.lay_out(0, 0, DATA, 0, &[1024, 1]);
    rig.set_desc(
        0,
        1,
        Desc {
            address: end - 512,
            len: 1024,
            flags: WRITE | NEXT,
            next: 2,
        },
    );
    rig.offer(0, 0);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.take_used(0), Some((0, 1025)));
    assert_eq!(rig.arena.read((8 << 20) - 512, 512), [0; 512]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// §2.7.4: the device makes no assumption about how a request is cut into buffers.
    #[test]
    fn any_cut_of_a_request_means_the_same(
        cuts_out in prop::collection::btree_set(1usize..16 + 8192, 0..6),
        cuts_in in prop::collection::btree_set(1usize..9, 0..4),
        seed: u8,
    ) {
        let mut rig = Rig::ready("zones=4,zone-size=1m,queue-size=32");
        let data = pattern(seed, 8192);
        let readable = 16 + data.len();
        rig.put_header(DATA, APPEND, 2048);
        rig.arena.write(DATA + 16, &data);
        rig.arena.write(DATA + readable, &[0xaa; 9]);
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts_out.into_iter().chain([readable]) {
            pieces.push((at, cut - at, 0));
            at = cut;
        }
        for cut in cuts_in.into_iter().chain([9]) {
            let cut = readable + cut;
            pieces.push((at, cut - at, WRITE));
            at = cut;
        }
        let last = pieces.len() - 1;
        for (i, (offset, len, flags)) in pieces.into_iter().enumerate() {
            rig.set_desc(0, i as u16, Desc {
                address: BASE + (DATA + offset) as u64,
                len: len as u32,
                flags: flags | if i < last { NEXT } else { 0 },
                next: i as u16 + 1,
            });
        }
        rig.offer(0, 0);
        rig.kick(0);
        rig.step();
        prop_assert_eq!(rig.take_used(0), Some((0, 9)));
        let answer = rig.arena.read(DATA + readable, 9);
        prop_assert_eq!(&answer[..8], &2048u64.to_le_bytes());
        prop_assert_eq!(answer[8], 0);
        prop_assert_eq!(&rig.request(IN, 2048, &[], 8192).bytes[..8192], &data[..]);
    }
}
