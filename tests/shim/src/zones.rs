//! The zone state machine: which writes and zone commands are allowed, and what they change.
//!
//! Errors are the `errno` values that Linux's block layer gives for the same offence.

use crate::geometry::Geometry;

/// State of a zone; the numbers are those of `enum blk_zone_cond`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Has no write pointer.
    Conventional = 0,
    /// Nothing written.
    Empty = 1,
    /// Opened by a write.
    ImplicitlyOpen = 2,
    /// Opened by command.
    ExplicitlyOpen = 3,
    /// Written in part and not open.
    Closed = 4,
    /// Can only be read.
    ReadOnly = 13,
    /// Nothing more fits, or finished.
    Full = 14,
    /// Can be neither read nor written.
    Offline = 15,
}

/// A zone command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Open explicitly.
    Open,
    /// Close.
    Close,
    /// Make full.
    Finish,
    /// Make empty.
    Reset,
}

/// One zone; everything in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Zone {
    /// Where it starts.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// What can be written of it.
    pub capacity: u64,
    /// Where the next write must go.
    pub pointer: u64,
    /// Its state.
    pub state: State,
}

/// All zones of a disk.
#[derive(Debug)]
pub struct Zones {
    zones: Vec<Zone>,
    zone_size: u64,
    max_open: usize,
    max_active: usize,
}

impl Zones {
    /// The zones of a fresh disk of `disk_size` bytes.
    #[must_use]
    pub fn new(geometry: &Geometry, disk_size: u64) -> Self {
        let zones = (0..disk_size.div_ceil(geometry.zone_size))
            .map(|n| {
                let start = n * geometry.zone_size;
                let size = geometry.zone_size.min(disk_size - start);
                let index = n as usize;
                let (state, capacity) = if index < geometry.conventional {
                    (State::Conventional, size)
                } else if geometry.read_only.contains(&index) {
                    (State::ReadOnly, geometry.zone_capacity.min(size))
                } else if geometry.offline.contains(&index) {
                    (State::Offline, geometry.zone_capacity.min(size))
                } else {
                    (State::Empty, geometry.zone_capacity.min(size))
                };
                Zone {
                    start,
                    size,
                    capacity,
                    pointer: start,
                    state,
                }
            })
            .collect();
        Self {
            zones,
            zone_size: geometry.zone_size,
            max_open: geometry.max_open,
            max_active: geometry.max_active,
        }
    }

    /// The zones from the one that contains `offset`.
    #[must_use]
    pub fn from(&self, offset: u64) -> &[Zone] {
        let first = usize::try_from(offset / self.zone_size).unwrap_or(usize::MAX);
        self.zones.get(first..).unwrap_or_default()
    }

    /// Number of zones.
    #[must_use]
    pub fn count(&self) -> usize {
        self.zones.len()
    }

    /// May `len` bytes be read at `offset`?
    ///
    /// # Errors
    /// `EIO` where a zone is offline.
    pub fn check_read(&self, offset: u64, len: u64) -> Result<(), i32> {
        let touched = self
            .from(offset)
            .iter()
            .take_while(|zone| zone.start < offset + len);
        if touched.into_iter().any(|zone| zone.state == State::Offline) {
            Err(libc::EIO)
        } else {
            Ok(())
        }
    }

    /// Allows a write of `len` bytes at `offset`, opening the zone if need be; [`Self::written`] must
    /// follow.
    ///
    /// # Errors
    /// `EIO` for a write elsewhere than at the write pointer, past the capacity or across a border,
    /// `ETOOMANYREFS` and `EOVERFLOW` for the limits of open and active zones.
    pub fn begin_write(&mut self, offset: u64, len: u64) -> Result<(), i32> {
        let index = self.index(offset)?;
        let zone = self.zones[index];
        if zone.state == State::Conventional {
            return if offset + len <= zone.start + zone.size {
                Ok(())
            } else {
                Err(libc::EIO)
            };
        }
        let writable = !matches!(zone.state, State::Full | State::ReadOnly | State::Offline);
        if !writable || offset != zone.pointer || offset + len > zone.start + zone.capacity {
            return Err(libc::EIO);
        }
        if matches!(zone.state, State::Empty | State::Closed) {
            self.make_room(index)?;
            self.zones[index].state = State::ImplicitlyOpen;
        }
        Ok(())
    }

    /// Moves the write pointer past what was written at `offset`.
    pub fn written(&mut self, offset: u64, len: u64) {
        let Ok(index) = self.index(offset) else {
            return;
        };
        let zone = &mut self.zones[index];
        if zone.state != State::Conventional {
            zone.pointer = offset + len;
            if zone.pointer == zone.start + zone.capacity {
                zone.state = State::Full;
            }
        }
    }

    /// Carries out `command` on the zones of a range of bytes.
    ///
    /// # Errors
    /// `EINVAL` for a range that does not consist of whole zones, `EIO` for a zone that cannot take
    /// the command, and the limits as in [`Self::begin_write`].
    pub fn command(&mut self, command: Command, offset: u64, len: u64) -> Result<(), i32> {
        let disk_size = self.zones.last().map_or(0, |last| last.start + last.size);
        let end = offset.checked_add(len).ok_or(libc::EINVAL)?;
        let whole = |at: u64| at.is_multiple_of(self.zone_size) || at == disk_size;
        if len == 0 || end > disk_size || !whole(offset) || !whole(end) {
            return Err(libc::EINVAL);
        }
        let all = offset == 0 && end == disk_size;
        let (first, last) = (self.index(offset)?, self.index(end - 1)?);
        for index in first..=last {
            let skipped = matches!(
                self.zones[index].state,
                State::Conventional | State::ReadOnly | State::Offline
            );
            if !(all && command == Command::Reset && skipped) {
                self.command_one(command, index)?;
            }
        }
        Ok(())
    }

    fn command_one(&mut self, command: Command, index: usize) -> Result<(), i32> {
        use State::{
            Closed, Conventional, Empty, ExplicitlyOpen, Full, ImplicitlyOpen, Offline, ReadOnly,
        };
        let zone = self.zones[index];
        let becomes = match (command, zone.state) {
            (_, Conventional | ReadOnly | Offline) => return Err(libc::EIO),
            (Command::Open, Full) | (Command::Close, Empty | Full) => return Err(libc::EIO),
            (Command::Open, Empty | Closed) => {
                self.make_room(index)?;
                ExplicitlyOpen
            }
            (Command::Open, ImplicitlyOpen | ExplicitlyOpen) => ExplicitlyOpen,
            (Command::Close, Closed) => Closed,
            (Command::Close, ImplicitlyOpen | ExplicitlyOpen) if zone.pointer == zone.start => {
                Empty
            }
            (Command::Close, ImplicitlyOpen | ExplicitlyOpen) => Closed,
            (Command::Finish, Empty | Closed) => {
                self.make_room(index)?;
                Full
            }
            (Command::Finish, ImplicitlyOpen | ExplicitlyOpen | Full) => Full,
            (Command::Reset, _) => Empty,
        };
        let zone = &mut self.zones[index];
        zone.state = becomes;
        match becomes {
            Full => zone.pointer = zone.start + zone.size,
            Empty => zone.pointer = zone.start,
            _ => {}
        }
        Ok(())
    }

    /// Sees to it that the zone at `index` may become open, closing an implicitly open one if that
    /// is what it takes.
    fn make_room(&mut self, index: usize) -> Result<(), i32> {
        let is_open =
            |zone: &Zone| matches!(zone.state, State::ImplicitlyOpen | State::ExplicitlyOpen);
        let is_active = |zone: &Zone| is_open(zone) || zone.state == State::Closed;
        let count =
            |holds: &dyn Fn(&Zone) -> bool| self.zones.iter().filter(|zone| holds(zone)).count();
        let was_active = is_active(&self.zones[index]);
        if self.max_active != 0 && !was_active && count(&is_active) >= self.max_active {
            return Err(libc::EOVERFLOW);
        }
        if self.max_open != 0 && count(&is_open) >= self.max_open {
            let victim = self
                .zones
                .iter_mut()
                .find(|zone| zone.state == State::ImplicitlyOpen);
            victim.ok_or(libc::ETOOMANYREFS)?.state = State::Closed;
        }
        Ok(())
    }

    fn index(&self, offset: u64) -> Result<usize, i32> {
        let index = usize::try_from(offset / self.zone_size).map_err(|_| libc::EINVAL)?;
        if index < self.zones.len() {
            Ok(index)
        } else {
            Err(libc::EIO)
        }
    }
}

#[cfg(test)]
mod tests;
