//! Requests on the software device, which is stepped: what the driver does for one.
//!
//! Instructions are counted by callgrind, in the driver's functions only: the figures are the same
//! on every run and every x86-64 machine. Times are measured without it, all layers in turn in one
//! process. The benchmark's own loops (the layer `harness`) are measured in the same way and taken
//! off. Every layer, the peer included, drives the same device; the peer never uses INDIRECT.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::budgets::{Budget, Budgets};
use super::program::{Program, number};
use super::statistics::Samples;

/// How many requests are counted each time.
const REQUESTS: u32 = 5_120;
/// How many are timed each time, and how often.
const TIMED: u32 = 20_480;
const ROUNDS: u32 = 7;
const FORMATS: [&str; 2] = ["split", "packed"];
const OPERATIONS: [&str; 3] = ["append", "write", "read"];
const DEPTHS: [u32; 4] = [1, 32, 128, 256];
/// Where the descriptors of a request are, and how long the queue is.
const CHAINS: [(&str, u32); 2] = [("indirect", 256), ("direct", 1024)];
const HARNESS: &str = "harness";
const LAYERS: [&str; 4] = ["blk-queue", "io-queue", FUTURES, PEER];
/// What needs an executor, and the least one by itself.
const FUTURES: &str = "zoned-device";
const EXECUTOR: &str = "executor";
const PEER: &str = "virtio-driver";

pub(crate) fn run(program: &Program, budgets: &mut Budgets) -> Result<()> {
    println!(
        "\n4 KiB requests on the software device, submit and complete, without the benchmark's own \
         loops\n  blk-queue: ring and virtio-blk layer; io-queue: IoQueue, the whole of it; \
         zoned-device: ZonedDevice on the thread that owns\n  its queue, without what running the futures costs; \
         virtio-driver 0.6.1: the peer, which\n  uses no tables and knows no append. \
         Instructions by callgrind; ns: median (least-greatest) of {ROUNDS} alternating runs"
    );
    let mut harness = BTreeMap::new();
    for layer in [HARNESS, EXECUTOR] {
        for depth in DEPTHS {
            let count = instructions(program, layer, "split indirect", "append", depth)?;
            harness.insert((layer, depth), count);
        }
    }
    for format in FORMATS {
        for (chains, entries) in CHAINS {
            println!("\n{format}, {chains}, a queue of {entries}");
            print!("  {:6} {:>5}", "", "depth");
            for layer in LAYERS {
                print!("  {layer:>13} {:20}", "ns");
            }
            println!();
            let rings = Rings {
                format,
                chains,
                entries,
            };
            for operation in OPERATIONS {
                for depth in DEPTHS {
                    row(program, &rings, operation, depth, &harness, budgets)?;
                }
            }
        }
    }
    quiet(program, budgets)?;
    quiet_on_tokio(program, budgets)?;
    idle(program, budgets)
}

struct Rings {
    format: &'static str,
    chains: &'static str,
    entries: u32,
}

impl Rings {
    fn name(&self) -> String {
        format!("{} {}", self.format, self.chains)
    }

    fn can(&self, layer: &str, operation: &str, depth: u32) -> bool {
        layer != PEER || (operation != "append" && depth <= self.entries / 3)
    }
}

fn row(
    program: &Program,
    rings: &Rings,
    operation: &str,
    depth: u32,
    harness: &BTreeMap<(&str, u32), f64>,
    budgets: &mut Budgets,
) -> Result<()> {
    let times = times(program, &rings.name(), operation, depth)?;
    print!("  {operation:6} {depth:5}");
    for layer in LAYERS {
        if !rings.can(layer, operation, depth) {
            print!("  {:>13} {:20}", "-", "-");
            continue;
        }
        let without = match layer {
            FUTURES => EXECUTOR,
            _ => HARNESS,
        };
        let gross = instructions(program, layer, &rings.name(), operation, depth)?;
        let net = gross - harness[&(without, depth)];
        let empty = times.get(without).map_or(0.0, Samples::median);
        let time = times.get(layer).context("a layer was not timed")?;
        let time = format!("{:.0}", time.less(empty));
        print!("  {net:13.1} {time:20}");
        if let Some(budget) = budget(layer, rings, depth) {
            let case = format!("{layer}, {}, {operation}, depth {depth}", rings.name());
            budgets.note(budget, net, case);
        }
    }
    println!();
    Ok(())
}

/// The budget of a layer's instructions, if it has one.
fn budget(layer: &str, rings: &Rings, depth: u32) -> Option<Budget> {
    let alone = depth < 32;
    match (layer, rings.format, rings.chains) {
        ("blk-queue", "split", "indirect") if alone => Some(Budget::SplitLayerAlone),
        ("blk-queue", "split", "indirect") => Some(Budget::SplitLayer),
        ("blk-queue", "packed", "indirect") if alone => Some(Budget::PackedLayerAlone),
        ("blk-queue", "packed", "indirect") => Some(Budget::PackedLayer),
        ("io-queue", _, "indirect") if !alone => Some(Budget::IoQueue),
        (FUTURES, _, "indirect") if !alone => Some(Budget::ZonedDevice),
        _ => None,
    }
}

fn instructions(
    program: &Program,
    layer: &str,
    rings: &str,
    operation: &str,
    depth: u32,
) -> Result<f64> {
    let job = format!("run {layer} {rings} {operation} {depth} {REQUESTS}");
    Ok(program.instructions(&job)? / f64::from(REQUESTS))
}

/// Nanoseconds a request, by layer.
fn times(
    program: &Program,
    rings: &str,
    operation: &str,
    depth: u32,
) -> Result<BTreeMap<String, Samples>> {
    let job = format!("time {rings} {operation} {depth} {ROUNDS} {TIMED}");
    let mut times: BTreeMap<String, Samples> = BTreeMap::new();
    for line in program.print(&job)?.lines() {
        let (layer, _) = line.split_once(' ').context("a layer and its time")?;
        let time = number(line, layer)?;
        times.entry(layer.to_owned()).or_default().add(time);
    }
    Ok(times)
}

/// What should not happen for each request.
fn quiet(program: &Program, budgets: &mut Budgets) -> Result<()> {
    println!(
        "\nper request, polled, steady state; busy: doorbells for as many requests as the depth, \
         each published\nby itself, while the device is busy with the first of them\n  \
         {:13} {:15} {:>5} {:>12} {:>13} {:>10} {:>5}",
        "", "", "depth", "allocations", "system calls", "doorbells", "busy"
    );
    for layer in LAYERS {
        for format in FORMATS {
            for depth in DEPTHS {
                let (operation, chains) = match layer {
                    PEER => ("write", "direct"),
                    _ => ("append", "indirect"),
                };
                let rings = format!("{format} {chains}");
                let job = format!("run {layer} {rings} {operation} {depth}");
                let line = program.print(&format!("{job} {REQUESTS}"))?;
                let allocations = number(&line, "allocations")?;
                let doorbells = number(&line, "doorbells")?;
                let calls = program.system_calls(&format!("{job} {REQUESTS}"))?;
                let calls = calls as f64 / f64::from(REQUESTS);
                let busy = program.print(&format!("busy {layer} {rings} {depth}"))?;
                let busy = number(&busy, "doorbells")?;
                println!(
                    "  {layer:13} {rings:15} {depth:5} {allocations:12.3} {calls:13.3} \
                     {doorbells:10.4} {busy:5}"
                );
                if layer == PEER {
                    continue;
                }
                let case = format!("{layer}, {rings}, depth {depth}");
                budgets.note(Budget::Allocations, allocations, &*case);
                budgets.note(Budget::SystemCalls, calls, &*case);
                if depth == 32 {
                    budgets.note(Budget::Doorbells, doorbells, &*case);
                    let busy = busy / f64::from(depth);
                    budgets.note(Budget::DoorbellsWhileBusy, busy, &*case);
                }
            }
        }
    }
    Ok(())
}

/// The same through tokio's local runtime.
fn quiet_on_tokio(program: &Program, budgets: &mut Budgets) -> Result<()> {
    for format in FORMATS {
        for depth in DEPTHS {
            let job = format!("tokio {format} indirect {depth} {REQUESTS}");
            let line = program.print(&job)?;
            let allocations = number(&line, "allocations")?;
            let doorbells = number(&line, "doorbells")?;
            let calls = program.system_calls(&job)? as f64 / f64::from(REQUESTS);
            println!(
                "  {:13} {:15} {depth:5} {allocations:12.3} {calls:13.3} {doorbells:10.4}",
                "on tokio",
                format!("{format} indirect")
            );
            let case = format!("{FUTURES} on tokio's local runtime, {format}, depth {depth}");
            budgets.note(Budget::Allocations, allocations, &*case);
            budgets.note(Budget::SystemCalls, calls, &*case);
        }
    }
    Ok(())
}

/// What open devices take of a processor when there is nothing to do.
fn idle(program: &Program, budgets: &mut Budgets) -> Result<()> {
    println!("\nprocessor time of an idle open device, waited for adaptively, per cent");
    for line in program.print("idle")?.lines() {
        let (door, _) = line.split_once(' ').context("a door and its part")?;
        let part = number(line, door)?;
        println!("  {door:13} {part:.3}");
        budgets.note(Budget::IdleCpu, part, door);
    }
    Ok(())
}
