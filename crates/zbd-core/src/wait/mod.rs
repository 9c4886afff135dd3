//! Waiting: how long a thread spins, what it sleeps on, and how it is woken.
//!
//! A queue polls. When nothing has come for as long as its [`SpinBudget`] says, its thread sleeps in
//! a [`Sleeper`], which watches the device's interrupt and the [`Alarm`] that other threads ring when
//! they have work for it.
//!
//! # The order against lost wake-ups
//!
//! Two parties can have something for the thread: other threads, who put requests into its queue,
//! and the device, which puts used buffers into the ring. Neither signals a thread that is awake. So
//! both must learn of its sleep in time, or it of what they have. The thread's order is:
//!
//! 1. It spins until the budget is spent.
//! 2. It says that it is about to sleep: [`Alarm::about_to_sleep`] for the threads,
//!    `Virtqueue::arm` for the device (enables the used-buffer notification).
//! 3. Full fence. Both calls of step 2 end with one.
//! 4. It looks once more at everything: submissions, the ring (which `arm` has looked at already),
//!    and whatever else is announced by the alarm.
//! 5. Only if there is nothing, it blocks: [`Sleeper::sleep`].
//! 6. It takes back what it said ([`Alarm::stay_awake`], `Virtqueue::disarm`) and begins anew.
//!
//! The others' order is the reverse: they publish, run a full fence ([`Alarm::ring`] begins with it;
//! a device has one of its own between the used index and reading whether it is to interrupt: VIRTIO
//! 1.3, 2.7.7.2 and 2.7.10), look whether the thread is about to sleep, and signal if so. Of two full
//! fences one comes first. If it is the thread's, the others see that it sleeps, and signal; if it is
//! the others', the thread sees in step 4 what they have published. A signal that comes between
//! steps 4 and 5, or at any time before, is kept: see [`Sleeper`]. `tests/wait_model` tries all
//! orders that the memory model allows.

mod alarm;
mod epoll;
mod method;
mod policy;
mod protocol;
mod reactor;
mod sleeper;
mod spin;
#[cfg(test)]
mod tests;
mod uring;

pub(crate) use alarm::Alarm;
pub use method::{NoIoUring, WaitMethod};
pub use policy::WaitPolicy;
pub(crate) use reactor::Reactor;
pub(crate) use sleeper::{Sleeper, Watched};
pub(crate) use spin::SpinBudget;

/// How a thread sleeps that waits by `policy`; `None` if it never does.
pub(crate) fn method(policy: WaitPolicy) -> Option<WaitMethod> {
    match policy {
        WaitPolicy::Poll => None,
        _ => Some(Sleeper::new(Vec::new()).ok()?.method()),
    }
}

/// What `protocol` is made of; its model puts loom's in this place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}
