//! Many tasks on one device, on several kinds of executors.

use std::{future::Future, sync::Arc};

use tokio::runtime::{Builder, Runtime};
use zbd_core::{ErrorKind, OpenOptions, Sector, ZoneId, ZonedDevice};
use zbd_emu::Fault;

use crate::{
    blocking::{block_on, poll_once},
    in_time::in_time,
    rig::{Device, open_options, pattern, wait_until},
};

const TASKS: u64 = 64;

/// One task: `count` appends to zone `task % 4`; where they went.
async fn appends(device: ZonedDevice, task: u64, count: u64) -> Vec<u64> {
    let zone = ZoneId((task % 4) as u32);
    let mut buffer = device.buffer(4096).unwrap();
    let mut sectors = Vec::new();
    for _ in 0..count {
        let done = device.append(zone, buffer).await.unwrap();
        sectors.push(done.sector.0);
        buffer = done.buffer;
    }
    sectors
}

/// Checks that the appends of all tasks fill the zones from their starts without gap or overlap.
fn none_lost_none_twice(device: &ZonedDevice, mut sectors: Vec<u64>, count: u64) {
    sectors.sort_unstable();
    let zone_size = device.info().zoned().unwrap().zone_size.0;
    let a_zone = TASKS / 4 * count;
    let expected = (0..4).flat_map(|zone| (0..a_zone).map(move |i| zone * zone_size + i * 8));
    assert!(sectors.into_iter().eq(expected));
    for zone in block_on(device.report(..)).unwrap() {
        let written = if zone.id.0 < 4 { a_zone * 4096 } else { 0 };
        assert_eq!(zone.written().unwrap().bytes(), written);
    }
}

fn open(options: &str) -> ZonedDevice {
    Device::threaded(options).open_shared()
}

async fn spawn_all(device: ZonedDevice, count: u64) -> Vec<u64> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(appends(device.clone(), task, count)))
        .collect();
    let mut sectors = Vec::new();
    for task in tasks {
        sectors.extend(task.await.unwrap());
    }
    sectors
}

fn on_tokio(runtime: Runtime, options: &'static str, count: u64) {
    in_time(move || {
        let device = open(options);
        let sectors = runtime.block_on(spawn_all(device.clone(), count));
        none_lost_none_twice(&device, sectors, count);
    });
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

#[test]
fn tasks_on_several_tokio_threads_lose_nothing() {
    on_tokio(multi_thread(), "store=null,zones=6,zone-size=64m", 400);
}

#[test]
fn tasks_on_one_tokio_thread_lose_nothing() {
    on_tokio(current_thread(), "store=null,zones=6,zone-size=64m", 400);
}

#[test]
fn more_tasks_than_slots_get_on_with_several_threads() {
    on_tokio(
        multi_thread(),
        "store=null,zones=6,zone-size=64m,queues=1,queue-size=4",
        100,
    );
}

#[test]
fn more_tasks_than_slots_get_on_with_one_thread() {
    on_tokio(
        current_thread(),
        "store=null,zones=6,zone-size=64m,queues=1,queue-size=4,latency=20us",
        20,
    );
}

#[test]
fn tasks_over_several_queues_lose_nothing() {
    in_time(|| {
        let options = OpenOptions {
            queues: 3,
            queue_size: Some(16),
            ..open_options()
        };
        let queues = Device::threaded("store=null,zones=6,zone-size=64m,queues=4")
            .open(options)
            .unwrap();
        let device = ZonedDevice::from_queues(queues).unwrap();
        let sectors = multi_thread().block_on(spawn_all(device.clone(), 100));
        none_lost_none_twice(&device, sectors, 100);
    });
}

#[test]
fn threads_without_any_runtime_lose_nothing() {
    in_time(|| {
        let device = open("store=null,zones=6,zone-size=64m");
        let threads: Vec<_> = (0..TASKS)
            .map(|task| {
                let device = device.clone();
                std::thread::spawn(move || block_on(appends(device, task, 50)))
            })
            .collect();
        let sectors = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        none_lost_none_twice(&device, sectors.collect(), 50);
    });
}

#[test]
fn every_operation_does_what_it_says() {
    let device = open("zones=4,zone-size=1m");
    current_thread().block_on(async {
        let zone = device.zone(ZoneId(1));
        zone.open().await.unwrap();
        let mut buffer = device.buffer(8192).unwrap();
        buffer.copy_from_slice(&pattern(1, 8192));
        let done = zone.append(buffer).await.unwrap();
        assert_eq!(done.sector, Sector(2048));
        assert_eq!(done.buffer.to_vec(), pattern(1, 8192));
        let mut buffer = done.buffer;
        buffer.copy_from_slice(&pattern(2, 8192));
        let buffer = device.write(Sector(2064), buffer).await.unwrap();
        device.flush().await.unwrap();
        let read = device.read(Sector(2048), 16384).await.unwrap();
        assert_eq!(read.to_vec(), [pattern(1, 8192), pattern(2, 8192)].concat());
        let read = device.read_into(Sector(2064), buffer).await.unwrap();
        assert_eq!(read.to_vec(), pattern(2, 8192));
        zone.close().await.unwrap();
        assert_eq!(zone.report().await.unwrap().written().unwrap().0, 32);
        zone.finish().await.unwrap();
        zone.reset().await.unwrap();
        device.zone(ZoneId(0)).finish().await.unwrap();
        device.reset_all().await.unwrap();
        let zones = device.report(..).await.unwrap();
        assert!(zones.iter().all(|zone| zone.written().unwrap().0 == 0));
        assert!(device.doorbells() > 0);
    });
}

#[test]
fn every_error_gives_the_buffer_back() {
    let mut rig = Device::threaded("zones=4,zone-size=1m,conventional=1,max-append=64k");
    let device = rig.open_shared();
    let buffer = |len: usize| {
        let mut buffer = device.buffer(len).unwrap();
        buffer.copy_from_slice(&pattern(len as u64, len));
        buffer
    };
    let back = |error: zbd_core::Error, kind, len: usize| {
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(
            error.into_buffer().unwrap().to_vec(),
            pattern(len as u64, len)
        );
    };
    let invalid = ErrorKind::InvalidRequest;
    for (zone, len) in [(0, 4096), (4, 4096), (1, 512), (1, 128 << 10)] {
        let end = block_on(device.append(ZoneId(zone), buffer(len)));
        back(end.unwrap_err(), invalid, len);
    }
    let end = block_on(device.write(Sector(1), buffer(4096)));
    back(end.unwrap_err(), invalid, 4096);
    let end = block_on(device.read_into(Sector(1 << 40), buffer(4096)));
    back(end.unwrap_err(), invalid, 4096);
    let end = block_on(device.write(Sector(2056), buffer(4096)));
    back(end.unwrap_err(), ErrorKind::UnalignedWritePointer, 4096);
    rig.control.inject(Fault::AppendSector(0));
    let end = block_on(device.append(ZoneId(1), buffer(4096)));
    back(end.unwrap_err(), ErrorKind::Protocol, 4096);
    let other = open("zones=4,zone-size=1m");
    let end = block_on(other.append(ZoneId(1), buffer(4096)));
    back(end.unwrap_err(), invalid, 4096);
    assert!(
        block_on(device.read(Sector(0), 0))
            .unwrap_err()
            .into_buffer()
            .is_none()
    );
    assert!(block_on(device.zone(ZoneId(9)).report()).is_err());
}

#[test]
fn slots_go_to_those_who_waited_longest() {
    let mut rig = Device::stepped("zones=4,zone-size=1m,queues=1,queue-size=4");
    let device = rig.open_shared();
    let append = || -> std::pin::Pin<Box<dyn Future<Output = _> + '_>> {
        Box::pin(device.append(ZoneId(0), device.buffer(4096).unwrap()))
    };
    let mut waiting: Vec<_> = (0..16).map(|i| (i, append())).collect();
    for (_, future) in &mut waiting {
        assert!(poll_once(future).is_none());
    }
    let mut requests = rig.requests();
    for round in 0..4 {
        // Those who hold slots submit when polled; the device takes four.
        requests += 4;
        wait_until("four more are taken", || {
            rig.step();
            rig.requests() == requests
        });
        let mut ended = Vec::new();
        wait_until("four have ended", || {
            // Against the order, so that the order is not that of polling.
            for at in (0..waiting.len()).rev() {
                if let Some(end) = poll_once(&mut waiting[at].1) {
                    end.unwrap();
                    ended.push(waiting.remove(at).0);
                }
            }
            ended.len() >= 4
        });
        ended.sort_unstable();
        assert!(ended.into_iter().eq(4 * round..4 * round + 4));
        for (_, future) in waiting.iter_mut().rev() {
            assert!(poll_once(future).is_none());
        }
    }
    assert!(waiting.is_empty());
}

#[test]
fn the_device_and_its_futures_can_be_sent_between_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn share<T: Send + Sync + Clone + 'static>(_: &T) {}

    let device = open("zones=4,zone-size=1m");
    share(&device);
    let device = Arc::new(device);
    let append = send(device.append(ZoneId(0), device.buffer(4096).unwrap()));
    let _ = (
        send(device.report(..)),
        send(device.flush()),
        send(device.read(Sector(0), 4096)),
    );
    assert_eq!(block_on(append).unwrap().sector, Sector(0));
}
