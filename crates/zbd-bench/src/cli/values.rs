//! How values are written on the command line.

use std::time::Duration;

use zbd_core::sysfs::{Owner, PciAddress};

/// Reads a size as fio and QEMU write it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|_| "give a size in bytes such as 4096, 4k or 1m".to_owned())
}

/// Reads a time with its unit; a bare number is in seconds, as in fio.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| "give a time such as 5s, 500ms or 2min".to_owned())
}

/// Reads a PCI address, as it is or as a device string.
pub(super) fn address(text: &str) -> Result<PciAddress, String> {
    let address = text.strip_prefix("pci:").unwrap_or(text);
    address.parse().map_err(|_| {
        "give a PCI address, written dddd:bb:dd.f such as 0000:00:01.0; zbd-bench list shows them"
            .to_owned()
    })
}

/// Reads who may open a device.
pub(super) fn owner(text: &str) -> Result<Owner, String> {
    text.parse()
        .map_err(|_| "give a user name, a UID or UID:GID".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("4k"), Ok(4096));
        assert_eq!(size("1M"), Ok(1 << 20));
        assert_eq!(size("512"), Ok(512));
        assert!(size("k").is_err());
    }

    #[test]
    fn bare_times_are_seconds() {
        assert_eq!(time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert!(time("soon").is_err());
    }
}
