//! An event as the kernel has it: a signal is kept until a sleep ends by it.

use loom::sync::{Condvar, Mutex};

pub(crate) struct Event {
    is_signalled: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    pub(crate) fn new() -> Self {
        Self {
            is_signalled: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn signal(&self) {
        *self.is_signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }

    pub(crate) fn sleep(&self) {
        let mut is_signalled = self.is_signalled.lock().unwrap();
        while !*is_signalled {
            is_signalled = self.changed.wait(is_signalled).unwrap();
        }
        *is_signalled = false;
    }
}
