//! Zones are used again and again, and a full log says so.

use zbd_core::{ErrorKind, ZoneId, ZoneLog, ZoneState, log::LogOptions, log::RecordId};

use crate::{
    blocking::block_on,
    random::Random,
    rig::{Kind, SMALL, device_of, on_both_kinds, open, options, payload},
};

on_both_kinds! {
    a_log_goes_round_its_zones_many_times,
    a_full_log_says_so_and_goes_on_when_it_is_trimmed,
    a_full_log_can_be_opened_and_then_trimmed,
    trims_that_free_nothing_do_not_use_up_the_room_that_one_which_does_needs,
    a_zone_is_not_reset_while_one_record_in_it_is_wanted,
    a_trim_past_the_end_is_refused,
    a_log_needs_no_more_open_and_active_zones_than_there_are,
    zones_that_do_not_serve_are_refused_and_named,
}

fn a_log_goes_round_its_zones_many_times<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let mut random = Random::new(5);
    let mut lens = Vec::new();
    let (mut log, _) = open(&device);
    let mut first = 0;
    for round in 0..3000 {
        let len = random.below(2000) as usize;
        let id = block_on(log.append(&payload(round, len))).unwrap();
        assert_eq!(id.0, round);
        lens.push(len);
        if random.below(10) == 0 {
            first = round.saturating_sub(random.below(30)).max(first);
            block_on(log.trim(RecordId(first))).unwrap();
        }
        if random.below(40) == 0 {
            let recovery;
            (log, recovery) = open(&device);
            assert_eq!(recovery.first_id, RecordId(first));
            assert_eq!(recovery.next_id, RecordId(round + 1));
            for record in &recovery.records {
                let read = block_on(log.read(record.id)).unwrap();
                assert_eq!(read, payload(record.id.0, lens[record.id.0 as usize]));
            }
        }
    }
}

/// Appends until the log is full.
fn fill<D: Kind>(log: &ZoneLog<D>, len: usize) -> u64 {
    loop {
        match block_on(log.append(&payload(0, len))) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LogFull);
                assert!(error.to_string().contains("trim"), "{error}");
                break log.next_id().0;
            }
        }
    }
}

fn a_full_log_says_so_and_goes_on_when_it_is_trimmed<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    let count = fill(&log, 1000);
    // Five zones of 64 granules, one of which holds a mark, at three a record.
    assert_eq!(count, 5 * 21);
    for _ in 0..20 {
        let next = log.next_id().0;
        let error = block_on(log.append(&payload(0, 1000))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogFull);
        assert_eq!(log.next_id().0, next, "a refused record has no id");
        block_on(log.trim(RecordId(log.first_id().0 + 40))).unwrap();
        assert!(fill(&log, 1000) > next + 15);
    }
}

fn a_full_log_can_be_opened_and_then_trimmed<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    let count = fill(&log, 1000);
    drop(log);
    for _ in 0..2 {
        let (log, recovery) = open(&device);
        assert_eq!(recovery.next_id.0, count);
        let error = block_on(log.append(&payload(0, 1000))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogFull);
    }
    let (log, _) = open(&device);
    block_on(log.trim(RecordId(count))).unwrap();
    let zones = block_on(device.report(..)).unwrap();
    let begun = zones.iter().filter(|zone| zone.state != ZoneState::Empty);
    assert_eq!(begun.count(), 1, "all but the zone of the mark are reset");
    assert!(fill(&log, 1000) > count + 90);
}

fn trims_that_free_nothing_do_not_use_up_the_room_that_one_which_does_needs<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    let count = fill(&log, 400);
    let mut refused = 0;
    for below in 1..62 {
        if let Err(error) = block_on(log.trim(RecordId(below))) {
            assert_eq!(error.kind(), ErrorKind::LogFull);
            refused += 1;
        }
    }
    assert!(refused > 0);
    block_on(log.trim(RecordId(63))).unwrap();
    assert!(fill(&log, 400) > count);
}

fn a_zone_is_not_reset_while_one_record_in_it_is_wanted<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    fill(&log, 1000);
    block_on(async {
        let records = log.records(..);
        let last_of_first = records
            .iter()
            .filter(|record| record.zone == records[0].zone)
            .map(|record| record.id.0)
            .max()
            .unwrap();
        let first = device.zone(records[0].zone);
        log.trim(RecordId(last_of_first)).await.unwrap();
        assert_eq!(first.report().await.unwrap().state, ZoneState::Full);
        log.trim(RecordId(last_of_first + 1)).await.unwrap();
        assert_eq!(first.report().await.unwrap().state, ZoneState::Empty);
    });
}

fn a_trim_past_the_end_is_refused<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        log.append(b"x").await.unwrap();
        let error = log.trim(RecordId(2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        // What is not durable yet is made so first.
        log.trim(RecordId(1)).await.unwrap();
        assert_eq!(log.watermark(), RecordId(1));
        assert!(log.records(..).is_empty());
    });
}

fn a_log_needs_no_more_open_and_active_zones_than_there_are<D: Kind>() {
    for limit in [
        "max-open=1",
        "max-active=1,max-open=1",
        "max-open=2,max-active=2",
    ] {
        let device = device_of::<D>(&format!("{SMALL},{limit}"));
        let (log, _) = open(&device);
        block_on(async {
            for id in 0..600 {
                // Of a length that fills no zone exactly.
                log.append(&payload(id, 3000)).await.unwrap();
                log.trim(RecordId(id.saturating_sub(20))).await.unwrap();
            }
        });
        let (_, recovery) = open(&device);
        assert_eq!(recovery.next_id, RecordId(600), "{limit}");
    }
}

fn zones_that_do_not_serve_are_refused_and_named<D: Kind>() {
    let device = device_of::<D>("emu:zones=8,zone-size=32k,block-size=512,conventional=2");
    for (zones, name) in [(1..4, "zone 1"), (6..9, "zone 8"), (4..5, "two zones")] {
        let options = LogOptions::new(ZoneId(zones.start)..ZoneId(zones.end));
        for error in [
            block_on(ZoneLog::open(&device, &options)).unwrap_err(),
            block_on(ZoneLog::create(&device, &options)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    let plain = device_of::<D>("emu:model=none");
    let error = block_on(ZoneLog::open(&plain, &options())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
