//! The back end for block devices of the kernel: requests go through io_uring, past the page
//! cache, from and to registered memory; zone commands and reports through ioctls.
//!
//! It keeps what the virtio back end promises, with the kernel in the place of the device. Three
//! things it does itself:
//!
//! - **Appends** are writes at the write pointer, one at a time in each zone; `turns` says whose
//!   turn it is. All queues of a device take part, other processes do not: the device is opened for
//!   exclusive use, which keeps away those who ask for it, too.
//! - **What blocks** is called by a thread of the device's own, the `worker`, never by a queue's.
//! - **Errors.** The kernel has one, EIO, for most of what virtio-blk tells apart. A write to a
//!   sequential zone that fails is followed by a report of the zone, which says what was wrong, and
//!   without which Linux lets nobody write there any more.

use std::{
    collections::VecDeque,
    mem,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use vfio_virtio::{DmaArena, DmaBuffer, EventFd};

use crate::{
    Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, OpenOptions, Rejected, Request, Result,
    SECTOR_LEN, Sector, SectorCount, ZoneType, limits,
};

mod device;
mod fault;
mod ioctl;
mod lane;
mod open;
mod report;
mod ring;
mod sysfs;
#[cfg(test)]
mod tests;
mod turns;
mod visit;
mod worker;

use device::{Device, Handle};
use lane::{Entry, Work};
use visit::Visit;

/// After so many polls in a row that found nothing, the device is looked at: whether it is there,
/// and how large it is.
const POLLS_PER_CHECK: u32 = 1 << 16;
/// After so many, the clock is looked at for requests with a deadline.
const POLLS_PER_LOOK: u32 = 1 << 6;
/// How many events are kept for whoever asks; the oldest go first.
const EVENTS_KEPT: usize = 16;

/// A queue of a block device of the kernel: an io_uring.
pub(crate) struct KernelQueue {
    lane: u16,
    info: Arc<DeviceInfo>,
    /// What has ended and was taken out of the lane.
    out: VecDeque<Completion>,
    /// What nobody waits for, if that is to be [taken](Self::freed).
    freed: Vec<DmaBuffer>,
    keeps_freed: bool,
    events: VecDeque<DeviceEvent>,
    /// Polls in a row that found nothing.
    idle_polls: u32,
    returned: u64,
    /// The owner has been told that the device is gone.
    is_told: bool,
    /// The last of the queues' closes the device.
    handle: Arc<Handle>,
}

impl KernelQueue {
    /// Opens a block device with as many queues as the options say.
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Vec<Self>> {
        let handle = Arc::new(Handle::new(open::open(path, options)?)?);
        Ok((0..options.queues)
            .map(|lane| Self {
                lane,
                info: Arc::clone(&handle.device.info),
                out: VecDeque::new(),
                freed: Vec::new(),
                keeps_freed: false,
                events: VecDeque::new(),
                idle_polls: 0,
                returned: 0,
                is_told: false,
                handle: Arc::clone(&handle),
            })
            .collect())
    }

    fn device(&self) -> &Arc<Device> {
        &self.handle.device
    }

    pub(crate) fn info(&self) -> &Arc<DeviceInfo> {
        &self.info
    }

    pub(crate) fn memory(&self) -> &DmaArena {
        &self.device().arena
    }

    pub(crate) fn depth(&self) -> u16 {
        self.info.queue_depth
    }

    pub(crate) fn in_flight(&self) -> usize {
        let state = self.lane().lock();
        state.used() - state.expired + state.ended.len() + self.out.len()
    }

    pub(crate) fn has_room(&self) -> bool {
        let state = self.lane().lock();
        state.used() + state.ended.len() + self.out.len() < usize::from(self.depth())
    }

    fn lane(&self) -> &lane::Lane {
        &self.device().lanes[usize::from(self.lane)]
    }

    /// How often requests were handed to the kernel.
    pub(crate) fn doorbells(&self) -> u64 {
        self.lane().lock().ring.enters()
    }

    pub(crate) fn submit(
        &mut self,
        request: Request,
        token: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Rejected> {
        let (work, at, len) = match self.accept(&request) {
            Ok(accepted) => accepted,
            Err(error) => return Err(Rejected { error, request }),
        };
        let copy = match self.copy_if_odd(&request) {
            Ok(copy) => copy,
            Err(error) => return Err(Rejected { error, request }),
        };
        let buffer = request.into_buffer().map(|mut buffer| {
            if work == Work::Report {
                // An earlier report that is still there must not be taken for the answer.
                buffer.write_at(0, &[0; 8]);
            }
            buffer
        });
        let (buffer, original) = match copy {
            Some(copy) => (Some(copy), buffer),
            None => (buffer, None),
        };
        let entry = Entry {
            token,
            work,
            at,
            len,
            buffer,
            original,
            due: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        // There is room: it was looked for, and nobody else submits here.
        let staged = self.lane().lock().stage(entry);
        debug_assert!(staged.is_some());
        Ok(())
    }

    /// Checks a request and says what it is.
    fn accept(&self, request: &Request) -> Result<(Work, Sector, SectorCount)> {
        let info = &self.info;
        let sectors = |buffer: &DmaBuffer| SectorCount(buffer.len() as u64 / SECTOR_LEN);
        let none = SectorCount(0);
        let accepted = match request {
            Request::Read { at, buffer } => {
                limits::read(info, *at, buffer)?;
                if buffer.is_read_only() {
                    return Err(Error::new(
                        ErrorKind::InvalidRequest,
                        "the data would be read into a buffer that was lent from bytes; use an allocated one",
                    ));
                }
                (Work::Read, *at, sectors(buffer))
            }
            Request::Write { at, buffer } => {
                limits::write(info, *at, buffer)?;
                let zone = info.zoned.as_ref().and_then(|zoned| {
                    zoned
                        .zone_of(*at)
                        .filter(|zone| zoned.zone_type(*zone) == Some(ZoneType::SequentialRequired))
                });
                (Work::Write(zone), *at, sectors(buffer))
            }
            Request::Append { zone, buffer } => {
                let (at, _) = limits::append(info, *zone, buffer)?;
                (Work::Append(*zone), at, sectors(buffer))
            }
            // The kernel flushes any device, one without a volatile cache by doing nothing.
            Request::Flush => (Work::Flush, Sector(0), none),
            other => {
                let (_, at) = limits::command(info, other)?;
                match other {
                    Request::Report { .. } => (Work::Report, at, none),
                    Request::Manage { action, zone } => (Work::Manage(*action, *zone), at, none),
                    Request::ResetAll => (Work::ResetAll, at, none),
                    Request::Discard { len, .. } => (Work::Discard, at, *len),
                    Request::WriteZeroes { len, unmap, .. } => (Work::Zeroes(*unmap), at, *len),
                    Request::GetId { .. } if self.device().directory.serial().is_some() => {
                        (Work::Id, at, none)
                    }
                    _ => {
                        return Err(Error::new(
                            ErrorKind::Unsupported,
                            format!("the kernel does not tell that of {}", info.name),
                        ));
                    }
                }
            }
        };
        if let Request::Read { buffer, .. }
        | Request::Write { buffer, .. }
        | Request::Append { buffer, .. } = request
        {
            self.check_memory(buffer)?;
        }
        if let Some(why) = self.device().gone.get() {
            return Err(Error::new(ErrorKind::DeviceGone, why));
        }
        if !self.has_room() {
            return Err(self.full());
        }
        Ok(accepted)
    }

    /// Buffers of other devices are refused here as everywhere.
    fn check_memory(&self, buffer: &DmaBuffer) -> Result<()> {
        let memory = self.memory().memory();
        let is_inside = |at: usize, len: u32| {
            let offset = at.wrapping_sub(memory.as_ptr().addr());
            offset
                .checked_add(len as usize)
                .is_some_and(|end| end <= memory.len_bytes())
        };
        // The first by where it is; the others by where they say, which is the same in this memory.
        let mut segments = buffer.segments();
        if is_inside(buffer.as_ptr().addr(), 0)
            && segments.all(|segment| is_inside(segment.iova.0 as usize, segment.len_bytes))
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "the buffer is from the memory of another device; take one from {}",
                self.info.name
            ),
        ))
    }

    /// A copy of data that lie where the kernel does not take them past the page cache: buffers
    /// that were lent from bytes may begin anywhere.
    fn copy_if_odd(&self, request: &Request) -> Result<Option<DmaBuffer>> {
        let (Request::Read { buffer, .. }
        | Request::Write { buffer, .. }
        | Request::Append { buffer, .. }) = request
        else {
            return Ok(None);
        };
        // Segments lie as far apart for the device as here: the arena is where it is.
        let mut segments = buffer.segments();
        if segments.all(|segment| segment.iova.0 as usize & self.device().alignment == 0) {
            return Ok(None);
        }
        if matches!(request, Request::Read { .. }) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{} is read only to memory at multiples of {} bytes; use an allocated buffer",
                    self.info.name,
                    self.device().alignment + 1
                ),
            ));
        }
        let mut copy = self.memory().allocate(buffer.len())?;
        copy.copy_from_slice(&buffer.to_vec());
        Ok(Some(copy))
    }

    fn full(&self) -> Error {
        let depth = self.depth();
        let what = match self.lane().lock().expired {
            0 => format!("all {depth} slots of the queue are in use"),
            expired => format!(
                "all {depth} slots of the queue are in use, {expired} of them by requests whose time was up and which the kernel has not returned yet"
            ),
        };
        Error::new(ErrorKind::QueueFull, what)
    }

    pub(crate) fn commit(&mut self) {
        let is_timed = self.device().visit_own(self.lane, |visit| {
            visit.begin_all();
            visit.state.next_due.is_some()
        });
        if is_timed {
            self.look();
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Completion> {
        if self.out.is_empty() {
            self.collect();
        }
        let done = self.out.pop_front();
        if done.is_some() {
            self.idle_polls = 0;
            return done;
        }
        self.idle_polls = self.idle_polls.wrapping_add(1);
        if self.idle_polls.is_multiple_of(POLLS_PER_LOOK) {
            self.look();
            if self.idle_polls.is_multiple_of(POLLS_PER_CHECK) && self.in_flight() > 0 {
                self.attend();
            }
            self.take();
        }
        self.out.pop_front()
    }

    /// Takes what has ended; helps those on whom this queue depends, if nothing has.
    fn collect(&mut self) {
        let is_waiting = self.device().visit_own(self.lane, |visit| {
            visit.drain();
            visit.state.ended.is_empty() && visit.state.queued > 0
        });
        self.take();
        if is_waiting && self.out.is_empty() && self.device().lanes.len() > 1 {
            self.device().help_others(self.lane);
            self.take();
        }
    }

    fn take(&mut self) {
        let device = &self.handle.device;
        let mut state = device.lanes[usize::from(self.lane)].lock();
        self.returned += state.ended.len() as u64;
        match self.out.is_empty() {
            true => mem::swap(&mut self.out, &mut state.ended),
            false => self.out.append(&mut state.ended),
        }
        if state.freed.is_empty() {
            return;
        }
        let freed = mem::take(&mut state.freed);
        drop(state);
        if self.keeps_freed {
            self.freed.extend(freed);
        }
    }

    pub(crate) fn keep_freed(&mut self) {
        self.keeps_freed = true;
    }

    pub(crate) fn freed(&mut self) -> &mut Vec<DmaBuffer> {
        &mut self.freed
    }

    /// Looks for times that are up, and whether the device is gone.
    fn look(&mut self) {
        let now = Instant::now();
        self.device()
            .visit_own(self.lane, |visit| visit.expire(now));
        if let Some(why) = self.handle.device.gone.get()
            && !self.is_told
        {
            self.is_told = true;
            self.device().visit_own(self.lane, |visit| {
                visit.withdraw_all(ErrorKind::DeviceGone, why);
            });
            self.announce(DeviceEvent::Gone);
        }
    }

    fn announce(&mut self, event: DeviceEvent) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// How long it is until the time of a request is up.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let due = self.lane().lock().next_due?;
        // Up to the next whole millisecond, so that the time is up when that has passed.
        let left = due.saturating_duration_since(Instant::now());
        Some(left + Duration::from_millis(1))
    }

    /// How many requests have come back from the kernel.
    pub(crate) fn returned(&self) -> u64 {
        self.returned
    }

    /// Lets [`interrupt`](Self::interrupt) be signalled at the next completion. False if there is
    /// something to be polled already, or if it cannot be signalled: then there is nothing to wait
    /// for.
    ///
    /// A completion that the kernel posts after this has looked is signalled. The event is cleared
    /// before, and the ring keeps it once it has it, so that no order of the two loses one.
    pub(crate) fn arm(&mut self) -> bool {
        self.disarm();
        let device = Arc::clone(self.device());
        let event = &device.lanes[usize::from(self.lane)].event;
        let is_waiting = device.visit_own(self.lane, |visit| {
            visit.state.is_waited_for = true;
            let is_signalled = visit.state.ring.signal(event).is_ok();
            visit.drain();
            is_signalled.then_some(visit.state.queued > 0)
        });
        let can_wait = match is_waiting {
            None => false,
            // Nobody may be there to take what this queue waits for.
            Some(true) if device.lanes.len() > 1 => device.mind().is_ok(),
            Some(_) => true,
        };
        self.take();
        can_wait && self.out.is_empty() && (self.is_told || !device.is_gone())
    }

    /// Undoes [`arm`](Self::arm).
    pub(crate) fn disarm(&mut self) {
        // There may be nothing to read.
        let _ = self.lane().event.read();
    }

    /// What is signalled after [`arm`](Self::arm).
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.lane().event
    }

    pub(crate) fn recover(&mut self) -> Result<()> {
        self.attend();
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} is driven by the kernel, which resets it by itself when it must; requests that it does not return can only be waited for",
                self.info.name
            ),
        ))
    }

    pub(crate) fn next_event(&mut self) -> Option<DeviceEvent> {
        self.events.pop_front()
    }

    pub(crate) fn is_gone(&self) -> Option<&str> {
        let why = self.handle.device.gone.get()?;
        (self.is_told && self.in_flight() == 0).then_some(why)
    }

    /// Looks whether the device is there, and how large it is.
    pub(crate) fn attend(&mut self) {
        let device = Arc::clone(self.device());
        let now = SectorCount(device.directory.sectors());
        let before = self.info.capacity;
        if !device.check_gone() && now != before && now.0 != 0 {
            // The zones of a zoned device are what they were when it was opened.
            if self.info.zoned.is_none() {
                let mut info = DeviceInfo::clone(&self.info);
                info.capacity = now;
                self.info = info.into();
            }
            self.announce(DeviceEvent::Resized { before, now });
        }
        self.look();
    }

    /// What polling does every so often, for one who sleeps instead; closely if nothing came.
    pub(crate) fn look_closely(&mut self, is_late: bool) {
        match is_late {
            true => self.attend(),
            false => self.look(),
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        let state = self.lane().lock();
        state.expired > 0 || !state.freed.is_empty()
    }
}

impl Drop for KernelQueue {
    /// What the kernel has not seen it will not see. The rest goes on; its memory is free once the
    /// kernel has returned it, at the latest when the device is closed, which waits for that.
    fn drop(&mut self) {
        let left = self.device().visit_own(self.lane, |visit: &mut Visit<'_>| {
            visit.withdraw_all(ErrorKind::DeviceGone, "the queue was dropped");
            let state = &mut visit.state;
            (mem::take(&mut state.ended), mem::take(&mut state.freed))
        });
        // Without the lock, because that wakes others.
        drop(left);
    }
}

impl std::fmt::Debug for KernelQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelQueue")
            .field("device", &self.info.name)
            .field("queue", &self.lane)
            .finish_non_exhaustive()
    }
}
