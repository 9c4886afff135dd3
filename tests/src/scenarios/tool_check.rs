//! The tool's look at the conformance of QEMU's device: what QEMU 10.0 is known to do otherwise is
//! found, nothing else is, and the disks can be used afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use crate::inside::kernel_view::{KernelDisk, State};
use crate::inside::tool::{Ended, run};

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// What fails on any disk of QEMU's: the ID is not padded, and the cache begins as writeback where the
/// driver cannot flush it.
const ANY: &[&str] = &["get-id", "writeback-without-flush"];

/// What fails where the used length is told: it is all that could be written.
const LENGTH: &[&str] = &["used-length"];

/// What fails on any zoned one: ZONED can be declined and is served all the same; the device breaks
/// over reports and appends that are too short; errors of writes are I/O errors; the segments of an
/// append are to be aligned one by one; nobody looks whether an append fits its zone, or a read.
const ZONED: &[&str] = &[
    "append-full",
    "framing-append",
    "host-managed-without-zoned",
    "read-across-zones",
    "short-append-answered",
    "short-report-answered",
    "write-across-zones",
    "write-beyond-zone-capacity",
    "write-full",
    "write-off-pointer",
    "zone-requests-without-zoned",
];

/// What fails on the disk with limits, failed zones and physical blocks larger than logical ones.
const STRICT: &[&str] = &[
    "active-before-open",
    "active-limit-append",
    "active-limit-open",
    "active-limit-write",
    "append-one-granule",
    "offline-zone",
    "open-limit-append",
    "open-limit-open",
    "open-limit-write",
    "read-only-zone",
];

/// What fails where a block is more than a sector.
const COARSE: &[&str] = &["append-granularity-end", "write-granularity-end"];

/// The document that the tool prints of a disk that does not conform.
fn document(ended: &Ended) -> Result<Value> {
    let value: Value = serde_json::from_str(ended.printed_with(1, "not met")?)?;
    ensure!(value["schema"] == "zbd-bench/1", "{value}");
    Ok(value)
}

pub(super) fn deviations_of_qemu_are_found_and_no_others(context: &mut Context) -> Result<()> {
    for (name, sets) in [
        ("strict", &[ANY, LENGTH, ZONED, STRICT][..]),
        ("whole", &[ANY, ZONED, COARSE]),
        ("plain", &[ANY, LENGTH]),
    ] {
        let function = context.function(name)?;
        let address = function.address();
        run(&format!("check pci:{address}"))?.refused(3, &["--destroy"])?;
        run(&format!("bind {address}"))?.printed()?;
        let checked = run(&format!("check pci:{address} --destroy --format json"))?;
        let document = document(&checked)?;
        let requirements = document["requirements"].as_array().context("none")?;
        let failed: BTreeSet<&str> = requirements
            .iter()
            .filter(|it| it["outcome"] == "fail")
            .filter_map(|it| it["id"].as_str())
            .collect();
        let expected: BTreeSet<&str> = sets.iter().flat_map(|set| set.iter().copied()).collect();
        let odd: Vec<_> = failed.symmetric_difference(&expected).collect();
        ensure!(
            odd.is_empty(),
            "{name}: {odd:?} of {failed:?}: {document:#}"
        );
        let met = document["summary"]["met"].as_f64().context("summary")?;
        context.metric(format!("{name}_met"), met);

        run(&format!("unbind {address}"))?.printed()?;
        let disk = KernelDisk::open(&function.block_device()?)?;
        disk.write(0, &[7; 4096])?;
        ensure!(disk.read(0, 4096)? == [7; 4096], "{name} cannot be used");
        if name != "plain" {
            let left = disk.report()?.into_iter().skip(1).find(|zone| {
                !matches!(
                    zone.state,
                    State::Conventional | State::Empty | State::ReadOnly | State::Offline
                )
            });
            ensure!(left.is_none(), "{name} was left with {left:?}");
        }
    }
    Ok(())
}
