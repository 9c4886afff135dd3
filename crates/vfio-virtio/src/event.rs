//! Waiting for events that are file descriptors.

use std::{io, os::fd::RawFd, time::Duration};

use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EFD_NONBLOCK,
};

use crate::{Error, ErrorKind, EventFd, Result};

/// A new event that can be read without waiting.
pub(crate) fn new() -> Result<EventFd> {
    EventFd::new(EFD_NONBLOCK)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot create an event").with_source(e))
}

/// A set of events to wait for.
pub(crate) fn set(events: impl IntoIterator<Item = RawFd>) -> io::Result<Epoll> {
    let set = Epoll::new()?;
    for event in events {
        let wanted = EpollEvent::new(EventSet::IN, 0);
        set.ctl(ControlOperation::Add, event, wanted)?;
    }
    Ok(set)
}

/// Waits until one of the events has been signalled, or for `timeout` if there is one. May return
/// early.
pub(crate) fn wait_for(set: &Epoll, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = match timeout {
        None => -1,
        Some(limit) => i32::try_from(limit.as_millis()).unwrap_or(i32::MAX),
    };
    match set.wait(timeout, &mut [EpollEvent::default(); 8]) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Waits for one event, for `timeout` at the most. May return early.
pub(crate) fn wait(event: RawFd, timeout: Duration) -> Result<()> {
    set([event])
        .and_then(|set| wait_for(&set, Some(timeout)))
        .map_err(|e| Error::new(ErrorKind::Io, "cannot wait for an interrupt").with_source(e))
}
