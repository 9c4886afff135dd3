//! Requests that name a range instead of carrying data.

use super::{commands::unsupported, invalid, writable};
use crate::{
    DeviceInfo, Error, Result, Sector, SectorCount, ZoneModel, units::SECTOR_LEN,
    virtio::RequestType,
};

/// What is done with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeKind {
    Discard,
    WriteZeroes,
    SecureErase,
}

/// Of one range, the greatest length and what its ends are multiples of.
struct Limits {
    max: SectorCount,
    alignment: SectorCount,
}

/// Checks a range that goes into one request and yields the request's type and the first sector.
pub(super) fn one(
    info: &DeviceInfo,
    kind: RangeKind,
    at: Sector,
    len: SectorCount,
) -> Result<(RequestType, Sector)> {
    let Limits { max, .. } = whole(info, kind, at, len)?;
    if len > max {
        return Err(invalid(format!(
            "{} {len} sectors in one request exceeds the device's greatest of {max}; use several",
            kind.verb()
        )));
    }
    let request_type = match kind {
        RangeKind::Discard => RequestType::DISCARD,
        RangeKind::WriteZeroes => RequestType::WRITE_ZEROES,
        RangeKind::SecureErase => RequestType::SECURE_ERASE,
    };
    Ok((request_type, at))
}

/// Checks a range of any length and cuts it into what goes into one request each.
pub(crate) fn pieces(
    info: &DeviceInfo,
    kind: RangeKind,
    at: Sector,
    len: SectorCount,
) -> Result<impl Iterator<Item = (Sector, SectorCount)> + use<>> {
    let Limits { max, alignment } = whole(info, kind, at, len)?;
    // The limits of an open device hold one unit at least, so this is not 0.
    let step = max.0 / alignment.0 * alignment.0;
    let end = at.0 + len.0;
    Ok((0..len.0.div_ceil(step)).map(move |i| {
        let start = at.0 + i * step;
        (Sector(start), SectorCount(step.min(end - start)))
    }))
}

/// Checks all of a range but its length.
fn whole(info: &DeviceInfo, kind: RangeKind, at: Sector, len: SectorCount) -> Result<Limits> {
    let limits = kind.limits(info).ok_or_else(|| kind.missing(info))?;
    writable(info)?;
    let block = u64::from(info.block_size) / SECTOR_LEN;
    let unit = limits.alignment.0;
    // What is left over at the end of the device, if that is not whole blocks, is out of reach.
    let device_end = info.capacity.0 / block * block;
    if len.0 == 0 {
        return Err(invalid(format!("there is nothing to {}", kind.verb())));
    }
    let Some(end) = at.0.checked_add(len.0).filter(|end| *end <= device_end) else {
        return Err(invalid(format!(
            "{len} sectors from sector {at} on are past the end of {} with its {} sectors",
            info.name, info.capacity
        )));
    };
    if !at.0.is_multiple_of(unit) || !(end.is_multiple_of(unit) || end == device_end) {
        return Err(invalid(format!(
            "{len} sectors from sector {at} on: what the device is to {} must begin and end at multiples of {unit} sectors",
            kind.verb()
        )));
    }
    Ok(limits)
}

impl RangeKind {
    fn limits(self, info: &DeviceInfo) -> Option<Limits> {
        let block = SectorCount(u64::from(info.block_size) / SECTOR_LEN);
        let (max, alignment) = match self {
            Self::Discard => info.discard.map(|it| (it.max_sectors, it.alignment)),
            Self::SecureErase => info.secure_erase.map(|it| (it.max_sectors, it.alignment)),
            Self::WriteZeroes => info.write_zeroes.map(|it| (it.max_sectors, block)),
        }?;
        Some(Limits { max, alignment })
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Discard => "discard",
            Self::WriteZeroes => "zero",
            Self::SecureErase => "erase",
        }
    }

    #[cold]
    fn missing(self, info: &DeviceInfo) -> Error {
        let name = &info.name;
        let host_managed = info
            .zoned
            .as_ref()
            .is_some_and(|zoned| zoned.model == ZoneModel::HostManaged);
        unsupported(match self {
            Self::Discard if host_managed => {
                format!("{name} is host-managed and takes no discard; reset the zone instead")
            }
            Self::Discard => format!("{name} takes no discard (no DISCARD)"),
            Self::WriteZeroes => {
                format!("{name} cannot zero by itself (no WRITE_ZEROES); write zeroes as data")
            }
            Self::SecureErase => {
                format!("{name} cannot erase securely (no usable SECURE_ERASE)")
            }
        })
    }
}
