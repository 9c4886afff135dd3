//! A second pair of hands on the device, for tests: what a driver could never do to it.

use std::{fmt, sync::Arc, time::Duration};

use vfio_virtio::{Error, ErrorKind, EventFd, Result};

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
    /// When there is no such sequential zone, the state is none of these, the zone is offline
    /// already, or the device is in a file that cannot be written. A file is flushed: zones do not
    /// recover with the power.
    pub fn fail_zone(&self, zone: usize, state: ZoneState) -> Result<()> {
        if self.shared.access().disk.fail_zone(zone, state)? {
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

    /// Makes the device take requests and complete none, as where a back end stalls. What requests
    /// do is done when they are taken; a reset of the device drops those that were held back.
    pub fn hold(&self) {
        self.shared.access().set_hold(true);
    }

    /// Ends [`hold`](Self::hold): what was held back is completed.
    pub fn release(&self) {
        self.shared.access().set_hold(false);
    }

    /// Gives a device that is not zoned another size: its configuration changes, and the driver is
    /// told. What is cut off is gone, and what is added reads as zeroes.
    ///
    /// # Errors
    /// When the device is zoned, cannot have this size, or is in a file.
    pub fn resize(&self, sectors: u64) -> Result<()> {
        self.shared.access().resize(sectors)
    }

    /// Makes the device ask for a reset, and do nothing until it comes.
    pub fn needs_reset(&self) {
        self.shared.access().ask_for_reset();
    }

    /// Makes every reset of the device take this long from now on: it goes on with its work, its
    /// status stays as it was, and what is written to its registers is not heard until then.
    pub fn slow_reset(&self, takes: Duration) {
        self.shared.access().reset_takes = takes;
    }

    /// Has the platform want the function back. False where nobody listens.
    pub fn request_release(&self) -> bool {
        signal(self.shared.access().on_release_request.as_ref())
    }

    /// Has the platform report an error of the bus. False where nobody listens.
    pub fn bus_error(&self) -> bool {
        signal(self.shared.access().on_bus_error.as_ref())
    }

    /// What the last notification of `queue` that was heard said: the queue in the low half, and in
    /// the high one what NOTIFICATION_DATA adds. 0 where there was none since the queue was reset.
    pub fn last_notification(&self, queue: u16) -> u32 {
        self.shared.bell.last(queue.into())
    }

    /// Cuts the power. See [`EmulatedFunction::power_cut`] for what survives.
    ///
    /// [`EmulatedFunction::power_cut`]: crate::EmulatedFunction::power_cut
    pub fn power_cut(&self, seed: u64) {
        self.shared.access().power_cut(seed);
    }

    /// How many bytes of data are in the write cache of a file and not in the file.
    pub fn cached_bytes(&self) -> u64 {
        self.shared.access().disk.cached_bytes()
    }

    /// Why the device's file could not be read or written when that last happened: the driver is
    /// told of an I/O error, no more.
    pub fn store_error(&self) -> Option<String> {
        self.shared.access().disk.store_error().map(str::to_owned)
    }

    /// Pulls the device out: its registers read as all ones, and it does nothing any more. A file
    /// is flushed and closed.
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

fn signal(event: Option<&EventFd>) -> bool {
    event.is_some_and(|event| {
        // A full counter has its notice pending already.
        drop(event.write(1));
        true
    })
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
