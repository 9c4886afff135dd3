//! The tool's verification, on both back ends: what is written by many tasks is there, where the
//! device said, also after zones were finished and reset and the device was opened again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::inside::kernel_view::State;
use crate::inside::null_block::NullBlock;
use crate::inside::tool::run;

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// How many rounds each disk goes through, and from which seed: the same every time.
const ROUNDS: &str = "--rounds 6 --seed 2";

/// Verifies a disk, and that this came to something.
fn verify(context: &mut Context, what: &str, device: &str, append: &str) -> Result<()> {
    let options = format!("{ROUNDS} --zones 6 --queues 2 --format json");
    let document = run(&format!("verify {device} {options} --destroy"))?.json()?;
    let result = &document["results"][0];
    ensure!(result["verdict"] == "pass", "{device}: {document}");
    ensure!(result["append"] == append, "{device}: {result}");
    let number = |field: &str| -> Result<u64> {
        let number = result[field].as_u64();
        number.with_context(|| format!("{field} of {result}"))
    };
    for (field, least) in [
        ("rounds", 6),
        ("appends", 100),
        ("writes", 1),
        ("records_verified", 100),
        ("bytes_verified", 4 << 20),
        ("zone_reports", 10),
        ("zone_resets", 1),
        ("zone_finishes", 1),
        ("reopens", 1),
    ] {
        let found = number(field)?;
        ensure!(found >= least, "{field} is {found}: {result}");
    }
    context.metric(
        format!("{what}_records_verified"),
        number("records_verified")? as f64,
    );
    let seconds = result["seconds"].as_f64().context("seconds")?;
    context.metric(format!("{what}_seconds"), seconds);
    Ok(())
}

pub(super) fn functions_keep_what_many_tasks_wrote(context: &mut Context) -> Result<()> {
    for name in ["main", "unmerged"] {
        let function = context.function(name)?;
        let address = function.address();
        run(&format!("bind {address}"))?.printed()?;
        verify(context, name, &format!("pci:{address}"), "native")?;
        // Somebody's data are not destroyed without consent.
        let refused = run(&format!("verify pci:{address} --rounds 1"))?;
        refused.refused(3, &["not empty", "--destroy"])?;
        run(&format!("unbind {address}"))?.printed()?;
        let disk = context.kernel_disk(name)?;
        let used = disk
            .report()?
            .iter()
            .any(|zone| !matches!(zone.state, State::Conventional | State::Empty));
        ensure!(used, "{name}: nothing was left in any zone");
    }
    Ok(())
}

pub(super) fn disks_of_linux_keep_what_many_tasks_wrote(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("main")?.path().display().to_string();
    verify(context, "virtio_blk", &disk, "emulated")?;
    // It keeps its data in memory.
    let made = NullBlock::zoned("nullb0", &[])?;
    let disk = made.kernel_disk()?.path().display().to_string();
    verify(context, "null_blk", &disk, "emulated")
}

pub(super) fn disk_without_zones_is_refused(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("plain")?.path().display().to_string();
    let refused: &dyn Fn(&str) -> Result<()> =
        &|device| run(&format!("verify {device} --destroy"))?.refused(3, &["not a zoned device"]);
    refused(&disk)?;
    let function = context.function("plain")?;
    run(&format!("bind {}", function.address()))?.printed()?;
    refused(&format!("pci:{}", function.address()))
}
