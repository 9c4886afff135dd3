//! What a notification says: the queue, by index or by its register, and how far the driver is.

use std::sync::Arc;

use vfio_virtio::Width;

use crate::driver::{DATA, FLUSH, NOTIF_CONFIG_DATA, NOTIFICATION_DATA, Rig, Shape, WRITE};

fn offer(rig: &mut Rig) {
    rig.put_header(DATA, FLUSH, 0);
    rig.submit(0, &[(DATA, 16, 0), (DATA + 16, 1, WRITE)], Shape::Direct);
}

/// Whether a request that was just offered is served once `ring` has been done.
fn is_heard(rig: &mut Rig, ring: impl FnOnce(&Rig)) -> bool {
    offer(rig);
    ring(rig);
    rig.step();
    if rig.take_used(0).is_some() {
        return true;
    }
    rig.kick(0);
    rig.step();
    assert!(rig.take_used(0).is_some());
    false
}

fn bell(rig: &Rig, width: Width, value: u32) {
    let doorbell = Arc::clone(&rig.bar).doorbell(0x3000, width).unwrap();
    doorbell.ring(value);
}

#[test]
fn notifications_with_data_are_offered_when_asked_for() {
    let both = NOTIFICATION_DATA | NOTIF_CONFIG_DATA | 1 << 36;
    assert_eq!(Rig::bare("").offered() & both, 0);
    let options = "notification-data=on,notif-config-data=on,order-platform=on";
    assert_eq!(Rig::bare(options).offered() & both, both);
}

#[test]
fn notifications_are_heard_in_the_width_that_was_negotiated() {
    for ring in ["split", "packed"] {
        let mut rig = Rig::ready(&format!("ring={ring}"));
        assert!(is_heard(&mut rig, |rig| bell(rig, Width::Word, 0)));
        assert!(!is_heard(&mut rig, |rig| bell(rig, Width::Long, 0)));
        // A register of 16 bits holds no more.
        assert!(is_heard(&mut rig, |rig| bell(rig, Width::Word, 0x7_0000)));
        assert_eq!(rig.control.last_notification(0), 0);

        let mut rig = Rig::ready(&format!("ring={ring},notification-data=on"));
        assert!(!is_heard(&mut rig, |rig| bell(rig, Width::Word, 0)));
        assert!(is_heard(&mut rig, |rig| bell(
            rig,
            Width::Long,
            rig.notification(0)
        )));
        assert!(!is_heard(&mut rig, |rig| {
            bell(rig, Width::Long, rig.notification(0) | 1);
        }));
        assert!(is_heard(&mut rig, |rig| {
            let value = rig.notification(0);
            rig.bar.write(0x3000, Width::Long, value).unwrap();
        }));
        // Another driver that does without.
        rig.start(!NOTIFICATION_DATA);
        assert!(is_heard(&mut rig, |rig| bell(rig, Width::Word, 0)));
    }
}

#[test]
fn a_queue_goes_by_what_its_register_says() {
    for options in ["notif-config-data=on", "notif-config-data=on,queues=5"] {
        let mut rig = Rig::ready(options);
        for queue in 0..rig.queues.len() as u32 {
            rig.write(0x16, Width::Word, queue);
            assert_eq!(rig.read(0x38, Width::Word), 0x40 + queue);
        }
        rig.write(0x16, Width::Word, 63);
        assert_eq!(rig.read(0x38, Width::Word), 0);
        assert!(!is_heard(&mut rig, |rig| bell(rig, Width::Word, 0)));
        assert!(!is_heard(&mut rig, |rig| bell(rig, Width::Word, 0x41)));
        assert!(is_heard(&mut rig, |rig| bell(rig, Width::Word, 0x40)));
        assert_eq!(rig.control.last_notification(0), 0x40);
        rig.start(!NOTIF_CONFIG_DATA);
        assert_eq!(rig.read(0x38, Width::Word), 0);
        assert!(is_heard(&mut rig, |rig| bell(rig, Width::Word, 0)));
    }
}

#[test]
fn the_last_notification_can_be_looked_at() {
    let options = "ring=packed,queue-size=6,notification-data=on,notif-config-data=on";
    let mut rig = Rig::ready(options);
    assert_eq!(rig.control.last_notification(0), 0);
    for (place, wrap) in [(2, 1), (4, 1), (0, 0), (2, 0), (4, 0), (0, 1)] {
        assert!(is_heard(&mut rig, |rig| rig.kick(0)));
        let expected = 0x40 | place << 16 | wrap << 31;
        assert_eq!(rig.control.last_notification(0), expected);
    }
    assert_eq!(rig.control.last_notification(1), 0);
    assert_eq!(rig.control.last_notification(64), 0);
    let mut rig = Rig::ready("notification-data=on,notif-config-data=on");
    assert!(is_heard(&mut rig, |rig| rig.kick(0)));
    assert_eq!(rig.control.last_notification(0), 0x1_0040);
}

#[test]
fn a_notification_that_cannot_be_true_breaks_the_device() {
    let mut rig = Rig::ready("notification-data=on");
    offer(&mut rig);
    bell(&rig, Width::Long, 2 << 16);
    rig.step();
    let reason = "a notification ahead of the available index";
    assert_eq!(rig.control.broken(), Some(reason));
    let mut rig = Rig::ready("notification-data=on,ring=packed,queue-size=100");
    offer(&mut rig);
    bell(&rig, Width::Long, 100 << 16);
    rig.step();
    let reason = "a notification of a place beyond the queue";
    assert_eq!(rig.control.broken(), Some(reason));
}

#[test]
fn an_older_notification_is_true_as_well() {
    let mut rig = Rig::ready("notification-data=on");
    for _ in 0..40 {
        offer(&mut rig);
    }
    bell(&rig, Width::Long, 1 << 16);
    rig.step();
    assert_eq!(rig.control.broken(), None);
    assert_eq!(rig.used_index(0), 40);
}

#[test]
fn what_was_said_before_a_reset_counts_no_longer() {
    let mut rig = Rig::ready("notification-data=on");
    for _ in 0..10 {
        offer(&mut rig);
    }
    // Not looked at before the queue is taken back.
    rig.kick(0);
    rig.write(0x16, Width::Word, 0);
    rig.write(0x3a, Width::Word, 1);
    assert_eq!(rig.control.last_notification(0), 0);
    rig.enable(0);
    offer(&mut rig);
    rig.step();
    assert_eq!(rig.control.broken(), None);
    rig.kick(0);
    rig.step();
    assert!(rig.take_used(0).is_some());
    rig.start(u64::MAX);
    assert_eq!(rig.control.last_notification(0), 0);
    rig.step();
    assert_eq!(rig.control.broken(), None);
}
