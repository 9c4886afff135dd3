//! One virtqueue of a block device.

use vfio_virtio::{Data, DmaBuffer, Rejected, Result, Tail, Virtqueue};

use super::{RequestType, Status};
use crate::Sector;

/// A request that the device has returned.
#[derive(Debug)]
pub struct BlkCompletion {
    /// The slot that the request had.
    pub slot: u16,
    /// How it ended.
    pub status: Status,
    /// Its buffer.
    pub buffer: Option<DmaBuffer>,
}

/// A virtqueue that carries block requests.
#[derive(Debug)]
pub struct BlkQueue {
    ring: Virtqueue,
}

impl BlkQueue {
    /// Sends block requests through `ring`.
    pub fn new(ring: Virtqueue) -> Self {
        Self { ring }
    }

    /// How many requests can be in flight at once.
    pub fn slots(&self) -> u16 {
        self.ring.slots()
    }

    /// How many requests are in flight.
    #[inline]
    pub fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    /// How often the device has been notified.
    pub fn doorbells(&self) -> u64 {
        self.ring.doorbells()
    }

    /// Puts a request into the queue and returns its slot. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// As [`Virtqueue::push`].
    #[inline]
    pub fn push(
        &mut self,
        request_type: RequestType,
        sector: Sector,
        data: Data,
    ) -> Result<u16, Rejected> {
        // An append ends in a le64 and the status, all others in the status alone (VIRTIO 1.3,
        // 5.2.6).
        let tail = if request_type == RequestType::ZONE_APPEND {
            Tail::ValueAndStatus
        } else {
            Tail::Status
        };
        // le32 type, le32 reserved, le64 sector.
        let head = [u64::from(request_type.0), sector.0];
        self.ring.push(head, data, tail, Status::UNWRITTEN.0)
    }

    /// Shows the device all requests that were pushed, with one notification at the most.
    #[inline]
    pub fn commit(&mut self) {
        self.ring.commit();
    }

    /// The next request that the device has returned, if there is one.
    ///
    /// # Errors
    /// As [`Virtqueue::pop`].
    #[inline]
    pub fn pop(&mut self) -> Result<Option<BlkCompletion>> {
        Ok(self.ring.pop()?.map(|used| BlkCompletion {
            slot: used.slot,
            status: Status(self.ring.status(used.slot)),
            buffer: used.buffer,
        }))
    }

    /// Where the append that had `slot`, and just came back with [`Status::OK`], begins according
    /// to the device.
    #[inline]
    pub fn append_sector(&self, slot: u16) -> Sector {
        Sector(self.ring.value(slot))
    }

    /// As [`Virtqueue::abandon`].
    pub fn abandon(&mut self) -> Vec<u16> {
        self.ring.abandon()
    }
}
