//! A report of an earlier run, to compare with.

use std::{fs, path::Path};

use serde::Deserialize;

use super::{Contestant, Round, Source};
use crate::{failure::Failure, job::plan::Job, report::SCHEMA};

/// What is read of a report.
#[derive(Deserialize)]
struct Stored {
    schema: String,
    machine: Option<Machine>,
    device: Device,
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Machine {
    kernel: String,
    commit: String,
}

#[derive(Deserialize)]
struct Device {
    name: String,
}

#[derive(Deserialize)]
struct Outcome {
    op: String,
    block_size: u64,
    depth: u64,
    queues: u64,
    zones: u64,
    iops: f64,
    ios: u64,
    errors: u64,
    latency_ns: Latency,
    cpu_seconds: Cpu,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Deserialize)]
struct Cpu {
    user: f64,
    system: f64,
}

/// Reads a report, which must be of the same job.
pub(super) fn read(path: &Path, job: &Job) -> Result<Contestant, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    parse(&text, job).map_err(|message| Failure::usage(format!("{shown}: {message}")))
}

fn parse(text: &str, job: &Job) -> Result<Contestant, String> {
    let stored: Stored = serde_json::from_str(text).map_err(|error| {
        format!("is no report of one job, written by zbd-bench run --format json: {error}")
    })?;
    if stored.schema != SCHEMA {
        return Err(format!("has the schema {}, not {SCHEMA}", stored.schema));
    }
    let Some(outcome) = stored.results.first() else {
        return Err("has no results".to_owned());
    };
    if outcome.op != job.op.name() {
        return Err(format!(
            "is of --op {}, not {}; only the same job can be compared",
            outcome.op,
            job.op.name()
        ));
    }
    for (option, was, is) in [
        (
            "--block-size",
            outcome.block_size,
            u64::from(job.block_size),
        ),
        ("--depth", outcome.depth, u64::from(job.depth)),
        ("--queues", outcome.queues, u64::from(job.queues)),
        ("--zones", outcome.zones, u64::from(job.zones)),
    ] {
        if was != is {
            return Err(format!(
                "is of {option} {was}, not {is}; only the same job can be compared"
            ));
        }
    }
    if outcome.errors > 0 || outcome.ios == 0 {
        return Err("is of a job that failed".to_owned());
    }
    let cpu = outcome.cpu_seconds.user + outcome.cpu_seconds.system;
    Ok(Contestant {
        name: format!("{} (stored)", stored.device.name),
        source: Source::Stored {
            machine: stored
                .machine
                .map(|machine| format!("{}, commit {}", machine.kernel, machine.commit)),
        },
        rounds: vec![Round {
            iops: outcome.iops,
            p50: outcome.latency_ns.p50,
            p99: outcome.latency_ns.p99,
            cpu: cpu / outcome.ios as f64,
        }],
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    const REPORT: &str = r#"{
        "schema": "zbd-bench/1", "machine": {"kernel": "Linux 9", "commit": "abc", "more": 1},
        "device": {"name": "pci:x", "more": 2}, "config": {},
        "results": [{"op": "append", "block_size": 4096, "depth": 32, "queues": 1, "zones": 4,
            "iops": 1000.0, "ios": 2000, "errors": 0, "latency_ns": {"p50": 10, "p99": 20},
            "cpu_seconds": {"user": 1.5, "system": 0.5}}]}"#;

    fn parsed(text: &str, options: &[&str]) -> Result<Contestant, String> {
        let line = ["zbd-bench"].iter().chain(options);
        let args = Cli::parse_from(line).run;
        let job = Job::resolve("emu:", &args.job, &"emu:".parse().unwrap()).unwrap();
        parse(text, &job)
    }

    #[test]
    fn a_report_of_the_same_job_is_one_round() {
        let contestant = parsed(REPORT, &[]).unwrap();
        assert_eq!(contestant.name, "pci:x (stored)");
        assert_eq!(contestant.rounds.len(), 1);
        assert_eq!(contestant.rounds[0].iops, 1000.0);
        assert_eq!(contestant.rounds[0].cpu, 0.001);
    }

    #[test]
    fn another_job_is_refused_by_name() {
        for (options, word) in [
            (&["--depth", "8"][..], "--depth 32, not 8"),
            (&["--op", "write"], "--op append, not write"),
            (&["--zones", "2"], "--zones 4, not 2"),
        ] {
            let message = parsed(REPORT, options).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
        assert!(parsed("{}", &[]).unwrap_err().contains("no report"));
        let other = REPORT.replace("zbd-bench/1", "zbd-bench/9");
        assert!(parsed(&other, &[]).unwrap_err().contains("zbd-bench/9"));
        let failed = REPORT.replace("\"errors\": 0", "\"errors\": 3");
        assert!(parsed(&failed, &[]).unwrap_err().contains("failed"));
    }
}
