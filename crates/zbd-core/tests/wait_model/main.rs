//! Going to sleep and being woken, in all orders that the memory model allows (loom).
//!
//! The flag between threads is the library's own file. What a driver and a device do to each other
//! is modelled after `Virtqueue::arm` and VIRTIO 1.3, 2.7.7.2 and 2.7.10.
//!
//! A lost wake-up is a deadlock here: whoever sleeps, sleeps without a timeout.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod device;
mod event;
#[path = "../../src/wait/protocol.rs"]
mod protocol;
mod threads;

/// What the included file is made of.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

/// Tries all orders with at most `preemptions` switches between threads that could have gone on.
fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}
