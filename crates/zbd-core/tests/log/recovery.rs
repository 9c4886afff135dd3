//! What is found after a crash, with zones that were made to look like those of one.

use zbd_core::{
    ErrorKind, ZoneId, ZoneLog, ZoneState,
    log::{OnLoss, RecordId, Recovery},
};

use crate::{
    blocking::block_on,
    rig::{
        GRANULE, Image, Kind, SMALL, device, device_of, image, on_both_kinds, open, options,
        payload, place, restored_of,
    },
};

/// The ids that were found, each with its payload checked.
fn ids<D: Kind>(log: &ZoneLog<D>, recovery: &Recovery, len: usize) -> Vec<u64> {
    let ids = recovery.records.iter().map(|record| {
        let read = block_on(log.read(record.id)).unwrap();
        assert_eq!(read, payload(record.id.0, len), "record {}", record.id);
        record.id.0
    });
    ids.collect()
}

/// A log with `count` records of one granule that were written and never flushed, and what is stored
/// of it.
fn unflushed(count: u64) -> (Image, Vec<(usize, usize)>) {
    let device = device(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..count {
            log.append(&payload(id, 100)).await.unwrap();
        }
    });
    let places = (0..count).map(|id| place(&device, &log, id)).collect();
    (image(&device), places)
}

on_both_kinds! {
    records_that_landed_in_any_order_come_back_in_that_of_their_ids,
    recovery_stops_at_the_first_gap_and_what_is_beyond_never_comes_back,
    stale_records_stay_dead_when_the_epochs_after_them_are_trimmed_away,
    a_damaged_record_that_was_not_durable_ends_the_log,
    a_damaged_record_that_was_durable_is_told_and_accepted_by_choice,
    a_record_that_is_damaged_after_it_was_opened_is_not_read_as_right,
    a_record_cut_short_is_no_record_and_what_follows_is_not_taken_for_its_rest,
    the_trim_point_survives_and_what_is_below_it_does_not_hide_what_is_above,
    zones_that_are_trimmed_and_not_reset_yet_are_reset_by_the_next_handle,
    what_shows_behind_a_seal_is_no_record,
    what_is_not_the_log_s_is_refused_and_left_as_it_is,
}

fn records_that_landed_in_any_order_come_back_in_that_of_their_ids<D: Kind>() {
    let (mut image, places) = unflushed(20);
    let zone = places[0].0;
    // The mark is first.
    image[zone][1..].reverse();
    let (log, recovery) = open(&restored_of::<D>(SMALL, &image));
    assert!((0..20).eq(ids(&log, &recovery, 100)));
}

fn recovery_stops_at_the_first_gap_and_what_is_beyond_never_comes_back<D: Kind>() {
    let (mut image, places) = unflushed(20);
    let (zone, granule) = places[7];
    image[zone].remove(granule);
    let device = restored_of::<D>(SMALL, &image);
    let (log, recovery) = open(&device);
    assert!((0..7).eq(ids(&log, &recovery, 100)));
    assert_eq!((recovery.next_id, recovery.dropped), (RecordId(7), 12));

    // Two new records, then the next that the old ones have.
    block_on(async {
        assert_eq!(log.append(&payload(7, 101)).await.unwrap(), RecordId(7));
        assert_eq!(log.append(&payload(8, 101)).await.unwrap(), RecordId(8));
        log.sync().await.unwrap();
    });
    for _ in 0..3 {
        let (log, recovery) = open(&device);
        assert_eq!(recovery.next_id, RecordId(9));
        for id in 7..9 {
            assert_eq!(block_on(log.read(RecordId(id))).unwrap(), payload(id, 101));
        }
        assert_eq!(block_on(log.read(RecordId(6))).unwrap(), payload(6, 100));
    }
}

fn stale_records_stay_dead_when_the_epochs_after_them_are_trimmed_away<D: Kind>() {
    let (mut image, places) = unflushed(20);
    let (zone, granule) = places[7];
    image[zone].remove(granule);
    let device = restored_of::<D>(SMALL, &image);
    // Records 8 to 19 of the first epoch share their zone with 0 to 6, which is kept as long as
    // one of them is wanted.
    let (log, _) = open(&device);
    block_on(async {
        for id in 7..400 {
            assert_eq!(log.append_durable(&payload(id, 100)).await.unwrap().0, id);
            if id > 60 {
                log.trim(RecordId(id - 50)).await.unwrap();
            }
        }
    });
    for _ in 0..5 {
        let (log, recovery) = open(&device);
        assert!((349..400).eq(ids(&log, &recovery, 100)));
    }
}

fn a_damaged_record_that_was_not_durable_ends_the_log<D: Kind>() {
    for byte in [3, 50, 84, 88, 120] {
        let (mut image, places) = unflushed(20);
        let (zone, granule) = places[7];
        image[zone][granule][byte] ^= 0x10;
        let (log, recovery) = open(&restored_of::<D>(SMALL, &image));
        assert!((0..7).eq(ids(&log, &recovery, 100)), "byte {byte}");
        assert_eq!(recovery.dropped, 12);
        assert_eq!(recovery.damaged, usize::from(byte >= 88));
    }
}

fn a_damaged_record_that_was_durable_is_told_and_accepted_by_choice<D: Kind>() {
    let device_before = device_of::<D>(SMALL);
    let (log, _) = open(&device_before);
    block_on(async {
        for id in 0..20 {
            log.append_durable(&payload(id, 100)).await.unwrap();
        }
    });
    let (zone, granule) = place(&device_before, &log, 7);
    let mut image = image(&device_before);
    image[zone][granule][100] ^= 1;
    let device = restored_of::<D>(SMALL, &image);
    let error = block_on(ZoneLog::open(&device, &options())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("record 7"), "{error}");
    let mut options = options();
    options.on_loss = OnLoss::Accept;
    let (log, recovery) = block_on(ZoneLog::open(&device, &options)).unwrap();
    assert!((0..7).eq(ids(&log, &recovery, 100)));
    block_on(log.append_durable(&payload(7, 100))).unwrap();
    let (log, recovery) = open(&device);
    assert!((0..8).eq(ids(&log, &recovery, 100)));
}

fn a_record_that_is_damaged_after_it_was_opened_is_not_read_as_right<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    let other = block_on(async {
        let id = log.append_durable(&payload(0, 100)).await.unwrap();
        let zone = log.records(..)[0].zone;
        device.zone(zone).reset().await.unwrap();
        let mut buffer = device.buffer(2 * GRANULE).unwrap();
        buffer.fill(9);
        device.append(zone, buffer).await.unwrap();
        log.read(id).await.unwrap_err()
    });
    assert_eq!(other.kind(), ErrorKind::Corrupt);
}

fn a_record_cut_short_is_no_record_and_what_follows_is_not_taken_for_its_rest<D: Kind>() {
    let device_before = device_of::<D>(SMALL);
    let (log, _) = open(&device_before);
    block_on(async {
        log.append_durable(&payload(0, 2000)).await.unwrap();
        log.append(&payload(1, 2000)).await.unwrap();
    });
    let (zone, granule) = place(&device_before, &log, 1);
    let whole = image(&device_before);
    for cut in 0..5 {
        let mut image = whole.clone();
        image[zone].truncate(granule + cut);
        let device = restored_of::<D>(SMALL, &image);
        let (log, recovery) = open(&device);
        assert!((0..1).eq(ids(&log, &recovery, 2000)), "cut at {cut}");
        block_on(async {
            for id in 1..20 {
                log.append_durable(&payload(id, 2000)).await.unwrap();
            }
        });
        for _ in 0..3 {
            let (log, recovery) = open(&device);
            assert!((0..20).eq(ids(&log, &recovery, 2000)), "cut at {cut}");
        }
    }
}

fn the_trim_point_survives_and_what_is_below_it_does_not_hide_what_is_above<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        // Three records a zone.
        for id in 0..8 {
            log.append_durable(&payload(id, 8000)).await.unwrap();
        }
        log.trim(RecordId(7)).await.unwrap();
        assert_eq!(log.first_id(), RecordId(7));
        let error = log.read(RecordId(6)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    });
    let before = image(&device);
    let (log, recovery) = open(&device);
    assert_eq!(recovery.first_id, RecordId(7));
    assert!((7..8).eq(ids(&log, &recovery, 8000)));
    assert!(before.iter().filter(|zone| !zone.is_empty()).count() <= 3);
}

fn zones_that_are_trimmed_and_not_reset_yet_are_reset_by_the_next_handle<D: Kind>() {
    let device_before = device_of::<D>(SMALL);
    let (log, _) = open(&device_before);
    block_on(async {
        for id in 0..8 {
            log.append_durable(&payload(id, 8000)).await.unwrap();
        }
    });
    let mut stored = image(&device_before);
    block_on(log.trim(RecordId(7))).unwrap();
    let after = image(&device_before);
    // The cut came after the mark, before the resets.
    let marked: Vec<_> = (0..8).filter(|zone| !after[*zone].is_empty()).collect();
    for zone in marked {
        stored[zone].clone_from(&after[zone]);
    }
    // And one of the zones in the middle was reset all the same.
    let gone = (1..7)
        .find(|zone| after[*zone].is_empty() && !stored[*zone].is_empty())
        .unwrap();
    stored[gone].clear();
    let device = restored_of::<D>(SMALL, &stored);
    let (log, recovery) = open(&device);
    assert!((7..8).eq(ids(&log, &recovery, 8000)));
    for (zone, granules) in (0..).zip(&after) {
        let state = block_on(device.zone(ZoneId(zone)).report()).unwrap().state;
        assert_eq!(
            state == ZoneState::Empty,
            granules.is_empty(),
            "zone {zone}"
        );
    }
}

fn what_shows_behind_a_seal_is_no_record<D: Kind>() {
    let device_before = device_of::<D>(SMALL);
    let (log, _) = open(&device_before);
    block_on(async {
        // Ten granules each, so that zones are finished before they are full.
        for id in 0..11 {
            log.append_durable(&payload(id, 5000)).await.unwrap();
        }
    });
    let first = place(&device_before, &log, 0).0;
    let (last, granule) = place(&device_before, &log, 10);
    assert_ne!(first, last);
    let whole = image(&device_before);
    // A mark, six records, a seal, and zeroes.
    assert_eq!(whole[first].len(), 64);
    assert!(whole[first][62..].iter().flatten().all(|byte| *byte == 0));
    for behind in [false, true] {
        let mut image = whole.clone();
        let mut record: Vec<_> = image[last].drain(granule..granule + 10).collect();
        if behind {
            // As if the last record had been lost there by a crash, one granule of it.
            record.truncate(1);
            image[first][62].clone_from(&record[0]);
        }
        let (log, recovery) = open(&restored_of::<D>(SMALL, &image));
        assert!((0..10).eq(ids(&log, &recovery, 5000)));
        assert_eq!(recovery.damaged, 0);
    }
}

fn what_is_not_the_log_s_is_refused_and_left_as_it_is<D: Kind>() {
    let (image_of_log, _) = unflushed(5);
    let (image_of_other, _) = unflushed(5);
    for zone in 1..7 {
        for make in [true, false] {
            let mut stored: Image = match make {
                true => vec![Vec::new(); 8],
                false => image_of_log.clone(),
            };
            if !stored[zone].is_empty() {
                continue;
            }
            for foreign in [vec![vec![7; GRANULE]], image_of_other[1].clone()] {
                if make && foreign.len() > 1 {
                    continue;
                }
                stored[zone] = foreign;
                let device = restored_of::<D>(SMALL, &stored);
                let error = block_on(ZoneLog::open(&device, &options())).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
                let error = block_on(ZoneLog::create(&device, &options())).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
                assert!(image(&device) == stored);
            }
        }
    }
}
