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
    let seconds = text.strip_suffix('s').unwrap_or(text);
    // Only these have fractions; what else numbers can be written like is not for times.
    if !seconds.is_empty()
        && seconds.bytes().all(|c| c.is_ascii_digit() || c == b'.')
        && let Some(time) = seconds.parse().ok().and_then(in_seconds)
    {
        return Ok(time);
    }
    humantime::parse_duration(text)
        .map_err(|_| "give a time such as 5s, 1.5s, 500ms, 2min or 1h30m".to_owned())
}

fn in_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
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

    #[test]
    fn sizes_are_read_in_all_usual_notations() {
        for (text, bytes) in [
            ("4k", 4096),
            ("4K", 4096),
            ("4kb", 4096),
            ("4KB", 4096),
            ("4kib", 4096),
            ("4KiB", 4096),
            ("4 KiB", 4096),
            ("4096b", 4096),
            ("1m", 1 << 20),
            ("1MiB", 1 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-4k",
            "4x",
            "4kk",
            "0x1000",
            "1e400",
            "99999999t",
            "4k5",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_in_all_usual_notations() {
        for (text, ms) in [
            ("5s", 5_000),
            ("5sec", 5_000),
            ("5 s", 5_000),
            ("1.5s", 1_500),
            ("0.25", 250),
            ("500ms", 500),
            ("2000us", 2),
            ("2m", 120_000),
            ("2min", 120_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1h 30min", 5_400_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            ".",
            "-1",
            "-1s",
            "1.2.3",
            "inf",
            "nan",
            "1e3",
            "5x",
            "99999999999999999999999",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
