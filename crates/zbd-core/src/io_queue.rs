//! The polled door: one queue, one thread, tokens.

use std::sync::Arc;

use vfio_virtio::{Data, DmaArena, DmaBuffer, RunningDevice};

use crate::{
    Completion, DeviceInfo, Error, ErrorKind, OpenOptions, Rejected, Request, Result, Sector,
    plan::{Plan, plan},
    virtio::{BlkCompletion, BlkQueue, Status},
};

/// After so many polls in a row that found nothing, the device is asked whether it still works.
/// Asking leaves the guest, so it must be rare; a failed device must be noticed all the same.
const POLLS_PER_CHECK: u32 = 1 << 16;

/// A queue of an open device, owned by one thread.
///
/// Requests are put in with [`submit`](Self::submit), shown to the device together with one
/// [`commit`](Self::commit), and come back from [`poll`](Self::poll) in any order. Nothing here
/// allocates, locks or calls the kernel.
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
    queue: BlkQueue,
    tags: Box<[Tag]>,
    info: Arc<DeviceInfo>,
    arena: DmaArena,
    /// Polls in a row that found nothing.
    idle_polls: u32,
    /// Why nothing more is taken from the device.
    broken: Option<(ErrorKind, String)>,
    /// The slots of the requests that a failed device will not return.
    abandoned: Vec<u16>,
    /// Last, so that it goes after the queue: the later of the two resets the device.
    device: Arc<RunningDevice>,
}

/// What is remembered of a request in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    token: u64,
    /// The sector that the request named.
    at: Sector,
    /// As in [`Plan`].
    append_limit: Option<Sector>,
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

    pub(crate) fn new(queue: BlkQueue, info: Arc<DeviceInfo>, device: Arc<RunningDevice>) -> Self {
        Self {
            tags: vec![Tag::default(); queue.slots().into()].into(),
            queue,
            info,
            arena: device.arena().clone(),
            idle_polls: 0,
            broken: None,
            abandoned: Vec::new(),
            device,
        }
    }

    /// What is known of the device.
    pub fn info(&self) -> &Arc<DeviceInfo> {
        &self.info
    }

    /// The DMA memory that buffers come from.
    pub fn memory(&self) -> &DmaArena {
        &self.arena
    }

    /// A buffer of DMA memory. Its contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when there is no piece of that size.
    pub fn buffer(&self, len_bytes: usize) -> Result<DmaBuffer> {
        Ok(self.arena.allocate(len_bytes)?)
    }

    /// How many requests can be in flight at once.
    pub fn depth(&self) -> u16 {
        self.queue.slots()
    }

    /// How many requests have been submitted and have not yet come back from [`poll`](Self::poll).
    #[inline]
    pub fn in_flight(&self) -> usize {
        if self.broken.is_some() {
            return self.abandoned.len();
        }
        usize::from(self.queue.in_flight())
    }

    /// How often the device has been notified of new requests.
    pub fn doorbells(&self) -> u64 {
        self.queue.doorbells()
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
    /// - [`ErrorKind::Protocol`], [`ErrorKind::DeviceGone`]: the device has failed.
    #[inline]
    pub fn submit(&mut self, request: Request, token: u64) -> Result<(), Rejected> {
        let plan = match plan(&self.info, &request) {
            Ok(plan) => plan,
            Err(error) => return Err(Rejected { error, request }),
        };
        let data = match request {
            Request::Write { buffer, .. } | Request::Append { buffer, .. } => {
                Data::ToDevice(buffer)
            }
            Request::Read { buffer, .. } | Request::Report { buffer, .. } => {
                Data::FromDevice(buffer)
            }
            Request::Flush | Request::Manage { .. } | Request::ResetAll => Data::None,
        };
        match self.queue.push(plan.request_type, plan.at, data) {
            Ok(slot) => {
                self.tags[usize::from(slot)] = Tag {
                    token,
                    at: plan.at,
                    append_limit: plan.append_limit,
                };
                Ok(())
            }
            Err(rejected) => Err(self.hand_back(plan, rejected)),
        }
    }

    #[cold]
    fn hand_back(&self, plan: Plan, rejected: vfio_virtio::Rejected) -> Rejected {
        let error = match (&self.broken, rejected.error.kind()) {
            (Some(_), _) => self.broken_error(),
            (None, vfio_virtio::ErrorKind::Busy) => Error::new(
                ErrorKind::QueueFull,
                format!("all {} slots of the queue are in use", self.depth()),
            ),
            (None, _) => rejected.error.into(),
        };
        Rejected {
            error,
            request: plan.into_request(&self.info, rejected.data),
        }
    }

    /// Shows the device all requests that were submitted, with one notification at the most.
    #[inline]
    pub fn commit(&mut self) {
        self.queue.commit();
    }

    /// The next request that has ended, if there is one.
    ///
    /// When the device fails, all requests in flight come back as errors, one a call. Their
    /// buffers do not: the device may still be using them.
    #[inline]
    pub fn poll(&mut self) -> Option<Completion> {
        match self.queue.pop() {
            Ok(Some(done)) => Some(self.complete(done)),
            Ok(None) => self.poll_idle(),
            Err(error) => self.poll_failed(error),
        }
    }

    #[inline]
    fn complete(&mut self, done: BlkCompletion) -> Completion {
        let tag = &self.tags[usize::from(done.slot)];
        let result = if done.status == Status::OK {
            match tag.append_limit {
                None => Ok(tag.at),
                Some(limit) => {
                    let sector = self.queue.append_sector(done.slot);
                    if (tag.at..=limit).contains(&sector) {
                        Ok(sector)
                    } else {
                        Err(stray_append(&self.info, tag, sector))
                    }
                }
            }
        } else {
            Err(refused(&self.info, tag, done.status))
        };
        self.idle_polls = 0;
        Completion {
            token: tag.token,
            result,
            buffer: done.buffer,
        }
    }

    #[inline]
    fn poll_idle(&mut self) -> Option<Completion> {
        self.idle_polls = self.idle_polls.wrapping_add(1);
        if self.idle_polls.is_multiple_of(POLLS_PER_CHECK) {
            return self.check_device();
        }
        None
    }

    #[cold]
    fn check_device(&mut self) -> Option<Completion> {
        if self.queue.in_flight() == 0 {
            return None;
        }
        match self.device.check_alive() {
            Ok(()) => None,
            Err(error) => self.poll_failed(error),
        }
    }

    /// Ends all requests in flight on the first call, and hands them out one by one.
    #[cold]
    fn poll_failed(&mut self, error: vfio_virtio::Error) -> Option<Completion> {
        if self.broken.is_none() {
            let error = Error::from(error);
            self.broken = Some((error.kind(), error.to_string()));
            self.abandoned = self.queue.abandon();
        }
        let slot = self.abandoned.pop()?;
        Some(Completion {
            token: self.tags[usize::from(slot)].token,
            result: Err(self.broken_error()),
            buffer: None,
        })
    }

    fn broken_error(&self) -> Error {
        match &self.broken {
            Some((kind, what)) => Error::new(*kind, what.clone()),
            None => Error::new(ErrorKind::DeviceGone, "the device has failed"),
        }
    }
}

/// The error of a request that the device did not carry out.
#[cold]
fn refused(info: &DeviceInfo, tag: &Tag, status: Status) -> Error {
    let (kind, what) = status.error().unwrap_or((ErrorKind::Protocol, "status OK"));
    Error::new(
        kind,
        format!("{}, request at sector {}: {what}", info.name, tag.at),
    )
}

/// The error of an append that the device put elsewhere than it was told to.
#[cold]
fn stray_append(info: &DeviceInfo, tag: &Tag, sector: Sector) -> Error {
    let zone_of = |sector| match info.zoned.as_ref().and_then(|zoned| zoned.zone_of(sector)) {
        Some(zone) => format!("zone {zone}"),
        None => "no zone".to_owned(),
    };
    Error::new(
        ErrorKind::Protocol,
        format!(
            "{}: an append to {} was put at sector {sector}, in {}; the device does not keep appends in their zone, and may have written over what belongs to others",
            info.name,
            zone_of(tag.at),
            zone_of(sector),
        ),
    )
}
