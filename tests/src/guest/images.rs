//! The files behind a machine's disks.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::machine::{Disk, Geometry, Machine, PANEL};

/// Lays out fresh, sparse images of all the machine's disks in `directory`, and sidecars that tell
/// the shim what the zones are like.
///
/// # Errors
/// Names the file that could not be written.
pub fn create(machine: &Machine, directory: &Path) -> Result<()> {
    let panel = directory.join(PANEL.name);
    for (slot, disk) in machine.disks.iter().chain([&PANEL]).enumerate() {
        let path = directory.join(disk.name);
        let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        file.set_len(disk.bytes)
            .with_context(|| format!("{}", path.display()))?;
        if let Some(zones) = &disk.zones {
            let sidecar = directory.join(format!("{}.zones", disk.name));
            fs::write(&sidecar, describe(zones, &panel, slot))
                .with_context(|| format!("{}", sidecar.display()))?;
        }
    }
    Ok(())
}

/// The slot of `disk` in the panel.
#[must_use]
pub fn panel_slot(machine: &Machine, disk: &Disk) -> Option<usize> {
    machine
        .disks
        .iter()
        .position(|other| other.name == disk.name)
}

fn describe(zones: &Geometry, panel: &Path, slot: usize) -> String {
    let Geometry {
        zone_size,
        zone_capacity,
        conventional,
        max_open,
        max_active,
        max_append,
        block,
        sidecar,
    } = zones;
    format!(
        "zone-size={zone_size}\nzone-capacity={zone_capacity}\nconventional={conventional}\n\
         max-open={max_open}\nmax-active={max_active}\nmax-append={max_append}\n\
         logical-block={block}\nphysical-block={block}\npanel={}\npanel-slot={slot}\n{sidecar}",
        panel.display()
    )
}
