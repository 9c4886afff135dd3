//! Numbers for people.

use zbd_core::Backend;

/// A number with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and the word for what it counts.
pub(crate) fn plural(n: u64, word: &str) -> String {
    format!("{} {word}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Who merges the requests to a device, as far as that is known, and how many the kernel has.
pub(crate) fn merging(backend: Backend, merged: Option<u64>) -> String {
    let unseen = "what a hypervisor merges is not seen here";
    match (backend, merged) {
        (Backend::Emulated, _) => "none".to_owned(),
        (Backend::Kernel, Some(merged)) => {
            format!("{} by the kernel; {unseen}", plural(merged, "request"))
        }
        (Backend::Kernel, None) => format!("by the kernel, perhaps; {unseen}"),
        _ => format!("none here; {unseen}"),
    }
}

/// A mean of something that is counted.
pub(crate) fn mean(n: f64) -> String {
    match n {
        100.0.. => count(n as u64),
        n => format!("{n:.1}"),
    }
}

/// Something a second.
pub(crate) fn rate(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// A number of bytes, exactly where a larger unit divides it.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (n, 0);
    while value >= 1024 && value.is_multiple_of(1024) {
        value /= 1024;
        unit += 1;
    }
    // 20,000 blocks are 78.1 MiB to people, not 80,000 KiB.
    let (mut value, exact) = (value as f64, value < 10_000);
    while !exact && value >= 1024.0 {
        value /= 1024.0;
        unit += 1;
    }
    if exact {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A time in a unit that suits it.
pub(crate) fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => return format!("{ns:.0} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(count(7), "7");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn bytes_have_the_largest_unit_that_divides_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(48 << 20), "48 MiB");
        assert_eq!(bytes(20_000 * 4096), "78.1 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(time(950.0), "950 ns");
        assert_eq!(time(1_234.0), "1.23 us");
        assert_eq!(time(45_678_000.0), "45.7 ms");
        assert_eq!(time(2e9), "2.00 s");
    }
}
