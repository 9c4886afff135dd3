//! Requests that go to a polled queue together.

use std::time::Instant;

use anyhow::Result;
use zbd_core::{Completion, Error, IoQueue, Request};

/// Submits requests under their tokens, shows them to the device with one commit, and polls until
/// all have ended. Returns their ends and the seconds that this took.
///
/// # Errors
/// If one is not accepted.
pub fn run(
    queue: &mut IoQueue,
    requests: impl IntoIterator<Item = (u64, Request)>,
) -> Result<(Vec<Completion>, f64)> {
    let start = Instant::now();
    for (token, request) in requests {
        queue.submit(request, token).map_err(Error::from)?;
    }
    queue.commit();
    let mut ended = Vec::new();
    while queue.in_flight() > 0 {
        ended.extend(queue.poll());
    }
    Ok((ended, start.elapsed().as_secs_f64()))
}
