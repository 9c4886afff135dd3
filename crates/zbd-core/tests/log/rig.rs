//! Devices for logs, and hands on what they store.

use std::{future::Future, sync::Arc, thread};

use zbd_core::{
    Backend, DeviceSpec, OpenOptions, SECTOR_LEN, SectorCount, ZoneId, ZoneLog, ZonedDevice,
    log::{LogOptions, Recovery},
};
use zbd_emu::{Control, EmulatedFunction};

use crate::{blocking::block_on, random::Random};

/// Eight zones of 64 granules each.
pub(crate) const SMALL: &str = "emu:zones=8,zone-size=32k,block-size=512,max-append=8k,queues=1";
pub(crate) const GRANULE: usize = 512;

pub(crate) fn device(spec: &str) -> ZonedDevice {
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let spec: DeviceSpec = spec.parse().unwrap();
    ZonedDevice::open_with(&spec, &options).unwrap()
}

/// A device and its back.
pub(crate) fn controlled(spec: &str) -> (ZonedDevice, Control) {
    let config = spec.strip_prefix("emu:").unwrap().parse().unwrap();
    let function = EmulatedFunction::new(&config).unwrap();
    let control = function.control();
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let queues = options
        .open_function(Arc::new(function), Backend::Emulated, "emu:".to_owned())
        .unwrap();
    (ZonedDevice::from_queues(queues).unwrap(), control)
}

/// Runs `what` on a thread of its own until it ends.
pub(crate) fn on_thread<T: Send + 'static>(
    what: impl Future<Output = T> + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || block_on(what))
}

/// How many pages of DMA memory are free.
pub(crate) fn free_pages(device: &ZonedDevice) -> usize {
    let mut pages = Vec::new();
    while let Ok(page) = device.buffer(4096) {
        pages.push(page);
    }
    pages.len()
}

/// The zones 1 to 6 of a device, so that a log which leaves them is found out.
pub(crate) fn options() -> LogOptions {
    LogOptions::new(ZoneId(1)..ZoneId(7))
}

pub(crate) fn open(device: &ZonedDevice) -> (ZoneLog, Recovery) {
    block_on(ZoneLog::open(device, &options())).unwrap()
}

/// A payload that tells its record.
pub(crate) fn payload(id: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(id ^ ((len as u64) << 32));
    (0..len).map(|_| random.next() as u8).collect()
}

/// What the zones 0 to 7 hold, granule by granule, up to their write pointers.
pub(crate) type Image = Vec<Vec<Vec<u8>>>;

/// Reads all that is stored.
pub(crate) fn image(device: &ZonedDevice) -> Image {
    block_on(async {
        let mut image = Vec::new();
        for zone in device.report(..).await.unwrap() {
            let written = zone.written().unwrap().bytes() as usize;
            let mut granules = Vec::new();
            for at in (0..written).step_by(GRANULE) {
                let at = zone.start + SectorCount(at as u64 / SECTOR_LEN);
                granules.push(device.read(at, GRANULE).await.unwrap().to_vec());
            }
            image.push(granules);
        }
        image
    })
}

/// Makes a new device that stores `image`.
pub(crate) fn restored(spec: &str, image: &Image) -> ZonedDevice {
    let device = device(spec);
    block_on(async {
        for (zone, granules) in (0..).map(ZoneId).zip(image) {
            for granules in granules.chunks(16) {
                let mut buffer = device.buffer(GRANULE * granules.len()).unwrap();
                buffer.copy_from_slice(&granules.concat());
                device.append(zone, buffer).await.unwrap();
            }
        }
    });
    device
}

/// Where the records are, as (zone, granule), by their ids.
pub(crate) fn place(device: &ZonedDevice, log: &ZoneLog, id: u64) -> (usize, usize) {
    let records = log.records(zbd_core::log::RecordId(id)..=zbd_core::log::RecordId(id));
    let zone = records[0].zone;
    let start = device.info().zoned().unwrap().start(zone);
    let granule = (records[0].sector.0 - start.0) / (GRANULE as u64 / SECTOR_LEN);
    (zone.0 as usize, granule as usize)
}
