//! Zones as a device reports them (VIRTIO 1.3, 5.2.6).

use std::fmt;

use crate::wire::{REPORT_ENTRY, number};

pub(crate) const CONVENTIONAL: u8 = 1;
pub(crate) const SWR: u8 = 2;
pub(crate) const SWP: u8 = 3;

/// `z_state`, whatever number that is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u8);

impl State {
    pub(crate) const NOT_WP: Self = Self(0);
    pub(crate) const EMPTY: Self = Self(1);
    pub(crate) const IOPEN: Self = Self(2);
    pub(crate) const EOPEN: Self = Self(3);
    pub(crate) const CLOSED: Self = Self(4);
    pub(crate) const READ_ONLY: Self = Self(13);
    pub(crate) const FULL: Self = Self(14);
    pub(crate) const OFFLINE: Self = Self(15);

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NOT_WP => "NOT_WP",
            Self::EMPTY => "EMPTY",
            Self::IOPEN => "IOPEN",
            Self::EOPEN => "EOPEN",
            Self::CLOSED => "CLOSED",
            Self::READ_ONLY => "RDONLY",
            Self::FULL => "FULL",
            Self::OFFLINE => "OFFLINE",
            _ => "undefined",
        }
    }

    /// Whether `z_wp` means something.
    pub(crate) fn has_pointer(self) -> bool {
        [Self::EMPTY, Self::IOPEN, Self::EOPEN, Self::CLOSED].contains(&self)
    }

    pub(crate) fn is_open(self) -> bool {
        self == Self::IOPEN || self == Self::EOPEN
    }

    pub(crate) fn has_failed(self) -> bool {
        self == Self::READ_ONLY || self == Self::OFFLINE
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `struct virtio_blk_zone_descriptor`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone {
    pub(crate) capacity: u64,
    pub(crate) start: u64,
    pub(crate) pointer: u64,
    pub(crate) kind: u8,
    pub(crate) state: State,
}

impl Zone {
    pub(crate) fn is_sequential(&self) -> bool {
        self.kind == SWR || self.kind == SWP
    }

    /// Whether it can be emptied and written.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_sequential() && !self.state.has_failed() && self.capacity > 0
    }
}

/// What a report holds: what its header says, and the descriptors that it has room for.
pub(crate) struct Report {
    pub(crate) count: u64,
    pub(crate) zones: Vec<Zone>,
}

impl Report {
    /// Reads a report; descriptors that the header counts and that the buffer has no room for are
    /// missing.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let count = number(bytes, 0, 8);
        let zones = bytes
            .chunks_exact(REPORT_ENTRY)
            .skip(1)
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|bytes| Zone {
                capacity: number(bytes, 0, 8),
                start: number(bytes, 8, 8),
                pointer: number(bytes, 16, 8),
                kind: bytes[24],
                state: State(bytes[25]),
            })
            .collect();
        Self { count, zones }
    }
}
