//! Packed rings whose device answers in any order, or lies; and batches returned in order, true ones
//! and false.

use std::{collections::HashMap, sync::Arc};

use zbd_core::{ErrorKind, IoQueue, Request, Sector, ZoneId};
use zbd_emu::{EmulatedFunction, Stepper};

use crate::{
    meddler::{Meddler, UsedRing},
    random::Random,
    rig::{config, open_options, open_stepped, pattern},
};

/// Bits of a used descriptor's second half.
const WRITE: u64 = 2 << 48;
const AVAIL_AND_USED: u64 = (1 << 7 | 1 << 15) << 48;
const LEN: u64 = 0xffff_ffff;
const ID: u64 = 0xffff << 32;

/// A queue, its device, and how far the device has got in the ring.
struct Meddled {
    queue: IoQueue,
    stepper: Stepper,
    ring: Arc<UsedRing>,
    /// The first place that the driver has not left behind, counted from the beginning.
    at: u64,
}

fn open(queue_size: u16, more: &str) -> Meddled {
    let options = format!(
        "zones=2,zone-size=64m,block-size=512,queues=1,queue-size={queue_size},indirect=on,{more}"
    );
    let (function, mut stepper) = EmulatedFunction::stepped(&config(&options)).unwrap();
    let (meddler, ring) = Meddler::new(function, queue_size);
    let mut queues = open_stepped(Arc::new(meddler), &mut stepper, open_options()).unwrap();
    Meddled {
        queue: queues.pop().unwrap(),
        stepper,
        ring,
        // The report of the zones.
        at: 1,
    }
}

fn packed(queue_size: u16) -> Meddled {
    open(queue_size, "ring=packed,in-order=off")
}

impl Meddled {
    fn append(&mut self, token: u64) {
        let mut buffer = self.queue.buffer(512).unwrap();
        buffer.copy_from_slice(&pattern(token, 512));
        let zone = ZoneId(0);
        let request = Request::Append { zone, buffer };
        self.queue.submit(request, token).unwrap();
    }

    /// Appends under `tokens`, carried out and returned by the device.
    fn append_all(&mut self, tokens: std::ops::Range<u64>) {
        for token in tokens {
            self.append(token);
        }
        self.queue.commit();
        self.stepper.run_until_idle();
    }

    /// Changes what the device wrote at the place `ahead` of where the driver is.
    fn change(&mut self, ahead: u64, change: impl FnOnce(u64) -> u64) {
        let half = self.ring.descriptor(self.at + ahead);
        self.ring.set_descriptor(self.at + ahead, change(half));
    }

    /// All `tokens` end once: as many as `good` well, then the others as broken rules.
    fn ends(&mut self, tokens: std::ops::Range<u64>, good: usize) {
        let mut ended = Vec::new();
        for _ in 0..1000 {
            let Some(done) = self.queue.poll() else {
                continue;
            };
            match done.result {
                Ok(_) => {
                    assert!(ended.len() < good, "{} came back", done.token);
                    let data = done.buffer.unwrap().to_vec();
                    assert!(data == pattern(done.token, 512));
                }
                Err(error) => {
                    assert!(ended.len() >= good, "{error}");
                    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                    assert!(done.buffer.is_none(), "the device may still use it");
                }
            }
            ended.push(done.token);
        }
        ended.sort_unstable();
        assert!(ended.into_iter().eq(tokens));
        assert_eq!(self.queue.in_flight(), 0);
    }
}

fn with_id(half: u64, id: u64) -> u64 {
    half & !ID | id << 32
}

fn id_of(half: u64) -> u64 {
    (half & ID) >> 32
}

/// One request stays away while others come back in any order, for many laps of the ring.
fn hold_one_while_others_pass(queue_size: u16) {
    let mut rig = packed(queue_size);
    let mut random = Random::new(queue_size.into());
    rig.append(u64::MAX);
    rig.queue.commit();
    let before = rig.ring.descriptor(rig.at);
    rig.stepper.run_until_idle();
    let mut held = rig.ring.descriptor(rig.at);
    rig.ring.set_descriptor(rig.at, before);
    assert!(rig.queue.poll().is_none());
    let depth = u64::from(rig.queue.depth());
    let mut ended = 0;
    while ended < 40_000 {
        let batch = 1 + random.below(depth - 1);
        let tokens = ended..ended + batch;
        for token in tokens.clone() {
            rig.append(token);
        }
        rig.queue.commit();
        // What the last place holds before the device has used it: there the held one goes.
        let last = rig.at + batch;
        let before = rig.ring.descriptor(last);
        rig.stepper.run_until_idle();
        let flags: Vec<_> = [held]
            .into_iter()
            .chain((1..=batch).map(|i| rig.ring.descriptor(rig.at + i)))
            .map(|half| half & !(ID | LEN))
            .collect();
        let mut parts: Vec<_> = (1..=batch)
            .map(|i| rig.ring.descriptor(rig.at + i) & (ID | LEN))
            .collect();
        for i in (1..parts.len()).rev() {
            parts.swap(i, random.below(i as u64 + 1) as usize);
        }
        for ((i, part), flags) in (0..).zip(&parts).zip(&flags) {
            rig.ring.set_descriptor(rig.at + i, part | flags);
        }
        held = held & (ID | LEN) | flags[batch as usize];
        rig.ring.set_descriptor(last, before);
        rig.at += batch;
        let mut seen = HashMap::new();
        while let Some(done) = rig.queue.poll() {
            assert!(tokens.contains(&done.token), "{}", done.token);
            // The device took them in order, after the held one.
            assert_eq!(done.result.unwrap(), Sector(1 + done.token));
            assert!(seen.insert(done.token, done.buffer.unwrap()).is_none());
        }
        assert_eq!(seen.len() as u64, batch);
        assert_eq!(rig.queue.in_flight(), 1);
        for (token, buffer) in seen {
            assert!(buffer.to_vec() == pattern(token, 512), "data of {token}");
        }
        ended += batch;
    }
    rig.ring.set_descriptor(rig.at, held);
    let held = rig.queue.poll().unwrap();
    assert_eq!((held.token, held.result.unwrap()), (u64::MAX, Sector(0)));
    assert_eq!(held.buffer.unwrap().to_vec(), pattern(u64::MAX, 512));
    assert!(rig.queue.poll().is_none());
}

#[test]
fn a_request_lies_in_a_packed_ring_while_others_pass_in_any_order() {
    for queue_size in [4, 5, 7, 100] {
        hold_one_while_others_pass(queue_size);
    }
}

#[test]
fn a_packed_request_that_was_returned_cannot_be_returned_again() {
    let mut rig = packed(7);
    rig.append_all(0..4);
    let first = id_of(rig.ring.descriptor(rig.at));
    rig.change(1, |half| with_id(half, first));
    rig.ends(0..4, 1);
}

#[test]
fn packed_ids_that_the_device_was_not_given_end_the_queue() {
    // Slots that are free, the two that are not yet published, and those that do not exist.
    let mut tried = 0;
    for id in [0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 0x7fff, 0x8000, 0xffff] {
        let mut rig = packed(7);
        rig.append_all(0..3);
        let given: Vec<_> = (0..3)
            .map(|i| id_of(rig.ring.descriptor(rig.at + i)))
            .collect();
        rig.append(3);
        rig.append(4);
        if given.contains(&id) {
            continue;
        }
        rig.change(0, |half| with_id(half, id));
        rig.ends(0..5, 0);
        tried += 1;
    }
    assert_eq!(tried, 10);
}

#[test]
fn a_packed_length_counts_only_with_the_write_flag() {
    for len in [10, 4096, 1 << 31, u64::from(u32::MAX)] {
        let mut rig = packed(16);
        rig.append_all(0..2);
        rig.change(0, |half| half & !(LEN | WRITE) | len);
        rig.ends(0..2, 2);
        rig.at += 2;
        rig.append_all(2..4);
        rig.change(0, |half| half & !LEN | WRITE | len);
        rig.ends(2..4, 0);
    }
}

#[test]
fn a_packed_descriptor_with_bits_of_another_lap_is_not_used_yet() {
    let mut rig = packed(5);
    for lap in 0..40 {
        rig.append_all(lap..lap + 1);
        let used = rig.ring.descriptor(rig.at);
        let both = used & AVAIL_AND_USED;
        assert!(both == 0 || both == AVAIL_AND_USED);
        for bits in [0, 1 << 7, 1 << 15, 1 << 7 | 1 << 15] {
            if bits << 48 == both {
                continue;
            }
            rig.change(0, |half| half & !AVAIL_AND_USED | bits << 48);
            for _ in 0..10 {
                assert!(rig.queue.poll().is_none(), "{bits:x} in lap {lap}");
            }
        }
        rig.ring.set_descriptor(rig.at, used);
        assert_eq!(rig.queue.poll().unwrap().token, lap);
        rig.at += 1;
    }
}

#[test]
fn what_lies_beyond_the_next_packed_place_is_not_looked_at() {
    let mut rig = packed(6);
    for round in 0..40 {
        rig.append_all(round..round + 1);
        for other in 1..6 {
            // A request in flight or not, used in any lap: it has not been come to.
            rig.change(other, |half| (half ^ AVAIL_AND_USED) & !ID | 2 << 32);
        }
        assert_eq!(rig.queue.poll().unwrap().token, round);
        // The device has the places back as they were: it looks at them when they are available.
        assert!(rig.queue.in_flight() == 0);
        for other in 1..6 {
            rig.change(other, |half| half ^ AVAIL_AND_USED);
        }
        rig.at += 1;
    }
}

const SPLIT: &str = "ring=split,in-order=on";
const PACKED: &str = "ring=packed,in-order=on";

impl Meddled {
    /// Changes the id of the used element that stands for the batch, and what it says of the length.
    fn change_batch(&mut self, index: u16, id: impl FnOnce(u64) -> u64) {
        let packed = self.queue.info().features.contains(&"ring_packed");
        if packed {
            self.change(0, |half| with_id(half, id(id_of(half))));
        } else {
            let element = self.ring.element(index);
            let id = id(element & LEN);
            self.ring.set_element(index, element & !LEN | id);
        }
    }
}

#[test]
fn batches_in_order_end_all_that_they_stand_for() {
    for ring in [SPLIT, PACKED] {
        let mut rig = open(16, ring);
        let mut next = 0;
        for round in 0..500 {
            let batch = 1 + round % 16;
            rig.append_all(next..next + batch);
            for token in next..next + batch {
                let done = rig.queue.poll().unwrap();
                assert_eq!((done.token, done.result.unwrap()), (token, Sector(token)));
                assert!(done.buffer.unwrap().to_vec() == pattern(token, 512));
            }
            assert!(rig.queue.poll().is_none());
            next += batch;
        }
    }
}

#[test]
fn batches_in_order_that_cannot_be_end_the_queue() {
    // The device has ids 1, 2 and 3 and says that it is done up to: what it has returned before,
    // what is not published, what nobody has, nothing.
    for ring in [SPLIT, PACKED] {
        for id in [0, 4, 5, 15, 16, 0xffff] {
            let mut rig = open(16, ring);
            rig.append_all(0..3);
            rig.append(3);
            rig.append(4);
            rig.change_batch(1, |last| {
                assert_eq!(last, 3);
                id
            });
            rig.ends(0..5, 0);
        }
    }
}

#[test]
fn batches_in_order_may_end_before_all_that_the_device_has() {
    for ring in [SPLIT, PACKED] {
        let mut rig = open(16, ring);
        rig.append_all(0..3);
        rig.change_batch(1, |_| 2);
        if ring == SPLIT {
            rig.ring.set_index(3);
        }
        let done: Vec<_> = std::iter::from_fn(|| rig.queue.poll())
            .map(|done| done.token)
            .collect();
        assert_eq!(done, [0, 1]);
        assert_eq!(rig.queue.in_flight(), 1);
    }
}

#[test]
fn a_split_batch_in_order_longer_than_its_index_ends_the_queue() {
    let mut rig = open(16, SPLIT);
    rig.append_all(0..3);
    // The element says three, the index two.
    rig.ring.set_index(3);
    rig.ends(0..3, 0);
}
