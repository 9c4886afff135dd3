//! Waiting for a queue: on the thread that owns it, by its interrupt.

use std::{
    hint,
    os::fd::AsRawFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vfio_virtio::EventFd;

use super::{IoQueue, Queue};
use crate::{
    Error, ErrorKind, Result, WaitPolicy,
    wait::{Sleeper, SpinBudget, Watched},
};

/// How many looks that found nothing it takes for the clock to be read, and for the processor to be
/// offered to others: on a machine with fewer processors than busy threads, those may be what is
/// waited for.
pub(crate) const LOOKS_PER_PAUSE: u32 = 64;

/// How long to sleep where a device cannot interrupt: it has to be looked at again.
pub(crate) const NAP: Duration = Duration::from_micros(50);

/// After so long, whoever sleeps looks whether the device still works.
pub(crate) const CHECK_TIME: Duration = Duration::from_secs(1);

/// How an owner waits.
#[derive(Debug)]
pub(super) struct Rest {
    budget: SpinBudget,
    sleeper: Option<Sleeper>,
    looks: u32,
    /// How many requests had come back when the wait began.
    returned: u64,
    /// When the device was last asked whether it works.
    checked: Instant,
}

impl Rest {
    pub(super) fn new(policy: WaitPolicy) -> Self {
        Self {
            budget: SpinBudget::new(policy),
            sleeper: None,
            looks: 0,
            returned: 0,
            checked: Instant::now(),
        }
    }
}

/// Something to watch in place of `event`, which lives on elsewhere.
pub(crate) fn watched(event: &EventFd) -> Result<Watched> {
    let event = event
        .try_clone()
        .map_err(|e| Error::new(ErrorKind::Io, "cannot share an event").with_source(e))?;
    Ok(Box::new(event))
}

impl IoQueue {
    /// How this queue is waited for: what it was [opened with](crate::OpenOptions::wait).
    pub fn wait_policy(&self) -> WaitPolicy {
        self.info().wait
    }

    /// Asks for an interrupt at the next completion and waits for it, for an announcement of the
    /// device, or until the time of a request is up, for `timeout` at the most; returns at once if
    /// something is to be polled already. It may return early; what it means is: poll. What the
    /// device announces, or that it has gone, is noticed when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the queue has no interrupt, because it was opened with
    /// [`WaitPolicy::Poll`] or the device has none.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let Some(interrupt) = self.interrupt() else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "this queue of {} has no interrupt: poll it, or open it to be waited for (WaitPolicy)",
                    self.info().name
                ),
            ));
        };
        if self.rest.sleeper.is_none() {
            let watched = watched(interrupt)?;
            self.rest.sleeper = Some(Sleeper::new(vec![watched])?);
        }
        let timeout = self.time_left().map_or(timeout, |left| left.min(timeout));
        if !self.arm() {
            self.disarm();
            return Ok(());
        }
        let begun = Instant::now();
        let slept = match &mut self.rest.sleeper {
            Some(sleeper) => sleeper.sleep(Some(timeout)),
            None => Ok(()),
        };
        self.disarm();
        self.look_closely(begun.elapsed() >= timeout);
        slept
    }

    /// What to do after a [`poll`](Self::poll) that found nothing, with requests in flight: spins or
    /// sleeps as the queue's [policy](Self::wait_policy) says, and returns when it is time to poll
    /// again, after `most` at the latest.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), but that a device without interrupts is looked at again after short
    /// pauses.
    pub fn idle(&mut self, most: Duration) -> Result<()> {
        let returned = self.returned();
        self.rest.looks += 1;
        if self.rest.returned == returned && !self.rest.looks.is_multiple_of(LOOKS_PER_PAUSE) {
            hint::spin_loop();
            return Ok(());
        }
        let now = Instant::now();
        if self.rest.returned != returned {
            // Something was found since the last call.
            self.rest.returned = returned;
            self.rest.budget.found(now);
            self.rest.looks = 0;
        }
        self.rest.budget.begin(now);
        if !self.rest.budget.is_spent(now) {
            if self.rest.looks > 0 {
                thread::yield_now();
            }
            return Ok(());
        }
        self.rest.budget.slept();
        if self.interrupt().is_some() {
            self.wait(most)
        } else {
            thread::sleep(NAP.min(most));
            Ok(())
        }
    }

    /// What becomes readable, or is written to, at a completion that was asked for.
    pub(crate) fn interrupt(&self) -> Option<&EventFd> {
        match &self.queue {
            Queue::Virtio(queue) => queue.interrupt(),
            Queue::Kernel(queue) => Some(queue.interrupt()),
        }
    }

    /// Asks for an interrupt at the next completion. Returns true if there is nothing to be polled:
    /// only then will the interrupt come.
    pub(crate) fn arm(&mut self) -> bool {
        match &mut self.queue {
            Queue::Virtio(queue) => queue.arm(),
            Queue::Kernel(queue) => queue.arm(),
        }
    }

    /// Asks for no interrupts.
    pub(crate) fn disarm(&mut self) {
        match &mut self.queue {
            Queue::Virtio(queue) => queue.disarm(),
            Queue::Kernel(queue) => queue.disarm(),
        }
    }

    /// How long it is until the time of a request is up.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        match &self.queue {
            Queue::Virtio(queue) => queue.time_left(),
            Queue::Kernel(queue) => queue.time_left(),
        }
    }

    /// Looks at what polling looks at every so often, which who waits does too seldom; and at
    /// whether the device still works, if it `is_late` or that is long ago.
    pub(crate) fn look_closely(&mut self, is_late: bool) {
        let is_late = is_late || self.rest.checked.elapsed() >= CHECK_TIME;
        if is_late {
            self.rest.checked = Instant::now();
        }
        match &mut self.queue {
            Queue::Virtio(queue) => queue.look_closely(is_late),
            Queue::Kernel(queue) => queue.look_closely(is_late),
        }
    }

    /// How many requests the device has returned.
    pub(crate) fn returned(&self) -> u64 {
        match &self.queue {
            Queue::Virtio(queue) => queue.returned(),
            Queue::Kernel(queue) => queue.returned(),
        }
    }

    /// What to watch for a sleep that ends with the queue's interrupt or with one of `more`.
    pub(crate) fn sleeper<W: AsRawFd + Send + Sync + 'static>(
        &self,
        more: &Arc<W>,
    ) -> Result<Sleeper> {
        let mut all: Vec<Watched> = vec![Box::new(Shared(Arc::clone(more)))];
        if let Some(interrupt) = self.interrupt() {
            all.push(watched(interrupt)?);
        }
        Sleeper::new(all)
    }
}

/// Something to watch that others have, too.
struct Shared<W>(Arc<W>);

impl<W: AsRawFd> AsRawFd for Shared<W> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}
