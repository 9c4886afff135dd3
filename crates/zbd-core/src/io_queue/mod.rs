//! The polled door: one queue, one thread, tokens.

use std::{sync::Arc, time::Duration};

use vfio_virtio::{DmaArena, DmaBuffer, RunningDevice};

use crate::{
    Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, OpenOptions, Rejected, Request, Result,
    WriteCache, cache, kernel::KernelQueue,
};

mod virtio;
mod waiting;

pub(crate) use virtio::{Tag, VirtioQueue};
pub(crate) use waiting::{CHECK_TIME, LOOKS_PER_PAUSE, NAP, watched};

use waiting::Rest;

/// A queue of an open device, owned by one thread.
///
/// Requests are put in with [`submit`](Self::submit), shown to the device together with one
/// [`commit`](Self::commit), and come back from [`poll`](Self::poll) in any order. Of a virtio-blk
/// device, nothing here allocates, locks or calls the kernel, but for requests that name a range:
/// these take a page of DMA memory.
///
/// Dropping the queue with requests in flight is safe: their buffers go back to the pool when the
/// device has been reset, which happens when all of its queues and handles have been dropped.
/// Whether such a request was carried out is not known then.
///
/// ```
/// use zbd_core::{IoQueue, Request, ZoneId};
///
/// let mut queue = IoQueue::open("emu:")?;
/// for token in 0..8 {
///     let mut buffer = queue.buffer(4096)?;
///     buffer.fill(token as u8);
///     queue.submit(Request::Append { zone: ZoneId(0), buffer }, token)?;
/// }
/// queue.commit();
/// while queue.in_flight() > 0 {
///     if let Some(done) = queue.poll() {
///         println!("request {} went to sector {}", done.token, done.result?);
///     }
/// }
/// # Ok::<(), zbd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct IoQueue {
    queue: Queue,
    /// What a slower path hands to [`poll`](Self::poll); empty otherwise.
    out: Option<Completion>,
    rest: Rest,
}

/// What does the work.
#[expect(
    clippy::large_enum_variant,
    reason = "the request path does without another pointer to follow"
)]
#[derive(Debug)]
enum Queue {
    Virtio(VirtioQueue),
    Kernel(Box<KernelQueue>),
}

impl From<VirtioQueue> for IoQueue {
    fn from(queue: VirtioQueue) -> Self {
        Self {
            rest: Rest::new(queue.info().wait),
            queue: Queue::Virtio(queue),
            out: None,
        }
    }
}

impl From<KernelQueue> for IoQueue {
    fn from(queue: KernelQueue) -> Self {
        Self {
            rest: Rest::new(queue.info().wait),
            queue: Queue::Kernel(queue.into()),
            out: None,
        }
    }
}

/// Calls a method that both back ends have.
macro_rules! of_either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &$self.queue {
            Queue::Virtio(queue) => queue.$method($($argument),*),
            Queue::Kernel(queue) => queue.$method($($argument),*),
        }
    };
    (mut $self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.queue {
            Queue::Virtio(queue) => queue.$method($($argument),*),
            Queue::Kernel(queue) => queue.$method($($argument),*),
        }
    };
}

impl IoQueue {
    /// Opens the device that `spec` names (see [`DeviceSpec`](crate::DeviceSpec)) with one queue.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(spec: &str) -> Result<Self> {
        let queue = OpenOptions::default().open(&spec.parse()?)?.pop();
        queue.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{spec} has no queues")))
    }

    /// What is known of the device. When it [is resized](DeviceEvent::Resized), something else.
    pub fn info(&self) -> &Arc<DeviceInfo> {
        of_either!(self.info())
    }

    /// The virtio device, which all of its queues share.
    pub(crate) fn device(&self) -> Option<&Arc<RunningDevice>> {
        match &self.queue {
            Queue::Virtio(queue) => Some(queue.device()),
            Queue::Kernel(_) => None,
        }
    }

    /// The DMA memory that buffers come from.
    pub fn memory(&self) -> &DmaArena {
        of_either!(self.memory())
    }

    /// A buffer of DMA memory. Its contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when there is no piece of that size.
    pub fn buffer(&self, len_bytes: usize) -> Result<DmaBuffer> {
        Ok(self.memory().allocate(len_bytes)?)
    }

    /// How many requests can be in flight at once.
    pub fn depth(&self) -> u16 {
        of_either!(self.depth())
    }

    /// How many requests have been submitted and have not yet come back from [`poll`](Self::poll).
    #[inline]
    pub fn in_flight(&self) -> usize {
        of_either!(self.in_flight())
    }

    /// Whether another request of one segment can be submitted now; one of several may need more
    /// room where chains are direct. Requests whose time was up hold their slots until the device
    /// has returned them.
    #[inline]
    pub fn has_room(&self) -> bool {
        of_either!(self.has_room())
    }

    /// How often the device has been notified of new requests.
    pub fn doorbells(&self) -> u64 {
        of_either!(self.doorbells())
    }

    /// Accepts a request, to be returned under `token`. The device sees it after the next
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// The request comes back, and the device has not seen it:
    /// - [`ErrorKind::QueueFull`]: poll and submit again.
    /// - [`ErrorKind::InvalidRequest`]: the request is outside what the device allows.
    /// - [`ErrorKind::Unsupported`]: the device knows no such request.
    /// - [`ErrorKind::ReadOnly`]: the device cannot be written.
    /// - [`ErrorKind::Protocol`], [`ErrorKind::NeedsReset`], [`ErrorKind::DeviceGone`]: the device
    ///   has failed.
    // Where the kind of request is known, as it mostly is, all paths but one fold away.
    #[inline(always)]
    pub fn submit(&mut self, request: Request, token: u64) -> Result<(), Rejected> {
        match &mut self.queue {
            Queue::Virtio(queue) => queue.submit(request, token),
            Queue::Kernel(queue) => submit_to_kernel(queue, request, token),
        }
    }

    /// Accepts a request that ends as [`ErrorKind::Timeout`] if the device has not returned it
    /// after `timeout`; otherwise as [`submit`](Self::submit).
    ///
    /// The time is looked at while polls find nothing and when requests are committed, in
    /// milliseconds. A request whose time was up is not taken back from the device, which knows no
    /// such thing: it may still be carried out, and its slot and its buffer stay with the device
    /// until that has returned it or has been [reset](Self::recover).
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_within(
        &mut self,
        request: Request,
        token: u64,
        timeout: Duration,
    ) -> Result<(), Rejected> {
        match &mut self.queue {
            Queue::Virtio(queue) => queue.submit_within(request, token, timeout),
            Queue::Kernel(queue) => queue.submit(request, token, Some(timeout)),
        }
    }

    /// Shows the device all requests that were submitted, with one notification at the most.
    #[inline]
    pub fn commit(&mut self) {
        of_either!(mut self.commit());
    }

    /// The next request that has ended, if there is one.
    ///
    /// When the device fails, all requests in flight come back as errors, one a call. Their
    /// buffers do not: the device may still be using them until it has been
    /// [reset](Self::recover).
    #[inline(always)]
    pub fn poll(&mut self) -> Option<Completion> {
        // What is not as simple comes by way of a field, so that the simple is made in registers.
        match &mut self.queue {
            Queue::Virtio(queue) => {
                if let Some((token, sector, buffer)) = queue.poll(&mut self.out) {
                    return Some(Completion {
                        token,
                        result: Ok(sector),
                        buffer,
                    });
                }
            }
            Queue::Kernel(queue) => poll_kernel(queue, &mut self.out),
        }
        self.out.take()
    }

    /// Resets the device and sets it up again, for all of its queues: what to do about a device
    /// that does not return requests, asks for a reset, or broke the rules.
    ///
    /// Afterwards [`poll`](Self::poll) ends all requests that were in flight: those that the device
    /// had returned as they ended, the others with [`ErrorKind::DeviceReset`], and all with their
    /// buffers. The owners of the device's other queues find the same when they poll, and until
    /// then what they submit ends likewise. Data that were not flushed may be lost.
    ///
    /// Takes as long as the device takes to finish what it cannot break off: QEMU, for one, waits
    /// for its storage, and the virtual processor that asked stands still meanwhile.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`], [`ErrorKind::DeviceGone`]: the device does not confirm its reset.
    ///   Nothing has changed; the buffers of the requests in flight stay with the device.
    /// - [`ErrorKind::Unsupported`]: the kernel drives the device, and resets it when need be.
    /// - Others: the device was reset but cannot be set up again. Its requests have ended.
    pub fn recover(&mut self) -> Result<()> {
        of_either!(mut self.recover())
    }

    /// Resets this queue alone (RING_RESET) and sets it up again; otherwise as
    /// [`recover`](Self::recover).
    ///
    /// Only for a device that is known to let go of the queue's memory, as the specification wants
    /// it. QEMU 10.0 does not: it forgets the ring, goes on with the requests that it has begun,
    /// and writes into their buffers, which are somebody else's by then.
    ///
    /// # Errors
    /// As [`recover`](Self::recover), and [`ErrorKind::Unsupported`] without RING_RESET.
    pub fn recover_queue(&mut self) -> Result<()> {
        match &mut self.queue {
            Queue::Virtio(queue) => queue.recover_queue(),
            Queue::Kernel(queue) => queue.recover(),
        }
    }

    /// The next thing that the device has announced, if there is one. Polling finds out.
    pub fn next_event(&mut self) -> Option<DeviceEvent> {
        of_either!(mut self.next_event())
    }

    /// Why the device is gone for good, if it is: the queue is to be dropped then.
    pub fn is_gone(&self) -> Option<&str> {
        of_either!(self.is_gone())
    }

    /// Attends to what the device has announced.
    pub(crate) fn attend(&mut self) {
        of_either!(mut self.attend());
    }

    /// From now on buffers that nobody waits for are not dropped by the queue: see
    /// [`freed`](Self::freed).
    pub(crate) fn keep_freed(&mut self) {
        of_either!(mut self.keep_freed());
    }

    /// Buffers that nobody waits for. Who waits for memory is woken when they are dropped, which may
    /// run foreign code: that is better done where nothing is borrowed.
    pub(crate) fn freed(&mut self) -> &mut Vec<DmaBuffer> {
        of_either!(mut self.freed())
    }

    /// Whether the device has requests whose time was up.
    pub(crate) fn has_expired(&self) -> bool {
        of_either!(self.has_expired())
    }

    /// The present mode of the device's write cache. Asks the device where that can be switched.
    ///
    /// # Errors
    /// When the device's registers cannot be read.
    pub fn write_cache(&self) -> Result<WriteCache> {
        cache::get(self.device().map(Arc::as_ref), self.info())
    }

    /// Switches the mode of the device's write cache, for all of its queues.
    ///
    /// A write in flight meanwhile may end in either mode. Writes that were completed in writeback
    /// mode are made durable by a flush only, not by switching to writethrough. The mode outlives a
    /// [`recover`](Self::recover); where the device does not take it up again, that fails.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: the cache cannot be switched (no CONFIG_WCE).
    /// - [`ErrorKind::Protocol`]: the device stays in the other mode.
    pub fn set_write_cache(&mut self, mode: WriteCache) -> Result<()> {
        cache::set(self.device().map(Arc::as_ref), self.info(), mode)
    }
}

// Out of line, so that the path of the other back end is as if there were none.
#[cold]
#[inline(never)]
fn submit_to_kernel(queue: &mut KernelQueue, request: Request, token: u64) -> Result<(), Rejected> {
    queue.submit(request, token, None)
}

#[cold]
#[inline(never)]
fn poll_kernel(queue: &mut KernelQueue, out: &mut Option<Completion>) {
    *out = queue.poll();
}
