//! The thread that makes the calls which io_uring has no operation for, and which may take as long
//! as the device likes.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{
    device::Device,
    fault::{Limit, Seen},
    ioctl::{self, RawZone},
    turns::Who,
};
use crate::{SECTOR_LEN, Sector, SectorCount, Unmap, ZoneAction, ZoneId, ZoneState};

/// Something for the worker to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Where is the zone's write pointer?
    Ask(ZoneId),
    /// What is the zone like, now that a write to it has failed?
    Diagnose(Who, Errno, ZoneId),
    Report(Who, Sector, usize),
    Manage(Who, ZoneAction, ZoneId),
    ResetAll(Who),
    Discard(Who, Sector, SectorCount),
    Zeroes(Who, Sector, SectorCount, Unmap),
}

/// What is left to do.
#[derive(Default)]
pub(super) struct Jobs {
    queue: Mutex<(VecDeque<Job>, IsStopped)>,
    changed: Condvar,
}

type IsStopped = bool;

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Job>, IsStopped)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Job) {
        self.lock().0.push_back(job);
        self.changed.notify_one();
    }

    /// Ends the worker after the job that it is at.
    pub(super) fn stop(&self) {
        self.lock().1 = true;
        self.changed.notify_one();
    }

    /// The next job, once there is one; none when it is over.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.1 {
                return None;
            }
            if let Some(job) = queue.0.pop_front() {
                return Some(job);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The worker, until it is stopped.
pub(super) fn work(device: &Arc<Device>) {
    while let Some(job) = device.jobs.next() {
        carry_out(device, job);
    }
}

fn carry_out(device: &Arc<Device>, job: Job) {
    match job {
        Job::Ask(zone) => {
            let pointer = zone_now(device, zone).map(|zone| zone.pointer());
            let mut steps = Vec::new();
            match pointer {
                Some(pointer) => device.turn(zone).pointer_is(pointer, &mut steps),
                None => {
                    device.check_gone();
                    device.turn(zone).pointer_is_lost(&mut steps);
                }
            }
            device.pass_on(steps.into());
        }
        Job::Diagnose(who, errno, id) => {
            let seen = seen_now(device, id);
            device.visit(who.lane, |visit| {
                visit.diagnosed(who.slot, errno, id, seen.as_ref());
            });
        }
        Job::Report(who, from, most) => {
            let zones = ioctl::report(&*device.file, from, most);
            device.visit(who.lane, |visit| visit.reported(who.slot, zones));
        }
        Job::Manage(who, action, id) => {
            let (at, len) = device.extent(id);
            let outcome = ioctl::manage(&*device.file, action, at, len);
            let seen = outcome.err().and_then(|_| seen_now(device, id));
            device.visit(who.lane, |visit| {
                visit.managed(who.slot, (action, id), outcome, seen.as_ref());
            });
        }
        Job::ResetAll(who) => {
            let all = (Sector(0), device.info.capacity);
            let outcome = tainting(device, all, || {
                ioctl::manage(&*device.file, ZoneAction::Reset, all.0, all.1)
            });
            device.visit(who.lane, |visit| visit.done(who.slot, outcome));
        }
        Job::Discard(who, at, len) => {
            let outcome = tainting(device, (at, len), || ioctl::discard(&*device.file, at, len));
            device.visit(who.lane, |visit| visit.done(who.slot, outcome));
        }
        Job::Zeroes(who, at, len, unmap) => {
            let flags = match unmap {
                Unmap::Keep => FallocateFlags::ZERO_RANGE,
                Unmap::Allow => FallocateFlags::PUNCH_HOLE,
            } | FallocateFlags::KEEP_SIZE;
            let outcome = tainting(device, (at, len), || {
                fallocate(&*device.file, flags, at.0 * SECTOR_LEN, len.bytes())
            });
            device.visit(who.lane, |visit| visit.done(who.slot, outcome));
        }
    }
}

/// Does what moves write pointers without taking turns.
fn tainting<R>(device: &Device, range: (Sector, SectorCount), f: impl FnOnce() -> R) -> R {
    device.taint(range);
    let outcome = f();
    device.taint(range);
    outcome
}

/// A zone as it is now.
fn zone_now(device: &Device, zone: ZoneId) -> Option<RawZone> {
    let (start, _) = device.extent(zone);
    let zones = ioctl::report(&*device.file, start, 1).ok()?;
    zones.first().filter(|zone| zone.start == start.0).copied()
}

/// A zone as it is now, after something has failed there.
fn seen_now(device: &Device, id: ZoneId) -> Option<Seen> {
    let zone = zone_now(device, id)?;
    let zoned = device.info.zoned.as_ref()?;
    let limits = (zoned.max_open, zoned.max_active);
    let is_limited = limits != (None, None) && !zone.state().is_some_and(ZoneState::is_open);
    // Whether a limit was the reason takes a look at all zones.
    let limit = match is_limited {
        true => ioctl::report(&*device.file, Sector(0), usize::MAX)
            .ok()
            .and_then(|zones| Limit::of(&zone, limits, &zones)),
        false => None,
    };
    Some(Seen { zone, limit })
}
