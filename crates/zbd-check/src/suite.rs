//! The suite: one device, one requirement after the other.

use std::{sync::Arc, time::Duration};

use vfio_virtio::{Features, PciFunction, Result};

use crate::{Device, Evidence, Outcome, Requirement, outcome::Finding, subject::Subject};

/// How many of the last exchanges are kept as evidence.
const TOLD: usize = 6;

/// How a device is tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long an answer may take. A device that takes longer is reset.
    pub patience: Duration,
    /// The ring features that are accepted where the device offers them.
    pub rings: Features,
    /// How much is written to bring a zone to its end; where more would be needed, what that would
    /// show stays open.
    pub most_written_bytes: u64,
}

impl Default for Options {
    /// 10 seconds, all that this crate knows, and 512 MiB.
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            rings: Features::INDIRECT_DESC
                | Features::EVENT_IDX
                | Features::RING_PACKED
                | Features::IN_ORDER
                | Features::NOTIFICATION_DATA
                | Features::NOTIF_CONFIG_DATA
                | Features::ORDER_PLATFORM,
            most_written_bytes: 512 << 20,
        }
    }
}

/// A device whose conformance is looked at. What is on it may be lost.
pub struct Suite {
    subject: Subject,
}

impl Suite {
    /// Sets the device up and asks it what it is.
    ///
    /// # Errors
    /// When that cannot be done: nothing is decided then. The kinds are those of
    /// [`Negotiation`](vfio_virtio::Negotiation).
    pub fn open(function: Arc<dyn PciFunction>, options: Options) -> Result<Self> {
        Ok(Self {
            subject: Subject::open(function, options)?,
        })
    }

    /// What the device says of itself.
    pub fn device(&self) -> &Device {
        &self.subject.device
    }

    /// Looks whether the device meets a requirement. Whatever comes of one, the next can follow.
    pub fn check(&mut self, requirement: &Requirement) -> Outcome {
        self.subject.begin();
        let verdict = (requirement.check)(&mut self.subject);
        let mut exchanges = self.subject.take_trail();
        exchanges.drain(..exchanges.len().saturating_sub(TOLD));
        match verdict {
            Ok(()) => Outcome::Pass,
            Err(Finding::Fail { required, found }) => Outcome::Fail(Evidence {
                required,
                found,
                exchanges,
            }),
            Err(Finding::NotApplicable(why)) => Outcome::NotApplicable(why),
            Err(Finding::Undecidable(why)) => Outcome::Undecidable(why, exchanges),
        }
    }
}

impl Drop for Suite {
    /// Empties the zones that were used, and leaves the device reset.
    fn drop(&mut self) {
        self.subject.clean();
    }
}
