//! The tool's commands on devices and zones.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Value, json};

use super::Context;
use crate::inside::hugepages::Reserved;
use crate::inside::kernel_view::{KernelDisk, State};
use crate::inside::tool::{Ended, USER, run, run_as_user};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn function_is_bound_described_and_given_back(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let geometry = context.geometry("main")?;
    let address = function.address();
    let listed = |driver: &str| -> Result<Value> {
        let list = run("list --format json")?.json()?;
        let functions = list["functions"].as_array().context("no functions")?;
        // The panel is one more.
        ensure!(functions.len() == context.machine.disks.len() + 1, "{list}");
        let ours = functions.iter().find(|one| one["address"] == *address);
        let ours = ours.with_context(|| format!("{address} is missing: {list}"))?;
        ensure!(ours["driver"] == driver, "{ours}");
        ensure!(ours["group"].to_string() == function.iommu_group().context("no group")?);
        ensure!(ours["iommu"] == "dmar0", "{ours}");
        ensure!(ours["hindrances"] == json!([]), "{ours}");
        Ok(ours.clone())
    };
    let disk = function.block_device()?;
    let disks = json!([{"name": disk, "zoned": "host-managed", "in_use": null}]);
    ensure!(listed("virtio-pci")?["disks"] == disks);

    // A second time changes nothing.
    for _ in 0..2 {
        let bound = run(&format!("bind {address}"))?;
        let opens_as = format!("pci:{address}");
        ensure!(bound.printed()?.contains(&opens_as), "{bound}");
        ensure!(function.driver().as_deref() == Some("vfio-pci"));
    }
    ensure!(listed("vfio-pci")?["disks"] == json!([]));
    let table = run("list")?;
    ensure!(
        table
            .printed()?
            .contains(&format!("opens as pci:{address}"))
    );

    let info = run(&format!("info pci:{address} --format json"))?.json()?;
    let device = &info["device"];
    for (name, expected) in [
        ("name", json!(format!("pci:{address}"))),
        ("capacity_bytes", json!(function.disk.bytes)),
        ("block_size", json!(geometry.block)),
        ("max_queues", json!(function.disk.queues)),
        ("volatile_cache", json!(true)),
    ] {
        ensure!(device[name] == expected, "{name}, not {expected}: {device}");
    }
    let capacity = json!({"min": geometry.zone_capacity, "max": geometry.zone_capacity});
    for (name, expected) in [
        ("model", json!("host-managed")),
        ("zones", json!(function.disk.bytes / geometry.zone_size)),
        ("conventional_zones", json!(geometry.conventional)),
        ("zone_size_bytes", json!(geometry.zone_size)),
        ("zone_capacity_bytes", capacity),
        ("max_open_zones", json!(geometry.max_open)),
        ("max_active_zones", json!(geometry.max_active)),
        ("max_append_bytes", json!(geometry.max_append)),
        ("write_granularity", json!(geometry.block)),
    ] {
        let found = &device["zoned"][name];
        ensure!(*found == expected, "{name} is {found}, not {expected}");
    }
    let text = run(&format!("info pci:{address}"))?;
    for word in ["host-managed", "2 MiB pages"] {
        ensure!(text.printed()?.contains(word), "{word}: {text}");
    }

    let unbound = run(&format!("unbind {address}"))?;
    ensure!(unbound.printed()?.contains("virtio-pci"), "{unbound}");
    ensure!(function.driver().as_deref() == Some("virtio-pci"));
    let disk = KernelDisk::open(&function.block_device()?)?;
    ensure!(disk.report()?.len() == 32, "Linux's disk has suffered");
    Ok(())
}

pub(super) fn user_needs_the_group_and_enough_lockable_memory(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let address = function.address();
    let info = format!("info pci:{address}");
    run_as_user(&format!("bind {address}"))?.refused(3, &["needs root"])?;
    run(&format!("bind {address}"))?.printed()?;
    let group = function.iommu_group().context("no group")?;
    let file = format!("/dev/vfio/{group}");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let owner = || -> Result<u32> { Ok(std::fs::metadata(&file)?.uid()) };
    ensure!(owner()? == 0, "{file} belongs to {}", owner()?);
    run_as_user(&info)?.refused(3, &[&file, "--owner"])?;
    hindered(&address, &[&file, "--owner"])?;

    run(&format!("bind {address} --owner {USER}"))?.printed()?;
    ensure!(owner()? == USER, "{file} belongs to {}", owner()?);
    limit_locked_memory(64 << 10)?;
    run_as_user(&info)?.refused(3, &["LimitMEMLOCK", "ulimit -l"])?;
    hindered(&address, &["64 KiB", "ulimit -l", "LimitMEMLOCK"])?;
    let job = format!("run --device pci:{address} --count 100 --format json --destroy");
    for reserved in [8, 0] {
        // With 2 MiB pages and without: these count, too.
        let _reserved = Reserved::only(reserved)?;
        limit_locked_memory(64 << 10)?;
        let needed = needed_kib(&run_as_user(&job)?)?;
        limit_locked_memory((needed - 1) << 10)?;
        ensure!(needed_kib(&run_as_user(&job)?)? == needed);
        limit_locked_memory(needed << 10)?;
        let ran = run_as_user(&job)?.json()?;
        ensure!(ran["results"][0]["ios"] == 100, "{ran}");
        context.metric(
            format!("kib_needed_of_{reserved}_huge_pages"),
            needed as f64,
        );
    }
    limit_locked_memory(64 << 20)?;
    run_as_user(&info)?.printed()?;
    let list = run_as_user("list")?;
    ensure!(list.printed()?.contains(&format!("opens as pci:{address}")));
    run_as_user(&format!("unbind {address}"))?.refused(3, &["needs root"])?;
    run(&format!("unbind {address}"))?.printed()?;
    ensure!(function.driver().as_deref() == Some("virtio-pci"));
    Ok(())
}

/// How much memory a refusal says has to be lockable.
fn needed_kib(refusal: &Ended) -> Result<u64> {
    refusal.refused(3, &["LimitMEMLOCK", "ulimit -l", "at least "])?;
    let text = refusal.to_string();
    let (_, rest) = text.split_once("at least ").context("no amount")?;
    let (amount, _) = rest.split_once(" KiB").context("no unit")?;
    Ok(amount.parse()?)
}

/// Passes if one thing alone keeps the user from opening the function, and what is listed of it
/// contains all of `words`.
fn hindered(address: &str, words: &[&str]) -> Result<()> {
    let list = run_as_user("list --format json")?.json()?;
    let functions = list["functions"].as_array().context("no functions")?;
    let ours = functions.iter().find(|one| one["address"] == *address);
    let hindrances = &ours.context("missing")?["hindrances"];
    ensure!(
        hindrances.as_array().map(Vec::len) == Some(1),
        "{hindrances}"
    );
    let text = hindrances[0].to_string();
    for word in words {
        ensure!(text.contains(word), "`{word}` is missing: {text}");
    }
    Ok(())
}

/// Limits what this process, and those it starts, may lock.
fn limit_locked_memory(bytes: u64) -> Result<()> {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(64 << 20),
    };
    Ok(setrlimit(Resource::Memlock, limit)?)
}

pub(super) fn zones_are_reported_and_managed(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    let disk = function.bind_to_kernel()?;
    let start = disk.report()?[2].start;
    disk.write(start, &[1; 4096])?;
    let linux = disk.report()?;
    drop(disk);
    let device = format!("pci:{}", function.address());
    run(&format!("bind {}", function.address()))?.printed()?;

    let report = run(&format!("zones report {device} --format json"))?.json()?;
    let zones = report["zones"].as_array().context("no zones")?;
    ensure!(zones.len() == linux.len(), "{report}");
    for (zone, linux) in zones.iter().zip(&linux) {
        ensure!(zone["start_sector"] == linux.start, "{zone}, {linux:?}");
        ensure!(zone["size_sectors"] == linux.size, "{zone}, {linux:?}");
        ensure!(zone["capacity_sectors"] == linux.capacity, "{zone}");
        let (state, kind, pointer) = match linux.state {
            State::Conventional => ("not-wp", "conventional", Value::Null),
            State::Empty => ("empty", "seq-required", json!(linux.start)),
            _ => ("imp-open", "seq-required", json!(linux.start + 8)),
        };
        ensure!(zone["state"] == state && zone["type"] == kind, "{zone}");
        ensure!(zone["write_pointer_sector"] == pointer, "{zone}");
    }
    let csv = run(&format!("zones report {device} --format csv"))?;
    ensure!(csv.printed()?.lines().count() == linux.len() + 1, "{csv}");

    let picture = |of: fn(State) -> char| -> String {
        linux.iter().take(8).map(|zone| of(zone.state)).collect()
    };
    let fill = picture(|state| match state {
        State::Conventional => '=',
        State::Empty => '.',
        _ => '0',
    });
    let letters = picture(|state| match state {
        State::Conventional => '=',
        State::Empty => ' ',
        _ => 'o',
    });
    let map = run(&format!("zones map {device} --ascii"))?;
    let limit = context.geometry("main")?.max_open;
    for words in [
        format!("   0  {fill} "),
        format!("      {}\n", letters.trim_end()),
        format!("open     1 of {limit}\n"),
    ] {
        ensure!(map.printed()?.contains(&words), "{words}: {map}");
    }

    for (command, state) in [
        ("open", "exp-open"),
        ("close", "empty"),
        ("finish", "full"),
        ("reset --destroy", "empty"),
    ] {
        let json = run(&format!(
            "zones {command} {device} --zone 5 --zone 7 --format json"
        ))?;
        let zones = json.json()?["zones"].clone();
        for (index, number) in [5, 7].into_iter().enumerate() {
            let zone = &zones[index];
            ensure!(
                zone["zone"] == number && zone["state"] == state,
                "{command}: {zones}"
            );
        }
    }

    // What is in zone 2 is only ever lost by consent.
    for command in ["reset", "reset-all"] {
        let zone = if command == "reset" {
            "--zone 3 --zone 2"
        } else {
            ""
        };
        let ended = run(&format!("zones {command} {device} {zone}"))?;
        ended.refused(3, &["zone 2", "--destroy"])?;
    }
    run(&format!("zones open {device} --zone 1"))?.refused(1, &["zone 1", "conventional"])?;
    run(&format!("zones open {device} --zone 32"))?.refused(2, &["--zone 32", "32 zones"])?;
    let after = run(&format!("zones report {device} --format json"))?.json()?;
    ensure!(after == report, "{after}");

    run(&format!("zones reset-all {device} --destroy"))?.printed()?;
    run(&format!("unbind {}", function.address()))?.printed()?;
    let disk = KernelDisk::open(&function.block_device()?)?;
    let written = disk
        .report()?
        .into_iter()
        .find(|zone| !matches!(zone.state, State::Conventional | State::Empty));
    ensure!(written.is_none(), "{written:?}");
    Ok(())
}
