//! The driver's work for one request, side by side with that of the crate `virtio-driver`.
//!
//! The layer `harness` is what the loops around the layers cost by themselves.
//!
//! `requests LAYER OPERATION DEPTH COUNT` runs COUNT requests of 4 KiB in batches of DEPTH: the
//! driver submits a batch with one doorbell, the device carries it out, the driver reaps it. All of
//! the driver's work, and nothing else, happens in the functions `counted_submit` and
//! `counted_reap`, so that callgrind can count just that (`--toggle-collect='*counted_*'`).
//! `cargo xtask bench` runs this under callgrind and prints the table. Without arguments, as
//! `cargo bench` calls it, every combination runs once, uncounted.

mod blk_queue;
mod harness;
mod io_queue;
mod peer;
mod peer_backend;
mod quiet;

use std::{env, process::ExitCode};

/// The length of a request's data.
const LEN: usize = 4096;

/// A driver whose work is counted.
trait Driver {
    /// Submits `batch` requests of number `first` and on, and notifies the device.
    fn submit(&mut self, first: u64, batch: u64);
    /// Lets the device do all that it has been given. Not counted.
    fn step(&mut self);
    /// Reaps what the device has done and returns how many requests that were.
    fn reap(&mut self) -> u64;
}

#[inline(never)]
fn counted_submit<D: Driver>(driver: &mut D, first: u64, batch: u64) {
    driver.submit(first, batch);
}

#[inline(never)]
fn counted_reap<D: Driver>(driver: &mut D) -> u64 {
    driver.reap()
}

fn run<D: Driver>(mut driver: D, depth: u64, count: u64) {
    let mut done = 0;
    while done < count {
        let batch = depth.min(count - done);
        counted_submit(&mut driver, done, batch);
        driver.step();
        let reaped = counted_reap(&mut driver);
        assert_eq!(
            reaped, batch,
            "the device returned another number of requests"
        );
        done += batch;
    }
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Append,
}

const LAYERS: &[&str] = &["harness", "blk-queue", "io-queue", "virtio-driver"];
const OPERATIONS: &[(&str, Operation)] = &[
    ("read", Operation::Read),
    ("write", Operation::Write),
    ("append", Operation::Append),
];

fn measure(layer: &str, operation: Operation, depth: u64, count: u64) -> Result<(), String> {
    match (layer, operation) {
        ("harness", _) => run(harness::open(), depth, count),
        ("blk-queue", Operation::Read) => run(blk_queue::open::<0>(), depth, count),
        ("blk-queue", Operation::Write) => run(blk_queue::open::<1>(), depth, count),
        ("blk-queue", Operation::Append) => run(blk_queue::open::<15>(), depth, count),
        ("io-queue", Operation::Read) => run(io_queue::open::<0>(), depth, count),
        ("io-queue", Operation::Write) => run(io_queue::open::<1>(), depth, count),
        ("io-queue", Operation::Append) => run(io_queue::open::<15>(), depth, count),
        ("virtio-driver", Operation::Append) => return Err("the peer knows no append".to_owned()),
        ("virtio-driver", _) => run(peer::open(operation), depth, count),
        _ => return Err(format!("unknown layer {layer}")),
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let outcome = match &arguments[..] {
        [] => all(),
        [layer, operation, depth, count] => one(layer, operation, depth, count),
        _ => Err("usage: requests LAYER OPERATION DEPTH COUNT".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("requests: {what}");
            ExitCode::from(2)
        }
    }
}

fn one(layer: &str, operation: &str, depth: &str, count: &str) -> Result<(), String> {
    let (_, operation) = OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation)
        .ok_or_else(|| format!("unknown operation {operation}"))?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text:?}: {e}"));
    measure(layer, *operation, number(depth)?, number(count)?)
}

fn all() -> Result<(), String> {
    for layer in LAYERS {
        for (name, operation) in OPERATIONS {
            match measure(layer, *operation, 32, 1000) {
                Ok(()) => println!("{layer} {name}: ok"),
                Err(why) => println!("{layer} {name}: ignored, {why}"),
            }
        }
    }
    Ok(())
}
