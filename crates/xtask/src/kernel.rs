//! The guest's kernel: fetched and unpacked, never installed.
//!
//! What ends up in `target/guest/kernel`: `vmlinuz`, the modules in `modules/`, their file names in
//! the order to load them in `modules.order`, and, written last, `version`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::{Apt, Offer};
use crate::modules;
use crate::paths;
use crate::step::execute;

/// Packages that depend on the newest kernel of their kind: Debian's, then Ubuntu's.
const METAPACKAGES: [&str; 6] = [
    "linux-image-cloud-amd64",
    "linux-image-6.12-cloud-amd64",
    "linux-image-virtual",
    "linux-image-virtual-hwe-26.04",
    "linux-image-virtual-hwe-24.04",
    "linux-image-generic",
];
const NEEDED: &str = "6.12";

/// Fetches the kernel and its modules, unless they are there.
pub(crate) fn fetch() -> Result<()> {
    let kernel = paths::guest()?.join("kernel");
    if let Ok(version) = fs::read_to_string(kernel.join("version")) {
        println!("kernel {version} is there");
        return Ok(());
    }
    let apt = Apt::prepare()?;
    let (package, offer) = newest(&apt)?;
    println!("fetching {package} {} from {}", offer.version, offer.suite);
    let download = paths::guest()?.join("download");
    let _ = fs::remove_dir_all(&download);
    let _ = fs::remove_dir_all(&kernel);
    let unpacked = download.join("root");
    fs::create_dir_all(&unpacked)?;
    apt.download(&package, &download)?;
    // Ubuntu keeps the modules in packages of their own.
    let release = package
        .trim_start_matches("linux-image-")
        .trim_start_matches("unsigned-");
    for modules in [
        format!("linux-modules-{release}"),
        format!("linux-modules-extra-{release}"),
    ] {
        if !apt.versions(&modules)?.is_empty() {
            apt.download(&modules, &download)?;
        }
    }
    for package in files_below(&download)? {
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            execute(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
        }
    }
    let files = files_below(&unpacked)?;
    lay_out(&files, &kernel)?;
    fs::remove_dir_all(&download)?;
    fs::write(kernel.join("version"), release)?;
    println!("kernel {release} is unpacked in {}", kernel.display());
    Ok(())
}

/// The package of the first kernel on offer that is new enough.
fn newest(apt: &Apt) -> Result<(String, Offer)> {
    for metapackage in METAPACKAGES {
        let offers = apt.versions(metapackage)?;
        if let Some(offer) = offers.into_iter().find(|offer| offer.at_least(NEEDED)) {
            let depends = apt.dependencies(metapackage, &offer.version)?;
            let real = depends
                .into_iter()
                .find(|name| name.starts_with("linux-image-"));
            let real = real.with_context(|| format!("{metapackage} depends on no kernel"))?;
            return Ok((real, offer));
        }
    }
    bail!(
        "no kernel {NEEDED} or newer on offer under any of these names: {}",
        METAPACKAGES.join(", ")
    )
}

fn lay_out(files: &[PathBuf], kernel: &Path) -> Result<()> {
    fs::create_dir_all(kernel.join("modules"))?;
    let image = |file: &&PathBuf| {
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    let image = files
        .iter()
        .find(image)
        .context("the package holds no vmlinuz")?;
    fs::copy(image, kernel.join("vmlinuz"))?;
    let mut order = String::new();
    for module in modules::load_order(files)? {
        fs::write(
            kernel.join("modules").join(&module.file_name),
            &module.content,
        )?;
        order += &format!("{}\n", module.file_name);
    }
    fs::write(kernel.join("modules.order"), order)?;
    Ok(())
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => directories.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}
