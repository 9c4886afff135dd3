//! The files of devices: which are made, which are taken, and what is written to them when.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use vfio_virtio::{ErrorKind, Width};
use zbd_emu::{EmulatedFunction, StoreIo, StoreKind, ZoneState};

use crate::driver::{
    APPEND, DISCARD, FINISH, FLUSH, GET_ID, IN, OUT, RESET, Rig, SECURE_ERASE, config,
};

/// A file in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn options(&self, more: &str) -> String {
        format!("store={},{more}", self.path().display())
    }

    fn refused(&self, more: &str) -> (ErrorKind, String) {
        let error = EmulatedFunction::stepped(&config(&self.options(more))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&*self.path().display().to_string()), "{text}");
        (error.kind(), text)
    }

    /// Makes a file of a small device.
    fn made(&self) {
        drop(Rig::bare(&self.options(SMALL)));
    }

    fn alter(&self, at: u64, alter: impl FnOnce(&mut u8)) {
        let file = open(&self.path());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        alter(&mut byte[0]);
        file.write_all_at(&byte, at).unwrap();
    }
}

const SMALL: &str = "zones=4,zone-size=64k,conventional=1";
const TABLE_AT: u64 = 4096 + (8 << 20);

fn open(path: &Path) -> fs::File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn a_file_says_itself_what_was_not_asked_for() {
    let place = Place::new();
    let made = "size=456k,zone-size=64k,zone-cap=48k,conventional=1,max-open=3,max-active=5,\
                max-append=32k,block-size=8k,serial=A7";
    drop(Rig::bare(&place.options(made)));
    for asked in ["", made, "zones=8,zone-size=65536", "queues=5,ring=packed"] {
        let mut rig = Rig::ready(&place.options(asked));
        let long = |at: u64| rig.read(0x2000 + at, Width::Long);
        assert_eq!(long(0), 456 * 2, "{asked}");
        assert_eq!(long(0x14), 8192);
        assert_eq!(
            [long(0x48), long(0x4c), long(0x50), long(0x54), long(0x58)],
            [128, 3, 5, 64, 8192]
        );
        assert_eq!(rig.control.zone_state(0), Some(ZoneState::NotWritePointer));
        assert_eq!(rig.control.zone_state(7), Some(ZoneState::Empty));
        assert_eq!(rig.control.zone_state(8), None);
        assert_eq!(&rig.request(GET_ID, 0, &[], 20).bytes[..3], b"A7\0");
        assert_eq!(rig.request(APPEND, 128, &[1; 32768], 0).status, 0);
        assert_eq!(rig.request(APPEND, 128, &[1; 32768], 0).status, 3);
        assert_eq!(rig.command(RESET, 128), 0);
    }
}

#[test]
fn what_contradicts_the_file_is_refused_by_name() {
    let place = Place::new();
    place.made();
    for (asked, words) in [
        ("zones=5", ["zones=4, not 5", "leave zones out"]),
        ("zones=64", ["zones=4, not 64", "leave zones out"]),
        ("size=1m", ["size=262144, not 1048576", "leave size out"]),
        ("zone-size=16m", ["zone-size=65536", "not 16777216"]),
        ("zone-cap=32k", ["zone-cap=65536", "another path"]),
        ("conventional=0", ["conventional=1, not 0", "another path"]),
        ("max-open=1", ["max-open=32, not 1", "another path"]),
        ("max-active=0", ["max-active=48, not 0", "another path"]),
        ("max-append=64k", ["max-append=524288", "not 65536"]),
        (
            "block-size=512",
            ["block-size=4096, not 512", "another path"],
        ),
        ("model=ha", ["model=hm, not ha", "leave model out"]),
        (
            "serial=other",
            ["serial=zbd-emu, not other", "leave serial out"],
        ),
    ] {
        let (kind, text) = place.refused(asked);
        assert_eq!(kind, ErrorKind::InvalidInput, "{asked}");
        assert_says(&text, &words);
    }
    drop(Rig::bare(&place.options(SMALL)));
    // An inconsistent wish is refused before anything is made of it.
    let other = Place::new();
    let error = EmulatedFunction::stepped(&config(&other.options("zone-cap=1g"))).unwrap_err();
    assert_says(&error.to_string(), &["zone-cap", "zone-size"]);
    assert!(!other.path().exists());
}

#[test]
fn a_file_that_another_device_has_is_refused_until_that_is_gone() {
    let place = Place::new();
    let first = Rig::bare(&place.options(SMALL));
    let (kind, text) = place.refused("");
    assert_eq!(kind, ErrorKind::Busy);
    assert_says(&text, &["another device has the file open", "close"]);
    first.control.unplug();
    drop(Rig::bare(&place.options("")));
    drop(first);
}

#[test]
fn foreign_files_are_refused_and_left_alone() {
    let place = Place::new();
    for content in [b"hello".to_vec(), vec![0; 1 << 20], vec![0xff; 4096]] {
        fs::write(place.path(), &content).unwrap();
        let (kind, text) = place.refused(SMALL);
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert_says(&text, &["no store of an emulated device", "give a path"]);
        assert_eq!(fs::read(place.path()).unwrap(), content);
    }
    fs::remove_file(place.path()).unwrap();
    fs::create_dir(place.path()).unwrap();
    assert_says(&place.refused("").1, &["directory"]);
    let missing = Place::new();
    fs::remove_dir(missing.directory.path()).unwrap();
    let (kind, text) = missing.refused(SMALL);
    assert_eq!(kind, ErrorKind::NotFound);
    assert_says(&text, &["no such directory", "make it"]);
}

#[test]
fn damaged_files_are_refused() {
    let place = Place::new();
    place.made();
    place.alter(40, |byte| *byte ^= 1);
    let (kind, text) = place.refused("");
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert_says(&text, &["damaged", "header", "restore"]);
    place.alter(40, |byte| *byte ^= 1);
    // The record of zone 2.
    for at in [0, 8, 20, 31] {
        place.alter(TABLE_AT + 64 + at, |byte| *byte ^= 0x10);
        assert_says(&place.refused("").1, &["damaged", "zone 2", "remove"]);
        place.alter(TABLE_AT + 64 + at, |byte| *byte ^= 0x10);
    }
    // Two records that changed places.
    let file = open(&place.path());
    let mut records = [0; 64];
    file.read_exact_at(&mut records, TABLE_AT + 32).unwrap();
    records.rotate_left(32);
    file.write_all_at(&records, TABLE_AT + 32).unwrap();
    assert_says(&place.refused("").1, &["damaged", "zone 1"]);
    records.rotate_left(32);
    file.write_all_at(&records, TABLE_AT + 32).unwrap();
    drop(Rig::bare(&place.options("")));
}

#[test]
fn files_that_were_cut_short_or_extended_are_refused() {
    let place = Place::new();
    place.made();
    let len = fs::metadata(place.path()).unwrap().len();
    for wrong in [len - 1, len + 1, len - 65536, TABLE_AT, 4096] {
        open(&place.path()).set_len(wrong).unwrap();
        let (kind, text) = place.refused("");
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert_says(&text, &["damaged", &wrong.to_string(), &len.to_string()]);
    }
    open(&place.path()).set_len(100).unwrap();
    assert_says(&place.refused("").1, &["no store"]);
    open(&place.path()).set_len(0).unwrap();
    // An empty file is one that is still to be made.
    place.made();
}

#[test]
fn without_a_cache_what_is_answered_is_durable() {
    // FLUSH is not offered, not accepted, or the cache is switched to writethrough.
    for (more, features, mode) in [
        ("flush=off", u64::MAX, None),
        ("", !(1 << 9), None),
        ("", u64::MAX, Some(0)),
    ] {
        let place = Place::new();
        let mut rig = Rig::bare(&place.options(&format!("{SMALL},{more}")));
        rig.start(features);
        if let Some(mode) = mode {
            // What was written before the switch is durable with it.
            assert_eq!(rig.request(APPEND, 384, &[3; 4096], 0).status, 0);
            assert_eq!(rig.control.cached_bytes(), 4096);
            rig.write(0x2020, Width::Byte, mode);
            assert_eq!(rig.read(0x2020, Width::Byte), mode);
            assert_eq!(rig.control.cached_bytes(), 0);
        } else {
            assert_eq!(rig.request(APPEND, 384, &[3; 4096], 0).status, 0);
        }
        assert_eq!(rig.request(APPEND, 128, &[1; 8192], 0).status, 0);
        assert_eq!(rig.request(OUT, 8, &[2; 4096], 0).status, 0);
        assert_eq!(rig.request(APPEND, 256, &[1; 4096], 0).status, 0);
        assert_eq!(rig.command(FINISH, 256), 0);
        rig.function.power_cut(1);
        let mut rig = Rig::ready(&place.options(""));
        assert!(rig.request(IN, 8, &[], 4096).bytes[..4096] == [2; 4096]);
        assert!(rig.request(IN, 128, &[], 8192).bytes[..8192] == [1; 8192]);
        assert!(rig.request(IN, 384, &[], 4096).bytes[..4096] == [3; 4096]);
        let states = [1, 2].map(|zone| rig.control.zone_state(zone));
        assert_eq!(states, [Some(ZoneState::Closed), Some(ZoneState::Full)]);
        assert_eq!(rig.command(RESET, 256), 0);
        rig.write(0x2020, Width::Byte, 0);
        assert_eq!(rig.command(RESET, 128), 0);
        rig.function.power_cut(2);
        let rig = Rig::ready(&place.options(""));
        let states = [1, 2].map(|zone| rig.control.zone_state(zone));
        assert_eq!(states, [Some(ZoneState::Empty); 2]);
    }
}

#[test]
fn the_cache_is_written_back_before_it_exceeds_its_bound() {
    let place = Place::new();
    let options = "zones=4,zone-size=1m,conventional=1,cache=64k";
    let mut rig = Rig::ready(&place.options(options));
    let mut most = 0;
    for i in 0..64_u64 {
        let data = [i as u8; 12288];
        assert_eq!(rig.request(APPEND, 2048, &data, 0).status, 0);
        assert_eq!(rig.request(OUT, i * 16, &data[..8192], 0).status, 0);
        most = most.max(rig.control.cached_bytes());
    }
    assert!((1 << 15..=1 << 16).contains(&most), "{most}");
    // One request that is larger than the cache, and one that is zero without taking memory.
    assert_eq!(rig.request(APPEND, 4096, &[5; 200 << 10], 0).status, 0);
    assert_eq!(rig.request(OUT, 0, &[6; 200 << 10], 0).status, 0);
    assert!(rig.control.cached_bytes() <= 1 << 16);
    for (sector, len, value) in [(4096, 200 << 10, 5), (0, 200 << 10, 6), (2048, 12288, 0)] {
        let read = rig.request(IN, sector, &[], len);
        assert!(read.bytes[..len as usize] == vec![value; len as usize]);
    }
    for i in 0..64_u64 {
        let read = rig.request(IN, 2048 + i * 24, &[], 12288);
        assert!(read.bytes[..12288] == [i as u8; 12288]);
    }
    // Most of it is in the file, flushed or not.
    rig.function.power_cut(0);
    let mut rig = Rig::ready(&place.options(""));
    let read = rig.request(IN, 2048, &[], 12288 * 50);
    let expected: Vec<u8> = (0..50).flat_map(|i| [i; 12288]).collect();
    assert!(read.bytes[..12288 * 50] == expected);
    let other = Place::new();
    let error = EmulatedFunction::stepped(&config(&other.options("cache=512"))).unwrap_err();
    assert_says(&error.to_string(), &["cache=512", "block-size, 4096"]);
}

#[test]
fn parts_of_blocks_are_written_without_the_rest_changing() {
    let place = Place::new();
    let mut rig = Rig::ready(&place.options("zones=4,zone-size=64k,conventional=2,block-size=8k"));
    assert_eq!(rig.request(OUT, 0, &[1; 65536], 0).status, 0);
    for flush in [true, false] {
        if flush {
            assert_eq!(rig.command(FLUSH, 0), 0);
        }
        // From the middle of one zone's last block into the next zone.
        assert_eq!(rig.request(OUT, 127, &[2; 1024], 0).status, 0);
        assert_eq!(rig.request(OUT, 17, &[3; 512], 0).status, 0);
        let read = rig.request(IN, 0, &[], 65536 + 1024).bytes;
        assert!(read[16 * 512..17 * 512] == [1; 512]);
        assert!(read[17 * 512..18 * 512] == [3; 512]);
        assert!(read[18 * 512..127 * 512] == [1; 109 * 512]);
        assert!(read[127 * 512..129 * 512] == [2; 1024]);
        assert!(read[129 * 512..130 * 512] == [0; 512]);
    }
    drop(rig);
    let mut rig = Rig::ready(&place.options(""));
    let read = rig.request(IN, 127, &[], 1536).bytes;
    assert!(read[..1024] == [2; 1024]);
    assert!(read[1024..1536] == [0; 512]);
}

#[test]
fn zones_that_failed_stay_so() {
    let place = Place::new();
    let mut rig = Rig::ready(&place.options(SMALL));
    assert_eq!(rig.request(APPEND, 128, &[7; 4096], 0).status, 0);
    rig.control.fail_zone(1, ZoneState::ReadOnly).unwrap();
    rig.control.fail_zone(2, ZoneState::Offline).unwrap();
    rig.function.power_cut(3);
    let mut rig = Rig::ready(&place.options(""));
    let states = [1, 2].map(|zone| rig.control.zone_state(zone));
    assert_eq!(
        states,
        [Some(ZoneState::ReadOnly), Some(ZoneState::Offline)]
    );
    assert!(rig.request(IN, 128, &[], 4096).bytes[..4096] == [7; 4096]);
    assert_eq!(rig.request(IN, 256, &[], 4096).status, 3);
}

#[test]
fn data_of_an_earlier_life_do_not_come_back() {
    // A discard goes through the journal. Done again after the cut, it must not reach the data
    // that took its place.
    let place = Place::new();
    let options = "zones=4,zone-size=64k,discard=on";
    for seed in 0..8 {
        let mut rig = Rig::ready(&place.options(options));
        assert_eq!(rig.command(RESET, 0), 0);
        assert_eq!(rig.request(APPEND, 0, &[1; 65536], 0).status, 0);
        assert_eq!(rig.command(FLUSH, 0), 0);
        let mut segment = [0; 16];
        segment[8] = 64;
        assert_eq!(rig.request(DISCARD, 0, &segment, 0).status, 0);
        assert_eq!(rig.command(FLUSH, 0), 0);
        assert_eq!(rig.command(RESET, 0), 0);
        assert_eq!(rig.request(APPEND, 0, &[2; 16384], 0).status, 0);
        assert_eq!(rig.command(FLUSH, 0), 0);
        rig.function.power_cut(seed);
        let mut rig = Rig::ready(&place.options(""));
        let read = rig.request(IN, 0, &[], 65536).bytes;
        assert!(read[..16384] == [2; 16384]);
        assert!(read[16384..65536] == [0; 49152]);
    }
}

#[test]
fn host_aware_zones_keep_what_was_written_anywhere() {
    let place = Place::new();
    let mut rig = Rig::ready(&place.options("zones=3,zone-size=64k,model=ha"));
    assert_eq!(rig.request(OUT, 0, &[1; 16384], 0).status, 0);
    assert_eq!(rig.command(FLUSH, 0), 0);
    // Over what was written, beyond the write pointer by a gap, and not in whole blocks.
    assert_eq!(rig.request(OUT, 3, &[2; 1024], 0).status, 0);
    assert_eq!(rig.request(OUT, 43, &[3; 1024], 0).status, 0);
    assert_eq!(rig.command(FLUSH, 0), 0);
    rig.function.power_cut(0);
    let mut rig = Rig::ready(&place.options(""));
    assert_eq!(rig.control.zone_state(0), Some(ZoneState::Closed));
    let read = rig.request(IN, 0, &[], 24576).bytes;
    let expected = |sector: usize| match sector {
        3..5 => 2,
        0..32 => 1,
        43..45 => 3,
        _ => 0,
    };
    for (sector, bytes) in read[..24576].chunks(512).enumerate() {
        assert_eq!(bytes, [expected(sector); 512], "{sector}");
    }
}

#[test]
fn what_was_erased_is_gone_from_the_file() {
    let place = Place::new();
    let mut rig = Rig::ready(&place.options(&format!("{SMALL},secure-erase=on")));
    let secret = b"no one is to find this";
    let mut data = [0; 4096];
    data[..secret.len()].copy_from_slice(secret);
    assert_eq!(rig.request(OUT, 0, &data, 0).status, 0);
    assert_eq!(rig.request(APPEND, 128, &data, 0).status, 0);
    assert_eq!(rig.command(FLUSH, 0), 0);
    let data_at = TABLE_AT.next_multiple_of(65536) as usize;
    let found = |place: &Place| {
        let bytes = fs::read(place.path()).unwrap();
        bytes[data_at..]
            .windows(secret.len())
            .filter(|window| window == secret)
            .count()
    };
    assert_eq!(found(&place), 2);
    let mut segment = [0; 16];
    segment[8..10].copy_from_slice(&256_u16.to_le_bytes());
    assert_eq!(rig.request(SECURE_ERASE, 0, &segment, 0).status, 0);
    let read = rig.request(IN, 0, &[], 4096).bytes;
    assert!(read[..4096] == [0; 4096]);
    assert_eq!(rig.command(FLUSH, 0), 0);
    assert_eq!(found(&place), 0);
}

#[test]
fn a_device_in_a_file_does_not_change_its_size() {
    let place = Place::new();
    let mut rig = Rig::ready(&place.options("model=none,size=1m"));
    let error = rig.control.resize(4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_says(&error.to_string(), &["file", "store=mem"]);
    assert_eq!(rig.request(OUT, 2047, &[1; 512], 0).status, 0);
    assert_eq!(rig.request(OUT, 2048, &[1; 512], 0).status, 1);
}

#[test]
fn it_is_told_what_carries_io_out() {
    let place = Place::new();
    let rig = Rig::bare(&place.options(SMALL));
    // Either is right; which one it is depends on the machine.
    let known = [Some(StoreIo::IoUring), Some(StoreIo::Syscalls)];
    assert!(known.contains(&rig.function.store_io()));
    assert_eq!(Rig::bare("").function.store_io(), None);
    assert_eq!(rig.control.store_error(), None);
}

#[test]
fn paths_that_no_device_string_can_say_are_refused() {
    for path in ["disk", "./a,b"] {
        let mut wish = config(SMALL);
        wish.store = StoreKind::File(path.into());
        let error = EmulatedFunction::stepped(&wish).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_says(&error.to_string(), &[path, "no comma"]);
        assert!(!Path::new(path).exists());
    }
}
