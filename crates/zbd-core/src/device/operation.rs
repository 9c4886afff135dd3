//! One request of the async door.

use std::{future, time::Duration};

use super::engine::Engine;
use crate::{Completion, Request, Result};

/// Runs `request` and waits for its end.
///
/// The first await is for a slot; until then nothing has happened, and a drop drops the request.
/// Then the request goes to the engine, and the second await is for its completion: a drop there
/// orphans the slot.
pub(super) async fn run(
    engine: &Engine,
    request: Request,
    timeout: Option<Duration>,
) -> Result<Completion> {
    let lane = engine.lane();
    let Some(slot) = lane.slots().acquire().await else {
        return Err(lane.ended().with_buffer(request.into_buffer()));
    };
    lane.submit(slot.token(), request, timeout);
    Ok(future::poll_fn(|cx| slot.poll(cx)).await)
}
