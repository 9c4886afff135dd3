//! The result for people.

use std::{fmt::Write, time::Duration};

use zbd_core::Backend;

use super::{figures, machine::MachineRecord, table, wrapped};
use crate::{
    cli::{Api, Op},
    job::{Finished, latency::Latency},
};

/// The result of a job. Who gave no arguments is told what to try next.
pub(crate) fn run(finished: &Finished, bare: bool) -> String {
    let mut text = job(finished);
    text += &MachineRecord::here().text();
    if bare {
        text += "Next: zbd-bench --op write compares writes; zbd-bench list shows real devices.\n";
    }
    text
}

/// The results of the jobs of a file.
pub(crate) fn jobs(jobs: &[(String, Finished)]) -> String {
    let mut text = String::new();
    for (name, finished) in jobs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}");
        text += &job(finished);
        text.push('\n');
    }
    text + &MachineRecord::here().text()
}

fn job(finished: &Finished) -> String {
    [
        head(finished),
        throughput(finished),
        latency(finished),
        rest(finished),
        what_it_was(finished),
    ]
    .join("\n")
}

fn head(finished: &Finished) -> String {
    let (job, info) = (&finished.job, &finished.info);
    let zones = match &info.zoned {
        Some(_) => format!(", {}", figures::plural(finished.zones().into(), "zone")),
        None => String::new(),
    };
    let api = match job.api {
        Api::Queue => "queue API",
        Api::Async if job.threads > 1 => &format!("async tasks on {} threads", job.threads),
        Api::Async => "async tasks",
    };
    let mut more = String::new();
    if job.op == Op::Randread || job.read_mix > 0 {
        more += &format!(", seed {}", job.seed);
    }
    if !job.ramp.is_zero() {
        more += &format!(", ramp {}", figures::time(job.ramp.as_nanos() as f64));
    }
    if let Some(rate) = job.rate {
        more += &format!(", {} a second each", figures::count(rate));
    }
    if job.max_open < job.zones {
        more += &format!(", {} open at a time", job.max_open);
    }
    if job.finish_at < 100 {
        more += &format!(", finished at {} %", job.finish_at);
    }
    let mix = match job.read_mix {
        0 => String::new(),
        percent => format!(" with {percent} % reads"),
    };
    let batch = match job.api {
        Api::Queue => format!(" (batch {})", job.batch),
        // Each task submits by itself.
        Api::Async => String::new(),
    };
    let text = format!(
        "{} {}{mix}, depth {}{batch}, {}{zones}, {api}, wait {}{more}",
        job.op.name(),
        figures::bytes(job.block_size.into()),
        job.depth,
        figures::plural(job.queues.into(), "queue"),
        job.wait,
    );
    let text = wrapped(&text);
    format!("{} ({})\n{text}", info.name, info.backend.name())
}

fn throughput(finished: &Finished) -> String {
    let (job, measured) = (&finished.job, &finished.measured);
    let heads = ["", "MiB/s", "IOPS", "requests", "errors", "seconds"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (op, tally) in finished.tallies() {
        let iops = finished.per_second(tally.ios);
        let bandwidth = iops * f64::from(job.block_size) / f64::from(1 << 20);
        rows.push(vec![
            op.name().to_owned(),
            format!("{bandwidth:.1}"),
            figures::count(iops as u64),
            figures::count(tally.ios),
            figures::count(measured.errors.total()),
            format!("{:.3}", measured.time.as_secs_f64()),
        ]);
    }
    table(1, rows)
}

fn latency(finished: &Finished) -> String {
    let heads = [
        "latency", "min", "mean", "p50", "p90", "p99", "p99.9", "max",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (op, tally) in finished.tallies() {
        rows.push(times(op.name(), &tally.latency));
        if let Some(service) = &tally.service {
            rows.push(times("  once sent", service));
        }
    }
    table(1, rows)
}

fn times(what: &str, latency: &Latency) -> Vec<String> {
    let mut row = vec![what.to_owned()];
    row.push(figures::time(latency.min() as f64));
    row.push(figures::time(latency.mean()));
    row.extend([50.0, 90.0, 99.0, 99.9].map(|p| figures::time(latency.percentile(p) as f64)));
    row.push(figures::time(latency.max() as f64));
    row
}

/// The IOPS of the seconds that the job lasted for.
fn by_second(finished: &Finished) -> Option<String> {
    let seconds = finished.measured.done.series.seconds();
    let (_, whole) = seconds.split_last()?;
    let mut ios: Vec<u64> = whole.iter().map(|second| second.ios).collect();
    ios.sort_unstable();
    let (least, most) = (ios.first()?, ios.last()?);
    let median = ios[ios.len() / 2];
    (ios.len() > 1).then_some(())?;
    Some(format!(
        "{} to {} IOPS, median {}",
        figures::count(*least),
        figures::count(*most),
        figures::count(median)
    ))
}

fn rest(finished: &Finished) -> String {
    let measured = &finished.measured;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let doorbells = measured.doorbells;
    row(
        "doorbells",
        match (doorbells, measured.ios()) {
            (0, _) | (_, 0) => figures::count(doorbells),
            (doorbells, ios) => {
                let each = figures::mean(ios as f64 / doorbells as f64);
                let doorbells = figures::count(doorbells);
                format!("{doorbells}, one for every {each} requests")
            }
        },
    );
    row(
        "merging",
        figures::merging(finished.info.backend, finished.merged),
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
    if let Some(text) = by_second(finished) {
        row("by second", text);
    }
    let managing = |n: u64, time: Duration| {
        format!(
            "{} in {}, not part of the above",
            figures::count(n),
            figures::time(time.as_nanos() as f64)
        )
    };
    let management = &measured.management;
    if management.resets > 0 {
        row(
            "zone resets",
            managing(management.resets, management.reset_time),
        );
    }
    if management.finishes > 0 {
        row(
            "zone finishes",
            managing(management.finishes, management.finish_time),
        );
    }
    if !management.time().is_zero() {
        let share = finished.management_share() * 100.0;
        row("zones took", format!("{share:.2} % of the time"));
    }
    // One can be due just as time is up.
    if measured.unsent > 1 {
        row(
            "not sent",
            format!(
                "{}, though due: the rate was not reached",
                figures::count(measured.unsent)
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
    row("features", finished.info.features.join(" "));
    table(2, rows)
}

fn what_it_was(finished: &Finished) -> String {
    let job = &finished.job;
    let requests = match job.op {
        Op::Append if job.read_mix > 0 => "zone appends and random reads",
        Op::Write if job.read_mix > 0 => "sequential writes and random reads",
        Op::Append => "zone appends",
        Op::Write => "sequential writes",
        Op::Read => "sequential reads",
        Op::Randread => "random reads",
    };
    let device = match finished.info.backend {
        Backend::Emulated => "a virtio-blk device in this process, no hardware",
        _ => finished.info.name.as_str(),
    };
    let ended = match finished.interrupted {
        true => " (interrupted)",
        false => "",
    };
    wrapped(&format!("This was: {requests} on {device}{ended}."))
}
