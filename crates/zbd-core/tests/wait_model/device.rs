//! A device that returns buffers to a driver that sleeps.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering, fence},
    },
    thread,
};

use crate::{event::Event, model, protocol::Announcement};

/// What both see of a split ring with EVENT_IDX, and the interrupt.
struct Ring {
    used_index: AtomicU16,
    used_event: AtomicU16,
    interrupt: Event,
}

impl Ring {
    fn new() -> Self {
        Self {
            used_index: AtomicU16::new(0),
            // Asks for none.
            used_event: AtomicU16::new(u16::MAX),
            interrupt: Event::new(),
        }
    }

    /// The device: returns one more buffer and interrupts if the driver has asked for it.
    fn use_one(&self, event: &Event) {
        let old = self.used_index.load(Ordering::Relaxed);
        self.used_index.store(old + 1, Ordering::Release);
        // The index must be visible before the wish is read (2.7.7.2); the driver's mirror image is
        // in `arm`.
        fence(Ordering::SeqCst);
        if self.used_event.load(Ordering::Relaxed) == old {
            event.signal();
        }
    }

    /// The driver: as `Virtqueue::arm`.
    fn arm(&self, popped: u16) -> bool {
        self.used_event.store(popped, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.used_index.load(Ordering::Acquire) == popped
    }

    fn disarm(&self, popped: u16) {
        self.used_event
            .store(popped.wrapping_sub(1), Ordering::Relaxed);
    }
}

#[test]
fn no_used_buffer_is_left_with_the_driver_asleep() {
    model(4, || {
        let ring = Arc::new(Ring::new());
        let device = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (0..2).for_each(|_| ring.use_one(&ring.interrupt)))
        };
        let mut popped = 0;
        while popped < 2 {
            if ring.arm(popped) {
                ring.interrupt.sleep();
            }
            ring.disarm(popped);
            popped = ring.used_index.load(Ordering::Acquire);
        }
        device.join().unwrap();
    });
}

/// A lane's thread sleeps on both, as `Sleeper` watches both: one event stands for either here.
#[test]
fn neither_a_used_buffer_nor_an_item_is_left_with_the_lane_asleep() {
    model(2, || {
        let ring = Arc::new(Ring::new());
        let lane = Arc::new((Announcement::new(), AtomicUsize::new(0)));
        let device = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.use_one(&ring.interrupt))
        };
        let producer = {
            let (ring, lane) = (Arc::clone(&ring), Arc::clone(&lane));
            thread::spawn(move || {
                lane.1.store(1, Ordering::Relaxed);
                if lane.0.must_wake() {
                    ring.interrupt.signal();
                }
            })
        };
        let (mut popped, mut items) = (0, 0);
        while popped < 1 || items < 1 {
            lane.0.announce();
            if ring.arm(popped) && lane.1.load(Ordering::Relaxed) == items {
                ring.interrupt.sleep();
            }
            ring.disarm(popped);
            lane.0.withdraw();
            popped = ring.used_index.load(Ordering::Acquire);
            items = lane.1.load(Ordering::Relaxed);
        }
        device.join().unwrap();
        producer.join().unwrap();
    });
}
