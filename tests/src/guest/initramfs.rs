//! The initramfs: all that the guest has of a file system.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, trailer};

use super::build::Parts;
use super::machine::{Iommu, Machine};
use super::plan::{self, Plan};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Writes the initramfs with which `machine` carries out `plan` to `path`; `programs` are added.
///
/// # Errors
/// Names the file that is missing, or could not be written.
pub fn write(
    parts: &Parts,
    machine: &Machine,
    plan: &Plan,
    programs: &[PathBuf],
    path: &Path,
) -> Result<()> {
    let mut archive = Vec::new();
    for directory in [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "proc",
        "sys",
        "tmp",
        "run",
    ] {
        archive = entry(archive, directory, DIRECTORY, &[])?;
    }
    archive = entry(
        archive,
        "init",
        PROGRAM,
        &read(&parts.program("zbd-guest"))?,
    )?;
    archive = entry(
        archive,
        "bin/zbd-bench",
        PROGRAM,
        &read(&parts.program("zbd-bench"))?,
    )?;
    // It is large, and most boots do without.
    let engine = plan
        .scenarios
        .iter()
        .any(|name| name.contains("::engine::"));
    let engine = engine.then(|| parts.engine());
    for program in programs.iter().chain(&engine) {
        let name = program.file_name().context("a program without a name")?;
        let inside = format!("bin/{}", name.display());
        archive = entry(archive, &inside, PROGRAM, &read(program)?)?;
    }
    archive = entry(archive, plan::PATH, FILE, &serde_json::to_vec(plan)?)?;
    let modules = parts.kernel().join("modules");
    let order = read(&parts.kernel().join("modules.order"))?;
    // Where there is no IOMMU, VFIO has to be one that does without.
    let unconfined = (machine.iommu == Iommu::None).then(|| parts.unconfined_modules());
    let unconfined = unconfined.transpose()?;
    archive = entry(archive, &format!("{}/order", plan::MODULES), FILE, &order)?;
    for name in String::from_utf8_lossy(&order).lines() {
        let inside = format!("{}/{name}", plan::MODULES);
        let special = unconfined.as_ref().map(|modules| modules.join(name));
        let module = special.filter(|module| module.is_file());
        let module = module.unwrap_or_else(|| modules.join(name));
        archive = entry(archive, &inside, FILE, &read(&module)?)?;
    }
    let archive = trailer(archive)?;
    fs::write(path, archive).with_context(|| format!("{}", path.display()))
}

fn entry(archive: Vec<u8>, name: &str, mode: u32, content: &[u8]) -> Result<Vec<u8>> {
    let header = Builder::new(name.trim_start_matches('/'))
        .mode(mode)
        .nlink(1);
    let mut writer = header.write(archive, u32::try_from(content.len())?);
    writer.write_all(content)?;
    Ok(writer.finish()?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{}", path.display()))
}
