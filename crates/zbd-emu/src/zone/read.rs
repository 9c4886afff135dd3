//! What a read sees.

use super::{Refusal, Write, Zone, ZoneKind, ZoneState, ZoneTable};

/// A stretch of sectors of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) sector: u64,
    /// How many of its sectors hold data; the rest reads as zeroes.
    pub(crate) written: u64,
    pub(crate) unwritten: u64,
}

impl ZoneTable {
    /// The sector after a range, which must lie on the device.
    #[inline]
    pub(crate) fn end_of(&self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        sector
            .checked_add(sectors)
            .filter(|end| *end <= self.geometry().sectors)
            .ok_or(Refusal::OutOfRange)
    }

    /// The zones from `index` on that begin before `end`.
    pub(super) fn touched(&self, index: usize, end: u64) -> impl Iterator<Item = &Zone> {
        self.zones()[index..]
            .iter()
            .take_while(move |zone| zone.start < end)
    }

    /// Whether the range may be read.
    #[inline]
    pub(crate) fn check_read(&self, sector: u64, sectors: u64) -> Result<(), Refusal> {
        let end = self.end_of(sector, sectors)?;
        if sectors == 0 {
            return Ok(());
        }
        let index = self.index_of(sector).ok_or(Refusal::OutOfRange)?;
        let zone = &self.zones()[index];
        if end <= zone.end {
            return match zone.state {
                ZoneState::Offline => Err(Refusal::InvalidCommand),
                _ => Ok(()),
            };
        }
        let refused = self.touched(index, end).any(|zone| {
            zone.kind == ZoneKind::SequentialRequired || zone.state == ZoneState::Offline
        });
        if refused {
            return Err(Refusal::InvalidCommand);
        }
        Ok(())
    }

    /// Splits a range that may be read into stretches, zone by zone.
    #[inline]
    pub(crate) fn stretches(&self, sector: u64, sectors: u64) -> impl Iterator<Item = Stretch> {
        let end = sector + sectors;
        let mut at = sector;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let zone = &self.zones()[self.index_of(at)?];
            let stop = end.min(zone.end);
            let written = zone.written_end.clamp(at, stop) - at;
            let stretch = Stretch {
                sector: at,
                written,
                unwritten: stop - at - written,
            };
            at = stop;
            Some(stretch)
        })
    }

    /// The sectors that `write` leaves unwritten before its data in a zone that takes writes
    /// anywhere: they must be made zero, since they will count as written.
    pub(crate) fn gaps(&self, write: Write) -> impl Iterator<Item = std::ops::Range<u64>> {
        let end = write.sector + write.sectors;
        self.touched(write.zone, end)
            .filter(|zone| zone.kind == ZoneKind::SequentialPreferred)
            .map(move |zone| zone.written_end..write.sector.max(zone.start))
            .filter(|gap| gap.start < gap.end)
    }
}
