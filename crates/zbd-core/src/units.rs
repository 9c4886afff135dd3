//! Types that carry units, so that sectors, bytes and zones cannot be mixed up.

use std::{fmt, ops};

/// The length of a sector in bytes, whatever the device's block size (VIRTIO 1.3, 5.2.4).
pub const SECTOR_LEN: u64 = 512;

/// A position on a device, in sectors of 512 bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The position in bytes, if it fits.
    pub const fn byte_offset(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_LEN)
    }
}

impl ops::Add<SectorCount> for Sector {
    type Output = Self;

    /// Saturates: a position past the end of all devices stays one.
    fn add(self, count: SectorCount) -> Self {
        Self(self.0.saturating_add(count.0))
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A length in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorCount(pub u64);

impl SectorCount {
    /// The length in bytes; saturates.
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(SECTOR_LEN)
    }
}

impl fmt::Display for SectorCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a zone, counted from the start of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u32);

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
