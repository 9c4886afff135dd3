//! What other threads ring to wake one that sleeps.

use std::os::fd::{AsRawFd, RawFd};

use vfio_virtio::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::protocol::Announcement;
use crate::{Error, ErrorKind, Result};

/// Wakes one thread, its owner, which watches it in a [`Sleeper`](super::Sleeper).
///
/// The owner's side, where `look` looks at everything that is published before a ring:
///
/// ```text
/// alarm.about_to_sleep();
/// if look().is_none() {
///     sleeper.sleep(timeout)?;
/// }
/// alarm.stay_awake();
/// ```
pub(crate) struct Alarm {
    announcement: Announcement,
    event: EventFd,
}

impl Alarm {
    /// # Errors
    /// If the process can have no more descriptors.
    pub(crate) fn new() -> Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(|e| {
            Error::new(ErrorKind::Io, "cannot create a thread's alarm").with_source(e)
        })?;
        Ok(Self {
            announcement: Announcement::new(),
            event,
        })
    }

    /// Wakes the owner if it sleeps or is about to. What it is to find must have been published
    /// before. While it is awake, this is a fence and a load.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.announcement.must_wake() {
            self.signal();
        }
    }

    #[cold]
    fn signal(&self) {
        // It fails only where the counter is full, and a full counter has woken the owner.
        drop(self.event.write(1));
    }

    #[cfg(test)]
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// The owner's side: announces its sleep. The owner must look at everything once more, since
    /// nobody rings for what was published before.
    pub(crate) fn about_to_sleep(&self) {
        self.announcement.announce();
    }

    /// The owner's side: it is awake, and ringing can be spared.
    pub(crate) fn stay_awake(&self) {
        self.announcement.withdraw();
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
