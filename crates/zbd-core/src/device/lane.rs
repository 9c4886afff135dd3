//! One queue of a [`ZonedDevice`](super::ZonedDevice) and the thread that owns it.

use std::{
    hint, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use tokio::sync::oneshot;

use super::{
    accounts::Books,
    backlog::{self, Backlog, Refused, Submission},
    lanes::Shared,
    slots::Slots,
};
use crate::{
    Completion, Error, ErrorKind, IoQueue, Request, Result, WaitPolicy, WriteCache,
    io_queue::{CHECK_TIME, LOOKS_PER_PAUSE, NAP},
    wait::{Alarm, Sleeper, SpinBudget},
};

/// How often a lane that sleeps looks for requests that nobody waits for any more: their buffers are
/// to go back to the pool.
const LATE_TIME: Duration = Duration::from_millis(20);

/// What a lane's thread does besides requests.
#[derive(Clone, Copy)]
pub(super) enum Control {
    /// Resets the device.
    Recover,
    SetWriteCache(WriteCache),
    /// Attends to what the device has announced.
    Attend,
}

/// What the tasks and the thread of one queue share.
pub(super) struct Lane {
    slots: Slots,
    submissions: ArrayQueue<Submission>,
    controls: Mutex<Vec<(Control, oneshot::Sender<Result<()>>)>>,
    /// Whether there is something to see to besides requests.
    is_noticed: AtomicBool,
    alarm: Arc<Alarm>,
    is_stopped: AtomicBool,
    /// Why the thread has ended, if not because it was stopped.
    end: OnceLock<String>,
    doorbells: AtomicU64,
}

impl Lane {
    pub(super) fn new(depth: u16, books: Books) -> Result<Self> {
        Ok(Self {
            slots: Slots::new(depth, books),
            submissions: ArrayQueue::new(depth.max(1).into()),
            controls: Mutex::default(),
            is_noticed: AtomicBool::new(false),
            alarm: Arc::new(Alarm::new()?),
            is_stopped: AtomicBool::new(false),
            end: OnceLock::new(),
            doorbells: AtomicU64::new(0),
        })
    }

    /// What wakes the thread.
    pub(super) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn doorbells(&self) -> u64 {
        self.doorbells.load(Ordering::Relaxed)
    }

    /// Hands a request to the thread. Whoever calls this holds the slot `token`, so there is room.
    pub(super) fn submit(&self, token: u64, request: Request, timeout: Option<Duration>) {
        self.slots.begin(token, &request);
        let submission = Submission {
            token,
            request,
            timeout,
        };
        if let Err(submission) = self.submissions.push(submission) {
            return self.refuse(submission);
        }
        self.alarm.ring();
        if self.is_stopped.load(Ordering::Relaxed) {
            self.refuse_all();
        }
    }

    /// Lets the thread do something besides requests, and waits until it has.
    pub(super) async fn control(&self, control: Control) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.controls().push((control, done));
        self.notice();
        if self.is_stopped.load(Ordering::Relaxed) {
            self.controls().clear();
        }
        wait.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// Lets the thread see to what the device has announced.
    pub(super) fn notice(&self) {
        self.is_noticed.store(true, Ordering::Relaxed);
        self.alarm.ring();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.alarm.ring();
    }

    /// Whether there is nothing that the thread could do besides looking at its queue.
    fn is_quiet(&self) -> bool {
        self.submissions.is_empty()
            && !self.is_noticed.load(Ordering::Relaxed)
            && !self.is_stopped.load(Ordering::Relaxed)
    }

    fn controls(&self) -> MutexGuard<'_, Vec<(Control, oneshot::Sender<Result<()>>)>> {
        // No code that can panic runs under the lock.
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to what there is besides requests.
    fn attend(&self, queue: &mut IoQueue) {
        if !self.is_noticed.swap(false, Ordering::Relaxed) {
            return;
        }
        queue.attend();
        let controls = mem::take(&mut *self.controls());
        for (control, done) in controls {
            let outcome = match control {
                Control::Recover => queue.recover(),
                Control::SetWriteCache(mode) => queue.set_write_cache(mode),
                Control::Attend => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = done.send(outcome);
        }
    }

    fn refuse(&self, submission: Submission) {
        self.slots.refuse(submission.refused(self.ended()));
    }

    fn refuse_all(&self) {
        while let Some(submission) = self.submissions.pop() {
            self.refuse(submission);
        }
    }

    /// The error of what the thread can no longer do.
    pub(super) fn ended(&self) -> Error {
        let why = match self.end.get() {
            Some(why) => why,
            None => "the device's polling thread has ended; close and reopen the device",
        };
        Error::new(ErrorKind::DeviceGone, why)
    }
}

/// Ends what still waits when the thread ends, even by a panic.
struct Ending<'a>(&'a Lane);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.0.controls().clear();
        self.0.refuse_all();
        self.0.slots.close(|token| Completion {
            token,
            result: Err(self.0.ended()),
            buffer: None,
        });
    }
}

/// The thread of one queue, which tells `shared`, if it is the one to do so, what it learns.
pub(super) fn drive(lane: &Lane, mut queue: IoQueue, sleeper: Sleeper, shared: Option<&Shared>) {
    let _ending = Ending(lane);
    let mut pace = Pace::new(queue.wait_policy(), sleeper);
    let mut backlog = Backlog::default();
    let refuse = |done| lane.slots.refuse(done);
    while !lane.is_stopped.load(Ordering::Relaxed) {
        lane.attend(&mut queue);
        let mut busy = backlog.submit(&mut queue, refuse);
        while backlog.is_empty()
            && queue.has_room()
            && let Some(submission) = lane.submissions.pop()
        {
            busy = true;
            match backlog::submit(&mut queue, submission) {
                Ok(()) => {}
                Err(Refused::Later(submission)) => backlog.add(submission),
                Err(Refused::Never(done)) => refuse(done),
            }
        }
        queue.commit();
        let mut found = false;
        while let Some(done) = queue.poll() {
            found = true;
            lane.slots.complete(done);
        }
        lane.doorbells.store(queue.doorbells(), Ordering::Relaxed);
        while let Some(event) = queue.next_event() {
            if let Some(shared) = shared {
                shared.announce(event, queue.info());
            }
        }
        if let Some(why) = queue.is_gone() {
            // What owns the device goes: it may be wanted back, and whoever wants it waits.
            let _ = lane.end.set(why.to_owned());
            while let Some(submission) = backlog.take() {
                lane.refuse(submission);
            }
            return;
        }
        if busy || found {
            pace.found(found);
            continue;
        }
        if !backlog.is_empty() || !queue.has_room() {
            // What has come for a queue without room: its time runs all the same.
            while let Some(submission) = lane.submissions.pop() {
                backlog.add(submission);
            }
            backlog.expire(refuse);
        }
        pace.idle(lane, &mut queue, &backlog);
    }
}

/// How a thread waits that has found nothing to do.
struct Pace {
    policy: WaitPolicy,
    budget: SpinBudget,
    sleeper: Sleeper,
    looks: u32,
}

impl Pace {
    fn new(policy: WaitPolicy, sleeper: Sleeper) -> Self {
        Self {
            policy,
            budget: SpinBudget::new(policy),
            sleeper,
            looks: 0,
        }
    }

    /// There was something to do; from the device, if it was `returned`.
    #[inline]
    fn found(&mut self, returned: bool) {
        if self.looks >= LOOKS_PER_PAUSE {
            // The clock has been read: there was a wait that is worth learning from.
            match returned {
                true => self.budget.found(Instant::now()),
                false => self.budget.forget(),
            }
        }
        self.looks = 0;
    }

    fn idle(&mut self, lane: &Lane, queue: &mut IoQueue, backlog: &Backlog) {
        self.looks = self.looks.saturating_add(1);
        if !self.looks.is_multiple_of(LOOKS_PER_PAUSE) && self.policy != WaitPolicy::Interrupt {
            return hint::spin_loop();
        }
        self.looks = self.looks.max(LOOKS_PER_PAUSE);
        let now = Instant::now();
        self.budget.begin(now);
        if !self.budget.is_spent(now) {
            return thread::yield_now();
        }
        self.budget.slept();
        self.sleep(lane, queue, backlog);
        if queue.in_flight() == 0 {
            // How long that takes is up to the callers.
            self.budget.forget();
        }
    }

    /// Sleeps until there is something to do. The order is that of [`crate::wait`].
    fn sleep(&mut self, lane: &Lane, queue: &mut IoQueue, backlog: &Backlog) {
        let is_expecting = queue.in_flight() > 0;
        let can_interrupt = queue.interrupt().is_some();
        lane.alarm.about_to_sleep();
        let is_idle = !(is_expecting || queue.has_expired()) || !can_interrupt || queue.arm();
        if is_idle && lane.is_quiet() {
            let limits = [
                queue.time_left(),
                backlog.time_left(),
                queue.has_expired().then_some(LATE_TIME),
                (is_expecting && !can_interrupt).then_some(NAP),
                is_expecting.then_some(CHECK_TIME),
            ];
            let most = limits.into_iter().flatten().min();
            if let Err(error) = self.sleeper.sleep(most) {
                // It will not sleep the next time either.
                tracing::warn!(%error, "a lane cannot sleep and polls from now on");
                self.policy = WaitPolicy::Poll;
                self.budget = SpinBudget::new(WaitPolicy::Poll);
            }
            queue.look_closely(false);
        }
        lane.alarm.stay_awake();
        queue.disarm();
    }
}
