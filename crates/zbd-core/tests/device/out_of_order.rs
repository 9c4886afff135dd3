//! A device that answers in any order, and lets a request lie while the indices go round.

use std::{collections::HashMap, sync::Arc};

use zbd_core::{DmaBuffer, ErrorKind, IoQueue, Request, Sector, ZoneId};
use zbd_emu::{EmulatedFunction, Stepper};

use crate::{
    meddler::{Meddler, UsedRing},
    random::Random,
    rig::{config, merged, open_options, open_stepped, pattern},
};

struct Meddled {
    queue: IoQueue,
    stepper: Stepper,
    ring: Arc<UsedRing>,
}

fn open(queue_size: u16, more: &str) -> Meddled {
    let options = format!("zones=2,zone-size=64m,block-size=512,queues=1,queue-size={queue_size}");
    // This is about the split ring's way to return requests in any order.
    let options = format!("{options},ring=split,in-order=off,indirect=on");
    let options = config(&merged(&options, more));
    let (function, mut stepper) = EmulatedFunction::stepped(&options).unwrap();
    let (meddler, ring) = Meddler::new(function, queue_size);
    let mut queues = open_stepped(Arc::new(meddler), &mut stepper, open_options()).unwrap();
    let queue = queues.pop().unwrap();
    Meddled {
        queue,
        stepper,
        ring,
    }
}

impl Meddled {
    fn filled(&self, seed: u64) -> DmaBuffer {
        let mut buffer = self.queue.buffer(512).unwrap();
        buffer.copy_from_slice(&pattern(seed, 512));
        buffer
    }

    fn append(&mut self, token: u64) {
        let (zone, buffer) = (ZoneId(0), self.filled(token));
        self.queue
            .submit(Request::Append { zone, buffer }, token)
            .unwrap();
    }
}

fn hold_one_while_others_pass(queue_size: u16, more: &str) {
    let mut rig = open(queue_size, more);
    let mut random = Random::new(queue_size.into());
    rig.append(u64::MAX);
    rig.queue.commit();
    let held_at = rig.ring.index();
    rig.stepper.run_until_idle();
    rig.ring.set_index(held_at);
    assert!(rig.queue.poll().is_none());
    // The first index that the driver has not been shown; the held element waits there.
    let mut shown = held_at;
    let mut ended = 0;
    while ended < 150_000 {
        let batch = 1 + random.below(u64::from(rig.queue.depth()) - 1);
        for token in ended..ended + batch {
            rig.append(token);
        }
        rig.queue.commit();
        rig.stepper.run_until_idle();
        // The held element goes behind all others, and those are shuffled.
        let mut elements: Vec<_> = (0..=batch)
            .map(|i| rig.ring.element(shown.wrapping_add(i as u16)))
            .collect();
        let held = elements.remove(0);
        for i in (1..elements.len()).rev() {
            elements.swap(i, random.below(i as u64 + 1) as usize);
        }
        elements.push(held);
        for (i, element) in elements.into_iter().enumerate() {
            rig.ring.set_element(shown.wrapping_add(i as u16), element);
        }
        shown = shown.wrapping_add(batch as u16);
        rig.ring.set_index(shown);
        let mut seen = HashMap::new();
        while let Some(done) = rig.queue.poll() {
            assert!(
                (ended..ended + batch).contains(&done.token),
                "{}",
                done.token
            );
            // The device took them in order, after the held one.
            assert_eq!(done.result.unwrap(), Sector(1 + done.token % 131_071));
            assert!(seen.insert(done.token, done.buffer.unwrap()).is_none());
        }
        assert_eq!(seen.len() as u64, batch);
        assert_eq!(rig.queue.in_flight(), 1);
        for (token, buffer) in seen {
            assert!(
                buffer.to_vec() == pattern(token, 512),
                "the buffer of {token}"
            );
        }
        ended += batch;
        if ended > 131_071 - 256 {
            break;
        }
    }
    assert!(ended > 130_000, "almost two times around");
    rig.ring.set_index(shown.wrapping_add(1));
    let held = rig.queue.poll().unwrap();
    assert_eq!((held.token, held.result.unwrap()), (u64::MAX, Sector(0)));
    assert_eq!(held.buffer.unwrap().to_vec(), pattern(u64::MAX, 512));
    assert_eq!(rig.queue.in_flight(), 0);
    assert!(rig.queue.poll().is_none());
}

#[test]
fn a_request_lies_in_a_ring_of_4_while_the_indices_go_round() {
    hold_one_while_others_pass(4, "");
}

#[test]
fn a_request_lies_in_a_direct_ring_of_8_while_the_indices_go_round() {
    hold_one_while_others_pass(8, "indirect=off,event-idx=off");
}

#[test]
fn a_request_lies_in_a_ring_of_256_while_the_indices_go_round() {
    hold_one_while_others_pass(256, "event-idx=off");
}

#[test]
fn a_direct_ring_of_256_is_answered_in_any_order() {
    hold_one_while_others_pass(256, "indirect=off");
}

#[test]
fn a_request_that_was_returned_cannot_be_returned_again() {
    let mut rig = open(8, "");
    for token in 0..4 {
        rig.append(token);
    }
    rig.queue.commit();
    let first = rig.ring.index();
    rig.stepper.run_until_idle();
    let element = rig.ring.element(first);
    rig.ring.set_element(first.wrapping_add(1), element);
    let done = rig.queue.poll().unwrap();
    assert_eq!((done.token, done.result.unwrap()), (0, Sector(0)));
    let mut ended = Vec::new();
    for _ in 0..10 {
        if let Some(done) = rig.queue.poll() {
            assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Protocol);
            assert!(done.buffer.is_none());
            ended.push(done.token);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2, 3]);
}

#[test]
fn a_stale_element_behind_the_index_is_never_looked_at() {
    let mut rig = open(4, "");
    for round in 0..40 {
        rig.append(round);
        rig.queue.commit();
        rig.stepper.run_until_idle();
        // What lies at all other places names a request that may be in flight, and lies.
        let last = rig.ring.index().wrapping_sub(1);
        for other in 1..4 {
            rig.ring
                .set_element(last.wrapping_add(other), 0xffff_ffff_0000_0000);
        }
        assert_eq!(rig.queue.poll().unwrap().token, round);
        assert!(rig.queue.poll().is_none());
    }
}
