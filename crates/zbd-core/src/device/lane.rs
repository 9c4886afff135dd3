//! One queue of a [`ZonedDevice`](super::ZonedDevice) and the thread that owns it.

use std::{
    collections::VecDeque,
    hint, mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use tokio::sync::oneshot;

use super::{engine::Shared, slots::Slots};
use crate::{Completion, Error, ErrorKind, IoQueue, Rejected, Request, Result};

/// How long a lane with nothing in flight looks for new requests before it sleeps. Waking it takes
/// about as long.
const SPIN_TIME: Duration = Duration::from_micros(50);
/// How many polls in a row find nothing before the thread offers its processor to others. On a
/// machine with fewer processors than busy threads, those may be what it waits for.
const POLLS_PER_YIELD: u32 = 64;

/// How often a lane that sleeps looks for requests that nobody waits for any more: their buffers are
/// to go back to the pool.
const LATE_TIME: Duration = Duration::from_millis(20);

/// A request on its way to the thread.
struct Submission {
    token: u64,
    request: Request,
    timeout: Option<Duration>,
}

/// What a lane's thread does besides requests.
#[derive(Clone, Copy)]
pub(super) enum Control {
    /// Resets the device.
    Recover,
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
    /// Whether the thread sleeps or is about to.
    is_sleeping: AtomicBool,
    thread: OnceLock<Thread>,
    is_stopped: AtomicBool,
    /// Why the thread has ended, if not because it was stopped.
    end: OnceLock<String>,
    doorbells: AtomicU64,
}

impl Lane {
    pub(super) fn new(depth: u16) -> Self {
        Self {
            slots: Slots::new(depth),
            submissions: ArrayQueue::new(depth.max(1).into()),
            controls: Mutex::default(),
            is_noticed: AtomicBool::new(false),
            is_sleeping: AtomicBool::new(false),
            thread: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            end: OnceLock::new(),
            doorbells: AtomicU64::new(0),
        }
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn doorbells(&self) -> u64 {
        self.doorbells.load(Ordering::Relaxed)
    }

    /// Hands a request to the thread. Whoever calls this holds the slot `token`, so there is room.
    pub(super) fn submit(&self, token: u64, request: Request, timeout: Option<Duration>) {
        let submission = Submission {
            token,
            request,
            timeout,
        };
        if let Err(submission) = self.submissions.push(submission) {
            return self.refuse(submission);
        }
        self.wake_if_sleeping();
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
        self.wake_if_sleeping();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.wake_if_sleeping();
    }

    fn wake_if_sleeping(&self) {
        // What is to be done must be visible before the flag is read; the thread, which sets the
        // flag and then looks for something to do, does the reverse. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_sleeping.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until there is something to do, or for `most`.
    fn sleep(&self, most: Option<Duration>) {
        self.is_sleeping.store(true, Ordering::Relaxed);
        // See `wake_if_sleeping`.
        fence(Ordering::SeqCst);
        if self.submissions.is_empty()
            && !self.is_noticed.load(Ordering::Relaxed)
            && !self.is_stopped.load(Ordering::Relaxed)
        {
            match most {
                None => thread::park(),
                Some(most) => thread::park_timeout(most),
            }
        }
        self.is_sleeping.store(false, Ordering::Relaxed);
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
                Control::Attend => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = done.send(outcome);
        }
    }

    fn refuse(&self, submission: Submission) {
        self.slots.complete(Completion {
            token: submission.token,
            result: Err(self.ended()),
            buffer: submission.request.into_buffer(),
        });
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
pub(super) fn drive(lane: &Lane, mut queue: IoQueue, shared: Option<&Shared>) {
    // Cannot have been set before: this is the lane's only thread.
    let _ = lane.thread.set(thread::current());
    let _ending = Ending(lane);
    let mut idle = Idle::default();
    let mut waiting = Waiting::default();
    while !lane.is_stopped.load(Ordering::Relaxed) {
        lane.attend(&mut queue);
        let mut busy = waiting.submit(lane, &mut queue);
        while waiting.is_empty()
            && queue.has_room()
            && let Some(submission) = lane.submissions.pop()
        {
            busy = true;
            if let Some(submission) = submit(lane, &mut queue, submission) {
                waiting.add(submission);
            }
        }
        queue.commit();
        while let Some(done) = queue.poll() {
            busy = true;
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
            return;
        }
        if busy {
            idle = Idle::default();
        } else {
            waiting.take(lane, &queue);
            idle.wait(lane, &queue, !waiting.is_empty());
        }
    }
}

/// Submits a request, or returns it if it does not fit now: one of many segments can take the place
/// of several.
fn submit(lane: &Lane, queue: &mut IoQueue, submission: Submission) -> Option<Submission> {
    let Submission {
        token,
        request,
        timeout,
    } = submission;
    let submitted = match timeout {
        None => queue.submit(request, token),
        Some(timeout) => queue.submit_within(request, token, timeout),
    };
    let Rejected { error, request } = submitted.err()?;
    if error.kind() == ErrorKind::QueueFull {
        return Some(Submission {
            token,
            request,
            timeout,
        });
    }
    lane.slots.complete(Completion {
        token,
        result: Err(error),
        buffer: request.into_buffer(),
    });
    None
}

/// Requests for which the queue has no room, because it is full of such whose time was up, or of
/// such that take the place of several. Their own time runs meanwhile.
#[derive(Default)]
struct Waiting(VecDeque<(Option<Instant>, Submission)>);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a request that did not fit.
    fn add(&mut self, submission: Submission) {
        let due = submission
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        self.0.push_back((due, submission));
    }

    /// Takes what has come for a queue without room.
    fn take(&mut self, lane: &Lane, queue: &IoQueue) {
        if queue.has_room() && self.is_empty() {
            return;
        }
        while let Some(submission) = lane.submissions.pop() {
            self.add(submission);
        }
        let now = Instant::now();
        let is_due = |(due, _): &(Option<Instant>, _)| due.is_some_and(|due| due <= now);
        while let Some(at) = self.0.iter().position(is_due)
            && let Some((_, submission)) = self.0.remove(at)
        {
            lane.slots.complete(Completion {
                token: submission.token,
                result: Err(Error::new(
                    ErrorKind::Timeout,
                    "the device returns nothing; the request was not sent to it. Reset the device (recover)",
                )),
                buffer: submission.request.into_buffer(),
            });
        }
    }

    /// Submits what there is room for; true if there was something.
    fn submit(&mut self, lane: &Lane, queue: &mut IoQueue) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut any = false;
        while queue.has_room()
            && let Some((due, mut submission)) = self.0.pop_front()
        {
            if let Some(due) = due {
                submission.timeout = Some(due.saturating_duration_since(Instant::now()));
            }
            if let Some(submission) = submit(lane, queue, submission) {
                self.0.push_front((due, submission));
                break;
            }
            any = true;
        }
        any
    }
}

/// What a thread does that has found nothing to do.
#[derive(Default)]
struct Idle {
    polls: u32,
    since: Option<Instant>,
}

impl Idle {
    fn wait(&mut self, lane: &Lane, queue: &IoQueue, is_waited_for: bool) {
        self.polls += 1;
        if !self.polls.is_multiple_of(POLLS_PER_YIELD) {
            return hint::spin_loop();
        }
        let is_expecting = queue.in_flight() > 0 || is_waited_for;
        if is_expecting || self.since.get_or_insert_with(Instant::now).elapsed() < SPIN_TIME {
            thread::yield_now();
        } else {
            lane.sleep(queue.has_expired().then_some(LATE_TIME));
            *self = Self::default();
        }
    }
}
