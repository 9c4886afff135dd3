//! What happens to requests besides being carried out: refused, failed, timed out, ended by a
//! reset; and what the device announces meanwhile.

use std::{mem, time::Duration};

use vfio_virtio::{Data, DmaBuffer};

use super::{
    POLLS_PER_CHECK, POLLS_PER_LOOK, VirtioQueue,
    tag::{Due, Tag},
};
use crate::{
    Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, Rejected, Request, Result, Sector,
    ZoneAction,
    limits::Plain,
    virtio::{BlkCompletion, RequestType, Status, capacity, range},
};

/// How many events are kept for whoever asks; the oldest go first.
const EVENTS_KEPT: usize = 16;

impl VirtioQueue {
    pub(crate) fn submit_within(
        &mut self,
        request: Request,
        token: u64,
        timeout: Duration,
    ) -> Result<(), Rejected> {
        let due = Due::after(self.opened.elapsed(), timeout);
        self.accept(request, token, due)?;
        self.next_due = self.next_due.earlier(due);
        Ok(())
    }

    pub(crate) fn recover(&mut self) -> Result<()> {
        let outcome = self.device.recover();
        self.attend();
        Ok(outcome?)
    }

    pub(crate) fn recover_queue(&mut self) -> Result<()> {
        let outcome = self.device.recover_queue(self.queue.index());
        self.attend();
        Ok(outcome?)
    }

    pub(crate) fn next_event(&mut self) -> Option<DeviceEvent> {
        self.events.pop_front()
    }

    /// Whether the device has requests whose time was up.
    pub(crate) fn has_expired(&self) -> bool {
        self.expired > 0
    }

    /// What [`poll`](Self::poll) does when the ring has nothing, every so often.
    #[cold]
    #[inline(never)]
    pub(super) fn look_around(&mut self, out: &mut Option<Completion>) {
        if self.ended.is_empty() {
            if self.idle_polls.is_multiple_of(POLLS_PER_LOOK) {
                self.look();
            }
            if self.idle_polls.is_multiple_of(POLLS_PER_CHECK)
                && self.broken.is_none()
                && self.queue.in_flight() > 0
            {
                self.check_device();
            }
        }
        *out = self.ended.pop_front();
    }

    /// What [`poll`](Self::poll) does when the device breaks the rules.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_failed(&mut self, error: vfio_virtio::Error, out: &mut Option<Completion>) {
        self.fail(error.into());
        // The ring says nothing any more, but somebody else may reset the device.
        self.idle_polls = self.idle_polls.wrapping_add(1);
        self.look_around(out);
    }

    /// Looks at what needs no ring: announcements and times that are up.
    pub(super) fn look(&mut self) {
        if self.device.attention() != self.seen {
            self.attend();
        }
        if self.next_due != Due::NEVER {
            let now = self.opened.elapsed();
            if self.next_due.has_come(now) {
                self.expire(now);
            }
        }
    }

    /// Attends to what the device has announced.
    #[cold]
    pub(crate) fn attend(&mut self) {
        self.seen = self.device.attention();
        if self.queue.is_stale() {
            self.renew();
        }
        self.check_device();
        let changes = self.device.config_changes();
        if self.broken.is_none() {
            let before = mem::replace(&mut self.config_changes, changes);
            self.read_capacity(changes != before);
        }
    }

    pub(super) fn check_device(&mut self) {
        if let Err(error) = self.device.check_alive() {
            self.fail(error.into());
        }
    }

    /// Ends all requests in flight: the device will not return them, and keeps their memory.
    pub(super) fn fail(&mut self, error: Error) {
        let is_gone = error.kind() == ErrorKind::DeviceGone;
        match &self.broken {
            // What has failed can still go.
            Some((kind, _)) if !is_gone || *kind == ErrorKind::DeviceGone => return,
            _ if is_gone => self.announce(DeviceEvent::Gone),
            _ => self.announce(DeviceEvent::Failed),
        }
        self.broken = Some((error.kind(), error.to_string()));
        for tag in self.queue.abandon() {
            if !tag.is_expired() {
                let error = self.broken_error();
                self.end(tag, Err(error), None);
            }
        }
        self.expired = 0;
        self.next_due = Due::NEVER;
    }

    /// The device has been reset: ends what was in flight, with its memory.
    fn renew(&mut self) {
        // What was returned before is as good as ever.
        while let Ok(Some(done)) = self.queue.pop() {
            if let Some(done) = self.judge(done) {
                self.ended.push_back(done);
            }
        }
        let (ended, outcome) = self.queue.renew();
        for request in ended {
            if request.context.is_expired() {
                self.let_go(request.buffer);
            } else {
                let error = Error::new(
                    ErrorKind::DeviceReset,
                    format!(
                        "{}, request at sector {}: the device was reset; whether the request was carried out is not known",
                        self.info.name,
                        request.context.sector()
                    ),
                );
                self.end(request.context, Err(error), request.buffer);
            }
        }
        self.expired = 0;
        self.next_due = Due::NEVER;
        self.broken = match outcome {
            Ok(()) => {
                self.announce(DeviceEvent::Reset);
                None
            }
            Err(error) => {
                let error = Error::from(error);
                Some((error.kind(), error.to_string()))
            }
        };
    }

    /// Ends the requests whose time is up at `now`, for their callers.
    fn expire(&mut self, now: Duration) {
        self.next_due = Due::NEVER;
        for tag in self.queue.contexts_mut() {
            if !tag.due.has_come(now) {
                self.next_due = self.next_due.earlier(tag.due);
                continue;
            }
            let error = Error::new(
                ErrorKind::Timeout,
                format!(
                    "{}, request at sector {}: the device has not returned it in time; it may still be carried out, and its buffer stays with the device until that returns it or is reset (recover)",
                    self.info.name,
                    tag.sector()
                ),
            );
            self.ended.push_back(Completion {
                token: tag.token,
                result: Err(error),
                buffer: None,
            });
            tag.expire();
            self.expired += 1;
        }
    }

    fn end(&mut self, tag: Tag, result: Result<Sector>, buffer: Option<DmaBuffer>) {
        let buffer = self.given_back(&tag, buffer);
        self.ended.push_back(Completion {
            token: tag.token,
            result,
            buffer,
        });
    }

    /// A request's buffer, if it is not our own.
    fn given_back(&mut self, tag: &Tag, buffer: Option<DmaBuffer>) -> Option<DmaBuffer> {
        if !tag.has_hidden_buffer() {
            return buffer;
        }
        self.let_go(buffer);
        None
    }

    /// Nobody waits for `buffer`.
    fn let_go(&mut self, buffer: Option<DmaBuffer>) {
        if self.keeps_freed {
            self.freed.extend(buffer);
        }
    }

    fn announce(&mut self, event: DeviceEvent) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The configuration may have changed, surely if `is_announced`: of what it says, only a plain
    /// device's size can.
    fn read_capacity(&mut self, is_announced: bool) {
        let now = capacity(&self.device);
        // What goes while it is read says anything, and has gone, not failed.
        self.check_device();
        if self.broken.is_some() {
            return;
        }
        match now {
            Ok(now) if now != self.info.capacity => {
                let before = self.info.capacity;
                // The zones of a zoned device are what they were when it was opened.
                if self.info.zoned.is_none() {
                    let mut info = DeviceInfo::clone(&self.info);
                    info.capacity = now;
                    self.plain = Plain::new(&info);
                    self.info = info.into();
                }
                self.announce(DeviceEvent::Resized { before, now });
            }
            Ok(_) if is_announced => self.announce(DeviceEvent::ConfigChanged),
            Ok(_) => {}
            Err(error) => self.fail(error),
        }
    }

    /// Completes what failed, what has a hidden buffer, and what nobody waits for any more.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_rare(&mut self, done: BlkCompletion<Tag>, out: &mut Option<Completion>) {
        let mut done = Some(done);
        while let Some(next) = done {
            *out = self.judge(next);
            if out.is_some() {
                return;
            }
            done = match self.queue.pop() {
                Ok(next) => next,
                Err(error) => {
                    self.fail(error.into());
                    None
                }
            };
        }
        *out = self.ended.pop_front();
    }

    /// What a request that the device has returned comes to; nothing if its time was up before.
    fn judge(&mut self, done: BlkCompletion<Tag>) -> Option<Completion> {
        let tag = done.context;
        if tag.is_expired() {
            self.expired -= 1;
            self.let_go(done.buffer);
            return None;
        }
        let result = match self.place(&done) {
            Some(sector) => Ok(sector),
            None if done.status != Status::OK => Err(refused(&self.info, &tag, done.status)),
            None if tag.has_hidden_buffer() => Ok(tag.sector()),
            None => Err(stray_append(&self.info, &tag, done.append_sector)),
        };
        Some(Completion {
            token: tag.token,
            result,
            buffer: self.given_back(&tag, done.buffer),
        })
    }

    pub(crate) fn is_gone(&self) -> Option<&str> {
        match &self.broken {
            Some((ErrorKind::DeviceGone, why)) if self.ended.is_empty() => Some(why),
            _ => None,
        }
    }

    pub(super) fn broken_error(&self) -> Error {
        match &self.broken {
            Some((kind, what)) => Error::new(*kind, what.clone()),
            None => Error::new(ErrorKind::DeviceGone, "the device has failed"),
        }
    }

    /// Why nothing can be submitted now, if nothing can.
    pub(super) fn refusal(&self) -> Option<Error> {
        if self.broken.is_some() {
            Some(self.broken_error())
        } else if self.has_room() {
            None
        } else {
            Some(self.full())
        }
    }

    fn full(&self) -> Error {
        let depth = self.depth();
        let what = match self.expired {
            0 => format!("all {depth} slots of the queue are in use"),
            expired => format!(
                "all {depth} slots of the queue are in use, {expired} of them by requests whose time was up; if the device does not return them, reset it (recover)"
            ),
        };
        Error::new(ErrorKind::QueueFull, what)
    }

    /// A request that the queue did not take, as it was submitted.
    #[cold]
    pub(super) fn hand_back(
        &self,
        request_type: RequestType,
        at: Sector,
        rejected: vfio_virtio::Rejected,
    ) -> Rejected {
        let error = match rejected.error.kind() {
            _ if self.broken.is_some() => self.broken_error(),
            vfio_virtio::ErrorKind::Busy => self.full(),
            _ => rejected.error.into(),
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
