//! A comparison as text or JSON.

use serde::Serialize;

use super::{SCHEMA, device::DeviceRecord, figures, json, machine::MachineRecord, table, wrapped};
use crate::{
    cli::PlainFormat,
    compare::{Compared, Contestant, Source},
    failure::Failure,
    spread::Spread,
};

/// The result of a comparison.
pub(crate) fn compare(compared: &Compared, format: PlainFormat) -> Result<String, Failure> {
    match format {
        PlainFormat::Text => Ok(text(compared)),
        PlainFormat::Json => json(&Document::from(compared)),
    }
}

fn text(compared: &Compared) -> String {
    let job = &compared.job;
    let mut text = wrapped(&format!(
        "{} {}, depth {}, {}, {}, wait {}; medians, and how far rounds were from them",
        job.op.name(),
        figures::bytes(job.block_size.into()),
        job.depth,
        figures::plural(job.queues.into(), "queue"),
        figures::plural(job.zones.into(), "zone"),
        job.wait,
    ));
    text.push('\n');
    let heads = ["", "IOPS", "±", "ratio", "p50", "p99", "CPU/request"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let ratios = compared.ratios();
    for (i, contestant) in compared.contestants.iter().enumerate() {
        let ratio = match i.checked_sub(1) {
            None => "1".to_owned(),
            Some(i) => format!("{:.2}", ratios[i].spread.median),
        };
        rows.push(row(contestant, ratio));
    }
    text += &table(1, rows);
    text.push('\n');
    for sentence in compared.conclusions() {
        text += &wrapped(&sentence);
    }
    if compared.interrupted {
        text += "Interrupted: not all rounds were measured.\n";
    }
    text.push('\n');
    text + &MachineRecord::here().text()
}

fn row(contestant: &Contestant, ratio: String) -> Vec<String> {
    let iops = contestant.spread(|round| round.iops);
    vec![
        contestant.name.clone(),
        figures::count(iops.median as u64),
        format!("{:.0} %", iops.percent()),
        ratio,
        figures::time(contestant.spread(|round| round.p50).median),
        figures::time(contestant.spread(|round| round.p99).median),
        figures::time(contestant.spread(|round| round.cpu).median * 1e9),
    ]
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    machine: MachineRecord,
    config: Config,
    interrupted: bool,
    results: Vec<ContestantRecord>,
    conclusions: Vec<String>,
}

#[derive(Serialize)]
struct Config {
    op: &'static str,
    block_size: u32,
    depth: u16,
    queues: u16,
    zones: u32,
    runtime_seconds: Option<f64>,
    count: Option<u64>,
    wait: String,
    api: &'static str,
}

#[derive(Serialize)]
struct ContestantRecord {
    name: String,
    stored: bool,
    device: Option<DeviceRecord>,
    rounds: Vec<f64>,
    iops: Spread,
    /// To the first contestant, round by round.
    ratio: Option<Spread>,
    latency_ns: Latencies,
    cpu_seconds_per_request: Spread,
    merged: Option<u64>,
    requests_per_doorbell: Option<f64>,
}

#[derive(Serialize)]
struct Latencies {
    p50: Spread,
    p99: Spread,
}

impl From<&Compared> for Document {
    fn from(compared: &Compared) -> Self {
        let job = &compared.job;
        let (runtime, count) = job.length.parts();
        let ratios = compared.ratios();
        Self {
            schema: SCHEMA,
            machine: MachineRecord::here(),
            config: Config {
                op: job.op.name(),
                block_size: job.block_size,
                depth: job.depth,
                queues: job.queues,
                zones: job.zones,
                runtime_seconds: runtime.map(|time| time.as_secs_f64()),
                count,
                wait: job.wait.to_string(),
                api: job.api.name(),
            },
            interrupted: compared.interrupted,
            results: compared
                .contestants
                .iter()
                .enumerate()
                .map(|(i, contestant)| {
                    let ratio = i.checked_sub(1).map(|i| ratios[i].spread);
                    ContestantRecord::new(contestant, ratio)
                })
                .collect(),
            conclusions: compared.conclusions(),
        }
    }
}

impl ContestantRecord {
    fn new(contestant: &Contestant, ratio: Option<Spread>) -> Self {
        let finished = contestant.finished();
        Self {
            name: contestant.name.clone(),
            stored: matches!(contestant.source, Source::Stored { .. }),
            device: finished.map(|finished| DeviceRecord::from(&*finished.info)),
            rounds: contestant.all_iops(),
            iops: contestant.spread(|round| round.iops),
            ratio,
            latency_ns: Latencies {
                p50: contestant.spread(|round| round.p50),
                p99: contestant.spread(|round| round.p99),
            },
            cpu_seconds_per_request: contestant.spread(|round| round.cpu),
            merged: finished.and_then(|finished| finished.merged),
            requests_per_doorbell: finished
                .filter(|finished| finished.measured.doorbells > 0)
                .map(|finished| {
                    finished.measured.ios() as f64 / finished.measured.doorbells as f64
                }),
        }
    }
}
