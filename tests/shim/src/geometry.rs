//! The sidecar `FILE.zones`: what the zones of `FILE` are like.
//!
//! One `key=value` a line, sizes in bytes; `#` starts a comment. Only `zone-size` has to be there.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `zone-size` | size of a zone; the last one may be shorter | |
//! | `zone-capacity` | what can be written of it | `zone-size` |
//! | `conventional` | how many zones at the start are conventional | 0 |
//! | `max-open`, `max-active` | limits, 0 for none | 0 |
//! | `max-append` | largest append | 524288 |
//! | `logical-block`, `physical-block` | block sizes | 512 |
//! | `read-only`, `offline` | zone numbers, separated by commas | none |
//! | `panel`, `panel-slot` | file and slot of the [panel](crate::panel) | no panel, 0 |

use std::path::PathBuf;

/// A parsed sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Size of a zone in bytes.
    pub zone_size: u64,
    /// Writable bytes of a zone.
    pub zone_capacity: u64,
    /// Number of conventional zones at the start.
    pub conventional: usize,
    /// Most zones open at once; 0 for no limit.
    pub max_open: usize,
    /// Most zones open or closed at once; 0 for no limit.
    pub max_active: usize,
    /// Largest append in bytes.
    pub max_append: u64,
    /// Logical block size in bytes.
    pub logical_block: u64,
    /// Physical block size in bytes.
    pub physical_block: u64,
    /// Zones that can only be read.
    pub read_only: Vec<usize>,
    /// Zones that can be neither read nor written.
    pub offline: Vec<usize>,
    /// File that shows the counters and takes the controls.
    pub panel: Option<PathBuf>,
    /// This disk's slot in the panel.
    pub panel_slot: usize,
}

impl Geometry {
    /// Reads a sidecar's text.
    ///
    /// # Errors
    /// Names the line that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut it = Self {
            zone_size: 0,
            zone_capacity: 0,
            conventional: 0,
            max_open: 0,
            max_active: 0,
            max_append: 512 << 10,
            logical_block: 512,
            physical_block: 512,
            read_only: Vec::new(),
            offline: Vec::new(),
            panel: None,
            panel_slot: 0,
        };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                it.set(line)
                    .ok_or_else(|| format!("not understood: `{line}`"))?;
            }
        }
        if it.zone_capacity == 0 {
            it.zone_capacity = it.zone_size;
        }
        if it.zone_size == 0 || it.zone_capacity > it.zone_size {
            return Err("zone-size must be given and not be below zone-capacity".into());
        }
        Ok(it)
    }

    fn set(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let number = || value.parse::<u64>().ok();
        let count = || value.parse::<usize>().ok();
        let list = || {
            value
                .split(',')
                .map(|n| n.trim().parse().ok())
                .collect::<Option<Vec<usize>>>()
        };
        match key {
            "zone-size" => self.zone_size = number()?,
            "zone-capacity" => self.zone_capacity = number()?,
            "conventional" => self.conventional = count()?,
            "max-open" => self.max_open = count()?,
            "max-active" => self.max_active = count()?,
            "max-append" => self.max_append = number()?,
            "logical-block" => self.logical_block = number()?,
            "physical-block" => self.physical_block = number()?,
            "read-only" => self.read_only = list()?,
            "offline" => self.offline = list()?,
            "panel" => self.panel = Some(value.into()),
            "panel-slot" => self.panel_slot = count()?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecar_is_read_with_defaults_and_comments() {
        let it = Geometry::parse("# a disk\nzone-size=4096 # bytes\nread-only = 1, 2\n").unwrap();
        assert_eq!(
            (it.zone_size, it.zone_capacity, it.logical_block),
            (4096, 4096, 512)
        );
        assert_eq!(it.read_only, [1, 2]);
    }

    #[test]
    fn sidecar_with_an_unknown_key_is_refused_by_name() {
        let refused = Geometry::parse("zone-size=4096\nzone-cap=1").unwrap_err();
        assert!(refused.contains("zone-cap"), "{refused}");
    }
}
