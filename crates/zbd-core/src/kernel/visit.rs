//! What is done with the requests of one queue while its lock is held.

use std::{collections::VecDeque, mem, sync::Arc, time::Instant};

use rustix::io::Errno;

use super::{
    device::Device,
    fault::{self, Attempt, Seen},
    ioctl::RawZone,
    lane::{Stage, State, Work},
    report,
    ring::Transfer,
    turns::{Claim, Pointer, Step, Turn, Who},
    worker::Job,
};
use crate::{Error, ErrorKind, Result, ZoneAction, ZoneId};

/// How often an append is sent to where its zone's write pointer has been moved by somebody else.
const TRIES: u8 = 3;

/// A queue whose lock is held, and what is to be done before and after it is let go.
pub(super) struct Visit<'a> {
    pub(super) device: &'a Arc<Device>,
    pub(super) lane: u16,
    pub(super) state: &'a mut State,
    /// What is to be done next, here or in other queues.
    pub(super) steps: Vec<Step>,
    /// What is to be done in other queues, once this one has been let go.
    pub(super) away: &'a mut VecDeque<Step>,
}

impl Visit<'_> {
    fn who(&self, slot: u16) -> Who {
        Who {
            lane: self.lane,
            slot,
        }
    }

    /// Does something to a zone's turns.
    fn turn<R>(&mut self, zone: ZoneId, f: impl FnOnce(&mut Turn, &mut Vec<Step>) -> R) -> R {
        f(&mut self.device.turn(zone), &mut self.steps)
    }

    /// Begins all requests that have been submitted, in order.
    pub(super) fn begin_all(&mut self) {
        let mut staged = mem::take(&mut self.state.staged);
        for slot in staged.drain(..) {
            self.begin(slot);
            self.carry_out();
        }
        self.state.staged = staged;
    }

    fn begin(&mut self, slot: u16) {
        let who = self.who(slot);
        let state = self.state.slot(slot);
        let (at, len) = (state.at, state.len);
        let (zone, claim) = match state.work {
            Work::Write(Some(zone)) => (zone, Claim::Write),
            Work::Append(zone) => (zone, Claim::Append(len)),
            Work::Manage(_, zone) => (zone, Claim::Command),
            Work::Read => return self.transfer(slot, Transfer::Read),
            Work::Write(None) => return self.transfer(slot, Transfer::Write),
            Work::Flush => {
                state.stage = Stage::Begun;
                return self.state.ring.flush(slot);
            }
            Work::Id => return self.identify(slot),
            Work::Report => {
                let most = state.buffer.as_ref().map_or(0, |it| report::room(it.len()));
                return self.send(slot, Job::Report(who, at, most));
            }
            Work::ResetAll => return self.send(slot, Job::ResetAll(who)),
            Work::Discard => return self.send(slot, Job::Discard(who, at, len)),
            Work::Zeroes(unmap) => return self.send(slot, Job::Zeroes(who, at, len, unmap)),
        };
        state.stage = Stage::Queued;
        self.state.queued += 1;
        self.turn(zone, |turn, steps| turn.enter(who, claim, steps));
    }

    /// Tells the serial number, as much of it as there is room for.
    fn identify(&mut self, slot: u16) {
        let serial = self.device.directory.serial().unwrap_or_default();
        if let Some(buffer) = &mut self.state.slot(slot).buffer {
            buffer.fill(0);
            let len = serial.len().min(buffer.len());
            buffer.write_at(0, &serial.as_bytes()[..len]);
        }
        self.done(slot, Ok(()));
    }

    /// Leaves something to the device's worker.
    fn send(&mut self, slot: u16, job: Job) {
        self.state.slot(slot).stage = Stage::Begun;
        self.device.send(job);
    }

    fn transfer(&mut self, slot: u16, transfer: Transfer) {
        let place = self.state.slot(slot);
        place.stage = Stage::Begun;
        // No device is so large that this overflows: what is past its end is refused before.
        let offset = place.at.0.saturating_mul(crate::SECTOR_LEN);
        if let Some(buffer) = place.buffer.take() {
            self.state.ring.transfer(slot, transfer, offset, buffer);
        }
    }

    /// Does what is to be done next.
    pub(super) fn carry_out(&mut self) {
        let mut next = 0;
        while let Some(step) = self.steps.get(next).copied() {
            next += 1;
            match step {
                Step::Ask(zone) => self.device.send(Job::Ask(zone)),
                step if step.who().is_some_and(|who| who.lane == self.lane) => self.apply(step),
                step => self.away.push_back(step),
            }
        }
        self.steps.clear();
    }

    /// Takes a step that is about a request of this queue.
    pub(super) fn apply(&mut self, step: Step) {
        let Some(Who { slot, .. }) = step.who() else {
            return;
        };
        if self.state.slot(slot).stage == Stage::Queued {
            self.state.queued -= 1;
            self.state.slot(slot).stage = Stage::Begun;
        }
        match step {
            Step::Start(who) => match self.state.slot(slot).work {
                Work::Manage(action, zone) => {
                    self.device.send(Job::Manage(who, action, zone));
                }
                _ => self.transfer(slot, Transfer::Write),
            },
            Step::Append(_, at) => {
                self.state.slot(slot).at = at;
                self.transfer(slot, Transfer::Write);
            }
            Step::Refuse(_) => {
                let error = self.error(
                    slot,
                    ErrorKind::InvalidZoneState,
                    "it does not fit into what is left of the zone, or the zone's state does not allow it",
                );
                self.state.end(slot, Err(error));
            }
            Step::Lose(_) => {
                let kind = match self.device.is_gone() {
                    true => ErrorKind::DeviceGone,
                    false => ErrorKind::Medium,
                };
                let error = self.error(
                    slot,
                    kind,
                    "the device does not report the zone, so its write pointer is not known",
                );
                self.state.end(slot, Err(error));
            }
            Step::Ask(_) => {}
        }
    }

    /// Takes what the kernel has returned.
    pub(super) fn drain(&mut self) {
        while let Some((slot, result, buffer)) = self.state.ring.next() {
            let place = self.state.slot(slot);
            place.buffer = buffer;
            let wanted = place.len.bytes();
            // A transfer that was cut short has failed: the rest is where the medium ends, or broke.
            let outcome = match result {
                Ok(done) if u64::from(done) == wanted => Ok(()),
                Ok(_) => Err(Errno::IO),
                Err(errno) => Err(errno),
            };
            self.settle(slot, outcome);
            self.carry_out();
        }
    }

    fn settle(&mut self, slot: u16, outcome: Result<(), Errno>) {
        let who = self.who(slot);
        let place = self.state.slot(slot);
        let (at, len, work) = (place.at, place.len, place.work);
        let end = at + len;
        match (work, outcome) {
            // After a failure the kernel takes no more writes to the zone until it has been asked
            // where the write pointer is; and the answer says what the failure was.
            (Work::Write(Some(zone)) | Work::Append(zone), Err(errno)) => {
                self.device.send(Job::Diagnose(who, errno, zone));
            }
            (Work::Write(Some(zone)), Ok(())) => {
                self.state.end(slot, Ok(at));
                self.turn(zone, |turn, steps| turn.wrote(Some(end), steps));
            }
            (Work::Append(zone), Ok(())) => {
                self.state.end(slot, Ok(at));
                self.turn(zone, |turn, steps| turn.release(Pointer::At(end), steps));
            }
            (_, outcome) => self.end(slot, outcome, Attempt::Other, None),
        }
    }

    /// Ends a request of which the kernel has said how it went.
    fn end(
        &mut self,
        slot: u16,
        outcome: Result<(), Errno>,
        attempt: Attempt,
        seen: Option<&Seen>,
    ) {
        let at = self.state.slot(slot).at;
        let result = match outcome {
            Ok(()) => Ok(at),
            Err(errno) => {
                let (mut kind, mut what) = fault::explain(errno, attempt, seen);
                // A device that has gone fails its last requests like a bad medium, or like one
                // without room.
                let may_be_gone = matches!(
                    kind,
                    ErrorKind::Medium
                        | ErrorKind::DeviceGone
                        | ErrorKind::InvalidRequest
                        | ErrorKind::Io
                );
                if may_be_gone && self.device.check_gone() {
                    (kind, what) = (ErrorKind::DeviceGone, "the device is gone");
                }
                Err(self.error(slot, kind, what).with_source(errno))
            }
        };
        self.state.end(slot, result);
    }

    fn error(&mut self, slot: u16, kind: ErrorKind, what: &str) -> Error {
        let at = self.state.slot(slot).at;
        let name = &self.device.info.name;
        Error::new(kind, format!("{name}, request at sector {at}: {what}"))
    }

    /// A write to a sequential zone has failed with `errno`, and this is the zone now.
    pub(super) fn diagnosed(&mut self, slot: u16, errno: Errno, id: ZoneId, seen: Option<&Seen>) {
        let zone = seen.map(|seen| &seen.zone);
        let place = self.state.slot(slot);
        let (at, len) = (place.at, place.len);
        let is_append = matches!(place.work, Work::Append(_));
        if is_append
            && errno == Errno::IO
            && place.tries < TRIES
            && let Some(at) = zone.and_then(|zone| fault::second_try(at, len, zone))
        {
            place.tries += 1;
            place.at = at;
            return self.transfer(slot, Transfer::Write);
        }
        let attempt = match (is_append, zone) {
            // An append's place is none of its caller's, who is not to be told of it.
            (true, Some(zone)) => Attempt::Write {
                at: match zone.pointer() {
                    Pointer::At(now) => now,
                    _ => at,
                },
                len,
            },
            _ => Attempt::Write { at, len },
        };
        self.end(slot, Err(errno), attempt, seen);
        let pointer = zone.map_or(Pointer::Unknown, RawZone::pointer);
        self.turn(id, |turn, steps| match (is_append, zone) {
            (false, _) => turn.wrote(None, steps),
            (true, Some(_)) => turn.pointer_is(pointer, steps),
            (true, None) => turn.release(pointer, steps),
        });
    }

    /// A zone command has ended; if it failed, this is the zone now.
    pub(super) fn managed(
        &mut self,
        slot: u16,
        (action, id): (ZoneAction, ZoneId),
        outcome: Result<(), Errno>,
        seen: Option<&Seen>,
    ) {
        self.end(slot, outcome, Attempt::Manage(action), seen);
        let start = Pointer::At(self.state.slot(slot).at);
        self.turn(id, |turn, steps| {
            let pointer = match (action, outcome) {
                (_, Err(_)) => Pointer::Unknown,
                (ZoneAction::Reset, Ok(())) => start,
                (ZoneAction::Finish, Ok(())) => Pointer::None,
                (ZoneAction::Open | ZoneAction::Close, Ok(())) => turn.pointer(),
            };
            turn.release(pointer, steps);
        });
    }

    /// Zones have been reported.
    pub(super) fn reported(&mut self, slot: u16, outcome: Result<Vec<RawZone>, Errno>) {
        let outcome = outcome.map(|zones| {
            // Nobody waits for one whose time was up, but its buffer is as good as any.
            if let Some(buffer) = &mut self.state.slot(slot).buffer {
                report::encode(&zones, buffer);
            }
        });
        self.end(slot, outcome, Attempt::Other, None);
    }

    /// Something has ended that takes no turns.
    pub(super) fn done(&mut self, slot: u16, outcome: Result<(), Errno>) {
        self.end(slot, outcome, Attempt::Other, None);
    }

    /// Ends the requests whose time is up at `now`, for their callers.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.state.next_due.is_none_or(|due| now < due) {
            return;
        }
        self.state.next_due = None;
        for slot in 0..self.state.slots.len() as u16 {
            let place = self.state.slot(slot);
            let Some(due) = place.due.filter(|_| place.stage != Stage::Free) else {
                continue;
            };
            if now < due {
                let next = self.state.next_due.map_or(due, |next| next.min(due));
                self.state.next_due = Some(next);
                continue;
            }
            place.due = None;
            if self.withdraw(slot) {
                let error = self.error(
                    slot,
                    ErrorKind::Timeout,
                    "its turn in the zone has not come in time; it was not sent to the kernel",
                );
                self.state.end(slot, Err(error));
                self.carry_out();
                continue;
            }
            let error = self.error(
                slot,
                ErrorKind::Timeout,
                "the kernel has not returned it in time; it may still be carried out, and its buffer stays with the kernel until then",
            );
            let place = self.state.slot(slot);
            place.is_expired = true;
            let token = place.token;
            self.state.expired += 1;
            self.state.ended.push_back(crate::Completion {
                token,
                result: Err(error),
                buffer: None,
            });
        }
    }

    /// Takes back a request that the kernel has not seen; false if it has, or is about to.
    fn withdraw(&mut self, slot: u16) -> bool {
        let who = self.who(slot);
        let place = self.state.slot(slot);
        match (place.stage, place.work) {
            (Stage::Staged, _) => {
                self.state.staged.retain(|staged| *staged != slot);
                true
            }
            (
                Stage::Queued,
                Work::Write(Some(zone)) | Work::Append(zone) | Work::Manage(_, zone),
            ) => self.turn(zone, |turn, steps| turn.leave(who, steps)),
            _ => false,
        }
    }

    /// Ends all requests that the kernel has not seen.
    pub(super) fn withdraw_all(&mut self, kind: ErrorKind, what: &str) {
        for slot in 0..self.state.slots.len() as u16 {
            if self.withdraw(slot) {
                let error = self.error(slot, kind, what);
                self.state.end(slot, Err(error));
                self.carry_out();
            }
        }
    }

    /// Hands the kernel what was prepared.
    pub(super) fn submit(&mut self) {
        let Err(error) = self.state.ring.submit() else {
            return;
        };
        let why = format!(
            "{}: the kernel takes no more requests: {error}; close and reopen the device",
            self.device.info.name
        );
        while let Some((slot, buffer)) = self.state.ring.take_back() {
            self.state.slot(slot).buffer = buffer;
            let error = Error::new(ErrorKind::DeviceGone, &why);
            self.state.end(slot, Err(error));
        }
        self.device.fail(why);
    }
}
