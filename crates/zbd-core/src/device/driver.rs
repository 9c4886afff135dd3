//! What drives the queues of a device: threads of their own, or the thread that uses them.

use std::{
    future::{self, Future},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, DmaBuffer, RunningDevice};

use super::{accounts::Accounts, operation::Operation};
use crate::{
    Completion, DeviceEvent, DeviceInfo, Request, Result, Sector, WriteCache, ZonedDevice,
    ZonedInfo, log::Writers,
};

/// What drives the queues of a [`ZonedDevice`](crate::ZonedDevice): [`Lanes`](crate::Lanes), which are
/// threads of their own, or [`Local`](crate::Local), the one thread that uses the device.
pub trait Driver: Drive {}

/// What a driver does.
pub trait Drive: Clone {
    /// A request's place among those in flight.
    type Slot<'a>: Place
    where
        Self: 'a;

    /// A request on its way. Nothing in it needs to be pinned.
    type Run<'a, R: Into<Request> + 'a>: Future<Output = Finished> + Unpin
    where
        Self: 'a;

    /// Runs `request` and waits for its end.
    ///
    /// The first wait is for a slot, first come, first served; until then nothing has happened, and a
    /// drop drops the request. The second is for its completion: a drop there orphans the slot.
    ///
    /// What becomes the request is turned into it where it is submitted, so that all paths but that of
    /// its kind fold away.
    fn run<'a, R: Into<Request> + 'a>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
    ) -> Self::Run<'a, R>;

    /// Submits `request` and polls its slot for the first time; if none is free, or others wait for
    /// one, the request comes back.
    fn begin<'a, R: Into<Request>>(
        &'a self,
        request: R,
        timeout: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> std::result::Result<(Self::Slot<'a>, Poll<Finished>), R>;

    /// A slot, if one is free and nobody waits for it.
    fn try_acquire(&self) -> Result<Option<Self::Slot<'_>>>;

    /// Submits a request whose completion goes to `slot`.
    fn submit(&self, slot: &Self::Slot<'_>, request: Request, timeout: Option<Duration>);

    /// An operation on its way, which may leave its thread if the device may.
    type Going: Future<Output = Finished> + Unpin;

    /// Lets an operation go on its way. It begins when it is first polled.
    fn launch(device: ZonedDevice<Self>, operation: Operation) -> Self::Going
    where
        Self: Driver;

    /// The handles of logs that can be polled here.
    fn with_log_writers<R>(work: impl FnOnce(&Writers<Self>) -> R) -> R
    where
        Self: Driver;

    /// Takes note of a task that waits for what comes of others' requests.
    fn keep(&self, _waker: &Waker) {}

    fn info(&self) -> Arc<DeviceInfo>;

    /// The device as it was when it was opened. Handles made of queues that were opened together have
    /// the same one.
    fn opened(&self) -> &Arc<DeviceInfo>;

    fn accounts(&self) -> &Accounts;

    /// The zones as they were when the device was opened.
    fn zoned(&self) -> Option<&ZonedInfo>;

    fn memory(&self) -> &DmaArena;

    /// The virtio device; none if the kernel drives it.
    fn device(&self) -> Result<Option<Arc<RunningDevice>>>;

    fn events(&self) -> broadcast::Receiver<DeviceEvent>;

    fn recover(&self) -> impl Future<Output = Result<()>>;

    fn set_write_cache(&self, mode: WriteCache) -> impl Future<Output = Result<()>>;

    fn doorbells(&self) -> u64;
}

/// Where a request was carried out, and its buffer; an error has the buffer in it.
pub(crate) type Finished = Result<(Sector, Option<DmaBuffer>)>;

/// What a completion comes to.
#[inline]
pub(super) fn finished(done: Completion) -> Finished {
    match done.result {
        Ok(sector) => Ok((sector, done.buffer)),
        Err(error) => Err(error.with_buffer(done.buffer)),
    }
}

/// A request's place among those in flight. Dropped before its request has ended, it stays taken
/// until then, and what comes back goes to the pool.
pub trait Place {
    /// The completion, if there is one; otherwise it will wake `cx`.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finished>;
}

/// Waits for `event`, which comes of others' requests.
pub(super) async fn heard(driver: &impl Drive, event: impl Future<Output = ()>) {
    let mut event = pin!(event);
    future::poll_fn(|cx| {
        let heard = event.as_mut().poll(cx);
        if heard.is_pending() {
            driver.keep(cx.waker());
        }
        heard
    })
    .await;
}

/// Waits for the completion that comes to `slot`.
pub(super) async fn completion(mut slot: impl Place) -> Finished {
    future::poll_fn(|cx| slot.poll(cx)).await
}
