//! Ring mechanics: notifications, interrupts, wrapping, several queues.

use crate::driver::{BASE, DATA, EVENT_IDX, FLUSH, Rig};

/// Offers `count` flushes, each in three descriptors of its own.
fn offer(rig: &mut Rig, queue: u16, count: u16) {
    for i in 0..count {
        let at = DATA + 64 * usize::from(i);
        rig.put_header(at, FLUSH, 0);
        rig.lay_out(queue, 2 * i, at, 0, &[1]);
        rig.offer(queue, 2 * i);
    }
}

fn drain(rig: &mut Rig, queue: u16) -> Vec<u32> {
    std::iter::from_fn(|| rig.take_used(queue).map(|(id, _)| id)).collect()
}

#[test]
fn a_device_that_was_not_notified_does_not_look() {
    let mut rig = Rig::ready("");
    offer(&mut rig, 0, 1);
    rig.step();
    assert!(drain(&mut rig, 0).is_empty());
    rig.kick(0);
    rig.step();
    assert_eq!(drain(&mut rig, 0), [0]);
}

#[test]
fn a_notification_with_the_wrong_index_is_not_heard() {
    let mut rig = Rig::ready("queues=2");
    offer(&mut rig, 0, 1);
    rig.doorbells[0].ring(1);
    rig.bar.write(0x3000, vfio_virtio::Width::Word, 1).unwrap();
    rig.bar.write(0x3000, vfio_virtio::Width::Long, 0).unwrap();
    rig.step();
    assert!(drain(&mut rig, 0).is_empty());
    rig.bar.write(0x3000, vfio_virtio::Width::Word, 0).unwrap();
    rig.step();
    assert_eq!(drain(&mut rig, 0), [0]);
}

#[test]
fn requests_are_used_in_order_over_many_laps_of_the_ring() {
    let mut rig = Rig::ready("queue-size=8");
    for lap in 0..20_000 {
        let count = 1 + lap % 4;
        offer(&mut rig, 0, count);
        rig.kick(0);
        rig.step();
        let expected: Vec<u32> = (0..count).map(|i| u32::from(2 * i)).collect();
        assert_eq!(drain(&mut rig, 0), expected, "lap {lap}");
    }
    assert_eq!(rig.control.counters().requests, 50_000);
}

#[test]
fn each_queue_has_its_vector() {
    let mut rig = Rig::ready("queues=3,event-idx=off");
    for queue in 0..3 {
        offer(&mut rig, queue, 1);
        rig.kick(queue);
        rig.step();
        for vector in 0..4 {
            assert_eq!(rig.interrupted(vector), vector == usize::from(queue) + 1);
        }
    }
}

#[test]
fn one_interrupt_is_sent_for_a_batch() {
    let mut rig = Rig::ready("event-idx=off");
    offer(&mut rig, 0, 32);
    rig.kick(0);
    rig.step();
    assert_eq!(drain(&mut rig, 0).len(), 32);
    assert_eq!(rig.control.counters().interrupts, 1);
    assert_eq!(rig.control.counters().batches, 1);
}

#[test]
fn flags_suppress_interrupts_where_there_are_no_event_indices() {
    let mut rig = Rig::bare("");
    rig.start(!EVENT_IDX);
    rig.set_avail_flags(0, 1);
    offer(&mut rig, 0, 1);
    rig.kick(0);
    rig.step();
    assert!(!rig.interrupted(1));
    rig.set_avail_flags(0, 0);
    offer(&mut rig, 0, 1);
    rig.kick(0);
    rig.step();
    assert!(rig.interrupted(1));
}

#[test]
fn an_event_index_asks_for_one_interrupt() {
    let mut rig = Rig::ready("");
    // Flags have no say once event indices are negotiated.
    rig.set_avail_flags(0, 1);
    let mut done = 0u16;
    for (count, event, expected) in [
        (3, 2, true),
        (2, 9, false),
        (4, 9, false),
        (1, 9, true),
        (1, 9, false),
        (5, 11, true),
    ] {
        rig.set_used_event(0, event);
        offer(&mut rig, 0, count);
        rig.kick(0);
        rig.step();
        assert_eq!(rig.interrupted(1), expected, "{done}");
        done += count;
        assert_eq!(drain(&mut rig, 0).len(), usize::from(count));
    }
}

#[test]
fn an_idle_device_asks_to_be_notified() {
    let mut rig = Rig::ready("");
    assert_eq!(rig.avail_event(0), 0);
    offer(&mut rig, 0, 3);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.avail_event(0), 3);
    let mut plain = Rig::bare("event-idx=off");
    plain.start(u64::MAX);
    offer(&mut plain, 0, 3);
    plain.kick(0);
    let mut stepper = plain.stepper.take().unwrap();
    stepper.step();
    assert_eq!(plain.used_flags(0), 1, "busy");
    stepper.step();
    assert_eq!(plain.used_flags(0), 0, "idle");
}

#[test]
fn a_busy_device_needs_no_notification() {
    let mut rig = Rig::ready("");
    offer(&mut rig, 0, 1);
    rig.kick(0);
    let mut stepper = rig.stepper.take().unwrap();
    assert_eq!(stepper.step(), zbd_emu::Step::Worked);
    offer(&mut rig, 0, 1);
    assert_eq!(stepper.step(), zbd_emu::Step::Worked);
    assert_eq!(drain(&mut rig, 0).len(), 2);
    assert_eq!(stepper.step(), zbd_emu::Step::Idle);
}

#[test]
fn a_misaligned_ring_breaks_the_device() {
    let mut rig = Rig::bare("queues=1");
    let features = rig.offered();
    assert!(rig.negotiate(features));
    rig.write(0x16, vfio_virtio::Width::Word, 0);
    for (register, address) in [
        (0x20, BASE),
        (0x28, BASE + 0x1_0001),
        (0x30, BASE + 0x2_0000),
    ] {
        rig.write(register, vfio_virtio::Width::Long, address as u32);
        rig.write(
            register + 4,
            vfio_virtio::Width::Long,
            (address >> 32) as u32,
        );
    }
    rig.write(0x1c, vfio_virtio::Width::Word, 1);
    rig.set_status(15);
    rig.bar.write(0x3000, vfio_virtio::Width::Word, 0).unwrap();
    rig.step();
    assert!(rig.control.broken().is_some());
}
