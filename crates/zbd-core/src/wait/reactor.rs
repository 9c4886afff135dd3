#![expect(unsafe_code, reason = "registers a descriptor with tokio")]
//! An event as tokio's I/O driver watches it, for threads that sleep in that.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    task::{Context, Poll, Waker},
};

use tokio::io::{Interest, unix::AsyncFd};
use vfio_virtio::EventFd;

/// An event that tokio's driver of the present runtime watches: a signal ends the driver's sleep.
pub(crate) struct Reactor(AsyncFd<Owned>);

struct Owned(EventFd);

impl AsRawFd for Owned {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Reactor {
    /// Watches a duplicate of `event`.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Outside of a runtime with an I/O driver.
    pub(crate) fn new(event: &EventFd) -> io::Result<Self> {
        let event = Owned(event.try_clone()?);
        // SAFETY: the descriptor belongs to `Owned`, which names the same one all its life, and which
        // the `AsyncFd` owns and drops after it has deregistered it. The tests of devices of one
        // thread that sleep in tokio watch this.
        let watched = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    /// Makes sure that the driver's next sleep ends with the next signal. Signals of before are
    /// forgotten. False if the runtime has ended, which watches no more.
    pub(crate) fn watch(&self) -> bool {
        // The sleep's end is what matters; there is no task to be told.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.0.poll_read_ready(&mut cx) {
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
            }
        }
    }
}
