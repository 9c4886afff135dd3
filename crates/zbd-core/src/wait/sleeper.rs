//! Sleeping until one of several descriptors is signalled.

use std::{fmt, io, os::fd::AsRawFd, time::Duration};

use super::{
    WaitMethod,
    epoll::EdgeEpoll,
    method::NoIoUring,
    uring::{self, PollRing},
};
use crate::{Error, ErrorKind, Result};

/// A descriptor to watch, which stays open for as long as it is watched: an event, a clone of one,
/// another io_uring, or an `Arc` of what has one.
pub(crate) type Watched = Box<dyn AsRawFd + Send>;

/// No sleep is longer: the kernel adds a timeout to its clock, and the greatest would overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a thread sleeps until one of the descriptors that it watches is signalled.
///
/// Signals are edges: each one, be it before or during a sleep, ends one sleep, and a descriptor that
/// stays readable ends no second. So events need not be read, and never are: a sleep is one system
/// call. Who sleeps must look at what stands behind the descriptors after each sleep, and between
/// announcing the next and going to it.
///
/// It can be made on any thread, and then belongs to the one that sleeps first: on another, io_uring
/// refuses, and epoll serves from then on.
pub(crate) struct Sleeper {
    // Before what it watches, so that it is dropped first.
    engine: Engine,
    watched: Vec<Watched>,
}

enum Engine {
    Ring(Box<PollRing>),
    Epoll(EdgeEpoll, NoIoUring),
}

/// What to sleep with; tests try all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// io_uring as this kernel has it best, or epoll.
    Best,
    /// io_uring as kernels before 6.1 have it, with room for so many completions.
    #[cfg(test)]
    PlainRing { completions: u32 },
    /// epoll, as where io_uring is missing for this reason.
    #[cfg(test)]
    Epoll(NoIoUring),
}

impl Sleeper {
    /// # Errors
    /// If the system can watch the descriptors in no way.
    pub(crate) fn new(watched: Vec<Watched>) -> Result<Self> {
        Self::with_method(watched, Wish::Best)
    }

    pub(crate) fn with_method(watched: Vec<Watched>, wish: Wish) -> Result<Self> {
        let len = watched.len();
        let ring = match wish {
            Wish::Best => PollRing::new(len, uring::Setup::Best),
            #[cfg(test)]
            Wish::PlainRing { completions } => {
                PollRing::new(len, uring::Setup::Plain { completions })
            }
            #[cfg(test)]
            Wish::Epoll(why) => Err(why),
        };
        let engine = match ring {
            Ok(ring) => Engine::Ring(Box::new(ring)),
            Err(why) => Engine::Epoll(EdgeEpoll::new(&watched).map_err(failed)?, why),
        };
        Ok(Self { engine, watched })
    }

    /// How it sleeps.
    pub(crate) fn method(&self) -> WaitMethod {
        match &self.engine {
            Engine::Ring(_) => WaitMethod::IoUring,
            Engine::Epoll(_, why) => WaitMethod::Epoll(*why),
        }
    }

    /// Sleeps until a descriptor has been signalled since the last sleep, or until `timeout` has
    /// passed. May return early. Never sleeps through a signal of before or meanwhile.
    ///
    /// # Errors
    /// If the system does not let it sleep at all. Sleeping again would fail again.
    pub(crate) fn sleep(&mut self, timeout: Option<Duration>) -> Result<()> {
        let timeout = timeout.unwrap_or(LONGEST).min(LONGEST);
        let slept = match &mut self.engine {
            Engine::Ring(ring) => match ring.sleep(&self.watched, timeout) {
                Ok(()) => Ok(()),
                Err(error) => self.fall_back(&error),
            },
            Engine::Epoll(epoll, _) => epoll.sleep(timeout),
        };
        slept.map_err(failed)
    }

    /// Goes on with epoll after io_uring has failed. Does not sleep: what the ring has taken notice of
    /// and not said would be lost.
    #[cold]
    fn fall_back(&mut self, error: &io::Error) -> io::Result<()> {
        let why = NoIoUring::from(error);
        tracing::warn!(%error, "io_uring fails to wait; epoll takes its place");
        self.engine = Engine::Epoll(EdgeEpoll::new(&self.watched)?, why);
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        "cannot sleep until there is something to do; poll instead (WaitPolicy::Poll)",
    )
    .with_source(error)
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper")
            .field("method", &self.method())
            .field("watched", &self.watched.len())
            .finish_non_exhaustive()
    }
}
