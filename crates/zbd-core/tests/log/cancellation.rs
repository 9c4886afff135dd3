//! Futures dropped at every await point: what has an id is in the log, what has none is not.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use zbd_core::{
    Result, ZoneId, ZoneLog,
    log::{LogOptions, RecordId},
};

use crate::{
    blocking::{block_on, poll_once},
    random::Random,
    rig::{
        Kind, SMALL, controlled_of, device, device_of, free_pages, on_both_kinds, open, options,
        payload,
    },
};

/// Longer than anything here takes, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

type Dropped<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// All ids are there, each with one of the payloads that were offered, durable, and again after the
/// log has been opened anew.
fn check<D: Kind>(device: &zbd_core::ZonedDevice<D>, log: &ZoneLog<D>) {
    let end = log.next_id();
    assert_eq!(block_on(log.sync()).unwrap(), end);
    let before = log.records(..);
    let (log, recovery) = open(device);
    assert_eq!(recovery.next_id, end);
    // What was given up by a trim that was not awaited may be back.
    assert!(recovery.records.ends_with(&before));
    assert!((recovery.dropped, recovery.damaged) == (0, 0));
    for record in before {
        let read = block_on(log.read(record.id)).unwrap();
        let (n, len) = (u64::from(read[0]), read.len());
        assert_eq!(read[1..], payload(n, len - 1), "record {}", record.id);
    }
}

/// A payload that says how it was made.
fn told(n: u64, len: usize) -> Vec<u8> {
    let mut told = vec![n as u8];
    told.extend(payload(u64::from(n as u8), len));
    told
}

on_both_kinds! {
    everything_dropped_after_so_many_polls_leaves_a_log_without_gaps,
    a_record_whose_future_was_dropped_in_flight_is_covered_by_the_next_sync,
    a_future_that_nobody_polls_does_not_hold_up_the_others,
    whoever_opens_a_log_waits_for_what_was_left_on_its_way_to_the_zones,
}

fn everything_dropped_after_so_many_polls_leaves_a_log_without_gaps<D: Kind>() {
    for polls in 0..6 {
        for window in [1, 2, 8] {
            let device = device_of::<D>(&format!("{SMALL},latency=30us"));
            let mut options = options();
            options.window = window;
            let (log, _) = block_on(ZoneLog::open(&device, &options)).unwrap();
            let pages = free_pages(&device);
            for n in 0..40 {
                let told = told(n, 40 * n as usize);
                let first = RecordId(log.next_id().0.saturating_sub(9));
                let mut futures: Vec<Dropped<'_>> = vec![
                    Box::pin(async { log.append(&told).await.map(drop) }),
                    Box::pin(async { log.append_durable(&told).await.map(drop) }),
                    Box::pin(async { log.sync().await.map(drop) }),
                    Box::pin(async { log.trim(first).await }),
                ];
                for _ in 0..polls {
                    futures.retain_mut(|future| match poll_once(future) {
                        Some(end) => {
                            end.unwrap();
                            false
                        }
                        None => true,
                    });
                    std::thread::sleep(Duration::from_micros(20));
                }
                drop(futures);
            }
            // All that was under way before this has ended with it, if somebody waits for that.
            block_on(log.append_durable(&told(0, 0))).unwrap();
            // What a dropped future had asked for may be on its way back.
            let begun = Instant::now();
            while free_pages(&device) != pages {
                assert!(begun.elapsed() < PATIENCE, "a buffer is lost");
                zbd_core::on_thread_park();
                std::thread::sleep(Duration::from_micros(50));
            }
            check(&device, &log);
        }
    }
}

fn a_record_whose_future_was_dropped_in_flight_is_covered_by_the_next_sync<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    control.hold();
    let told: Vec<_> = (0..5).map(|n| told(n, 100)).collect();
    let mut futures: Vec<Dropped<'_>> = Vec::new();
    for told in &told {
        futures.push(Box::pin(async { log.append(told).await.map(drop) }));
    }
    for future in &mut futures {
        assert!(poll_once(future).is_none());
    }
    drop(futures);
    assert_eq!(log.next_id(), RecordId(5));
    let mut sync: Dropped<'_> = Box::pin(async { log.sync().await.map(drop) });
    assert!(poll_once(&mut sync).is_none());
    control.release();
    block_on(sync).unwrap();
    assert_eq!(log.watermark(), RecordId(5));
    check(&device, &log);
}

fn a_future_that_nobody_polls_does_not_hold_up_the_others<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let mut options = options();
    options.window = 3;
    let (log, _) = block_on(ZoneLog::open(&device, &options)).unwrap();
    control.hold();
    let told: Vec<_> = (0..3).map(|n| told(n, 100)).collect();
    let mut forgotten: Vec<Dropped<'_>> = Vec::new();
    for told in &told {
        forgotten.push(Box::pin(async { log.append(told).await.map(drop) }));
    }
    for future in &mut forgotten {
        assert!(poll_once(future).is_none());
    }
    control.release();
    // The window is full of records whose futures are never polled again.
    block_on(async {
        for n in 3..20 {
            log.append_durable(&crate::cancellation::told(n, 10))
                .await
                .unwrap();
        }
    });
    drop(forgotten);
    check(&device, &log);
}

#[test]
fn drops_at_random_under_load_leave_a_log_without_gaps() {
    let device = device("emu:zones=4,zone-size=8m,block-size=512,queues=2,latency=20us");
    let mut options = LogOptions::new(ZoneId(0)..ZoneId(4));
    options.window = 8;
    let (log, _) = block_on(ZoneLog::open(&device, &options)).unwrap();
    let workers: Vec<_> = (0..4)
        .map(|seed| {
            let log = log.clone();
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                for n in 0..300 {
                    let told = told(n, random.below(1500) as usize);
                    let mut future: Dropped<'_> = match random.below(4) {
                        0 => Box::pin(async { log.append_durable(&told).await.map(drop) }),
                        1 => Box::pin(async { log.sync().await.map(drop) }),
                        _ => Box::pin(async { log.append(&told).await.map(drop) }),
                    };
                    match random.below(6) {
                        0 => block_on(future).unwrap(),
                        polls => {
                            for _ in 0..polls {
                                if let Some(end) = poll_once(&mut future) {
                                    end.unwrap();
                                    break;
                                }
                                std::thread::sleep(Duration::from_micros(random.below(60)));
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(log.next_id().0 > 300);
    let end = log.next_id();
    block_on(log.sync()).unwrap();
    let (_, recovery) = block_on(ZoneLog::open(&device, &options)).unwrap();
    assert_eq!(recovery.next_id, end);
}

/// A reset that its log has left behind, say.
fn whoever_opens_a_log_waits_for_what_was_left_on_its_way_to_the_zones<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    for is_there in [false, true] {
        control.hold();
        let taken = control.counters().requests;
        // Not the one that the log writes to.
        let zone = ZoneId(options().zones.end.0 - 1);
        let mut reset = Box::pin(device.zone(zone).reset()) as Dropped<'_>;
        assert!(poll_once(&mut reset).is_none());
        drop(reset);
        let requests = || {
            zbd_core::on_thread_park();
            std::thread::sleep(Duration::from_micros(200));
            control.counters().requests
        };
        let begun = Instant::now();
        while requests() == taken {
            assert!(begun.elapsed() < PATIENCE, "the device does not take it");
        }
        let mut opened = None;
        let mut opening = Box::pin(async {
            opened = Some(ZoneLog::open(&device, &options()).await?);
            Ok(())
        }) as Dropped<'_>;
        for _ in 0..20 {
            assert!(poll_once(&mut opening).is_none());
            assert_eq!(requests(), taken + 1, "it asks the device too early");
        }
        control.release();
        block_on(opening).unwrap();
        let (log, recovery) = opened.unwrap();
        assert_eq!(recovery.records.len(), usize::from(is_there));
        block_on(log.append_durable(&told(1, 100))).unwrap();
    }
}
