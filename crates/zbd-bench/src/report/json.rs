//! The result as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{SCHEMA, device::DeviceRecord, print_json};
use crate::{
    cli::Api,
    failure::Failure,
    job::{Finished, outcome::Measured, plan::Length},
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    device: DeviceRecord,
    config: Config,
    interrupted: bool,
    results: [ResultRecord; 1],
}

/// The options as they were understood.
#[derive(Serialize)]
pub(crate) struct Config {
    device: String,
    op: &'static str,
    block_size: u32,
    depth: u16,
    queues: u16,
    zones: u32,
    runtime_seconds: Option<f64>,
    count: Option<u64>,
    batch: u16,
    wait: String,
    api: &'static str,
    seed: u64,
    destroy: bool,
}

#[derive(Serialize)]
pub(crate) struct ResultRecord {
    op: &'static str,
    block_size: u32,
    depth: u16,
    queues: u16,
    zones: u32,
    seconds: f64,
    ios: u64,
    bytes: u64,
    iops: f64,
    bytes_per_second: f64,
    errors: u64,
    error_kinds: BTreeMap<String, u64>,
    latency_ns: LatencyRecord,
    doorbells: u64,
    interrupts: Option<u64>,
    cpu_seconds: CpuRecord,
    zone_resets: u64,
    reset_seconds: f64,
    fill_seconds: f64,
}

#[derive(Serialize)]
struct LatencyRecord {
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

#[derive(Serialize)]
struct CpuRecord {
    user: f64,
    system: f64,
}

impl From<&Finished> for Config {
    fn from(finished: &Finished) -> Self {
        let job = &finished.job;
        let (runtime_seconds, count) = match job.length {
            Length::Runtime(time) => (Some(time.as_secs_f64()), None),
            Length::Count(count) => (None, Some(count)),
        };
        Self {
            device: job.device.clone(),
            op: job.op.name(),
            block_size: job.block_size,
            depth: job.depth,
            queues: job.queues,
            zones: finished.zones(),
            runtime_seconds,
            count,
            batch: job.batch,
            wait: job.wait.to_string(),
            api: match job.api {
                Api::Queue => "queue",
                Api::Async => "async",
            },
            seed: job.seed,
            destroy: job.destroy,
        }
    }
}

impl From<&Finished> for ResultRecord {
    fn from(finished: &Finished) -> Self {
        let (job, measured) = (&finished.job, &finished.measured);
        Self {
            op: job.op.name(),
            block_size: job.block_size,
            depth: job.depth,
            queues: job.queues,
            zones: finished.zones(),
            seconds: measured.time.as_secs_f64(),
            ios: measured.ios,
            bytes: finished.bytes(),
            iops: finished.iops(),
            bytes_per_second: finished.iops() * f64::from(job.block_size),
            errors: measured.errors.total(),
            error_kinds: measured.errors.kinds.clone(),
            latency_ns: LatencyRecord::from(measured),
            doorbells: measured.doorbells,
            interrupts: finished.interrupts,
            cpu_seconds: CpuRecord {
                user: finished.cpu.user.as_secs_f64(),
                system: finished.cpu.system.as_secs_f64(),
            },
            zone_resets: measured.zone_resets,
            reset_seconds: measured.reset_time.as_secs_f64(),
            fill_seconds: finished.fill_seconds,
        }
    }
}

impl From<&Measured> for LatencyRecord {
    fn from(measured: &Measured) -> Self {
        let latency = &measured.latency;
        Self {
            min: latency.min(),
            mean: latency.mean(),
            p50: latency.percentile(50.0),
            p90: latency.percentile(90.0),
            p99: latency.percentile(99.0),
            p99_9: latency.percentile(99.9),
            p99_99: latency.percentile(99.99),
            max: latency.max(),
        }
    }
}

/// Prints the result.
pub(crate) fn run(finished: &Finished) -> Result<(), Failure> {
    print_json(&Document {
        schema: SCHEMA,
        device: DeviceRecord::from(&*finished.info),
        config: Config::from(finished),
        interrupted: finished.interrupted,
        results: [ResultRecord::from(finished)],
    })
}
