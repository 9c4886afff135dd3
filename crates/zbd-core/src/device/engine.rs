//! The threads that drive the queues of a [`ZonedDevice`](super::ZonedDevice).
//!
//! Each queue is owned by one thread, its lane's. Requests come to it through a bounded queue and
//! are shown to the device in batches, whatever has gathered; completions go to the slots of their
//! requests. While nothing is in flight and nothing comes, the thread sleeps.

use std::{
    hint,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use vfio_virtio::{DmaArena, RunningDevice};

use super::{operation::stopped, slots::Slots};
use crate::{Completion, DeviceInfo, Error, ErrorKind, IoQueue, Request, Result};

/// How long a lane with nothing in flight looks for new requests before it sleeps. Waking it takes
/// about as long.
const SPIN_TIME: Duration = Duration::from_micros(50);
/// How many polls in a row find nothing before the thread offers its processor to others. On a
/// machine with fewer processors than busy threads, those may be what it waits for.
const POLLS_PER_YIELD: u32 = 64;

/// A lane and its thread.
struct Driven {
    lane: Arc<Lane>,
    thread: Option<JoinHandle<()>>,
}

/// The lanes of a device.
pub(super) struct Engine {
    lanes: Vec<Driven>,
    next: AtomicUsize,
    info: Arc<DeviceInfo>,
    memory: DmaArena,
    device: Arc<RunningDevice>,
}

impl Engine {
    pub(super) fn start(queues: Vec<IoQueue>) -> Result<Self> {
        let Some(first) = queues.first() else {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a device needs at least one queue",
            ));
        };
        if queues.iter().any(|queue| queue.in_flight() > 0) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a queue with requests in flight cannot be shared",
            ));
        }
        let mut engine = Self {
            info: Arc::clone(first.info()),
            memory: first.memory().clone(),
            device: Arc::clone(first.device()),
            lanes: Vec::new(),
            next: AtomicUsize::new(0),
        };
        for (i, queue) in queues.into_iter().enumerate() {
            let lane = Arc::new(Lane::new(queue.depth()));
            let driven = Arc::clone(&lane);
            // If this fails, dropping the engine ends the threads that did start.
            let thread = thread::Builder::new()
                .name(format!("zbd-lane-{i}"))
                .spawn(move || drive(&driven, queue))
                .map_err(|e| {
                    Error::new(ErrorKind::Io, "cannot start a polling thread").with_source(e)
                })?;
            engine.lanes.push(Driven {
                lane,
                thread: Some(thread),
            });
        }
        Ok(engine)
    }

    /// The lane that takes the next request.
    pub(super) fn lane(&self) -> &Lane {
        let next = match self.lanes.len() {
            1 => 0,
            lanes => self.next.fetch_add(1, Ordering::Relaxed) % lanes,
        };
        &self.lanes[next].lane
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn memory(&self) -> &DmaArena {
        &self.memory
    }

    pub(super) fn device(&self) -> &RunningDevice {
        &self.device
    }

    pub(super) fn doorbells(&self) -> u64 {
        self.lanes
            .iter()
            .map(|driven| driven.lane.doorbells.load(Ordering::Relaxed))
            .sum()
    }
}

impl Drop for Engine {
    /// Ends the threads; with the last of their queues the device is reset.
    fn drop(&mut self) {
        for driven in &self.lanes {
            driven.lane.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = &driven.thread {
                driven.lane.wake(thread.thread());
            }
        }
        for driven in &mut self.lanes {
            // A waker may drop the last clone of the device on the very thread that calls it;
            // that thread ends by itself.
            let here = thread::current().id();
            if let Some(thread) = driven.thread.take_if(|thread| thread.thread().id() != here) {
                // Its panic, if there was one, has been reported by the thread itself.
                let _ = thread.join();
            }
        }
    }
}

/// What the tasks and the thread of one queue share.
pub(super) struct Lane {
    slots: Slots,
    requests: ArrayQueue<(u64, Request)>,
    /// Whether the thread sleeps or is about to.
    sleeping: AtomicBool,
    thread: OnceLock<Thread>,
    stop: AtomicBool,
    doorbells: AtomicU64,
}

impl Lane {
    fn new(depth: u16) -> Self {
        Self {
            slots: Slots::new(depth),
            requests: ArrayQueue::new(depth.max(1).into()),
            sleeping: AtomicBool::new(false),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
            doorbells: AtomicU64::new(0),
        }
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Hands a request to the thread. Whoever calls this holds the slot `token`, so there is room.
    pub(super) fn submit(&self, token: u64, request: Request) {
        if let Err((token, request)) = self.requests.push((token, request)) {
            return self.slots.complete(refused(token, request));
        }
        // The request must be visible before the flag is read; the thread, which sets the flag and
        // then looks for requests, does the reverse. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            self.wake(thread);
        }
        if self.stop.load(Ordering::Relaxed) {
            self.refuse_all();
        }
    }

    fn wake(&self, thread: &Thread) {
        self.sleeping.store(false, Ordering::Relaxed);
        thread.unpark();
    }

    /// Sleeps until there is a request or the end.
    fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        // See `submit`.
        fence(Ordering::SeqCst);
        if self.requests.is_empty() && !self.stop.load(Ordering::Relaxed) {
            thread::park();
        }
        self.sleeping.store(false, Ordering::Relaxed);
    }

    fn refuse_all(&self) {
        while let Some((token, request)) = self.requests.pop() {
            self.slots.complete(refused(token, request));
        }
    }
}

fn refused(token: u64, request: Request) -> Completion {
    Completion {
        token,
        result: Err(stopped()),
        buffer: request.into_buffer(),
    }
}

/// Ends what still waits when the thread ends, even by a panic.
struct Ending<'a>(&'a Lane);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.0.refuse_all();
        self.0.slots.close(|token| Completion {
            token,
            result: Err(stopped()),
            buffer: None,
        });
    }
}

/// The thread of one queue.
fn drive(lane: &Lane, mut queue: IoQueue) {
    // Cannot have been set before: this is the lane's only thread.
    let _ = lane.thread.set(thread::current());
    let _ending = Ending(lane);
    let mut idle = Idle::default();
    while !lane.stop.load(Ordering::Relaxed) {
        let mut busy = false;
        while let Some((token, request)) = lane.requests.pop() {
            busy = true;
            if let Err(rejected) = queue.submit(request, token) {
                lane.slots.complete(Completion {
                    token,
                    result: Err(rejected.error),
                    buffer: rejected.request.into_buffer(),
                });
            }
        }
        queue.commit();
        while let Some(done) = queue.poll() {
            busy = true;
            lane.slots.complete(done);
        }
        lane.doorbells.store(queue.doorbells(), Ordering::Relaxed);
        if busy {
            idle = Idle::default();
        } else {
            idle.wait(lane, queue.in_flight() > 0);
        }
    }
}

/// What a thread does that has found nothing to do.
#[derive(Default)]
struct Idle {
    polls: u32,
    since: Option<Instant>,
}

impl Idle {
    fn wait(&mut self, lane: &Lane, in_flight: bool) {
        self.polls += 1;
        if !self.polls.is_multiple_of(POLLS_PER_YIELD) {
            return hint::spin_loop();
        }
        if in_flight || self.since.get_or_insert_with(Instant::now).elapsed() < SPIN_TIME {
            thread::yield_now();
        } else {
            lane.sleep();
            *self = Self::default();
        }
    }
}
