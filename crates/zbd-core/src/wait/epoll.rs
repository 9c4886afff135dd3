//! Sleeping with epoll, where there is no io_uring.

use std::{io, time::Duration};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::sleeper::Watched;

/// Descriptors that are watched for edges: each write to an event is reported once, whether or not
/// the event is read. What is readable when it is added counts as signalled.
pub(super) struct EdgeEpoll(Epoll);

impl EdgeEpoll {
    pub(super) fn new(watched: &[Watched]) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for descriptor in watched {
            let wanted = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            epoll.ctl(ControlOperation::Add, descriptor.as_raw_fd(), wanted)?;
        }
        Ok(Self(epoll))
    }

    pub(super) fn sleep(&self, timeout: Duration) -> io::Result<()> {
        // Rounded up: a shorter sleep would be followed by many of no length until the time has come.
        let millis = timeout.as_micros().div_ceil(1_000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        match self.0.wait(millis, &mut [EpollEvent::default(); 8]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
