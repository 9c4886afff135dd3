//! The threads that drive the queues of a [`ZonedDevice`](super::ZonedDevice).
//!
//! Each queue is owned by one thread, its lane's. Requests come to it through a bounded queue and
//! are shown to the device in batches, whatever has gathered; completions go to the slots of their
//! requests. While nothing is in flight and nothing comes, the thread sleeps.

use std::{
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, RunningDevice};

use super::lane::{self, Control, Lane};
use crate::{DeviceEvent, DeviceInfo, Error, ErrorKind, IoQueue, Result};

/// How many events a receiver may be behind; the oldest go first.
const EVENTS_KEPT: usize = 16;

/// A lane and its thread.
struct Driven {
    lane: Arc<Lane>,
    thread: Option<JoinHandle<()>>,
}

/// The lanes of a device.
pub(super) struct Engine {
    lanes: Vec<Driven>,
    next: AtomicUsize,
    shared: Arc<Shared>,
    memory: DmaArena,
    /// The queues hold the device, so that it can be closed under the hands of its users when it
    /// is wanted back.
    device: Option<Weak<RunningDevice>>,
}

/// What the lanes tell the users of the device.
pub(super) struct Shared {
    info: RwLock<Arc<DeviceInfo>>,
    events: broadcast::Sender<DeviceEvent>,
}

impl Shared {
    /// Passes on what one of the queues, all of which learn of it, has learnt.
    pub(super) fn announce(&self, event: DeviceEvent, info: &Arc<DeviceInfo>) {
        *self.info.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(info);
        // It fails where nobody listens.
        let _ = self.events.send(event);
    }
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
            shared: Arc::new(Shared {
                info: RwLock::new(Arc::clone(first.info())),
                events: broadcast::Sender::new(EVENTS_KEPT),
            }),
            memory: first.memory().clone(),
            device: first.device().map(Arc::downgrade),
            lanes: Vec::new(),
            next: AtomicUsize::new(0),
        };
        let lanes: Vec<_> = queues
            .iter()
            .map(|queue| Arc::new(Lane::new(queue.depth())))
            .collect();
        let noticing = lanes.clone();
        if let Some(device) = first.device() {
            device.on_attention(move || noticing.iter().for_each(|lane| lane.notice()));
        }
        for ((i, queue), lane) in queues.into_iter().enumerate().zip(lanes) {
            let driven = Arc::clone(&lane);
            // One of them speaks for all.
            let shared = (i == 0).then(|| Arc::clone(&engine.shared));
            // If this fails, dropping the engine ends the threads that did start.
            let thread = thread::Builder::new()
                .name(format!("zbd-lane-{i}"))
                .spawn(move || lane::drive(&driven, queue, shared.as_deref()))
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

    pub(super) fn info(&self) -> Arc<DeviceInfo> {
        let info = self.shared.info.read();
        Arc::clone(&info.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.shared.events.subscribe()
    }

    /// Resets the device, and waits until all queues work again.
    pub(super) async fn recover(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (driven, i) in self.lanes.iter().zip(0..) {
            let done = match i {
                0 => driven.lane.control(Control::Recover).await,
                // All lanes attend to a reset by themselves; this waits until they have.
                _ => driven.lane.control(Control::Attend).await,
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    pub(super) fn memory(&self) -> &DmaArena {
        &self.memory
    }

    /// The virtio device, unless it has been closed because it is gone; none if the kernel drives
    /// the device.
    pub(super) fn device(&self) -> Result<Option<Arc<RunningDevice>>> {
        let Some(device) = &self.device else {
            return Ok(None);
        };
        match device.upgrade() {
            None => Err(Error::new(
                ErrorKind::DeviceGone,
                "the device is gone; reopen it",
            )),
            device => Ok(device),
        }
    }

    pub(super) fn doorbells(&self) -> u64 {
        self.lanes
            .iter()
            .map(|driven| driven.lane.doorbells())
            .sum()
    }
}

impl Drop for Engine {
    /// Ends the threads; with the last of their queues the device is reset.
    fn drop(&mut self) {
        for driven in &self.lanes {
            driven.lane.stop();
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
