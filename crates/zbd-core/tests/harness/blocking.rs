//! Ways to run a future without a runtime.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// No task waits for as long, however busy the machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// More often than anything here is woken.
const MOST_POLLS: u32 = 100_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: one future, one thread. Fails if nobody wakes it for long, or it goes round
/// without end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    for _ in 0..MOST_POLLS {
        let begun = Instant::now();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park_timeout(LONGEST_SILENCE),
        }
        assert!(begun.elapsed() < LONGEST_SILENCE, "it hangs");
    }
    panic!("it never ends");
}

/// Polls once, with nobody to wake.
pub(crate) fn poll_once<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Option<T> {
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
