//! Devices for logs, and hands on what they store.

use std::{future::Future, sync::Arc, thread};

use zbd_core::{
    Backend, DeviceSpec, Driver, IoQueue, Lanes, Local, OpenOptions, SECTOR_LEN, SectorCount,
    ZoneId, ZoneLog, ZonedDevice,
    log::{LogOptions, Recovery},
};
use zbd_emu::{Control, EmulatedFunction};

use crate::{blocking::block_on, random::Random};

/// Eight zones of 64 granules each.
pub(crate) const SMALL: &str = "emu:zones=8,zone-size=32k,block-size=512,max-append=8k,queues=1";
pub(crate) const GRANULE: usize = 512;

/// What drives a device.
pub(crate) trait Kind: Driver + 'static {
    fn of(queues: Vec<IoQueue>) -> ZonedDevice<Self>;
}

impl Kind for Lanes {
    fn of(queues: Vec<IoQueue>) -> ZonedDevice {
        ZonedDevice::from_queues(queues).unwrap()
    }
}

impl Kind for Local {
    fn of(mut queues: Vec<IoQueue>) -> ZonedDevice<Self> {
        ZonedDevice::from_queue(queues.pop().unwrap()).unwrap()
    }
}

/// Makes tests, with either kind of device, of functions that have the kind as their parameter.
macro_rules! on_both_kinds {
    ($($test:ident,)+) => {
        mod lanes {
            $(
                #[test]
                fn $test() {
                    super::$test::<zbd_core::Lanes>();
                }
            )+
        }

        mod local {
            $(
                #[test]
                fn $test() {
                    super::$test::<zbd_core::Local>();
                }
            )+
        }
    };
}

pub(crate) use on_both_kinds;

pub(crate) fn device(spec: &str) -> ZonedDevice {
    device_of(spec)
}

pub(crate) fn device_of<D: Kind>(spec: &str) -> ZonedDevice<D> {
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let spec: DeviceSpec = spec.parse().unwrap();
    D::of(options.open(&spec).unwrap())
}

/// A device and its back.
pub(crate) fn controlled(spec: &str) -> (ZonedDevice, Control) {
    controlled_of(spec)
}

pub(crate) fn controlled_of<D: Kind>(spec: &str) -> (ZonedDevice<D>, Control) {
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
    (D::of(queues), control)
}

/// Runs `what` on a thread of its own until it ends.
pub(crate) fn on_thread<T: Send + 'static>(
    what: impl Future<Output = T> + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || block_on(what))
}

/// How many pages of DMA memory are free.
pub(crate) fn free_pages<D: Driver>(device: &ZonedDevice<D>) -> usize {
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

pub(crate) fn open<D: Driver>(device: &ZonedDevice<D>) -> (ZoneLog<D>, Recovery) {
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
pub(crate) fn image<D: Driver>(device: &ZonedDevice<D>) -> Image {
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
pub(crate) fn restored_of<D: Kind>(spec: &str, image: &Image) -> ZonedDevice<D> {
    let device = device_of::<D>(spec);
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
pub(crate) fn place<D: Driver>(
    device: &ZonedDevice<D>,
    log: &ZoneLog<D>,
    id: u64,
) -> (usize, usize) {
    let records = log.records(zbd_core::log::RecordId(id)..=zbd_core::log::RecordId(id));
    let zone = records[0].zone;
    let start = device.info().zoned().unwrap().start(zone);
    let granule = (records[0].sector.0 - start.0) / (GRANULE as u64 / SECTOR_LEN);
    (zone.0 as usize, granule as usize)
}
