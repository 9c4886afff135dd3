//! What the device is told when it is notified.

use zbd_core::Request;

use crate::{random::Random, rig::Rig};

/// The first value that the software device chooses for itself (NOTIF_CONFIG_DATA).
const CHOSEN: u32 = 0x40;

fn rig(ring: &str, size: u16, more: &str) -> Rig {
    // What a test does not ask for is off, whatever comes on top.
    let asked = |key: &str| more.split(',').any(|part| part.starts_with(key));
    let off: String = ["notification-data=", "notif-config-data="]
        .into_iter()
        .filter(|key| !asked(key))
        .map(|key| format!(",{key}off"))
        .collect();
    Rig::stepped(&format!(
        "zones=1,zone-size=1m,queues=1,queue-size={size},ring={ring},event-idx=off,{more}{off}"
    ))
}

/// Submits requests that take one place of the ring each, and compares each notification with what
/// `position` says of the number of places that have been filled so far.
fn follow(rig: &mut Rig, size: u64, (end, value): (u64, u32), position: impl Fn(u64) -> u32) {
    let mut random = Random::new(size);
    // Opening took one report.
    let mut placed = 1;
    assert_eq!(
        rig.device.control.last_notification(0) >> 16,
        position(placed)
    );
    while placed < end {
        let batch = 1 + random.below(size);
        for token in 0..batch {
            rig.queue.submit(Request::Flush, token).unwrap();
        }
        rig.queue.commit();
        placed += batch;
        let last = rig.device.control.last_notification(0);
        assert_eq!(last & 0xffff, value);
        assert_eq!(last >> 16, position(placed), "after {placed}");
        assert_eq!(rig.finish().len() as u64, batch);
    }
}

#[test]
fn a_split_ring_tells_its_available_index() {
    for (more, value) in [("", 0), (",notif-config-data=on", CHOSEN)] {
        let more = format!("indirect=on,notification-data=on{more}");
        let mut rig = rig("split", 8, &more);
        follow(&mut rig, 8, (70_000, value), |placed| {
            placed as u32 & 0xffff
        });
    }
}

#[test]
fn a_packed_ring_tells_its_offset_and_its_lap() {
    for size in [7, 8] {
        let mut rig = rig("packed", size, "indirect=on,notification-data=on");
        let size = u64::from(size);
        follow(&mut rig, size, (5000, 0), |placed| {
            let wrap = u32::from((placed / size).is_multiple_of(2));
            (placed % size) as u32 | (wrap << 15)
        });
    }
}

#[test]
fn direct_chains_count_each_descriptor() {
    let mut rig = rig("packed", 16, "indirect=off,notification-data=on");
    // The report took three, a flush takes two.
    let mut placed = 3u32;
    for _ in 0..1000 {
        rig.queue.submit(Request::Flush, 0).unwrap();
        rig.queue.commit();
        placed += 2;
        let wrap = u32::from((placed / 16).is_multiple_of(2));
        let expected = (placed % 16) | (wrap << 15);
        assert_eq!(rig.device.control.last_notification(0) >> 16, expected);
        rig.finish();
    }
}

#[test]
fn without_notification_data_only_the_queue_is_told() {
    for (more, value) in [("", 0), (",notif-config-data=on", CHOSEN)] {
        for ring in ["split", "packed"] {
            let mut rig = rig(ring, 8, &format!("indirect=on,notification-data=off{more}"));
            for _ in 0..20 {
                rig.queue.submit(Request::Flush, 0).unwrap();
                rig.queue.commit();
                assert_eq!(rig.device.control.last_notification(0), value);
                rig.finish();
            }
        }
    }
}
