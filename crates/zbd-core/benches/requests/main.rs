//! The driver's work for one request, side by side with that of the crate `virtio-driver`, on the
//! same emulated device.
//!
//! The layer `harness` is what the loops around the layers cost by themselves, and the layer
//! `executor` what it costs to run futures, which the layer `zoned-device` needs. Requests are of
//! 4 KiB and go in batches of DEPTH: the driver submits a batch with one doorbell, the device, which
//! is stepped, carries it out, the driver reaps it. All of the driver's work, and nothing else,
//! happens in the functions `counted_submit` and `counted_reap`, so that callgrind can count just
//! that (`--toggle-collect='*counted_*'`). `cargo xtask bench` runs:
//!
//! - `requests run LAYER FORMAT CHAINS OPERATION DEPTH COUNT`: COUNT requests; prints allocations
//!   and doorbells, the first few batches not included.
//! - `requests time FORMAT CHAINS OPERATION DEPTH ROUNDS COUNT`: nanoseconds a request of all layers
//!   in turn, ROUNDS times.
//! - `requests busy LAYER FORMAT CHAINS DEPTH`: DEPTH appends (the peer: writes) to a device that is
//!   busy with the first of them, each published by itself; prints doorbells.
//! - `requests threaded STORE DEPTH ROUNDS`: appends through `IoQueue` to an emulated device on its
//!   own thread.
//! - `requests tokio FORMAT CHAINS DEPTH COUNT`: appends of as many tasks as DEPTH on tokio's local
//!   runtime, on a device of that thread; prints allocations and doorbells.
//! - `requests idle`: the processor time of open devices that have nothing to do, in per cent.
//!
//! Without arguments, as `cargo bench` calls it, every combination runs once, uncounted.

mod allocations;
mod blk_queue;
mod executor;
mod harness;
mod idle;
mod io_queue;
mod on_tokio;
mod peer;
mod peer_backend;
mod peer_device;
mod peer_memory;
mod quiet;
mod rings;
mod threaded;
mod zoned_device;

use std::{
    env,
    os::unix::process::parent_id,
    process::ExitCode,
    time::{Duration, Instant},
};

use rings::{CHAINS, Chains, FORMATS, Rings};

/// The length of a request's data.
const LEN: usize = 4096;
/// Batches that are run before allocations and doorbells are counted.
const WARM_UP: u64 = 4;

/// A driver whose work is counted.
trait Driver {
    /// Submits `batch` requests of number `first` and on, and notifies the device.
    fn submit(&mut self, first: u64, batch: u64);
    /// Does the same, but makes each request visible to the device before the next.
    fn submit_one_by_one(&mut self, first: u64, batch: u64);
    /// Lets the device do all that it has been given. Not counted.
    fn step(&mut self);
    /// Reaps what the device has done and returns how many requests that were.
    fn reap(&mut self) -> u64;
    /// How often the device has been notified.
    fn doorbells(&self) -> u64;
}

#[inline(never)]
fn counted_submit<D: Driver + ?Sized>(driver: &mut D, first: u64, batch: u64) {
    driver.submit(first, batch);
}

#[inline(never)]
fn counted_reap<D: Driver + ?Sized>(driver: &mut D) -> u64 {
    driver.reap()
}

/// Runs `count` requests from number `first` on, and returns how long the driver's work took if it
/// is timed. The clock is a system call where there is no vDSO, as under valgrind.
fn run<D: Driver, const TIMED: bool>(
    driver: &mut D,
    first: u64,
    depth: u64,
    count: u64,
) -> Duration {
    let mut done = 0;
    let mut took = Duration::ZERO;
    while done < count {
        let batch = depth.min(count - done);
        let begun = TIMED.then(Instant::now);
        counted_submit(driver, first + done, batch);
        took += begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        driver.step();
        let begun = TIMED.then(Instant::now);
        let reaped = counted_reap(driver);
        took += begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        assert_eq!(
            reaped, batch,
            "the device returned another number of requests"
        );
        done += batch;
    }
    took
}

/// Runs a few batches, not counted.
fn warm_up<D: Driver>(driver: &mut D, depth: u64) -> u64 {
    for batch in 0..WARM_UP {
        driver.submit(batch * depth, depth);
        driver.step();
        assert_eq!(driver.reap(), depth, "a batch comes back whole");
    }
    WARM_UP * depth
}

/// What is made of a layer, whichever it is.
trait Use {
    fn use_it<D: Driver + 'static>(self, layer: D);
}

/// Prints what `count` requests allocate, and how often they notify the device.
struct Counted {
    depth: u64,
    count: u64,
}

impl Use for Counted {
    fn use_it<D: Driver>(self, mut layer: D) {
        let warm = warm_up(&mut layer, self.depth);
        let (allocations, doorbells) = (allocations::count(), layer.doorbells());
        // A system call that nothing else makes tells who traces them where to begin and to end.
        let mark = parent_id;
        mark();
        run::<_, false>(&mut layer, warm, self.depth, self.count);
        mark();
        let per = |number: u64| number as f64 / self.count as f64;
        println!(
            "allocations {} doorbells {}",
            per(allocations::count() - allocations),
            per(layer.doorbells() - doorbells)
        );
    }
}

/// Prints how often the device is notified while it is busy.
struct Busy {
    depth: u64,
}

impl Use for Busy {
    fn use_it<D: Driver>(self, mut layer: D) {
        let warm = warm_up(&mut layer, self.depth);
        let doorbells = layer.doorbells();
        layer.submit_one_by_one(warm, self.depth);
        println!("doorbells {}", layer.doorbells() - doorbells);
        layer.step();
        assert_eq!(layer.reap(), self.depth, "all of them are carried out");
    }
}

/// Makes a layer something that runs `count` requests and says how long a request took.
struct Timed<'a> {
    depth: u64,
    count: u64,
    into: &'a mut Vec<Box<dyn FnMut() -> f64>>,
}

impl Use for Timed<'_> {
    fn use_it<D: Driver + 'static>(self, mut layer: D) {
        let (depth, count) = (self.depth, self.count);
        let mut done = 0;
        self.into.push(Box::new(move || {
            let took = run::<_, true>(&mut layer, done, depth, count);
            done += count;
            took.as_nanos() as f64 / count as f64
        }));
    }
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Append,
}

const LAYERS: &[&str] = &[
    "harness",
    "executor",
    "blk-queue",
    "io-queue",
    "zoned-device",
    "virtio-driver",
];
const OPERATIONS: &[(&str, Operation)] = &[
    ("read", Operation::Read),
    ("write", Operation::Write),
    ("append", Operation::Append),
];

fn with_layer(
    layer: &str,
    operation: Operation,
    rings: Rings,
    depth: u64,
    what: impl Use,
) -> Result<(), String> {
    match (layer, operation) {
        ("harness", _) => what.use_it(harness::open()),
        ("blk-queue", Operation::Read) => what.use_it(blk_queue::open::<0>(rings)),
        ("blk-queue", Operation::Write) => what.use_it(blk_queue::open::<1>(rings)),
        ("blk-queue", Operation::Append) => what.use_it(blk_queue::open::<15>(rings)),
        ("io-queue", Operation::Read) => what.use_it(io_queue::open::<0>(rings)),
        ("io-queue", Operation::Write) => what.use_it(io_queue::open::<1>(rings)),
        ("io-queue", Operation::Append) => what.use_it(io_queue::open::<15>(rings)),
        ("executor", _) => what.use_it(executor::open()),
        ("zoned-device", _) => zoned_device::with(rings, operation, what),
        ("virtio-driver", Operation::Append) => return Err("the peer knows no append".to_owned()),
        ("virtio-driver", _) if depth > u64::from(rings.size() / 3) => {
            return Err("the peer uses three entries a request".to_owned());
        }
        ("virtio-driver", _) => what.use_it(peer::open(operation, rings)),
        _ => return Err(format!("unknown layer {layer}")),
    }
    Ok(())
}

fn time(
    rings: Rings,
    operation: Operation,
    depth: u64,
    rounds: u64,
    count: u64,
) -> Result<(), String> {
    let mut names = Vec::new();
    let mut layers = Vec::new();
    for layer in LAYERS {
        let timed = Timed {
            depth,
            count,
            into: &mut layers,
        };
        if with_layer(layer, operation, rings, depth, timed).is_ok() {
            names.push(layer);
        }
    }
    for round in 0..=rounds {
        for (name, layer) in names.iter().zip(&mut layers) {
            let nanoseconds = layer();
            // The first round warms up.
            if round > 0 {
                println!("{name} {nanoseconds}");
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match perform(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("requests: {what}");
            ExitCode::from(2)
        }
    }
}

fn perform(arguments: &[&str]) -> Result<(), String> {
    let rings = |format: &str, chains: &str| -> Result<Rings, String> {
        Ok(Rings {
            format: named(FORMATS, format)?,
            chains: named(CHAINS, chains)?,
        })
    };
    let number =
        |text: &str| -> Result<u64, String> { text.parse().map_err(|e| format!("{text:?}: {e}")) };
    match arguments {
        [] => all(),
        ["run", layer, format, chains, operation, depth, count] => {
            let depth = number(depth)?;
            let count = number(count)?;
            let operation = named(OPERATIONS, operation)?;
            let counted = Counted { depth, count };
            with_layer(layer, operation, rings(format, chains)?, depth, counted)
        }
        ["time", format, chains, operation, depth, rounds, count] => time(
            rings(format, chains)?,
            named(OPERATIONS, operation)?,
            number(depth)?,
            number(rounds)?,
            number(count)?,
        ),
        ["busy", layer, format, chains, depth] => {
            let operation = match *layer {
                "virtio-driver" => Operation::Write,
                _ => Operation::Append,
            };
            let depth = number(depth)?;
            let busy = Busy { depth };
            with_layer(layer, operation, rings(format, chains)?, depth, busy)
        }
        ["tokio", format, chains, depth, count] => {
            on_tokio::run(rings(format, chains)?, number(depth)?, number(count)?)
        }
        ["idle"] => idle::run(),
        ["threaded", store, depth, rounds] => threaded::run(store, number(depth)?, number(rounds)?),
        _ => Err("usage: requests run|time|busy|tokio|idle|threaded …".to_owned()),
    }
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = names.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("{name:?} is none of {}", known.join(", "))
    })
}

fn all() -> Result<(), String> {
    for (format_name, format) in FORMATS {
        for (chains_name, chains) in CHAINS {
            let rings = Rings {
                format: *format,
                chains: *chains,
            };
            for layer in LAYERS {
                for (name, operation) in OPERATIONS {
                    let depth = match chains {
                        Chains::Indirect => 32,
                        Chains::Direct => 256,
                    };
                    print!("{format_name} {chains_name} {layer} {name}: ");
                    let counted = Counted { depth, count: 1000 };
                    if let Err(why) = with_layer(layer, *operation, rings, depth, counted) {
                        println!("ignored, {why}");
                    }
                }
            }
        }
    }
    Ok(())
}
