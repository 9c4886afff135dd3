//! Requests that name ranges of sectors: discard, write zeroes, secure erase (VIRTIO 1.3 §5.2.6).
//!
//! On a zoned device SECURE_ERASE is a ZONE_RESET of the zones that it names (§5.2.6.2), and their
//! data are made zero too. The specification does not say what becomes of a range that is not whole
//! zones, nor how the other two act on zones. Chosen here:
//! - A SECURE_ERASE with such a range is an invalid command, as all errors of zones are that have no
//!   status of their own. So is one that names a read-only or offline zone. A short last zone is
//!   whole.
//! - SECURE_ERASE makes conventional zones zero, where a ZONE_RESET is refused: by the letter of
//!   the specification nothing could erase these.
//! - WRITE_ZEROES is a write of as many zeroes, segment by segment: in a sequential-write-required
//!   zone it begins at the write pointer and moves it, and is refused as a write would be. Whether
//!   it may unmap makes no difference.
//! - DISCARD makes data zero and leaves write pointers and states where they are. A range that
//!   touches a zone which is read-only or offline is an invalid command.
//!
//! All segments are checked for flags and range before the first is carried out. What a zone
//! refuses ends a request where it is: the segments before have been carried out. A SECURE_ERASE of
//! zones that is refused changes nothing.

use super::{Disk, Halt, Outcome, limits, limits::Limits};
use crate::{
    chain::{Broken, Buffers},
    memory::DmaMap,
    request::Request,
    store::Failure,
    wire::{SEGMENT_UNMAP, status},
    zone::{Geometry, Refusal, ZoneKind},
};

#[cfg(test)]
mod tests;

const SEGMENT_BYTES: u64 = 16;

/// What to do with ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Erasure {
    Discard,
    WriteZeroes,
    SecureErase,
}

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(Clone, Copy, Debug)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

/// What ended a request before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Erasure {
    fn limits(self, geometry: &Geometry) -> Limits {
        match self {
            Self::Discard => limits::DISCARD,
            Self::WriteZeroes => limits::WRITE_ZEROES,
            Self::SecureErase => limits::secure_erase(geometry),
        }
    }

    fn known_flags(self) -> u32 {
        match self {
            Self::WriteZeroes => SEGMENT_UNMAP,
            Self::Discard | Self::SecureErase => 0,
        }
    }
}

impl Disk {
    pub(super) fn erase(
        &mut self,
        erasure: Erasure,
        request: &Request<'_>,
        dma: &DmaMap,
    ) -> Result<Outcome, Halt> {
        let limits = erasure.limits(self.zones.geometry());
        let len = request.data_out.len();
        let most = u64::from(limits.segments) * SEGMENT_BYTES;
        if len == 0 || !len.is_multiple_of(SEGMENT_BYTES) || len > most {
            return Ok(Outcome::of(status::IOERR));
        }
        let mut ranges = Vec::with_capacity(limits.segments as usize);
        let mut left = request.data_out;
        while left.len() != 0 {
            let (range, rest) = fetch(left, dma)?;
            if range.flags & !erasure.known_flags() != 0 {
                return Ok(Outcome::of(status::UNSUPP));
            }
            let outside = self
                .zones
                .end_of(range.sector, range.sectors.into())
                .is_err();
            if outside || range.sectors > limits.sectors {
                return Ok(Outcome::of(status::IOERR));
            }
            ranges.push(range);
            left = rest;
        }
        let erased = if erasure == Erasure::SecureErase && self.zones.geometry().is_zoned() {
            self.erase_zones(&ranges)
        } else {
            ranges
                .into_iter()
                .try_for_each(|range| self.erase_range(erasure, range))
        };
        match erased {
            Ok(()) => Ok(Outcome::of(status::OK)),
            Err(Stop::Refused(refusal)) => Ok(refusal.into()),
            Err(Stop::Failed(failure)) => Err(failure.into()),
        }
    }

    fn erase_zones(&mut self, ranges: &[Range]) -> Result<(), Stop> {
        let named = ranges
            .iter()
            .map(|range| {
                self.zones
                    .check_erase_zones(range.sector, range.sectors.into())
            })
            .collect::<Result<Vec<_>, _>>()?;
        for zones in named {
            for zone in &self.zones.zones()[zones.clone()] {
                // A file makes the data of a zone that is reset zero when the reset is durable.
                let goes_with_reset = zone.kind != ZoneKind::Conventional;
                if !(goes_with_reset && self.store.file().is_some()) {
                    self.store.zero(zone.start..zone.end, &self.zones)?;
                }
            }
            self.zones.reset(zones);
        }
        Ok(())
    }

    fn erase_range(&mut self, erasure: Erasure, range: Range) -> Result<(), Stop> {
        let sectors = u64::from(range.sectors);
        let end = range.sector + sectors;
        if erasure == Erasure::WriteZeroes {
            let write = self.zones.check_write(range.sector, sectors)?;
            for gap in self.zones.gaps(write) {
                self.store.zero(gap, &self.zones)?;
            }
            self.store.zero(range.sector..end, &self.zones)?;
            self.zones.commit(write);
            return Ok(());
        }
        self.zones.check_erase(range.sector, sectors)?;
        self.store.zero(range.sector..end, &self.zones)?;
        Ok(())
    }
}

fn fetch<'c>(data: Buffers<'c>, dma: &DmaMap) -> Result<(Range, Buffers<'c>), Broken> {
    let (segment, rest) = data
        .split_at(SEGMENT_BYTES)
        .ok_or(Broken("a segment longer than its buffer"))?;
    let mut bytes = [0; SEGMENT_BYTES as usize];
    segment.read(dma, &mut bytes)?;
    // le64 sector, le32 num_sectors, le32 flags.
    let fields = u128::from_le_bytes(bytes);
    let range = Range {
        sector: fields as u64,
        sectors: (fields >> 64) as u32,
        flags: (fields >> 96) as u32,
    };
    Ok((range, rest))
}
