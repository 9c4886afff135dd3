//! Of several handles, the last is the writer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use zbd_core::{
    ErrorKind, ZoneLog,
    log::{LogOptions, RecordId},
};

use crate::{
    blocking::{block_on, poll_once},
    rig::{SMALL, controlled, device, image, on_thread, open, options, payload, restored},
};

#[test]
fn a_handle_is_fenced_by_the_next_and_can_write_nothing() {
    let device = device(SMALL);
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

fn image_len(device: &zbd_core::ZonedDevice) -> usize {
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

#[test]
fn a_handle_of_the_same_log_on_another_device_is_fenced_and_not_waited_for() {
    let (device, control) = controlled(SMALL);
    let (log, _) = open(&device);
    block_on(log.append_durable(b"record")).unwrap();
    let copy = restored(SMALL, &image(&device));
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
