//! One virtqueue of a block device.

use vfio_virtio::{Data, DmaBuffer, Ended, EventFd, Rejected, Result, Tail, Virtqueue};

use super::{RequestType, Status};
use crate::Sector;

/// A request that the device has returned.
#[derive(Debug)]
pub struct BlkCompletion<C> {
    /// What the request was pushed with.
    pub context: C,
    /// How it ended.
    pub status: Status,
    /// Where the device says that it put the data, if the request was an append and the status is
    /// [`Status::OK`]; without meaning otherwise.
    pub append_sector: Sector,
    /// Its buffer.
    pub buffer: Option<DmaBuffer>,
}

/// A virtqueue that carries block requests.
#[derive(Debug)]
pub struct BlkQueue<C> {
    ring: Virtqueue<C>,
}

impl<C: Copy + Default> BlkQueue<C> {
    /// Sends block requests through `ring`.
    pub fn new(ring: Virtqueue<C>) -> Self {
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

    /// Puts a request into the queue. The device sees it after the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// As [`Virtqueue::push`].
    #[inline(always)]
    pub fn push(
        &mut self,
        request_type: RequestType,
        sector: Sector,
        data: Data,
        context: C,
    ) -> Result<(), Rejected> {
        // An append ends in a le64 and the status, all others in the status alone (VIRTIO 1.3,
        // 5.2.6).
        let tail = if request_type == RequestType::ZONE_APPEND {
            Tail::ValueAndStatus
        } else {
            Tail::Status
        };
        // le32 type, le32 reserved, le64 sector.
        let head = [u64::from(request_type.0), sector.0];
        self.ring
            .push(head, data, tail, Status::UNWRITTEN.0, context)
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
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<BlkCompletion<C>>> {
        Ok(self.ring.pop()?.map(|used| BlkCompletion {
            context: used.context,
            status: Status(used.status),
            append_sector: Sector(used.value),
            buffer: used.buffer,
        }))
    }

    /// As [`Virtqueue::abandon`].
    pub fn abandon(&mut self) -> Vec<C> {
        self.ring.abandon()
    }

    /// As [`Virtqueue::contexts_mut`].
    pub fn contexts_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.ring.contexts_mut()
    }

    /// As [`Virtqueue::is_stale`].
    pub fn is_stale(&self) -> bool {
        self.ring.is_stale()
    }

    /// As [`Virtqueue::renew`].
    pub fn renew(&mut self) -> (Vec<Ended<C>>, Result<()>) {
        self.ring.renew()
    }

    /// As [`Virtqueue::interrupt`].
    pub fn interrupt(&self) -> Option<&EventFd> {
        self.ring.interrupt()
    }

    /// As [`Virtqueue::arm`].
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    /// As [`Virtqueue::disarm`].
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// As [`Virtqueue::popped`].
    #[inline]
    pub fn popped(&self) -> u64 {
        self.ring.popped()
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.ring.index()
    }
}
