//! Devices that are reset with requests in flight, and work again.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use vfio_virtio::{PciFunction, Width};
use zbd_core::{Completion, DeviceEvent, ErrorKind, IoQueue, OpenOptions, Request, Sector, ZoneId};
use zbd_emu::Fault;

use crate::{
    blocking::block_on,
    in_time::PATIENCE,
    in_time::in_time,
    rig::{Device, Rig, free_pages, open_options, pattern, wait_until},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,block-size=512,queues=2,queue-size=16";

fn open_two(device: &mut Device) -> (IoQueue, IoQueue) {
    let options = OpenOptions {
        queues: 2,
        ..open_options()
    };
    let mut queues = device.open(options).unwrap();
    let second = queues.pop().unwrap();
    (queues.pop().unwrap(), second)
}

fn append(queue: &IoQueue, zone: u32, seed: u64) -> Request {
    let mut buffer = queue.buffer(512).unwrap();
    buffer.copy_from_slice(&pattern(seed, 512));
    let zone = ZoneId(zone);
    Request::Append { zone, buffer }
}

/// All that ends without the device's help.
fn ended(queue: &mut IoQueue) -> Vec<Completion> {
    (0..1000).filter_map(|_| queue.poll()).collect()
}

/// `done` was ended by a reset, with its buffer.
fn assert_reset(done: Completion) {
    let error = done.result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceReset, "{error}");
    assert!(error.to_string().contains("not known"), "{error}");
    assert_eq!(done.buffer.unwrap().to_vec(), pattern(done.token, 512));
}

fn events(queue: &mut IoQueue) -> Vec<DeviceEvent> {
    std::iter::from_fn(|| queue.next_event()).collect()
}

fn works(rig: &mut Rig) {
    for seed in 0..40 {
        let request = rig.append(3, 512, seed);
        let at = rig.run(request).result.unwrap();
        assert_eq!(rig.read(at.0, 512), pattern(seed, 512));
    }
}

#[test]
fn requests_in_flight_end_with_their_buffers_and_the_queue_goes_on() {
    let mut rig = Rig::stepped(GEOMETRY);
    let whole = free_pages(|len| rig.queue.buffer(len));
    for round in 0..20 {
        // Returned and not polled; taken and held back; published and not taken; not published.
        for token in 0..2 {
            let request = rig.append(0, 512, token);
            rig.queue.submit(request, token).unwrap();
        }
        rig.queue.commit();
        rig.device.step();
        rig.device.control.hold();
        for token in 2..8 {
            let request = rig.append(0, 512, token);
            rig.queue.submit(request, token).unwrap();
            if token == 3 {
                rig.queue.commit();
                rig.device.step();
            }
            if token == 5 {
                rig.queue.commit();
            }
        }
        rig.queue.recover().unwrap();
        rig.device.control.release();
        assert_eq!(rig.queue.in_flight(), 8);
        let mut tokens = Vec::new();
        for done in ended(&mut rig.queue) {
            tokens.push(done.token);
            match done.token {
                0..2 => {
                    done.result.unwrap();
                    assert!(done.buffer.is_some());
                }
                _ => assert_reset(done),
            }
        }
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(rig.queue.in_flight(), 0);
        assert_eq!(events(&mut rig.queue), [DeviceEvent::Reset]);
        let before = rig.device.requests();
        rig.queue.commit();
        rig.device.step();
        assert_eq!(rig.device.requests(), before, "nothing of before goes out");
        assert_eq!(free_pages(|len| rig.queue.buffer(len)), whole, "in {round}");
    }
    works(&mut rig);
}

#[test]
fn the_owner_of_the_other_queue_finds_out_by_polling() {
    for resets in [1, 2, 5] {
        let mut device = Device::stepped(GEOMETRY);
        let (mut first, mut second) = open_two(&mut device);
        device.control.hold();
        for token in 0..4 {
            let request = append(&second, 0, token);
            second.submit(request, token).unwrap();
        }
        second.commit();
        device.step();
        for _ in 0..resets {
            first.recover().unwrap();
        }
        device.control.release();
        // What it submits before it looks goes the same way.
        let request = append(&second, 0, 4);
        second.submit(request, 4).unwrap();
        second.commit();
        device.step();
        let done = ended(&mut second);
        assert_eq!(done.len(), 5);
        done.into_iter().for_each(assert_reset);
        assert_eq!(events(&mut second), [DeviceEvent::Reset]);
        let mut rig = Rig {
            queue: second,
            device,
        };
        works(&mut rig);
        std::mem::swap(&mut rig.queue, &mut first);
        works(&mut rig);
    }
}

#[test]
fn queues_of_two_threads_live_through_many_resets() {
    let mut device = Device::threaded(&format!("{GEOMETRY},store=null"));
    let (mut first, mut second) = open_two(&mut device);
    let arena = first.memory().clone();
    let start = Barrier::new(2);
    let run = |queue: &mut IoQueue, is_resetting: bool| {
        start.wait();
        let (mut sent, mut good, mut reset) = (0u64, 0u64, 0u64);
        let begun = Instant::now();
        for round in 0..300 {
            while queue.has_room() {
                let buffer = queue.buffer(512).unwrap();
                let at = Sector(0);
                queue.submit(Request::Read { at, buffer }, sent).unwrap();
                sent += 1;
            }
            queue.commit();
            if is_resetting && round % 10 == 5 {
                queue.recover().unwrap();
            }
            while queue.in_flight() > 8 {
                assert!(begun.elapsed() < PATIENCE);
                let Some(done) = queue.poll() else {
                    thread::yield_now();
                    continue;
                };
                assert!(done.buffer.is_some());
                match done.result {
                    Ok(_) => good += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::DeviceReset, "{error}");
                        reset += 1;
                    }
                }
            }
        }
        assert_eq!(good + reset + queue.in_flight() as u64, sent);
        good
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| run(&mut second, false));
        assert!(run(&mut first, true) > 0);
        assert!(other.join().unwrap() > 0);
    });
    drop((first, second));
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}

#[test]
fn a_queue_that_was_lied_to_works_after_a_reset() {
    let mut rig = Rig::stepped(GEOMETRY);
    let whole = free_pages(|len| rig.queue.buffer(len));
    for _ in 0..10 {
        rig.device.control.inject(Fault::UsedId(9999));
        let request = rig.append(0, 512, 0);
        rig.queue.submit(request, 0).unwrap();
        rig.queue.commit();
        rig.device.step();
        let done = rig.queue.poll().unwrap();
        assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Protocol);
        assert!(done.buffer.is_none());
        assert!(free_pages(|len| rig.queue.buffer(len)) < whole);
        rig.queue.recover().unwrap();
        assert!(ended(&mut rig.queue).is_empty());
        let expected = [DeviceEvent::Failed, DeviceEvent::Reset];
        assert_eq!(events(&mut rig.queue), expected);
        assert_eq!(free_pages(|len| rig.queue.buffer(len)), whole);
    }
    works(&mut rig);
}

#[test]
fn a_queue_that_was_lied_to_notices_by_polling_that_another_reset_the_device() {
    for ring in ["ring=split", "ring=packed"] {
        let mut device = Device::stepped(&format!("{GEOMETRY},{ring}"));
        let (mut first, mut second) = open_two(&mut device);
        device.control.inject(Fault::UsedId(9999));
        let request = append(&first, 0, 0);
        first.submit(request, 0).unwrap();
        first.commit();
        device.step();
        let done = first.poll().unwrap();
        assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Protocol);
        second.recover().unwrap();
        assert!(ended(&mut first).is_empty());
        let mut rig = Rig {
            queue: first,
            device,
        };
        works(&mut rig);
    }
}

#[test]
fn a_device_that_asks_for_a_reset_works_after_it() {
    let mut rig = Rig::threaded(GEOMETRY);
    for _ in 0..5 {
        rig.device.control.hold();
        let request = rig.append(0, 512, 3);
        rig.queue.submit(request, 3).unwrap();
        rig.queue.commit();
        rig.device.control.needs_reset();
        rig.device.control.release();
        let begun = Instant::now();
        let done = loop {
            match rig.queue.poll() {
                Some(done) => break done,
                None => assert!(begun.elapsed() < PATIENCE),
            }
        };
        assert_eq!(done.result.unwrap_err().kind(), ErrorKind::NeedsReset);
        let rejected = rig.queue.submit(Request::Flush, 1).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::NeedsReset);
        rig.queue.recover().unwrap();
        let seen = events(&mut rig.queue);
        let expected = [DeviceEvent::Failed, DeviceEvent::Reset];
        assert_eq!(seen[..2], expected);
    }
    works(&mut rig);
}

#[test]
fn a_reset_takes_as_long_as_the_device_takes() {
    let mut rig = Rig::threaded(GEOMETRY);
    let takes = Duration::from_millis(300);
    rig.device.control.slow_reset(takes);
    let begun = Instant::now();
    rig.queue.recover().unwrap();
    assert!(begun.elapsed() >= takes);
    works(&mut rig);
}

// Takes ten seconds, which is how long the driver waits for a reset.
#[test]
fn a_reset_that_is_not_confirmed_changes_nothing_and_a_later_one_helps() {
    let mut rig = Rig::threaded(GEOMETRY);
    rig.device.control.hold();
    let request = rig.append(0, 512, 3);
    rig.queue.submit(request, 3).unwrap();
    rig.queue.commit();
    rig.device.control.slow_reset(Duration::from_millis(10_500));
    let error = rig.queue.recover().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(ended(&mut rig.queue).is_empty(), "the device has it");
    assert_eq!(rig.queue.in_flight(), 1);
    rig.device.control.slow_reset(Duration::ZERO);
    rig.queue.recover().unwrap();
    rig.device.control.release();
    let done = ended(&mut rig.queue);
    assert_eq!(done.len(), 1);
    done.into_iter().for_each(assert_reset);
    works(&mut rig);
}

#[test]
fn a_queue_that_was_dropped_is_not_set_up_again() {
    let mut device = Device::stepped(GEOMETRY);
    let (first, second) = open_two(&mut device);
    let arena = first.memory().clone();
    let bar = device.function.open_bar(4).unwrap();
    let is_enabled = |queue: u32| {
        // `queue_select` and `queue_enable` of the common configuration, with which the BAR begins.
        bar.write(0x16, Width::Word, queue).unwrap();
        bar.read(0x1c, Width::Word).unwrap() == 1
    };
    assert!(is_enabled(1));
    drop(second);
    let mut rig = Rig {
        queue: first,
        device,
    };
    rig.queue.recover().unwrap();
    assert!(is_enabled(0));
    assert!(!is_enabled(1));
    works(&mut rig);
    drop(rig);
    assert!(arena.allocate(arena.len_bytes()).is_ok());
}

#[test]
fn one_queue_is_reset_alone() {
    let mut device = Device::stepped(GEOMETRY);
    let (mut first, mut second) = open_two(&mut device);
    device.control.hold();
    for (queue, tokens) in [(&mut first, 0..3), (&mut second, 3..5)] {
        for token in tokens {
            let request = append(queue, 0, token);
            queue.submit(request, token).unwrap();
        }
        queue.commit();
    }
    device.step();
    first.recover_queue().unwrap();
    let done = ended(&mut first);
    assert_eq!(done.len(), 3);
    done.into_iter().for_each(assert_reset);
    assert!(ended(&mut second).is_empty());
    assert_eq!(second.in_flight(), 2);
    device.control.release();
    device.step();
    for done in ended(&mut second) {
        done.result.unwrap();
    }
    assert_eq!(second.in_flight(), 0);
    let mut rig = Rig {
        queue: first,
        device,
    };
    works(&mut rig);
    std::mem::swap(&mut rig.queue, &mut second);
    works(&mut rig);
}

#[test]
fn tasks_that_wait_end_when_the_device_is_reset_and_others_go_on() {
    let mut device = Device::threaded(GEOMETRY);
    let options = OpenOptions {
        queues: 2,
        ..open_options()
    };
    let queues = device.open(options).unwrap();
    let shared = zbd_core::ZonedDevice::from_queues(queues).unwrap();
    let whole = free_pages(|len| shared.buffer(len));
    let mut announced = shared.events();
    let before = device.requests();
    device.control.hold();
    let tasks: Vec<_> = (0..32)
        .map(|seed| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut buffer = shared.buffer(512).unwrap();
                buffer.copy_from_slice(&pattern(seed, 512));
                block_on(shared.append(ZoneId(0), buffer)).unwrap_err()
            })
        })
        .collect();
    wait_until("the device has all", || device.requests() == before + 32);
    {
        let shared = shared.clone();
        in_time(move || block_on(shared.recover())).unwrap();
    }
    device.control.release();
    let errors: Vec<_> = in_time(move || tasks.into_iter().map(|it| it.join().unwrap()).collect());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::DeviceReset, "{error}");
        assert_eq!(error.into_buffer().unwrap().len(), 512);
    }
    assert_eq!(block_on(announced.next()), Some(DeviceEvent::Reset));
    assert_eq!(free_pages(|len| shared.buffer(len)), whole);
    in_time(move || {
        for zone in 0..40 {
            let buffer = shared.buffer(512).unwrap();
            block_on(shared.append(ZoneId(zone % 4), buffer)).unwrap();
        }
    });
}

#[test]
fn a_device_is_recovered_when_all_its_memory_is_handed_out() {
    let mut rig = Rig::stepped(GEOMETRY);
    for _ in 0..3 {
        let memory = rig.queue.memory().clone();
        let request = rig.append(0, 4096, 1);
        rig.queue.submit(request, 1).unwrap();
        rig.queue.commit();
        let all: Vec<_> = std::iter::from_fn(|| memory.allocate(4096).ok()).collect();
        assert!(!all.is_empty());
        rig.queue.recover().unwrap();
        let done = rig.finish();
        assert_eq!(done.len(), 1);
        drop((done, all));
        let request = rig.append(1, 4096, 2);
        assert!(rig.run(request).result.is_ok());
    }
}
