//! The thread of a device.

use std::{
    hint, mem,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vfio_virtio::{Error, ErrorKind, Result};

use crate::{device::Look, shared::Shared};

/// How long the device goes on looking before it asks for a notification and sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Up to this many pauses between two looks; from then on the processor is offered to others.
const MOST_PAUSES: u32 = 64;
/// Sleeping is measured in milliseconds; what is due sooner is waited for awake.
const SHORTEST_SLEEP: Duration = Duration::from_millis(2);

/// Starts the thread of the device `name`.
pub(crate) fn start(name: &str, shared: Arc<Shared>) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("zbd-{name}"))
        .spawn(move || run(&shared))
        .map_err(|e| Error::new(ErrorKind::Io, "cannot start the emulated device").with_source(e))
}

fn run(shared: &Shared) {
    let mut device = shared.run();
    let mut spin = Spin::new();
    while !shared.stop.load(Ordering::Relaxed) {
        if shared.is_wanted() {
            drop(device);
            while shared.is_wanted() {
                thread::yield_now();
            }
            device = shared.run();
        }
        if !device.poll(&shared.bell, Look::Everywhere).is_none() {
            spin = Spin::new();
            continue;
        }
        let due = device.due_in();
        if due.is_some_and(|due| due < SHORTEST_SLEEP) || spin.again() {
            continue;
        }
        shared.bell.prepare_to_sleep();
        let idle = device.arm(&shared.bell);
        if !idle || shared.is_wanted() || shared.stop.load(Ordering::SeqCst) {
            shared.bell.stay_awake();
            continue;
        }
        drop(device);
        shared.bell.sleep(due);
        device = shared.run();
        spin = Spin::new();
    }
}

/// Looking again, at growing distances, for a limited time.
struct Spin {
    pauses: u32,
    since: Option<Instant>,
}

impl Spin {
    fn new() -> Self {
        Self {
            pauses: 1,
            since: None,
        }
    }

    /// Waits a little. False when the time is up.
    fn again(&mut self) -> bool {
        if self.pauses < MOST_PAUSES {
            for _ in 0..self.pauses {
                hint::spin_loop();
            }
            self.pauses *= 2;
            return true;
        }
        thread::yield_now();
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let more = now - since < SPIN;
        if !more {
            *self = Self::new();
        }
        more
    }
}

/// Stops the thread and waits for its end.
pub(crate) fn stop(shared: &Shared, thread: &mut Option<JoinHandle<()>>) {
    shared.stop.store(true, Ordering::SeqCst);
    shared.bell.wake();
    if let Some(thread) = mem::take(thread) {
        // It ends with an error only if it panicked, which has been reported then.
        drop(thread.join());
    }
}
