//! Who wakes whom: the flag between a thread that is about to sleep and those who have work for it.
//!
//! Written against `super::sync`, so that `tests/wait_model` can include this very file and try
//! it in all orders.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a thread is about to sleep, or sleeps, and has not been woken yet.
pub(crate) struct Announcement {
    is_asleep: AtomicBool,
}

impl Announcement {
    pub(crate) fn new() -> Self {
        Self {
            is_asleep: AtomicBool::new(false),
        }
    }

    /// The thread's side: says that it is about to sleep. It must then look at everything anew, and
    /// sleep only if there is nothing.
    pub(crate) fn announce(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        // Orders the flag before what the thread looks at next; its counterpart is the fence in
        // `must_wake`.
        fence(Ordering::SeqCst);
    }

    /// The thread's side: it is awake and needs no waking. What was published meanwhile it finds
    /// when it looks after its next announcement.
    pub(crate) fn withdraw(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// The others' side, after they have published something: whether it is theirs to wake the
    /// thread. One of those who find it asleep at a time is told so.
    #[inline]
    pub(crate) fn must_wake(&self) -> bool {
        // Orders what was published before the flag; its counterpart is the fence in `announce`.
        // Whoever reads `false` here because another has taken the wake-up upon himself need not see
        // to it that the woken thread finds his work at once: it announces its next sleep before it
        // sleeps again, and finds it then.
        fence(Ordering::SeqCst);
        // The load alone, which needs no ownership of the cache line, is what a busy thread costs.
        // An exchange that fails stores nothing, as a swap would, so that only the owner's stores and
        // wake-ups that are carried out change the flag.
        let order = Ordering::Relaxed;
        let flag = &self.is_asleep;
        flag.load(order) && flag.compare_exchange(true, false, order, order).is_ok()
    }
}
