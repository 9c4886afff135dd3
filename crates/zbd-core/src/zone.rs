//! Zones as a device reports them.

use std::fmt;

use crate::{Sector, SectorCount, ZoneId};

/// How a device treats its zones (VIRTIO 1.3, 5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneModel {
    /// The device has no zones.
    None,
    /// Sequential zones are written at their write pointer only.
    HostManaged,
    /// Zones may be written anywhere, and are best written in sequence.
    HostAware,
}

impl fmt::Display for ZoneModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "not zoned",
            Self::HostManaged => "host-managed",
            Self::HostAware => "host-aware",
        })
    }
}

/// The type of a zone (VIRTIO 1.3, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneType {
    /// Written anywhere, like an ordinary disk.
    Conventional,
    /// Sequential write required: written at the write pointer only.
    SequentialRequired,
    /// Sequential write preferred: best written at the write pointer.
    SequentialPreferred,
}

impl fmt::Display for ZoneType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Conventional => "conventional",
            Self::SequentialRequired => "seq-required",
            Self::SequentialPreferred => "seq-preferred",
        })
    }
}

/// The state of a zone (VIRTIO 1.3, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneState {
    /// Conventional: there is no write pointer.
    NotWritePointer,
    /// Nothing is written.
    Empty,
    /// Opened by a write or an append; the device may close it to open another.
    ImplicitlyOpen,
    /// Opened by command; only a command, or being full, closes it.
    ExplicitlyOpen,
    /// Partly written and not open.
    Closed,
    /// Can be read, and will never be written again.
    ReadOnly,
    /// Written to the end of its capacity, or finished.
    Full,
    /// Can be neither read nor written.
    Offline,
}

impl ZoneState {
    /// Whether the zone holds one of the device's open resources.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::ImplicitlyOpen | Self::ExplicitlyOpen)
    }

    /// Whether the zone holds one of the device's active resources.
    pub const fn is_active(self) -> bool {
        self.is_open() || matches!(self, Self::Closed)
    }
}

impl fmt::Display for ZoneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotWritePointer => "not-wp",
            Self::Empty => "empty",
            Self::ImplicitlyOpen => "imp-open",
            Self::ExplicitlyOpen => "exp-open",
            Self::Closed => "closed",
            Self::ReadOnly => "read-only",
            Self::Full => "full",
            Self::Offline => "offline",
        })
    }
}

/// A zone as the device reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its number.
    pub id: ZoneId,
    /// Its first sector.
    pub start: Sector,
    /// The distance to the start of the next zone.
    pub size: SectorCount,
    /// How much of it can be written, at the most its size.
    pub capacity: SectorCount,
    /// Where the next write goes. `None` where the state defines none: conventional, full,
    /// read-only and offline zones.
    pub write_pointer: Option<Sector>,
    /// Its type.
    pub zone_type: ZoneType,
    /// Its state.
    pub state: ZoneState,
}

impl Zone {
    /// How much has been written: up to the write pointer, or all of a full zone's capacity. `None`
    /// where the device does not say.
    pub fn written(&self) -> Option<SectorCount> {
        match (self.write_pointer, self.state) {
            (Some(pointer), _) => Some(SectorCount(pointer.0 - self.start.0)),
            (None, ZoneState::Full) => Some(self.capacity),
            (None, _) => None,
        }
    }

    /// The first sector after the part that can be written.
    pub fn capacity_end(&self) -> Sector {
        self.start + self.capacity
    }
}
