//! QEMU, new enough to know zoned virtio-blk.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::Apt;
use crate::step::output;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// The first QEMU with zoned virtio-blk.
const NEEDED: (u32, u32) = (8, 1);
const NEEDED_PACKAGE: &str = "1:8.1";

/// Installs QEMU, unless the one that is there will do.
pub(crate) fn install() -> Result<()> {
    let found = version();
    if let Some(version) = found.filter(|version| *version >= NEEDED) {
        println!("{PROGRAM} {}.{} is there", version.0, version.1);
        return Ok(());
    }
    match found {
        Some((major, minor)) => println!("{PROGRAM} {major}.{minor} is too old"),
        None => println!("{PROGRAM} is missing"),
    }
    let apt = Apt::prepare()?;
    let offered = apt
        .versions(PACKAGE)?
        .into_iter()
        .find(|offered| offered.at_least(NEEDED_PACKAGE))
        .with_context(|| {
            format!(
                "no {PACKAGE} {NEEDED_PACKAGE} or newer on offer: install QEMU {NEEDED:?} by hand"
            )
        })?;
    println!(
        "installing {PACKAGE} {} from {}",
        offered.version, offered.suite
    );
    apt.install(PACKAGE, &offered)?;
    match version() {
        Some(version) if version >= NEEDED => Ok(()),
        other => {
            bail!("{PROGRAM} in PATH is {other:?} even now: is an older one before it in PATH?")
        }
    }
}

/// Major and minor version of the QEMU in PATH.
fn version() -> Option<(u32, u32)> {
    parse_version(&output(Command::new(PROGRAM).arg("--version")).ok()?)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, numbers) = text.split_once("version ")?;
    let mut numbers = numbers.split(|other: char| !other.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn version_is_read_from_what_qemu_prints() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003";
        assert_eq!(super::parse_version(text), Some((10, 0)));
        assert_eq!(
            super::parse_version("QEMU emulator version 7.2.22"),
            Some((7, 2))
        );
        assert_eq!(super::parse_version(""), None);
    }
}
