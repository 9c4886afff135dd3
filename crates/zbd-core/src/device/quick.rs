//! Reads, writes and appends as futures.
//!
//! Mostly such a request is only run. The future for that is written by hand, so that it is short and
//! its polls are, too; what else there can be to do is another future, on the heap.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use vfio_virtio::DmaBuffer;

use super::{
    Driver, ZonedDevice,
    driver::{Finished, Place},
};
use crate::{Error, Request, Result, Sector};

/// A request of a kind that is known when compiling.
pub(super) trait Quick: Into<Request> {
    /// What is known of it when it has been submitted.
    type Rest: Copy;
    type Output;

    fn rest(&self) -> Self::Rest;

    /// Whether there is nothing to do but to run it.
    fn is_quick<D: Driver>(&self, device: &ZonedDevice<D>) -> bool;

    /// What it comes to, carried out at `sector`.
    fn output(sector: Sector, buffer: Option<DmaBuffer>) -> Result<Self::Output>;
}

/// Why a request takes more than being run.
pub(super) enum Detour<R: Quick> {
    /// It is not submitted yet.
    Before(R),
    /// It has failed.
    After(R::Rest, Error),
}

/// Runs a request. `detour` makes the future of what else there is to do.
///
/// One field after the other has something in it, and what is seldom there comes last.
#[must_use = "futures do nothing unless polled"]
pub(super) struct Direct<'a, D: Driver + 'a, R: Quick + 'a, F, S> {
    device: &'a ZonedDevice<D>,
    detour: F,
    /// Until the first poll.
    request: Option<R>,
    in_flight: Option<(R::Rest, D::Slot<'a>)>,
    /// There was no slot for it at first.
    waits: Option<(R::Rest, D::Run<'a, R>)>,
    detours: Option<Pin<Box<S>>>,
}

impl<'a, D, R, F, S> Direct<'a, D, R, F, S>
where
    D: Driver,
    R: Quick,
    F: Fn(&'a ZonedDevice<D>, Detour<R>) -> S,
    S: Future<Output = Result<R::Output>>,
{
    #[inline]
    pub(super) fn new(device: &'a ZonedDevice<D>, request: R, detour: F) -> Self {
        Self {
            device,
            detour,
            request: Some(request),
            in_flight: None,
            waits: None,
            detours: None,
        }
    }

    #[inline(always)]
    fn end(&mut self, rest: R::Rest, done: Finished, cx: &mut Context<'_>) -> Poll<S::Output> {
        match done {
            Ok((sector, buffer)) => Poll::Ready(R::output(sector, buffer)),
            Err(error) => self.go_round(Detour::After(rest, error), cx),
        }
    }

    #[cold]
    fn go_round(&mut self, detour: Detour<R>, cx: &mut Context<'_>) -> Poll<S::Output> {
        self.detours = Some(Box::pin((self.detour)(self.device, detour)));
        self.go_on(cx)
    }

    #[cold]
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<S::Output> {
        if let Some((rest, run)) = &mut self.waits {
            let rest = *rest;
            return match Pin::new(run).poll(cx) {
                Poll::Ready(done) => {
                    self.waits = None;
                    self.end(rest, done, cx)
                }
                Poll::Pending => Poll::Pending,
            };
        }
        // If there is nothing any more, like any future that has come to its end.
        let Some(future) = &mut self.detours else {
            return Poll::Pending;
        };
        let poll = future.as_mut().poll(cx);
        if poll.is_ready() {
            self.detours = None;
        }
        poll
    }
}

// Nothing in it is pinned but what is on the heap.
impl<D: Driver, R: Quick, F, S> Unpin for Direct<'_, D, R, F, S> {}

impl<'a, D, R, F, S> Future for Direct<'a, D, R, F, S>
where
    D: Driver,
    R: Quick,
    F: Fn(&'a ZonedDevice<D>, Detour<R>) -> S,
    S: Future<Output = Result<R::Output>>,
{
    type Output = Result<R::Output>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some((rest, slot)) = &mut this.in_flight {
            let rest = *rest;
            return match slot.poll(cx) {
                Poll::Ready(done) => {
                    this.in_flight = None;
                    this.end(rest, done, cx)
                }
                Poll::Pending => Poll::Pending,
            };
        }
        let Some(request) = this.request.take() else {
            return this.go_on(cx);
        };
        if !request.is_quick(this.device) {
            return this.go_round(Detour::Before(request), cx);
        }
        let (rest, device) = (request.rest(), this.device);
        match device.driver.begin(request, device.timeout, cx) {
            Ok((slot, Poll::Pending)) => {
                this.in_flight = Some((rest, slot));
                Poll::Pending
            }
            Ok((_, Poll::Ready(done))) => this.end(rest, done, cx),
            Err(request) => {
                this.waits = Some((rest, device.run(request)));
                this.go_on(cx)
            }
        }
    }
}
