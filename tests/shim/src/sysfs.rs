//! What `/sys/dev/block/MAJOR:MINOR/queue/*` would say of our disks.

use crate::registry::{self, Disk, MAJOR};

/// The content of the sysfs file `path`, if it is one of ours.
#[must_use]
pub fn answer(path: &str) -> Option<String> {
    let (device, attribute) = path
        .strip_prefix("/sys/dev/block/")?
        .split_once("/queue/")?;
    let (major, minor) = device.split_once(':')?;
    if major.parse() != Ok(MAJOR) {
        return None;
    }
    let disk = registry::by_minor(minor.parse().ok()?)?;
    Some(format!("{}\n", value(disk, attribute)?))
}

fn value(disk: &Disk, attribute: &str) -> Option<String> {
    let geometry = &disk.geometry;
    Some(match attribute {
        "zoned" => "host-managed".into(),
        "chunk_sectors" => (geometry.zone_size / 512).to_string(),
        "nr_zones" => disk.zones().count().to_string(),
        "max_open_zones" => geometry.max_open.to_string(),
        "max_active_zones" => geometry.max_active.to_string(),
        "zone_append_max_bytes" => geometry.max_append.to_string(),
        "logical_block_size" => geometry.logical_block.to_string(),
        "physical_block_size" => geometry.physical_block.to_string(),
        "max_segments" => "128".into(),
        _ => return None,
    })
}
