//! Waiting between polls for one request whose time counts.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use zbd_core::{Backend, Error, ErrorKind};

use crate::job::stop::Stop;

/// After so many polls others may run.
const POLLS_ALONE: u32 = 20_000;
/// The same where one of these may be what is waited for, on the same processor.
const POLLS_ALONE_WITH_DEVICE: u32 = 200;
/// After so many the clock is looked at.
const POLLS_PER_LOOK: u32 = 4096;
/// For how long a device may return nothing.
const STALLED: Duration = Duration::from_secs(60);
/// The same once somebody has interrupted.
const STALLED_AFTER_INTERRUPT: Duration = Duration::from_secs(2);

/// The shortest pauses that leave the processor's other thread something, and all the same
/// length: the bursts of `job::spin::Spin` would be part of short latencies.
#[derive(Debug)]
pub(super) struct Pause {
    polls: u32,
    alone: u32,
    since: Option<Instant>,
}

impl Pause {
    /// For a device of this kind: some are driven by threads of this process.
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            polls: 0,
            alone: match backend {
                Backend::Emulated | Backend::Kernel => POLLS_ALONE_WITH_DEVICE,
                _ => POLLS_ALONE,
            },
            since: None,
        }
    }

    /// Pauses once more.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the device has returned nothing for too long.
    #[inline]
    pub(super) fn once(&mut self, stop: &Stop) -> Result<(), Error> {
        hint::spin_loop();
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_LOOK) {
            self.look(stop)?;
        }
        if self.polls > self.alone {
            thread::yield_now();
        }
        Ok(())
    }

    /// Something has come back.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.polls = 0;
        self.since = None;
    }

    #[cold]
    fn look(&mut self, stop: &Stop) -> Result<(), Error> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let patience = if stop.is_interrupted() {
            STALLED_AFTER_INTERRUPT
        } else {
            STALLED
        };
        if waited < patience {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the device has returned nothing for {patience:?}"),
        ))
    }
}
