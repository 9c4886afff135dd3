//! Futures dropped at every await point: no slot and no buffer is lost.

use std::{future::Future, pin::Pin, thread, time::Duration};

use zbd_core::{Appended, Result, Sector, ZoneId, ZonedDevice};

use crate::{
    blocking::poll_once,
    in_time::in_time,
    random::Random,
    rig::{Device, free_pages, wait_until},
};

type Append<'a> = Pin<Box<dyn Future<Output = Result<Appended>> + 'a>>;

fn append(device: &ZonedDevice, zone: u32) -> Append<'_> {
    Box::pin(device.append(ZoneId(zone), device.buffer(4096).unwrap()))
}

const DEPTH: u64 = 8;
const GEOMETRY: &str = "zones=4,zone-size=16m,queues=1,queue-size=8";

struct Shared {
    rig: Device,
    device: ZonedDevice,
    pages: usize,
}

impl Shared {
    fn new(mut rig: Device) -> Self {
        let device = rig.open_shared();
        let pages = free_pages(|len| device.buffer(len));
        Self { rig, device, pages }
    }

    /// Steps the device until it has taken `count` requests since it had taken `before`.
    fn take(&mut self, before: u64, count: u64) {
        let rig = &mut self.rig;
        wait_until("requests are taken", || {
            rig.step();
            rig.requests() == before + count
        });
    }

    /// All memory comes back, and as many requests as ever can be in flight.
    fn nothing_is_lost(&mut self) {
        wait_until("all buffers come back", || {
            self.rig.step();
            free_pages(|len| self.device.buffer(len)) == self.pages
        });
        let device = self.device.clone();
        // The lane is a queue: behind this one, no orphan without a buffer is on its way any more.
        self.end(append(&device, 3));
        let mut futures: Vec<_> = (0..DEPTH).map(|_| append(&device, 3)).collect();
        let before = self.rig.requests();
        for future in &mut futures {
            // A stepped device has ended none of them; on a thread it may have.
            let _ = poll_once(future);
        }
        self.take(before, DEPTH);
        drop(futures);
        wait_until("their buffers come back too", || {
            free_pages(|len| self.device.buffer(len)) == self.pages
        });
    }

    fn end(&mut self, mut future: Append<'_>) -> Appended {
        let mut end = None;
        wait_until("an append ends", || {
            self.rig.step();
            end = poll_once(&mut future);
            end.is_some()
        });
        end.unwrap().unwrap()
    }
}

#[test]
fn a_future_that_was_never_polled_does_nothing() {
    let mut shared = Shared::new(Device::stepped(GEOMETRY));
    let before = shared.rig.requests();
    let device = shared.device.clone();
    for _ in 0..3 * DEPTH {
        drop(append(&device, 0));
    }
    shared.rig.step();
    assert_eq!(shared.rig.requests(), before);
    shared.nothing_is_lost();
}

#[test]
fn a_future_dropped_in_flight_lands_and_gives_its_buffer_back() {
    for polls in 1..4 {
        let mut shared = Shared::new(Device::stepped(GEOMETRY));
        let device = shared.device.clone();
        let before = shared.rig.requests();
        for _ in 0..DEPTH {
            let mut future = append(&device, 0);
            for _ in 0..polls {
                assert!(poll_once(&mut future).is_none());
            }
        }
        assert_eq!(
            free_pages(|len| device.buffer(len)) as u64,
            shared.pages as u64 - DEPTH,
            "the device may still read them"
        );
        // There is no slot, until the orphans have ended.
        let mut late = append(&device, 0);
        assert!(poll_once(&mut late).is_none());
        shared.take(before, DEPTH);
        assert_eq!(shared.end(late).sector, Sector(DEPTH * 8));
        shared.nothing_is_lost();
    }
}

#[test]
fn a_future_dropped_while_it_waits_for_a_slot_does_nothing() {
    for polls in 1..4 {
        let mut shared = Shared::new(Device::stepped(GEOMETRY));
        let device = shared.device.clone();
        let before = shared.rig.requests();
        let mut first: Vec<_> = (0..DEPTH).map(|_| append(&device, 0)).collect();
        let mut waiting: Vec<_> = (0..5).map(|_| append(&device, 1)).collect();
        for _ in 0..polls {
            for future in first.iter_mut().chain(&mut waiting) {
                assert!(poll_once(future).is_none());
            }
        }
        // One in the middle and the one that is next.
        drop(waiting.remove(2));
        drop(waiting.remove(0));
        for future in first {
            shared.end(future);
        }
        for future in waiting {
            shared.end(future);
        }
        assert_eq!(shared.rig.requests(), before + DEPTH + 3);
        shared.nothing_is_lost();
    }
}

#[test]
fn a_future_dropped_with_a_slot_it_has_not_seen_passes_it_on() {
    let mut shared = Shared::new(Device::stepped(GEOMETRY));
    let device = shared.device.clone();
    let mut first: Vec<_> = (0..DEPTH).map(|_| append(&device, 0)).collect();
    let mut waiting: Vec<_> = (0..4).map(|_| append(&device, 1)).collect();
    for future in first.iter_mut().chain(&mut waiting) {
        assert!(poll_once(future).is_none());
    }
    // As the first end, their slots are assigned to those that wait, who are not polled.
    for future in first {
        shared.end(future);
    }
    drop(waiting.remove(0));
    drop(waiting.remove(1));
    for future in waiting {
        shared.end(future);
    }
    shared.nothing_is_lost();
}

#[test]
fn a_future_dropped_with_a_completion_it_has_not_seen_gives_its_buffer_back() {
    let mut shared = Shared::new(Device::stepped(GEOMETRY));
    let device = shared.device.clone();
    for round in 1..20 {
        let before = shared.rig.requests();
        let mut futures: Vec<_> = (0..DEPTH).map(|_| append(&device, 0)).collect();
        for future in &mut futures {
            assert!(poll_once(future).is_none());
        }
        shared.take(before, DEPTH);
        // The lane has seen the last completion when the first future could see its own.
        let last = futures.pop().unwrap();
        shared.end(last);
        drop(futures);
        let written = 8 * DEPTH * round;
        let mut probe = append(&device, 0);
        let _ = poll_once(&mut probe);
        assert_eq!(shared.end(probe).sector, Sector(written + 8 * (round - 1)));
    }
    shared.nothing_is_lost();
}

#[test]
fn commands_and_reports_dropped_at_any_point_lose_nothing() {
    let mut shared = Shared::new(Device::stepped(GEOMETRY));
    let device = shared.device.clone();
    for polls in 0..4 {
        for _ in 0..2 * DEPTH {
            let zone = device.zone(ZoneId(1));
            let futures: [Pin<Box<dyn Future<Output = ()> + '_>>; 5] = [
                Box::pin(async { drop(device.report(..).await) }),
                Box::pin(async { drop(device.flush().await) }),
                Box::pin(async { drop(zone.finish().await) }),
                Box::pin(async { drop(device.read(Sector(0), 8192).await) }),
                Box::pin(async { drop(device.reset_all().await) }),
            ];
            for mut future in futures {
                for poll in 0..polls {
                    if poll_once(&mut future).is_some() {
                        break;
                    }
                    if poll == 1 {
                        shared.rig.step();
                    }
                }
            }
        }
    }
    shared.nothing_is_lost();
}

#[test]
fn drops_at_random_under_load_lose_nothing() {
    in_time(|| {
        let options = format!("{GEOMETRY},latency=100us,store=null");
        let mut shared = Shared::new(Device::threaded(&options));
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let device = shared.device.clone();
                thread::spawn(move || {
                    let mut random = Random::new(seed);
                    for _ in 0..250 {
                        let mut futures: Vec<_> = (0..6)
                            .map(|_| append(&device, random.below(3) as u32))
                            .collect();
                        for _ in 0..random.below(5) {
                            futures.retain_mut(|future| match poll_once(future) {
                                Some(end) => end.is_err(),
                                None => random.below(4) != 0,
                            });
                            thread::sleep(Duration::from_micros(random.below(120)));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        shared.nothing_is_lost();
    });
}
