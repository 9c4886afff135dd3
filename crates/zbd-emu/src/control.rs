//! A second pair of hands on the device, for tests: what a driver could never do to it.

use std::{fmt, sync::Arc};

use vfio_virtio::{Error, ErrorKind, Result};

use crate::{Fault, ZoneState, shared::Shared};

/// Acts on a device from behind, while a driver uses it.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

/// What the device has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken from queues.
    pub requests: u64,
    /// Looks at a queue that found some.
    pub batches: u64,
    /// Notifications that the driver sent.
    pub notifications: u64,
    /// Interrupts that the device sent.
    pub interrupts: u64,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes the device commit `fault` at the next occasion. Several wait for their turn.
    pub fn inject(&self, fault: Fault) {
        self.shared.access().faults.inject(fault);
    }

    /// Makes a zone fail: [`ZoneState::ReadOnly`] or [`ZoneState::Offline`].
    ///
    /// # Errors
    /// When there is no such sequential zone, the state is none of these, or the zone is offline
    /// already.
    pub fn fail_zone(&self, zone: usize, state: ZoneState) -> Result<()> {
        if self.shared.access().disk.zones.fail(zone, state) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("zone {zone} cannot become {state:?}"),
        ))
    }

    /// The state of a zone, if there is such a zone.
    pub fn zone_state(&self, zone: usize) -> Option<ZoneState> {
        let device = self.shared.access();
        Some(device.disk.zones.zones().get(zone)?.state)
    }

    /// Pulls the device out: its registers read as all ones, and it does nothing any more.
    pub fn unplug(&self) {
        self.shared.access().remove();
    }

    /// Why the device asks for a reset, if it does.
    pub fn broken(&self) -> Option<&'static str> {
        self.shared.access().broken
    }

    /// What the device has done so far.
    pub fn counters(&self) -> Counters {
        let device = self.shared.access();
        Counters {
            requests: device.requests,
            batches: device.batches,
            notifications: self.shared.bell.total_kicks(),
            interrupts: device.interrupts.sent(),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
