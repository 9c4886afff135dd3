//! What becomes of a log whose device fails.

use std::pin::Pin;

use zbd_core::{ErrorKind, ZoneId, ZoneState, log::RecordId};
use zbd_emu::Fault;

use crate::{
    blocking::{block_on, poll_once},
    rig::{Kind, SMALL, controlled_of, on_both_kinds, open, payload},
};

/// VIRTIO_BLK_S_IOERR.
const IOERR: u8 = 1;
/// VIRTIO_BLK_S_ZONE_INVALID_CMD.
const INVALID_CMD: u8 = 3;

on_both_kinds! {
    the_watermark_stops_before_a_record_that_was_not_written,
    a_record_that_a_zone_does_not_take_goes_to_another,
    a_flush_that_failed_is_not_made_good_by_the_next,
    a_read_only_zone_is_read_and_not_written,
    an_offline_zone_with_durable_records_is_a_loss,
}

fn the_watermark_stops_before_a_record_that_was_not_written<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(log.append_durable(&payload(0, 100))).unwrap();
    control.hold();
    let payloads: Vec<_> = (1..8).map(|id| payload(id, 100)).collect();
    let mut appends: Vec<Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
    for (id, payload) in (1..).zip(&payloads) {
        let mut append: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.append(payload));
        assert!(poll_once(&mut append).is_none());
        if id == 4 {
            // The device takes requests in the order in which they came; this one is the next after
            // those that it has been shown.
            drop(append);
        } else {
            appends.push(append);
        }
    }
    control.inject(Fault::Status(IOERR));
    control.release();
    let error = block_on(log.sync()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Medium);
    let hole = log.watermark().0;
    assert!((1..8).contains(&hole));
    assert!(
        error.to_string().contains(&format!("record {hole}")),
        "{error}"
    );
    assert_eq!(log.next_id(), RecordId(8));
    let mut id = 0;
    for append in appends {
        id += if id == 3 { 2 } else { 1 };
        match block_on(append) {
            Ok(got) => assert!(got.0 == id && id < hole),
            Err(error) => assert!(error.kind() == ErrorKind::Medium && id >= hole),
        }
    }
    let error = block_on(log.append(b"more")).unwrap_err();
    assert!(error.to_string().contains("anew"), "{error}");
    let (_, recovery) = open(&device);
    assert_eq!(recovery.next_id, RecordId(hole));
}

fn a_record_that_a_zone_does_not_take_goes_to_another<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..4 {
            control.inject(Fault::Status(INVALID_CMD));
            let got = log.append_durable(&payload(id, 100)).await.unwrap();
            assert_eq!(got.0, id);
        }
        let records = log.records(..);
        assert!(records.is_sorted_by(|a, b| a.zone < b.zone));
        // That was the last one but the one that is kept empty.
        control.inject(Fault::Status(INVALID_CMD));
        let error = log.append_durable(&payload(4, 100)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogFull);
    });
    let (log, recovery) = open(&device);
    assert_eq!(recovery.next_id, RecordId(4));
    block_on(async {
        for id in 0..4 {
            assert_eq!(log.read(RecordId(id)).await.unwrap(), payload(id, 100));
        }
    });
}

fn a_flush_that_failed_is_not_made_good_by_the_next<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        log.append_durable(b"one").await.unwrap();
        log.append(b"two").await.unwrap();
        control.inject(Fault::Status(IOERR));
        for _ in 0..2 {
            let error = log.sync().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Medium);
        }
        assert_eq!(log.watermark(), RecordId(1));
    });
}

fn a_read_only_zone_is_read_and_not_written<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..10 {
            log.append_durable(&payload(id, 1000)).await.unwrap();
        }
    });
    let zone = log.records(..)[0].zone;
    control
        .fail_zone(zone.0 as usize, zbd_emu::ZoneState::ReadOnly)
        .unwrap();
    // The handle goes on elsewhere.
    block_on(log.append_durable(&payload(10, 1000))).unwrap();
    let (log, recovery) = open(&device);
    assert_eq!(recovery.next_id, RecordId(11));
    block_on(async {
        for id in 11..400 {
            log.append_durable(&payload(id, 1000)).await.unwrap();
            log.trim(RecordId(id - 5)).await.unwrap();
        }
        let zone = device.zone(ZoneId(zone.0)).report().await.unwrap();
        assert_eq!(zone.state, ZoneState::ReadOnly);
    });
    let (_, recovery) = open(&device);
    assert_eq!(
        (recovery.first_id, recovery.next_id),
        (RecordId(394), RecordId(400))
    );
}

fn an_offline_zone_with_durable_records_is_a_loss<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..100 {
            log.append_durable(&payload(id, 1000)).await.unwrap();
        }
    });
    let zone = log.records(..)[50].zone;
    control
        .fail_zone(zone.0 as usize, zbd_emu::ZoneState::Offline)
        .unwrap();
    let options = crate::rig::options();
    let error = block_on(zbd_core::ZoneLog::open(&device, &options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
