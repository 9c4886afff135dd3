//! What should be on the device, as far as it was told to us.

use zbd_core::{Sector, Zone, ZoneId, ZoneState};

use super::record::Stamp;

/// A record that the device acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where the device said it lies.
    pub(super) sector: u64,
    pub(super) round: u32,
    pub(super) sequence: u32,
    pub(super) task: u32,
    pub(super) sectors: u32,
}

impl Record {
    pub(super) fn end(&self) -> u64 {
        self.sector + u64::from(self.sectors)
    }
}

/// What state a zone is in after what was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Empty,
    /// Written to. The device may close it when it likes.
    Written,
    /// Opened explicitly; nothing closes it but a command.
    Explicit,
    /// Closed by command.
    Closed,
    Full,
}

impl Condition {
    pub(super) fn is_active(self) -> bool {
        matches!(self, Self::Written | Self::Explicit | Self::Closed)
    }

    /// Whether a zone of this condition can be reported in `state`.
    pub(super) fn allows(self, state: ZoneState) -> bool {
        match self {
            Self::Empty => state == ZoneState::Empty,
            Self::Written => matches!(state, ZoneState::ImplicitlyOpen | ZoneState::Closed),
            Self::Explicit => state == ZoneState::ExplicitlyOpen,
            Self::Closed => state == ZoneState::Closed,
            Self::Full => state == ZoneState::Full,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Written => "imp-open or closed",
            Self::Explicit => "exp-open",
            Self::Closed => "closed",
            Self::Full => "full",
        }
    }
}

/// What should be in a zone.
#[derive(Clone, Debug)]
pub(super) struct ZoneLedger {
    pub(super) id: ZoneId,
    pub(super) start: u64,
    /// How many sectors can be written.
    pub(super) capacity: u64,
    pub(super) records: Vec<Record>,
    /// How many sectors were acknowledged since the zone was empty.
    pub(super) written: u64,
    /// How many were asked to be written, those included.
    pub(super) claimed: u64,
    pub(super) condition: Condition,
    /// The number of the next record.
    pub(super) sequence: u32,
    /// Whether a request failed: what it left behind is not known.
    pub(super) doubtful: bool,
}

impl ZoneLedger {
    /// A zone that is empty.
    pub(super) fn new(zone: &Zone) -> Self {
        Self {
            id: zone.id,
            start: zone.start.0,
            capacity: zone.capacity.0,
            records: Vec::new(),
            written: 0,
            claimed: 0,
            condition: Condition::Empty,
            sequence: 0,
            doubtful: false,
        }
    }

    pub(super) fn write_pointer(&self) -> Sector {
        Sector(self.start + self.written)
    }

    /// Takes note of a record that was acknowledged.
    pub(super) fn add(&mut self, record: Record) {
        self.written += u64::from(record.sectors);
        self.records.push(record);
        if self.written >= self.capacity {
            self.condition = Condition::Full;
        } else if self.condition != Condition::Explicit {
            self.condition = Condition::Written;
        }
    }

    pub(super) fn reset(&mut self) {
        self.records.clear();
        self.written = 0;
        self.claimed = 0;
        self.condition = Condition::Empty;
    }

    /// Takes note of what the zone has become by the device's being closed and opened again, which
    /// may close zones; false if it cannot have become that.
    pub(super) fn reopened(&mut self, state: ZoneState) -> bool {
        let was_open = matches!(self.condition, Condition::Written | Condition::Explicit);
        match state {
            ZoneState::Empty if was_open && self.written == 0 => {
                self.condition = Condition::Empty;
            }
            ZoneState::Closed | ZoneState::ImplicitlyOpen if was_open => {
                self.condition = Condition::Written;
            }
            ZoneState::ExplicitlyOpen if self.condition == Condition::Explicit => {}
            state => return self.condition.allows(state),
        }
        true
    }

    /// A sector of a record of this zone.
    pub(super) fn stamp(&self, seed: u64, record: &Record, index: u32) -> Stamp {
        Stamp {
            seed,
            round: record.round,
            zone: self.id.0,
            sequence: record.sequence,
            task: record.task,
            index,
            sectors: record.sectors,
        }
    }
}
