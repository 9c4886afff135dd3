//! The kernel's log, to print what it said during a scenario that failed.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;

/// A place in the log.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Opens it at its beginning.
    ///
    /// # Errors
    /// If the kernel has none.
    pub fn open() -> Result<Self> {
        let flags = OFlags::NONBLOCK.bits() as i32;
        let log = File::options()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        Ok(Self(log))
    }

    /// Goes to its end.
    pub fn skip(&mut self) {
        while self.next().is_some() {}
    }

    /// Prints it up to its end.
    pub fn print(&mut self) {
        while let Some(message) = self.next() {
            println!("{message}");
        }
    }

    /// The next message. A read returns one, `priority,number,time,flags;text`.
    fn next(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        // Messages overwritten before they were read make one read fail, with the rest to follow.
        let len = match self.0.read(&mut record) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => 0,
            other => other.ok()?,
        };
        let record = String::from_utf8_lossy(&record[..len]);
        Some(
            record
                .split_once(';')
                .map_or("", |(_, text)| text)
                .trim_end()
                .to_owned(),
        )
    }
}
