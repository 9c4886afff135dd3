//! The result for people.

use std::fmt::Write;

use zbd_core::Backend;

use super::{figures, print, table};
use crate::{
    cli::{Api, Op},
    failure::Failure,
    job::Finished,
};

/// Prints the result. Who gave no arguments is told what to try next.
pub(crate) fn run(finished: &Finished, bare: bool) -> Result<(), Failure> {
    let mut text = head(finished);
    text.push('\n');
    text += &throughput(finished);
    text.push('\n');
    text += &latency(finished);
    text.push('\n');
    text += &rest(finished);
    text.push('\n');
    text += &what_it_was(finished);
    if bare {
        text += "Next: zbd-bench --op write compares writes; zbd-bench list shows real devices.\n";
    }
    print(&text)
}

fn head(finished: &Finished) -> String {
    let (job, info) = (&finished.job, &finished.info);
    let zones = match &info.zoned {
        Some(_) => format!(", {}", figures::plural(finished.zones().into(), "zone")),
        None => String::new(),
    };
    let api = match job.api {
        Api::Queue => "queue",
        Api::Async => "async tasks",
    };
    let seed = match job.op {
        Op::Randread => format!(", seed {}", job.seed),
        _ => String::new(),
    };
    format!(
        "{} ({})\n{} {}, depth {} (batch {}), {}{zones}, {api}, wait {}{seed}\n",
        info.name,
        info.backend.name(),
        job.op.name(),
        figures::bytes(job.block_size.into()),
        job.depth,
        job.batch,
        figures::plural(job.queues.into(), "queue"),
        job.wait,
    )
}

fn throughput(finished: &Finished) -> String {
    let (job, measured) = (&finished.job, &finished.measured);
    let bandwidth = finished.iops() * f64::from(job.block_size) / f64::from(1 << 20);
    let heads = ["MiB/s", "IOPS", "requests", "errors", "seconds"];
    table(
        0,
        vec![
            heads.map(str::to_owned).to_vec(),
            vec![
                format!("{bandwidth:.1}"),
                figures::count(finished.iops() as u64),
                figures::count(measured.ios),
                figures::count(measured.errors.total()),
                format!("{:.3}", measured.time.as_secs_f64()),
            ],
        ],
    )
}

fn latency(finished: &Finished) -> String {
    let latency = &finished.measured.latency;
    let mut heads = vec!["latency".to_owned()];
    let mut times = vec![String::new()];
    let mut column = |head: &str, ns: f64| {
        heads.push(head.to_owned());
        times.push(figures::time(ns));
    };
    column("min", latency.min() as f64);
    column("mean", latency.mean());
    for (head, percent) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)] {
        column(head, latency.percentile(percent) as f64);
    }
    column("max", latency.max() as f64);
    table(1, vec![heads, times])
}

fn rest(finished: &Finished) -> String {
    let measured = &finished.measured;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let doorbells = measured.doorbells;
    row(
        "doorbells",
        match (doorbells, measured.ios) {
            (0, _) | (_, 0) => figures::count(doorbells),
            (doorbells, ios) => format!(
                "{}, one for every {:.1} requests",
                figures::count(doorbells),
                ios as f64 / doorbells as f64
            ),
        },
    );
    if let Some(interrupts @ 1..) = finished.interrupts {
        row("interrupts", figures::count(interrupts));
    }
    let (user, system) = (
        finished.cpu.user.as_secs_f64(),
        finished.cpu.system.as_secs_f64(),
    );
    row(
        "CPU",
        format!(
            "{user:.2} s user, {system:.2} s system{}",
            match finished.info.backend {
                Backend::Emulated => ", the emulated device included",
                _ => "",
            }
        ),
    );
    if measured.zone_resets > 0 {
        row(
            "zone resets",
            format!(
                "{} in {}, not part of the above",
                figures::count(measured.zone_resets),
                figures::time(measured.reset_time.as_nanos() as f64)
            ),
        );
    }
    if finished.fill_seconds > 0.0 {
        let time = figures::time(finished.fill_seconds * 1e9);
        row("filling zones", format!("{time}, not part of the above"));
    }
    if !measured.errors.is_empty() {
        let kinds = &measured.errors.kinds;
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        row("errors", kinds.join(", "));
    }
    table(2, rows)
}

fn what_it_was(finished: &Finished) -> String {
    let job = &finished.job;
    let requests = match job.op {
        Op::Append => "zone appends",
        Op::Write => "sequential writes",
        Op::Read => "sequential reads",
        Op::Randread => "random reads",
    };
    let mut text = String::new();
    let device = match finished.info.backend {
        Backend::Emulated => "a virtio-blk device in this process, no hardware",
        _ => finished.info.name.as_str(),
    };
    let ended = match finished.interrupted {
        true => " (interrupted)",
        false => "",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "This was: {requests} on {device}{ended}.");
    text
}
