//! The zone report as it lies in memory (VIRTIO 1.3, 5.2.6).

use vfio_virtio::DmaBuffer;
use virtio_bindings::virtio_blk as binding;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, little_endian::U64};

use crate::{Error, ErrorKind, Result, Sector, SectorCount, Zone, ZoneId, ZoneState, ZoneType};

const HEADER_LEN: usize = 64;
const DESCRIPTOR_LEN: usize = 64;

/// The length of a report of `zones` zones.
pub(crate) const fn report_len(zones: u32) -> usize {
    HEADER_LEN + zones as usize * DESCRIPTOR_LEN
}

/// How many of `zones` zones are asked for with one report on a device whose data segments are at
/// the most `max_segment` bytes long.
pub(crate) fn zones_per_report(zones: u32, max_segment: u32) -> u32 {
    let room = (max_segment as usize).saturating_sub(HEADER_LEN) / DESCRIPTOR_LEN;
    zones.min(u32::try_from(room).unwrap_or(u32::MAX)).max(1)
}

/// `struct virtio_blk_zone_descriptor`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    capacity: U64,
    start: U64,
    write_pointer: U64,
    zone_type: u8,
    state: u8,
    reserved: [u8; 38],
}

const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR_LEN);

/// Where the zones of a device are, without what the device says of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneGrid {
    pub(crate) zone_size: SectorCount,
    pub(crate) zone_count: u32,
    pub(crate) end: Sector,
}

impl ZoneGrid {
    pub(crate) fn start(&self, zone: ZoneId) -> Sector {
        Sector(u64::from(zone.0) * self.zone_size.0)
    }

    /// The distance to the next zone or, for the last one, to the end of the device.
    pub(crate) fn size(&self, zone: ZoneId) -> SectorCount {
        let start = self.start(zone).0;
        SectorCount(self.zone_size.0.min(self.end.0.saturating_sub(start)))
    }

    /// Reads a report that should begin with zone `first`. Nothing in it is believed unseen.
    pub(crate) fn parse(&self, first: ZoneId, report: &DmaBuffer) -> Result<Vec<Zone>> {
        let broken = |what: String| {
            Error::new(
                ErrorKind::Protocol,
                format!("the device's zone report is inconsistent: {what}"),
            )
        };
        if report.len() < HEADER_LEN {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a zone report takes a buffer of at least 64 bytes",
            ));
        }
        let mut header = U64::new_zeroed();
        report.read_at(0, header.as_mut_bytes());
        let room = ((report.len() - HEADER_LEN) / DESCRIPTOR_LEN) as u64;
        let left = u64::from(self.zone_count.saturating_sub(first.0));
        if header.get() > room.min(left) {
            return Err(broken(format!(
                "it counts {} zones from zone {first} on, where {left} exist and the buffer holds {room}",
                header.get()
            )));
        }
        (0..header.get())
            .map(|i| {
                let mut descriptor = Descriptor::new_zeroed();
                let at = HEADER_LEN + i as usize * DESCRIPTOR_LEN;
                report.read_at(at, descriptor.as_mut_bytes());
                let id = ZoneId(first.0 + i as u32);
                self.zone(id, &descriptor)
                    .ok_or_else(|| broken(format!("zone {id} is {}", descriptor.describe())))
            })
            .collect()
    }

    fn zone(&self, id: ZoneId, descriptor: &Descriptor) -> Option<Zone> {
        let (start, size) = (self.start(id), self.size(id));
        let capacity = SectorCount(descriptor.capacity.get());
        if descriptor.start.get() != start.0 || capacity > size {
            return None;
        }
        let zone_type = match u32::from(descriptor.zone_type) {
            binding::VIRTIO_BLK_ZT_CONV => ZoneType::Conventional,
            binding::VIRTIO_BLK_ZT_SWR => ZoneType::SequentialRequired,
            binding::VIRTIO_BLK_ZT_SWP => ZoneType::SequentialPreferred,
            _ => return None,
        };
        let state = match u32::from(descriptor.state) {
            binding::VIRTIO_BLK_ZS_NOT_WP => ZoneState::NotWritePointer,
            binding::VIRTIO_BLK_ZS_EMPTY => ZoneState::Empty,
            binding::VIRTIO_BLK_ZS_IOPEN => ZoneState::ImplicitlyOpen,
            binding::VIRTIO_BLK_ZS_EOPEN => ZoneState::ExplicitlyOpen,
            binding::VIRTIO_BLK_ZS_CLOSED => ZoneState::Closed,
            binding::VIRTIO_BLK_ZS_RDONLY => ZoneState::ReadOnly,
            binding::VIRTIO_BLK_ZS_FULL => ZoneState::Full,
            binding::VIRTIO_BLK_ZS_OFFLINE => ZoneState::Offline,
            _ => return None,
        };
        let write_pointer = match state {
            ZoneState::Empty => Some(start),
            state if state.is_active() => {
                let pointer = Sector(descriptor.write_pointer.get());
                if !(start..=start + capacity).contains(&pointer) {
                    return None;
                }
                Some(pointer)
            }
            // Undefined for conventional, read-only, full and offline zones.
            _ => None,
        };
        Some(Zone {
            id,
            start,
            size,
            capacity,
            write_pointer,
            zone_type,
            state,
        })
    }
}

impl Descriptor {
    fn describe(&self) -> String {
        format!(
            "of type {} in state {} from {} with capacity {} and write pointer {}",
            self.zone_type, self.state, self.start, self.capacity, self.write_pointer
        )
    }
}
