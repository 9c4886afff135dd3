//! VFIO for a guest without an IOMMU: the kernel's own module, built once more with the no-IOMMU
//! mode that distributions leave out.
//!
//! What ends up in `target/guest/no-iommu`: `modules/vfio.ko`, unless the guest's kernel has the
//! mode already, and, written last, `version`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::apt::Apt;
use crate::paths;
use crate::step::execute;

const MODULE: &str = "vfio.ko";
/// Only a module that has the mode knows this parameter.
const PARAMETER: &[u8] = b"enable_unsafe_noiommu_mode";
const SOURCES: &str = "drivers/vfio";
/// The module alone is wanted: everything else in its directory is switched off.
const SWITCHES: [&str; 10] = [
    "CONFIG_VFIO_IOMMU_TYPE1=",
    "CONFIG_VFIO_IOMMU_SPAPR_TCE=",
    "CONFIG_VFIO_PCI_CORE=",
    "CONFIG_VFIO_PLATFORM_BASE=",
    "CONFIG_VFIO_MDEV=",
    "CONFIG_VFIO_FSL_MC=",
    "CONFIG_VFIO_CDX=",
    // Would need one more tool.
    "CONFIG_DEBUG_INFO_BTF_MODULES=",
    "KCFLAGS=-DCONFIG_VFIO_NOIOMMU=1",
    "modules",
];

/// Builds the module for the kernel that was fetched, unless it is there.
pub(crate) fn build() -> Result<()> {
    let guest = paths::guest()?;
    let kernel = guest.join("kernel");
    let release = fs::read_to_string(kernel.join("version")).context("no kernel was fetched")?;
    let into = guest.join("no-iommu");
    if fs::read_to_string(into.join("version")).is_ok_and(|built| built == release) {
        println!("VFIO for kernel {release} is there");
        return Ok(());
    }
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(into.join("modules"))?;
    match fs::read(kernel.join("modules").join(MODULE)) {
        Ok(original) if !contains(&original, PARAMETER) => {
            let work = guest.join("no-iommu-build");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir_all(&work)?;
            let module = rebuild(&release, &original, &work)?;
            fs::write(into.join("modules").join(MODULE), module)?;
            fs::remove_dir_all(&work)?;
            println!("VFIO for kernel {release} is built");
        }
        _ => println!("kernel {release} has the no-IOMMU mode itself"),
    }
    Ok(fs::write(into.join("version"), release)?)
}

fn rebuild(release: &str, original: &[u8], work: &Path) -> Result<Vec<u8>> {
    let apt = Apt::prepare()?;
    let headers = format!("linux-headers-{release}");
    let version = apt.versions(&headers)?.into_iter().next();
    let version = version.map(|offer| offer.version).with_context(|| {
        format!(
            "{headers} is not on offer (any more): remove {} and set up again for a newer kernel",
            work.with_file_name("kernel").display()
        )
    })?;
    let needs = apt.dependencies(&headers, &version)?;
    let compiler = needs.iter().find(|name| name.starts_with("gcc-"));
    for tool in ["make", "tar", "xz"]
        .into_iter()
        .chain(compiler.map(String::as_str))
    {
        ensure!(
            Command::new(tool).arg("--version").output().is_ok(),
            "{tool} is missing, which kernel modules are built with: install it"
        );
    }
    let built_with = needs
        .iter()
        .filter(|name| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-"));
    let source = format!("linux-source-{}", series(release));
    println!("fetching {headers} and {source} {version}");
    for package in built_with.chain([&headers, &source]) {
        apt.download(&format!("{package}={version}"), work)?;
    }
    let root = work.join("root");
    for package in entries(work)? {
        if package.extension().is_some_and(|end| end == "deb") {
            execute(Command::new("dpkg").arg("-x").arg(&package).arg(&root))?;
        }
    }
    let headers = root.join("usr/src").join(headers);
    point_into(&root, &headers.join("Makefile"))?;
    let mut unpack = Command::new("tar");
    unpack
        .arg("-xf")
        .arg(root.join(format!("usr/src/{source}.tar.xz")));
    unpack
        .arg("-C")
        .arg(work)
        .arg(format!("{source}/{SOURCES}"));
    execute(&mut unpack)?;
    let sources = work.join(&source).join(SOURCES);
    make(&headers, &sources)?;
    let module = fs::read(sources.join(MODULE))?;
    ensure_fits(&module, original)?;
    ensure_same_symbols(
        &fs::read_to_string(sources.join("Module.symvers"))?,
        &fs::read_to_string(headers.join("Module.symvers"))?,
    )?;
    Ok(module)
}

/// The headers' makefile names its other half by where that would be installed.
fn point_into(root: &Path, makefile: &Path) -> Result<()> {
    let text = fs::read_to_string(makefile).with_context(|| makefile.display().to_string())?;
    let moved = text.replace(" /usr/src/", &format!(" {}/usr/src/", root.display()));
    Ok(fs::write(makefile, moved)?)
}

fn make(headers: &Path, sources: &Path) -> Result<()> {
    let mut make = Command::new("make");
    make.arg("-C").arg(headers);
    make.arg(format!("M={}", sources.display()));
    // What cargo tells the programs it runs is not meant for this one.
    make.args(SWITCHES).env_remove("MAKEFLAGS");
    let done = make.output().context("cannot start make")?;
    if !done.status.success() {
        let log = String::from_utf8_lossy(&done.stderr);
        bail!("the module cannot be built: {}\n{log}", done.status);
    }
    Ok(())
}

/// The kernel takes only modules that name its version and options.
fn ensure_fits(module: &[u8], original: &[u8]) -> Result<()> {
    let made_for = |module| information(module, b"vermagic=");
    let (built, wanted) = (made_for(module), made_for(original));
    ensure!(
        built.is_some() && built == wanted,
        "the module is for {built:?}, and the kernel is {wanted:?}"
    );
    ensure!(
        contains(module, PARAMETER),
        "the module came without the no-IOMMU mode"
    );
    Ok(())
}

/// The other modules of VFIO take only a module whose symbols are what they were built against.
fn ensure_same_symbols(built: &str, wanted: &str) -> Result<()> {
    let checksum = |line: &str| -> Option<(String, String)> {
        let mut columns = line.split('\t');
        let checksum = columns.next()?.to_owned();
        Some((columns.next()?.to_owned(), checksum))
    };
    let built: Vec<_> = built.lines().filter_map(checksum).collect();
    ensure!(!built.is_empty(), "the module exports nothing");
    let wanted: Vec<_> = wanted.lines().filter_map(checksum).collect();
    for symbol in &built {
        ensure!(
            wanted.contains(symbol),
            "{} is not what the kernel's modules were built against",
            symbol.0
        );
    }
    Ok(())
}

/// `6.12` of `6.12.95+deb12-cloud-amd64`.
fn series(release: &str) -> String {
    let numbers: Vec<&str> = release.split(['.', '-', '+']).take(2).collect();
    numbers.join(".")
}

fn information<'a>(module: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    module
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name))
}

fn contains(module: &[u8], word: &[u8]) -> bool {
    module.windows(word.len()).any(|window| window == word)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_of_another_kernel_is_refused() {
        let ours = b"\0vermagic=6.12 SMP\0parm=enable_unsafe_noiommu_mode\0";
        let kernel = b"\x7fELF\0vermagic=6.12 SMP\0";
        assert!(ensure_fits(ours, kernel).is_ok());
        assert!(ensure_fits(ours, b"\0vermagic=6.13 SMP\0").is_err());
        assert!(ensure_fits(kernel, kernel).is_err());
        assert!(ensure_fits(PARAMETER, PARAMETER).is_err());
    }

    #[test]
    fn symbols_must_be_those_of_the_kernel() {
        let kernel = "0x1\tkfree\tvmlinux\tE\t\n0x2\tvfio_a\tdrivers/vfio/vfio\tE\t\n";
        assert!(ensure_same_symbols("0x2\tvfio_a\t/tmp/vfio\tE\t\n", kernel).is_ok());
        assert!(ensure_same_symbols("0x3\tvfio_a\t/tmp/vfio\tE\t\n", kernel).is_err());
        assert!(ensure_same_symbols("0x2\tvfio_b\t/tmp/vfio\tE\t\n", kernel).is_err());
        assert!(ensure_same_symbols("", kernel).is_err());
    }

    #[test]
    fn series_is_the_first_two_numbers() {
        assert_eq!(series("6.12.95+deb12-cloud-amd64"), "6.12");
        assert_eq!(series("7.0-1-cloud"), "7.0");
    }
}
