//! The limits of what most requests are, side by side for the request path.

use vfio_virtio::DmaBuffer;

use crate::{DeviceInfo, Sector, SectorCount, ZoneId, ZoneType, units::SECTOR_LEN};

/// What a plain request may be: one of a single segment. What does not pass here may still be
/// allowed, and is looked at closely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    block_mask: u32,
    granularity_mask: u32,
    /// The greatest lengths in bytes; 0 where a closer look is needed. No more than the device has.
    max_read: u32,
    max_write: u32,
    max_append: u32,
    capacity: u64,
}

impl Plain {
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        let capacity_bytes = u32::try_from(info.capacity.bytes()).unwrap_or(u32::MAX);
        let max_read = info.max_transfer.min(info.max_segment).min(capacity_bytes);
        let zoned = info.zoned.as_ref();
        let is_granular = zoned.is_none_or(|zoned| zoned.write_granularity <= info.block_size);
        let max_append = zoned.map_or(0, |zoned| {
            let bytes = u32::try_from(zoned.max_append.bytes()).unwrap_or(u32::MAX);
            bytes.min(info.max_segment)
        });
        Self {
            block_mask: info.block_size - 1,
            granularity_mask: zoned.map_or(u32::MAX, |zoned| zoned.granularity_mask),
            max_read,
            max_write: if is_granular && !info.read_only {
                max_read
            } else {
                0
            },
            max_append: if info.read_only { 0 } else { max_append },
            capacity: info.capacity.0,
        }
    }

    #[inline(always)]
    pub(crate) fn admits_read(&self, at: Sector, buffer: &DmaBuffer) -> bool {
        self.admits(at, buffer, self.max_read)
    }

    #[inline(always)]
    pub(crate) fn admits_write(&self, at: Sector, buffer: &DmaBuffer) -> bool {
        self.admits(at, buffer, self.max_write)
    }

    #[inline(always)]
    fn admits(&self, at: Sector, buffer: &DmaBuffer, max: u32) -> bool {
        let len = buffer.len() as u32;
        // Bits that neither the length nor the sector, taken as bytes, may have.
        let odd = (u64::from(len) | at.0.wrapping_mul(SECTOR_LEN)) & u64::from(self.block_mask);
        odd == 0
            && len <= max
            // A length of no more than the device has leaves something here.
            && at.0 <= self.capacity.wrapping_sub(u64::from(len) / SECTOR_LEN)
            && buffer.is_contiguous()
    }

    /// The first and the last sector at which an append may begin, if it is a plain one.
    #[inline(always)]
    pub(crate) fn admit_append(
        &self,
        info: &DeviceInfo,
        zone: ZoneId,
        buffer: &DmaBuffer,
    ) -> Option<(Sector, Sector)> {
        let len = buffer.len() as u32;
        if len & self.granularity_mask != 0 || len > self.max_append || !buffer.is_contiguous() {
            return None;
        }
        let zoned = info.zoned.as_ref()?;
        let sectors = SectorCount(u64::from(len) / SECTOR_LEN);
        let shape = zoned.shapes.get(zone.0 as usize)?;
        if sectors > shape.capacity || shape.zone_type != ZoneType::SequentialRequired {
            return None;
        }
        let start = zoned.start(zone);
        Some((start, Sector(start.0 + (shape.capacity.0 - sectors.0))))
    }
}
