//! What the command line asks for, checked: first by itself, then against an open device.

use std::time::Duration;

use zbd_core::{DeviceInfo, DeviceSpec, SECTOR_LEN, WaitPolicy, ZoneId};

use crate::{
    cli::{Api, JobArgs, Op, ResetPolicy, Wait},
    failure::{During, Failure},
    report::figures,
};

const DEFAULT_RUNTIME: Duration = Duration::from_secs(5);
/// No virtqueue holds more requests (VIRTIO 1.3, 2.7).
const MAX_DEPTH: u64 = 32768;
const MAX_BLOCK_SIZE: u64 = 1 << 30;
const MAX_THREADS: u16 = 1024;

/// When a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// After a time.
    Runtime(Duration),
    /// After a number of requests, over all queues.
    Count(u64),
}

impl Length {
    /// The time, or the number.
    pub(crate) fn parts(self) -> (Option<Duration>, Option<u64>) {
        match self {
            Self::Runtime(time) => (Some(time), None),
            Self::Count(count) => (None, Some(count)),
        }
    }
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
    /// For how long it runs before anything is measured.
    pub(crate) ramp: Duration,
    /// How many requests a second each queue submits, if not as many as it can.
    pub(crate) rate: Option<u64>,
    /// How many percent of the requests of a writing job are reads.
    pub(crate) read_mix: u8,
    /// To how many zones it writes at a time.
    pub(crate) max_open: u32,
    /// How much of a zone is written, in percent, before it is finished or full.
    pub(crate) finish_at: u8,
    /// Which full zones are reset when there is no other left.
    pub(crate) reset: ResetPolicy,
    /// How many requests of a queue must be free before it is refilled.
    pub(crate) batch: u16,
    /// How many threads run the tasks of an async job.
    pub(crate) threads: u16,
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
    pub(crate) fn resolve(
        device: &str,
        args: &JobArgs,
        spec: &DeviceSpec,
    ) -> Result<Self, Failure> {
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
            device: device.to_owned(),
            op: args.op,
            block_size,
            depth,
            queues,
            zones,
            length: length(args)?,
            ramp: args.ramp_time,
            rate: args.rate_iops,
            read_mix: read_mix(args)?,
            max_open: max_open(args, zones, queues)?,
            finish_at: args.finish_at.unwrap_or(100),
            reset: args.reset,
            batch: batch(args, depth)?,
            threads: threads(args)?,
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
        if self.queues > info.max_queues {
            return Err(Failure::usage(format!(
                "--queues {}: {name} has {}",
                self.queues,
                figures::plural(info.max_queues.into(), "queue")
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
        if self.op.is_writing() && self.zones < u32::from(self.threads) {
            return Err(Failure::usage(format!(
                "--threads {} with --zones {}: each thread needs a zone of its own to write to; give at least as many zones as threads",
                self.threads, self.zones
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
            && self.max_open > max_active
        {
            return Err(Failure::usage(format!(
                "--zones {}: {name} has {max_active} active zones at the most (max_active); use fewer, or give --max-open-zones",
                self.zones
            )));
        }
        Ok(())
    }
}

fn wait(args: &JobArgs) -> Wait {
    args.wait.unwrap_or(match args.api {
        Api::Queue => Wait::Poll,
        // Lanes that spin would take the processor from the tasks.
        Api::Async => Wait::Adaptive,
    })
}

fn length(args: &JobArgs) -> Result<Length, Failure> {
    match (args.count, args.runtime) {
        (Some(0), _) => Err(Failure::usage("--count 0: give at least 1")),
        (Some(count), _) => Ok(Length::Count(count)),
        (None, Some(Duration::ZERO)) => Err(Failure::usage("--runtime 0: give a time such as 5s")),
        (None, runtime) => Ok(Length::Runtime(runtime.unwrap_or(DEFAULT_RUNTIME))),
    }
}

fn read_mix(args: &JobArgs) -> Result<u8, Failure> {
    match args.read_mix {
        Some(percent) if !args.op.is_writing() => Err(Failure::usage(format!(
            "--read-mix {percent}: --op {} only reads; give --op append or --op write",
            args.op.name()
        ))),
        percent => Ok(percent.unwrap_or(0)),
    }
}

fn max_open(args: &JobArgs, zones: u32, queues: u16) -> Result<u32, Failure> {
    let Some(max_open) = args.max_open_zones else {
        return Ok(zones);
    };
    let writers = match args.api {
        Api::Queue => u32::from(queues),
        Api::Async => u32::from(threads(args)?),
    };
    u32::try_from(max_open)
        .ok()
        .filter(|max_open| (writers..=zones).contains(max_open))
        .ok_or_else(|| {
            Failure::usage(format!(
                "--max-open-zones {max_open}: give at least one for each queue or thread, {writers}, and at most all --zones, {zones}"
            ))
        })
}

fn threads(args: &JobArgs) -> Result<u16, Failure> {
    match (args.threads, args.api) {
        (None, _) => Ok(1),
        (Some(threads), Api::Queue) => Err(Failure::usage(format!(
            "--threads {threads}: polled queues have one thread each; give --queues, or --api async"
        ))),
        (Some(threads), Api::Async) => u16::try_from(threads)
            .ok()
            .filter(|threads| (1..=MAX_THREADS).contains(threads))
            .ok_or_else(|| Failure::usage(format!("--threads {threads}: give 1 to {MAX_THREADS}"))),
    }
}

/// A quarter of the depth stays in flight while a queue is refilled, unless told otherwise. What
/// is submitted at fixed times waits for nothing else.
fn batch(args: &JobArgs, depth: u16) -> Result<u16, Failure> {
    match args.batch {
        None if args.rate_iops.is_some() => Ok(1),
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
