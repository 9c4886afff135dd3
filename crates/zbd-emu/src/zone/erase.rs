//! What throws data away, range by range.

use std::ops::Range;

use super::{Refusal, Zone, ZoneState, ZoneTable};

impl ZoneTable {
    /// Whether the data of a range may be thrown away, whatever zones it runs through.
    pub(crate) fn check_erase(&self, sector: u64, sectors: u64) -> Result<(), Refusal> {
        let end = self.end_of(sector, sectors)?;
        if sectors == 0 {
            return Ok(());
        }
        let index = self.index_of(sector).ok_or(Refusal::OutOfRange)?;
        if self.touched(index, end).any(Zone::is_failed) {
            return Err(Refusal::InvalidCommand);
        }
        Ok(())
    }

    /// The zones of a range that holds nothing but whole ones, none of which has failed.
    pub(crate) fn check_erase_zones(
        &self,
        sector: u64,
        sectors: u64,
    ) -> Result<Range<usize>, Refusal> {
        let end = self.end_of(sector, sectors)?;
        let geometry = self.geometry();
        // The last zone may be shorter than the others.
        let is_border =
            |at: u64| at.is_multiple_of(geometry.zone_sectors) || at == geometry.sectors;
        if !is_border(sector) || !is_border(end) {
            return Err(Refusal::InvalidCommand);
        }
        let index_at = |border: u64| border.div_ceil(geometry.zone_sectors) as usize;
        let zones = index_at(sector)..index_at(end);
        if self.zones()[zones.clone()].iter().any(Zone::is_failed) {
            return Err(Refusal::InvalidCommand);
        }
        Ok(zones)
    }

    /// Empties those of `zones` that can be emptied.
    pub(crate) fn reset(&mut self, zones: Range<usize>) {
        for index in zones {
            let zone = &mut self.zones[index];
            if zone.is_active() || zone.state == ZoneState::Full {
                zone.empty();
                self.enter(index, ZoneState::Empty);
            }
        }
    }
}
