//! The result in the shape of fio's JSON, so that its plotting tools read it.
//!
//! Appends count as writes. What fio has no word for is in the object `zbd_bench`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{
    device::DeviceRecord,
    json::{Config, ResultRecord},
    print_json,
};
use crate::{
    failure::Failure,
    job::{Finished, plan::Length},
};

/// The percentiles that fio prints unless told otherwise.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

/// Prints the result.
pub(crate) fn run(finished: &Finished) -> Result<(), Failure> {
    let (job, measured) = (&finished.job, &finished.measured);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = measured.time.as_secs_f64();
    let percent = |time: std::time::Duration| match seconds {
        0.0 => 0.0,
        seconds => time.as_secs_f64() / seconds * 100.0,
    };
    let (done, idle) = (direction(finished), nothing());
    let (read, write) = if job.op.is_writing() {
        (idle, done)
    } else {
        (done, idle)
    };
    let mut options = json!({
        "filename": job.device,
        "rw": job.op.name(),
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
    print_json(&json!({
        "fio version": concat!("zbd-bench-", env!("CARGO_PKG_VERSION")),
        "timestamp": now.as_secs(),
        "timestamp_ms": now.as_millis() as u64,
        "jobs": [{
            "jobname": "zbd-bench",
            "groupid": 0,
            "error": i32::from(!measured.errors.is_empty()) * 5,
            "eta": 0,
            "elapsed": seconds.ceil() as u64,
            "job options": options,
            "read": read,
            "write": write,
            "usr_cpu": percent(finished.cpu.user),
            "sys_cpu": percent(finished.cpu.system),
            "iodepth_level": depths(job.depth),
            "zone_resets": measured.zone_resets,
            "total_err": measured.errors.total(),
            "zbd_bench": {
                "schema": super::SCHEMA,
                "device": DeviceRecord::from(&*finished.info),
                "config": Config::from(finished),
                "result": ResultRecord::from(finished),
                "interrupted": finished.interrupted,
            },
        }],
    }))
}

fn direction(finished: &Finished) -> Value {
    let (job, measured) = (&finished.job, &finished.measured);
    let latency = &measured.latency;
    let times = json!({
        "min": latency.min(),
        "max": latency.max(),
        "mean": latency.mean(),
        "stddev": latency.stddev(),
        "N": latency.count(),
    });
    let mut completion = times.clone();
    completion["percentile"] = PERCENTILES
        .iter()
        .map(|&p| (format!("{p:.6}"), latency.percentile(p).into()))
        .collect::<Map<String, Value>>()
        .into();
    let bandwidth = finished.iops() * f64::from(job.block_size);
    json!({
        "io_bytes": finished.bytes(),
        "io_kbytes": finished.bytes() / 1024,
        "bw_bytes": bandwidth as u64,
        "bw": (bandwidth / 1024.0) as u64,
        "iops": finished.iops(),
        "runtime": measured.time.as_millis() as u64,
        "total_ios": measured.ios,
        "short_ios": 0,
        "drop_ios": 0,
        // Requests are submitted in batches, and only the whole way is timed.
        "slat_ns": no_times(),
        "clat_ns": completion,
        "lat_ns": times,
    })
}

/// The direction in which nothing went.
fn nothing() -> Value {
    json!({
        "io_bytes": 0, "io_kbytes": 0, "bw_bytes": 0, "bw": 0, "iops": 0.0, "runtime": 0,
        "total_ios": 0, "short_ios": 0, "drop_ios": 0,
        "slat_ns": no_times(), "clat_ns": no_times(), "lat_ns": no_times(),
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
    let mut levels = json!({
        "1": 0.0, "2": 0.0, "4": 0.0, "8": 0.0, "16": 0.0, "32": 0.0, ">=64": 0.0,
    });
    levels[bucket] = 100.0.into();
    levels
}
