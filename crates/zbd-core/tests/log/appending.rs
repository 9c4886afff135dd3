//! Records come back as they were, in the order of their ids.

use std::sync::Arc;

use zbd_core::{
    ErrorKind, Local, ZoneId, ZoneLog, ZoneState, ZonedDevice,
    log::{LogOptions, RecordId},
    on_thread_park, on_thread_park_with_io,
};

use crate::{
    blocking::block_on,
    rig::{Kind, SMALL, device, device_of, on_both_kinds, open, options, payload},
};

on_both_kinds! {
    records_are_read_back_before_and_after_the_log_is_opened_anew,
    a_log_leaves_other_zones_alone,
    a_record_that_is_too_long_is_refused_and_the_limit_named,
    an_id_is_asked_for_and_got_or_refused,
}

fn records_are_read_back_before_and_after_the_log_is_opened_anew<D: Kind>() {
    let device = device_of::<D>(SMALL);
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

fn a_log_leaves_other_zones_alone<D: Kind>() {
    let device = device_of::<D>(SMALL);
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

fn a_record_that_is_too_long_is_refused_and_the_limit_named<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (log, _) = open(&device);
    let error = block_on(log.append(&[0; 8105])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("8104"), "{error}");
    assert_eq!(block_on(log.append(&[0; 8104])).unwrap(), RecordId(0));
}

fn an_id_is_asked_for_and_got_or_refused<D: Kind>() {
    let device = device_of::<D>(SMALL);
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

#[test]
fn many_tasks_of_one_thread_append_at_once() {
    for with_io in [false, true] {
        let device = device_of::<Local>("emu:zones=4,zone-size=4m,block-size=512,latency=100us");
        let options = LogOptions::new(ZoneId(0)..ZoneId(4));
        let mut builder = tokio::runtime::Builder::new_current_thread();
        match with_io {
            false => builder.on_thread_park(on_thread_park),
            true => builder.enable_io().on_thread_park(on_thread_park_with_io),
        };
        let runtime = builder.build_local(Default::default()).unwrap();
        let (log, _) = runtime.block_on(ZoneLog::open(&device, &options)).unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let log = log.clone();
                runtime.spawn_local(async move {
                    for n in 0..50_u8 {
                        let id = log.append_durable(&[task, n]).await.unwrap();
                        assert!(log.watermark() > id);
                        assert_eq!(log.read(id).await.unwrap(), [task, n]);
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        let (_, recovery) = runtime.block_on(ZoneLog::open(&device, &options)).unwrap();
        assert_eq!(recovery.records.len(), 16 * 50);
        assert!(log.is_fenced());
    }
}

/// What runs on lanes can be sent and shared, and so can its futures be sent.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    fn is_sent<T: Send>(_: T) {}
    is_shared::<ZoneLog>();
    let _ = |device: &ZonedDevice, options| is_sent(ZoneLog::open(device, options));
    let _ = |device: &ZonedDevice, options| is_sent(ZoneLog::create(device, options));
    let _ = |log: &ZoneLog| is_sent(log.append_durable(b"x"));
    let _ = |log: &ZoneLog| is_sent(log.read(RecordId(0)));
    let _ = |log: &ZoneLog| is_sent(log.trim(RecordId(0)));
};
