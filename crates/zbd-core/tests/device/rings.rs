//! The ring under load: indices that wrap, batches and interleavings of all sizes.

use std::collections::HashMap;

use zbd_core::{Completion, Request, Sector, ZoneAction, ZoneId};

use crate::{
    random::Random,
    rig::{Rig, merged, pattern},
};

const ZONE_SECTORS: u64 = 4096;
const LEN: usize = 512;

/// What a token stands for.
enum Sent {
    Append { iova: u64 },
    Read { iova: u64, written_by: u64 },
    NoData,
}

/// A driver that does everything at random and remembers what it did.
struct Load {
    rig: Rig,
    random: Random,
    next_token: u64,
    sent: HashMap<u64, Sent>,
    /// Which append wrote which sector of zone 0, from its start on.
    written: Vec<u64>,
    /// Appends in flight.
    appending: u64,
    ended: u64,
}

impl Load {
    fn new(rig: Rig, seed: u64) -> Self {
        Self {
            rig,
            random: Random::new(seed),
            next_token: 0,
            sent: HashMap::new(),
            written: Vec::new(),
            appending: 0,
            ended: 0,
        }
    }

    /// Submits one request, or finds the queue full.
    fn submit(&mut self) {
        let token = self.next_token;
        let (sent, request) = match self.random.below(8) {
            0..4 if self.written.len() as u64 + self.appending < ZONE_SECTORS => {
                let request = self.rig.append(0, LEN, token);
                (
                    Sent::Append {
                        iova: iova(&request),
                    },
                    request,
                )
            }
            0..7 if !self.written.is_empty() => {
                let at = self.random.below(self.written.len() as u64);
                let request = Request::Read {
                    at: Sector(at),
                    buffer: self.rig.queue.buffer(LEN).unwrap(),
                };
                let written_by = self.written[at as usize];
                let iova = iova(&request);
                (Sent::Read { iova, written_by }, request)
            }
            _ => (Sent::NoData, Request::Flush),
        };
        let full = self.rig.queue.in_flight() == usize::from(self.rig.queue.depth());
        match self.rig.queue.submit(request, token) {
            Ok(()) => {
                assert!(!full);
                self.appending += u64::from(matches!(sent, Sent::Append { .. }));
                self.sent.insert(token, sent);
                self.next_token += 1;
            }
            Err(rejected) => assert!(full, "{}", rejected.error),
        }
    }

    /// Takes what has ended, `most` at the most.
    fn poll(&mut self, most: u64) -> u64 {
        for taken in 0..most {
            match self.rig.queue.poll() {
                Some(done) => self.check(done),
                None => {
                    self.rig.device.give_way();
                    return taken;
                }
            }
        }
        most
    }

    fn check(&mut self, done: Completion) {
        let sent = self.sent.remove(&done.token).expect("each token ends once");
        let at = done.result.unwrap();
        self.ended += 1;
        match sent {
            Sent::Append { iova } => {
                assert_eq!(done.buffer.unwrap().iova().0, iova);
                // The device is known to take requests in order, and to answer in order.
                assert_eq!(at.0, self.written.len() as u64);
                self.written.push(done.token);
                self.appending -= 1;
            }
            Sent::Read { iova, written_by } => {
                let buffer = done.buffer.unwrap();
                assert_eq!(buffer.iova().0, iova);
                assert!(
                    buffer.to_vec() == pattern(written_by, LEN),
                    "data of {written_by}"
                );
            }
            Sent::NoData => assert!(done.buffer.is_none()),
        }
    }

    /// Ends everything in flight, and empties the zone if it is full.
    fn settle(&mut self) {
        for done in self.rig.finish() {
            self.check(done);
        }
        assert!(self.sent.is_empty());
        if self.written.len() as u64 == ZONE_SECTORS {
            let (action, zone) = (ZoneAction::Reset, ZoneId(0));
            self.rig
                .run(Request::Manage { action, zone })
                .result
                .unwrap();
            self.written.clear();
        }
    }

    fn run(&mut self, count: u64) {
        let depth = u64::from(self.rig.queue.depth());
        while self.ended < count {
            match self.random.below(8) {
                0..3 => {
                    for _ in 0..=self.random.below(depth + 1) {
                        self.submit();
                    }
                }
                3..5 => self.rig.queue.commit(),
                5 => {
                    self.rig.device.step();
                }
                _ => {
                    let most = 1 + self.random.below(depth);
                    self.poll(most);
                }
            }
            if self.written.len() as u64 == ZONE_SECTORS || self.random.below(1000) == 0 {
                self.settle();
            }
        }
        self.settle();
    }
}

fn iova(request: &Request) -> u64 {
    match request {
        Request::Append { buffer, .. } | Request::Read { buffer, .. } => buffer.iova().0,
        _ => 0,
    }
}

/// Three times around the indices and more.
const WRAPS: u64 = 220_000;

fn options(queue_size: u16, indirect: &str, event_idx: &str) -> String {
    format!(
        "zones=2,zone-size=2m,block-size=512,queues=1,queue-size={queue_size},\
         indirect={indirect},event-idx={event_idx}"
    )
}

fn wrap(queue_size: u16) {
    for (seed, (indirect, event_idx)) in
        [("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")]
            .into_iter()
            .enumerate()
    {
        let rig = Rig::stepped(&options(queue_size, indirect, event_idx));
        let depth = if indirect == "on" {
            queue_size
        } else {
            queue_size / 3
        };
        assert_eq!(rig.queue.depth(), depth);
        for feature in [("indirect_desc", indirect), ("event_idx", event_idx)] {
            let negotiated = rig.queue.info().features.contains(&feature.0);
            assert_eq!(negotiated, feature.1 == "on", "{}", feature.0);
        }
        Load::new(rig, seed as u64).run(WRAPS);
    }
}

#[test]
fn indices_of_a_ring_of_4_wrap() {
    wrap(4);
}

#[test]
fn indices_of_a_ring_of_8_wrap() {
    wrap(8);
}

#[test]
fn indices_of_a_ring_of_256_wrap() {
    wrap(256);
}

/// Fewer requests than for split rings: what wraps here are places of the ring, not 16 bits.
fn wrap_packed(queue_size: u16) {
    let mut seed = queue_size.into();
    for indirect in ["on", "off"] {
        for event_idx in ["on", "off"] {
            for in_order in ["on", "off"] {
                seed += 1;
                let options = options(queue_size, indirect, event_idx);
                let rig = Rig::stepped(&format!("{options},ring=packed,in-order={in_order}"));
                assert!(rig.queue.info().features.contains(&"ring_packed"));
                let depth = match indirect {
                    "on" => queue_size,
                    _ => queue_size / 3,
                };
                assert_eq!(rig.queue.depth(), depth);
                let count = 30 * u64::from(queue_size).max(100);
                Load::new(rig, seed).run(count);
            }
        }
    }
}

#[test]
fn places_of_small_packed_rings_wrap() {
    for queue_size in [4, 5, 6, 7, 8] {
        wrap_packed(queue_size);
    }
}

#[test]
fn places_of_large_packed_rings_wrap() {
    for queue_size in [100, 255, 256, 400] {
        wrap_packed(queue_size);
    }
}

#[test]
fn indices_wrap_where_requests_are_returned_in_order() {
    for (seed, (queue_size, indirect)) in [(4, "on"), (256, "off")].into_iter().enumerate() {
        let options = options(queue_size, indirect, "on");
        let rig = Rig::stepped(&merged(&options, "ring=split,in-order=on"));
        Load::new(rig, seed as u64).run(WRAPS);
    }
}

#[test]
fn a_device_on_a_thread_of_its_own_keeps_up() {
    for (seed, (queue_size, indirect, event_idx)) in [
        (4, "on", "on"),
        (4, "off", "off"),
        (8, "on", "off"),
        (8, "off", "on"),
        (256, "on", "on"),
        (256, "on", "off"),
        (256, "off", "on"),
        (256, "off", "off"),
    ]
    .into_iter()
    .enumerate()
    {
        let rig = Rig::threaded(&options(queue_size, indirect, event_idx));
        // What is small is slow: each turn of a small ring is a turn of the scheduler.
        let count = if queue_size == 256 { WRAPS } else { 5_000 };
        Load::new(rig, 100 + seed as u64).run(count);
    }
}

#[test]
fn a_stepped_device_is_never_left_unnotified() {
    // With event indices, all sizes of batches at all places of the index: after each commit the
    // device must find everything, without being told by any other means.
    for (ring, size, event_idx) in [
        ("split", 16, "on"),
        ("split", 16, "off"),
        ("packed", 16, "on"),
        ("packed", 13, "on"),
        ("packed", 13, "off"),
    ] {
        let options = options(size, "on", event_idx);
        let mut rig = Rig::stepped(&format!("{options},ring={ring}"));
        let mut random = Random::new(7);
        let mut sent = 0u64;
        while sent < 140_000 {
            let batch = 1 + random.below(size.into());
            for token in 0..batch {
                rig.queue.submit(Request::Flush, token).unwrap();
            }
            rig.queue.commit();
            // One step is at most one batch of the device; sometimes it gets to arm itself.
            if random.below(2) == 0 {
                let _ = rig.device.stepper.as_mut().unwrap().step();
            } else {
                rig.device.step();
            }
            for _ in 0..batch {
                assert!(rig.queue.poll().is_some(), "at index {sent}");
            }
            sent += batch;
        }
    }
}
