//! What the command line asks for, checked: first by itself, then against an open device.

use std::time::Duration;

use zbd_core::{DeviceInfo, DeviceSpec, SECTOR_LEN, WaitPolicy, ZoneId};

use crate::{
    cli::{Api, Op, RunArgs, Wait},
    failure::{During, Failure},
};

const DEFAULT_RUNTIME: Duration = Duration::from_secs(5);
/// No virtqueue holds more requests (VIRTIO 1.3, 2.7).
const MAX_DEPTH: u64 = 32768;
const MAX_BLOCK_SIZE: u64 = 1 << 30;

/// When a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// After a time.
    Runtime(Duration),
    /// After a number of requests, over all queues.
    Count(u64),
}

/// A job whose options make sense together.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The device as it was named.
    pub(crate) device: String,
    pub(crate) op: Op,
    /// The length of each request in bytes.
    pub(crate) block_size: u32,
    /// The greatest number of requests in flight in each queue.
    pub(crate) depth: u16,
    pub(crate) queues: u16,
    pub(crate) zones: u32,
    pub(crate) length: Length,
    /// How many requests of a queue must be free before it is refilled.
    pub(crate) batch: u16,
    pub(crate) api: Api,
    /// How completions are waited for.
    pub(crate) wait: WaitPolicy,
    pub(crate) seed: u64,
    /// Whether it was said that data may be destroyed.
    pub(crate) destroy: bool,
    /// Whether they may be: on the emulated device always.
    pub(crate) consent: bool,
}

impl Job {
    /// Checks what can be checked without a device, whose string has been parsed as `spec`.
    pub(crate) fn resolve(args: &RunArgs, spec: &DeviceSpec) -> Result<Self, Failure> {
        if args.depth == 0 {
            return Err(Failure::usage(
                "--depth 0: nothing would ever be in flight; give at least 1",
            ));
        }
        let depth = u16::try_from(args.depth)
            .ok()
            .filter(|_| args.depth <= MAX_DEPTH)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--depth {}: no virtqueue holds more than {MAX_DEPTH} requests",
                    args.depth
                ))
            })?;
        let queues = u16::try_from(args.queues)
            .ok()
            .filter(|queues| *queues > 0)
            .ok_or_else(|| {
                Failure::usage(format!("--queues {}: give 1 to {}", args.queues, u16::MAX))
            })?;
        let zones = u32::try_from(args.zones)
            .ok()
            .filter(|zones| *zones > 0)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--zones {}: give 1 up to the device's number of zones",
                    args.zones
                ))
            })?;
        if args.block_size == 0 || !args.block_size.is_multiple_of(SECTOR_LEN) {
            return Err(Failure::usage(format!(
                "--block-size {}: requests are multiples of {SECTOR_LEN} bytes",
                args.block_size
            )));
        }
        let block_size = u32::try_from(args.block_size)
            .ok()
            .filter(|_| args.block_size <= MAX_BLOCK_SIZE)
            .ok_or_else(|| {
                Failure::usage(format!("--block-size {}: give at most 1g", args.block_size))
            })?;
        Ok(Self {
            device: args.device.clone(),
            op: args.op,
            block_size,
            depth,
            queues,
            zones,
            length: length(args)?,
            batch: batch(args, depth)?,
            api: args.api,
            wait: wait(args).into(),
            seed: args.seed,
            destroy: args.destroy,
            consent: args.destroy || matches!(spec, DeviceSpec::Emulated(_)),
        })
    }

    /// The length of each request in sectors.
    pub(crate) fn block_sectors(&self) -> u64 {
        u64::from(self.block_size) / SECTOR_LEN
    }

    /// Checks the job against the limits of the device.
    pub(crate) fn check(&self, info: &DeviceInfo) -> Result<(), Failure> {
        let (op, size, name) = (self.op.name(), self.block_size, &info.name);
        if self.op == Op::Append {
            info.zoned()
                .map_err(|error| Failure::from_device(During::Opening, &error))?;
        }
        if self.op.is_writing() && info.read_only {
            return Err(Failure::device(format!(
                "{name} is read-only; --op read and --op randread work"
            )));
        }
        if self.depth > info.queue_depth {
            return Err(Failure::usage(format!(
                "--depth {}: a queue of {name} holds {} requests at the most",
                self.depth, info.queue_depth
            )));
        }
        if !size.is_multiple_of(info.block_size) {
            return Err(Failure::usage(format!(
                "--block-size {size}: the blocks of {name} have {} bytes; give a multiple",
                info.block_size
            )));
        }
        if size > info.max_transfer {
            return Err(Failure::usage(format!(
                "--block-size {size}: a request to {name} has {} bytes at the most",
                info.max_transfer
            )));
        }
        let Some(zoned) = &info.zoned else {
            return Ok(());
        };
        if self.op.is_writing() && !size.is_multiple_of(zoned.write_granularity) {
            return Err(Failure::usage(format!(
                "--block-size {size}: {name} writes in units of {} bytes; give a multiple",
                zoned.write_granularity
            )));
        }
        if self.op == Op::Append && zoned.max_append.0 == 0 {
            return Err(Failure::device(format!(
                "{name} knows no zone append (its max_append_sectors is 0); use --op write"
            )));
        }
        if self.op == Op::Append && u64::from(size) > zoned.max_append.bytes() {
            return Err(Failure::usage(format!(
                "--block-size {size}: an {op} to {name} has {} bytes at the most",
                zoned.max_append.bytes()
            )));
        }
        let capacities = (0..zoned.zone_count).filter_map(|id| zoned.capacity(ZoneId(id)));
        if let Some(most) = capacities.max()
            && most.bytes() < u64::from(size)
        {
            return Err(Failure::usage(format!(
                "--block-size {size}: the zones of {name} have a capacity of {} bytes at the most",
                most.bytes()
            )));
        }
        if self.zones > zoned.zone_count {
            return Err(Failure::usage(format!(
                "--zones {}: {name} has {} zones",
                self.zones, zoned.zone_count
            )));
        }
        if self.op.is_writing() && self.zones < u32::from(self.queues) {
            return Err(Failure::usage(format!(
                "--queues {} with --zones {}: each queue needs a zone of its own to write to; give at least as many zones as queues",
                self.queues, self.zones
            )));
        }
        if let Some(max_active) = zoned.max_active
            && self.op.is_writing()
            && self.zones > max_active
        {
            return Err(Failure::usage(format!(
                "--zones {}: {name} has {max_active} active zones at the most (max_active)",
                self.zones
            )));
        }
        Ok(())
    }
}

fn wait(args: &RunArgs) -> Wait {
    args.wait.unwrap_or(match args.api {
        Api::Queue => Wait::Poll,
        // Lanes that spin would take the processor from the tasks.
        Api::Async => Wait::Adaptive,
    })
}

fn length(args: &RunArgs) -> Result<Length, Failure> {
    match (args.count, args.runtime) {
        (Some(0), _) => Err(Failure::usage("--count 0: give at least 1")),
        (Some(count), _) => Ok(Length::Count(count)),
        (None, Some(Duration::ZERO)) => Err(Failure::usage("--runtime 0: give a time such as 5s")),
        (None, runtime) => Ok(Length::Runtime(runtime.unwrap_or(DEFAULT_RUNTIME))),
    }
}

/// A quarter of the depth stays in flight while a queue is refilled, unless told otherwise.
fn batch(args: &RunArgs, depth: u16) -> Result<u16, Failure> {
    match args.batch {
        None => Ok((depth / 4 * 3 + depth % 4 * 3 / 4).max(1)),
        Some(batch) => u16::try_from(batch)
            .ok()
            .filter(|batch| (1..=depth).contains(batch))
            .ok_or_else(|| {
                Failure::usage(format!("--batch {batch}: give 1 to the depth of {depth}"))
            }),
    }
}

#[cfg(test)]
mod tests;
