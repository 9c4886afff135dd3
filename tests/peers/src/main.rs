//! `zbd-peers libblkio|kernel|kernel-batched PLACE write|read DEPTH COUNT`: 4 KiB requests from the
//! first sector on, in order; prints one line of JSON as `zbd-bench run --format json` has it.
//!
//! - `libblkio`: the function at PLACE, a directory in sysfs, through libblkio's own VFIO driver with
//!   a queue that is polled. A submission takes all requests that have gathered, as zbd-bench's do.
//! - `kernel`: the block device PLACE through io_uring, with registered buffers and file, one system
//!   call a request, as fio does it unless it is told otherwise.
//! - `kernel-batched`: the same with one system call for all requests that have gathered.

mod blkio_queue;
mod uring;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const BLOCK: usize = 4096;

/// A request that can be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Read,
}

/// A queue with as many buffers as its depth.
trait Queue {
    /// Makes a request for the block at `offset` with a buffer.
    fn submit(&mut self, operation: Operation, offset: u64, buffer: usize) -> Result<()>;
    /// Passes on what has been submitted, waits until something has come back, and puts its
    /// buffers into `free`.
    fn wait(&mut self, free: &mut Vec<usize>) -> Result<()>;
}

/// Runs requests with as many in flight as the depth allows. Returns the time and the number of
/// times that requests were passed on.
fn drive(
    queue: &mut dyn Queue,
    operation: Operation,
    depth: usize,
    count: u64,
) -> Result<(Duration, u64)> {
    let mut free: Vec<usize> = (0..depth).collect();
    let (mut submitted, mut done, mut submissions) = (0, 0, 0);
    let begun = Instant::now();
    while done < count {
        let before = submitted;
        while submitted < count
            && let Some(buffer) = free.pop()
        {
            queue.submit(operation, submitted * BLOCK as u64, buffer)?;
            submitted += 1;
        }
        submissions += u64::from(submitted > before);
        let idle = free.len();
        queue.wait(&mut free)?;
        done += (free.len() - idle) as u64;
    }
    Ok((begun.elapsed(), submissions))
}

fn run(arguments: &[&str]) -> Result<()> {
    let [peer, place, operation, depth, count] = arguments[..] else {
        bail!("usage: zbd-peers libblkio|kernel|kernel-batched PLACE write|read DEPTH COUNT");
    };
    let operation = match operation {
        "write" => Operation::Write,
        "read" => Operation::Read,
        _ => bail!("{operation}: write or read"),
    };
    let depth: usize = depth.parse().context("depth")?;
    let count: u64 = count.parse().context("count")?;
    let mut queue: Box<dyn Queue> = match peer {
        "libblkio" => Box::new(blkio_queue::Polled::open(place, depth)?),
        "kernel" => Box::new(uring::Ring::open(place, depth, uring::Calls::OneEach)?),
        "kernel-batched" => Box::new(uring::Ring::open(place, depth, uring::Calls::OneABatch)?),
        _ => bail!("{peer}: no such peer"),
    };
    let (took, submissions) = drive(&mut *queue, operation, depth, count)?;
    let seconds = took.as_secs_f64();
    let iops = count as f64 / seconds;
    println!(
        "{{\"results\":[{{\"ios\":{count},\"errors\":0,\"seconds\":{seconds},\"iops\":{iops},\
         \"doorbells\":{submissions}}}]}}"
    );
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zbd-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
