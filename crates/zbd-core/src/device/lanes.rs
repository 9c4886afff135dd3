//! The threads that drive the queues of a [`ZonedDevice`](super::ZonedDevice).
//!
//! Each queue is owned by one thread, its lane's. Requests come to it through a bounded queue and
//! are shown to the device in batches, whatever has gathered; completions go to the slots of their
//! requests. When nothing comes, the thread spins and sleeps as the device's wait policy says.

use std::{
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, RunningDevice};

use super::{
    accounts::{Accounts, Books},
    driver::{Drive, Driver, Finished, Place},
    lane::{self, Control, Lane},
    operation::{self, Operation},
    slots::Slot,
};
use crate::{
    DeviceEvent, DeviceInfo, Error, ErrorKind, IoQueue, Request, Result, WriteCache, ZonedDevice,
    ZonedInfo, log::Writers,
};

mod run;

use run::Run;

/// How many events a receiver may be behind; the oldest go first.
const EVENTS_KEPT: usize = 16;

/// A lane and its thread.
struct Driven {
    lane: Arc<Lane>,
    thread: Option<JoinHandle<()>>,
}

/// A thread for each queue: what drives a device that is used from many threads.
#[derive(Clone)]
pub struct Lanes(Arc<Engine>);

/// The lanes of a device.
struct Engine {
    lanes: Vec<Driven>,
    next: AtomicUsize,
    shared: Arc<Shared>,
    memory: DmaArena,
    books: Books,
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

impl Lanes {
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
        let books = Books::new(first.info());
        let mut engine = Engine {
            shared: Arc::new(Shared {
                info: RwLock::new(Arc::clone(first.info())),
                events: broadcast::Sender::new(EVENTS_KEPT),
            }),
            memory: first.memory().clone(),
            device: first.device().map(Arc::downgrade),
            lanes: Vec::new(),
            next: AtomicUsize::new(0),
            books: books.clone(),
        };
        let lanes: Vec<_> = queues
            .iter()
            .map(|queue| Ok(Arc::new(Lane::new(queue.depth(), books.clone())?)))
            .collect::<Result<_>>()?;
        let noticing = lanes.clone();
        if let Some(device) = first.device() {
            device.on_attention(move || noticing.iter().for_each(|lane| lane.notice()));
        }
        for ((i, queue), lane) in queues.into_iter().enumerate().zip(lanes) {
            let driven = Arc::clone(&lane);
            let sleeper = queue.sleeper(lane.alarm())?;
            // One of them speaks for all.
            let shared = (i == 0).then(|| Arc::clone(&engine.shared));
            // If this fails, dropping the engine ends the threads that did start.
            let thread = thread::Builder::new()
                .name(format!("zbd-lane-{i}"))
                .spawn(move || lane::drive(&driven, queue, sleeper, shared.as_deref()))
                .map_err(|e| {
                    Error::new(ErrorKind::Io, "cannot start a polling thread").with_source(e)
                })?;
            engine.lanes.push(Driven {
                lane,
                thread: Some(thread),
            });
        }
        Ok(Self(Arc::new(engine)))
    }

    /// A free slot: of the lane whose turn it is, or of the next that has one. If there is none, the
    /// lane to wait at.
    fn place(&self) -> Result<LaneSlot<'_>, &Lane> {
        let lanes = &self.0.lanes;
        let turn = match lanes.len() {
            1 => 0,
            count => self.0.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        let (later, first) = lanes.split_at(turn);
        let mut full = None;
        for Driven { lane, .. } in first.iter().chain(later) {
            match lane.slots().try_acquire() {
                Ok(Some(slot)) => return Ok(LaneSlot { lane, slot }),
                Ok(None) => full = full.or(Some(lane)),
                // Its thread has ended; others may go on.
                Err(_) => {}
            }
        }
        Err(full.unwrap_or(&lanes[turn].lane))
    }
}

/// A slot of one of the lanes.
pub struct LaneSlot<'a> {
    lane: &'a Lane,
    slot: Slot<'a>,
}

impl Place for LaneSlot<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        self.slot.poll(cx)
    }
}

impl Driver for Lanes {}

impl Drive for Lanes {
    type Slot<'a> = LaneSlot<'a>;
    type Run<'a, R: Into<Request> + 'a> = Run<'a, R>;
    type Going = Pin<Box<dyn Future<Output = Finished> + Send>>;

    fn run<'a, R: Into<Request> + 'a>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
    ) -> Run<'a, R> {
        Run::new(self, request, timeout)
    }

    fn begin<'a, R: Into<Request>>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> std::result::Result<(LaneSlot<'a>, Poll<Finished>), R> {
        let Ok(mut place) = self.place() else {
            return Err(request);
        };
        self.submit(&place, request.into(), timeout);
        let poll = place.poll(cx);
        Ok((place, poll))
    }

    fn try_acquire(&self) -> Result<Option<LaneSlot<'_>>> {
        match self.place() {
            Ok(slot) => Ok(Some(slot)),
            Err(lane) if lane.slots().is_closed() => Err(lane.ended()),
            Err(_) => Ok(None),
        }
    }

    fn submit(&self, slot: &LaneSlot<'_>, request: Request, timeout: Option<Duration>) {
        slot.lane.submit(slot.slot.token(), request, timeout);
    }

    fn launch(device: ZonedDevice, operation: Operation) -> Self::Going {
        Box::pin(operation::carry_out(device, operation))
    }

    fn with_log_writers<R>(work: impl FnOnce(&Writers<Self>) -> R) -> R {
        static WRITERS: Writers<Lanes> = Writers::new();
        work(&WRITERS)
    }

    fn opened(&self) -> &Arc<DeviceInfo> {
        self.0.books.opened()
    }

    fn info(&self) -> Arc<DeviceInfo> {
        let info = self.0.shared.info.read();
        Arc::clone(&info.unwrap_or_else(PoisonError::into_inner))
    }

    fn accounts(&self) -> &Accounts {
        self.0.books.accounts()
    }

    fn zoned(&self) -> Option<&ZonedInfo> {
        self.0.books.zoned()
    }

    fn memory(&self) -> &DmaArena {
        &self.0.memory
    }

    fn device(&self) -> Result<Option<Arc<RunningDevice>>> {
        let Some(device) = &self.0.device else {
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

    fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.0.shared.events.subscribe()
    }

    /// Resets the device, and waits until all queues work again.
    async fn recover(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (driven, i) in self.0.lanes.iter().zip(0..) {
            let done = match i {
                0 => driven.lane.control(Control::Recover).await,
                // All lanes attend to a reset by themselves; this waits until they have.
                _ => driven.lane.control(Control::Attend).await,
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    async fn set_write_cache(&self, mode: WriteCache) -> Result<()> {
        // Where the device is reset, too: that can take time.
        match self.0.lanes.first() {
            Some(driven) => driven.lane.control(Control::SetWriteCache(mode)).await,
            None => Ok(()),
        }
    }

    fn doorbells(&self) -> u64 {
        let lanes = self.0.lanes.iter();
        lanes.map(|driven| driven.lane.doorbells()).sum()
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
