//! Requests that the device does not return in time.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use zbd_core::{Completion, ErrorKind, Request, Sector, ZoneId};

use crate::{
    blocking::block_on,
    in_time::PATIENCE,
    in_time::in_time,
    random::Random,
    rig::{Device, Rig, free_pages, pattern, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=4m,block-size=512,queues=1,queue-size=8,indirect=on";
const SOON: Duration = Duration::from_millis(20);

/// The next completion, which must come.
fn next(rig: &mut Rig) -> Completion {
    let begun = Instant::now();
    loop {
        rig.device.step();
        match rig.queue.poll() {
            Some(done) => return done,
            None => assert!(begun.elapsed() < PATIENCE, "nothing comes"),
        }
    }
}

fn pages(rig: &Rig) -> usize {
    free_pages(|len| rig.queue.buffer(len))
}

#[test]
fn a_request_that_does_not_come_back_ends_in_time_and_its_buffer_later() {
    let mut rig = Rig::stepped(GEOMETRY);
    let whole = pages(&rig);
    rig.device.control.hold();
    let request = rig.append(0, 512, 1);
    let begun = Instant::now();
    rig.queue.submit_within(request, 7, SOON).unwrap();
    rig.queue.commit();
    let done = next(&mut rig);
    let took = begun.elapsed();
    assert!(took >= SOON, "{took:?}");
    assert!(took < 20 * SOON, "{took:?}");
    let error = done.result.unwrap_err();
    assert_eq!((done.token, error.kind()), (7, ErrorKind::Timeout));
    assert!(error.to_string().contains("recover"), "{error}");
    assert!(done.buffer.is_none());
    assert_eq!(rig.queue.in_flight(), 0);
    // The device has the buffer: nobody else gets it.
    assert_eq!(pages(&rig), whole - 1);
    rig.device.control.release();
    rig.device.step();
    for _ in 0..1000 {
        assert!(rig.queue.poll().is_none(), "it has ended already");
    }
    assert_eq!(pages(&rig), whole);
    assert_eq!(rig.queue.in_flight(), 0);
    // It was carried out, and the slot works.
    let request = rig.append(0, 512, 2);
    assert_eq!(rig.run(request).result.unwrap(), Sector(1));
    assert_eq!(rig.read(0, 512), pattern(1, 512));
}

#[test]
fn a_deadline_that_is_kept_is_not_reported_later() {
    let mut rig = Rig::stepped(GEOMETRY);
    for token in 0..8 {
        let request = rig.append(0, 512, token);
        rig.queue.submit_within(request, token, SOON).unwrap();
    }
    for done in rig.finish() {
        assert!(done.result.is_ok());
        assert!(done.buffer.is_some());
    }
    thread::sleep(2 * SOON);
    // A request without a deadline in the same slot.
    rig.device.control.hold();
    rig.queue.submit(Request::Flush, 9).unwrap();
    rig.queue.commit();
    rig.device.step();
    for _ in 0..1000 {
        assert!(rig.queue.poll().is_none());
    }
    rig.device.control.release();
    assert_eq!(next(&mut rig).token, 9);
}

#[test]
fn a_range_that_is_late_keeps_its_hidden_buffer_from_the_caller() {
    let mut rig = Rig::stepped("model=none,zones=4,zone-size=1m,queue-size=8");
    let whole = pages(&rig);
    rig.device.control.hold();
    let range = Request::Discard {
        at: Sector(0),
        len: zbd_core::SectorCount(8),
    };
    rig.queue.submit_within(range, 3, SOON).unwrap();
    rig.queue.commit();
    let done = next(&mut rig);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(pages(&rig), whole - 1);
    rig.device.control.release();
    rig.device.step();
    assert!((0..100).all(|_| rig.queue.poll().is_none()));
    assert_eq!(pages(&rig), whole);
}

#[test]
fn a_queue_full_of_late_requests_says_so_and_works_after_their_return_or_a_reset() {
    for is_reset in [false, true] {
        let mut rig = Rig::stepped(GEOMETRY);
        let whole = pages(&rig);
        rig.device.control.hold();
        for token in 0..8 {
            let request = rig.append(0, 512, token);
            rig.queue.submit_within(request, token, SOON).unwrap();
        }
        rig.queue.commit();
        assert!(!rig.queue.has_room());
        let mut late: Vec<_> = (0..8)
            .map(|_| {
                let done = next(&mut rig);
                assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Timeout);
                done.token
            })
            .collect();
        // Whose time is up together comes in any order.
        late.sort_unstable();
        assert_eq!(late, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(rig.queue.in_flight(), 0);
        assert!(!rig.queue.has_room());
        let rejected = rig.queue.submit(Request::Flush, 9).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::QueueFull);
        let words = rejected.error.to_string();
        assert!(
            words.contains("8 of them") && words.contains("recover"),
            "{words}"
        );
        rig.device.control.release();
        if is_reset {
            rig.queue.recover().unwrap();
        } else {
            rig.device.step();
        }
        assert!((0..100).all(|_| rig.queue.poll().is_none()));
        assert!(rig.queue.has_room());
        assert_eq!(pages(&rig), whole);
        let request = rig.append(1, 512, 2);
        assert_eq!(rig.run(request).result.unwrap(), Sector(8192));
    }
}

#[test]
fn late_requests_of_a_queue_dropped_return_their_memory() {
    let mut rig = Rig::stepped(GEOMETRY);
    let arena = rig.queue.memory().clone();
    rig.device.control.hold();
    let request = rig.append(0, 512, 1);
    rig.queue.submit_within(request, 7, SOON).unwrap();
    rig.queue.commit();
    assert!(next(&mut rig).result.is_err());
    drop(rig.queue);
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}

#[test]
fn tasks_on_a_device_that_stalls_end_in_time_and_go_on_after_it() {
    let mut device = Device::threaded(GEOMETRY);
    let shared = device.open_shared();
    let whole = free_pages(|len| shared.buffer(len));
    let hasty = shared.with_timeout(Some(5 * SOON));
    device.control.hold();
    // More than there are slots: the others have one when the first have ended, and the device has
    // no room for them.
    let begun = Instant::now();
    let tasks: Vec<_> = (0..24)
        .map(|seed| {
            let hasty = hasty.clone();
            thread::spawn(move || {
                let mut buffer = hasty.buffer(512).unwrap();
                buffer.copy_from_slice(&pattern(seed, 512));
                block_on(hasty.append(ZoneId(0), buffer)).unwrap_err()
            })
        })
        .collect();
    let errors: Vec<_> = in_time(move || tasks.into_iter().map(|it| it.join().unwrap()).collect());
    let took = begun.elapsed();
    assert!(took >= 15 * SOON && took < 200 * SOON, "{took:?}");
    let mut unsent = 0;
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("recover"), "{error}");
        unsent += usize::from(error.into_buffer().is_some());
    }
    assert_eq!(
        unsent, 16,
        "the device has only those for which it had room"
    );
    // One that waits longer is sent after all.
    let patient = shared.clone();
    let waiting = thread::spawn(move || {
        let buffer = patient.buffer(512).unwrap();
        block_on(patient.append(ZoneId(1), buffer)).unwrap().sector
    });
    thread::sleep(SOON);
    device.control.release();
    assert_eq!(in_time(move || waiting.join().unwrap()), Sector(8192));
    wait_until("all buffers are back", || {
        free_pages(|len| shared.buffer(len)) == whole
    });
}

#[test]
fn late_buffers_come_back_though_nobody_asks_for_anything() {
    let mut device = Device::threaded(GEOMETRY);
    let shared = device.open_shared();
    let whole = free_pages(|len| shared.buffer(len));
    let hasty = shared.with_timeout(Some(SOON));
    device.control.hold();
    let buffer = shared.buffer(512).unwrap();
    let error = block_on(hasty.append(ZoneId(0), buffer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // Long enough for the thread to go to sleep.
    thread::sleep(SOON);
    assert_eq!(free_pages(|len| shared.buffer(len)), whole - 1);
    device.control.release();
    wait_until("the buffer is back", || {
        free_pages(|len| shared.buffer(len)) == whole
    });
}

/// A queue, its device, and what must come of each request.
struct Model {
    rig: Rig,
    random: Random,
    next: u64,
    /// The requests that have not ended, and whether they may be late.
    open: HashMap<u64, bool>,
    late: usize,
}

impl Model {
    fn submit(&mut self) {
        let token = self.next;
        self.next += 1;
        let request = match self.random.below(3) {
            0 => self.rig.append((token % 4) as u32, 512, token),
            1 => Request::Read {
                at: Sector(0),
                buffer: self.rig.filled(512, token),
            },
            _ => self.rig.write(0, 512, token),
        };
        let is_hasty = self.random.below(2) == 0;
        let room = self.rig.queue.has_room();
        let submitted = if is_hasty {
            let time = Duration::from_millis(self.random.below(4));
            self.rig.queue.submit_within(request, token, time)
        } else {
            self.rig.queue.submit(request, token)
        };
        match submitted {
            Ok(()) => {
                assert!(room);
                self.open.insert(token, is_hasty);
            }
            Err(rejected) => {
                assert!(!room);
                assert_eq!(rejected.error.kind(), ErrorKind::QueueFull);
                assert!(rejected.request.into_buffer().is_some());
            }
        }
    }

    fn ended(&mut self, done: Completion) {
        let hasty = self.open.remove(&done.token).expect("it ends once");
        match done.result {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                assert!(hasty, "nobody set it a time");
                assert!(done.buffer.is_none(), "the device has it");
                self.late += 1;
            }
            _ => assert!(done.buffer.is_some(), "what was returned comes back"),
        }
    }

    fn poll(&mut self, most: u64) {
        for _ in 0..most {
            if let Some(done) = self.rig.queue.poll() {
                self.ended(done);
            }
        }
    }

    fn act(&mut self) {
        match self.random.below(40) {
            0..12 => self.submit(),
            12..18 => self.rig.queue.commit(),
            18..28 => {
                let most = 1 + self.random.below(200);
                self.poll(most);
            }
            28..32 => {
                self.rig.device.step();
            }
            32..34 => self.rig.device.control.hold(),
            34..36 => self.rig.device.control.release(),
            36..38 => thread::sleep(Duration::from_millis(self.random.below(5))),
            38 => self.rig.queue.recover().unwrap(),
            _ => {
                self.poll(1);
            }
        }
        assert_eq!(self.rig.queue.in_flight(), self.open.len());
    }
}

#[test]
fn whatever_happens_each_request_ends_once_and_all_memory_comes_back() {
    let mut late = 0;
    for seed in 0..12 {
        let ring = [
            "ring=split,in-order=off",
            "ring=packed,in-order=off",
            "ring=packed,in-order=on",
            "ring=split,in-order=on",
        ][seed as usize % 4];
        let mut model = Model {
            rig: Rig::stepped(&format!("{GEOMETRY},{ring}")),
            random: Random::new(seed),
            next: 0,
            open: HashMap::new(),
            late: 0,
        };
        let whole = pages(&model.rig);
        for _ in 0..1500 {
            model.act();
        }
        model.rig.device.control.release();
        for done in model.rig.finish() {
            model.ended(done);
        }
        assert!(model.open.is_empty());
        model.rig.device.step();
        assert!((0..100).all(|_| model.rig.queue.poll().is_none()));
        assert_eq!(pages(&model.rig), whole);
        assert!(model.rig.queue.has_room());
        late += model.late;
        let arena = model.rig.queue.memory().clone();
        drop(model);
        assert!(arena.allocate(arena.len_bytes()).is_ok());
    }
    assert!(late > 50, "{late}");
}
