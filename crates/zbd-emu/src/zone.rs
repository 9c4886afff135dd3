//! Zones and the rules by which they change state: a pure state machine, without data.
//!
//! VIRTIO 1.3 §5.2.6 leaves some cases open. Chosen here:
//! - FINISH of an empty or closed zone makes it full, as ZBC, ZNS and Linux have it. It takes no
//!   open or active resource, since the zone never becomes open on the way.
//! - CLOSE of an empty zone is an invalid command: the specification lists no transition, and ZNS
//!   and Linux refuse it. So is CLOSE or OPEN of a full zone.
//! - A write of no data succeeds and changes nothing. An append of no data is an invalid command,
//!   because there would be no location to report.
//! - Where the open limit is reached, the implicitly open zone that has been open for longest is
//!   closed. A write that would fill an empty zone at once needs resources all the same.
//! - Reads between a zone's write pointer and its end, beyond its capacity too, are of zeroes.
//! - A read that touches a sequential-write-required zone must stay inside one zone.
//! - RESET_ALL passes over read-only and offline zones; RESET of one is an invalid command.
//! - A host-aware zone takes writes anywhere, also when it is full; its write pointer moves to the
//!   end of what was written if that lies further on.

mod erase;
mod read;
#[cfg(test)]
mod tests;

/// What a zone accepts (VIRTIO 1.3 §5.2.6, `z_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZoneKind {
    Conventional = 1,
    SequentialRequired = 2,
    SequentialPreferred = 3,
}

/// The state of a zone (VIRTIO 1.3 §5.2.6, `z_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// A conventional zone, which has no write pointer.
    NotWritePointer = 0,
    /// Nothing is written.
    Empty = 1,
    /// Opened by a write.
    ImplicitlyOpen = 2,
    /// Opened by an open command.
    ExplicitlyOpen = 3,
    /// Partly written, holding no open resource.
    Closed = 4,
    /// Failed: can be read only.
    ReadOnly = 13,
    /// Written to its capacity, or finished.
    Full = 14,
    /// Failed: cannot be used at all.
    Offline = 15,
}

/// Why a request was refused; each is a status byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A read or write runs beyond the device.
    OutOfRange,
    InvalidCommand,
    UnalignedWritePointer,
    OpenResource,
    ActiveResource,
}

/// A command that changes one zone's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Open,
    Close,
    Finish,
    Reset,
}

/// The shape of the device, in sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) sectors: u64,
    pub(crate) zone_sectors: u64,
    pub(crate) capacity_sectors: u64,
    pub(crate) conventional_zones: u32,
    /// What the other zones are.
    pub(crate) sequential: ZoneKind,
    pub(crate) block_sectors: u64,
    /// 0 for no limit.
    pub(crate) max_open: u32,
    /// 0 for no limit.
    pub(crate) max_active: u32,
}

impl Geometry {
    /// Whether the driver is to know of zones: a device without has them to itself.
    pub(crate) fn is_zoned(&self) -> bool {
        self.sequential != ZoneKind::Conventional
    }
}

/// One zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) start: u64,
    /// The first sector after the zone.
    pub(crate) end: u64,
    /// The first sector that cannot be written.
    pub(crate) writable_end: u64,
    /// The end of what was written. It stays where it was when a zone is finished or fails, and is
    /// the end of the zone in conventional ones.
    pub(crate) written_end: u64,
    pub(crate) kind: ZoneKind,
    pub(crate) state: ZoneState,
    /// How often the zone was emptied: what was written before is of another life.
    pub(crate) resets: u32,
}

impl Zone {
    fn empty(&mut self) {
        self.written_end = self.start;
        self.resets = self.resets.wrapping_add(1);
    }

    fn is_open(&self) -> bool {
        matches!(
            self.state,
            ZoneState::ImplicitlyOpen | ZoneState::ExplicitlyOpen
        )
    }

    fn is_active(&self) -> bool {
        self.is_open() || self.state == ZoneState::Closed
    }

    fn is_failed(&self) -> bool {
        matches!(self.state, ZoneState::ReadOnly | ZoneState::Offline)
    }
}

/// A write that the rules allow, to be committed once its data are in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    zone: usize,
    /// Where the data go.
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
}

/// All zones of a device.
#[derive(Clone, Debug)]
pub(crate) struct ZoneTable {
    zones: Vec<Zone>,
    geometry: Geometry,
    /// log2 of the zone size where it is a power of two: a shift instead of a division.
    shift: Option<u32>,
    open: u32,
    active: u32,
    /// The implicitly open zones, the one opened first in front. Empty where there is no limit.
    implicit: Vec<usize>,
}

impl ZoneTable {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let mut zones = Vec::new();
        let mut start = 0;
        while start < geometry.sectors {
            let end = (start + geometry.zone_sectors).min(geometry.sectors);
            let kind = if (zones.len() as u64) < u64::from(geometry.conventional_zones) {
                ZoneKind::Conventional
            } else {
                geometry.sequential
            };
            zones.push(match kind {
                ZoneKind::Conventional => Zone {
                    start,
                    end,
                    writable_end: end,
                    written_end: end,
                    kind,
                    state: ZoneState::NotWritePointer,
                    resets: 0,
                },
                ZoneKind::SequentialRequired | ZoneKind::SequentialPreferred => Zone {
                    start,
                    end,
                    writable_end: (start + geometry.capacity_sectors).min(end),
                    written_end: start,
                    kind,
                    state: ZoneState::Empty,
                    resets: 0,
                },
            });
            start = end;
        }
        let limited = geometry.max_open as usize;
        Self {
            implicit: Vec::with_capacity(limited.min(zones.len())),
            zones,
            shift: geometry
                .zone_sectors
                .is_power_of_two()
                .then(|| geometry.zone_sectors.trailing_zeros()),
            geometry,
            open: 0,
            active: 0,
        }
    }

    pub(crate) fn zones(&self) -> &[Zone] {
        &self.zones
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The index of the zone that holds `sector`.
    #[inline]
    pub(crate) fn index_of(&self, sector: u64) -> Option<usize> {
        let index = match self.shift {
            Some(shift) => sector >> shift,
            None => sector / self.geometry.zone_sectors,
        };
        (sector < self.geometry.sectors).then_some(index as usize)
    }

    /// Whether and where `sectors` may be appended to the zone that begins at `sector`.
    #[inline]
    pub(crate) fn check_append(&self, sector: u64, sectors: u64) -> Result<Write, Refusal> {
        let index = self.index_of(sector).ok_or(Refusal::InvalidCommand)?;
        let zone = &self.zones[index];
        if zone.kind != ZoneKind::SequentialRequired || zone.start != sector || sectors == 0 {
            return Err(Refusal::InvalidCommand);
        }
        self.check_sequential(index, zone.written_end, sectors)
    }

    /// Whether `sectors` may be written from `sector` on.
    #[inline]
    pub(crate) fn check_write(&self, sector: u64, sectors: u64) -> Result<Write, Refusal> {
        let end = self.end_of(sector, sectors)?;
        let index = self.index_of(sector).unwrap_or_default();
        let write = Write {
            zone: index,
            sector,
            sectors,
        };
        if sectors == 0 {
            return Ok(write);
        }
        let zone = &self.zones[index];
        if zone.kind == ZoneKind::SequentialRequired {
            if end > zone.end {
                return Err(Refusal::InvalidCommand);
            }
            return self.check_sequential(index, sector, sectors);
        }
        // The range may run through several zones that take writes anywhere.
        for zone in self.touched(index, end) {
            if zone.kind == ZoneKind::SequentialRequired || zone.is_failed() {
                return Err(Refusal::InvalidCommand);
            }
        }
        Ok(write)
    }

    #[inline]
    fn check_sequential(&self, index: usize, sector: u64, sectors: u64) -> Result<Write, Refusal> {
        let zone = &self.zones[index];
        if matches!(
            zone.state,
            ZoneState::ReadOnly | ZoneState::Offline | ZoneState::Full
        ) {
            return Err(Refusal::InvalidCommand);
        }
        // block_sectors is a power of two.
        if sector != zone.written_end
            || sector.wrapping_add(sectors) & (self.geometry.block_sectors - 1) != 0
        {
            return Err(Refusal::UnalignedWritePointer);
        }
        if sectors > zone.writable_end - sector {
            return Err(Refusal::InvalidCommand);
        }
        if !zone.is_open() {
            self.check_resources(zone)?;
        }
        Ok(Write {
            zone: index,
            sector,
            sectors,
        })
    }

    /// Whether `zone`, which is empty or closed, may be opened.
    fn check_resources(&self, zone: &Zone) -> Result<(), Refusal> {
        let limit = &self.geometry;
        // Where both limits are exceeded, the active one is reported.
        if limit.max_active != 0 && !zone.is_active() && self.active >= limit.max_active {
            return Err(Refusal::ActiveResource);
        }
        if limit.max_open != 0 && self.open >= limit.max_open && self.implicit.is_empty() {
            return Err(Refusal::OpenResource);
        }
        Ok(())
    }

    /// Carries out a write that was checked and whose data are in place.
    #[inline]
    pub(crate) fn commit(&mut self, write: Write) {
        if write.sectors == 0 {
            return;
        }
        let end = write.sector + write.sectors;
        let mut index = write.zone;
        loop {
            let zone = &mut self.zones[index];
            let zone_end = zone.end;
            if zone.kind != ZoneKind::Conventional {
                zone.written_end = zone.written_end.max(end.min(zone_end));
                let full = zone.written_end == zone.writable_end;
                if !zone.is_open() && zone.state != ZoneState::Full {
                    self.enter(index, ZoneState::ImplicitlyOpen);
                }
                if full {
                    self.enter(index, ZoneState::Full);
                }
            }
            if end <= zone_end {
                return;
            }
            index += 1;
        }
    }

    /// Carries out a command on the zone that begins at `sector`.
    pub(crate) fn command(&mut self, command: Command, sector: u64) -> Result<(), Refusal> {
        use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};

        let index = self.index_of(sector).ok_or(Refusal::InvalidCommand)?;
        let zone = &self.zones[index];
        if zone.start != sector {
            return Err(Refusal::InvalidCommand);
        }
        let state = match (command, zone.state) {
            (Command::Open, Empty | Closed) => {
                self.check_resources(zone)?;
                ExplicitlyOpen
            }
            (Command::Open, ImplicitlyOpen | ExplicitlyOpen) => ExplicitlyOpen,
            (Command::Close, ImplicitlyOpen | ExplicitlyOpen) if zone.written_end == zone.start => {
                Empty
            }
            (Command::Close, ImplicitlyOpen | ExplicitlyOpen | Closed) => Closed,
            (Command::Finish, Empty | ImplicitlyOpen | ExplicitlyOpen | Closed | Full) => Full,
            (Command::Reset, Empty | ImplicitlyOpen | ExplicitlyOpen | Closed | Full) => Empty,
            _ => return Err(Refusal::InvalidCommand),
        };
        if state == Empty {
            self.zones[index].empty();
        }
        self.enter(index, state);
        Ok(())
    }

    /// Empties every zone that can be emptied.
    pub(crate) fn reset_all(&mut self) {
        self.reset(0..self.zones.len());
    }

    /// Makes a zone fail, as a worn medium does. False where there is no such sequential zone or
    /// the state is not one of failure.
    pub(crate) fn fail(&mut self, index: usize, state: ZoneState) -> bool {
        let Some(zone) = self.zones.get(index) else {
            return false;
        };
        let allowed = zone.kind != ZoneKind::Conventional
            && matches!(state, ZoneState::ReadOnly | ZoneState::Offline)
            && zone.state != ZoneState::Offline;
        if allowed {
            self.enter(index, state);
        }
        allowed
    }

    /// Makes an empty zone what it was when the device was last used: `written` sectors of it are,
    /// and it is not open.
    pub(crate) fn restore(&mut self, index: usize, written: u64, state: ZoneState) {
        let zone = &mut self.zones[index];
        zone.written_end = zone.start + written;
        self.enter(index, state);
    }

    /// Changes a zone's state and with it what counts as open and active.
    fn enter(&mut self, index: usize, state: ZoneState) {
        let limited = self.geometry.max_open != 0;
        let zone = &mut self.zones[index];
        let old = zone.state;
        if old == state {
            return;
        }
        let (was_open, was_active) = (zone.is_open(), zone.is_active());
        zone.state = state;
        let (is_open, is_active) = (zone.is_open(), zone.is_active());
        if limited && old == ZoneState::ImplicitlyOpen {
            self.implicit.retain(|other| *other != index);
        }
        // Room is made before the zone takes its place; the check made sure that there is some.
        if is_open && !was_open {
            if limited && self.open >= self.geometry.max_open && !self.implicit.is_empty() {
                let oldest = self.implicit[0];
                self.enter(oldest, ZoneState::Closed);
            }
            self.open += 1;
        }
        if was_open && !is_open {
            self.open -= 1;
        }
        if is_active && !was_active {
            self.active += 1;
        }
        if was_active && !is_active {
            self.active -= 1;
        }
        if limited && state == ZoneState::ImplicitlyOpen {
            self.implicit.push(index);
        }
    }
}
