//! How values are written on the command line.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

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

/// Reads a share in percent: more than nothing, and not all.
pub(super) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|percent| (1..=99).contains(percent))
        .ok_or_else(|| "give a whole number of percent, 1 to 99".to_owned())
}

/// Reads a number a second, of which k and m are thousands and millions.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        _ => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|rate| (1..=1_000_000_000).contains(rate))
        .ok_or_else(|| "give requests a second such as 500, 20k or 1m".to_owned())
}

/// Reads the name of a file for a picture.
pub(super) fn picture(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(OsStr::to_str) {
        Some("svg" | "html") => Ok(path),
        _ => Err("give a file name that ends with .svg or .html".to_owned()),
    }
}

/// Reads how long to wait between two looks at something.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval =
        time(text).map_err(|error| format!("{error}; a device is named before --watch"))?;
    if interval < Duration::from_millis(10) {
        return Err("give 10ms or more".to_owned());
    }
    Ok(interval)
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
    fn shares_are_neither_nothing_nor_all() {
        assert_eq!(percent("30"), Ok(30));
        assert_eq!(percent("99%"), Ok(99));
        assert!(percent("0").is_err() && percent("100").is_err() && percent("half").is_err());
    }

    #[test]
    fn rates_are_powers_of_1000() {
        assert_eq!(rate("500"), Ok(500));
        assert_eq!(rate("20k"), Ok(20_000));
        assert_eq!(rate("1M"), Ok(1_000_000));
        assert!(rate("0").is_err() && rate("k").is_err() && rate("2000m").is_err());
    }

    #[test]
    fn pictures_are_known_by_their_names() {
        assert!(picture("a/b.svg").is_ok() && picture("b.html").is_ok());
        assert!(picture("b.png").is_err() && picture("svg").is_err());
    }

    #[test]
    fn bare_times_are_seconds() {
        assert_eq!(time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert!(time("soon").is_err());
    }
}
