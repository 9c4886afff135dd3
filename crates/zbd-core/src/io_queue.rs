//! The polled door: one queue, one thread, tokens.

use std::sync::Arc;

use vfio_virtio::{Data, DmaArena, DmaBuffer, RunningDevice};

use crate::{
    Completion, DeviceInfo, Error, ErrorKind, OpenOptions, Rejected, Request, Result, Sector,
    ZoneAction, limits,
    units::SECTOR_LEN,
    virtio::{BlkCompletion, BlkQueue, RequestType, Status, range},
};

/// After so many polls in a row that found nothing, the device is asked whether it still works.
/// Asking leaves the guest, so it must be rare; a failed device must be noticed all the same.
const POLLS_PER_CHECK: u32 = 1 << 16;

/// A queue of an open device, owned by one thread.
///
/// Requests are put in with [`submit`](Self::submit), shown to the device together with one
/// [`commit`](Self::commit), and come back from [`poll`](Self::poll) in any order. Nothing here
/// allocates, locks or calls the kernel, but for requests that name a range: these take a page of
/// DMA memory.
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
    queue: BlkQueue<Tag>,
    info: Arc<DeviceInfo>,
    arena: DmaArena,
    /// The bits that are not set in a sector at which a block begins.
    append_mask: u64,
    /// Polls in a row that found nothing.
    idle_polls: u32,
    /// Why nothing more is taken from the device.
    broken: Option<(ErrorKind, String)>,
    /// The requests that a failed device will not return.
    abandoned: Vec<Tag>,
    /// Last, so that it goes after the queue: the later of the two resets the device.
    device: Arc<RunningDevice>,
}

/// What is remembered of a request in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tag {
    token: u64,
    /// The sector that the request named.
    at: Sector,
    /// The last sector at which the device may have put an append; [`NO_APPEND`] for others.
    append_limit: Sector,
}

/// Past the end of all devices.
const NO_APPEND: Sector = Sector(u64::MAX);
/// Set in the sector of a request whose buffer is not the caller's. No device has such a sector, so
/// with it no sector is one at which an append may have begun.
const HIDDEN_BUFFER: u64 = 1 << 63;

impl Tag {
    #[inline]
    fn new(token: u64, at: Sector) -> Self {
        Self {
            token,
            at,
            append_limit: NO_APPEND,
        }
    }

    /// For a request whose buffer the caller has not seen and will not see. It completes on the
    /// path of failures, so that the others need not tell it apart.
    fn with_hidden_buffer(token: u64, at: Sector) -> Self {
        Self {
            token,
            at: Sector(at.0 | HIDDEN_BUFFER),
            append_limit: Sector(0),
        }
    }

    fn has_hidden_buffer(&self) -> bool {
        self.at.0 & HIDDEN_BUFFER != 0
    }

    /// The sector that the request named.
    fn sector(&self) -> Sector {
        Sector(self.at.0 & !HIDDEN_BUFFER)
    }
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

    pub(crate) fn new(
        queue: BlkQueue<Tag>,
        info: Arc<DeviceInfo>,
        device: Arc<RunningDevice>,
    ) -> Self {
        Self {
            queue,
            append_mask: u64::from(info.block_size) / SECTOR_LEN - 1,
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

    /// The device, which all of its queues share.
    pub(crate) fn device(&self) -> &Arc<RunningDevice> {
        &self.device
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
    // Where the kind of request is known, as it mostly is, all paths but one fold away.
    #[inline(always)]
    pub fn submit(&mut self, request: Request, token: u64) -> Result<(), Rejected> {
        // One path a kind of request, each with constants that the lower layers are compiled for.
        match request {
            Request::Append { zone, buffer } => match limits::append(&self.info, zone, &buffer) {
                Ok((at, append_limit)) => {
                    let tag = Tag {
                        token,
                        at,
                        append_limit,
                    };
                    self.send(RequestType::ZONE_APPEND, Data::ToDevice(buffer), tag)
                }
                Err(error) => Err(Rejected {
                    error,
                    request: Request::Append { zone, buffer },
                }),
            },
            Request::Read { at, buffer } => match limits::read(&self.info, at, &buffer) {
                Ok(()) => self.send(
                    RequestType::IN,
                    Data::FromDevice(buffer),
                    Tag::new(token, at),
                ),
                Err(error) => Err(Rejected {
                    error,
                    request: Request::Read { at, buffer },
                }),
            },
            Request::Write { at, buffer } => match limits::write(&self.info, at, &buffer) {
                Ok(()) => self.send(
                    RequestType::OUT,
                    Data::ToDevice(buffer),
                    Tag::new(token, at),
                ),
                Err(error) => Err(Rejected {
                    error,
                    request: Request::Write { at, buffer },
                }),
            },
            other => self.submit_command(other, token),
        }
    }

    #[cold]
    fn submit_command(&mut self, request: Request, token: u64) -> Result<(), Rejected> {
        let (request_type, at) = match limits::command(&self.info, &request) {
            Ok(command) => command,
            Err(error) => return Err(Rejected { error, request }),
        };
        if let Some(range) = range::encode(&request) {
            let mut buffer = match self.arena.allocate(range.len()) {
                Ok(buffer) => buffer,
                Err(error) => {
                    let error = error.into();
                    return Err(Rejected { error, request });
                }
            };
            buffer.copy_from_slice(&range);
            // The sector is in the range; the header's stays 0 (VIRTIO 1.3, 5.2.6).
            let (data, tag) = (Data::ToDevice(buffer), Tag::with_hidden_buffer(token, at));
            return self
                .queue
                .push(request_type, Sector(0), data, tag)
                .map_err(|rejected| self.hand_back(request_type, at, rejected));
        }
        let data = match request {
            Request::Report { buffer, .. } => Data::FromDevice(buffer),
            Request::GetId { mut buffer } | Request::GetLifetime { mut buffer } => {
                // Devices write no more than they have to say.
                buffer.fill(0);
                Data::FromDevice(buffer)
            }
            _ => Data::None,
        };
        self.send(request_type, data, Tag::new(token, at))
    }

    #[inline(always)]
    fn send(&mut self, request_type: RequestType, data: Data, tag: Tag) -> Result<(), Rejected> {
        match self.queue.push(request_type, tag.at, data, tag) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(self.hand_back(request_type, tag.at, rejected)),
        }
    }

    /// A request that the queue did not take, as it was submitted.
    #[cold]
    fn hand_back(
        &self,
        request_type: RequestType,
        at: Sector,
        rejected: vfio_virtio::Rejected,
    ) -> Rejected {
        let error = match (&self.broken, rejected.error.kind()) {
            (Some(_), _) => self.broken_error(),
            (None, vfio_virtio::ErrorKind::Busy) => Error::new(
                ErrorKind::QueueFull,
                format!("all {} slots of the queue are in use", self.depth()),
            ),
            (None, _) => rejected.error.into(),
        };
        let zoned = self.info.zoned.as_ref();
        let zone = zoned
            .and_then(|zoned| zoned.zone_of(at))
            .unwrap_or_default();
        let manage = |action| Request::Manage { action, zone };
        let request = match (rejected.data, request_type) {
            (Data::ToDevice(buffer), RequestType::ZONE_APPEND) => Request::Append { zone, buffer },
            (Data::ToDevice(buffer), _) => match range::decode(request_type, &buffer) {
                Some(request) => request,
                None => Request::Write { at, buffer },
            },
            (Data::FromDevice(buffer), RequestType::ZONE_REPORT) => {
                Request::Report { from: at, buffer }
            }
            (Data::FromDevice(buffer), RequestType::GET_ID) => Request::GetId { buffer },
            (Data::FromDevice(buffer), RequestType::GET_LIFETIME) => {
                Request::GetLifetime { buffer }
            }
            (Data::FromDevice(buffer), _) => Request::Read { at, buffer },
            (Data::None, RequestType::ZONE_OPEN) => manage(ZoneAction::Open),
            (Data::None, RequestType::ZONE_CLOSE) => manage(ZoneAction::Close),
            (Data::None, RequestType::ZONE_FINISH) => manage(ZoneAction::Finish),
            (Data::None, RequestType::ZONE_RESET) => manage(ZoneAction::Reset),
            (Data::None, RequestType::ZONE_RESET_ALL) => Request::ResetAll,
            (Data::None, _) => Request::Flush,
        };
        Rejected { error, request }
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
    #[inline(always)]
    pub fn poll(&mut self) -> Option<Completion> {
        match self.queue.pop() {
            Ok(Some(done)) => Some(self.complete(done)),
            Ok(None) => self.poll_idle(),
            Err(error) => self.poll_failed(error),
        }
    }

    #[inline(always)]
    fn complete(&mut self, done: BlkCompletion<Tag>) -> Completion {
        let tag = done.context;
        self.idle_polls = 0;
        let result = if done.status != Status::OK {
            return self.complete_rare(done);
        } else if tag.append_limit == NO_APPEND {
            Ok(tag.at)
        } else if (tag.at..=tag.append_limit).contains(&done.append_sector)
            && done.append_sector.0 & self.append_mask == 0
        {
            Ok(done.append_sector)
        } else {
            return self.complete_rare(done);
        };
        Completion {
            token: tag.token,
            result,
            buffer: done.buffer,
        }
    }

    /// Completes what failed, and what has a hidden buffer.
    #[cold]
    #[inline(never)]
    fn complete_rare(&self, done: BlkCompletion<Tag>) -> Completion {
        let tag = done.context;
        let hidden = tag.has_hidden_buffer();
        let result = if done.status != Status::OK {
            Err(refused(&self.info, &tag, done.status))
        } else if hidden {
            Ok(tag.sector())
        } else {
            Err(stray_append(&self.info, &tag, done.append_sector))
        };
        Completion {
            token: tag.token,
            result,
            buffer: done.buffer.filter(|_| !hidden),
        }
    }

    #[inline]
    fn poll_idle(&mut self) -> Option<Completion> {
        self.idle_polls = self.idle_polls.wrapping_add(1);
        if self.idle_polls.is_multiple_of(POLLS_PER_CHECK) || self.broken.is_some() {
            return self.check_device();
        }
        None
    }

    #[cold]
    fn check_device(&mut self) -> Option<Completion> {
        if self.broken.is_some() {
            return self.next_abandoned();
        }
        if self.queue.in_flight() == 0 {
            return None;
        }
        match self.device.check_alive() {
            Ok(()) => None,
            Err(error) => self.poll_failed(error),
        }
    }

    /// Ends all requests in flight, to be handed out one by one.
    #[cold]
    fn poll_failed(&mut self, error: vfio_virtio::Error) -> Option<Completion> {
        if self.broken.is_none() {
            let error = Error::from(error);
            self.broken = Some((error.kind(), error.to_string()));
            self.abandoned = self.queue.abandon();
        }
        self.next_abandoned()
    }

    fn next_abandoned(&mut self) -> Option<Completion> {
        let tag = self.abandoned.pop()?;
        Some(Completion {
            token: tag.token,
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
        format!("{}, request at sector {}: {what}", info.name, tag.sector()),
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
            "{}: an append to {} came back with sector {sector}, in {}: the device puts appends where they do not belong, and may have written over what belongs to others",
            info.name,
            zone_of(tag.at),
            zone_of(sector),
        ),
    )
}
