//! What zone management costs, for programs.

use serde::Serialize;

use crate::{
    failure::Failure,
    job::latency::Latency,
    report::{
        SCHEMA, device::DeviceRecord, json::LatencyRecord, machine::MachineRecord, print_json,
    },
    spread::Spread,
    zoneops::{
        Finished, Load, Sampled,
        figures::{AppendFigures, Beside, Phase, RoundFigures},
    },
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    machine: MachineRecord,
    device: DeviceRecord,
    config: Config,
    interrupted: bool,
    /// How appends ran beside; `null` if they did not.
    load: Option<LoadRecord>,
    results: Vec<ResultRecord>,
    /// What was written to fill zones; none of it is part of a result.
    filled_bytes: u64,
    seconds: f64,
    zones_left_empty: bool,
    notes: Vec<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Config {
    device: String,
    ops: Vec<&'static str>,
    repeat: u64,
    zones: Vec<u32>,
    block_size: u32,
    depth: u16,
    runtime_seconds: f64,
    fill_limit_bytes: u64,
    load: bool,
    destroy: bool,
}

#[derive(Serialize)]
struct LoadRecord {
    op: &'static str,
    append: &'static str,
    zones: u32,
    block_size: u32,
    depth: u16,
    same_queue: bool,
}

#[derive(Serialize)]
struct ResultRecord {
    op: &'static str,
    /// Of the zone before, if it is about zones in a certain state.
    state: Option<&'static str>,
    fill_bytes: u64,
    zones: u32,
    samples: u64,
    errors: u64,
    refused: Option<String>,
    latency_ns: Option<LatencyRecord>,
    beside: Option<BesideRecord>,
}

/// The appends with the operation and without, and the operation with the appends.
#[derive(Serialize)]
struct BesideRecord {
    iops_ratio: Spread,
    p50_ratio: Spread,
    p99_ratio: Spread,
    alone: PhaseRecord,
    loaded: PhaseRecord,
    operation: OperationRecord,
    rounds: Vec<RoundRecord>,
}

#[derive(Serialize)]
struct PhaseRecord {
    seconds: f64,
    windows: u64,
    ios: u64,
    iops: f64,
    latency_ns: Option<LatencyRecord>,
}

#[derive(Serialize)]
struct OperationRecord {
    samples: u64,
    latency_ns: Option<LatencyRecord>,
}

#[derive(Serialize)]
struct RoundRecord {
    alone: AppendRecord,
    loaded: AppendRecord,
}

#[derive(Serialize)]
struct AppendRecord {
    iops: f64,
    p50_ns: u64,
    p99_ns: u64,
}

impl Config {
    fn new(finished: &Finished) -> Self {
        let plan = &finished.plan;
        Self {
            device: plan.device.clone(),
            ops: plan.ops.iter().map(|op| op.name()).collect(),
            repeat: plan.repeat,
            zones: finished.zones.iter().map(|zone| zone.id.0).collect(),
            block_size: plan.block_size,
            depth: plan.depth,
            runtime_seconds: plan.runtime.as_secs_f64(),
            fill_limit_bytes: plan.fill_limit,
            load: plan.load,
            destroy: plan.destroy,
        }
    }
}

impl LoadRecord {
    fn new(load: Load, finished: &Finished) -> Self {
        Self {
            op: load.kind.name(),
            append: match &finished.info.zoned {
                Some(zoned) => zoned.append.name(),
                None => "no",
            },
            zones: load.zones,
            block_size: finished.plan.block_size,
            depth: finished.plan.depth,
            same_queue: load.shared,
        }
    }
}

impl From<&Sampled> for ResultRecord {
    fn from(sampled: &Sampled) -> Self {
        Self {
            op: sampled.operation.op().name(),
            state: sampled.operation.state(),
            fill_bytes: sampled.fill,
            zones: sampled.zones,
            samples: sampled.latency.count(),
            errors: sampled.errors,
            refused: sampled.refused.clone(),
            latency_ns: latency(&sampled.latency),
            beside: sampled.beside.as_ref().map(BesideRecord::from),
        }
    }
}

/// What is known of latencies: nothing, if there are none.
fn latency(latency: &Latency) -> Option<LatencyRecord> {
    (latency.count() > 0).then(|| LatencyRecord::from(latency))
}

impl From<&Beside> for BesideRecord {
    fn from(beside: &Beside) -> Self {
        let operations = &beside.loaded.operations;
        Self {
            iops_ratio: beside.iops_ratio(),
            p50_ratio: beside.p50_ratio(),
            p99_ratio: beside.p99_ratio(),
            alone: PhaseRecord::from(&beside.alone),
            loaded: PhaseRecord::from(&beside.loaded),
            operation: OperationRecord {
                samples: operations.count(),
                latency_ns: latency(operations),
            },
            rounds: beside.rounds.iter().map(RoundRecord::from).collect(),
        }
    }
}

impl From<&Phase> for PhaseRecord {
    fn from(phase: &Phase) -> Self {
        Self {
            seconds: phase.time as f64 / 1e9,
            windows: phase.windows,
            ios: phase.ios,
            iops: phase.iops(),
            latency_ns: latency(&phase.latency),
        }
    }
}

impl From<&RoundFigures> for RoundRecord {
    fn from(round: &RoundFigures) -> Self {
        let figures = |figures: &AppendFigures| AppendRecord {
            iops: figures.iops,
            p50_ns: figures.p50,
            p99_ns: figures.p99,
        };
        Self {
            alone: figures(&round.alone),
            loaded: figures(&round.loaded),
        }
    }
}

/// Prints what was measured.
pub(crate) fn zoneops(finished: &Finished) -> Result<(), Failure> {
    print_json(&Document {
        schema: SCHEMA,
        machine: MachineRecord::here(),
        device: DeviceRecord::from(&*finished.info),
        config: Config::new(finished),
        interrupted: finished.interrupted,
        load: finished.load.map(|load| LoadRecord::new(load, finished)),
        results: finished.results.iter().map(ResultRecord::from).collect(),
        filled_bytes: finished.filled,
        seconds: finished.time.as_secs_f64(),
        zones_left_empty: finished.not_emptied.is_none(),
        notes: finished.notes.clone(),
        error: finished.trouble.as_ref().map(|trouble| trouble.text()),
    })
}
