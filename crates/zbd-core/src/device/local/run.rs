//! A request, from before it has a slot until its end, as one future.
//!
//! Written by hand: one borrow of the core a poll, and nothing is moved about.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::{Thread, Ticket};
use crate::{Request, device::driver::Finished};

pub(super) struct Run<'a, R> {
    thread: &'a Thread,
    timeout: Option<Duration>,
    stage: Stage<R>,
}

enum Stage<R> {
    New(R),
    InLine(Ticket, R),
    /// It has this slot.
    InFlight(u32),
    Ended,
}

impl<'a, R: Into<Request>> Run<'a, R> {
    #[inline]
    pub(super) fn new(thread: &'a Thread, request: R, timeout: Option<Duration>) -> Self {
        Self {
            thread,
            timeout,
            stage: Stage::New(request),
        }
    }

    /// Submits the request if there is a slot for it, else stands in line.
    #[inline(always)]
    fn begin(&mut self, cx: &Context<'_>) {
        let ticket = match self.stage {
            Stage::InLine(ticket, _) => Some(ticket),
            _ => None,
        };
        // A waker is cloned and dropped while nothing is borrowed: both may run foreign code.
        let waker = cx.waker().clone();
        let mut core = self.thread.core.borrow_mut();
        let Some(id) = core.slots.take(ticket) else {
            drop(core);
            return self.stand_in_line(ticket, waker);
        };
        if let Stage::New(request) | Stage::InLine(_, request) =
            mem::replace(&mut self.stage, Stage::InFlight(id))
        {
            self.thread
                .submit(core, id, request.into(), self.timeout, Some(waker));
        }
    }

    #[cold]
    fn stand_in_line(&mut self, ticket: Option<Ticket>, waker: std::task::Waker) {
        let (ticket, before) = {
            let mut core = self.thread.core.borrow_mut();
            core.slots.stand_in_line(ticket, waker)
        };
        drop(before);
        self.stage = match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::New(request) | Stage::InLine(_, request) => Stage::InLine(ticket, request),
            other => other,
        };
    }
}

// Nothing in it is pinned.
impl<R> Unpin for Run<'_, R> {}

impl<R: Into<Request>> Future for Run<'_, R> {
    type Output = Finished;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = &mut *self;
        match this.stage {
            Stage::InFlight(id) => {
                let Some(done) = this.thread.take_done(id) else {
                    this.thread.wait(id, cx);
                    return Poll::Pending;
                };
                this.stage = Stage::Ended;
                Poll::Ready(done)
            }
            Stage::New(_) | Stage::InLine(..) => {
                this.begin(cx);
                Poll::Pending
            }
            // Like any future that has come to its end.
            Stage::Ended => Poll::Pending,
        }
    }
}

impl<R> Drop for Run<'_, R> {
    #[inline]
    fn drop(&mut self) {
        match self.stage {
            Stage::New(_) | Stage::Ended => {}
            Stage::InLine(ticket, _) => self.thread.leave_line(ticket),
            Stage::InFlight(id) => self.thread.leave(id),
        }
    }
}
