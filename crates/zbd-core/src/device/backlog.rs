//! Requests on their way into a queue.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{Completion, Error, ErrorKind, IoQueue, Rejected, Request};

/// A request on its way into a queue.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) token: u64,
    pub(super) request: Request,
    pub(super) timeout: Option<Duration>,
}

impl Submission {
    /// Ends the request without its having been sent.
    pub(super) fn refused(self, error: Error) -> Completion {
        Completion {
            token: self.token,
            result: Err(error),
            buffer: self.request.into_buffer(),
        }
    }
}

/// What becomes of a request that a queue does not take.
#[derive(Debug)]
pub(super) enum Refused {
    /// It does not fit now: one of many segments can take the place of several.
    Later(Submission),
    Never(Completion),
}

/// Submits a request.
#[inline]
pub(super) fn submit(queue: &mut IoQueue, submission: Submission) -> Result<(), Refused> {
    let Submission {
        token,
        request,
        timeout,
    } = submission;
    let submitted = match timeout {
        None => queue.submit(request, token),
        Some(timeout) => queue.submit_within(request, token, timeout),
    };
    submitted.map_err(|rejected| refused(rejected, token, timeout))
}

#[cold]
pub(super) fn refused(rejected: Rejected, token: u64, timeout: Option<Duration>) -> Refused {
    let Rejected { error, request } = rejected;
    let submission = Submission {
        token,
        request,
        timeout,
    };
    match error.kind() {
        ErrorKind::QueueFull => Refused::Later(submission),
        _ => Refused::Never(submission.refused(error)),
    }
}

/// Requests for which the queue has no room, because it is full of such whose time was up, or of
/// such that take the place of several. Their own time runs meanwhile.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<(Option<Instant>, Submission)>);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a request that did not fit.
    pub(super) fn add(&mut self, submission: Submission) {
        let due = submission
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        self.0.push_back((due, submission));
    }

    /// The request that has waited longest.
    pub(super) fn take(&mut self) -> Option<Submission> {
        self.0.pop_front().map(|(_, submission)| submission)
    }

    /// Ends, by `end`, what has waited for too long.
    pub(super) fn expire(&mut self, mut end: impl FnMut(Completion)) {
        if self.0.is_empty() {
            return;
        }
        let now = Instant::now();
        let is_due = |(due, _): &(Option<Instant>, _)| due.is_some_and(|due| due <= now);
        while let Some(at) = self.0.iter().position(is_due)
            && let Some((_, submission)) = self.0.remove(at)
        {
            end(submission.refused(Error::new(
                ErrorKind::Timeout,
                "the device returns nothing; the request was not sent to it. Reset the device (recover)",
            )));
        }
    }

    /// How long it is until one has waited for too long.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let dues = self.0.iter().filter_map(|(due, _)| *due);
        Some(dues.min()?.saturating_duration_since(Instant::now()))
    }

    /// Submits what there is room for, and ends by `end` what the queue refuses; true if there was
    /// something.
    pub(super) fn submit(&mut self, queue: &mut IoQueue, mut end: impl FnMut(Completion)) -> bool {
        let mut any = false;
        while queue.has_room()
            && let Some((due, mut submission)) = self.0.pop_front()
        {
            if let Some(due) = due {
                submission.timeout = Some(due.saturating_duration_since(Instant::now()));
            }
            match submit(queue, submission) {
                Ok(()) => {}
                Err(Refused::Later(submission)) => {
                    self.0.push_front((due, submission));
                    break;
                }
                Err(Refused::Never(done)) => end(done),
            }
            any = true;
        }
        any
    }
}
