//! Records come back as they were, in the order of their ids.

use std::sync::Arc;

use zbd_core::{
    ErrorKind, ZoneId, ZoneLog, ZoneState,
    log::{LogOptions, RecordId},
};

use crate::{
    blocking::block_on,
    rig::{SMALL, device, open, options, payload},
};

#[test]
fn records_are_read_back_before_and_after_the_log_is_opened_anew() {
    let device = device(SMALL);
    let (log, recovery) = open(&device);
    assert!(recovery.records.is_empty());
    let lens = [0, 1, 423, 424, 425, 512, 936, 937, 8104];
    assert_eq!(log.max_record_len(), 8104);
    block_on(async {
        for (id, len) in (0..).zip(lens) {
            let got = log.append(&payload(id, len)).await.unwrap();
            assert_eq!(got, RecordId(id));
        }
        assert_eq!(log.watermark(), RecordId(0));
        assert_eq!(log.sync().await.unwrap(), RecordId(9));
        assert_eq!(log.watermark(), RecordId(9));
        for (id, len) in (0..).zip(lens) {
            assert_eq!(log.read(RecordId(id)).await.unwrap(), payload(id, len));
        }
    });
    drop(log);
    let (log, recovery) = open(&device);
    assert_eq!((recovery.dropped, recovery.damaged), (0, 0));
    assert_eq!(
        (recovery.first_id, recovery.next_id),
        (RecordId(0), RecordId(9))
    );
    assert_eq!(recovery.records, log.records(..));
    assert_eq!(log.watermark(), RecordId(9));
    for (record, (id, len)) in recovery.records.iter().zip((0..).zip(lens)) {
        assert_eq!((record.id, record.len_bytes), (RecordId(id), len));
        let read = block_on(log.read(record.id)).unwrap();
        assert_eq!(read, payload(id, len));
    }
}

#[test]
fn a_log_leaves_other_zones_alone() {
    let device = device(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..500 {
            log.append_durable(&payload(id, 300)).await.unwrap();
            log.trim(RecordId(id)).await.unwrap();
        }
        for zone in [0, 7] {
            let zone = device.zone(ZoneId(zone)).report().await.unwrap();
            assert_eq!(zone.state, ZoneState::Empty);
        }
    });
}

#[test]
fn a_record_that_is_too_long_is_refused_and_the_limit_named() {
    let device = device(SMALL);
    let (log, _) = open(&device);
    let error = block_on(log.append(&[0; 8105])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("8104"), "{error}");
    assert_eq!(block_on(log.append(&[0; 8104])).unwrap(), RecordId(0));
}

#[test]
fn an_id_is_asked_for_and_got_or_refused() {
    let device = device(SMALL);
    let mut options = options();
    options.first_id = RecordId(17);
    block_on(async {
        let log = ZoneLog::create(&device, &options).await.unwrap();
        assert_eq!(
            (log.first_id(), log.next_id()),
            (RecordId(17), RecordId(17))
        );
        for wrong in [0, 16, 18] {
            let error = log.append_as(RecordId(wrong), b"x").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        }
        log.append_as(RecordId(17), b"x").await.unwrap();
        assert_eq!(log.append_durable(b"y").await.unwrap(), RecordId(18));
        let (_, recovery) = ZoneLog::open(&device, &options).await.unwrap();
        assert_eq!(recovery.first_id, RecordId(17));
        assert_eq!(recovery.next_id, RecordId(19));
    });
}

#[test]
fn many_tasks_append_at_once_and_ids_say_the_order() {
    const TASKS: u64 = 16;
    const EACH: u64 = 200;
    let device = device("emu:zones=4,zone-size=4m,block-size=512,queues=2");
    let options = LogOptions::new(ZoneId(0)..ZoneId(4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (log, _) = runtime.block_on(ZoneLog::open(&device, &options)).unwrap();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.push(runtime.spawn(async move {
            let mut ids = Vec::new();
            for n in 0..EACH {
                let text = format!("{task} {n}");
                let id = match n % 10 {
                    0 => {
                        let id = log.append_durable(text.as_bytes()).await.unwrap();
                        assert!(log.watermark() > id);
                        id
                    }
                    _ => log.append(text.as_bytes()).await.unwrap(),
                };
                ids.push((id, text));
            }
            ids
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let ids = runtime.block_on(task).unwrap();
        assert!(ids.is_sorted(), "one task's ids rise");
        all.extend(ids);
    }
    all.sort();
    assert!((0..TASKS * EACH).eq(all.iter().map(|(id, _)| id.0)));
    drop(log);
    let (log, recovery) = runtime.block_on(ZoneLog::open(&device, &options)).unwrap();
    let log = Arc::new(log);
    assert_eq!(recovery.records.len(), all.len());
    for (record, (id, text)) in recovery.records.iter().zip(&all) {
        assert_eq!(record.id, *id);
        let read = runtime.block_on(log.read(*id)).unwrap();
        assert_eq!(read, text.as_bytes());
    }
}
