//! Who has claimed an isolation group.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use rustix::io::Errno;

use super::{IommuGroup, Sysfs, attribute, names};

impl Sysfs {
    /// Whether a process has the group open. Only the kernel knows, and tells by refusing another.
    pub(crate) fn is_group_held(&self, group: &IommuGroup) -> bool {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.group_file(group));
        opened.is_err_and(|e| is_busy(&e))
    }

    /// The process that has the group open, in words, as far as the caller may see it.
    pub(crate) fn group_holder(&self, group: &IommuGroup) -> String {
        let holder = self.known_holder(group);
        holder.unwrap_or_else(|| "another process".to_owned())
    }

    /// The process that has the group open, in words, if the caller may see it.
    pub(crate) fn known_holder(&self, group: &IommuGroup) -> Option<String> {
        let file = self.group_file(group);
        let proc = self.path("proc");
        let holder = names(&proc)
            .into_iter()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
            .find(|pid| has_open(&proc.join(pid).join("fd"), &file))?;
        if holder == std::process::id().to_string() {
            return Some("this process".to_owned());
        }
        let name = attribute(&proc.join(&holder).join("comm")).unwrap_or_default();
        Some(format!("process {holder} ({name})"))
    }
}

fn has_open(descriptors: &Path, file: &Path) -> bool {
    names(descriptors)
        .iter()
        .any(|fd| fs::read_link(descriptors.join(fd)).is_ok_and(|target| target == file))
}

/// Whether the kernel refused because someone else has the file.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BUSY)
}
