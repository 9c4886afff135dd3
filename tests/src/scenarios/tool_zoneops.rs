//! What zone management costs, as the tool measures it on real devices.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Context;
use crate::inside::function::Function;
use crate::inside::kernel_view::{KernelDisk, State};
use crate::inside::null_block::NullBlock;
use crate::inside::tool::{self, Ended, run};

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// Every operation, a few times.
const SHORT: &str = "--repeat 4 --runtime 20ms --fill-limit 32m --format json";
/// What it measures, in its order; of a device that takes the fill levels of large zones.
const OPERATIONS: [&str; 16] = [
    "report",
    "report",
    "open",
    "open",
    "close",
    "finish",
    "finish",
    "finish",
    "finish",
    "finish",
    "finish",
    "reset",
    "reset",
    "reset",
    "reset-all",
    "flush",
];

fn bind(function: &Function) -> Result<String> {
    run(&format!("bind {}", function.address()))?.printed()?;
    Ok(format!("pci:{}", function.address()))
}

fn unbind(function: &Function) -> Result<KernelDisk> {
    run(&format!("unbind {}", function.address()))?.printed()?;
    KernelDisk::open(&function.block_device()?)
}

/// Passes if Linux finds all sequential zones of the disk empty.
fn ensure_empty(disk: &KernelDisk) -> Result<()> {
    let used = disk
        .report()?
        .into_iter()
        .find(|zone| !matches!(zone.state, State::Conventional | State::Empty));
    ensure!(used.is_none(), "{used:?}");
    Ok(())
}

/// Passes if these are latencies, in nanoseconds, of something that a device did.
fn ensure_latency(latency: &Value) -> Result<()> {
    let order = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let order: Vec<u64> = order
        .iter()
        .map(|name| latency[name].as_u64().unwrap_or_default())
        .collect();
    // A request of a virtual machine without hardware takes microseconds at the least, and no zone
    // command takes ten seconds.
    ensure!(order[0] > 1000 && order.is_sorted(), "{latency}");
    ensure!(order[6] < 10_000_000_000, "{latency}");
    Ok(())
}

/// Passes if all operations were measured, alone and beside appends, and notes how long they took.
fn ensure_complete(context: &mut Context, name: &str, document: &Value) -> Result<()> {
    ensure!(document["error"].is_null(), "{}", document["error"]);
    ensure!(document["zones_left_empty"] == true, "{document}");
    let results = document["results"].as_array().context("results")?;
    let found: Vec<&str> = results
        .iter()
        .filter_map(|one| one["op"].as_str())
        .collect();
    ensure!(found == OPERATIONS, "{found:?}");
    for result in results {
        let op = result["op"].as_str().context("op")?;
        let samples = result["samples"].as_u64().context("samples")?;
        ensure!((3..=4).contains(&samples), "{result}");
        ensure!(
            result["errors"] == 0 && result["refused"].is_null(),
            "{result}"
        );
        ensure_latency(&result["latency_ns"])?;
        let p50 = result["latency_ns"]["p50"].as_f64().context("p50")?;
        let fill = &result["fill_bytes"];
        context.metric(format!("{name}_{op}_{fill}_us"), p50 / 1000.0);
        let beside = &result["beside"];
        ensure!(beside.is_object() == (op != "reset-all"), "{op}: {beside}");
        if beside.is_object() {
            ensure_latency(&beside["operation"]["latency_ns"])?;
            ensure_latency(&beside["alone"]["latency_ns"])?;
            ensure_latency(&beside["loaded"]["latency_ns"])?;
            let ratio = beside["iops_ratio"]["median"].as_f64().context("ratio")?;
            ensure!((0.0..100.0).contains(&ratio), "{op}: {ratio}");
            context.metric(format!("{name}_beside_{op}_{fill}_iops_ratio"), ratio);
        }
    }
    Ok(())
}

pub(super) fn functions_are_measured_and_left_empty(context: &mut Context) -> Result<()> {
    for name in ["main", "unmerged"] {
        let function = context.function(name)?;
        let zone_count = function.disk.bytes / context.geometry(name)?.zone_size;
        let device = bind(&function)?;
        let document = run(&format!("zoneops {device} --zones 4 {SHORT}"))?.json()?;
        ensure_complete(context, name, &document)?;
        ensure!(document["results"][0]["zones"] == zone_count, "{document}");
        let load = &document["load"];
        ensure!(
            load["op"] == "append" && load["same_queue"] == false,
            "{load}"
        );
        ensure_empty(&unbind(&function)?)?;
    }
    Ok(())
}

pub(super) fn disks_of_the_kernel_are_measured_and_left_empty(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    let main = context.kernel_disk("main")?;
    for (name, disk) in [("null_blk", made.kernel_disk()?), ("virtio_blk", main)] {
        let at = disk.path().display().to_string();
        let document = run(&format!("zoneops {at} --zones 4 {SHORT}"))?.json()?;
        ensure_complete(context, name, &document)?;
        ensure!(document["load"]["same_queue"] == false, "{document}");
        ensure_empty(&disk)?;
    }
    Ok(())
}

pub(super) fn data_are_kept_without_consent(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let disk = function.bind_to_kernel()?;
    let zones = disk.report()?;
    disk.write(zones[2].start, &[1; 4096])?;
    disk.write(zones[31].start, &[1; 4096])?;
    let before = disk.report()?;
    drop(disk);
    let device = bind(&function)?;
    run(&format!("zoneops {device} {SHORT}"))?.refused(3, &["zone 2", "--destroy"])?;
    run(&format!("zones reset {device} --zone 2 --destroy"))?.printed()?;
    // A reset of all zones takes those along that are not used.
    run(&format!("zoneops {device} {SHORT}"))?.refused(3, &["zone 31", "reset-all", "--ops"])?;
    let options = "--ops open,close --no-load --zones 2";
    run(&format!("zoneops {device} {SHORT} {options}"))?.json()?;
    let disk = unbind(&function)?;
    let after = disk.report()?;
    ensure!(after[31] == before[31], "{:?}", after[31]);
    ensure!(after[2].state == State::Empty, "{:?}", after[2]);
    drop(disk);
    let device = bind(&function)?;
    run(&format!("zoneops {device} {SHORT} --zones 2 --destroy"))?.json()?;
    ensure_empty(&unbind(&function)?)
}

pub(super) fn interrupted_measurement_leaves_empty_zones(context: &mut Context) -> Result<()> {
    let function = context.function("unmerged")?;
    let device = bind(&function)?;
    let arguments = format!("zoneops {device} --zones 4 --repeat 5 --runtime 60s --format json");
    let child = tool::command(&arguments).spawn()?;
    thread::sleep(Duration::from_secs(6));
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let document = Ended::from_output(&arguments, child.wait_with_output()?)?.json()?;
    ensure!(document["interrupted"] == true, "{document}");
    ensure!(document["results"][0]["samples"] == 5, "{document}");
    ensure!(document["zones_left_empty"] == true, "{document}");
    ensure_empty(&unbind(&function)?)
}
