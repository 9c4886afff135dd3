//! What drives the queues of a device: threads of their own, or the thread that uses them.

use std::{
    future::{self, Future},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, RunningDevice};

use super::accounts::Accounts;
use crate::{Completion, DeviceEvent, DeviceInfo, Request, Result};

/// What drives the queues of a [`ZonedDevice`](crate::ZonedDevice): [`Lanes`](crate::Lanes), which are
/// threads of their own, or [`Local`](crate::Local), the one thread that uses the device.
pub trait Driver: Drive {}

/// What a driver does.
pub trait Drive: Clone {
    /// A request's place among those in flight.
    type Slot<'a>: Place
    where
        Self: 'a;

    /// Waits for a slot, first come, first served.
    fn acquire(&self) -> impl Future<Output = Result<Self::Slot<'_>>>;

    /// A slot, if one is free and nobody waits for it.
    fn try_acquire(&self) -> Result<Option<Self::Slot<'_>>>;

    /// Submits a request whose completion goes to `slot`.
    fn submit(&self, slot: &Self::Slot<'_>, request: Request, timeout: Option<Duration>);

    /// Takes note of a task that waits for what comes of others' requests.
    fn keep(&self, _waker: &Waker) {}

    fn info(&self) -> Arc<DeviceInfo>;

    fn accounts(&self) -> &Accounts;

    fn memory(&self) -> &DmaArena;

    /// The virtio device; none if the kernel drives it.
    fn device(&self) -> Result<Option<Arc<RunningDevice>>>;

    fn events(&self) -> broadcast::Receiver<DeviceEvent>;

    fn recover(&self) -> impl Future<Output = Result<()>>;

    fn doorbells(&self) -> u64;
}

/// A request's place among those in flight. Dropped before its request has ended, it stays taken
/// until then, and what comes back goes to the pool.
pub trait Place {
    /// The completion, if there is one; otherwise it will wake `cx`.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Completion>;
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
pub(super) async fn completion(mut slot: impl Place) -> Completion {
    future::poll_fn(|cx| slot.poll(cx)).await
}
