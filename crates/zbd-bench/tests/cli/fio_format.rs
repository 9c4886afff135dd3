//! Reports in fio's format, read by a program that knows fio's JSON and nothing of this tool.
//!
//! The types are what fio 3.3x prints (`fio --output-format=json`). All their fields have to be
//! there and of these types, because the programs that draw fio's results look them up by name:
//! fio-plot, for one, reads `job options`, `bw`, `iops`, `iops_stddev`, `lat_ns`, `latency_ns`,
//! `latency_us`, `latency_ms`, `usr_cpu` and `sys_cpu` of each job.

use std::{collections::BTreeMap, fmt::Write, process::Command};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(rename = "fio version")]
    version: String,
    timestamp: u64,
    timestamp_ms: u64,
    time: String,
    #[serde(rename = "global options")]
    global_options: BTreeMap<String, String>,
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    jobname: String,
    groupid: u32,
    error: i32,
    eta: u64,
    elapsed: u64,
    #[serde(rename = "job options")]
    options: BTreeMap<String, String>,
    read: Direction,
    write: Direction,
    trim: Direction,
    sync: Sync,
    job_runtime: u64,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    majf: u64,
    minf: u64,
    iodepth_level: BTreeMap<String, f64>,
    iodepth_submit: BTreeMap<String, f64>,
    iodepth_complete: BTreeMap<String, f64>,
    latency_ns: BTreeMap<String, f64>,
    latency_us: BTreeMap<String, f64>,
    latency_ms: BTreeMap<String, f64>,
    latency_depth: u32,
    latency_target: u64,
    latency_percentile: f64,
    latency_window: u64,
}

#[derive(Debug, Deserialize)]
struct Direction {
    io_bytes: u64,
    io_kbytes: u64,
    bw_bytes: u64,
    bw: u64,
    iops: f64,
    runtime: u64,
    total_ios: u64,
    short_ios: u64,
    drop_ios: u64,
    slat_ns: Times,
    clat_ns: Times,
    lat_ns: Times,
    bw_min: u64,
    bw_max: u64,
    bw_agg: f64,
    bw_mean: f64,
    bw_dev: f64,
    bw_samples: u64,
    iops_min: u64,
    iops_max: u64,
    iops_mean: f64,
    iops_stddev: f64,
    iops_samples: u64,
}

#[derive(Debug, Deserialize)]
struct Sync {
    total_ios: u64,
    lat_ns: Times,
}

#[derive(Debug, Deserialize)]
struct Times {
    min: u64,
    max: u64,
    mean: f64,
    stddev: f64,
    #[serde(rename = "N")]
    count: u64,
    #[serde(default)]
    percentile: BTreeMap<String, u64>,
}

/// The bounds of fio's buckets, as its keys.
const LEVELS: [&str; 7] = ["1", "16", "2", "32", "4", "8", ">=64"];
const BATCHES: [&str; 7] = ["0", "16", "32", "4", "64", "8", ">=64"];
const SHORT: [&str; 10] = [
    "10", "100", "1000", "2", "20", "250", "4", "50", "500", "750",
];
const LONG: [&str; 12] = [
    "10", "100", "1000", "2", "20", "2000", "250", "4", "50", "500", "750", ">=2000",
];

fn report(arguments: &str) -> Report {
    let output = Command::new(env!("CARGO_BIN_EXE_zbd-bench"))
        .args(arguments.split_whitespace())
        .args(["--format", "fio"])
        .output()
        .expect("the tool starts");
    assert_eq!(output.status.code(), Some(0), "{arguments}");
    serde_json::from_slice(&output.stdout).expect("the report has fio's fields")
}

/// Passes if the buckets are fio's and contain all of the requests.
#[track_caller]
fn assert_buckets(buckets: &BTreeMap<String, f64>, keys: &[&str]) {
    assert!(buckets.keys().eq(keys), "{buckets:?}");
    assert!(buckets.values().all(|share| (0.0..=100.0).contains(share)));
}

impl Times {
    #[track_caller]
    fn assert_consistent(&self) {
        let (min, max) = (self.min as f64, self.max as f64);
        assert!(min <= self.mean && self.mean <= max, "{self:?}");
        assert!(self.stddev >= 0.0 && self.stddev <= max, "{self:?}");
        let mut before = (0.0, 0);
        let mut shares: Vec<(f64, u64)> = self
            .percentile
            .iter()
            .map(|(share, ns)| (share.parse().expect("keys are numbers"), *ns))
            .collect();
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (share, ns) in shares {
            assert!(share > before.0 && ns >= before.1 && ns <= self.max);
            before = (share, ns);
        }
    }
}

impl Direction {
    #[track_caller]
    fn assert_consistent(&self, block_size: u64) {
        assert_eq!(self.io_bytes, self.total_ios * block_size);
        assert_eq!(self.io_kbytes, self.io_bytes / 1024);
        assert_eq!(self.bw, self.bw_bytes / 1024);
        assert!(self.total_ios > 0 && self.iops > 0.0);
        // Run times are in whole milliseconds.
        let seconds = self.total_ios as f64 / self.iops;
        assert!((seconds * 1000.0 - self.runtime as f64).abs() <= 1.0);
        assert_eq!((self.short_ios, self.drop_ios), (0, 0));
        assert_eq!(self.clat_ns.count, self.total_ios);
        assert_eq!(self.lat_ns.count, self.total_ios);
        assert_eq!(self.clat_ns.percentile.len(), 17);
        for times in [&self.clat_ns, &self.lat_ns] {
            times.assert_consistent();
        }
        assert_eq!(self.slat_ns.count, 0);
        assert!(self.iops_samples >= 1 && self.bw_samples >= 1);
        assert!(self.iops_min as f64 <= self.iops_mean && self.iops_stddev >= 0.0);
        assert!(self.iops_mean <= self.iops_max as f64 + 1.0);
        assert!(self.bw_min as f64 <= self.bw_mean && self.bw_dev >= 0.0);
        assert!(self.bw_mean <= self.bw_max as f64 + 1.0 && self.bw_agg > 0.0);
    }

    #[track_caller]
    fn assert_idle(&self) {
        assert_eq!((self.total_ios, self.io_bytes, self.runtime), (0, 0, 0));
        assert_eq!((self.iops, self.lat_ns.count), (0.0, 0));
    }
}

impl Job {
    /// The direction in which something went.
    fn busy(&self) -> (&'static str, &Direction) {
        if self.read.total_ios > 0 {
            ("read", &self.read)
        } else {
            ("write", &self.write)
        }
    }

    fn number(&self, option: &str) -> u64 {
        let value = self.options.get(option);
        value
            .and_then(|v| v.parse().ok())
            .unwrap_or_else(|| panic!("{option}: {value:?}"))
    }

    #[track_caller]
    fn assert_consistent(&self) {
        assert_eq!((self.error, self.groupid, self.eta), (0, 0, 0));
        assert!(!self.jobname.is_empty());
        assert!(self.elapsed > 0 && self.job_runtime > 0);
        assert!(self.usr_cpu + self.sys_cpu > 0.0);
        assert_eq!((self.sync.total_ios, self.sync.lat_ns.count), (0, 0));
        self.trim.assert_idle();
        assert_buckets(&self.iodepth_level, &LEVELS);
        assert_buckets(&self.iodepth_submit, &BATCHES);
        assert_buckets(&self.iodepth_complete, &BATCHES);
        assert_buckets(&self.latency_ns, &SHORT);
        assert_buckets(&self.latency_us, &SHORT);
        assert_buckets(&self.latency_ms, &LONG);
        let buckets = [&self.latency_ns, &self.latency_us, &self.latency_ms];
        let all: f64 = buckets.iter().flat_map(|bucket| bucket.values()).sum();
        assert!((all - 100.0).abs() < 0.1, "{buckets:?}");
        assert_eq!(u64::from(self.latency_depth), self.number("iodepth"));
        assert_eq!((self.latency_target, self.latency_window), (0, 0));
        assert_eq!(self.latency_percentile, 100.0);
        // What this process waits for is not counted, only that it is a number matters.
        let _ = (self.ctx, self.majf, self.minf);
    }
}

/// What a program would print of some reports.
fn table(reports: &[Report]) -> String {
    let mut table = String::new();
    for job in reports.iter().flat_map(|report| &report.jobs) {
        let (direction, done) = job.busy();
        let p99 = done.clat_ns.percentile["99.000000"];
        writeln!(
            table,
            "{direction} {} {} {} {:.0} {p99}",
            job.options["rw"], job.options["bs"], job.options["iodepth"], done.iops,
        )
        .expect("strings take what is written");
    }
    table
}

#[test]
fn reports_of_all_kinds_of_jobs_are_read_as_fios() {
    let jobs = [
        ("run --op append --runtime 100ms", "write write 4096 32"),
        (
            "run --op write --depth 8 --count 5000",
            "write write 4096 8",
        ),
        ("run --op read --bs 64k --count 500", "read read 65536 32"),
        (
            "run --op randread --depth 1 --count 500",
            "read randread 4096 1",
        ),
        (
            "run --api async --count 2000 --queues 2",
            "write write 4096 32",
        ),
    ];
    let reports: Vec<_> = jobs
        .iter()
        .map(|(arguments, _)| report(arguments))
        .collect();
    for (report, (arguments, _)) in reports.iter().zip(&jobs) {
        assert!(!report.version.is_empty() && !report.time.is_empty());
        assert_eq!(report.timestamp, report.timestamp_ms / 1000);
        assert!(report.global_options.is_empty());
        assert_eq!(report.jobs.len(), 1, "{arguments}");
        for job in &report.jobs {
            job.assert_consistent();
            let (direction, done) = job.busy();
            done.assert_consistent(job.number("bs"));
            let idle = if direction == "read" {
                &job.write
            } else {
                &job.read
            };
            idle.assert_idle();
            assert!(job.number("numjobs") >= 1);
        }
    }
    let table = table(&reports);
    for (line, (_, expected)) in table.lines().zip(&jobs) {
        assert!(line.starts_with(expected), "{table}");
        let mut figures = line.split(' ').skip(4).map(|n| n.parse::<f64>());
        assert!(figures.all(|n| n.is_ok_and(|n| n > 0.0)), "{table}");
    }
    assert_eq!(table.lines().count(), jobs.len());
}

#[test]
fn mixed_jobs_go_both_ways() {
    let report = report("run --op append --rwmixread 40 --count 20000");
    let job = &report.jobs[0];
    job.assert_consistent();
    job.read.assert_consistent(4096);
    job.write.assert_consistent(4096);
    assert_eq!(job.options["rw"], "rw");
    assert_eq!(job.number("rwmixread"), 40);
    let share = job.read.total_ios as f64 / (job.read.total_ios + job.write.total_ios) as f64;
    assert!((0.37..0.43).contains(&share), "{share}");
}
