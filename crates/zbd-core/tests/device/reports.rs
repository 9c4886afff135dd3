//! Reports of ranges of zones.

use std::ops::{Bound, RangeBounds};

use zbd_core::{ErrorKind, SectorCount, ZoneId, ZonedDevice};

use crate::{
    blocking::block_on,
    rig::{Device, open_options},
};

/// Checks that exactly the zones of `expected` are reported.
fn reports(
    device: &ZonedDevice,
    range: impl RangeBounds<ZoneId> + std::fmt::Debug,
    expected: std::ops::Range<u32>,
) {
    let words = format!("{range:?}");
    let zones = block_on(device.report(range)).unwrap();
    assert!(
        zones.iter().map(|zone| zone.id.0).eq(expected.clone()),
        "{words}: {} zones",
        zones.len()
    );
    let size = device.info().zoned().unwrap().zone_size.0;
    for zone in zones {
        assert_eq!(zone.start.0, u64::from(zone.id.0) * size);
    }
}

fn ranges(device: &ZonedDevice) {
    let count = device.info().zoned().unwrap().zone_count;
    let last = count - 1;
    let zone = ZoneId;
    let none = 0..0;
    reports(device, .., 0..count);
    reports(device, zone(1)..zone(3), 1..3);
    reports(device, zone(1)..=zone(3), 1..4);
    reports(device, zone(2).., 2..count);
    reports(device, ..zone(2), 0..2);
    reports(device, ..=zone(2), 0..3);
    reports(device, zone(last)..=zone(last), last..count);
    reports(device, zone(0)..zone(count), 0..count);
    reports(device, zone(0)..zone(last), 0..last);
    // Nothing.
    reports(device, zone(2)..zone(2), none.clone());
    reports(device, ..zone(0), none.clone());
    reports(device, zone(3)..zone(1), none.clone());
    // Past the end.
    reports(device, zone(1)..zone(u32::MAX), 1..count);
    reports(device, zone(1)..=zone(u32::MAX), 1..count);
    reports(device, zone(count).., none.clone());
    reports(device, zone(count)..zone(count + 7), none.clone());
    reports(device, zone(u32::MAX)..=zone(u32::MAX), none.clone());
    let after = (Bound::Excluded(zone(0)), Bound::Excluded(zone(3)));
    reports(device, after, 1..3);
    let after_all = (Bound::Excluded(zone(u32::MAX)), Bound::Unbounded);
    reports(device, after_all, none);
}

#[test]
fn every_kind_of_range_is_reported() {
    ranges(&Device::threaded("zones=8,zone-size=1m,store=null").open_shared());
}

#[test]
fn a_short_last_zone_of_a_size_that_is_no_power_of_two_is_reported() {
    // Seven zones of 3 MiB and one of 1 MiB.
    let mut device = Device::threaded("size=22m,zone-size=3m,zone-cap=2560k,store=null");
    let device = device.open_shared();
    ranges(&device);
    let zones = block_on(device.report(ZoneId(6)..)).unwrap();
    let sizes: Vec<_> = zones
        .iter()
        .map(|zone| (zone.size, zone.capacity))
        .collect();
    let sectors = |kib: u64| SectorCount(kib * 2);
    assert_eq!(
        sizes,
        [
            (sectors(3072), sectors(2560)),
            (sectors(1024), sectors(1024))
        ]
    );
}

#[test]
fn more_zones_than_one_report_holds_are_reported() {
    let mut device = Device::threaded("zones=5000,zone-size=12k,store=null");
    ranges(&device.open_shared());
    let mut device = Device::threaded("zones=1023,zone-size=12k,store=null");
    ranges(&device.open_shared());
    let mut device = Device::threaded("zones=1024,zone-size=12k,store=null");
    ranges(&device.open_shared());
}

#[test]
fn a_single_zone_is_reported() {
    let mut device = Device::threaded("zones=3,zone-size=1m,store=null");
    let device = device.open_shared();
    assert_eq!(
        block_on(device.zone(ZoneId(2)).report()).unwrap().id,
        ZoneId(2)
    );
    let error = block_on(device.zone(ZoneId(3)).report()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_device_of_one_zone_is_reported() {
    let mut device = Device::threaded("zones=1,zone-size=1m,store=null");
    let mut queues = device.open(open_options()).unwrap();
    let queue = queues.pop().unwrap();
    assert_eq!(queue.info().zoned().unwrap().zone_count, 1);
    let device = ZonedDevice::from_queues(vec![queue]).unwrap();
    reports(&device, .., 0..1);
}
