//! The result as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{SCHEMA, device::DeviceRecord, json, machine::MachineRecord};
use crate::{
    cli::{Api, Op},
    failure::Failure,
    job::{Finished, latency::Latency, outcome::Tally},
};

/// One job.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    machine: MachineRecord,
    #[serde(flatten)]
    job: JobRecord,
}

/// The jobs of a file.
#[derive(Serialize)]
struct Documents {
    schema: &'static str,
    machine: MachineRecord,
    jobs: Vec<JobRecord>,
}

#[derive(Serialize)]
pub(crate) struct JobRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    device: DeviceRecord,
    config: Config,
    interrupted: bool,
    results: Vec<ResultRecord>,
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
    ramp_seconds: f64,
    rate_iops: Option<u64>,
    read_mix: u8,
    max_open_zones: u32,
    finish_at: u8,
    reset: &'static str,
    wait: String,
    api: &'static str,
    threads: u16,
    seed: u64,
    destroy: bool,
}

/// What was measured of the requests of one kind. Of a job with two kinds, doorbells, interrupts,
/// times and zones are those of both.
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
    /// From submission, where `latency_ns` counts from when a request was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_latency_ns: Option<LatencyRecord>,
    /// How many requests were due and never submitted.
    unsent: u64,
    doorbells: u64,
    interrupts: Option<u64>,
    merged: Option<u64>,
    cpu_seconds: CpuRecord,
    zone_resets: u64,
    reset_seconds: f64,
    zone_finishes: u64,
    finish_seconds: f64,
    management_share: f64,
    fill_seconds: f64,
    series: Vec<SecondRecord>,
}

/// What ended in one second. The last may be cut short.
#[derive(Serialize)]
struct SecondRecord {
    second: usize,
    ios: u64,
    latency_ns: MeanAndMax,
}

#[derive(Serialize)]
struct MeanAndMax {
    mean: f64,
    max: u64,
}

#[derive(Serialize)]
pub(crate) struct LatencyRecord {
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
        let (runtime, count) = job.length.parts();
        Self {
            device: job.device.clone(),
            op: job.op.name(),
            block_size: job.block_size,
            depth: job.depth,
            queues: job.queues,
            zones: finished.zones(),
            runtime_seconds: runtime.map(|time| time.as_secs_f64()),
            count,
            batch: job.batch,
            ramp_seconds: job.ramp.as_secs_f64(),
            rate_iops: job.rate,
            read_mix: job.read_mix,
            max_open_zones: job.max_open,
            finish_at: job.finish_at,
            reset: job.reset.name(),
            wait: job.wait.to_string(),
            api: job.api.name(),
            threads: match job.api {
                Api::Queue => job.queues,
                Api::Async => job.threads,
            },
            seed: job.seed,
            destroy: job.destroy,
        }
    }
}

impl ResultRecord {
    fn new(finished: &Finished, op: Op, tally: &Tally) -> Self {
        let (job, measured) = (&finished.job, &finished.measured);
        let (management, iops) = (&measured.management, finished.per_second(tally.ios));
        Self {
            op: op.name(),
            block_size: job.block_size,
            depth: job.depth,
            queues: job.queues,
            zones: finished.zones(),
            seconds: measured.time.as_secs_f64(),
            ios: tally.ios,
            bytes: tally.ios * u64::from(job.block_size),
            iops,
            bytes_per_second: iops * f64::from(job.block_size),
            errors: measured.errors.total(),
            error_kinds: measured.errors.kinds.clone(),
            latency_ns: LatencyRecord::from(&tally.latency),
            service_latency_ns: tally.service.as_ref().map(LatencyRecord::from),
            unsent: measured.unsent,
            doorbells: measured.doorbells,
            interrupts: finished.interrupts,
            merged: finished.merged,
            cpu_seconds: CpuRecord {
                user: finished.cpu.user.as_secs_f64(),
                system: finished.cpu.system.as_secs_f64(),
            },
            zone_resets: management.resets,
            reset_seconds: management.reset_time.as_secs_f64(),
            zone_finishes: management.finishes,
            finish_seconds: management.finish_time.as_secs_f64(),
            management_share: finished.management_share(),
            fill_seconds: finished.fill_seconds,
            series: (1..)
                .zip(tally.series.seconds())
                .map(|(number, second)| SecondRecord {
                    second: number,
                    ios: second.ios,
                    latency_ns: MeanAndMax {
                        mean: second.latency_mean(),
                        max: second.latency_max,
                    },
                })
                .collect(),
        }
    }
}

impl JobRecord {
    /// A job, with its name if it has one.
    pub(crate) fn new(name: Option<&str>, finished: &Finished) -> Self {
        Self {
            name: name.map(str::to_owned),
            device: DeviceRecord::from(&*finished.info),
            config: Config::from(finished),
            interrupted: finished.interrupted,
            results: finished
                .tallies()
                .map(|(op, tally)| ResultRecord::new(finished, op, tally))
                .collect(),
        }
    }
}

impl From<&Latency> for LatencyRecord {
    fn from(latency: &Latency) -> Self {
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

/// The result of one job.
pub(crate) fn run(finished: &Finished) -> Result<String, Failure> {
    json(&Document {
        schema: SCHEMA,
        machine: MachineRecord::here(),
        job: JobRecord::new(None, finished),
    })
}

/// The results of the jobs of a file.
pub(crate) fn jobs(jobs: &[(String, Finished)]) -> Result<String, Failure> {
    json(&Documents {
        schema: SCHEMA,
        machine: MachineRecord::here(),
        jobs: jobs
            .iter()
            .map(|(name, finished)| JobRecord::new(Some(name), finished))
            .collect(),
    })
}
