//! Threads that have work for one that sleeps.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{event::Event, model, protocol::Announcement};

struct Lane {
    /// How many items each producer has published. Relaxed, so that only the fences order them: a
    /// queue may be stronger, but the protocol does not count on it.
    items: Vec<AtomicUsize>,
    announcement: Announcement,
    event: Event,
}

impl Lane {
    fn new(producers: usize) -> Arc<Self> {
        Arc::new(Self {
            items: (0..producers).map(|_| AtomicUsize::new(0)).collect(),
            announcement: Announcement::new(),
            event: Event::new(),
        })
    }

    fn publish(&self, producer: usize, count: usize) {
        for item in 1..=count {
            self.items[producer].store(item, Ordering::Relaxed);
            if self.announcement.must_wake() {
                self.event.signal();
            }
        }
    }

    fn look(&self) -> usize {
        let items = self.items.iter();
        items.map(|items| items.load(Ordering::Relaxed)).sum()
    }

    /// The owner's turns until it has found `all` items.
    fn consume(&self, all: usize) {
        let mut found = self.look();
        while found < all {
            self.announcement.announce();
            if self.look() == found {
                self.event.sleep();
            }
            self.announcement.withdraw();
            found = self.look();
        }
        assert_eq!(found, all);
    }
}

/// Each of `producers` threads publishes `items` for the owner.
fn run(producers: usize, items: usize) {
    let lane = Lane::new(producers);
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let lane = Arc::clone(&lane);
            thread::spawn(move || lane.publish(producer, items))
        })
        .collect();
    lane.consume(producers * items);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn no_item_of_one_producer_is_left_with_the_owner_asleep() {
    model(4, || run(1, 2));
}

#[test]
fn no_item_is_left_where_another_producer_has_taken_the_wake_up_upon_itself() {
    model(2, || run(2, 1));
}
