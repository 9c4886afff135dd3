//! The device on its own thread.

use std::time::{Duration, Instant};

use vfio_virtio::PciFunction;

use crate::driver::{APPEND, DATA, FLUSH, Rig};

#[test]
fn a_device_with_a_thread_serves_and_wakes_from_sleep() {
    let mut rig = Rig::threaded("");
    for round in 0..20u64 {
        let answer = rig.request(APPEND, 0, &[3; 4096], 0);
        assert_eq!((answer.status, answer.sector()), (0, 8 * round));
        // Long enough for the device to fall asleep.
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_idle_device_uses_no_processor_time() {
    let mut rig = Rig::threaded("");
    assert_eq!(rig.command(FLUSH, 0), 0);
    std::thread::sleep(Duration::from_millis(20));
    let before = ticks(&rig.function.name());
    std::thread::sleep(Duration::from_millis(300));
    // A tick is 10 ms: an idle device gets none, but for one that was under way.
    assert!(ticks(&rig.function.name()) - before <= 1);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

/// User and system time of the thread of the device `name`, in ticks.
fn ticks(name: &str) -> u64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok())
        .find_map(|stat| {
            let (before, after) = stat.rsplit_once(") ")?;
            let fields: Vec<&str> = after.split(' ').collect();
            let mine = before.ends_with(&format!("(zbd-{name}"));
            let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
            mine.then(|| ticks(11) + ticks(12))
        })
        .unwrap()
}

#[test]
fn no_request_ends_before_its_latency_has_passed() {
    let mut rig = Rig::threaded("latency=3ms");
    let begin = Instant::now();
    for i in 0..8u16 {
        let at = DATA + 64 * usize::from(i);
        rig.put_header(at, FLUSH, 0);
        rig.lay_out(0, 2 * i, at, 0, &[1]);
        rig.offer(0, 2 * i);
    }
    rig.kick(0);
    while rig.used_index(0) != 8 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert!(begin.elapsed() >= Duration::from_millis(3));
    for i in 0..8 {
        assert_eq!(rig.take_used(0), Some((2 * i, 1)));
    }
}

#[test]
fn latencies_of_requests_in_flight_together_overlap() {
    let mut rig = Rig::ready("latency=50ms");
    for i in 0..8u16 {
        let at = DATA + 64 * usize::from(i);
        rig.put_header(at, FLUSH, 0);
        rig.lay_out(0, 2 * i, at, 0, &[1]);
        rig.offer(0, 2 * i);
    }
    rig.kick(0);
    let begin = Instant::now();
    rig.step();
    assert_eq!(rig.used_index(0), 8);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert!(begin.elapsed() < Duration::from_millis(350));
}

#[test]
fn a_reset_stops_requests_that_wait_for_their_latency() {
    let mut rig = Rig::threaded("latency=20ms");
    rig.put_header(DATA, FLUSH, 0);
    rig.lay_out(0, 0, DATA, 0, &[1]);
    rig.offer(0, 0);
    rig.kick(0);
    while rig.control.counters().requests == 0 {
        std::thread::yield_now();
    }
    rig.set_status(0);
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(rig.used_index(0), 0);
    rig.start(u64::MAX);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

#[test]
fn a_device_under_load_lets_register_accesses_in() {
    let mut rig = Rig::threaded("store=null");
    for _ in 0..200 {
        for i in 0..32u16 {
            let at = DATA + 64 * usize::from(i);
            rig.put_header(at, FLUSH, 0);
            rig.lay_out(0, 2 * i, at, 0, &[1]);
            rig.offer(0, 2 * i);
        }
        rig.kick(0);
        assert_eq!(rig.status(), 15);
        for _ in 0..32 {
            while rig.take_used(0).is_none() {
                std::thread::yield_now();
            }
        }
    }
}
