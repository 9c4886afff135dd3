//! Which files are zoned disks: those beside which lies a sidecar `FILE.zones`.
//!
//! A file is known by device and inode, so that every descriptor of it, however it came about, is
//! recognised, and none has to be followed through `dup` and `close`.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::geometry::Geometry;
use crate::kernel;
use crate::panel::Panel;
use crate::zones::Zones;

/// Major device number of the disks; the kernel gives out none above 511.
pub const MAJOR: u32 = 0xfed;

/// A zoned disk.
#[derive(Debug)]
pub struct Disk {
    /// What its sidecar says.
    pub geometry: Geometry,
    /// Size in bytes.
    pub size: u64,
    /// Minor device number.
    pub minor: u32,
    /// Its counters and controls.
    pub panel: Panel,
    zones: Mutex<Zones>,
}

impl Disk {
    /// Its zones. Held for the length of a write: a zone takes one at a time.
    pub fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Identity = (u64, u64);

static DISKS: RwLock<Vec<(Identity, &'static Disk)>> = RwLock::new(Vec::new());

/// The disk that `fd` refers to.
#[must_use]
pub fn by_descriptor(fd: i32) -> Option<&'static Disk> {
    if DISKS
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .is_empty()
    {
        return None;
    }
    let stat = kernel::fstat(fd)?;
    find(|identity, _| identity == (stat.st_dev, stat.st_ino))
}

/// The disk with this minor number.
#[must_use]
pub fn by_minor(minor: u32) -> Option<&'static Disk> {
    find(|_, disk| disk.minor == minor)
}

/// The disk of this name; seen for the first time, its sidecar is read.
///
/// A sidecar with an error ends the process: QEMU would go on with a disk that is not the one asked
/// for.
#[must_use]
pub fn by_name(path: &CStr) -> Option<&'static Disk> {
    let mut sidecar = path.to_bytes().to_vec();
    sidecar.extend_from_slice(b".zones");
    let sidecar = CString::new(sidecar).ok()?;
    if !kernel::exists(&sidecar) {
        return None;
    }
    let stat = kernel::stat(path, true)?;
    let identity = (stat.st_dev, stat.st_ino);
    find(|known, _| known == identity).or_else(|| {
        let sidecar = OsStr::from_bytes(sidecar.as_bytes());
        match load(sidecar, stat.st_size as u64) {
            Ok(disk) => Some(register(identity, disk)),
            Err(reason) => {
                eprintln!("zoned-file shim: {}: {reason}", sidecar.display());
                std::process::exit(2);
            }
        }
    })
}

fn load(sidecar: &OsStr, size: u64) -> Result<Disk, String> {
    let text = std::fs::read_to_string(sidecar).map_err(|error| error.to_string())?;
    let geometry = Geometry::parse(&text)?;
    let panel = Panel::open(geometry.panel.as_deref(), geometry.panel_slot)?;
    let zones = Mutex::new(Zones::new(&geometry, size));
    Ok(Disk {
        geometry,
        size,
        minor: 0,
        panel,
        zones,
    })
}

fn register(identity: Identity, mut disk: Disk) -> &'static Disk {
    let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = disks.iter().find(|(known, _)| *known == identity) {
        return known;
    }
    disk.minor = disks.len() as u32;
    let disk: &'static Disk = Box::leak(Box::new(disk));
    disks.push((identity, disk));
    disk
}

fn find(is_it: impl Fn(Identity, &Disk) -> bool) -> Option<&'static Disk> {
    let disks = DISKS.read().unwrap_or_else(PoisonError::into_inner);
    disks
        .iter()
        .find(|(identity, disk)| is_it(*identity, disk))
        .map(|(_, disk)| *disk)
}
