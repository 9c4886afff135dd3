//! The ordered writer of a zone.

use std::pin::Pin;

use zbd_core::{
    DmaBuffer, ErrorKind, Extent, SECTOR_LEN, Sector, SectorCount, Write, ZoneId, ZoneState,
    ZoneWriter, ZonedDevice,
};
use zbd_emu::Fault;

use crate::{
    blocking::{block_on, poll_once},
    rig::{Kind, controlled_of, device_of, free_pages, on_both_kinds, payload},
};

/// Zones of 256 KiB and appends of 8 KiB.
const SPEC: &str =
    "emu:zones=4,zone-size=256k,block-size=512,max-append=8k,queues=2,conventional=1";
const ZONE: ZoneId = ZoneId(2);

/// What runs on lanes can be sent and shared, and so can its futures be sent.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    fn is_sent<T: Send>(_: T) {}
    is_shared::<ZoneWriter>();
    is_shared::<Write>();
    let _ = |device: &ZonedDevice| is_sent(ZoneWriter::open(device, ZONE, 1));
    let _ = |writer: &mut ZoneWriter, buffer| is_sent(writer.write(buffer));
    let _ = |writer: &ZoneWriter| is_sent(writer.flush());
    let _ = |writer: &mut ZoneWriter| is_sent(writer.finish());
};

fn filled<D: Kind>(device: &ZonedDevice<D>, seed: u64, len: usize) -> DmaBuffer {
    let mut buffer = device.buffer(len).unwrap();
    buffer.copy_from_slice(&payload(seed, len));
    buffer
}

fn writer<D: Kind>(device: &ZonedDevice<D>, window: usize) -> ZoneWriter<D> {
    block_on(ZoneWriter::open(device, ZONE, window)).unwrap()
}

/// What `extents` hold.
fn stored<D: Kind>(device: &ZonedDevice<D>, extents: &[Extent]) -> Vec<u8> {
    let mut data = Vec::new();
    for extent in extents {
        let read = device.read(extent.sector, extent.len.bytes() as usize);
        data.extend(block_on(read).unwrap().to_vec());
    }
    data
}

on_both_kinds! {
    writes_of_any_length_come_back_with_their_extents_in_order,
    a_buffer_of_several_segments_is_written_and_comes_back,
    what_does_not_fit_or_is_not_whole_comes_back_and_nothing_is_written,
    zones_that_cannot_be_written_in_order_are_refused,
    a_writer_begins_at_the_write_pointer,
    the_durable_position_stays_before_a_hole,
    a_full_window_waits_and_what_is_dropped_goes_on,
}

fn writes_of_any_length_come_back_with_their_extents_in_order<D: Kind>() {
    for spec in [SPEC, &SPEC.replace("max-append=8k", "max-append=0")] {
        let device = device_of::<D>(spec);
        let mut writer = writer(&device, 8);
        let lens = [512, 8192, 8704, 1024, 40960, 512, 16384];
        let mut writes: Vec<(u64, usize, Write<D>)> = Vec::new();
        for (seed, len) in (0..).zip(lens) {
            let write = block_on(writer.write(filled(&device, seed, len))).unwrap();
            writes.push((seed, len, write));
        }
        let total: u64 = lens.iter().sum::<usize>() as u64 / SECTOR_LEN;
        assert_eq!(writer.submitted(), SectorCount(total));
        assert_eq!(writer.durable(), SectorCount(0));
        assert_eq!(block_on(writer.flush()).unwrap(), SectorCount(total));
        assert_eq!(writer.durable(), SectorCount(total));
        assert_eq!(writer.room(), SectorCount(512 - total));
        // In another order than they were made.
        for (seed, len, write) in writes.into_iter().rev() {
            let written = block_on(write).unwrap();
            assert_eq!(written.buffer.to_vec(), payload(seed, len));
            assert_eq!(stored(&device, &written.extents), payload(seed, len));
            if spec == SPEC {
                assert_eq!(written.extents.len(), len.div_ceil(8192));
            }
        }
        block_on(writer.finish()).unwrap();
        let zone = block_on(device.zone(ZONE).report()).unwrap();
        assert_eq!(zone.state, ZoneState::Full);
        assert_eq!(writer.room(), SectorCount(0));
        block_on(writer.finish()).unwrap();
    }
}

fn a_buffer_of_several_segments_is_written_and_comes_back<D: Kind>() {
    let device = device_of::<D>(SPEC);
    let mut writer = writer(&device, 4);
    let mut buffer = filled(&device, 0, 1536);
    buffer.join(filled(&device, 1, 2048)).unwrap();
    let all = [payload(0, 1536), payload(1, 2048)].concat();
    let written = block_on(async { writer.write(buffer).await.unwrap().await.unwrap() });
    assert!(!written.buffer.is_contiguous());
    assert_eq!(written.buffer.to_vec(), all);
    assert_eq!(stored(&device, &written.extents), all);
}

fn what_does_not_fit_or_is_not_whole_comes_back_and_nothing_is_written<D: Kind>() {
    let device = device_of::<D>(SPEC);
    let mut writer = writer(&device, 4);
    let error = block_on(writer.write(filled(&device, 0, 700))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("512"), "{error}");
    assert_eq!(error.into_buffer().unwrap().to_vec(), payload(0, 700));
    block_on(async {
        let write = writer.write(filled(&device, 1, 200 << 10)).await.unwrap();
        let error = writer
            .write(filled(&device, 2, 57 << 10))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidZoneState);
        assert_eq!(error.into_buffer().unwrap().to_vec(), payload(2, 57 << 10));
        drop(writer.write(filled(&device, 3, 56 << 10)).await.unwrap());
        assert_eq!(writer.room(), SectorCount(0));
        let error = writer.write(filled(&device, 4, 512)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidZoneState);
        assert_eq!(writer.flush().await.unwrap(), SectorCount(512));
        assert_eq!(
            stored(&device, &write.await.unwrap().extents),
            payload(1, 200 << 10)
        );
        // Full without having been finished.
        writer.finish().await.unwrap();
        let zone = device.zone(ZONE).report().await.unwrap();
        assert_eq!(zone.state, ZoneState::Full);
    });
}

fn zones_that_cannot_be_written_in_order_are_refused<D: Kind>() {
    let device = device_of::<D>(SPEC);
    let kind = |zone| {
        let error = block_on(ZoneWriter::open(&device, ZoneId(zone), 1)).unwrap_err();
        error.kind()
    };
    assert_eq!(kind(0), ErrorKind::InvalidRequest);
    assert_eq!(kind(4), ErrorKind::InvalidRequest);
    block_on(device.zone(ZONE).finish()).unwrap();
    assert_eq!(kind(2), ErrorKind::InvalidZoneState);
}

fn a_writer_begins_at_the_write_pointer<D: Kind>() {
    for spec in [SPEC, &SPEC.replace("max-append=8k", "max-append=0")] {
        let device = device_of::<D>(spec);
        let mut first = writer(&device, 4);
        block_on(async {
            first
                .write(filled(&device, 0, 1024))
                .await
                .unwrap()
                .await
                .unwrap()
        });
        let mut second = writer(&device, 4);
        assert_eq!(second.room(), SectorCount(510));
        let written = block_on(async {
            second
                .write(filled(&device, 1, 512))
                .await
                .unwrap()
                .await
                .unwrap()
        });
        assert_eq!(written.extents[0].sector, Sector(2 * 512 + 2));
    }
}

fn the_durable_position_stays_before_a_hole<D: Kind>() {
    for hole in [0, 1, 5] {
        let (device, control) = controlled_of::<D>(&SPEC.replace("queues=2", "queues=1"));
        let mut writer = writer(&device, 8);
        for seed in 0..hole {
            drop(block_on(writer.write(filled(&device, seed, 1024))).unwrap());
        }
        let whole = block_on(writer.flush()).unwrap();
        assert_eq!(whole, SectorCount(2 * hole));
        // One queue, whose requests the device takes in order.
        control.hold();
        control.inject(Fault::Status(1));
        let bad = block_on(writer.write(filled(&device, 20, 1024))).unwrap();
        let good = block_on(writer.write(filled(&device, 21, 1024))).unwrap();
        control.release();
        let error = block_on(writer.flush()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Medium);
        assert!(
            error.to_string().contains(&format!("position {whole}")),
            "{error}"
        );
        assert_eq!(writer.durable(), whole);
        // The one that failed gives its data back, the one behind it is somewhere.
        let error = block_on(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Medium);
        assert_eq!(error.into_buffer().unwrap().to_vec(), payload(20, 1024));
        let written = block_on(good).unwrap();
        assert_eq!(stored(&device, &written.extents), payload(21, 1024));
        let error = block_on(writer.write(filled(&device, 22, 1024))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Medium);
        assert_eq!(error.into_buffer().unwrap().to_vec(), payload(22, 1024));
        block_on(writer.finish()).unwrap_err();
    }
}

fn a_full_window_waits_and_what_is_dropped_goes_on<D: Kind>() {
    for polls in 0..5 {
        let (device, control) = controlled_of::<D>(SPEC);
        let pages = free_pages(&device);
        let mut writer = writer(&device, 3);
        control.hold();
        for seed in 0..3 {
            drop(block_on(writer.write(filled(&device, seed, 512))).unwrap());
        }
        // No room: it waits, and dropped it has done nothing.
        let mut waiting: Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(writer.write(filled(&device, 3, 512)));
        for _ in 0..polls {
            assert!(poll_once(&mut waiting).is_none());
        }
        drop(waiting);
        assert_eq!(writer.submitted(), SectorCount(3));
        let mut flush: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(writer.flush());
        for _ in 0..polls {
            assert!(poll_once(&mut flush).is_none());
        }
        drop(flush);
        control.release();
        let write = block_on(writer.write(filled(&device, 4, 512))).unwrap();
        assert_eq!(block_on(writer.flush()).unwrap(), SectorCount(4));
        assert_eq!(writer.durable(), SectorCount(4));
        drop(block_on(write).unwrap());
        let mut finish: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(writer.finish());
        for _ in 0..polls {
            if let Some(end) = poll_once(&mut finish) {
                end.unwrap();
                break;
            }
        }
        drop(finish);
        block_on(writer.finish()).unwrap();
        let zone = block_on(device.zone(ZONE).report()).unwrap();
        assert_eq!(zone.state, ZoneState::Full);
        drop(writer);
        assert_eq!(free_pages(&device), pages);
        // All four are there, in whatever order.
        let start = device.info().zoned().unwrap().start(ZONE);
        let all = block_on(device.read(start, 2048)).unwrap().to_vec();
        let mut found: Vec<_> = all.chunks(512).map(<[u8]>::to_vec).collect();
        let mut expected: Vec<_> = [0, 1, 2, 4].map(|seed| payload(seed, 512)).into();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
