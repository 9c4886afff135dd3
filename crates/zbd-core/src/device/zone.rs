//! One zone of a device.

use vfio_virtio::DmaBuffer;

use super::{Appended, Driver, Lanes, ZonedDevice};
use crate::{Error, ErrorKind, Request, Result, Sector, Zone, ZoneAction, ZoneId};

/// One zone of a [`ZonedDevice`].
#[derive(Debug)]
pub struct ZoneHandle<'a, D: Driver = Lanes> {
    pub(super) device: &'a ZonedDevice<D>,
    pub(super) id: ZoneId,
}

impl<D: Driver> Clone for ZoneHandle<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Driver> Copy for ZoneHandle<'_, D> {}

impl<D: Driver> ZoneHandle<'_, D> {
    /// Opens the zone explicitly: it stays open until it is closed, finished, reset or full.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such zone.
    /// - [`ErrorKind::InvalidZoneState`]: the zone is conventional, full, read-only or offline.
    /// - [`ErrorKind::OpenLimit`], [`ErrorKind::ActiveLimit`]: too many zones are open or active.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn open(self) -> Result<()> {
        self.manage(ZoneAction::Open).await
    }

    /// Closes the zone, which stays active unless nothing was written to it.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the limits.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn close(self) -> Result<()> {
        self.manage(ZoneAction::Close).await
    }

    /// Makes the zone full, whatever was written to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn finish(self) -> Result<()> {
        self.manage(ZoneAction::Finish).await
    }

    /// Empties the zone: its data are gone.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the limits.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn reset(self) -> Result<()> {
        self.manage(ZoneAction::Reset).await
    }

    /// Appends the whole buffer; see [`ZonedDevice::append`].
    ///
    /// # Errors
    /// As [`ZonedDevice::append`].
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn append(self, buffer: DmaBuffer) -> Result<Appended> {
        self.device.append(self.id, buffer).await
    }

    /// What the device says of the zone now.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such zone.
    /// - As [`ZonedDevice::report`] besides.
    pub async fn report(self) -> Result<Zone> {
        let mut zones = self.device.report(self.id..=self.id).await?;
        zones.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("there is no zone {}", self.id),
            )
        })
    }

    /// Waits until the zone can be written to within the device's limits of open and active zones,
    /// first come, first served, and counts it among them: the next append or write will not be
    /// refused for their sake. Returns at once where there are no limits.
    ///
    /// The zone stays counted, whether it is written to or not, until it is full or finished, closed
    /// or reset; so whoever does not need it after all has to [reset](Self::reset) it.
    ///
    /// It waits for zones that this device handle's users finish, reset or fill up, so somebody has
    /// to.
    ///
    /// # Errors
    /// As [`ZonedDevice::report`].
    ///
    /// # Cancellation
    /// Loses the place in the line; nothing else happens.
    pub async fn reserve(self) -> Result<()> {
        self.device.reserve(self.id).await
    }

    /// Waits until nothing is in flight on the zone, and returns its write pointer: all requests
    /// have ended, also those whose futures were dropped. `None` for a zone without a write pointer.
    ///
    /// Requests that are submitted meanwhile are waited for, too. One that ended as
    /// [`ErrorKind::Timeout`] is not: only after [`recover`](ZonedDevice::recover) is it sure that the
    /// device has done with it.
    ///
    /// # Errors
    /// As [`report`](Self::report).
    ///
    /// # Cancellation
    /// Nothing happens.
    pub async fn barrier(self) -> Result<Option<Sector>> {
        self.device.settle(self.id).await;
        Ok(self.report().await?.write_pointer)
    }

    async fn manage(self, action: ZoneAction) -> Result<()> {
        let zone = self.id;
        let done = self.device.run(Request::Manage { action, zone }).await;
        match done {
            Err(error) if action == ZoneAction::Open => Err(self.device.explain(zone, error).await),
            done => done.map(|_| ()),
        }
    }
}
