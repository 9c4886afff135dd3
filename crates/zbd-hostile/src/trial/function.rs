//! The whole driver, on a device that lies about everything.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use zbd_core::{
    Backend, Completion, DeviceEvent, DmaBuffer, Error, ErrorKind, IoQueue, Lifetime, OpenOptions,
    Request, Sector, SectorCount, Unmap, WaitPolicy, WriteCache, Zone, ZoneAction, ZoneId,
    ZoneType, parse_id,
};

use super::memory::{Lent, Place};
use crate::{HostileFunction, Key, Known, Lies, Observer, Script};

/// So many things are done at the most.
const MOST_ACTIONS: usize = 300;
/// So many polls in a row make the driver look whether its device still works, as the driver's
/// documentation has it.
const POLLS_PER_CHECK: usize = 1 << 16;

/// A device that lies about everything, opened and used as `bytes` has it.
pub fn function(bytes: &[u8]) {
    let script = Script::new(bytes);
    let function = HostileFunction::new(&script, Lies::Everywhere);
    let observer = function.observer();
    let options = OpenOptions {
        queues: script.pick([1, 1, 1, 2]),
        queue_size: script.pick([Some(16), Some(8), Some(4), None, Some(64)]),
        wait: match script.once_in(16) {
            true => WaitPolicy::Interrupt,
            false => WaitPolicy::Poll,
        },
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let opened = options.open_function(Arc::new(function), Backend::Emulated, "hostile".into());
    let queues = match opened {
        Ok(queues) => queues,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
            drop(error);
            assert!(observer.has_all_memory_gone());
            return;
        }
    };
    assert_eq!(queues.len(), usize::from(options.queues));
    let Some(arena) = queues.first().map(|queue| queue.memory().clone()) else {
        return;
    };
    check_info(&queues[0]);
    let mut trial = Trial {
        script,
        observer: observer.clone(),
        lanes: queues.into_iter().map(Lane::new).collect(),
        lent: Lent::default(),
        next_token: u64::MAX - 3,
    };
    for _ in 0..MOST_ACTIONS {
        if trial.script.is_empty() || trial.lanes.is_empty() {
            break;
        }
        trial.act();
    }
    trial.end();
    let whole = arena.allocate(arena.len_bytes());
    assert!(whole.is_ok(), "all memory came back: {whole:?}");
    drop((whole, arena));
    assert!(observer.has_all_memory_gone());
}

/// What the driver says of a device makes sense, whatever the device says.
fn check_info(queue: &IoQueue) {
    let info = queue.info();
    assert!(info.block_size.is_power_of_two() && info.block_size >= 512);
    assert!(info.max_transfer >= info.block_size);
    assert!(info.capacity.0.checked_mul(512).is_some());
    let Ok(zoned) = info.zoned() else { return };
    assert!(zoned.zone_size.0 > 0);
    for zone in (0..zoned.zone_count).map(ZoneId) {
        let start = zoned.start(zone);
        let capacity = zoned.capacity(zone).expect("each zone is known");
        assert!(capacity <= zoned.zone_size);
        assert!(start.0 + capacity.0 <= info.capacity.0);
    }
    assert_eq!(zoned.capacity(ZoneId(zoned.zone_count)), None);
}

/// A request that the device has.
struct Sent {
    place: Option<Place>,
    kind: Kind,
    /// Whether its ring has been reset: what is known is known of the rings since then.
    was_reset: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Append { zone: ZoneId, sectors: u64 },
    Read { at: Sector },
    Write { at: Sector },
    Report { from: Sector },
    Id,
    Lifetime,
    Other,
}

struct Lane {
    queue: IoQueue,
    in_flight: HashMap<u64, Sent>,
    /// Whether a completion has said that the device is not believed any more.
    has_failed: bool,
}

impl Lane {
    fn new(queue: IoQueue) -> Self {
        Self {
            queue,
            in_flight: HashMap::new(),
            has_failed: false,
        }
    }
}

struct Trial {
    script: Script,
    observer: Observer,
    lanes: Vec<Lane>,
    lent: Lent,
    next_token: u64,
}

impl Trial {
    fn act(&mut self) {
        let lane = match self.lanes.len() {
            1 => 0,
            lanes => self.script.below(lanes),
        };
        match self.script.below(32) {
            0..14 => self.submit(lane),
            14..18 => self.lanes[lane].queue.commit(),
            18..22 => self.observer.step(),
            22..26 => {
                self.lanes[lane].queue.commit();
                self.observer.step();
                self.poll_all(lane);
            }
            26 => {
                self.poll(lane);
            }
            27..29 => self.poll_all(lane),
            29 => self.switch_cache(lane),
            30 => match self.script.below(64) {
                0..16 => self.recover(lane),
                16..20 => drop(self.lanes.swap_remove(lane)),
                20..24 => {
                    drop(self.lanes[lane].queue.wait(Duration::ZERO));
                }
                24 => self.wait(lane),
                25 => thread::sleep(Duration::from_millis(2)),
                _ => self.poll_all(lane),
            },
            _ => self.submit(lane),
        }
        for lane in &mut self.lanes {
            while let Some(event) = lane.queue.next_event() {
                if matches!(event, DeviceEvent::Resized { .. }) {
                    check_info(&lane.queue);
                }
            }
            assert_eq!(lane.queue.in_flight(), lane.in_flight.len());
        }
    }

    fn switch_cache(&mut self, lane: usize) {
        let mode = self
            .script
            .pick([WriteCache::Writeback, WriteCache::Writethrough]);
        let queue = &mut self.lanes[lane].queue;
        let switched = queue.set_write_cache(mode);
        if let Err(error) = &switched {
            assert!(!error.to_string().is_empty());
        }
        drop(queue.write_cache());
    }

    fn buffer(&mut self, lane: usize, len: usize) -> Option<DmaBuffer> {
        let mut buffer = self.lanes[lane].queue.buffer(len).ok()?;
        self.lent.check(&Place::of(&buffer));
        // A report that was in this memory before must not be taken for a new one.
        let stale = self.script.u8();
        if stale < 16 {
            buffer.fill(stale);
        }
        Some(buffer)
    }

    fn sector(&self, lane: usize) -> Sector {
        let capacity = self.lanes[lane].queue.info().capacity.0;
        match self.script.below(4) {
            0 => Sector(self.script.number(capacity)),
            _ => Sector(u64::from(self.script.u8()) * 8),
        }
    }

    fn zone(&self) -> ZoneId {
        match self.script.below(8) {
            0 => ZoneId(self.script.number(4) as u32),
            _ => ZoneId(self.script.below(4) as u32),
        }
    }

    fn request(&mut self, lane: usize) -> Option<(Request, Kind)> {
        let which = self.script.below(24);
        let len = self.script.pick([4096, 512, 1024, 8192, 4097, 65536]);
        Some(match which {
            0..7 => {
                let zone = self.zone();
                let buffer = self.buffer(lane, len)?;
                let sectors = buffer.len() as u64 / 512;
                (
                    Request::Append { zone, buffer },
                    Kind::Append { zone, sectors },
                )
            }
            7..11 => {
                let at = self.sector(lane);
                let buffer = self.buffer(lane, len)?;
                (Request::Read { at, buffer }, Kind::Read { at })
            }
            11..13 => {
                let at = self.sector(lane);
                let buffer = self.buffer(lane, len)?;
                (Request::Write { at, buffer }, Kind::Write { at })
            }
            13..16 => {
                let from = self.sector(lane);
                let buffer = self.buffer(lane, len)?;
                (Request::Report { from, buffer }, Kind::Report { from })
            }
            16 => {
                let len = self.script.pick([Request::ID_LEN, Request::ID_LEN, 19]);
                let buffer = self.buffer(lane, len)?;
                (Request::GetId { buffer }, Kind::Id)
            }
            17 => {
                let buffer = self.buffer(lane, Request::LIFETIME_LEN)?;
                (Request::GetLifetime { buffer }, Kind::Lifetime)
            }
            18 => {
                let action = self.script.pick([
                    ZoneAction::Open,
                    ZoneAction::Close,
                    ZoneAction::Finish,
                    ZoneAction::Reset,
                ]);
                let zone = self.zone();
                (Request::Manage { action, zone }, Kind::Other)
            }
            19 => (Request::ResetAll, Kind::Other),
            20..23 => {
                let at = self.sector(lane);
                let len = SectorCount(self.script.number(8));
                let request = match which {
                    20 => Request::Discard { at, len },
                    21 => Request::SecureErase { at, len },
                    _ => Request::WriteZeroes {
                        at,
                        len,
                        unmap: self.script.pick([Unmap::Keep, Unmap::Allow]),
                    },
                };
                (request, Kind::Other)
            }
            _ => (Request::Flush, Kind::Other),
        })
    }

    fn submit(&mut self, lane: usize) {
        let Some((request, kind)) = self.request(lane) else {
            return;
        };
        let place = place_of(&request);
        let words = std::mem::discriminant(&request);
        let token = self.next_token;
        self.next_token = self.next_token.wrapping_add(1);
        if let Some(place) = &place {
            self.observer.forget(Key::Data(place.iova()));
        }
        let lane = &mut self.lanes[lane];
        let submitted = match self.script.once_in(16) {
            true => lane.queue.submit_within(request, token, Duration::ZERO),
            false => lane.queue.submit(request, token),
        };
        match submitted {
            Ok(()) => {
                assert!(!lane.has_failed, "accepted after the device had failed");
                if let Some(place) = &place {
                    self.lent.lend(place.clone());
                }
                lane.in_flight.insert(
                    token,
                    Sent {
                        place,
                        kind,
                        was_reset: false,
                    },
                );
            }
            Err(rejected) => {
                assert_eq!(std::mem::discriminant(&rejected.request), words);
                assert_eq!(place_of(&rejected.request), place, "it came back whole");
                assert!(!rejected.error.to_string().is_empty());
            }
        }
    }

    /// Takes one. True if there was one.
    fn poll(&mut self, lane: usize) -> bool {
        let lane = &mut self.lanes[lane];
        let Some(done) = lane.queue.poll() else {
            return false;
        };
        let Some(sent) = lane.in_flight.remove(&done.token) else {
            panic!("request {} ended and was not in flight", done.token);
        };
        match (&done.buffer, &sent.place) {
            (Some(buffer), Some(place)) => {
                assert_eq!(&Place::of(buffer), place, "the memory that it came with");
                self.lent.take_back(place, sent.was_reset);
            }
            (Some(_), None) => panic!("memory that it did not come with"),
            // Without its memory, it ends because the device is not believed any more.
            (None, Some(place)) => match done.result.as_ref().map_err(Error::kind) {
                Ok(_) => panic!("done, without the memory that it came with"),
                // From here on, nobody but the driver knows when the device returns it.
                Err(ErrorKind::Timeout) => self.lent.take_back(place, sent.was_reset),
                // What failed before a reset may be told after it.
                Err(_) if sent.was_reset => {}
                Err(_) => lane.has_failed = true,
            },
            (None, None) => {}
        }
        assert!(
            !lane.has_failed || done.result.is_err(),
            "believed after the device had failed"
        );
        if let Ok(at) = done.result {
            check_success(lane, &sent, at, &done, &self.observer);
        }
        true
    }

    fn poll_all(&mut self, lane: usize) {
        let mut polls = 0;
        while self.poll(lane) {
            polls += 1;
            assert!(polls <= usize::from(u16::MAX), "there is an end");
        }
    }

    /// A device that says nothing any more is asked whether it still works.
    fn wait(&mut self, lane: usize) {
        self.lanes[lane].queue.commit();
        for _ in 0..=POLLS_PER_CHECK {
            self.poll(lane);
            if self.lanes[lane].in_flight.is_empty() {
                break;
            }
        }
    }

    fn recover(&mut self, lane: usize) {
        let alone = self.script.once_in(4);
        self.observer.set_merciless(true);
        let queue = &mut self.lanes[lane].queue;
        let recovered = match alone {
            true => queue.recover_queue(),
            false => queue.recover(),
        };
        self.observer.set_merciless(false);
        let kind = recovered.as_ref().err().map(Error::kind);
        if matches!(kind, Some(ErrorKind::Timeout | ErrorKind::DeviceGone)) {
            return;
        }
        let lanes = match alone {
            true => &mut self.lanes[lane..=lane],
            false => {
                // Who has what now is known to the driver alone: memory of requests that had failed
                // has gone back, that of others waits for them to be polled.
                self.lent.clear();
                &mut self.lanes[..]
            }
        };
        for lane in lanes {
            lane.has_failed &= recovered.is_err();
            for sent in lane.in_flight.values_mut() {
                sent.was_reset = true;
                // Memory of a request whose time was up goes back at once, even if that is still to
                // be told.
                if let Some(place) = &sent.place {
                    self.lent.take_back(place, true);
                }
            }
        }
    }

    fn end(&mut self) {
        for lane in 0..self.lanes.len() {
            self.poll_all(lane);
        }
        self.lanes.clear();
    }
}

fn place_of(request: &Request) -> Option<Place> {
    match request {
        Request::Read { buffer, .. }
        | Request::Write { buffer, .. }
        | Request::Append { buffer, .. }
        | Request::Report { buffer, .. }
        | Request::GetId { buffer }
        | Request::GetLifetime { buffer } => Some(Place::of(buffer)),
        _ => None,
    }
}

/// What is reported as done was done, as far as that can be known.
fn check_success(lane: &Lane, sent: &Sent, at: Sector, done: &Completion, observer: &Observer) {
    let info = lane.queue.info();
    let known = match &sent.place {
        Some(place) if !sent.was_reset => observer.answer(Key::Data(place.iova())),
        _ => Known::No,
    };
    let answer = match known {
        Known::Yes(answer) => {
            let answer = answer.expect("reported as done, and was not answered");
            assert_eq!(answer.status, Some(0), "reported as done");
            Some(answer)
        }
        Known::No => None,
    };
    match sent.kind {
        Kind::Append { zone, sectors } => {
            let zoned = info.zoned().expect("appended to");
            let start = zoned.start(zone);
            let capacity = zoned.capacity(zone).expect("appended to");
            assert!(at >= start && at.0 + sectors <= start.0 + capacity.0);
            assert!((at.0 * 512).is_multiple_of(info.block_size.into()));
            assert_eq!(zoned.zone_type(zone), Some(ZoneType::SequentialRequired));
            if let Some(answer) = answer {
                assert_eq!(answer.value, Some(at.0), "where the device put it");
            }
        }
        Kind::Read { at: asked } => {
            assert_eq!(at, asked);
            if let (Some(stamp), Some(buffer)) = (answer.and_then(|it| it.stamp), &done.buffer) {
                let mut start = [0; 8];
                buffer.read_at(0, &mut start);
                assert_eq!(u64::from_le_bytes(start), stamp, "data that it wrote");
            }
        }
        Kind::Write { at: asked } => assert_eq!(at, asked),
        Kind::Report { from } => check_report(
            lane,
            from,
            done,
            answer.is_some_and(|it| it.stamp.is_none()),
        ),
        Kind::Id => {
            let id = parse_id(done.buffer.as_ref().expect("it came with one"));
            assert!(id.chars().count() <= Request::ID_LEN);
            assert!(!id.chars().any(char::is_control));
        }
        Kind::Lifetime => {
            let lifetime = Lifetime::parse(done.buffer.as_ref().expect("it came with one"));
            assert!(lifetime.is_ok());
        }
        Kind::Other => {}
    }
}

fn check_report(lane: &Lane, from: Sector, done: &Completion, was_left_unwritten: bool) {
    let zoned = lane.queue.info().zoned().expect("reported");
    let first = zoned.zone_of(from).expect("inside the device");
    let buffer = done.buffer.as_ref().expect("it came with one");
    let zones = match zoned.parse_report(first, buffer) {
        Ok(zones) => zones,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
            return;
        }
    };
    if was_left_unwritten {
        assert!(zones.is_empty(), "a report that the device did not write");
    }
    for (zone, id) in zones.iter().zip(first.0..) {
        check_zone(zone, ZoneId(id), zoned.start(ZoneId(id)), zoned.zone_size);
    }
}

/// A zone of a report is the one that was asked for, and makes sense.
pub(super) fn check_zone(zone: &Zone, id: ZoneId, start: Sector, zone_size: SectorCount) {
    assert_eq!((zone.id, zone.start), (id, start));
    assert!(zone.size <= zone_size && zone.capacity <= zone.size);
    if let Some(pointer) = zone.write_pointer {
        assert!(pointer >= start && pointer <= zone.capacity_end());
    }
    assert!(zone.written().is_none_or(|it| it <= zone.capacity));
}
