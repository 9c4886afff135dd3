//! Features, status and registers.

use vfio_virtio::{ErrorKind, Width};

use crate::driver::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT, RING_RESET, Rig, VERSION_1, ZONED};

#[test]
fn everything_offered_is_accepted() {
    let mut rig = Rig::bare("");
    let offered = rig.offered();
    for feature in [
        ZONED,
        INDIRECT,
        EVENT_IDX,
        VERSION_1,
        ACCESS_PLATFORM,
        RING_RESET,
    ] {
        assert_ne!(offered & feature, 0);
    }
    assert!(rig.negotiate(offered));
}

#[test]
fn what_is_switched_off_is_not_offered() {
    let rig = Rig::bare("indirect=off,event-idx=off,model=none");
    assert_eq!(rig.offered() & (INDIRECT | EVENT_IDX | ZONED), 0);
}

#[test]
fn features_are_refused_that_the_device_cannot_work_with() {
    let mut rig = Rig::bare("");
    let least = VERSION_1 | ACCESS_PLATFORM | ZONED;
    assert!(rig.negotiate(least));
    for missing in [VERSION_1, ACCESS_PLATFORM, ZONED] {
        assert!(!rig.negotiate(least & !missing), "{missing:#x}");
    }
    // Read-only, packed rings, in-order use, notification data: none of them is offered.
    for unknown in [5, 34, 35, 38, 50, 63] {
        assert!(!rig.negotiate(least | 1 << unknown), "{unknown}");
    }
}

#[test]
fn features_beyond_the_known_words_are_refused() {
    let mut rig = Rig::bare("");
    let least = VERSION_1 | ACCESS_PLATFORM | ZONED;
    assert!(rig.negotiate(least));
    rig.set_status(0);
    rig.set_status(3);
    for (select, value) in [(0, least as u32), (1, (least >> 32) as u32), (2, 1)] {
        rig.write(8, Width::Long, select);
        rig.write(12, Width::Long, value);
    }
    rig.set_status(3 | 8);
    assert_eq!(rig.status(), 3);
}

#[test]
fn a_host_aware_device_does_without_zoned_and_then_shows_no_characteristics() {
    let mut rig = Rig::bare("model=ha");
    assert_eq!(rig.read(0x2000 + 0x5c, Width::Byte), 2);
    assert_eq!(rig.read(0x2000 + 0x48, Width::Long), 32_768);
    assert!(rig.negotiate(VERSION_1 | ACCESS_PLATFORM));
    assert_eq!(rig.read(0x2000 + 0x48, Width::Long), 0);
    assert_eq!(rig.read(0x2000 + 0x5c, Width::Byte), 0);
}

#[test]
fn driver_ok_needs_settled_features() {
    let rig = Rig::bare("");
    rig.set_status(1 | 2 | 4);
    assert_eq!(rig.status(), 3);
}

#[test]
fn features_do_not_change_once_they_are_settled() {
    let mut rig = Rig::bare("");
    assert!(rig.negotiate(VERSION_1 | ACCESS_PLATFORM | ZONED));
    rig.write(8, Width::Long, 0);
    rig.write(12, Width::Long, u32::MAX);
    assert_eq!(rig.read(12, Width::Long), ZONED as u32);
}

#[test]
fn status_bits_are_cleared_by_reset_alone() {
    let rig = Rig::bare("");
    rig.set_status(3);
    rig.set_status(1);
    assert_eq!(rig.status(), 3);
    rig.set_status(64 | 3);
    assert_eq!(rig.status(), 3);
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
}

#[test]
fn the_configuration_tells_the_geometry() {
    let rig = Rig::bare(
        "zones=10,zone-size=12m,zone-cap=8m,max-open=3,max-active=5,max-append=64k,\
         block-size=4096,queues=3,queue-size=64",
    );
    let long = |offset: u64| rig.read(0x2000 + offset, Width::Long);
    assert_eq!(
        u64::from(long(0)) | u64::from(long(4)) << 32,
        10 * (12 << 20) / 512
    );
    assert_eq!(long(0x0c), 62);
    assert_eq!(long(0x14), 4096);
    assert_eq!(long(0x20) >> 16, 3);
    assert_eq!(long(0x48), (12 << 20) / 512);
    assert_eq!(
        [long(0x4c), long(0x50), long(0x54), long(0x58)],
        [3, 5, 128, 4096]
    );
    assert_eq!(long(0x5c), 1);
}

#[test]
fn registers_of_a_queue_that_does_not_exist_read_as_none() {
    let rig = Rig::bare("queues=2");
    rig.write(0x16, Width::Word, 2);
    assert_eq!(rig.read(0x18, Width::Word), 0);
    assert_eq!(rig.read(0x1a, Width::Word), 0xffff);
    rig.write(0x1c, Width::Word, 1);
    assert_eq!(rig.read(0x1c, Width::Word), 0);
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let rig = Rig::bare("queues=2");
    for (register, vector, kept) in [(0x10, 2, 2), (0x10, 3, 0xffff), (0x1a, 7, 0xffff)] {
        rig.write(register, Width::Word, vector);
        assert_eq!(rig.read(register, Width::Word), kept);
    }
}

#[test]
fn queue_sizes_that_are_not_allowed_are_not_taken() {
    let rig = Rig::bare("queue-size=128");
    rig.write(0x16, Width::Word, 0);
    for (size, kept) in [(256, 128), (100, 128), (0, 128), (32, 32)] {
        rig.write(0x18, Width::Word, size);
        assert_eq!(rig.read(0x18, Width::Word), kept);
    }
}

#[test]
fn accesses_of_the_wrong_width_are_errors_that_name_the_field() {
    let rig = Rig::bare("");
    let error = rig.bar.read(0x14, Width::Long).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("DeviceStatus"), "{error}");
    assert!(rig.bar.write(0x20, Width::Word, 0).is_err());
    assert!(rig.bar.read(0x15, Width::Word).is_err());
    assert!(rig.bar.read(0x4000, Width::Byte).is_err());
    assert!(rig.bar.read(0x800, Width::Long).is_err());
}

#[test]
fn a_device_reset_forgets_the_set_up_and_keeps_the_zones() {
    let mut rig = Rig::ready("");
    assert_eq!(rig.request(15, 0, &[7; 4096], 0).sector(), 0);
    rig.set_status(0);
    rig.write(0x16, Width::Word, 0);
    assert_eq!(rig.read(0x1c, Width::Word), 0);
    assert_eq!(rig.read(0x20, Width::Long), 0);
    assert_eq!(rig.read(0x10, Width::Word), 0xffff);
    rig.start(u64::MAX);
    assert_eq!(rig.request(15, 0, &[7; 4096], 0).sector(), 8);
}

#[test]
fn a_queue_reset_takes_one_queue_back() {
    let mut rig = Rig::ready("queues=2");
    assert_eq!(rig.command(4, 0), 0);
    rig.write(0x16, Width::Word, 0);
    rig.write(0x3a, Width::Word, 1);
    assert_eq!(rig.read(0x3a, Width::Word), 0);
    assert_eq!(rig.read(0x1c, Width::Word), 0);
    assert_eq!(rig.read(0x1a, Width::Word), 0xffff);
    rig.write(0x16, Width::Word, 1);
    assert_eq!(rig.read(0x1c, Width::Word), 1);
    rig.enable(0);
    assert_eq!(rig.command(4, 0), 0);
}

#[test]
fn the_write_cache_is_switched_when_that_was_negotiated() {
    let mut rig = Rig::bare("");
    rig.start(u64::MAX);
    assert_eq!(rig.read(0x2020, Width::Byte), 1);
    rig.write(0x2020, Width::Byte, 0);
    assert_eq!(rig.read(0x2020, Width::Byte), 0);
    assert!(rig.negotiate(VERSION_1 | ACCESS_PLATFORM | ZONED));
    // Without FLUSH it begins as writethrough, and cannot be written.
    assert_eq!(rig.read(0x2020, Width::Byte), 0);
    rig.write(0x2020, Width::Byte, 1);
    assert_eq!(rig.read(0x2020, Width::Byte), 0);
}
