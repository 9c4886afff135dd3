//! A request, from before it has a slot until its end, as one future.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::{LocalSlot, Thread, Ticket};
use crate::{
    Request,
    device::driver::{Finished, Place},
};

pub struct Run<'a, R> {
    thread: &'a Thread,
    timeout: Option<Duration>,
    stage: Stage<'a, R>,
}

enum Stage<'a, R> {
    New(R),
    InLine(Ticket, R),
    InFlight(LocalSlot<'a>),
    Ended,
}

impl<'a, R> Run<'a, R> {
    pub(super) fn new(thread: &'a Thread, request: R, timeout: Option<Duration>) -> Self {
        Self {
            thread,
            timeout,
            stage: Stage::New(request),
        }
    }
}

impl<R: Into<Request>> Run<'_, R> {
    /// Submits the request if there is a slot for it, else stands in line.
    fn begin(&mut self, cx: &Context<'_>) {
        let (ticket, request) = match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::New(request) => (None, request),
            Stage::InLine(ticket, request) => (Some(ticket), request),
            // Like any future that has come to its end.
            other @ (Stage::InFlight(_) | Stage::Ended) => {
                self.stage = other;
                return;
            }
        };
        let waker = cx.waker().clone();
        self.stage = match self.thread.begin(ticket, request, self.timeout, waker) {
            Ok(slot) => Stage::InFlight(slot),
            Err((request, waker)) => {
                Stage::InLine(self.thread.stand_in_line(ticket, waker), request)
            }
        };
    }
}

// Nothing in it is pinned.
impl<R> Unpin for Run<'_, R> {}

impl<R: Into<Request>> Future for Run<'_, R> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = &mut *self;
        if let Stage::InFlight(slot) = &mut this.stage {
            return slot.poll(cx);
        }
        // Submitted, it wakes `cx` when it has ended, even if it has ended at once.
        this.begin(cx);
        Poll::Pending
    }
}

impl<R> Drop for Run<'_, R> {
    fn drop(&mut self) {
        if let Stage::InLine(ticket, _) = self.stage {
            self.thread.leave_line(ticket);
        }
    }
}
