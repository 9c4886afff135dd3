//! The result in the shape of fio's JSON, so that its plotting tools read it.
//!
//! Appends count as writes. What fio has no word for is in the object `zbd_bench`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{json::JobRecord, machine::MachineRecord};
use crate::{
    cli::Op,
    failure::Failure,
    job::{Finished, latency::Latency, outcome::Tally, plan::Length, series::Second},
};

/// The percentiles that fio prints unless told otherwise.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

/// The results of jobs, each with its name.
pub(crate) fn run(jobs: &[(&str, &Finished)]) -> Result<String, Failure> {
    let now_time = SystemTime::now();
    let now = now_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|(name, finished)| job(name, finished))
        .collect();
    super::json(&json!({
        "fio version": concat!("zbd-bench-", env!("CARGO_PKG_VERSION")),
        "timestamp": now.as_secs(),
        "timestamp_ms": now.as_millis() as u64,
        "time": humantime::format_rfc3339_seconds(now_time).to_string(),
        "global options": {},
        "jobs": jobs,
        "zbd_bench": { "schema": super::SCHEMA, "machine": MachineRecord::here() },
    }))
}

fn job(name: &str, finished: &Finished) -> Value {
    let (job, measured) = (&finished.job, &finished.measured);
    let seconds = measured.time.as_secs_f64();
    let percent = |time: std::time::Duration| match seconds {
        0.0 => 0.0,
        seconds => time.as_secs_f64() / seconds * 100.0,
    };
    let (mut read, mut write) = (nothing(), nothing());
    for (op, tally) in finished.tallies() {
        let direction = direction(finished, tally);
        if op.is_writing() {
            write = direction;
        } else {
            read = direction;
        }
    }
    let buckets = Buckets::of(finished);
    json!({
        "jobname": name,
        "groupid": 0,
        "error": i32::from(!measured.errors.is_empty()) * 5,
        "eta": 0,
        "elapsed": seconds.ceil() as u64,
        "job options": options(finished),
        "read": read,
        "write": write,
        "trim": nothing(),
        "sync": { "total_ios": 0, "lat_ns": no_times() },
        "job_runtime": measured.time.as_millis() as u64,
        "usr_cpu": percent(finished.cpu.user),
        "sys_cpu": percent(finished.cpu.system),
        "ctx": 0,
        "majf": 0,
        "minf": 0,
        "iodepth_level": depths(job.depth),
        "iodepth_submit": batches(job.batch),
        "iodepth_complete": batches(job.batch),
        "latency_ns": buckets.ns,
        "latency_us": buckets.us,
        "latency_ms": buckets.ms,
        "latency_depth": job.depth,
        "latency_target": 0,
        "latency_percentile": 100.0,
        "latency_window": 0,
        "zone_resets": measured.management.resets,
        "total_err": measured.errors.total(),
        "zbd_bench": ours(finished),
    })
}

/// What fio has no word for.
fn ours(finished: &Finished) -> Value {
    let mut ours = json!(JobRecord::new(None, finished));
    ours["schema"] = super::SCHEMA.into();
    ours["result"] = ours["results"][0].clone();
    ours
}

fn options(finished: &Finished) -> Value {
    let job = &finished.job;
    let mut options = json!({
        "filename": job.device,
        // Its readers know no other words, and appends are writes to them.
        "rw": match job.op {
            _ if job.read_mix > 0 => "rw",
            Op::Append => Op::Write.name(),
            op => op.name(),
        },
        "bs": job.block_size.to_string(),
        "iodepth": job.depth.to_string(),
        "iodepth_batch_submit": job.depth.to_string(),
        "iodepth_batch_complete_min": job.batch.to_string(),
        "numjobs": job.queues.to_string(),
        "randseed": job.seed.to_string(),
        "zonemode": if finished.info.zoned.is_some() { "zbd" } else { "none" },
    });
    match job.length {
        Length::Runtime(time) => {
            options["runtime"] = format!("{}ms", time.as_millis()).into();
            options["time_based"] = "1".into();
        }
        Length::Count(count) => options["number_ios"] = count.to_string().into(),
    }
    if !job.ramp.is_zero() {
        options["ramp_time"] = format!("{}ms", job.ramp.as_millis()).into();
    }
    if let Some(rate) = job.rate {
        options["rate_iops"] = rate.to_string().into();
    }
    if job.read_mix > 0 {
        options["rwmixread"] = job.read_mix.to_string().into();
    }
    options
}

fn direction(finished: &Finished, tally: &Tally) -> Value {
    let block_size = finished.job.block_size;
    let iops = finished.per_second(tally.ios);
    let bandwidth = iops * f64::from(block_size);
    // fio samples twice a second; here it is once.
    let samples = Samples::of(tally.series.seconds(), iops);
    let kib = f64::from(block_size) / 1024.0;
    // Requests are submitted in batches, and only the whole way is timed; how late those are that
    // have a fixed time is in `lat_ns` alone.
    let mut completion = times(tally.service.as_ref().unwrap_or(&tally.latency));
    completion["percentile"] = percentiles(tally.service.as_ref().unwrap_or(&tally.latency));
    let bytes = tally.ios * u64::from(block_size);
    json!({
        "io_bytes": bytes,
        "io_kbytes": bytes / 1024,
        "bw_bytes": bandwidth as u64,
        "bw": (bandwidth / 1024.0) as u64,
        "iops": iops,
        "runtime": finished.measured.time.as_millis() as u64,
        "total_ios": tally.ios,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": no_times(),
        "clat_ns": completion,
        "lat_ns": times(&tally.latency),
        "bw_min": (samples.min * kib) as u64,
        "bw_max": (samples.max * kib) as u64,
        "bw_agg": 100.0,
        "bw_mean": samples.mean * kib,
        "bw_dev": samples.stddev * kib,
        "bw_samples": samples.count,
        "iops_min": samples.min as u64,
        "iops_max": samples.max as u64,
        "iops_mean": samples.mean,
        "iops_stddev": samples.stddev,
        "iops_samples": samples.count,
    })
}

fn times(latency: &Latency) -> Value {
    json!({
        "min": latency.min(),
        "max": latency.max(),
        "mean": latency.mean(),
        "stddev": latency.stddev(),
        "N": latency.count(),
    })
}

fn percentiles(latency: &Latency) -> Value {
    PERCENTILES
        .iter()
        .map(|&p| (format!("{p:.6}"), latency.percentile(p).into()))
        .collect::<Map<String, Value>>()
        .into()
}

/// The IOPS of whole seconds; of the job where it did not last that long.
#[derive(Debug, PartialEq)]
struct Samples {
    count: usize,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
}

impl Samples {
    fn of(seconds: &[Second], iops: f64) -> Self {
        let whole = seconds.split_last().map_or(&[][..], |(_, whole)| whole);
        let mut samples: Vec<f64> = whole.iter().map(|second| second.ios as f64).collect();
        if samples.is_empty() {
            samples.push(iops);
        }
        let count = samples.len();
        let mean = samples.iter().sum::<f64>() / count as f64;
        let variance = samples.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / count as f64;
        Self {
            count,
            min: samples.iter().copied().fold(f64::INFINITY, f64::min),
            max: samples.iter().copied().fold(0.0, f64::max),
            mean,
            stddev: variance.sqrt(),
        }
    }
}

/// The direction in which nothing went.
fn nothing() -> Value {
    json!({
        "io_bytes": 0, "io_kbytes": 0, "bw_bytes": 0, "bw": 0, "iops": 0.0, "runtime": 0,
        "total_ios": 0, "short_ios": 0, "drop_ios": 0,
        "slat_ns": no_times(), "clat_ns": no_times(), "lat_ns": no_times(),
        "bw_min": 0, "bw_max": 0, "bw_agg": 0.0, "bw_mean": 0.0, "bw_dev": 0.0, "bw_samples": 0,
        "iops_min": 0, "iops_max": 0, "iops_mean": 0.0, "iops_stddev": 0.0, "iops_samples": 0,
    })
}

fn no_times() -> Value {
    json!({ "min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0 })
}

/// fio's buckets; the depth that was allowed stands for all requests.
fn depths(depth: u16) -> Value {
    let bucket = match depth {
        64.. => ">=64",
        32.. => "32",
        16.. => "16",
        8.. => "8",
        4.. => "4",
        2.. => "2",
        _ => "1",
    };
    all_in(bucket, ["1", "2", "4", "8", "16", "32", ">=64"])
}

/// fio's buckets; the batches that were asked for stand for all calls.
fn batches(batch: u16) -> Value {
    let bucket = match batch {
        65.. => ">=64",
        33.. => "64",
        17.. => "32",
        9.. => "16",
        5.. => "8",
        _ => "4",
    };
    all_in(bucket, ["0", "4", "8", "16", "32", "64", ">=64"])
}

/// All of it in one of fio's buckets, in percent.
fn all_in(bucket: &str, buckets: [&str; 7]) -> Value {
    let share = |name: &str| if name == bucket { 100.0 } else { 0.0 };
    buckets
        .iter()
        .map(|&name| (name.to_owned(), share(name).into()))
        .collect::<Map<String, Value>>()
        .into()
}

/// The shares of latencies, in percent, each below its key and no less than the one before:
/// nanoseconds below a microsecond, microseconds below a millisecond, and the rest.
#[derive(Debug, Default)]
struct Buckets {
    ns: Map<String, Value>,
    us: Map<String, Value>,
    ms: Map<String, Value>,
}

impl Buckets {
    const SHORT: [u64; 10] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];

    fn of(finished: &Finished) -> Self {
        let latencies = finished
            .tallies()
            .flat_map(|(_, tally)| tally.latency.recorded());
        Self::new(&latencies.collect::<Vec<_>>())
    }

    /// The buckets of so many requests that took so many nanoseconds.
    fn new(latencies: &[(u64, u64)]) -> Self {
        let total: u64 = latencies.iter().map(|(_, count)| count).sum();
        let share = |from: u64, to: u64| -> Value {
            let inside = latencies.iter().filter(|(ns, _)| (from..to).contains(ns));
            let count: u64 = inside.map(|(_, count)| count).sum();
            (count as f64 / total.max(1) as f64 * 100.0).into()
        };
        let scale = |unit: u64, keys: &[u64]| -> Map<String, Value> {
            // What is shorter than one has a finer scale, unless there is none.
            let mut from = if unit == 1 { 0 } else { unit };
            keys.iter()
                .map(|key| {
                    let value = share(from, key * unit);
                    from = key * unit;
                    (key.to_string(), value)
                })
                .collect()
        };
        let mut long = Self::SHORT.to_vec();
        long.push(2000);
        let mut ms = scale(1_000_000, &long);
        ms.insert(">=2000".to_owned(), share(2_000_000_000, u64::MAX));
        Self {
            ns: scale(1, &Self::SHORT),
            us: scale(1_000, &Self::SHORT),
            ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_is_in_one_bucket() {
        let buckets = Buckets::new(&[
            (0, 1),
            (999, 1),
            (1_000, 1),
            (3_999, 2),
            (999_999, 1),
            (1_000_000, 1),
            (2_000_000_000, 3),
        ]);
        assert_eq!(buckets.ns["2"], 10.0);
        assert_eq!(buckets.ns["1000"], 10.0);
        assert_eq!(buckets.us["2"], 10.0);
        assert_eq!(buckets.us["4"], 20.0);
        assert_eq!(buckets.us["1000"], 10.0);
        assert_eq!(buckets.ms["2"], 10.0);
        assert_eq!(buckets.ms[">=2000"], 30.0);
    }

    #[test]
    fn only_whole_seconds_are_samples() {
        let seconds: Vec<Second> = [10, 30, 5]
            .map(|ios| Second {
                ios,
                ..Second::default()
            })
            .to_vec();
        let samples = Samples {
            count: 2,
            min: 10.0,
            max: 30.0,
            mean: 20.0,
            stddev: 10.0,
        };
        assert_eq!(Samples::of(&seconds, 18.0), samples);
        let short = Samples::of(&seconds[..1], 18.0);
        assert_eq!((short.count, short.min, short.max), (1, 18.0, 18.0));
    }
}
