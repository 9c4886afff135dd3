//! The block devices that the kernel's driver made of a function.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

use super::{PciAddress, Sysfs, attribute, names};

/// A block device of the kernel's virtio-blk driver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// Its name, such as `vda`.
    pub name: String,
    /// Its zone model in the kernel's words: `none`, `host-aware` or `host-managed`.
    pub zoned: Option<String>,
    /// What uses it, if anything, as far as that can be seen.
    pub in_use: Option<String>,
}

impl Sysfs {
    /// The disks of the function at `address`.
    pub(crate) fn disks(&self, address: PciAddress) -> Vec<Disk> {
        let function = self.function_dir(address);
        let virtio = names(&function)
            .into_iter()
            .filter(|n| n.starts_with("virtio"));
        virtio
            .flat_map(|name| {
                let block = function.join(name).join("block");
                names(&block)
                    .into_iter()
                    .map(move |disk| (block.join(&disk), disk))
            })
            .map(|(dir, name)| Disk {
                zoned: attribute(&dir.join("queue/zoned")),
                in_use: self.disk_use(&dir, &name),
                name,
            })
            .collect()
    }

    /// What uses the disk or one of its partitions.
    fn disk_use(&self, dir: &Path, disk: &str) -> Option<String> {
        let partitions = names(dir).into_iter().filter(|n| n.starts_with(disk));
        let mut parts = vec![(disk.to_owned(), dir.to_owned())];
        parts.extend(partitions.map(|name| (name.clone(), dir.join(name))));
        parts.iter().find_map(|(name, dir)| {
            let number = attribute(&dir.join("dev")).unwrap_or_default();
            self.mount_of(name, &number)
                .map(|point| format!("{name} is mounted on {point}"))
                .or_else(|| self.is_swap(name).then(|| format!("{name} is swap space")))
                .or_else(|| {
                    let holder = names(&dir.join("holders")).into_iter().next()?;
                    Some(format!("{name} is part of {holder}"))
                })
        })
    }

    /// Where the block device is mounted.
    fn mount_of(&self, name: &str, number: &str) -> Option<String> {
        let table = fs::read_to_string(self.path("proc/self/mountinfo")).ok()?;
        table.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let device = fields.nth(2)?;
            let point = fields.nth(1)?;
            // Some file systems (btrfs) have numbers of their own and only their source tells.
            let source = line.split_once(" - ")?.1.split(' ').nth(1)?;
            (device == number || source.strip_prefix("/dev/") == Some(name))
                .then(|| point.to_owned())
        })
    }

    fn is_swap(&self, name: &str) -> bool {
        let table = fs::read_to_string(self.path("proc/swaps")).unwrap_or_default();
        table
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}")))
    }

    /// Asks the kernel whether anyone has claimed the disk: an exclusive open finds what no table
    /// lists, but may get in the way of others, so only someone about to take the disk should ask.
    pub(super) fn is_claimed(&self, disk: &str) -> bool {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::EXCL.bits() as i32)
            .open(self.path(&format!("dev/{disk}")));
        opened.is_err_and(|e| Errno::from_io_error(&e) == Some(Errno::BUSY))
    }
}
