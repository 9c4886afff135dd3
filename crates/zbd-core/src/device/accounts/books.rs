//! Accounts as those keep them who run requests.

use std::sync::{Arc, atomic::Ordering};

use super::{Accounts, Flight, Tidings};
use crate::{DeviceInfo, Request, Sector, ZonedInfo};

/// The accounts and what the device is like, for those who only keep them.
#[derive(Clone, Debug)]
pub(in crate::device) struct Books {
    accounts: Arc<Accounts>,
    /// Of which the zones are what they were when the device was opened.
    info: Arc<DeviceInfo>,
}

impl Books {
    pub(in crate::device) fn new(info: &Arc<DeviceInfo>) -> Self {
        Self {
            accounts: Arc::new(Accounts::new(info)),
            info: Arc::clone(info),
        }
    }

    #[inline]
    pub(in crate::device) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The device as it was when it was opened.
    pub(in crate::device) fn opened(&self) -> &Arc<DeviceInfo> {
        &self.info
    }

    /// The zones as they were when the device was opened.
    #[inline]
    pub(in crate::device) fn zoned(&self) -> Option<&ZonedInfo> {
        self.info.zoned.as_ref()
    }

    /// As [`ended`](Self::ended), but that nothing is done and false comes back if anybody would have
    /// to be told of it. For accounts that one thread keeps.
    #[inline(always)]
    pub(in crate::device) fn ended_in_silence(
        &self,
        flight: Flight,
        place: Option<Sector>,
    ) -> bool {
        let accounts = &*self.accounts;
        let zoned = self.info.zoned.as_ref();
        if accounts.is_of_note(flight, place, zoned).is_some() {
            return false;
        }
        let Some(cell) = accounts.cells.get(flight.zone as usize) else {
            return true;
        };
        let in_flight = cell.in_flight.load(Ordering::Relaxed);
        if in_flight == 1 {
            return false;
        }
        // Relaxed: nobody else changes or looks at it.
        cell.in_flight
            .store(in_flight.wrapping_sub(1), Ordering::Relaxed);
        true
    }

    /// As [`begun`](Self::begun), for accounts that one thread keeps.
    #[inline(always)]
    pub(in crate::device) fn begun_here(&self, request: &Request) -> Flight {
        let flight = Accounts::flight(request, self.zoned());
        if let Some(cell) = self.accounts.cells.get(flight.zone as usize) {
            // Relaxed: nobody else changes or looks at it.
            let in_flight = cell.in_flight.load(Ordering::Relaxed);
            cell.in_flight
                .store(in_flight.wrapping_add(1), Ordering::Relaxed);
        }
        flight
    }

    /// Counts a request that is about to be submitted.
    #[inline]
    pub(in crate::device) fn begun(&self, request: &Request) -> Flight {
        let flight = Accounts::flight(request, self.info.zoned.as_ref());
        self.accounts.begun(flight);
        flight
    }

    /// Takes note of how a request ended: where, if it was carried out. To be done before anybody
    /// can see that it has, because whoever does may count on what it did; what comes back is to be
    /// [told](Self::tell) when nothing is locked.
    #[inline]
    pub(in crate::device) fn ended(&self, flight: Flight, place: Option<Sector>) -> Tidings {
        self.accounts.ended(flight, place, self.info.zoned.as_ref())
    }

    /// Wakes those whom it concerns.
    #[inline]
    pub(in crate::device) fn tell(&self, tidings: Tidings) {
        self.accounts.tell(tidings);
    }
}
