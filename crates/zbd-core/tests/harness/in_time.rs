//! Limits for tests that could hang.

use std::{sync::mpsc, thread, time::Duration};

/// Longer than anything here takes, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `what` in a thread and fails if it does not end: a test that hangs says nothing.
pub(crate) fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    within(PATIENCE, what)
}

/// As [`in_time`], for what takes longer where the machine is busy.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Nobody listens any more if it comes too late.
        let _ = done.send(what());
    });
    match end.recv_timeout(limit) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}
