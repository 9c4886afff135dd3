//! What tests can do to a device behind its driver's back.

use std::time::{Duration, Instant};

use vfio_virtio::{EventFd, Notice, PciFunction, Width};

use crate::driver::{DATA, FLUSH, IN, OUT, Rig, Shape, WRITE};

fn offer(rig: &mut Rig, queue: u16, count: u16) -> Vec<u32> {
    rig.put_header(DATA, FLUSH, 0);
    let parts = [(DATA, 16, 0), (DATA + 16, 1, WRITE)];
    let ids = (0..count)
        .map(|_| rig.submit(queue, &parts, Shape::Direct).into())
        .collect();
    rig.kick(queue);
    ids
}

fn drain(rig: &mut Rig, queue: u16) -> Vec<u32> {
    std::iter::from_fn(|| rig.take_used(queue).map(|(id, _)| id)).collect()
}

#[test]
fn a_device_on_hold_takes_requests_and_completes_them_when_released() {
    for ring in ["split", "packed"] {
        let mut rig = Rig::ready(&format!("ring={ring},queue-size=64,event-idx=off"));
        rig.control.hold();
        let mut first = offer(&mut rig, 0, 10);
        rig.step();
        let second = offer(&mut rig, 1, 3);
        first.extend(offer(&mut rig, 0, 22));
        rig.step();
        assert_eq!(rig.control.counters().requests, 35, "{ring}");
        assert!(drain(&mut rig, 0).is_empty());
        assert!(drain(&mut rig, 1).is_empty());
        assert!(!rig.interrupted(1));
        rig.control.release();
        rig.step();
        assert_eq!(drain(&mut rig, 0), first);
        assert_eq!(drain(&mut rig, 1), second);
        assert!(rig.interrupted(1));
        assert_eq!(rig.command(FLUSH, 0), 0);
    }
}

#[test]
fn what_is_held_back_is_not_overtaken_after_the_release() {
    let mut rig = Rig::ready("queue-size=16");
    rig.control.hold();
    let mut ids = offer(&mut rig, 0, 2);
    rig.step();
    rig.control.release();
    ids.extend(offer(&mut rig, 0, 2));
    rig.step();
    assert_eq!(drain(&mut rig, 0), ids);
}

#[test]
fn a_driver_that_hands_descriptors_out_twice_stalls_a_device_on_hold() {
    let mut rig = Rig::ready("queue-size=4,queues=1");
    rig.put_header(DATA, FLUSH, 0);
    rig.lay_out(0, 0, DATA, 0, &[1]);
    rig.control.hold();
    for _ in 0..4 {
        rig.offer(0, 0);
    }
    rig.kick(0);
    rig.step();
    // All are held back, and come again.
    for _ in 0..4 {
        rig.offer(0, 0);
    }
    rig.kick(0);
    let mut stepper = rig.stepper.take().unwrap();
    assert!((0..10).any(|_| stepper.step() == zbd_emu::Step::Idle));
    assert_eq!(rig.control.counters().requests, 4);
    rig.control.release();
    assert!((0..10).any(|_| stepper.step() == zbd_emu::Step::Idle));
    assert_eq!(rig.used_index(0), 8);
}

#[test]
fn a_reset_drops_what_is_held_back() {
    let mut rig = Rig::ready("");
    rig.control.hold();
    offer(&mut rig, 0, 4);
    rig.step();
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
    rig.start(u64::MAX);
    rig.control.release();
    rig.step();
    assert_eq!(rig.used_index(0), 0);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

#[test]
fn a_threaded_device_sleeps_on_hold_and_wakes_when_released() {
    let mut rig = Rig::threaded("");
    rig.control.hold();
    let ids = offer(&mut rig, 0, 4);
    std::thread::sleep(Duration::from_millis(5));
    assert!(drain(&mut rig, 0).is_empty());
    rig.control.release();
    for id in ids {
        assert_eq!(rig.wait_used(0), (id, 1));
    }
}

#[test]
fn a_device_without_zones_changes_its_size_and_says_so() {
    let mut rig = Rig::ready("model=none,zones=4,zone-size=1m");
    let capacity = |rig: &Rig| rig.read(0x2000, Width::Long);
    let generation = |rig: &Rig| rig.read(0x15, Width::Byte);
    assert_eq!((capacity(&rig), generation(&rig)), (8192, 0));
    assert_eq!(rig.request(OUT, 8190, &[7; 1024], 0).status, 0);
    assert_eq!(rig.request(OUT, 8192, &[7; 512], 0).status, 1);
    assert!(!rig.interrupted(0));
    rig.control.resize(8195).unwrap();
    assert_eq!((capacity(&rig), generation(&rig)), (8195, 1));
    assert!(rig.interrupted(0));
    let read = rig.request(IN, 8190, &[], 2560);
    assert_eq!(read.status, 0);
    assert_eq!(read.bytes[..1024], [7; 1024]);
    assert_eq!(read.bytes[1024..2560], [0; 1536]);
    assert_eq!(rig.request(OUT, 8193, &[7; 1024], 0).status, 0);
    assert_eq!(rig.request(OUT, 8195, &[7; 512], 0).status, 1);
    // What is cut off is gone.
    rig.control.resize(8191).unwrap();
    assert_eq!((capacity(&rig), generation(&rig)), (8191, 2));
    assert_eq!(rig.request(IN, 8190, &[], 1024).status, 1);
    rig.control.resize(8192).unwrap();
    let read = rig.request(IN, 8190, &[], 1024);
    assert_eq!(read.bytes[..512], [7; 512]);
    assert_eq!(read.bytes[512..1024], [0; 512]);
    assert!(rig.control.resize(0).is_err());
    assert!(rig.control.resize(u64::MAX).is_err());
    assert!(Rig::bare("").control.resize(8192).is_err());
    // Nobody is told who has no driver.
    assert!(rig.interrupted(0));
    rig.set_status(0);
    rig.write(0x10, Width::Word, 0);
    rig.control.resize(100).unwrap();
    assert!(!rig.interrupted(0));
}

#[test]
fn a_device_that_asks_for_a_reset_works_again_after_it() {
    let mut rig = Rig::ready("");
    rig.control.needs_reset();
    assert_eq!(rig.status() & 64, 64);
    assert!(rig.interrupted(0));
    assert!(rig.control.broken().is_some());
    offer(&mut rig, 0, 1);
    rig.step();
    assert_eq!(rig.used_index(0), 0);
    rig.start(u64::MAX);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

#[test]
fn a_slow_reset_is_seen_to_take_its_time() {
    let takes = Duration::from_millis(60);
    let mut rig = Rig::ready("");
    rig.control.slow_reset(takes);
    let begin = Instant::now();
    rig.set_status(0);
    // It goes on as before, and hears nothing.
    assert_eq!(rig.status(), 15);
    rig.write(0x16, Width::Word, 1);
    assert_eq!(rig.read(0x16, Width::Word), 1);
    rig.write(0x16, Width::Word, 0);
    assert_eq!(rig.read(0x16, Width::Word), 1);
    rig.set_status(0);
    let ids = offer(&mut rig, 0, 1);
    rig.step();
    assert_eq!(drain(&mut rig, 0), ids);
    while rig.status() != 0 {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert!(begin.elapsed() >= takes);
    rig.control.slow_reset(Duration::ZERO);
    rig.start(u64::MAX);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

#[test]
fn notices_reach_whoever_listens() {
    let rig = Rig::bare("");
    let event = || EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    let (release, error) = (event(), event());
    let notify = |notice, event| rig.function.notify(notice, event).unwrap();
    assert!(!rig.control.request_release());
    assert!(!rig.control.bus_error());
    assert!(notify(Notice::ReleaseRequest, Some(&release)));
    assert!(rig.control.request_release());
    assert!(!rig.control.bus_error());
    assert!(release.read().is_ok());
    assert!(notify(Notice::BusError, Some(&error)));
    assert!(rig.control.bus_error());
    assert!(error.read().is_ok());
    assert!(release.read().is_err());
    assert!(notify(Notice::ReleaseRequest, None));
    assert!(!rig.control.request_release());
    assert!(release.read().is_err());
}

#[test]
fn queues_share_vectors_where_there_are_few() {
    let mut rig = Rig::bare("queues=3,vectors=2,event-idx=off");
    assert_eq!(rig.function.msix_vectors(), 2);
    let mut space = vec![0; 256];
    rig.function.read_config(0, &mut space).unwrap();
    assert_eq!(space[0x42], 1);
    rig.start(u64::MAX);
    // The first queue got vector 1, the others asked for ones that do not exist.
    for (queue, vector) in [(0, 1), (1, 0xffff), (2, 0xffff)] {
        rig.write(0x16, Width::Word, queue);
        assert_eq!(rig.read(0x1a, Width::Word), vector);
    }
    rig.write(0x16, Width::Word, 2);
    rig.write(0x1a, Width::Word, 1);
    offer(&mut rig, 2, 1);
    rig.step();
    assert!(rig.interrupted(1));
    offer(&mut rig, 1, 1);
    rig.step();
    assert!(!rig.interrupted(1));
    assert_eq!(drain(&mut rig, 1).len(), 1);
}

#[test]
fn a_function_without_vectors_has_no_msix_capability() {
    let mut rig = Rig::ready("vectors=0");
    assert_eq!(rig.function.msix_vectors(), 0);
    assert!(rig.function.enable_msix(&[]).is_err());
    let mut space = vec![0; 256];
    rig.function.read_config(0, &mut space).unwrap();
    let mut at = usize::from(space[0x34]);
    let mut capabilities = Vec::new();
    while at != 0 {
        capabilities.push((space[at], space[at + 3]));
        at = usize::from(space[at + 1]);
    }
    assert_eq!(capabilities, [(9, 1), (9, 2), (9, 3), (9, 4), (9, 5)]);
    rig.function.disable_msix().unwrap();
    rig.function.read_config(0, &mut space).unwrap();
    assert_eq!(space[0x40..0x4c], [0; 12]);
    assert_eq!(rig.command(FLUSH, 0), 0);
    assert_eq!(rig.read(0x1000, Width::Byte), 1);
}
