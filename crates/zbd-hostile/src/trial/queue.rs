//! A virtqueue whose device lies in the ring.

use std::{collections::HashMap, sync::Arc};

use vfio_virtio::{
    Data, DmaBuffer, Ended, ErrorKind, Features, Negotiation, QueueOptions, RunningDevice, Tail,
    Virtqueue,
};

use super::memory::{Lent, Place};
use crate::{HostileFunction, Key, Known, Lies, Observer, Script};

/// So many things are done at the most.
const MOST_ACTIONS: usize = 400;
/// What stands in the status before the device writes it.
const UNWRITTEN: u8 = 0xff;

/// A split queue, and a device that lies in rings and answers as `bytes` has it.
pub fn split_queue(bytes: &[u8]) {
    queue(bytes, Lies::InSplitRings, Features::NONE);
}

/// As [`split_queue`], with a packed one.
pub fn packed_queue(bytes: &[u8]) {
    queue(bytes, Lies::InPackedRings, Features::RING_PACKED);
}

fn queue(bytes: &[u8], lies: Lies, format: Features) {
    let script = Script::new(bytes);
    let function = HostileFunction::new(&script, lies);
    let observer = function.observer();
    let negotiation = Negotiation::begin(Arc::new(function), 2).expect("its registers are sound");
    let wanted = format
        | Features::INDIRECT_DESC
        | Features::EVENT_IDX
        | Features::IN_ORDER
        | Features::NOTIFICATION_DATA
        | Features::NOTIF_CONFIG_DATA
        | Features::RING_RESET;
    let mut configured = negotiation
        .accept(wanted, 2 << 20)
        .expect("its features are sound");
    configured
        .add_queue(QueueOptions::default())
        .expect("its queue is sound");
    let (device, queues) = configured.start().expect("its registers are sound");
    for queue in queues {
        let mut trial = Trial {
            script: script.clone(),
            observer: observer.clone(),
            device: &device,
            queue,
            in_flight: HashMap::new(),
            lent: Lent::default(),
            next_token: 1,
            has_failed: false,
        };
        for _ in 0..MOST_ACTIONS {
            if trial.script.is_empty() {
                break;
            }
            trial.act();
            trial.check_count();
        }
        trial.end();
    }
    let arena = device.arena().clone();
    drop(device);
    let whole = arena.allocate(arena.len_bytes());
    assert!(whole.is_ok(), "all memory came back: {whole:?}");
    drop((whole, arena));
    assert!(observer.has_all_memory_gone());
}

/// A request that the device has.
struct Sent {
    place: Option<Place>,
    /// Whether the device writes the data.
    from_device: bool,
    room: u32,
    tail: Tail,
}

struct Trial<'a> {
    script: Script,
    observer: Observer,
    device: &'a RunningDevice,
    queue: Virtqueue<u64>,
    in_flight: HashMap<u64, Sent>,
    lent: Lent,
    next_token: u64,
    has_failed: bool,
}

impl Trial<'_> {
    fn act(&mut self) {
        match self.script.below(16) {
            0..6 => self.push(),
            6..8 => self.queue.commit(),
            8..10 => self.observer.step(),
            10 => {
                self.queue.commit();
                self.observer.step();
                self.pop_all();
            }
            11 => {
                self.pop();
            }
            12 => self.pop_all(),
            13 => match self.script.u8() % 2 {
                0 => drop(self.queue.arm()),
                _ => self.queue.disarm(),
            },
            14 => self.recover(),
            _ => match self.script.below(8) {
                7 => self.abandon(),
                _ => self.push(),
            },
        }
    }

    fn buffer(&mut self) -> Option<DmaBuffer> {
        let mut whole: Option<DmaBuffer> = None;
        let segments = self.script.pick([1, 1, 1, 2, 3, 1, 5, 9]);
        for _ in 0..segments {
            let len = self.script.pick([512, 4096, 1, 20, 8192, 4097]);
            let Ok(buffer) = self.device.arena().allocate(len) else {
                break;
            };
            self.lent.check(&Place::of(&buffer));
            match &mut whole {
                None => whole = Some(buffer),
                Some(whole) => whole.join(buffer).expect("one arena, and not too long"),
            }
        }
        whole
    }

    fn push(&mut self) {
        let buffer = match self.script.below(8) {
            0 => None,
            _ => self.buffer(),
        };
        let place = buffer.as_ref().map(Place::of);
        let len = buffer.as_ref().map_or(0, DmaBuffer::len) as u32;
        let from_device = self.script.u8() % 2 == 1;
        let data = match (buffer, from_device) {
            (None, _) => Data::None,
            (Some(buffer), true) => Data::FromDevice(buffer),
            (Some(buffer), false) => Data::ToDevice(buffer),
        };
        let (tail, tail_len) = match self.script.u8() % 2 {
            0 => (Tail::Status, 1),
            _ => (Tail::ValueAndStatus, 9),
        };
        let token = self.next_token;
        self.next_token += 1;
        let head = [if tail_len == 9 { 15 } else { 0 }, token];
        let before = self.queue.in_flight();
        match self.queue.push(head, data, tail, UNWRITTEN, token) {
            Ok(()) => {
                assert!(!self.has_failed, "accepted after the queue had failed");
                if let Some(place) = &place {
                    self.lent.lend(place.clone());
                }
                let sent = Sent {
                    room: tail_len + if from_device { len } else { 0 },
                    place,
                    from_device,
                    tail,
                };
                self.in_flight.insert(token, sent);
            }
            Err(rejected) => {
                let kind = rejected.error.kind();
                let is_our_fault = matches!(
                    kind,
                    ErrorKind::Busy | ErrorKind::InvalidInput | ErrorKind::OutOfMemory
                );
                assert!(self.has_failed || is_our_fault, "{kind:?}");
                let back = rejected.data.into_buffer();
                assert_eq!(back.as_ref().map(Place::of), place, "it came back whole");
                assert_eq!(self.queue.in_flight(), before);
            }
        }
    }

    /// Takes one. True if there was one.
    fn pop(&mut self) -> bool {
        let used = match self.queue.pop() {
            Ok(Some(used)) => used,
            Ok(None) => return false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                self.has_failed = true;
                // Nothing more is taken from this ring.
                let again = self.queue.pop();
                assert!(!matches!(again, Ok(Some(_))), "{again:?}");
                return false;
            }
        };
        assert!(!self.has_failed, "believed after the queue had failed");
        let token = used.context;
        let Some(sent) = self.in_flight.remove(&token) else {
            panic!("request {token} ended and was not in flight");
        };
        assert!(used.written_len <= sent.room);
        let place = used.buffer.as_ref().map(Place::of);
        assert_eq!(place, sent.place, "the memory that it came with");
        if let Some(place) = &place {
            self.lent.take_back(place, false);
        }
        // What is known is known of the rings since the last reset.
        let known = match self.queue.is_stale() {
            false => self.observer.answer(Key::Head(token)),
            true => Known::No,
        };
        if let Known::Yes(answer) = known {
            let answer = answer.unwrap_or_default();
            assert_eq!(used.status, answer.status.unwrap_or(UNWRITTEN));
            if sent.tail == Tail::ValueAndStatus {
                assert_eq!(used.value, answer.value.unwrap_or(u64::MAX));
            }
            if let (Some(stamp), Some(buffer), true) =
                (answer.stamp, &used.buffer, sent.from_device)
            {
                let mut start = [0; 8];
                buffer.read_at(0, &mut start);
                assert_eq!(u64::from_le_bytes(start), stamp, "data that it wrote");
            }
        }
        true
    }

    fn pop_all(&mut self) {
        let mut polls = 0;
        while self.pop() {
            polls += 1;
            assert!(polls <= usize::from(u16::MAX), "there is an end");
        }
    }

    fn check_count(&self) {
        if !self.has_failed {
            assert_eq!(usize::from(self.queue.in_flight()), self.in_flight.len());
        }
    }

    fn end_each(&mut self, tokens: impl Iterator<Item = u64>) {
        for token in tokens {
            let sent = self.in_flight.remove(&token);
            assert!(
                sent.is_some(),
                "request {token} ended and was not in flight"
            );
        }
        assert!(self.in_flight.is_empty(), "each request ends");
    }

    /// Ends all requests without their memory.
    fn abandon(&mut self) {
        let tokens = self.queue.abandon();
        self.end_each(tokens.into_iter());
        self.has_failed = true;
    }

    fn recover(&mut self) {
        let alone = self.script.once_in(3);
        let recovered = match alone {
            true => self.device.recover_queue(0),
            false => self.device.recover(),
        };
        if let Err(error) = recovered {
            assert!(alone && error.kind() == ErrorKind::Unsupported, "{error}");
            assert!(!self.queue.is_stale());
            return;
        }
        assert!(self.queue.is_stale());
        if !alone {
            // What was abandoned before has gone back.
            self.lent.clear();
            for place in self
                .in_flight
                .values()
                .filter_map(|sent| sent.place.clone())
            {
                self.lent.lend(place);
            }
        }
        if self.script.once_in(4) {
            // Until it is renewed, the queue is one of a device that says nothing.
            self.pop();
            self.push();
            self.queue.commit();
        }
        let (ended, renewed) = self.queue.renew();
        renewed.expect("its registers are sound");
        let tokens: Vec<_> = ended.iter().map(|ended| ended.context).collect();
        for Ended { context, buffer } in ended {
            let sent = self.in_flight.get(&context);
            let place = sent.and_then(|sent| sent.place.clone());
            assert_eq!(buffer.as_ref().map(Place::of), place);
            if let Some(place) = &place {
                self.lent.take_back(place, false);
            }
        }
        self.end_each(tokens.into_iter());
        self.has_failed = false;
    }

    /// Ends the queue, in one way or the other.
    fn end(mut self) {
        self.pop_all();
        self.check_count();
        if self.script.u8() % 2 == 1 {
            self.abandon();
        }
    }
}
