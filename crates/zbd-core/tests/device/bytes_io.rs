//! Bytes in and out of a device, with and without copies.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use zbd_core::{ErrorKind, Sector, ZoneId, ZonedDevice};

use crate::{
    blocking::{block_on, poll_once},
    rig::{Device, free_pages, pattern, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,conventional=1,block-size=512,size-max=16k,\
    max-append=12k,queues=1,queue-size=8";

fn free(device: &ZonedDevice) -> usize {
    free_pages(|len| device.buffer(len))
}

#[test]
fn bytes_of_the_heap_go_by_way_of_a_buffer() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = rig.open_shared();
    let pages = free(&device);
    let bytes = Bytes::from(pattern(1, 5120));
    let at = block_on(device.append_bytes(ZoneId(1), bytes.slice(512..))).unwrap();
    assert_eq!(at, Sector(2048));
    let next = block_on(device.append_bytes(ZoneId(1), bytes.clone())).unwrap();
    assert_eq!(next, Sector(2048 + 9));
    // Large ones are split, as buffers are.
    let large = Bytes::from(pattern(2, 32 << 10));
    block_on(device.write_bytes(Sector(64), large.clone())).unwrap();
    assert_eq!(free(&device), pages);
    assert_eq!(block_on(device.read_bytes(at, 4608)).unwrap(), bytes[512..]);
    assert_eq!(block_on(device.read_bytes(next, 5120)).unwrap(), bytes);
    let read = block_on(device.read_bytes(Sector(64), 32 << 10)).unwrap();
    assert_eq!(read, large);
    assert_eq!(free(&device), pages - 8, "they are the device's memory");
    drop(read);
    assert_eq!(free(&device), pages);
}

#[test]
fn bytes_of_the_device_go_without_a_copy() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = rig.open_shared();
    let data = pattern(3, 8192);
    block_on(device.write_bytes(Sector(0), Bytes::from(data.clone()))).unwrap();
    let pages = free(&device);
    let read = block_on(device.read_bytes(Sector(0), 8192)).unwrap();
    assert_eq!(free(&device), pages - 2);
    rig.control.hold();
    {
        let bytes = [
            read.slice(512..4608),
            read.clone(),
            Bytes::from(data.clone()),
        ];
        let mut appends = bytes.map(|bytes| {
            Box::pin(device.append_bytes(ZoneId(2), bytes)) as Pin<Box<dyn Future<Output = _>>>
        });
        let taken = [2, 2, 4];
        for (append, taken) in appends.iter_mut().zip(taken) {
            assert!(poll_once(append).is_none());
            assert_eq!(
                free(&device),
                pages - taken,
                "only those of the heap are copied"
            );
        }
        // The requests hold on to what they were given.
    }
    drop(read);
    assert_eq!(free(&device), pages - 4);
    rig.control.release();
    wait_until("all memory comes back", || free(&device) == pages);
    let end = block_on(device.zone(ZoneId(2)).barrier()).unwrap();
    assert_eq!(end, Some(Sector(2 * 2048 + 8 + 16 + 16)));
    let landed = block_on(device.read_bytes(Sector(2 * 2048), 40 * 512)).unwrap();
    assert_eq!(landed[..4096], data[512..4608]);
    assert_eq!(landed[4096..12288], data);
    assert_eq!(landed[12288..], data);
    // All of what was written by way of the device's memory is split where it must be.
    block_on(device.write_bytes(Sector(1024), landed.clone())).unwrap();
    let again = block_on(device.read_bytes(Sector(1024), 40 * 512)).unwrap();
    assert_eq!(again, landed);
}

#[test]
fn bytes_that_are_refused_stay_with_who_kept_them() {
    let mut rig = Device::threaded(GEOMETRY);
    let device = rig.open_shared();
    let pages = free(&device);
    for len in [0, 100, 13 << 10] {
        let bytes = Bytes::from(pattern(4, len));
        let error = block_on(device.append_bytes(ZoneId(1), bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{len}: {error}");
        assert!(error.into_buffer().is_none());
    }
    let error = block_on(device.append_bytes(ZoneId(0), Bytes::from(vec![0; 512]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let error = block_on(device.write_bytes(Sector(2049), Bytes::from(vec![0; 512]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnalignedWritePointer);
    let never = Bytes::from(vec![0; device.memory().contiguous_len()]);
    let error = block_on(device.append_bytes(ZoneId(1), never)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(free(&device), pages);
}
