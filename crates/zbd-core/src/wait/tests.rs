use std::{
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use io_uring::IoUring;
use vfio_virtio::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::{
    Alarm, NoIoUring, Sleeper, WaitMethod, WaitPolicy,
    sleeper::{Watched, Wish},
    uring,
};

/// All ways to sleep. A plain ring with room for eight completions overflows.
const WISHES: [Wish; 3] = [
    Wish::Best,
    Wish::PlainRing { completions: 8 },
    Wish::Epoll(NoIoUring::Forbidden),
];
/// So long does only a sleep take that nothing ended.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

/// Tries `test` with each way to sleep, on a thread of its own: the end of a ring interrupts a system
/// call of the thread that had it.
fn with_each(test: fn(Wish)) {
    thread::scope(|scope| {
        for wish in WISHES {
            scope.spawn(move || test(wish));
        }
    });
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn watch(events: &[&EventFd]) -> Vec<Watched> {
    let clone = |event: &&EventFd| -> Watched { Box::new(event.try_clone().unwrap()) };
    events.iter().map(clone).collect()
}

fn sleeper(events: &[&EventFd], wish: Wish) -> Sleeper {
    let sleeper = Sleeper::with_method(watch(events), wish).unwrap();
    match wish {
        Wish::Epoll(why) => assert_eq!(sleeper.method(), WaitMethod::Epoll(why)),
        _ => assert_eq!(sleeper.method(), WaitMethod::IoUring),
    }
    sleeper
}

/// How long a sleep of at most `timeout` took.
fn slept(sleeper: &mut Sleeper, timeout: Duration) -> Duration {
    let begin = Instant::now();
    sleeper.sleep(Some(timeout)).unwrap();
    begin.elapsed()
}

/// Takes the sleeps that signals of before end, and checks that they are few.
fn settle(sleeper: &mut Sleeper) {
    let ended = (0..8).find(|_| slept(sleeper, SHORT) >= SHORT);
    ended.expect("a signal ends sleep after sleep");
}

#[test]
fn without_a_signal_a_sleep_lasts_for_its_timeout() {
    with_each(|wish| {
        let event = event();
        let mut sleeper = sleeper(&[&event], wish);
        for _ in 0..3 {
            let took = slept(&mut sleeper, SHORT);
            assert!(took >= SHORT && took < LONG / 2, "{wish:?}: {took:?}");
        }
        let took = slept(&mut sleeper, Duration::from_micros(300));
        assert!(took >= Duration::from_micros(300), "{wish:?}: {took:?}");
        assert!(slept(&mut sleeper, Duration::ZERO) < LONG / 2);
    });
}

#[test]
fn a_signal_from_before_ends_one_sleep_and_no_more() {
    with_each(|wish| {
        let events = [event(), event()];
        let mut sleeper = sleeper(&[&events[0], &events[1]], wish);
        for turn in 0..6 {
            // The first is signalled before the sleeper has slept at all, and none is ever read.
            events[turn % 2].write(1).unwrap();
            let took = slept(&mut sleeper, LONG);
            assert!(took < LONG / 2, "{wish:?}, turn {turn}: {took:?}");
            let took = slept(&mut sleeper, SHORT);
            assert!(took >= SHORT, "{wish:?}, turn {turn}: {took:?}");
        }
    });
}

#[test]
fn the_greatest_timeout_is_not_one_that_has_passed() {
    with_each(|wish| {
        for timeout in [None, Some(Duration::MAX)] {
            let event = event();
            let mut sleeper = sleeper(&[&event], wish);
            thread::scope(|scope| {
                let begin = Instant::now();
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    event.write(1).unwrap();
                });
                sleeper.sleep(timeout).unwrap();
                assert!(begin.elapsed() >= SHORT, "{wish:?}, {timeout:?}");
            });
        }
    });
}

#[test]
fn more_signals_than_completions_fit_are_not_lost_and_the_watch_goes_on() {
    with_each(|wish| {
        let events: Vec<_> = (0..8).map(|_| event()).collect();
        let mut sleeper = sleeper(&events.iter().collect::<Vec<_>>(), wish);
        settle(&mut sleeper);
        for turn in 0..3 {
            for _ in 0..50 {
                events.iter().for_each(|event| event.write(1).unwrap());
            }
            let took = slept(&mut sleeper, LONG);
            assert!(took < LONG / 2, "{wish:?}, turn {turn}: {took:?}");
            settle_all(&mut sleeper);
            for event in &events {
                event.write(1).unwrap();
                let took = slept(&mut sleeper, LONG);
                assert!(took < LONG / 2, "{wish:?}, turn {turn}: {took:?}");
            }
            settle_all(&mut sleeper);
        }
    });
}

/// As `settle`, after an overflow of many completions.
fn settle_all(sleeper: &mut Sleeper) {
    let ended = (0..1_000).find(|_| slept(sleeper, SHORT) >= SHORT);
    ended.expect("signals end sleep after sleep");
}

#[test]
fn a_socket_and_another_ring_wake_too() {
    with_each(|wish| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut ring = IoUring::new(4).unwrap();
        let watched: Vec<Watched> = vec![Box::new(far), Box::new(ring.as_raw_fd())];
        let mut sleeper = Sleeper::with_method(watched, wish).unwrap();
        for turn in 0..4 {
            near.write_all(b"x").unwrap();
            assert!(slept(&mut sleeper, LONG) < LONG / 2, "{wish:?}, {turn}");
            settle(&mut sleeper);
            uring::complete_one(&mut ring).unwrap();
            assert!(slept(&mut sleeper, LONG) < LONG / 2, "{wish:?}, {turn}");
            ring.completion().next().unwrap();
            settle(&mut sleeper);
        }
    });
}

#[test]
fn ten_thousand_rings_at_random_times_all_arrive() {
    with_each(|wish| {
        let alarm = Arc::new(Alarm::new().unwrap());
        let watched: Vec<Watched> = vec![Box::new(Arc::clone(&alarm))];
        let mut sleeper = Sleeper::with_method(watched, wish).unwrap();
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64;
                for number in 1..=10_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let begin = Instant::now();
                    // Between a sleep that has long begun and one that is just being announced.
                    let pause = Duration::from_nanos(random % 40_000);
                    while begin.elapsed() < pause {
                        std::hint::spin_loop();
                    }
                    asked.store(number, Ordering::Relaxed);
                    alarm.ring();
                    while answered.load(Ordering::Relaxed) != number {
                        thread::yield_now();
                        assert!(begin.elapsed() < LONG, "{wish:?}: ring {number} was lost");
                    }
                }
            });
            let mut done = 0;
            while done < 10_000 {
                alarm.about_to_sleep();
                if asked.load(Ordering::Relaxed) == done {
                    let begin = Instant::now();
                    sleeper.sleep(Some(2 * LONG)).unwrap();
                    assert!(begin.elapsed() < LONG, "{wish:?}: slept through a ring");
                }
                alarm.stay_awake();
                let asked = asked.load(Ordering::Relaxed);
                if asked != done {
                    done = asked;
                    answered.store(done, Ordering::Relaxed);
                }
            }
        });
    });
}

#[test]
fn an_alarm_signals_only_whom_is_asleep_and_once() {
    let alarm = Alarm::new().unwrap();
    alarm.ring();
    alarm.about_to_sleep();
    alarm.ring();
    alarm.ring();
    alarm.stay_awake();
    alarm.ring();
    alarm.about_to_sleep();
    alarm.stay_awake();
    alarm.ring();
    assert_eq!(alarm.event().read().unwrap(), 1);
}

#[test]
fn a_sleeper_takes_io_uring_where_it_can() {
    let event = event();
    let sleeper = Sleeper::new(watch(&[&event])).unwrap();
    let has_ring = IoUring::new(1).is_ok();
    assert_eq!(sleeper.method() == WaitMethod::IoUring, has_ring);
}

#[test]
fn a_ring_on_another_thread_than_its_own_gives_way_to_epoll() {
    let event = event();
    let mut sleeper = sleeper(&[&event], Wish::Best);
    thread::scope(|scope| {
        scope.spawn(|| settle(&mut sleeper)).join().unwrap();
    });
    event.write(1).unwrap();
    assert!(slept(&mut sleeper, LONG) < LONG / 2);
    let WaitMethod::Epoll(NoIoUring::Failed(_)) = sleeper.method() else {
        panic!("{:?}", sleeper.method());
    };
    settle(&mut sleeper);
    event.write(1).unwrap();
    assert!(slept(&mut sleeper, LONG) < LONG / 2);
}

#[test]
fn methods_and_policies_have_names() {
    assert_eq!(WaitMethod::IoUring.to_string(), "io_uring");
    assert_eq!(
        WaitMethod::Epoll(NoIoUring::Forbidden).to_string(),
        "epoll: io_uring is not permitted here (EPERM)"
    );
    assert_eq!(
        WaitMethod::Epoll(NoIoUring::Failed(libc::ENOMEM)).to_string(),
        "epoll: io_uring fails: Cannot allocate memory (os error 12)"
    );
    for name in ["poll", "adaptive", "interrupt"] {
        assert_eq!(name.parse::<WaitPolicy>().unwrap().to_string(), name);
    }
    assert_eq!(WaitPolicy::default(), WaitPolicy::Adaptive);
    let error = "spin".parse::<WaitPolicy>().unwrap_err();
    assert!(error.to_string().contains("adaptive"), "{error}");
}

#[test]
fn what_io_uring_fails_with_is_the_reason() {
    for (number, reason) in [
        (libc::EPERM, NoIoUring::Forbidden),
        (libc::EACCES, NoIoUring::Forbidden),
        (libc::ENOSYS, NoIoUring::Missing),
        (libc::EMFILE, NoIoUring::Failed(libc::EMFILE)),
    ] {
        let error = std::io::Error::from_raw_os_error(number);
        assert_eq!(NoIoUring::from(&error), reason);
    }
}
