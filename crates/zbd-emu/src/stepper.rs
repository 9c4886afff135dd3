//! Runs a device step by step.

use std::{fmt, sync::Arc, thread};

use crate::{device::Look, shared::Shared};

/// Runs a device that has no thread of its own, in the thread of the caller.
///
/// Doorbells only leave a mark; the device does what it does when it is stepped. It looks at a
/// queue if it was notified of it, or has not asked to be notified: a driver that forgets a
/// notification is not served, as it would not be by a device that sleeps.
///
/// The same calls in the same order lead to the same memory, as long as no latency is configured.
pub struct Stepper {
    shared: Arc<Shared>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The device took or completed requests; there may be more to do.
    Worked,
    /// Nothing could be done yet, but requests wait for their latency to pass.
    Waiting,
    /// There was nothing to do, and the driver has been asked for a notification of what comes.
    Idle,
}

impl Stepper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes and completes at most one batch of each queue.
    pub fn step(&mut self) -> Step {
        let mut device = self.shared.run();
        if !device
            .poll(&self.shared.bell, Look::WhereNotified)
            .is_none()
        {
            return Step::Worked;
        }
        if !device.arm(&self.shared.bell) {
            return Step::Worked;
        }
        match device.due_in() {
            Some(_) => Step::Waiting,
            None => Step::Idle,
        }
    }

    /// Steps until there is nothing to do any more, waiting for latencies to pass. The number of
    /// steps that did something.
    pub fn run_until_idle(&mut self) -> u64 {
        let mut steps = 0;
        loop {
            match self.step() {
                Step::Worked => steps += 1,
                Step::Waiting => thread::yield_now(),
                Step::Idle => return steps,
            }
        }
    }
}

impl fmt::Debug for Stepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper").finish_non_exhaustive()
    }
}
