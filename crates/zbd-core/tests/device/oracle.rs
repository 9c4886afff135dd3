//! What a zoned device must do, written down a second time and as simply as can be.

use zbd_core::{ErrorKind, ZoneAction, ZoneState};

pub(crate) const BLOCK: usize = 512;

/// One zone: what was written is all there is.
pub(crate) struct OracleZone {
    pub(crate) data: Vec<u8>,
    pub(crate) state: ZoneState,
}

/// Sequential zones of one size, without limits on how many are open.
pub(crate) struct Oracle {
    pub(crate) zones: Vec<OracleZone>,
    pub(crate) zone_blocks: usize,
    pub(crate) capacity_blocks: usize,
}

impl Oracle {
    pub(crate) fn new(zones: usize, zone_blocks: usize, capacity_blocks: usize) -> Self {
        let empty = || OracleZone {
            data: Vec::new(),
            state: ZoneState::Empty,
        };
        Self {
            zones: (0..zones).map(|_| empty()).collect(),
            zone_blocks,
            capacity_blocks,
        }
    }

    /// Writes at `block` of the zone, or at the write pointer, and yields the block.
    pub(crate) fn write(
        &mut self,
        zone: usize,
        block: Option<usize>,
        data: &[u8],
    ) -> Result<usize, ErrorKind> {
        let (zone_blocks, capacity) = (self.zone_blocks, self.capacity_blocks * BLOCK);
        let zone = &mut self.zones[zone];
        let pointer = zone.data.len() / BLOCK;
        let at = block.unwrap_or(pointer);
        if at * BLOCK + data.len() > zone_blocks * BLOCK || zone.state == ZoneState::Full {
            return Err(ErrorKind::InvalidZoneState);
        }
        if at != pointer {
            return Err(ErrorKind::UnalignedWritePointer);
        }
        if zone.data.len() + data.len() > capacity {
            return Err(ErrorKind::InvalidZoneState);
        }
        zone.data.extend_from_slice(data);
        if zone.data.len() == capacity {
            zone.state = ZoneState::Full;
        } else if zone.state != ZoneState::ExplicitlyOpen {
            zone.state = ZoneState::ImplicitlyOpen;
        }
        Ok(at)
    }

    /// Reads `blocks`, zeroes where nothing was written.
    pub(crate) fn read(
        &self,
        zone: usize,
        block: usize,
        blocks: usize,
    ) -> Result<Vec<u8>, ErrorKind> {
        if block + blocks > self.zone_blocks {
            return Err(ErrorKind::InvalidZoneState);
        }
        let data = self.zones[zone]
            .data
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        Ok(data.skip(block * BLOCK).take(blocks * BLOCK).collect())
    }

    pub(crate) fn manage(&mut self, action: ZoneAction, zone: usize) -> Result<(), ErrorKind> {
        let zone = &mut self.zones[zone];
        let refused = Err(ErrorKind::InvalidZoneState);
        zone.state = match (action, zone.state) {
            (ZoneAction::Reset, _) => {
                zone.data.clear();
                ZoneState::Empty
            }
            (ZoneAction::Finish, _) => ZoneState::Full,
            (_, ZoneState::Full) => return refused,
            (ZoneAction::Open, _) => ZoneState::ExplicitlyOpen,
            (ZoneAction::Close, ZoneState::Empty) => return refused,
            (ZoneAction::Close, _) if zone.data.is_empty() => ZoneState::Empty,
            (ZoneAction::Close, _) => ZoneState::Closed,
        };
        Ok(())
    }

    pub(crate) fn reset_all(&mut self) {
        for zone in 0..self.zones.len() {
            // Cannot be refused.
            let _ = self.manage(ZoneAction::Reset, zone);
        }
    }
}
