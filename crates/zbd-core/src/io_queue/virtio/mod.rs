//! A queue of a virtio-blk device: the request path.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use vfio_virtio::{Data, DmaArena, DmaBuffer, EventFd, RunningDevice};

use crate::{
    Completion, DeviceEvent, DeviceInfo, ErrorKind, Rejected, Request, Result, Sector,
    limits::{self, Plain},
    units::SECTOR_LEN,
    virtio::{BlkCompletion, BlkQueue, RequestType, Status, range},
};

mod rare;
mod tag;

use tag::{Due, NO_APPEND};

pub(crate) use tag::Tag;

/// After so many polls in a row that found nothing, the device is asked whether it still works.
/// Asking leaves the guest, so it must be rare; a failed device must be noticed all the same.
const POLLS_PER_CHECK: u32 = 1 << 16;
/// After so many, the clock is looked at for requests with a deadline, and whether the device has
/// announced something. That is cheaper.
const POLLS_PER_LOOK: u32 = 1 << 6;
/// A queue that always finds something looks after so many batches.
const COMMITS_PER_LOOK: u32 = 1 << 6;

/// A queue of a virtio-blk device. What its methods promise is said where they are public, in
/// [`IoQueue`](super::IoQueue).
#[derive(Debug)]
pub(crate) struct VirtioQueue {
    queue: BlkQueue<Tag>,
    info: Arc<DeviceInfo>,
    plain: Plain,
    arena: DmaArena,
    /// The bits that are not set in a sector at which a block begins.
    append_mask: u64,
    /// Polls in a row that found nothing.
    idle_polls: u32,
    commits: u32,
    /// Why nothing more is taken from the device.
    broken: Option<(ErrorKind, String)>,
    /// Requests that have ended otherwise than by the ring, to be handed out.
    ended: VecDeque<Completion>,
    /// What nobody waits for and the device has let go of, if that is to be [taken](Self::freed).
    freed: Vec<DmaBuffer>,
    keeps_freed: bool,
    /// How many requests the device has whose time was up.
    expired: usize,
    /// When the time of the first request is up; no later than that, perhaps earlier.
    next_due: Due,
    opened: Instant,
    events: VecDeque<DeviceEvent>,
    /// What the device had announced when it was last attended to.
    seen: u32,
    config_changes: u32,
    /// Last, so that it goes after the queue: the later of the two resets the device.
    device: Arc<RunningDevice>,
}

impl VirtioQueue {
    pub(crate) fn new(
        queue: BlkQueue<Tag>,
        info: Arc<DeviceInfo>,
        device: Arc<RunningDevice>,
    ) -> Self {
        Self {
            queue,
            append_mask: u64::from(info.block_size) / SECTOR_LEN - 1,
            plain: Plain::new(&info),
            info,
            arena: device.arena().clone(),
            idle_polls: 0,
            commits: 0,
            broken: None,
            ended: VecDeque::new(),
            freed: Vec::new(),
            keeps_freed: false,
            expired: 0,
            next_due: Due::NEVER,
            opened: Instant::now(),
            events: VecDeque::new(),
            // Whatever has been announced since the device was opened is still to be looked at.
            seen: 0,
            config_changes: 0,
            device,
        }
    }

    pub(crate) fn info(&self) -> &Arc<DeviceInfo> {
        &self.info
    }

    /// The device, which all of its queues share.
    pub(crate) fn device(&self) -> &Arc<RunningDevice> {
        &self.device
    }

    pub(crate) fn memory(&self) -> &DmaArena {
        &self.arena
    }

    pub(crate) fn keep_freed(&mut self) {
        self.keeps_freed = true;
    }

    pub(crate) fn freed(&mut self) -> &mut Vec<DmaBuffer> {
        &mut self.freed
    }

    pub(crate) fn depth(&self) -> u16 {
        self.queue.slots()
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        usize::from(self.queue.in_flight()) - self.expired + self.ended.len()
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.queue.in_flight() < self.queue.slots()
    }

    pub(crate) fn interrupt(&self) -> Option<&EventFd> {
        self.queue.interrupt()
    }

    /// Whether there is nothing to be polled; if so, an interrupt comes at the next completion.
    pub(crate) fn arm(&mut self) -> bool {
        let seen = self.seen;
        let is_idle = self.queue.arm();
        // What is announced from now on is an interrupt, too.
        self.look();
        is_idle && self.ended.is_empty() && self.seen == seen
    }

    pub(crate) fn disarm(&mut self) {
        self.queue.disarm();
    }

    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.next_due.remaining(self.opened.elapsed())
    }

    pub(crate) fn look_closely(&mut self, is_late: bool) {
        self.look();
        if is_late && self.broken.is_none() && self.queue.in_flight() > 0 {
            self.check_device();
        }
    }

    #[inline]
    pub(crate) fn returned(&self) -> u64 {
        self.queue.popped()
    }

    pub(crate) fn doorbells(&self) -> u64 {
        self.queue.doorbells()
    }

    // Where the kind of request is known, as it mostly is, all paths but one fold away.
    #[inline(always)]
    pub(crate) fn submit(&mut self, request: Request, token: u64) -> Result<(), Rejected> {
        self.accept(request, token, Due::NEVER)
    }

    #[inline(always)]
    fn accept(&mut self, request: Request, token: u64, due: Due) -> Result<(), Rejected> {
        // One path a kind of request, each with constants that the lower layers are compiled for.
        match request {
            Request::Append { zone, buffer } => {
                match self.plain.admit_append(&self.info, zone, &buffer) {
                    Some(place) => self.send_append(place, buffer, token, due),
                    None => self.submit_closely(Request::Append { zone, buffer }, token, due),
                }
            }
            Request::Read { at, buffer } if self.plain.admits_read(at, &buffer) => {
                let tag = Tag::new(token, at, due);
                self.send(RequestType::IN, Data::FromDevice(buffer), tag)
            }
            Request::Write { at, buffer } if self.plain.admits_write(at, &buffer) => {
                let tag = Tag::new(token, at, due);
                self.send(RequestType::OUT, Data::ToDevice(buffer), tag)
            }
            other => self.submit_closely(other, token, due),
        }
    }

    /// Submits what is not plain, or is not allowed, which is to be told.
    #[cold]
    #[inline(never)]
    fn submit_closely(&mut self, request: Request, token: u64, due: Due) -> Result<(), Rejected> {
        match request {
            Request::Append { zone, buffer } => match limits::append(&self.info, zone, &buffer) {
                Ok(place) => self.send_append(place, buffer, token, due),
                Err(error) => {
                    let request = Request::Append { zone, buffer };
                    Err(Rejected { error, request })
                }
            },
            Request::Read { at, buffer } => match limits::read(&self.info, at, &buffer) {
                Ok(()) => {
                    let tag = Tag::new(token, at, due);
                    self.send(RequestType::IN, Data::FromDevice(buffer), tag)
                }
                Err(error) => {
                    let request = Request::Read { at, buffer };
                    Err(Rejected { error, request })
                }
            },
            Request::Write { at, buffer } => match limits::write(&self.info, at, &buffer) {
                Ok(()) => {
                    let tag = Tag::new(token, at, due);
                    self.send(RequestType::OUT, Data::ToDevice(buffer), tag)
                }
                Err(error) => {
                    let request = Request::Write { at, buffer };
                    Err(Rejected { error, request })
                }
            },
            other => self.submit_command(other, token, due),
        }
    }

    #[cold]
    fn submit_command(&mut self, request: Request, token: u64, due: Due) -> Result<(), Rejected> {
        let (request_type, at) = match limits::command(&self.info, &request) {
            Ok(command) => command,
            Err(error) => return Err(Rejected { error, request }),
        };
        // Before a buffer is prepared, so that what comes back is as it was.
        if let Some(error) = self.refusal() {
            return Err(Rejected { error, request });
        }
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
            let (data, tag) = (
                Data::ToDevice(buffer),
                Tag::with_hidden_buffer(token, at, due),
            );
            return self
                .queue
                .push(request_type, Sector(0), data, tag)
                .map_err(|rejected| self.hand_back(request_type, at, rejected));
        }
        let data = match request {
            Request::Report { mut buffer, .. } => {
                // An earlier report that is still there must not be taken for the device's answer:
                // it begins with the number of zones.
                buffer.write_at(0, &[0; 8]);
                Data::FromDevice(buffer)
            }
            Request::GetId { mut buffer } | Request::GetLifetime { mut buffer } => {
                // Devices write no more than they have to say.
                buffer.fill(0);
                Data::FromDevice(buffer)
            }
            _ => Data::None,
        };
        self.send(request_type, data, Tag::new(token, at, due))
    }

    #[inline(always)]
    fn send_append(
        &mut self,
        (at, append_limit): (Sector, Sector),
        buffer: DmaBuffer,
        token: u64,
        due: Due,
    ) -> Result<(), Rejected> {
        let tag = Tag {
            token,
            at,
            append_limit,
            due,
        };
        self.send(RequestType::ZONE_APPEND, Data::ToDevice(buffer), tag)
    }

    #[inline(always)]
    fn send(&mut self, request_type: RequestType, data: Data, tag: Tag) -> Result<(), Rejected> {
        match self.queue.push(request_type, tag.at, data, tag) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(self.hand_back(request_type, tag.at, rejected)),
        }
    }

    #[inline]
    pub(crate) fn commit(&mut self) {
        self.queue.commit();
        self.commits = self.commits.wrapping_add(1);
        if self.commits.is_multiple_of(COMMITS_PER_LOOK) {
            self.look();
        }
    }

    /// The token, the sector and the buffer of the next request that was carried out; what ended
    /// otherwise goes to `out`.
    #[inline(always)]
    pub(crate) fn poll(
        &mut self,
        out: &mut Option<Completion>,
    ) -> Option<(u64, Sector, Option<DmaBuffer>)> {
        match self.queue.pop() {
            Ok(Some(done)) => {
                self.idle_polls = 0;
                if let Some(sector) = self.place(&done) {
                    return Some((done.context.token, sector, done.buffer));
                }
                self.complete_rare(done, out);
            }
            Ok(None) => {
                self.idle_polls = self.idle_polls.wrapping_add(1);
                if self.idle_polls.is_multiple_of(POLLS_PER_LOOK) || !self.ended.is_empty() {
                    self.look_around(out);
                }
            }
            Err(error) => self.poll_failed(error, out),
        }
        None
    }

    /// Where the data of a request that was carried out begin; nothing if there is something else
    /// to be said about it.
    #[inline(always)]
    fn place(&self, done: &BlkCompletion<Tag>) -> Option<Sector> {
        let tag = &done.context;
        if done.status != Status::OK {
            None
        } else if tag.append_limit == NO_APPEND {
            Some(tag.at)
        } else if (tag.at..=tag.append_limit).contains(&done.append_sector)
            && done.append_sector.0 & self.append_mask == 0
        {
            Some(done.append_sector)
        } else {
            None
        }
    }
}
