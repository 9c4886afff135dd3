//! A request, from before it has a slot until its end, as one future.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::{LaneSlot, Lanes};
use crate::{
    Request,
    device::{
        driver::{Drive, Finished, Place},
        lane::Lane,
        slots::Slot,
    },
};

/// A wait for a slot of a lane.
type Acquire<'a> = Pin<Box<dyn Future<Output = Option<Slot<'a>>> + Send + 'a>>;

pub struct Run<'a, R> {
    lanes: &'a Lanes,
    timeout: Option<Duration>,
    stage: Stage<'a, R>,
}

enum Stage<'a, R> {
    New(R),
    InLine(&'a Lane, Acquire<'a>, R),
    InFlight(LaneSlot<'a>),
    Ended,
}

impl<'a, R> Run<'a, R> {
    pub(super) fn new(lanes: &'a Lanes, request: R, timeout: Option<Duration>) -> Self {
        Self {
            lanes,
            timeout,
            stage: Stage::New(request),
        }
    }
}

// Nothing in it is pinned but what is on the heap.
impl<R> Unpin for Run<'_, R> {}

impl<R: Into<Request>> Run<'_, R> {
    /// Submits the request if there is a slot for it, else waits for one.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        loop {
            let (place, request) = match mem::replace(&mut self.stage, Stage::Ended) {
                Stage::New(request) => match self.lanes.place() {
                    Ok(place) => (place, request),
                    Err(lane) => {
                        let acquire = Box::pin(lane.slots().acquire());
                        self.stage = Stage::InLine(lane, acquire, request);
                        continue;
                    }
                },
                Stage::InLine(lane, mut acquire, request) => match acquire.as_mut().poll(cx) {
                    Poll::Ready(Some(slot)) => (LaneSlot { lane, slot }, request),
                    Poll::Ready(None) => {
                        let buffer = request.into().into_buffer();
                        return Poll::Ready(Err(lane.ended().with_buffer(buffer)));
                    }
                    Poll::Pending => {
                        self.stage = Stage::InLine(lane, acquire, request);
                        return Poll::Pending;
                    }
                },
                // Like any future that has come to its end.
                other @ (Stage::InFlight(_) | Stage::Ended) => {
                    self.stage = other;
                    return Poll::Pending;
                }
            };
            self.lanes.submit(&place, request.into(), self.timeout);
            self.stage = Stage::InFlight(place);
            return self.end(cx);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        let Stage::InFlight(place) = &mut self.stage else {
            return Poll::Pending;
        };
        let poll = place.poll(cx);
        if poll.is_ready() {
            self.stage = Stage::Ended;
        }
        poll
    }
}

impl<R: Into<Request>> Future for Run<'_, R> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = &mut *self;
        match this.stage {
            Stage::InFlight(_) => this.end(cx),
            _ => this.begin(cx),
        }
    }
}
