//! What zone management costs, alone and beside appends.
//!
//! `plan` is what is asked for and may be done, `operation` what is measured, `call` an operation as
//! requests, `hands` makes zones ready and times one request at a time, `beside` does it while zones
//! are appended to (`stream`) and zones go round (`work`), `session` is one after the other, and
//! `figures` what comes of it.

mod beside;
pub(crate) mod call;
pub(crate) mod figures;
pub(crate) mod hands;
pub(crate) mod operation;
mod pause;
pub(crate) mod plan;
mod session;
mod stream;
mod work;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use zbd_core::{DeviceInfo, DeviceSpec, IoQueue, OpenOptions, WaitPolicy, Zone};

use crate::{
    failure::{During, Failure},
    job::{latency::Latency, stop::Stop},
};
use hands::{FILL_LEN, Trouble};
use operation::Operation;
use plan::{Beside, Plan};
use session::Session;

/// The ring memory of one descriptor at the most, requests included.
const RING_LEN: usize = 256;
/// The unit in which DMA memory is handed out.
const PAGE: usize = 4096;

/// What was measured of one operation.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) operation: Operation,
    /// How much was written before to each zone that it is about, in bytes.
    pub(crate) fill: u64,
    /// How many zones it is about, if it is about zones at all.
    pub(crate) zones: u32,
    pub(crate) latency: Latency,
    pub(crate) errors: u64,
    /// Why the device does not do it, if it need not.
    pub(crate) refused: Option<String>,
    pub(crate) beside: Option<figures::Beside>,
}

/// How the appends ran beside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Beside,
    pub(crate) zones: u32,
    /// Whether they shared the queue of the operations.
    pub(crate) shared: bool,
}

/// All that is known afterwards.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) plan: Plan,
    pub(crate) info: Arc<DeviceInfo>,
    /// The zones that were used.
    pub(crate) zones: Vec<Zone>,
    pub(crate) results: Vec<Sampled>,
    pub(crate) load: Option<Load>,
    /// What the reader must know of the figures.
    pub(crate) notes: Vec<String>,
    /// How much was written to fill zones, and how long all took.
    pub(crate) filled: u64,
    pub(crate) time: Duration,
    pub(crate) interrupted: bool,
    /// What went wrong, and ended it.
    pub(crate) trouble: Option<Trouble>,
    /// Why zones that were used are not empty now, if they are not.
    pub(crate) not_emptied: Option<String>,
}

/// Measures what is asked for on the device of which this is known. It is closed afterwards.
pub(crate) fn run(plan: Plan, info: &DeviceInfo) -> Result<Finished, Failure> {
    let begun = Instant::now();
    plan.check(info)?;
    let zone_count = info.zoned.as_ref().map_or(0, |zoned| zoned.zone_count);
    let mut queues = open(&plan, plan.queues(info), memory_len(&plan, zone_count))?.into_iter();
    let operations = queues.next();
    let operations = operations.ok_or_else(|| Failure::device("the device has no queues"))?;
    let mut session = Session::begin(plan, operations, Stop::on_interrupt)?;
    session.measure(queues.next());
    Ok(session.finish(begun))
}

fn open(plan: &Plan, queues: u16, memory_len: usize) -> Result<Vec<IoQueue>, Failure> {
    let ring = match &plan.spec {
        DeviceSpec::Emulated(config) => usize::from(config.queue_size),
        _ => 1024,
    };
    let options = OpenOptions {
        queues,
        wait: WaitPolicy::Poll,
        memory_len: memory_len + usize::from(queues) * (ring * RING_LEN + (64 << 10)),
        ..OpenOptions::default()
    };
    options
        .open(&plan.spec)
        .map_err(|error| Failure::from_device(During::Opening, &error))
}

/// What buffers take.
fn memory_len(plan: &Plan, zone_count: u32) -> usize {
    // Pieces of up to 1 MiB are handed out in powers of two.
    let pages = (plan.block_size as usize).div_ceil(PAGE);
    let pages = if pages <= 256 {
        pages.next_power_of_two()
    } else {
        pages
    };
    let appends = match plan.load {
        true => usize::from(plan.depth) * pages * PAGE,
        false => 0,
    };
    let block = (plan.block_size as usize).next_power_of_two();
    let fill = block.max(FILL_LEN as usize);
    // Reports that are not measured have buffers of their own.
    let reports = 2 * call::report_len(zone_count).next_power_of_two();
    appends + fill + reports + (1 << 20)
}
