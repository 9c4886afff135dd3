//! Ways to run a future without a runtime.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// No task waits for as long, however busy the machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// More often than anything here is woken.
const MOST_POLLS: u32 = 100_000;

struct Unpark {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

thread_local! {
    static HERE: Arc<Unpark> = Arc::new(Unpark {
        thread: thread::current(),
        is_woken: AtomicBool::new(false),
    });
}

/// The smallest executor: one future, one thread, whose own devices it drives. Fails if nobody wakes it for long, or it goes round
/// without end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let unpark = HERE.with(Arc::clone);
    let waker = here();
    let mut future = pin!(future);
    for _ in 0..MOST_POLLS {
        let begun = Instant::now();
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => {}
        }
        if !unpark.is_woken.load(Ordering::SeqCst) {
            zbd_core::on_thread_park();
        }
        if !unpark.is_woken.swap(false, Ordering::SeqCst) {
            thread::park_timeout(LONGEST_SILENCE);
        }
        unpark.is_woken.store(false, Ordering::SeqCst);
        assert!(begun.elapsed() < LONGEST_SILENCE, "it hangs");
    }
    panic!("it never ends");
}

/// What wakes the [`block_on`] of this thread.
pub(crate) fn here() -> Waker {
    Waker::from(HERE.with(Arc::clone))
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
