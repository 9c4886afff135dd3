//! Appends through the polled door: each lands once, where it says, as it was.

use std::collections::BTreeMap;

use zbd_core::{ErrorKind, Request, Sector, ZoneId, ZoneState};

use crate::{
    random::Random,
    rig::{Device, Rig, pattern},
};

/// Zones whose size is no power of two, some of which cannot be written.
const GEOMETRY: &str = "zones=8,zone-size=768k,zone-cap=512k,conventional=2,max-append=64k,\
                        block-size=512,queues=1,queue-size=32";
const ZONE_SECTORS: u64 = 1536;

fn batches_land_once_and_read_back(mut rig: Rig) {
    let mut random = Random::new(1);
    // Where each append of which token and length went.
    let mut extents = BTreeMap::new();
    let mut left: BTreeMap<u32, u64> = (2..6).map(|zone| (zone, 1024)).collect();
    let mut token = 0;
    for _ in 0..40 {
        let mut sent = BTreeMap::new();
        for _ in 0..=random.below(31) {
            let zone = 2 + random.below(4) as u32;
            let sectors = 1 + random.below(8);
            if left[&zone] < sectors {
                continue;
            }
            *left.get_mut(&zone).unwrap() -= sectors;
            let request = rig.append(zone, sectors as usize * 512, token);
            rig.queue.submit(request, token).unwrap();
            sent.insert(token, (zone, sectors));
            token += 1;
        }
        for done in rig.finish() {
            let (zone, sectors) = sent.remove(&done.token).unwrap();
            let at = done.result.unwrap().0;
            assert_eq!(done.buffer.unwrap().len() as u64, sectors * 512);
            assert_eq!(at / ZONE_SECTORS, u64::from(zone));
            assert!(extents.insert(at, (sectors, done.token)).is_none());
        }
        assert!(sent.is_empty());
    }
    // Extents that follow one another without a gap or an overlap from each zone's start on are
    // distinct, inside, and all there is.
    let zones = rig.report();
    for zone in 2..6u32 {
        let mut at = u64::from(zone) * ZONE_SECTORS;
        while let Some((sectors, token)) = extents.remove(&at) {
            let len = sectors as usize * 512;
            assert!(rig.read(at, len) == pattern(token, len), "data of {token}");
            at += sectors;
        }
        let seen = &zones[zone as usize];
        assert_eq!(seen.start.0 + seen.written().unwrap().0, at);
    }
    assert!(extents.is_empty());
    assert_eq!(zones[6].state, ZoneState::Empty);
}

#[test]
fn batches_to_several_zones_on_a_stepped_device_land_once_and_read_back() {
    batches_land_once_and_read_back(Rig::stepped(GEOMETRY));
}

#[test]
fn batches_to_several_zones_on_a_thread_land_once_and_read_back() {
    batches_land_once_and_read_back(Rig::threaded(GEOMETRY));
}

#[test]
fn batches_without_indirection_land_once_and_read_back() {
    batches_land_once_and_read_back(Rig::threaded(
        &format!("{GEOMETRY},indirect=off,event-idx=off")
            .replace("queue-size=32", "queue-size=128"),
    ));
}

#[test]
fn a_batch_costs_one_doorbell() {
    for event_idx in ["on", "off"] {
        let mut rig = Rig::stepped(&format!("store=null,event-idx={event_idx}"));
        for batch in [1, 2, 32, 256] {
            let before = (rig.queue.doorbells(), rig.device.control.counters());
            for token in 0..batch {
                let request = rig.append(0, 4096, token);
                rig.queue.submit(request, token).unwrap();
            }
            assert_eq!(
                rig.queue.doorbells(),
                before.0,
                "nothing is shown before commit"
            );
            assert_eq!(rig.finish().len() as u64, batch);
            let after = rig.device.control.counters();
            assert_eq!(rig.queue.doorbells(), before.0 + 1, "{batch} at once");
            assert_eq!(after.notifications, before.1.notifications + 1);
            assert_eq!(after.requests, before.1.requests + batch);
        }
    }
}

#[test]
fn with_event_indices_a_device_that_was_notified_is_not_notified_again() {
    let mut rig = Rig::stepped("store=null,event-idx=on");
    let before = rig.queue.doorbells();
    for token in 0..5 {
        let request = rig.append(0, 4096, token);
        rig.queue.submit(request, token).unwrap();
        rig.queue.commit();
    }
    // Committing nothing is nothing.
    rig.queue.commit();
    assert_eq!(rig.queue.doorbells(), before + 1);
    assert_eq!(rig.finish().len(), 5);
}

#[test]
fn what_is_not_committed_is_not_seen() {
    let mut rig = Rig::stepped("");
    let before = rig.device.requests();
    let request = rig.append(1, 4096, 0);
    rig.queue.submit(request, 9).unwrap();
    rig.device.step();
    assert!(rig.queue.poll().is_none());
    assert_eq!(rig.queue.in_flight(), 1);
    assert_eq!(rig.device.requests(), before);
    assert_eq!(rig.finish()[0].token, 9);
}

#[test]
fn a_zone_takes_its_capacity_exactly_and_then_refuses() {
    let mut rig = Rig::stepped(GEOMETRY);
    for token in 0..8 {
        let request = rig.append(7, 65536, token);
        let done = rig.run(request);
        assert_eq!(done.result.unwrap(), Sector(7 * ZONE_SECTORS + token * 128));
    }
    assert_eq!(rig.report()[7].state, ZoneState::Full);
    let request = rig.append(7, 512, 0);
    let done = rig.run(request);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::InvalidZoneState);
    assert_eq!(done.buffer.unwrap().to_vec(), pattern(0, 512));
}

#[test]
fn queues_of_one_device_append_to_one_zone() {
    let mut device = Device::threaded("queues=4,block-size=512,zones=4,zone-size=1m");
    let options = zbd_core::OpenOptions {
        queues: 4,
        ..crate::rig::open_options()
    };
    let queues = device.open(options).unwrap();
    assert_eq!(queues.len(), 4);
    let threads: Vec<_> = queues
        .into_iter()
        .map(|queue| {
            let function = std::sync::Arc::clone(&device.function);
            std::thread::spawn(move || {
                let control = function.control();
                let device = Device {
                    function,
                    control,
                    stepper: None,
                };
                let mut rig = Rig { queue, device };
                let mut sectors = Vec::new();
                for round in 0..30 {
                    for token in 0..16 {
                        let buffer = rig.filled(512, round);
                        let zone = ZoneId(3);
                        rig.queue
                            .submit(Request::Append { zone, buffer }, token)
                            .unwrap();
                    }
                    sectors.extend(rig.finish().into_iter().map(|done| done.result.unwrap().0));
                }
                (rig, sectors)
            })
        })
        .collect();
    let ended: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let mut sectors: Vec<_> = ended
        .iter()
        .flat_map(|(_, sectors)| sectors)
        .copied()
        .collect();
    sectors.sort_unstable();
    let start = 3 * 2048;
    assert!(sectors.into_iter().eq(start..start + 4 * 30 * 16));
}
