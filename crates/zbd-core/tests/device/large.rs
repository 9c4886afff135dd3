//! Reads and writes that exceed what one request can take.

use std::{future::Future, pin::Pin};

use zbd_core::{DmaBuffer, ErrorKind, OpenOptions, Sector, ZonedDevice};
use zbd_emu::Fault;

use crate::{
    blocking::{block_on, poll_once},
    rig::{Device, free_pages, open_options, pattern, wait_until},
};

/// Zones of 32 KiB in 64, of which the first two are conventional.
const GEOMETRY: &str = "zones=6,zone-size=64k,zone-cap=32k,conventional=2,size-max=8k,max-append=8k,max-open=0,max-active=0,queues=1,queue-size=4";

fn shared(rig: &mut Device) -> ZonedDevice {
    rig.open_shared()
}

fn filled(device: &ZonedDevice, len: usize, seed: u64) -> DmaBuffer {
    let mut buffer = device.buffer(len).unwrap();
    buffer.copy_from_slice(&pattern(seed, len));
    buffer
}

#[test]
fn what_exceeds_a_request_goes_in_pieces_and_comes_back_whole() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = shared(&mut rig);
    let pages = free_pages(|len| device.buffer(len));
    // More pieces than there are slots in the conventional zones, which are written in any order.
    for (at, len, pieces) in [
        (Sector(0), 100 << 10, 13),
        (Sector(256), 32 << 10, 4),
        (Sector(384), 20 << 10, 3),
        (Sector(384 + 40), 8 << 10, 1),
    ] {
        let before = rig.requests();
        let written = block_on(device.write(at, filled(&device, len, at.0))).unwrap();
        assert_eq!(written.to_vec(), pattern(at.0, len));
        assert_eq!(rig.requests() - before, pieces);
        drop(written);
        let before = rig.requests();
        let read = block_on(device.read(at, len)).unwrap();
        assert_eq!(rig.requests() - before, pieces);
        assert_eq!(read.to_vec(), pattern(at.0, len));
        let mut into = device.buffer(len).unwrap();
        into.fill(0xee);
        let into = block_on(device.read_into(at, into)).unwrap();
        assert_eq!(into.to_vec(), pattern(at.0, len));
    }
    assert_eq!(free_pages(|len| device.buffer(len)), pages);
}

/// As wide as the device likes them, and yet too long for one of its segments.
#[test]
fn buffers_of_several_segments_go_in_pieces_too() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = shared(&mut rig);
    let parts = [12 << 10, 4096, 16 << 10];
    let buffers = parts
        .iter()
        .zip(1..)
        .map(|(len, seed)| filled(&device, *len, seed));
    let written = block_on(device.write_vectored(Sector(256), buffers.collect())).unwrap();
    let expected: Vec<u8> = parts
        .iter()
        .zip(1..)
        .flat_map(|(len, seed)| pattern(seed, *len))
        .collect();
    assert_eq!(
        written
            .iter()
            .flat_map(|part| part.to_vec())
            .collect::<Vec<_>>(),
        expected
    );
    let targets = parts.iter().rev().map(|len| device.buffer(*len).unwrap());
    let read = block_on(device.read_vectored(Sector(256), targets.collect())).unwrap();
    assert_eq!(
        read.iter().map(DmaBuffer::len).collect::<Vec<_>>(),
        [16 << 10, 4096, 12 << 10]
    );
    assert_eq!(
        read.iter()
            .flat_map(|part| part.to_vec())
            .collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_write_that_fails_in_the_middle_says_where_and_gives_its_buffer_back() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = shared(&mut rig);
    let pages = free_pages(|len| device.buffer(len));
    // The fifth piece does not fit into what can be written of the zone.
    let buffer = filled(&device, 48 << 10, 1);
    let error = block_on(device.write(Sector(256), buffer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidZoneState, "{error}");
    assert!(error.to_string().contains("sector 320"), "{error}");
    assert_eq!(error.into_buffer().unwrap().to_vec(), pattern(1, 48 << 10));
    let landed = block_on(device.read(Sector(256), 32 << 10)).unwrap();
    assert_eq!(landed.to_vec(), pattern(1, 48 << 10)[..32 << 10]);
    drop(landed);
    // Not at the write pointer: nothing is written, and no more than the first is tried.
    let before = rig.requests();
    let error = block_on(device.write(Sector(384 + 16), filled(&device, 24 << 10, 2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnalignedWritePointer);
    assert!(error.to_string().contains("sector 400"), "{error}");
    assert_eq!(error.into_buffer().unwrap().to_vec(), pattern(2, 24 << 10));
    assert_eq!(rig.requests(), before + 1);
    // In a conventional zone all are sent, and one fails.
    rig.control.inject(Fault::Status(1));
    let error = block_on(device.write(Sector(0), filled(&device, 24 << 10, 3))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Medium);
    assert_eq!(error.into_buffer().unwrap().to_vec(), pattern(3, 24 << 10));
    rig.control.inject(Fault::Status(1));
    let error = block_on(device.read(Sector(0), 24 << 10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Medium);
    assert!(error.to_string().contains("sector"), "{error}");
    assert_eq!(error.into_buffer().unwrap().len(), 24 << 10);
    assert_eq!(free_pages(|len| device.buffer(len)), pages);
}

#[test]
fn a_limit_that_a_piece_meets_is_told_with_the_sector() {
    let mut rig = Device::threaded(&format!("{GEOMETRY},max-open=1,max-active=1"));
    let device = shared(&mut rig);
    block_on(device.write(Sector(384), filled(&device, 4096, 1))).unwrap();
    let error = block_on(device.write(Sector(256), filled(&device, 24 << 10, 2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ActiveLimit);
    assert!(error.to_string().contains("these are: 3;"), "{error}");
    assert_eq!(error.into_buffer().unwrap().len(), 24 << 10);
}

#[test]
fn a_large_request_dropped_in_the_middle_loses_nothing() {
    let options = OpenOptions {
        memory_len: 512 << 10,
        ..open_options()
    };
    let mut rig = Device::threaded(GEOMETRY);
    let device = ZonedDevice::from_queues(rig.open(options).unwrap()).unwrap();
    let pages = free_pages(|len| device.buffer(len));
    for at in [0, 256] {
        rig.control.hold();
        let buffer = filled(&device, 32 << 10, 5);
        let mut write: Pin<Box<dyn Future<Output = _>>> =
            Box::pin(device.write(Sector(at), buffer));
        let mut read: Pin<Box<dyn Future<Output = _>>> =
            Box::pin(device.read(Sector(at), 60 << 10));
        for _ in 0..3 {
            assert!(poll_once(&mut write).is_none());
            assert!(poll_once(&mut read).is_none());
        }
        drop(write);
        drop(read);
        assert!(
            free_pages(|len| device.buffer(len)) < pages,
            "the device may still use them"
        );
        rig.control.release();
        wait_until("all buffers come back", || {
            free_pages(|len| device.buffer(len)) == pages
        });
    }
    // One after the other: of what was dropped, only the first was sent.
    let end = block_on(device.zone(zbd_core::ZoneId(2)).barrier()).unwrap();
    assert_eq!(end, Some(Sector(256 + 16)));
}
