//! An open block device, which its queues share.
//!
//! # Who makes progress
//!
//! An append waits for the one before it in its zone, which may be another queue's. So whoever
//! polls, finds nothing, and has requests that wait looks after the other queues too: it takes what
//! the kernel has returned to them and passes the turns on. Who sleeps cannot do that; a thread, the
//! [minder](Device::mind), does it for those. Locks are taken in the order queue, zone; no two
//! queues at once but for an attempt.

use std::{
    collections::VecDeque,
    fs::File,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vfio_virtio::{DmaArena, EventFd};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EFD_NONBLOCK,
};

use super::{
    lane::{Lane, State},
    sysfs::Directory,
    turns::{Step, Turn},
    visit::Visit,
    worker::{self, Job, Jobs},
};
use crate::{DeviceInfo, Error, ErrorKind, Result, Sector, SectorCount, ZoneId};

/// How long a device that is closed waits for its threads.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open block device.
pub(super) struct Device {
    /// What was known of it when it was opened.
    pub(super) info: Arc<DeviceInfo>,
    pub(super) arena: DmaArena,
    /// The bits that are not set in an address from or to which data go past the page cache.
    pub(super) alignment: usize,
    pub(super) directory: Directory,
    pub(super) lanes: Box<[Lane]>,
    /// One for each zone.
    pub(super) turns: Box<[Mutex<Turn>]>,
    pub(super) jobs: Jobs,
    /// Why it is of no more use.
    pub(super) gone: OnceLock<String>,
    pub(super) minder: Mutex<Option<Minder>>,
    pub(super) file: Arc<File>,
}

/// The thread that looks after queues whose owners sleep.
pub(super) struct Minder {
    stop: EventFd,
    thread: JoinHandle<()>,
}

impl Device {
    pub(super) fn turn(&self, zone: ZoneId) -> MutexGuard<'_, Turn> {
        let turn = self.turns[zone.0 as usize].lock();
        turn.unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a zone begins, and its size.
    pub(super) fn extent(&self, zone: ZoneId) -> (Sector, SectorCount) {
        match &self.info.zoned {
            Some(zoned) => (zoned.start(zone), zoned.grid.size(zone)),
            None => (Sector(0), SectorCount(0)),
        }
    }

    /// What is known of the write pointers in a range is not known any more.
    pub(super) fn taint(&self, (at, len): (Sector, SectorCount)) {
        let Some(zoned) = &self.info.zoned else {
            return;
        };
        let end = at + len;
        let zones = at.0 / zoned.zone_size.0..end.0.div_ceil(zoned.zone_size.0);
        for zone in zones.take(self.turns.len()) {
            if (zone as usize) < self.turns.len() {
                self.turn(ZoneId(zone as u32)).taint();
            }
        }
    }

    pub(super) fn send(&self, job: Job) {
        self.jobs.push(job);
    }

    /// Looks whether the device is gone.
    pub(super) fn check_gone(&self) -> bool {
        if self.gone.get().is_none() && self.directory.sectors() == 0 {
            self.fail(format!("{} is gone; reopen it", self.info.name));
        }
        self.is_gone()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.get().is_some()
    }

    /// The device is of no more use.
    pub(super) fn fail(&self, why: String) {
        // The first reason is the one.
        let _ = self.gone.set(why);
        self.lanes.iter().for_each(Lane::wake);
    }

    /// Does something in a queue that is another's, and what comes of it.
    pub(super) fn visit<R>(self: &Arc<Self>, lane: u16, f: impl FnOnce(&mut Visit<'_>) -> R) -> R {
        let mut away = VecDeque::new();
        let result = {
            let mut state = self.lanes[usize::from(lane)].lock();
            self.visit_other(lane, &mut state, &mut away, f)
        };
        self.pass_on(away);
        result
    }

    /// Does something in the caller's own queue, and what comes of it.
    pub(super) fn visit_own<R>(
        self: &Arc<Self>,
        lane: u16,
        f: impl FnOnce(&mut Visit<'_>) -> R,
    ) -> R {
        let mut away = VecDeque::new();
        let result = {
            let mut state = self.lanes[usize::from(lane)].lock();
            self.visit_locked(lane, &mut state, &mut away, f)
        };
        if !away.is_empty() {
            self.pass_on(away);
        }
        result
    }

    /// Does something in another's queue, and lets its owner look if something has ended.
    fn visit_other<R>(
        self: &Arc<Self>,
        lane: u16,
        state: &mut State,
        away: &mut VecDeque<Step>,
        f: impl FnOnce(&mut Visit<'_>) -> R,
    ) -> R {
        let before = state.taken_back();
        let result = self.visit_locked(lane, state, away, f);
        if state.taken_back() > before && state.is_waited_for {
            self.lanes[usize::from(lane)].wake();
        }
        result
    }

    fn visit_locked<R>(
        self: &Arc<Self>,
        lane: u16,
        state: &mut State,
        away: &mut VecDeque<Step>,
        f: impl FnOnce(&mut Visit<'_>) -> R,
    ) -> R {
        let steps = std::mem::take(&mut state.steps);
        let mut visit = Visit {
            device: self,
            lane,
            state,
            steps,
            away,
        };
        let result = f(&mut visit);
        visit.carry_out();
        visit.submit();
        visit.state.steps = visit.steps;
        result
    }

    /// Takes steps wherever they are to be taken, and those that follow from them. The caller holds
    /// no queue's lock.
    pub(super) fn pass_on(self: &Arc<Self>, mut steps: VecDeque<Step>) {
        while let Some(step) = steps.pop_front() {
            let Some(who) = step.who() else {
                if let Step::Ask(zone) = step {
                    self.send(Job::Ask(zone));
                }
                continue;
            };
            // All of one queue together: what they begin is handed to the kernel with one call, in
            // this order.
            let is_here = |step: &Step| step.who().is_some_and(|it| it.lane == who.lane);
            let (here, rest): (VecDeque<_>, VecDeque<_>) = steps.into_iter().partition(is_here);
            steps = rest;
            let mut state = self.lanes[usize::from(who.lane)].lock();
            self.visit_other(who.lane, &mut state, &mut steps, |visit| {
                visit.apply(step);
                here.into_iter().for_each(|step| visit.apply(step));
            });
        }
    }

    /// Takes what the kernel has returned to other queues than `lane`, of which nobody is at work
    /// right now.
    pub(super) fn help_others(self: &Arc<Self>, lane: u16) {
        let mut away = VecDeque::new();
        for other in (0..self.lanes.len() as u16).filter(|other| *other != lane) {
            if let Some(mut state) = self.lanes[usize::from(other)].try_lock() {
                self.visit_other(other, &mut state, &mut away, |visit| visit.drain());
            }
        }
        self.pass_on(away);
    }

    /// Lets a thread look after all queues from now on, because the owner of one that waits for
    /// another is about to sleep.
    pub(super) fn mind(self: &Arc<Self>) -> Result<()> {
        let mut minder = self.minder.lock().unwrap_or_else(PoisonError::into_inner);
        if minder.is_some() {
            return Ok(());
        }
        let failed = |what: &str, error: std::io::Error| {
            Error::new(ErrorKind::Io, format!("{}: {what}", self.info.name)).with_source(error)
        };
        let stop = new_event().map_err(|error| failed("cannot create an event", error))?;
        let set = Epoll::new().map_err(|error| failed("cannot watch queues", error))?;
        // Each signal is an edge; the owners read the events, and may have done so before.
        let edges = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        let events = self.lanes.iter().map(|lane| &lane.event);
        for event in events.chain([&stop]) {
            set.ctl(ControlOperation::Add, event.as_raw_fd(), edges)
                .map_err(|error| failed("cannot watch queues", error))?;
        }
        for lane in &self.lanes {
            let signalled = lane.lock().ring.signal(&lane.event);
            signalled.map_err(|error| failed("cannot be signalled by io_uring", error))?;
        }
        let stopped = stop
            .try_clone()
            .map_err(|error| failed("cannot create an event", error))?;
        let device = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("zbd-minder".into())
            .spawn(move || device.look_after(&set, &stopped))
            .map_err(|error| failed("cannot start a thread", error))?;
        *minder = Some(Minder { stop, thread });
        Ok(())
    }

    fn look_after(self: &Arc<Self>, set: &Epoll, stop: &EventFd) {
        while stop.read().is_err() {
            // What came before the queues were watched, too.
            for lane in 0..self.lanes.len() as u16 {
                self.visit(lane, |visit| visit.drain());
            }
            if let Err(error) = set.wait(-1, &mut [EpollEvent::default(); 8])
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::warn!(%error, "the queues of a block device cannot be watched any more");
                return;
            }
        }
    }
}

/// A new event that can be read without waiting.
pub(super) fn new_event() -> std::io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK)
}

/// What the queues of a device have in common: the last of them to go closes it.
pub(super) struct Handle {
    pub(super) device: Arc<Device>,
    worker: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts the device's worker.
    pub(super) fn new(device: Arc<Device>) -> Result<Self> {
        let working = Arc::clone(&device);
        let worker = thread::Builder::new()
            .name("zbd-kernel".into())
            .spawn(move || worker::work(&working))
            .map_err(|error| {
                Error::new(ErrorKind::Io, "cannot start a thread").with_source(error)
            })?;
        Ok(Self {
            device,
            worker: Some(worker),
        })
    }
}

impl Drop for Handle {
    /// Waits for the threads, which hold the device, so that it is closed when this returns.
    fn drop(&mut self) {
        self.device.jobs.stop();
        let minder = self.device.minder.lock();
        let minder = minder.unwrap_or_else(PoisonError::into_inner).take();
        let minder = minder.map(|minder| {
            let _ = minder.stop.write(1);
            minder.thread
        });
        let deadline = Instant::now() + PATIENCE;
        for thread in self.worker.take().into_iter().chain(minder) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_micros(100));
            }
            match thread.is_finished() {
                // Its panic, if there was one, has been reported by the thread itself.
                true => drop(thread.join()),
                false => tracing::warn!(
                    device = self.device.info.name,
                    "the kernel does not return from a command to a block device that is being closed; it stays open until then"
                ),
            }
        }
    }
}
