//! How much one request that names ranges may do (VIRTIO 1.3 §5.2.4). All numbers differ, so that a
//! driver that reads one for another is found out.

use crate::zone::Geometry;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest range.
    pub(crate) sectors: u32,
    /// The most ranges.
    pub(crate) segments: u32,
}

pub(crate) const DISCARD: Limits = Limits {
    sectors: 1 << 15,
    segments: 32,
};
pub(crate) const WRITE_ZEROES: Limits = Limits {
    sectors: 1 << 14,
    segments: 8,
};
const SECURE_ERASE: Limits = Limits {
    sectors: 1 << 13,
    segments: 4,
};

/// Of a zoned device, as many whole zones as the limit of others has room for, but at least one.
pub(crate) fn secure_erase(geometry: &Geometry) -> Limits {
    if !geometry.is_zoned() {
        return SECURE_ERASE;
    }
    let zone = secure_erase_alignment(geometry);
    Limits {
        sectors: (SECURE_ERASE.sectors / zone * zone).max(zone),
        ..SECURE_ERASE
    }
}

/// What the ends of what is erased are multiples of. §5.2.6.2: `secure_erase_sector_alignment` of a
/// zoned device is a multiple of `zone_sectors`. A driver that declined zones is told the same.
pub(crate) fn secure_erase_alignment(geometry: &Geometry) -> u32 {
    // Both are a le32 in the configuration, which was checked.
    if geometry.is_zoned() {
        geometry.zone_sectors as u32
    } else {
        geometry.block_sectors as u32
    }
}
