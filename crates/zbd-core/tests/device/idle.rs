//! Devices that have nothing to do for a while, under the adaptive policy.

use std::{
    fs,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalRuntime},
    sync::Notify,
};
use zbd_core::{
    IoQueue, Local, OpenOptions, Request, WaitPolicy, ZonedDevice, on_thread_park,
    on_thread_park_with_io,
};

use crate::{
    blocking::block_on,
    in_time::{in_time, within},
    random::Random,
    rig::{Device, open_options},
};

const GEOMETRY: &str = "store=null,zones=4,zone-size=1m,queues=1,queue-size=16";
const TURNS: u64 = 10_000;
/// Idle times are shorter than this, so that some end while a thread still looks, some while it goes
/// to sleep, and some when it sleeps.
const LONGEST_PAUSE_US: u64 = 200;

fn open(device: &mut Device, wait: WaitPolicy) -> IoQueue {
    let options = OpenOptions {
        wait,
        ..open_options()
    };
    device.open(options).unwrap().pop().unwrap()
}

/// Pauses that are over to the microsecond, which sleeping is not.
struct Pauses(Random);

/// Two seconds do on a machine with nothing else to do; each turn waits for its processor where there
/// is something.
const LIMIT: Duration = Duration::from_secs(300);

impl Pauses {
    fn new() -> Self {
        Self(Random::new(1))
    }

    fn pause(&mut self) {
        let (begun, len) = (Instant::now(), self.0.below(LONGEST_PAUSE_US));
        // Half of them give the processor away at once.
        if self.0.below(2) == 0 {
            thread::sleep(Duration::from_micros(len));
        }
        while begun.elapsed() < Duration::from_micros(len) {
            thread::yield_now();
        }
    }
}

fn runtime(with_io: bool) -> LocalRuntime {
    let mut builder = Builder::new_current_thread();
    match with_io {
        false => builder.on_thread_park(on_thread_park),
        true => builder.enable_io().on_thread_park(on_thread_park_with_io),
    };
    builder.build_local(Default::default()).unwrap()
}

/// Both policies that sleep; the one that looks for nothing sleeps each time.
fn with_policies(turns: fn(WaitPolicy, u64)) {
    for (wait, count) in [
        (WaitPolicy::Adaptive, TURNS),
        (WaitPolicy::Interrupt, TURNS / 10),
    ] {
        within(LIMIT, move || turns(wait, count));
    }
}

#[test]
fn lanes_wake_up_for_the_first_request_after_each_pause() {
    with_policies(|wait, count| {
        let queue = open(&mut Device::threaded(GEOMETRY), wait);
        let device = ZonedDevice::from_queues(vec![queue]).unwrap();
        let mut pauses = Pauses::new();
        for _ in 0..count {
            pauses.pause();
            block_on(device.flush()).unwrap();
        }
    });
}

fn turns_of_a_thread(with_io: bool, wait: WaitPolicy, count: u64) {
    let runtime = runtime(with_io);
    let queue = open(&mut Device::threaded(GEOMETRY), wait);
    let device = ZonedDevice::from_queue(queue).unwrap();
    let mut pauses = Pauses::new();
    for _ in 0..count {
        pauses.pause();
        runtime.block_on(device.flush()).unwrap();
    }
}

#[test]
fn a_thread_that_parks_hears_of_the_first_request_after_each_pause() {
    with_policies(|wait, count| turns_of_a_thread(false, wait, count));
}

#[test]
fn a_thread_that_parks_in_tokio_hears_of_the_first_request_after_each_pause() {
    with_policies(|wait, count| turns_of_a_thread(true, wait, count));
}

#[test]
fn a_queue_that_is_idle_hears_of_the_first_request_after_each_pause() {
    with_policies(|wait, count| {
        let mut queue = open(&mut Device::threaded(GEOMETRY), wait);
        let mut pauses = Pauses::new();
        for token in 0..count {
            pauses.pause();
            queue.submit(Request::Flush, token).unwrap();
            queue.commit();
            let done = loop {
                match queue.poll() {
                    Some(done) => break done,
                    // A wake-up that is lost lasts longer than the test may.
                    None => queue.idle(2 * LIMIT).unwrap(),
                }
            };
            assert_eq!(done.token, token);
            assert!(done.result.is_ok());
        }
    });
}

/// The processor time of all threads of this process.
fn cpu_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| {
        // One that has just ended has none.
        let stat = fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
        stat.split(" ").next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(stats.sum())
}

/// What part of a processor this process takes while `idle` does nothing for a second.
fn idle_part(idle: impl FnOnce(Duration)) -> f64 {
    // What came before may end meanwhile.
    thread::sleep(Duration::from_millis(100));
    let (begun, before) = (Instant::now(), cpu_time());
    idle(Duration::from_secs(1));
    (cpu_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// Lets `runtime` wait for another thread, for so long.
fn wait_in(runtime: &LocalRuntime, time: Duration) {
    let notify = Arc::new(Notify::new());
    let later = Arc::clone(&notify);
    let notifying = thread::spawn(move || {
        thread::sleep(time);
        later.notify_one();
    });
    runtime.block_on(notify.notified());
    notifying.join().unwrap();
}

#[test]
#[ignore = "measures its whole process; the next one runs it in a process of its own"]
fn the_processor_time_of_idle_devices() {
    in_time(measure_all_doors);
}

fn measure_all_doors() {
    let adaptive = |device: &mut Device| open(device, WaitPolicy::Adaptive);
    let report = |door: &str, part: f64| {
        println!("idle {door}: {:.3} % of a processor", part * 100.0);
        assert!(part < 0.01, "{door}: {:.3} %", part * 100.0);
    };
    {
        let queue = adaptive(&mut Device::threaded(GEOMETRY));
        let device = ZonedDevice::from_queues(vec![queue]).unwrap();
        block_on(device.flush()).unwrap();
        report("lanes", idle_part(thread::sleep));
    }
    for with_io in [false, true] {
        let runtime = runtime(with_io);
        let queue = adaptive(&mut Device::threaded(GEOMETRY));
        let device: ZonedDevice<Local> = ZonedDevice::from_queue(queue).unwrap();
        runtime.block_on(device.flush()).unwrap();
        let part = idle_part(|time| wait_in(&runtime, time));
        report(if with_io { "local, io" } else { "local" }, part);
    }
    let mut queue = adaptive(&mut Device::threaded(GEOMETRY));
    let part = idle_part(|time| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert!(queue.poll().is_none());
            queue.idle(time - begun.elapsed().min(time)).unwrap();
        }
    });
    report("queue", part);
}

#[test]
fn idle_devices_take_less_than_a_hundredth_of_a_processor() {
    let name = "idle::the_processor_time_of_idle_devices";
    let measured = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&measured.stdout);
    assert!(
        measured.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&measured.stderr)
    );
    assert_eq!(printed.matches("idle ").count(), 4, "{printed}");
}
