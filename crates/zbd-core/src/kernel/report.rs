//! The kernel's zone reports, put as virtio-blk devices put theirs (VIRTIO 1.3, 5.2.6), so that
//! they are read, and doubted, in one place.

use vfio_virtio::DmaBuffer;

use super::{ioctl::RawZone, turns::Pointer};
use crate::{Sector, SectorCount, ZoneState, virtio::report_len};

const ENTRY_LEN: usize = report_len(1) - report_len(0);

/// How many zones a report in a buffer of `len` bytes holds.
pub(super) fn room(len: usize) -> usize {
    len.saturating_sub(report_len(0)) / ENTRY_LEN
}

/// Puts `zones` into `buffer`, as many as it holds.
pub(super) fn encode(zones: &[RawZone], buffer: &mut DmaBuffer) {
    let zones = &zones[..zones.len().min(room(buffer.len()))];
    let mut head = [0; report_len(0)];
    head[..8].copy_from_slice(&(zones.len() as u64).to_le_bytes());
    buffer.write_at(0, &head);
    for (i, zone) in (0..).zip(zones) {
        let mut entry = [0; ENTRY_LEN];
        entry[..8].copy_from_slice(&zone.capacity.to_le_bytes());
        entry[8..16].copy_from_slice(&zone.start.to_le_bytes());
        entry[16..24].copy_from_slice(&zone.write_pointer.to_le_bytes());
        // The numbers of types and states are the same ones, which ZBC and ZNS gave them.
        (entry[24], entry[25]) = (zone.zone_type, zone.state);
        buffer.write_at(report_len(i), &entry);
    }
}

impl RawZone {
    /// The state, if it is one.
    pub(super) fn state(&self) -> Option<ZoneState> {
        Some(match self.state {
            0 => ZoneState::NotWritePointer,
            1 => ZoneState::Empty,
            2 => ZoneState::ImplicitlyOpen,
            3 => ZoneState::ExplicitlyOpen,
            4 => ZoneState::Closed,
            13 => ZoneState::ReadOnly,
            14 => ZoneState::Full,
            15 => ZoneState::Offline,
            _ => return None,
        })
    }

    /// Where the next write goes.
    pub(super) fn pointer(&self) -> Pointer {
        match self.state() {
            Some(ZoneState::Empty) => Pointer::At(Sector(self.start)),
            Some(state) if state.is_active() => Pointer::At(Sector(self.write_pointer)),
            _ => Pointer::None,
        }
    }

    /// The sector after the last that can be written.
    pub(super) fn end(&self) -> Sector {
        Sector(self.start) + SectorCount(self.capacity)
    }
}
