//! The DMA memory of a job.

use zbd_core::{DeviceSpec, DmaBuffer, IoQueue};

use super::plan::Job;
use crate::failure::{During, Failure};

/// What reports and filling zones take at the most.
const PREPARING_LEN: usize = 1 << 20;
/// The ring memory of one descriptor at the most, requests included.
const RING_LEN: usize = 256;
/// The unit in which DMA memory is handed out.
const PAGE: usize = 4096;

/// What the job needs, and little more: memory that is pinned takes time to open.
pub(super) fn len(job: &Job, spec: &DeviceSpec) -> usize {
    // Pieces of up to 1 MiB are handed out in powers of two.
    let pages = (job.block_size as usize).div_ceil(PAGE);
    let pages = if pages <= 256 {
        pages.next_power_of_two()
    } else {
        pages
    };
    let buffers = usize::from(job.depth) * usize::from(job.queues) * pages * PAGE;
    let ring = match spec {
        DeviceSpec::Emulated(config) => usize::from(config.queue_size),
        _ => 1024,
    };
    let rings = usize::from(job.queues) * (ring * RING_LEN + (64 << 10));
    buffers + rings + PREPARING_LEN
}

/// Buffers with something in them.
pub(super) fn buffers(job: &Job, queue: &IoQueue, n: usize) -> Result<Vec<DmaBuffer>, Failure> {
    let mut content = vec![0; job.block_size as usize];
    fastrand::Rng::with_seed(job.seed).fill(&mut content);
    (0..n)
        .map(|_| {
            let mut buffer = queue.buffer(content.len())?;
            buffer.copy_from_slice(&content);
            Ok(buffer)
        })
        .collect::<zbd_core::Result<_>>()
        .map_err(|error| Failure::from_device(During::Opening, &error))
}
