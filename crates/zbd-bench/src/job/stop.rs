//! Ctrl-C.

use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the job shall end now. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    set: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Stop {
    /// A stop that listens from now on.
    pub(crate) fn on_interrupt() -> Self {
        let stop = Self::default();
        stop.listen();
        stop
    }

    /// Lets Ctrl-C, or being told to terminate, set it from now on. The second time ends the
    /// process, as the first does as long as nobody listens.
    pub(crate) fn listen(&self) {
        let handler = self.clone();
        // There is one handler in a process, the first. Without any, Ctrl-C ends the process at
        // once, which harms no device.
        let _ = ctrlc::set_handler(move || {
            if handler.interrupted.swap(true, Ordering::Relaxed) {
                process::exit(130);
            }
            handler.set();
        });
    }

    /// Ends the job.
    pub(crate) fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Whether the job shall end, for whatever reason.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// Whether somebody interrupted it.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
