//! A sweep as text, JSON or CSV.

use std::fmt::Write;

use serde::Serialize;

use super::{SCHEMA, device::DeviceRecord, figures, json, machine::MachineRecord, table, wrapped};
use crate::{
    chart::{self, Glyphs},
    cli::SweepFormat,
    failure::Failure,
    spread::Spread,
    sweep::{Measurement, Swept, picture::Dimension},
};

/// The result of a sweep.
pub(crate) fn sweep(swept: &Swept, format: SweepFormat) -> Result<String, Failure> {
    match format {
        SweepFormat::Text => Ok(text(swept)),
        SweepFormat::Json => json(&Document::from(swept)),
        SweepFormat::Csv => Ok(csv(swept)),
    }
}

fn text(swept: &Swept) -> String {
    let mut text = format!("{} ({})\n", swept.info.name, swept.info.backend.name());
    text += &wrapped(&swept.setting());
    text.push('\n');
    let (heads, rows) = figures_of(swept);
    let mut all = vec![heads];
    all.extend(rows);
    text += &table(1, all);
    text.push('\n');
    if let Some(chart) = swept.charts().first() {
        let chart = chart::Chart {
            title: String::new(),
            subtitle: String::new(),
            ..chart.clone()
        };
        text += &chart::terminal(&chart, super::WIDTH.into(), Glyphs::of_locale());
    }
    text.push('\n');
    if swept.interrupted {
        text += "Interrupted: some points were measured less often, or not at all.\n";
    }
    text + &MachineRecord::here().text()
}

/// The figures behind the charts.
pub(crate) fn page_table(swept: &Swept) -> chart::Table {
    let (heads, rows) = figures_of(swept);
    chart::Table {
        caption: "Medians, and how far single rounds were from them".to_owned(),
        heads,
        rows,
    }
}

fn figures_of(swept: &Swept) -> (Vec<String>, Vec<Vec<String>>) {
    let dimensions = swept.dimensions();
    let mut heads = vec!["op".to_owned()];
    heads.extend(dimensions.iter().map(|d| d.name().to_owned()));
    heads.extend(["IOPS", "±", "MiB/s", "p50", "p99", "per doorbell"].map(str::to_owned));
    let rows = swept
        .measurements
        .iter()
        .map(|m| row(m, &dimensions))
        .collect();
    (heads, rows)
}

fn row(measurement: &Measurement, dimensions: &[Dimension]) -> Vec<String> {
    let (point, iops) = (measurement.point, measurement.iops());
    let mut row = vec![point.op.name().to_owned()];
    row.extend(dimensions.iter().map(|&dimension| match dimension {
        Dimension::BlockSize => figures::bytes(point.block_size),
        other => other.of(point).to_string(),
    }));
    let bandwidth = iops.median * point.block_size as f64 / f64::from(1 << 20);
    row.push(figures::count(iops.median as u64));
    row.push(format!("{:.0} %", iops.percent()));
    row.push(format!("{bandwidth:.1}"));
    row.push(figures::time(measurement.p50().median));
    row.push(figures::time(measurement.p99().median));
    row.push(match measurement.per_doorbell().median {
        0.0 => "-".to_owned(),
        n => figures::mean(n),
    });
    row
}

fn csv(swept: &Swept) -> String {
    let mut text = "op,depth,zones,block_size,queues,rounds,iops_median,iops_min,iops_max,\
                    p50_ns_median,p99_ns_median,requests_per_doorbell\n"
        .to_owned();
    for m in &swept.measurements {
        let (point, iops) = (m.point, m.iops());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{:.1},{:.1},{:.1},{:.0},{:.0},{:.2}",
            point.op.name(),
            point.depth,
            point.zones,
            point.block_size,
            point.queues,
            m.rounds(),
            iops.median,
            iops.min,
            iops.max,
            m.p50().median,
            m.p99().median,
            m.per_doorbell().median,
        );
    }
    text
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    machine: MachineRecord,
    device: DeviceRecord,
    config: Config,
    interrupted: bool,
    findings: Vec<String>,
    results: Vec<PointRecord>,
}

#[derive(Serialize)]
struct Config {
    device: String,
    runtime_seconds: Option<f64>,
    count: Option<u64>,
    rounds: u32,
    wait: String,
    api: &'static str,
}

#[derive(Serialize)]
struct PointRecord {
    op: &'static str,
    block_size: u64,
    depth: u64,
    queues: u64,
    zones: u64,
    rounds: usize,
    iops: Spread,
    latency_ns: Latencies,
    requests_per_doorbell: Spread,
}

#[derive(Serialize)]
struct Latencies {
    p50: Spread,
    p99: Spread,
}

impl From<&Swept> for Document {
    fn from(swept: &Swept) -> Self {
        let (runtime, count) = swept.job.length.parts();
        Self {
            schema: SCHEMA,
            machine: MachineRecord::here(),
            device: DeviceRecord::from(&*swept.info),
            config: Config {
                device: swept.device.clone(),
                runtime_seconds: runtime.map(|time| time.as_secs_f64()),
                count,
                rounds: swept.rounds,
                wait: swept.job.wait.to_string(),
                api: swept.job.api.name(),
            },
            interrupted: swept.interrupted,
            findings: swept.findings(),
            results: swept.measurements.iter().map(PointRecord::from).collect(),
        }
    }
}

impl From<&Measurement> for PointRecord {
    fn from(m: &Measurement) -> Self {
        Self {
            op: m.point.op.name(),
            block_size: m.point.block_size,
            depth: m.point.depth,
            queues: m.point.queues,
            zones: m.point.zones,
            rounds: m.rounds(),
            iops: m.iops(),
            latency_ns: Latencies {
                p50: m.p50(),
                p99: m.p99(),
            },
            requests_per_doorbell: m.per_doorbell(),
        }
    }
}
