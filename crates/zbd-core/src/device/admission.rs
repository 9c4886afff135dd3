//! Waiting for what a request needs besides a slot: DMA memory, and zones that the device has
//! resources for.

use vfio_virtio::DmaBuffer;

use super::{
    Driver, ZonedDevice,
    accounts::{self, Claim, Obstacle},
    driver,
};
use crate::{Error, ErrorKind, Request, Result, Sector, ZoneId, ZoneState, ZoneType, limits};

/// How often what zones hold may change while the device is asked for it, before its answer is
/// taken as it is.
const ASKED_MOST: u32 = 3;

impl<D: Driver> ZonedDevice<D> {
    /// A buffer of the device's DMA memory, waited for, first come, first served, if all that would
    /// do is in use. Its contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when it exceeds half of the memory that is contiguous for the
    /// device: of the rest, too much may be in use for good.
    ///
    /// # Cancellation
    /// Loses the place in the line; nothing else happens.
    pub async fn wait_for_buffer(&self, len_bytes: usize) -> Result<DmaBuffer> {
        let memory = self.memory();
        let lines = self.driver.accounts().lines();
        if let Ok(turn) = lines.memory.try_lock() {
            match self.buffer(len_bytes) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory => drop(turn),
                done => return done,
            }
        }
        let _turn = lines.memory.lock().await;
        let can_be = len_bytes <= memory.contiguous_len() / 2;
        loop {
            // Listen, look again, and only then wait: what is freed in between is heard.
            let freed = memory.on_freed();
            match self.buffer(len_bytes) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory && can_be => {
                    driver::heard(&self.driver, freed).await;
                }
                done => return done,
            }
        }
    }

    /// The zone that contains `at`, if writing there may take resources of which the device has only
    /// so many.
    #[inline]
    pub(super) fn limited_zone(&self, at: Sector) -> Option<ZoneId> {
        let accounts = self.driver.accounts();
        if !accounts.is_limited() {
            return None;
        }
        let zoned = self.driver.zoned()?;
        let zone = zoned.zone_of(at)?;
        (zoned.zone_type(zone)? != ZoneType::Conventional).then_some(zone)
    }

    /// Whether a zone is to be admitted for the append: not if the queue refuses it anyway.
    #[cold]
    pub(super) fn allows_append(&self, zone: ZoneId, buffer: &DmaBuffer) -> bool {
        limits::append(&self.info(), zone, buffer).is_ok()
    }

    /// Whether a zone is to be admitted for the write: not if the queue refuses it anyway.
    #[cold]
    pub(super) fn allows_write(&self, at: Sector, buffer: &DmaBuffer) -> bool {
        limits::write(&self.info(), at, buffer).is_ok()
    }

    /// Counts `zone` among those that are written to, or says which zones are in its way.
    ///
    /// Without memory to ask the device with, which whoever waits may hold all of, it is let through:
    /// the device itself refuses what it has no resources for.
    #[cold]
    pub(super) async fn admit(&self, zone: ZoneId) -> Result<()> {
        match self.admit_as(zone, Claim::Write).await {
            Err(error) if error.kind() == ErrorKind::OutOfMemory => Ok(()),
            done => done,
        }
    }

    async fn admit_as(&self, zone: ZoneId, claim: Claim) -> Result<()> {
        let info = self.info();
        let Ok(zoned) = info.zoned() else {
            // What is wrong is told when the request is submitted.
            return Ok(());
        };
        let accounts = self.driver.accounts();
        let mut asked = 0;
        loop {
            match accounts.admit(zone, zoned, claim) {
                Ok(()) => return Ok(()),
                Err(Obstacle::Taken(error)) if asked > 0 => return Err(error),
                // What is known may be old: another look before anybody is refused.
                Err(Obstacle::Taken(_) | Obstacle::Unknown) => {
                    asked += 1;
                    let version = accounts.version();
                    let report = match claim {
                        Claim::Write => self.report_at_once(0..zoned.zone_count).await?,
                        // It holds no buffers that could be in its own way.
                        Claim::Reservation => self.report(..).await?,
                    };
                    accounts.take_over(&report, version, asked >= ASKED_MOST);
                }
            }
        }
    }

    /// As [`admit`](Self::admit) without waiting: false if the device would have to be asked.
    pub(super) fn try_admit(&self, zone: ZoneId, request: &Request) -> Result<bool> {
        let accounts = self.driver.accounts();
        if accounts.is_admitted(zone) {
            return Ok(true);
        }
        let is_allowed = match request {
            Request::Append { zone, buffer } => self.allows_append(*zone, buffer),
            Request::Write { at, buffer } => self.allows_write(*at, buffer),
            _ => true,
        };
        if !is_allowed {
            return Ok(true);
        }
        let info = self.info();
        let Ok(zoned) = info.zoned() else {
            return Ok(true);
        };
        match accounts.admit(zone, zoned, Claim::Write) {
            Ok(()) => Ok(true),
            Err(Obstacle::Unknown) => Ok(false),
            Err(Obstacle::Taken(error)) => Err(error),
        }
    }

    pub(super) async fn reserve(&self, zone: ZoneId) -> Result<()> {
        let accounts = self.driver.accounts();
        if !accounts.is_limited() {
            return Ok(());
        }
        let _turn = accounts.lines().zones.lock().await;
        loop {
            let freed = accounts.on_freed();
            match self.admit_as(zone, Claim::Reservation).await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::ActiveLimit | ErrorKind::OpenLimit) =>
                {
                    driver::heard(&self.driver, freed).await;
                }
                done => return done,
            }
        }
    }

    /// Waits until nothing is in flight on `zone`.
    pub(crate) async fn settle(&self, zone: ZoneId) {
        let accounts = self.driver.accounts();
        loop {
            let settled = accounts.on_settled();
            if accounts.is_settled(zone) {
                return;
            }
            driver::heard(&self.driver, settled).await;
        }
    }

    /// An error of a request that would have opened `zone`, with the zones that were in its way if
    /// there were such. Devices differ in what they say where their resources are taken: QEMU says
    /// nothing of it. Where there is no memory to ask the device with, the error stays as it is.
    #[cold]
    pub(super) async fn explain(&self, zone: ZoneId, error: Error) -> Error {
        let is_limit = matches!(error.kind(), ErrorKind::ActiveLimit | ErrorKind::OpenLimit);
        let is_limit = is_limit || error.kind() == ErrorKind::InvalidZoneState;
        if !is_limit || !self.driver.accounts().is_limited() {
            return error;
        }
        let info = self.info();
        let Ok(zoned) = info.zoned() else {
            return error;
        };
        // That the zone itself is full is the most frequent reason, and told by its own state.
        let next = zone.0.saturating_add(1);
        let state = match self.report_at_once(zone.0..next).await.as_deref() {
            Ok([zone]) => zone.state,
            _ => return error,
        };
        if !matches!(state, ZoneState::Empty | ZoneState::Closed) {
            return error;
        }
        let Ok(zones) = self.report_at_once(0..zoned.zone_count).await else {
            return error;
        };
        let holders = |is_holder: fn(ZoneState) -> bool| {
            let holding = zones.iter().filter(|zone| is_holder(zone.state));
            holding.map(|zone| zone.id).collect::<Vec<_>>()
        };
        let active = holders(ZoneState::is_active);
        let explicit = holders(|state| state == ZoneState::ExplicitlyOpen);
        let is_full = |holders: &[ZoneId], max: Option<u32>| {
            max.is_some_and(|max| holders.len() as u64 >= u64::from(max))
        };
        let better = match state {
            ZoneState::Empty if is_full(&active, zoned.max_active) => {
                accounts::active_limit(zone, zoned.max_active.unwrap_or_default(), &active)
            }
            ZoneState::Empty | ZoneState::Closed if is_full(&explicit, zoned.max_open) => {
                accounts::open_limit(zone, zoned.max_open.unwrap_or_default(), &explicit)
            }
            _ => return error,
        };
        better.with_buffer(error.into_buffer())
    }

    /// As [`explain`](Self::explain), for a write at `at`.
    #[cold]
    pub(super) async fn explain_at(&self, at: Sector, error: Error) -> Error {
        match self.limited_zone(at) {
            Some(zone) => self.explain(zone, error).await,
            None => error,
        }
    }
}
