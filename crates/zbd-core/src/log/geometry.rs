//! What a log needs to know of its device.

use std::ops::Range;

use super::record::HEADER_LEN;
use crate::{Driver, Error, ErrorKind, Result, ZoneId, ZoneType, ZonedDevice};

/// How many granules of a zone are kept for marks that matter.
const MIN_RESERVE: u64 = 8;
const MAX_RESERVE: u64 = 256;

/// The zones of a log and the units in which they are written.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) zones: Range<ZoneId>,
    /// What every write is a multiple of, in bytes.
    pub(super) granule: usize,
    /// The greatest payload of a record.
    pub(super) max_payload: usize,
    /// The greatest length of a read.
    pub(super) max_read: usize,
    /// How many granules of the last zone there is are kept for marks that matter, and of any zone
    /// for the mark that is its first record.
    pub(super) reserve: u64,
    /// How many zones are written to or being finished at the most.
    pub(super) max_open: usize,
}

impl Geometry {
    pub(super) fn of<D: Driver>(device: &ZonedDevice<D>, zones: &Range<ZoneId>) -> Result<Self> {
        let info = device.info();
        let zoned = info.zoned()?;
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidRequest, what));
        if zones.start.0.saturating_add(2) > zones.end.0 {
            return invalid(format!(
                "a log takes two zones at least, one to write while another is reset; {}..{} are not",
                zones.start, zones.end
            ));
        }
        let granule = zoned.write_granularity as usize;
        let mut smallest = u64::MAX;
        for id in (zones.start.0..zones.end.0).map(ZoneId) {
            match zoned.zone_type(id) {
                Some(ZoneType::SequentialRequired) => {}
                None => {
                    return invalid(format!(
                        "there is no zone {id} on {}, which has {}",
                        info.name, zoned.zone_count
                    ));
                }
                Some(other) => {
                    return invalid(format!(
                        "zone {id} of {} is {other}; a log takes zones that can be appended to (seq-required)",
                        info.name
                    ));
                }
            }
            let capacity = zoned.capacity(id).map_or(0, |capacity| capacity.bytes());
            smallest = smallest.min(capacity / granule as u64);
        }
        if zoned.max_append.0 == 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} knows no zone append, on which a log is built",
                    info.name
                ),
            ));
        }
        let reserve = (smallest / 8).clamp(MIN_RESERVE, MAX_RESERVE);
        let in_zone = smallest.saturating_sub(reserve) * granule as u64;
        let max_read = info.max_transfer.min(info.max_segment) as usize;
        let max_append = (zoned.max_append.bytes())
            .min(in_zone)
            .min(max_read as u64)
            .min(u32::MAX.into()) as usize;
        let Some(max_payload) = (max_append / granule * granule).checked_sub(HEADER_LEN) else {
            return invalid(format!(
                "the zones of {} hold {smallest} granules of {granule} bytes, too few for a log",
                info.name
            ));
        };
        let limit = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(Self {
            zones: zones.clone(),
            granule,
            max_payload,
            max_read,
            reserve,
            max_open: limit(zoned.max_open)
                .min(limit(zoned.max_active))
                .clamp(1, 2),
        })
    }
}
