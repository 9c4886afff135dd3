//! The panel: a window on what the shim does, and a handle to hold requests back.
//!
//! A file mapped into QEMU, of which each disk has one slot of [`SLOT_BYTES`]. Given to the guest as
//! one more disk, it shows the guest live how many operations reached the file behind each of its
//! other disks, and a write to it stalls them.
//!
//! | sector of the slot | content |
//! |---|---|
//! | 0 | the counters' names, a line each, in the order of their values |
//! | 1 | their values, little-endian u64 |
//! | 2 | controls, little-endian u64: hold (reads and writes wait while it is not 0), delay (µs for each) |

#![expect(unsafe_code, reason = "maps a file that other processes write")]

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Size of one disk's slot.
pub const SLOT_BYTES: usize = 2048;
const WORDS: usize = SLOT_BYTES / size_of::<u64>();
const VALUES: usize = 512 / size_of::<u64>();
const HOLD: usize = 1024 / size_of::<u64>();
const DELAY: usize = HOLD + 1;

/// What is counted; the order is that of the values in the panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Calls that read.
    Reads,
    /// Bytes read.
    ReadBytes,
    /// Calls that wrote.
    Writes,
    /// Bytes written.
    WriteBytes,
    /// Writes refused by the zone they were for.
    RefusedWrites,
    /// Calls that flush.
    Flushes,
    /// Zone reports.
    Reports,
    /// Commands that open zones.
    Opens,
    /// Commands that close zones.
    Closes,
    /// Commands that finish zones.
    Finishes,
    /// Commands that reset zones.
    Resets,
    /// Zone commands refused.
    RefusedCommands,
}

const NAMES: &str = "reads\nread_bytes\nwrites\nwrite_bytes\nrefused_writes\nflushes\nreports\nopens\n\
                     closes\nfinishes\nresets\nrefused_commands\n";

/// One disk's slot.
#[derive(Debug, Clone, Copy)]
pub struct Panel(&'static [AtomicU64; WORDS]);

impl Panel {
    /// Maps slot `slot` of `file`, or memory of our own when there is no file.
    ///
    /// # Errors
    /// Says what cannot be done with the file.
    pub fn open(file: Option<&Path>, slot: usize) -> Result<Self, String> {
        let panel = Self(match file {
            None => Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS])),
            Some(path) => {
                map(path, slot).map_err(|error| format!("panel {}: {error}", path.display()))?
            }
        });
        for (word, bytes) in panel
            .0
            .iter()
            .zip(NAMES.as_bytes().chunks(size_of::<u64>()))
        {
            let mut name = [0; size_of::<u64>()];
            name[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(name).to_le(), Ordering::Relaxed);
        }
        Ok(panel)
    }

    /// Adds `amount` to a counter.
    pub fn count(&self, counter: Counter, amount: u64) {
        self.0[VALUES + counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// Waits for as long as the controls say.
    pub fn wait(&self) {
        while self.0[HOLD].load(Ordering::Acquire) != 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let delay = self.0[DELAY].load(Ordering::Relaxed);
        if delay != 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
    }
}

fn map(path: &Path, slot: usize) -> std::io::Result<&'static [AtomicU64; WORDS]> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let end = (slot + 1) * SLOT_BYTES;
    if file.metadata()?.len() < end as u64 {
        return Err(std::io::Error::other(format!(
            "smaller than the {end} bytes up to this slot's end"
        )));
    }
    // SAFETY: a new shared mapping at an address the kernel chooses aliases nothing.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            end,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the slot lies inside the mapping, whose length was checked against the file's.
    let words = unsafe { base.cast::<u8>().add(slot * SLOT_BYTES) };
    // SAFETY: aligned (pages, and slots of 2 KiB), never unmapped, and touched through atomics only,
    // here and through page-cache writes that the kernel makes on its own side.
    Ok(unsafe { &*words.cast() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_the_counters() {
        assert_eq!(NAMES.lines().count(), Counter::RefusedCommands as usize + 1);
        assert_eq!(NAMES.lines().nth(Counter::Resets as usize), Some("resets"));
        assert!(NAMES.len() <= 512);
    }

    #[test]
    fn slot_beyond_the_file_is_refused() {
        let path = std::env::temp_dir().join(format!("zbd-panel-{}", std::process::id()));
        std::fs::write(&path, vec![0; SLOT_BYTES]).unwrap();
        assert!(Panel::open(Some(&path), 0).is_ok());
        let refused = Panel::open(Some(&path), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(refused.unwrap_err().contains("4096"));
    }
}
