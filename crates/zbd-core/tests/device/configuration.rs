//! What is made of what a device states of itself, however odd.

use std::thread;

use zbd_core::{
    ErrorKind, OpenOptions, Request, Sector, SectorCount, WriteCache, ZoneAction, ZoneId,
    ZonedDevice,
};

use crate::{
    blocking::block_on,
    disguise::Disguise,
    rig::{Device, Rig, open_options},
};

// Feature bits (VIRTIO 1.3, 5.2.3).
pub(crate) const SIZE_MAX: u32 = 1;
pub(crate) const SEG_MAX: u32 = 2;
pub(crate) const RO: u32 = 5;
pub(crate) const BLK_SIZE: u32 = 6;
pub(crate) const FLUSH: u32 = 9;
pub(crate) const TOPOLOGY: u32 = 10;
pub(crate) const CONFIG_WCE: u32 = 11;
pub(crate) const MQ: u32 = 12;
pub(crate) const DISCARD: u32 = 13;
pub(crate) const WRITE_ZEROES: u32 = 14;
pub(crate) const LIFETIME: u32 = 15;
pub(crate) const SECURE_ERASE: u32 = 16;

// Fields of the configuration (VIRTIO 1.3, 5.2.4).
pub(crate) const SIZE_MAX_FIELD: u64 = 0x08;
pub(crate) const SEG_MAX_FIELD: u64 = 0x0c;
pub(crate) const MAX_DISCARD: u64 = 0x24;
pub(crate) const MAX_ZEROES: u64 = 0x30;
pub(crate) const MAY_UNMAP: u64 = 0x38;
pub(crate) const MAX_ERASE: u64 = 0x3c;
const WRITEBACK: u64 = 0x20;
const ZONE_SECTORS: u64 = 0x48;
const MAX_APPEND: u64 = 0x54;
const GRANULARITY: u64 = 0x58;
const MODEL: u64 = 0x5c;

const PLAIN: &str = "model=none,zones=4,zone-size=1m,queue-size=8";
const ZONED: &str = "zones=4,zone-size=1m,queue-size=8";

pub(crate) fn refusal(rig: &mut Rig, request: Request) -> (ErrorKind, String) {
    let words = format!("{request:?}");
    let before = rig.device.requests();
    let rejected = rig.queue.submit(request, 0).unwrap_err();
    assert_eq!(format!("{:?}", rejected.request), words);
    rig.queue.commit();
    assert_eq!(rig.queue.in_flight(), 0, "{words}");
    assert_eq!(rig.device.requests(), before, "{words}");
    (rejected.error.kind(), rejected.error.to_string())
}

#[track_caller]
fn invalid(rig: &mut Rig, request: Request, word: &str) {
    let (kind, words) = refusal(rig, request);
    assert_eq!(kind, ErrorKind::InvalidRequest, "{words}");
    assert!(words.contains(word), "{words} has no {word:?}");
}

#[test]
fn features_whose_fields_are_missing_are_not_accepted() {
    const ALL: &[u32] = &[
        SIZE_MAX,
        SEG_MAX,
        BLK_SIZE,
        TOPOLOGY,
        FLUSH,
        CONFIG_WCE,
        MQ,
        DISCARD,
        WRITE_ZEROES,
        SECURE_ERASE,
    ];
    // After which byte a feature has all of its fields.
    let ends = [
        ("size_max", 0x0c),
        ("seg_max", 0x10),
        ("blk_size", 0x18),
        ("topology", 0x19),
        ("config_wce", 0x21),
        ("mq", 0x24),
        ("discard", 0x30),
        ("write_zeroes", 0x39),
        ("secure_erase", 0x48),
    ];
    for len in 8..0x60 {
        let disguise = Disguise::offering(ALL)
            .ending_at(len)
            .le32(SIZE_MAX_FIELD, 65536);
        let rig = disguise.rig("model=none,size=1m,zone-size=1m,block-size=4096");
        let features = &rig.queue.info().features;
        for (name, end) in ends {
            assert_eq!(features.contains(&name), len >= end, "{name} of {len}");
        }
        let info = rig.queue.info();
        assert_eq!(info.block_size, if len >= 0x18 { 4096 } else { 512 });
        assert_eq!(info.max_queues, if len >= 0x24 { 2 } else { 1 });
        assert_eq!(info.discard.is_some(), len >= 0x30);
        assert_eq!(info.write_zeroes.is_some(), len >= 0x39);
        assert_eq!(info.max_segment, if len >= 0x0c { 65536 } else { u32::MAX });
    }
}

#[test]
fn a_configuration_without_its_zoned_fields_is_refused_by_the_first_that_is_missing() {
    for (len, field) in [
        (0x3c, "zone_sectors"),
        (0x4b, "zone_sectors"),
        (0x4f, "max_open_zones"),
        (0x53, "max_active_zones"),
        (0x57, "max_append_sectors"),
        (0x5b, "write_granularity"),
        (0x5c, "model"),
    ] {
        let error = Disguise::default().ending_at(len).refused(ZONED);
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(field), "{len}: {error}");
    }
    Disguise::default().ending_at(0x5d).rig(ZONED);
}

#[test]
fn a_host_managed_device_is_never_given_discard() {
    let disguise = Disguise::offering(&[DISCARD]);
    let mut rig = disguise.clone().rig(ZONED);
    let info = rig.queue.info();
    assert!(info.discard.is_none() && !info.features.contains(&"discard"));
    let request = Request::Discard {
        at: Sector(0),
        len: SectorCount(8),
    };
    let (kind, words) = refusal(&mut rig, request);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(words.contains("reset the zone"), "{words}");
    // Nor is discard used on one that showed another model before.
    let changeling = disguise.clone().early_byte(MODEL, 2).rig(ZONED);
    assert!(changeling.queue.info().features.contains(&"discard"));
    assert!(changeling.queue.info().discard.is_none());
    let rig = disguise.rig("model=ha,zones=4,zone-size=1m");
    let info = rig.queue.info();
    assert!(info.discard.is_some() && info.features.contains(&"discard"));
}

#[test]
fn limits_of_zero_are_none_but_an_erasure_has_to_be_described() {
    let disguise = (0..9).fold(
        Disguise::offering(&[DISCARD, WRITE_ZEROES, SECURE_ERASE]),
        |disguise, i| disguise.le32(MAX_DISCARD + 4 * i, 0),
    );
    let rig = disguise.rig(PLAIN);
    let info = rig.queue.info();
    let discard = info.discard.unwrap();
    assert_eq!(discard.max_sectors, SectorCount(u32::MAX.into()));
    assert_eq!((discard.max_ranges, discard.alignment), (1, SectorCount(8)));
    let zeroes = info.write_zeroes.unwrap();
    assert_eq!(zeroes.max_sectors, SectorCount(u32::MAX.into()));
    assert_eq!((zeroes.max_ranges, zeroes.may_unmap), (1, false));
    assert!(info.secure_erase.is_none());
    for missing in 0..3 {
        let disguise = (0..3).fold(Disguise::offering(&[SECURE_ERASE]), |disguise, i| {
            disguise.le32(MAX_ERASE + 4 * i, if i == missing { 0 } else { 64 })
        });
        assert!(disguise.rig(PLAIN).queue.info().secure_erase.is_none());
    }
}

/// A discard with this greatest length and alignment as it is taken.
fn discard_of(max_sectors: u32, alignment: u32) -> Option<(u64, u64)> {
    let disguise = Disguise::offering(&[DISCARD])
        .le32(MAX_DISCARD, max_sectors)
        .le32(MAX_DISCARD + 4, 3)
        .le32(MAX_DISCARD + 8, alignment);
    let limits = disguise.rig(PLAIN).queue.info().discard;
    limits.map(|limits| {
        assert_eq!(limits.max_ranges, 3);
        (limits.max_sectors.0, limits.alignment.0)
    })
}

#[test]
fn alignments_are_in_whole_blocks_and_fit_into_the_greatest_length() {
    assert_eq!(discard_of(1024, 64), Some((1024, 64)));
    assert_eq!(discard_of(1024, 1), Some((1024, 8)));
    assert_eq!(discard_of(1024, 12), Some((1024, 24)));
    assert_eq!(discard_of(1024, 1025), Some((1024, 8)));
    assert_eq!(discard_of(8, 64), Some((8, 8)));
    assert_eq!(discard_of(u32::MAX, u32::MAX), Some((u32::MAX.into(), 8)));
    // Not one block goes into a request.
    assert_eq!(discard_of(7, 1), None);
    let disguise = Disguise::offering(&[WRITE_ZEROES]).le32(MAX_ZEROES, 7);
    assert!(disguise.rig(PLAIN).queue.info().write_zeroes.is_none());
}

#[test]
fn zones_are_erased_whole() {
    let erase = |max: u32, alignment: u32| {
        let disguise = Disguise::offering(&[SECURE_ERASE])
            .le32(MAX_ERASE, max)
            .le32(MAX_ERASE + 4, 1)
            .le32(MAX_ERASE + 8, alignment);
        let limits = disguise.rig(ZONED).queue.info().secure_erase;
        limits.map(|limits| limits.alignment.0)
    };
    assert_eq!(erase(1 << 20, 2048), Some(2048));
    assert_eq!(erase(1 << 20, 8), Some(2048));
    assert_eq!(erase(1 << 20, 4096), Some(4096));
    assert_eq!(erase(2048, 8), Some(2048));
    assert_eq!(erase(2047, 8), None, "not one zone goes into a request");
}

#[test]
fn a_device_that_is_not_whole_blocks_is_reached_up_to_its_last_whole_one() {
    // 20 sectors and blocks of 8.
    let disguise = Disguise::offering(&[DISCARD])
        .le32(0, 20)
        .le32(MAX_DISCARD, 0);
    let mut rig = disguise.le32(MAX_DISCARD + 8, 0).rig(PLAIN);
    assert_eq!(rig.queue.info().capacity, SectorCount(20));
    assert_eq!(rig.read(8, 4096), [0; 4096]);
    for at in [16, 24] {
        let buffer = rig.filled(4096, 1);
        let at = Sector(at);
        invalid(&mut rig, Request::Read { at, buffer }, "past the end");
    }
    for (at, len) in [(16, 4), (16, 8), (0, 20), (0, 24)] {
        let (at, len) = (Sector(at), SectorCount(len));
        invalid(&mut rig, Request::Discard { at, len }, "past the end");
    }
}

#[test]
fn segments_bound_transfers() {
    let limits = |size_max: u32, seg_max: u32| {
        let disguise = Disguise::offering(&[SIZE_MAX, SEG_MAX])
            .le32(SIZE_MAX_FIELD, size_max)
            .le32(SEG_MAX_FIELD, seg_max);
        let rig = disguise.open(PLAIN)?;
        let info = rig.queue.info();
        Ok((info.max_segment, info.max_segments, info.max_transfer))
    };
    let ok = |size_max, seg_max| -> zbd_core::Result<_> { limits(size_max, seg_max) };
    assert_eq!(ok(65536, 4).unwrap(), (65536, 4, 262_144));
    assert_eq!(ok(10_000, 1).unwrap(), (10_000, 1, 8192));
    assert_eq!(ok(512, 126).unwrap(), (512, 126, 61_440));
    assert_eq!(ok(4096, 0).unwrap(), (4096, 1, 4096));
    assert_eq!(ok(0, 2).unwrap(), (u32::MAX, 2, u32::MAX / 4096 * 4096));
    let all = u32::MAX / 4096 * 4096;
    assert_eq!(ok(u32::MAX, u32::MAX).unwrap(), (u32::MAX, u32::MAX, all));
    assert_eq!(ok(1 << 20, 1 << 20).unwrap(), (1 << 20, 1 << 20, all));
    let error = ok(512, 7).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("4096"), "{error}");
    // Without SEG_MAX there is one.
    let disguise = Disguise::offering(&[SIZE_MAX]).hiding(&[SEG_MAX]);
    let rig = disguise.le32(SIZE_MAX_FIELD, 8192).rig(PLAIN);
    let info = rig.queue.info();
    assert_eq!((info.max_segments, info.max_transfer), (1, 8192));
}

#[test]
fn segments_longer_than_the_device_takes_are_refused() {
    let disguise = Disguise::offering(&[SIZE_MAX, LIFETIME]).le32(SIZE_MAX_FIELD, 8192);
    let mut rig = disguise.rig(ZONED);
    assert!(rig.queue.info().max_transfer > 12_288);
    let append = rig.append(0, 12_288, 1);
    let read = Request::Read {
        at: Sector(0),
        buffer: rig.filled(12_288, 1),
    };
    let write = rig.write(0, 12_288, 1);
    let report = Request::Report {
        from: Sector(0),
        buffer: rig.filled(8193, 1),
    };
    for request in [append, read, write, report] {
        invalid(&mut rig, request, "size_max");
    }
    let append = rig.append(0, 8192, 1);
    assert_eq!(rig.run(append).result.unwrap(), Sector(0));
}

#[test]
fn reports_are_cut_into_segments() {
    // Two zones and a bit.
    let disguise = Disguise::offering(&[SIZE_MAX]).le32(SIZE_MAX_FIELD, 64 + 2 * 64 + 63);
    let rig = disguise.rig("zones=5,zone-size=1m,queue-size=256,block-size=512");
    assert_eq!(rig.queue.info().zoned().unwrap().zone_count, 5);
    let Rig { queue, device } = rig;
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let before = device.requests();
    let zones = block_on(shared.report(..)).unwrap();
    assert!(zones.iter().map(|zone| zone.id.0).eq(0..5));
    assert_eq!(device.requests() - before, 3);
}

#[test]
fn an_append_is_no_longer_than_a_transfer() {
    let disguise = Disguise::offering(&[SIZE_MAX, SEG_MAX])
        .le32(SIZE_MAX_FIELD, 8192)
        .le32(SEG_MAX_FIELD, 1);
    let mut rig = disguise.rig(ZONED);
    let zoned = rig.queue.info().zoned().unwrap();
    assert_eq!(zoned.max_append, SectorCount(16));
    let request = rig.append(0, 12_288, 1);
    invalid(&mut rig, request, "8192");
    // And no longer than the device says.
    let rig = Disguise::default().le32(MAX_APPEND, 24).rig(ZONED);
    let zoned = rig.queue.info().zoned().unwrap();
    assert_eq!(zoned.max_append, SectorCount(24));
}

#[test]
fn writes_to_sequential_zones_keep_to_the_granularity() {
    let disguise = Disguise::default().le32(GRANULARITY, 8192);
    let mut rig = disguise.rig("zones=4,zone-size=1m,conventional=1");
    assert_eq!(rig.queue.info().zoned().unwrap().write_granularity, 8192);
    let request = rig.append(1, 4096, 1);
    invalid(&mut rig, request, "granularity of 8192");
    for (at, len) in [(2048, 4096), (2056, 8192), (2048, 12_288)] {
        let request = rig.write(at, len, 1);
        invalid(&mut rig, request, "granularity of 8192");
    }
    let request = rig.write(2048, 8192, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(2048));
    let request = rig.write(8, 4096, 1);
    assert_eq!(rig.run(request).result.unwrap(), Sector(8), "conventional");
}

#[test]
fn a_granularity_below_the_block_is_that_of_blocks() {
    for (stated, made) in [(512, 4096), (4096, 4096), (1536, 12_288)] {
        let rig = Disguise::default().le32(GRANULARITY, stated).rig(ZONED);
        assert_eq!(rig.queue.info().zoned().unwrap().write_granularity, made);
    }
    for stated in [0, 511, 513, 0x8000_0200] {
        let disguise = Disguise::default().le32(GRANULARITY, stated);
        assert_eq!(disguise.refused(ZONED).kind(), ErrorKind::Protocol);
    }
    for zone_sectors in [0, 1, 2047] {
        let disguise = Disguise::default().le32(ZONE_SECTORS, zone_sectors);
        let error = disguise.refused(ZONED);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{zone_sectors}");
        assert!(error.to_string().contains("blocks of 4096"), "{error}");
    }
}

#[test]
fn a_read_only_device_is_read_and_nothing_else() {
    const OFFERS: &[u32] = &[RO, DISCARD, WRITE_ZEROES, SECURE_ERASE];
    let erase = |disguise: Disguise, zone| {
        disguise
            .le32(MAX_ERASE, 1 << 20)
            .le32(MAX_ERASE + 4, 1)
            .le32(MAX_ERASE + 8, zone)
    };
    let mut rig = erase(Disguise::offering(OFFERS), 2048).rig(ZONED);
    assert!(rig.queue.info().read_only);
    let (at, len) = (Sector(0), SectorCount(2048));
    let unmap = zbd_core::Unmap::Keep;
    let mut requests = vec![
        rig.append(1, 4096, 1),
        rig.write(0, 4096, 1),
        Request::ResetAll,
        Request::WriteZeroes { at, len, unmap },
        Request::SecureErase { at, len },
    ];
    for action in [
        ZoneAction::Open,
        ZoneAction::Close,
        ZoneAction::Finish,
        ZoneAction::Reset,
    ] {
        let zone = ZoneId(1);
        requests.push(Request::Manage { action, zone });
    }
    for request in requests {
        let (kind, words) = refusal(&mut rig, request);
        assert_eq!(kind, ErrorKind::ReadOnly, "{words}");
    }
    assert_eq!(rig.read(0, 4096), [0; 4096]);
    assert_eq!(rig.report().len(), 4);
    assert!(rig.run(Request::Flush).result.is_ok());
    let mut rig = erase(Disguise::offering(OFFERS), 8).rig(PLAIN);
    let (kind, words) = refusal(&mut rig, Request::Discard { at, len });
    assert_eq!(kind, ErrorKind::ReadOnly, "{words}");
}

#[test]
fn a_device_without_flush_is_not_flushed_and_its_cache_not_switched() {
    let disguise = Disguise::offering(&[CONFIG_WCE]).hiding(&[FLUSH]);
    let mut rig = disguise.rig(PLAIN);
    let info = rig.queue.info();
    assert!(!info.volatile_cache && !info.cache_switchable);
    assert!(!info.features.contains(&"config_wce"));
    assert_eq!(rig.queue.write_cache().unwrap(), WriteCache::Writethrough);
    let (kind, words) = refusal(&mut rig, Request::Flush);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(words.contains("FLUSH"), "{words}");
    let error = rig.queue.set_write_cache(WriteCache::Writeback);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    let Rig { queue, device } = rig;
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let before = device.requests();
    block_on(shared.flush()).unwrap();
    assert_eq!(device.requests(), before);
}

#[test]
fn a_cache_that_cannot_be_switched_is_taken_for_volatile() {
    let mut rig = Disguise::default()
        .hiding(&[CONFIG_WCE])
        .byte(WRITEBACK, 0)
        .rig(PLAIN);
    assert_eq!(rig.queue.write_cache().unwrap(), WriteCache::Writeback);
    let error = rig
        .queue
        .set_write_cache(WriteCache::Writethrough)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("writeback"), "{error}");
    assert!(rig.run(Request::Flush).result.is_ok());
}

#[test]
fn the_cache_is_switched_there_and_back() {
    let mut rig = Rig::threaded(PLAIN);
    assert!(rig.queue.info().cache_switchable);
    for mode in [
        WriteCache::Writethrough,
        WriteCache::Writethrough,
        WriteCache::Writeback,
    ] {
        rig.queue.set_write_cache(mode).unwrap();
        assert_eq!(rig.queue.write_cache().unwrap(), mode);
    }
    let Rig { queue, device } = rig;
    let shared = ZonedDevice::from_queues(vec![queue]).unwrap();
    let before = device.requests();
    block_on(shared.set_write_cache(WriteCache::Writethrough)).unwrap();
    assert_eq!(shared.write_cache().unwrap(), WriteCache::Writethrough);
    assert_eq!(
        device.requests(),
        before + 1,
        "what was volatile is flushed"
    );
    // What was completed in the other mode may be volatile for all that is known.
    block_on(shared.flush()).unwrap();
    assert_eq!(device.requests(), before + 2);
    block_on(shared.set_write_cache(WriteCache::Writeback)).unwrap();
    assert_eq!(shared.write_cache().unwrap(), WriteCache::Writeback);
    assert_eq!(device.requests(), before + 2);
}

#[test]
fn a_cache_that_stays_as_it_was_is_a_broken_promise() {
    let mut rig = Disguise::default().byte(WRITEBACK, 1).rig(PLAIN);
    let error = rig
        .queue
        .set_write_cache(WriteCache::Writethrough)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("flush"), "{error}");
    assert_eq!(rig.queue.write_cache().unwrap(), WriteCache::Writeback);
}

#[test]
fn the_mode_of_the_cache_outlives_a_reset() {
    let mut rig = Rig::threaded(PLAIN);
    let modes = [WriteCache::Writethrough, WriteCache::Writeback];
    for mode in modes {
        rig.queue.set_write_cache(mode).unwrap();
        rig.queue.recover().unwrap();
        assert_eq!(rig.queue.write_cache().unwrap(), mode);
    }
    let shared = ZonedDevice::from_queues(vec![rig.queue]).unwrap();
    for mode in modes {
        block_on(shared.set_write_cache(mode)).unwrap();
        block_on(shared.recover()).unwrap();
        assert_eq!(shared.write_cache().unwrap(), mode);
    }
}

/// Resets and switches of several threads: a device that forgets the mode with a reset never seems to
/// have refused it.
#[test]
fn the_cache_is_switched_while_the_device_is_reset() {
    let mut device = Device::threaded(PLAIN);
    let options = OpenOptions {
        queues: 2,
        ..open_options()
    };
    let mut queues = device.open(options).unwrap();
    let mut other = queues.pop().unwrap();
    let mut queue = queues.pop().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..50 {
                other.recover().unwrap();
            }
        });
        for mode in [WriteCache::Writethrough, WriteCache::Writeback].repeat(500) {
            queue.set_write_cache(mode).unwrap();
        }
    });
}
