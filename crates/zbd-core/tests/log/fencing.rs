//! Of several handles, the last is the writer.

use std::{
    pin::Pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use zbd_core::{
    DeviceSpec, ErrorKind, Local, OpenOptions, ZoneLog, ZonedDevice,
    log::{LogOptions, RecordId},
};

use crate::{
    blocking::{block_on, poll_once},
    rig::{
        Kind, SMALL, controlled, controlled_of, device, device_of, free_pages, image,
        on_both_kinds, on_thread, open, options, payload, restored_of,
    },
};

on_both_kinds! {
    what_a_handle_has_on_its_way_ends_before_the_zones_are_read_for_the_next,
    a_flush_whose_end_is_seen_after_the_fence_acknowledges_nothing,
    a_handle_that_waits_is_told_of_its_fence_by_another_thread,
    a_handle_is_fenced_by_the_next_and_can_write_nothing,
    a_handle_of_the_same_log_on_another_device_is_fenced_and_not_waited_for,
}

fn a_handle_is_fenced_by_the_next_and_can_write_nothing<D: Kind>() {
    let device = device_of::<D>(SMALL);
    let (first, _) = open(&device);
    block_on(async {
        first.append_durable(b"first").await.unwrap();
        first.append(b"not durable").await.unwrap();
        let (second, recovery) = ZoneLog::open(&device, &options()).await.unwrap();
        assert!(first.is_fenced() && !second.is_fenced());
        assert!(second.epoch() > first.epoch());
        assert_eq!(recovery.next_id, RecordId(2));
        let stored = image_len(&device);
        for error in [
            first.append(b"late").await.unwrap_err(),
            first.append_durable(b"late").await.unwrap_err(),
            first.sync().await.unwrap_err(),
            first.trim(RecordId(1)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Fenced);
        }
        assert_eq!(first.watermark(), RecordId(1));
        assert_eq!(image_len(&device), stored, "nothing was written");
        // Reading is not writing.
        assert_eq!(first.read(RecordId(0)).await.unwrap(), b"first");
        assert_eq!(second.append_durable(b"late").await.unwrap(), RecordId(2));
    });
}

fn image_len<D: Kind>(device: &zbd_core::ZonedDevice<D>) -> usize {
    image(device).iter().map(Vec::len).sum()
}

#[test]
fn what_a_handle_has_acknowledged_before_it_was_fenced_is_there() {
    let device = device("emu:zones=4,zone-size=4m,block-size=512,queues=2,latency=20us");
    let options = LogOptions::new(zbd_core::ZoneId(0)..zbd_core::ZoneId(4));
    let (mut log, _) = block_on(ZoneLog::open(&device, &options)).unwrap();
    let mut any = false;
    for _ in 0..30 {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (log, acknowledged) = (log.clone(), Arc::clone(&acknowledged));
                on_thread(async move {
                    loop {
                        match log.append_durable(b"record").await {
                            Ok(id) => acknowledged.fetch_max(id.0 + 1, Ordering::SeqCst),
                            Err(error) => break assert_eq!(error.kind(), ErrorKind::Fenced),
                        };
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(3));
        let (next, recovery) = block_on(ZoneLog::open(&device, &options)).unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        assert!(acknowledged <= recovery.next_id.0);
        any |= acknowledged > 0;
        log = next;
    }
    assert!(any, "nothing was acknowledged");
}

#[test]
fn requests_of_a_dropped_handle_that_land_late_count_for_nothing() {
    let (device, control) = controlled(SMALL);
    let (log, _) = open(&device);
    block_on(async {
        for id in 0..3 {
            log.append_durable(&payload(id, 50)).await.unwrap();
        }
    });
    control.hold();
    let payloads: Vec<_> = (3..8).map(|id| payload(id, 50)).collect();
    let mut late: Vec<Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
    for payload in &payloads {
        late.push(Box::pin(log.append(payload)));
    }
    for append in &mut late {
        assert!(poll_once(append).is_none());
    }
    drop(late);
    let before = log.next_id();
    assert_eq!(before, RecordId(8));
    drop(log);
    // They reach the device together with the reads of the next handle.
    let opening = {
        let device = device.clone();
        on_thread(async move { ZoneLog::open(&device, &options()).await.unwrap() })
    };
    thread::sleep(Duration::from_millis(5));
    control.release();
    let (log, recovery) = opening.join().unwrap();
    let next = recovery.next_id.0;
    assert!((3..=8).contains(&next));
    block_on(async {
        for id in next..next + 200 {
            assert_eq!(log.append(&payload(id, 51)).await.unwrap().0, id);
            log.trim(RecordId(id.saturating_sub(100))).await.unwrap();
        }
    });
    let (log, recovery) = open(&device);
    assert_eq!(recovery.next_id.0, next + 200);
    for record in &recovery.records {
        let len = if record.id.0 < next { 50 } else { 51 };
        let read = block_on(log.read(record.id)).unwrap();
        assert_eq!(read, payload(record.id.0, len));
    }
}

fn a_handle_of_the_same_log_on_another_device_is_fenced_and_not_waited_for<D: Kind>() {
    let (device, control) = controlled_of::<D>(SMALL);
    let (log, _) = open(&device);
    block_on(log.append_durable(b"record")).unwrap();
    let copy = restored_of::<D>(SMALL, &image(&device));
    control.hold();
    let mut append: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.append(b"stuck"));
    assert!(poll_once(&mut append).is_none());
    let (_, recovery) = open(&copy);
    assert_eq!(recovery.next_id, RecordId(1));
    assert!(log.is_fenced());
    control.release();
}

#[test]
fn a_sync_under_way_when_the_log_is_opened_anew_acknowledges_nothing() {
    let (device, control) = controlled(SMALL);
    let (log, _) = open(&device);
    block_on(log.append(b"record")).unwrap();
    control.hold();
    let mut sync: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.sync());
    assert!(poll_once(&mut sync).is_none());
    let opening = {
        let device = device.clone();
        on_thread(async move { ZoneLog::open(&device, &options()).await.unwrap() })
    };
    // It reads the first zones before it knows which log that is.
    let mut released = 0;
    while !log.is_fenced() {
        assert!(released < 1000, "it is never fenced");
        released += 1;
        thread::sleep(Duration::from_millis(1));
        if released == 5 {
            control.release();
        }
    }
    opening.join().unwrap();
    match block_on(sync) {
        // The flush had ended, and been seen to, before.
        Ok(watermark) => assert_eq!(watermark, log.watermark()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Fenced);
            assert_eq!(log.watermark(), RecordId(0), "and so it stays");
        }
    }
    assert_eq!(log.watermark(), RecordId(0), "the fence came first");
}

#[test]
fn handles_opened_at_once_leave_one_writer() {
    let device = device(SMALL);
    drop(open(&device));
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let device = device.clone();
            on_thread(async move { ZoneLog::open(&device, &options()).await.map(|(log, _)| log) })
        })
        .collect();
    let logs: Vec<_> = opening
        .into_iter()
        .map(|opening| opening.join().unwrap())
        .collect();
    let mut writers = 0;
    for log in &logs {
        match log {
            Ok(log) => match block_on(log.append_durable(b"x")) {
                Ok(_) => writers += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced),
            },
            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced),
        }
    }
    assert_eq!(writers, 1);
    assert_eq!(open(&device).1.next_id, RecordId(1));
}

#[test]
fn logs_made_at_once_are_one() {
    for _ in 0..20 {
        let device = device(SMALL);
        let opening: Vec<_> = (0..4)
            .map(|_| {
                let device = device.clone();
                on_thread(async move { ZoneLog::open(&device, &options()).await })
            })
            .collect();
        let mut identities: Vec<_> = opening
            .into_iter()
            .filter_map(|opening| match opening.join().unwrap() {
                Ok((log, _)) => Some(log.identity()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                    None
                }
            })
            .collect();
        identities.dedup();
        assert_eq!(identities.len(), 1);
    }
}

fn what_a_handle_has_on_its_way_ends_before_the_zones_are_read_for_the_next<D: Kind>() {
    let device = device_of::<D>(&format!("{SMALL},latency=1ms"));
    let (log, _) = open(&device);
    let pages = free_pages(&device);
    let payloads: Vec<_> = (0..3).map(|id| payload(id, 8000)).collect();
    let mut appends: Vec<Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
    for payload in &payloads {
        let mut append: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.append(payload));
        assert!(poll_once(&mut append).is_none());
        appends.push(append);
    }
    assert_eq!(free_pages(&device), pages - 6);
    let (_next, recovery) = open(&device);
    assert_eq!(recovery.next_id, RecordId(3));
    // The next handle has some memory itself.
    assert!(free_pages(&device) >= pages - 1);
}

fn a_flush_whose_end_is_seen_after_the_fence_acknowledges_nothing<D: Kind>() {
    let device = device_of::<D>(&format!("{SMALL},latency=1ms"));
    let (log, _) = open(&device);
    block_on(log.append(b"record")).unwrap();
    let mut sync: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.sync());
    assert!(poll_once(&mut sync).is_none());
    let (_, recovery) = open(&device);
    assert_eq!(recovery.next_id, RecordId(1));
    assert_eq!(block_on(sync).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(log.watermark(), RecordId(0), "the fence came first");
}

fn a_handle_that_waits_is_told_of_its_fence_by_another_thread<D: Kind>() {
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let (device, control) = controlled_of::<D>(SMALL);
        let (log, _) = open(&device);
        block_on(log.append_durable(b"durable")).unwrap();
        block_on(log.append(b"not durable")).unwrap();
        let image = image(&device);
        control.hold();
        let mut sync: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(log.sync());
        assert!(poll_once(&mut sync).is_none());
        tell.send(image).unwrap();
        // Not by its device.
        assert_eq!(block_on(sync).unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(log.watermark(), RecordId(1));
        control.release();
    });
    let copy = restored_of::<Local>(SMALL, &told.recv().unwrap());
    thread::sleep(Duration::from_millis(10));
    let (_, recovery) = open(&copy);
    assert_eq!(recovery.next_id, RecordId(2));
    waiting.join().unwrap();
}

/// Each thread has requests on their way when the other opens the log, and only it can poll them.
#[test]
fn threads_with_a_queue_each_of_one_device_hand_the_log_over() {
    let spec: DeviceSpec = SMALL.replace("queues=1", "queues=2").parse().unwrap();
    let open_options = OpenOptions {
        queues: 2,
        memory_len: 4 << 20,
        ..OpenOptions::default()
    };
    let acknowledged = Arc::new(AtomicU64::new(0));
    let device = open_options.open(&spec).unwrap();
    assert_eq!(device.len(), 2);
    let is_made = Arc::new(Barrier::new(2));
    let threads: Vec<_> = device
        .into_iter()
        .enumerate()
        .map(|(thread, queue)| {
            let (acknowledged, is_made) = (Arc::clone(&acknowledged), Arc::clone(&is_made));
            thread::spawn(move || {
                let device = ZonedDevice::from_queue(queue).unwrap();
                if thread == 0 {
                    drop(open(&device));
                }
                is_made.wait();
                let mut last = None;
                let mut opened = 0;
                for _ in 0..100 {
                    let before = acknowledged.load(Ordering::SeqCst);
                    let (log, recovery) = match block_on(ZoneLog::open(&device, &options())) {
                        Ok(opened) => opened,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                            continue;
                        }
                    };
                    opened += 1;
                    assert!(before <= recovery.next_id.0, "{before} {recovery:?}");
                    for record in &recovery.records {
                        // It may have been trimmed, and its zone used again, by the other one.
                        let read = block_on(log.read(record.id));
                        assert!(log.is_fenced() || read.unwrap() == b"record");
                    }
                    for _ in 0..3 {
                        match block_on(log.append_durable(b"record")) {
                            Ok(id) => {
                                acknowledged.fetch_max(id.0 + 1, Ordering::SeqCst);
                            }
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced),
                        }
                    }
                    let mut left: Vec<Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
                    for _ in 0..10 {
                        left.push(Box::pin(async { log.append(b"record").await.map(drop) }));
                    }
                    let base = RecordId(log.next_id().0.saturating_sub(10));
                    left.push(Box::pin(log.trim(base)));
                    for future in &mut left {
                        if let Some(Err(error)) = poll_once(future) {
                            assert_eq!(error.kind(), ErrorKind::Fenced);
                        }
                    }
                    drop(left);
                    // The one before is gone only when this one has been opened.
                    last = Some(log);
                }
                drop(last);
                opened
            })
        })
        .collect();
    for thread in threads {
        let opened = thread.join().unwrap();
        assert!(opened > 10, "{opened}");
    }
    assert!(acknowledged.load(Ordering::SeqCst) > 0);
}
