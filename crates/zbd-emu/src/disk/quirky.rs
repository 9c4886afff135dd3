//! What a device with quirks does otherwise. One without never comes here.

use super::{Disk, Outcome, REPORT_ENTRY_BYTES};
use crate::{
    chain::{Broken, Buffers},
    config::Quirk,
    memory::DmaMap,
    request::Request,
    wire::{SECTOR_BYTES, feature, request, status},
    zone::ZoneState,
};

/// The physical block size that a device of the quirk has.
const PHYSICAL_BLOCK_BYTES: usize = 4096;

const SPLIT: Broken = Broken("a request shorter than itself");

impl Disk {
    fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// Carries `request` out as [`execute`](Self::execute) does, but for the quirks.
    pub(super) fn execute_quirkily(
        &mut self,
        request: &Request<'_>,
        features: u64,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        let mut request = *request;
        let features = match self.has(Quirk::ZonedAlways) {
            true => features | feature::ZONED,
            false => features,
        };
        match request.kind {
            request::ZONE_REPORT
                if self.has(Quirk::ShortReportBreaks)
                    && request.data_in.len() < 2 * REPORT_ENTRY_BYTES =>
            {
                return Err(Broken("a report without room for a zone"));
            }
            request::ZONE_APPEND => {
                if self.has(Quirk::ShortAppendBreaks) && !request.has_location() {
                    return Err(Broken("an append without room for its location"));
                }
                let misaligned = |(_, len): (u64, usize)| !len.is_multiple_of(PHYSICAL_BLOCK_BYTES);
                if self.has(Quirk::AppendSegments) && request.data_out.parts().any(misaligned) {
                    return Ok(Outcome::of(status::INVALID_CMD));
                }
                request.sector = self.redirected(request.sector, request.data_out.len());
            }
            request::ZONE_CLOSE if self.has(Quirk::CloseOpens) => {
                request.kind = request::ZONE_OPEN;
            }
            request::GET_ID if self.has(Quirk::IdUnpadded) => {
                let text = self.serial.iter().take_while(|byte| **byte != 0).count() as u64;
                let len = request.data_in.len().min(text + 1);
                request.data_in = request.data_in.split_at(len).ok_or(SPLIT)?.0;
            }
            request::IN if self.has(Quirk::ReadAcross) => return self.read_across(&request, dma),
            request::IN if self.has(Quirk::ResetKeepsData) => return self.read_all(&request, dma),
            _ => {}
        }
        let mut outcome = self.execute_rightly(&request, features, dma)?;
        outcome.status = self.mistaken(request.kind, outcome.status);
        Ok(outcome)
    }

    /// Where an append is put.
    fn redirected(&self, sector: u64, bytes: u64) -> u64 {
        let index = self.zones.index_of(sector);
        let Some(zone) = index.and_then(|index| self.zones.zones().get(index)) else {
            return sector;
        };
        let left = zone.writable_end.saturating_sub(zone.written_end) * SECTOR_BYTES;
        let is_beyond = match zone.state {
            ZoneState::Full => self.has(Quirk::AppendOverflow),
            _ => self.has(Quirk::AppendSpills) && bytes > left,
        };
        match is_beyond && zone.start == sector {
            true => zone.end,
            false => sector,
        }
    }

    /// What is answered in place of a status.
    fn mistaken(&self, kind: u32, right: u8) -> u8 {
        let of_zones = status::INVALID_CMD..=status::ACTIVE_RESOURCE;
        let of_resources = status::OPEN_RESOURCE..=status::ACTIVE_RESOURCE;
        match kind {
            request::OUT if self.has(Quirk::WriteIoError) && of_zones.contains(&right) => {
                status::IOERR
            }
            request::OUT if self.has(Quirk::NoResourceStatus) && of_resources.contains(&right) => {
                status::IOERR
            }
            request::ZONE_APPEND if self.has(Quirk::AppendInvalid) && of_zones.contains(&right) => {
                status::INVALID_CMD
            }
            _ if self.has(Quirk::NoResourceStatus) && of_resources.contains(&right) => {
                status::INVALID_CMD
            }
            _ => right,
        }
    }

    /// A read that is carried out zone by zone.
    fn read_across(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        let (mut at, mut left) = (request.sector, request.data_in);
        loop {
            let index = self.zones.index_of(at);
            let zone = index.and_then(|index| self.zones.zones().get(index));
            let room = zone.map_or(left.len(), |zone| (zone.end - at) * SECTOR_BYTES);
            let (here, rest) = left.split_at(left.len().min(room)).ok_or(SPLIT)?;
            let outcome = self.part_of(request, at, here, dma)?;
            if outcome.status != status::OK || rest.len() == 0 {
                return Ok(outcome);
            }
            at += room / SECTOR_BYTES;
            left = rest;
        }
    }

    fn part_of(
        &mut self,
        request: &Request<'_>,
        sector: u64,
        data_in: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        let part = Request {
            sector,
            data_in,
            ..*request
        };
        self.execute_rightly(&part, 0, dma)
    }

    /// A read to which all that is in the store is data.
    fn read_all(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        let outcome = self.execute_rightly(request, 0, dma)?;
        if outcome.status != status::OK {
            return Ok(outcome);
        }
        match self.store.read(request.sector, request.data_in, dma)? {
            Ok(()) => Ok(outcome),
            Err(failed) => Ok(failed.into()),
        }
    }
}
