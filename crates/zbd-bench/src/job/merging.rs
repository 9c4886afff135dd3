//! How many requests the kernel has merged with others on the way to a disk.

use std::{fs, os::unix::fs::MetadataExt};

use nix::sys::stat::{major, minor};
use zbd_core::DeviceSpec;

/// How many requests to the device were merged into others so far, by whoever drives it here:
/// none but by the kernel. What a hypervisor does with them afterwards cannot be seen from here.
pub(crate) fn so_far(spec: &DeviceSpec) -> Option<u64> {
    let DeviceSpec::Kernel(path) = spec else {
        return Some(0);
    };
    let number = fs::metadata(path).ok()?.rdev();
    let stat = format!("/sys/dev/block/{}:{}/stat", major(number), minor(number));
    merges(&fs::read_to_string(stat).ok()?)
}

/// The sum of the merged reads and writes (Documentation/block/stat.rst of Linux).
fn merges(stat: &str) -> Option<u64> {
    let mut fields = stat.split_whitespace().map(str::parse::<u64>);
    let reads = fields.nth(1)?.ok()?;
    let writes = fields.nth(3)?.ok()?;
    Some(reads + writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_reads_and_writes_are_added() {
        let stat = "  446 7 17312 310 12 30 5 6 0 1 2 3\n";
        assert_eq!(merges(stat), Some(37));
        assert_eq!(merges(""), None);
        assert_eq!(merges("1 2 3"), None);
    }
}
