//! Waiting for the device rather than polling it.

use std::time::{Duration, Instant};

use zbd_core::{DeviceEvent, Error, ErrorKind, IoQueue, OpenOptions, Request, WaitPolicy};

use crate::{
    in_time::PATIENCE,
    rig::{Device, Rig, open_options},
};

const GEOMETRY: &str = "zones=4,zone-size=1m,queues=2,queue-size=16";
const LONG: Duration = Duration::from_secs(20);

fn open(options: &str, queues: u16) -> Result<(Device, Vec<IoQueue>), Error> {
    let mut device = Device::threaded(&format!("{GEOMETRY},{options}"));
    let queues = device.open(OpenOptions {
        queues,
        wait: WaitPolicy::Interrupt,
        ..open_options()
    })?;
    Ok((device, queues))
}

/// Sends one request and waits for its end; the number of times that waiting ended.
fn turn(queue: &mut IoQueue, token: u64) -> u32 {
    queue.submit(Request::Flush, token).unwrap();
    queue.commit();
    let begun = Instant::now();
    for waits in 0.. {
        if let Some(done) = queue.poll() {
            assert_eq!(done.token, token);
            done.result.unwrap();
            assert!(begun.elapsed() < LONG / 2, "the wake-up was lost");
            return waits;
        }
        assert!(waits < 1000, "it does not wait");
        queue.wait(LONG).unwrap();
    }
    unreachable!()
}

#[test]
fn no_wake_up_is_lost() {
    for ring in ["split", "packed"] {
        for event_idx in ["on", "off"] {
            let options = format!("ring={ring},event-idx={event_idx}");
            let (device, mut queues) = open(&options, 1).unwrap();
            let before = device.control.counters().interrupts;
            let mut waited = 0;
            for token in 0..10_000 {
                waited += turn(&mut queues[0], token);
            }
            assert!(waited > 0, "it never waited");
            let interrupts = device.control.counters().interrupts - before;
            assert!(interrupts > 0, "{options}");
            assert!(interrupts <= 10_000, "{interrupts} for 10,000 requests");
        }
    }
}

#[test]
fn queues_share_what_vectors_there_are() {
    for vectors in [3, 2, 1] {
        for ring in ["split", "packed"] {
            let options = format!("ring={ring},vectors={vectors}");
            let (_device, queues) = open(&options, 2).unwrap();
            std::thread::scope(|scope| {
                for mut queue in queues {
                    scope.spawn(move || {
                        for token in 0..2000 {
                            turn(&mut queue, token);
                        }
                        assert_eq!(queue.next_event(), None, "{vectors}: nothing has changed");
                    });
                }
            });
        }
    }
}

#[test]
fn without_vectors_there_is_only_polling() {
    let error = open("vectors=0", 1).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("polled"), "{error}");
    for (options, wait) in [
        ("vectors=0", WaitPolicy::Adaptive),
        ("vectors=3", WaitPolicy::Poll),
    ] {
        let mut device = Device::threaded(&format!("{GEOMETRY},{options}"));
        let options = OpenOptions {
            wait,
            ..open_options()
        };
        let queue = device.open(options).unwrap().pop().unwrap();
        let mut rig = Rig { queue, device };
        assert!(!rig.queue.info().interrupts);
        assert!(rig.run(Request::Flush).result.is_ok());
        let error = rig.queue.wait(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("poll"), "{error}");
    }
}

#[test]
fn waiting_ends_after_its_time() {
    let (device, mut queues) = open("", 1).unwrap();
    let queue = &mut queues[0];
    device.control.hold();
    queue.submit(Request::Flush, 1).unwrap();
    queue.commit();
    let begun = Instant::now();
    queue.wait(Duration::from_millis(50)).unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(45), "{took:?}");
    assert!(queue.poll().is_none());
    device.control.release();
    let begun = Instant::now();
    while queue.poll().is_none() {
        queue.wait(LONG).unwrap();
    }
    assert!(begun.elapsed() < LONG / 2);
}

#[test]
fn what_is_there_is_not_waited_for() {
    for ring in ["split", "packed"] {
        for in_order in ["on", "off"] {
            let (device, mut queues) =
                open(&format!("ring={ring},in-order={in_order}"), 1).unwrap();
            let queue = &mut queues[0];
            device.control.hold();
            for token in 0..5 {
                queue.submit(Request::Flush, token).unwrap();
            }
            queue.commit();
            queue.wait(Duration::from_millis(20)).unwrap();
            device.control.release();
            while queue.poll().is_none() {
                queue.wait(LONG).unwrap();
            }
            // All have come with it. One is taken, the others are still to be polled.
            let begun = Instant::now();
            for _ in 1..5 {
                queue.wait(LONG).unwrap();
                while queue.poll().is_none() {
                    assert!(begun.elapsed() < PATIENCE);
                }
            }
            assert!(begun.elapsed() < LONG / 2, "{ring}, {in_order}");
        }
    }
}

#[test]
fn a_deadline_ends_the_wait_for_it() {
    let (device, mut queues) = open("", 1).unwrap();
    let queue = &mut queues[0];
    device.control.hold();
    let time = Duration::from_millis(50);
    queue.submit_within(Request::Flush, 1, time).unwrap();
    queue.commit();
    let begun = Instant::now();
    let done = loop {
        queue.wait(LONG).unwrap();
        if let Some(done) = queue.poll() {
            break done;
        }
    };
    let took = begun.elapsed();
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(took >= time && took < LONG / 4, "{took:?}");
    device.control.release();
}

#[test]
fn one_who_waits_finds_out_that_the_device_has_gone() {
    // Unplugged: it announces nothing.
    let (device, mut queues) = open("", 1).unwrap();
    let queue = &mut queues[0];
    device.control.hold();
    queue.submit(Request::Flush, 1).unwrap();
    queue.commit();
    device.control.unplug();
    for _ in 0..10 {
        queue.wait(Duration::from_millis(20)).unwrap();
        if let Some(done) = queue.poll() {
            assert_eq!(done.result.unwrap_err().kind(), ErrorKind::DeviceGone);
            assert_eq!(queue.next_event(), Some(DeviceEvent::Gone));
            return;
        }
    }
    panic!("it does not find out");
}

#[test]
fn interrupts_go_on_after_a_reset() {
    for (vectors, ring) in [(3, "split"), (1, "split"), (3, "packed")] {
        let options = format!("vectors={vectors},ring={ring}");
        let (device, mut queues) = open(&options, 1).unwrap();
        let queue = &mut queues[0];
        for round in 0..3 {
            queue.recover().unwrap();
            let before = device.control.counters().interrupts;
            // A device that is faster than who begins to wait need not interrupt.
            let interrupted = (0..50).any(|token| {
                device.control.hold();
                queue.submit(Request::Flush, token).unwrap();
                queue.commit();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::thread::sleep(Duration::from_millis(5));
                        device.control.release();
                    });
                    let begun = Instant::now();
                    while queue.poll().is_none() {
                        queue.wait(LONG).unwrap();
                    }
                    assert!(begun.elapsed() < LONG / 2, "the wake-up was lost");
                });
                device.control.counters().interrupts > before
            });
            assert!(interrupted, "{options}: {round}");
        }
    }
}
