//! The tool's benchmark: what it counts is what happened.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Context;
use crate::inside::function::Function;
use crate::inside::kernel_view::{KernelDisk, State};
use crate::inside::tool::{self, Ended, run};

pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// Hands the disk to vfio-pci and returns its device string.
fn bind(function: &Function) -> Result<String> {
    run(&format!("bind {}", function.address()))?.printed()?;
    Ok(format!("pci:{}", function.address()))
}

fn unbind(function: &Function) -> Result<KernelDisk> {
    run(&format!("unbind {}", function.address()))?.printed()?;
    KernelDisk::open(&function.block_device()?)
}

/// Sectors written to each sequential zone, as Linux sees it.
fn written(disk: &KernelDisk) -> Result<Vec<u64>> {
    let zones = disk.report()?.into_iter();
    let sequential = zones.filter(|zone| zone.state != State::Conventional);
    Ok(sequential.map(|zone| zone.written()).collect())
}

/// Runs a job and returns its one result, which must have `ios` requests and no errors.
fn result(arguments: &str, ios: u64) -> Result<Value> {
    let document = run(&format!("run {arguments} --format json"))?.json()?;
    let result = document["results"][0].clone();
    ensure!(result["ios"] == ios && result["errors"] == 0, "{result}");
    let seconds = result["seconds"].as_f64().context("seconds")?;
    let iops = result["iops"].as_f64().context("iops")?;
    ensure!((iops * seconds / ios as f64 - 1.0).abs() < 1e-6, "{result}");
    let latency = &result["latency_ns"];
    let order = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let order: Vec<u64> = order
        .iter()
        .map(|name| latency[name].as_u64().unwrap_or_default())
        .collect();
    ensure!(order[0] > 0 && order.is_sorted(), "{latency}");
    Ok(result)
}

fn note(context: &mut Context, what: &str, result: &Value) {
    let number = |name: &str| result[name].as_f64().unwrap_or_default();
    context.metric(format!("{what}_iops"), number("iops"));
    let each = number("ios") / number("doorbells");
    context.metric(format!("{what}s_per_doorbell"), each);
}

pub(super) fn twenty_thousand_appends_are_on_the_disk(context: &mut Context) -> Result<()> {
    let function = context.function("unmerged")?;
    let device = bind(&function)?;
    let job = "--op append --block-size 4k --depth 32 --zones 4 --count 20000";
    let result = result(&format!("--device {device} {job}"), 20_000)?;
    ensure!(result["bytes"] == 20_000 * 4096, "{result}");
    note(context, "append", &result);
    let written = written(&unbind(&function)?)?;
    ensure!(written.iter().sum::<u64>() == 20_000 * 8, "{written:?}");
    let used = written.iter().filter(|sectors| **sectors > 0).count();
    ensure!(
        used == 4 && written[..4].iter().all(|sectors| *sectors > 0),
        "{written:?}"
    );
    Ok(())
}

pub(super) fn every_operation_on_both_apis_counts_right(context: &mut Context) -> Result<()> {
    const COUNT: u64 = 3000;
    let function = context.function("main")?;
    for api in ["queue", "async"] {
        for op in ["append", "write", "read", "randread"] {
            let device = bind(&function)?;
            let job = format!("--device {device} --op {op} --api {api} --count {COUNT} --destroy");
            let result = result(&job, COUNT)?;
            note(context, &format!("{api}_{op}"), &result);
            if api == "queue" {
                let doorbells = result["doorbells"].as_u64().context("doorbells")?;
                ensure!(
                    COUNT / doorbells.max(1) >= 24,
                    "{op}: {doorbells} doorbells"
                );
            }
            let written = written(&unbind(&function)?)?;
            let (used, rest) = written.split_at(4);
            if matches!(op, "append" | "write") {
                ensure!(
                    used.iter().sum::<u64>() == COUNT * 8,
                    "{api} {op}: {used:?}"
                );
            }
            ensure!(
                used.iter().all(|sectors| *sectors > 0),
                "{api} {op}: {used:?}"
            );
            ensure!(
                rest.iter().all(|sectors| *sectors == 0),
                "{api} {op}: {rest:?}"
            );
        }
    }
    Ok(())
}

pub(super) fn writing_beyond_the_zones_starts_over(context: &mut Context) -> Result<()> {
    // Three zones of `main` hold 4608 blocks.
    const COUNT: u64 = 6000;
    let function = context.function("main")?;
    let device = bind(&function)?;
    for (op, api) in [
        ("append", "queue"),
        ("write", "queue"),
        ("append", "async"),
        ("write", "async"),
    ] {
        let job = format!("--device {device} --op {op} --api {api} --zones 3 --count {COUNT}");
        let result = result(&format!("{job} --destroy"), COUNT)?;
        let resets = result["zone_resets"].as_u64().context("zone_resets")?;
        ensure!((1..=3).contains(&resets), "{op} {api}: {result}");
    }
    let written = written(&unbind(&function)?)?;
    ensure!(
        written[3..].iter().all(|sectors| *sectors == 0),
        "{written:?}"
    );
    Ok(())
}

pub(super) fn interrupted_job_reports_what_it_did(context: &mut Context) -> Result<()> {
    let function = context.function("unmerged")?;
    let device = bind(&function)?;
    let arguments = format!("run --device {device} --runtime 60s --format json");
    let child = tool::command(&arguments).spawn()?;
    thread::sleep(Duration::from_millis(1500));
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let document = Ended::from_output(&arguments, child.wait_with_output()?)?.json()?;
    ensure!(document["interrupted"] == true, "{document}");
    let result = &document["results"][0];
    let ios = result["ios"].as_u64().context("ios")?;
    ensure!(ios > 0 && result["errors"] == 0, "{result}");
    // A fast device fills its zones meanwhile; what was reset was full.
    let resets = result["zone_resets"].as_u64().context("zone_resets")?;
    let lost = resets * context.geometry("unmerged")?.zone_capacity / 512;
    let written = written(&unbind(&function)?)?;
    let left: u64 = written.iter().sum();
    ensure!(
        left + lost == ios * 8,
        "{ios}, {resets} resets: {written:?}"
    );
    Ok(())
}

pub(super) fn bad_requests_are_refused_and_nothing_is_written(context: &mut Context) -> Result<()> {
    let plain = context.function("plain")?;
    let function = context.function("unmerged")?;
    let address = function.address();
    let disk = function.bind_to_kernel()?;
    disk.write(0, &[1; 4096])?;
    drop(disk);
    let panels = [context.panel("unmerged")?, context.panel("no-iommu")?];
    let before = [panels[0].counters()?, panels[1].counters()?];

    let bound_elsewhere = format!("zbd-bench bind {address}");
    run(&format!("run --device pci:{address}"))?.refused(3, &["virtio-pci", &bound_elsewhere])?;
    let device = bind(&function)?;
    for (arguments, code, words) in [
        ("--depth 0", 2, ["--depth 0", ""]),
        ("--depth 1000", 2, ["--depth 1000", "256"]),
        ("--block-size 1k", 2, ["--block-size 1024", "4096"]),
        ("--block-size 512k", 2, ["--block-size 524288", "262144"]),
        ("--zones 17", 2, ["--zones 17", "16"]),
        ("--queues 3", 2, ["3 queues", "2"]),
        ("--op erase", 2, ["erase", "append"]),
        ("--op write", 3, ["zone 0", "--destroy"]),
        ("--op append", 3, ["zone 0", "--destroy"]),
        ("--op read", 3, ["zones 1, 2, 3", "--destroy"]),
    ] {
        let ended = run(&format!("run --device {device} --count 10 {arguments}"))?;
        ended.refused(code, &words).context(arguments)?;
    }
    run("run --device pci:0000:00:1f.7")?.refused(3, &["0000:00:1f.7"])?;
    run("run --device nothing")?.refused(2, &["nothing"])?;

    let plain_device = bind(&plain)?;
    run(&format!("run --device {plain_device} --op append"))?
        .refused(3, &["not a zoned device"])?;
    run(&format!("run --device {plain_device} --op write"))?.refused(3, &["--destroy"])?;
    run(&format!("zones report {plain_device}"))?.refused(3, &["not a zoned device"])?;

    let untranslated = bind(&context.function("no-iommu")?)?;
    run(&format!("run --device {untranslated}"))?.refused(3, &["iommu_platform=on"])?;

    for (panel, before) in panels.iter().zip(&before) {
        let after = panel.counters()?;
        for counter in ["writes", "resets", "opens", "finishes", "refused_writes"] {
            ensure!(
                after[counter] == before[counter],
                "{before:?} became {after:?}"
            );
        }
    }
    Ok(())
}
