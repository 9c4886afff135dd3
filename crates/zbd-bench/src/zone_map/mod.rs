//! The zones of a disk as a picture.
//!
//! A picture has a cell for each zone or, where there are more zones than cells, for each run of
//! as many zones. A cell's fill is that of its zones together. Of several zones a cell shows the
//! state that matters most to those who look for trouble, which each picture says.

mod svg;
mod text;

pub(crate) use svg::svg;
pub(crate) use text::{Look, text};

use zbd_core::{DeviceInfo, SectorCount, Zone, ZoneState, ZoneType};

use crate::report::figures::{self, count, plural};

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Map<'a> {
    pub(crate) info: &'a DeviceInfo,
    pub(crate) zones: &'a [Zone],
}

/// The states, the most important first, each with its letter and its name.
const STATES: [(ZoneState, char, &str); 8] = [
    (ZoneState::Offline, 'x', "offline"),
    (ZoneState::ReadOnly, 'r', "read-only"),
    (ZoneState::ExplicitlyOpen, 'O', "explicitly open"),
    (ZoneState::ImplicitlyOpen, 'o', "implicitly open"),
    (ZoneState::Closed, 'c', "closed"),
    (ZoneState::Full, 'f', "full"),
    (ZoneState::Empty, ' ', "empty"),
    (ZoneState::NotWritePointer, '=', "conventional"),
];

/// One zone, or some that stand side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    state: ZoneState,
    fill: Fill,
}

/// How much of a cell's zones is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// They can be written anywhere, so nobody knows.
    Anywhere,
    /// The device does not say.
    Unknown,
    Nothing,
    /// More than nothing and less than everything.
    Part(f64),
    All,
}

impl Cell {
    fn new(zones: &[Zone]) -> Self {
        let rank = |state| STATES.iter().position(|(known, ..)| *known == state);
        let state = zones.iter().map(|zone| zone.state).min_by_key(|s| rank(*s));
        let (mut written, mut capacity, mut anywhere) = (0, 0, false);
        for zone in zones {
            if let Some(sectors) = zone.written() {
                written += sectors.0.min(zone.capacity.0);
                capacity += zone.capacity.0;
            }
            anywhere |= zone.zone_type == ZoneType::Conventional;
        }
        let fill = match (written, capacity) {
            (_, 0) if anywhere => Fill::Anywhere,
            (_, 0) => Fill::Unknown,
            (0, _) => Fill::Nothing,
            (written, capacity) if written == capacity => Fill::All,
            (written, capacity) => Fill::Part(written as f64 / capacity as f64),
        };
        Self {
            state: state.unwrap_or(ZoneState::Empty),
            fill,
        }
    }

    fn letter(self) -> char {
        let known = STATES.iter().find(|(state, ..)| *state == self.state);
        known.map_or('?', |(_, letter, _)| *letter)
    }
}

impl Map<'_> {
    /// No more than `most` cells, and how many zones each stands for but the last: a power of two.
    fn cells(&self, most: usize) -> (usize, Vec<Cell>) {
        let each = self.zones.len().div_ceil(most.max(1));
        let each = each.max(1).next_power_of_two();
        (each, self.zones.chunks(each).map(Cell::new).collect())
    }

    fn count(&self, state: ZoneState) -> u64 {
        self.zones.iter().filter(|z| z.state == state).count() as u64
    }

    /// What is known of the zones as a whole, in lines: names and values.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("zones", self.kinds())];
        let among = |used: u64, limit: Option<u32>| match limit {
            Some(limit) => format!("{} of {}", count(used), count(limit.into())),
            None => format!("{}, no limit", count(used)),
        };
        let (max_open, max_active) = match &self.info.zoned {
            Some(zoned) => (zoned.max_open, zoned.max_active),
            None => (None, None),
        };
        let number = |is: fn(ZoneState) -> bool| {
            self.zones.iter().filter(|zone| is(zone.state)).count() as u64
        };
        facts.push(("open", among(number(ZoneState::is_open), max_open)));
        facts.push(("active", among(number(ZoneState::is_active), max_active)));
        facts.push(("written", self.written()));
        facts
    }

    /// How many zones of what sizes and types there are.
    fn kinds(&self) -> String {
        let of = |kind| self.zones.iter().filter(|z| z.zone_type == kind).count() as u64;
        let kinds: Vec<_> = [
            ZoneType::Conventional,
            ZoneType::SequentialRequired,
            ZoneType::SequentialPreferred,
        ]
        .into_iter()
        .filter(|kind| of(*kind) > 0)
        .map(|kind| format!("{} {kind}", count(of(kind))))
        .collect();
        let size = self.info.zoned.as_ref().map_or(0, |z| z.zone_size.bytes());
        format!(
            "{} of {}: {}",
            count(self.zones.len() as u64),
            figures::bytes(size),
            kinds.join(", ")
        )
    }

    /// How much is written, of what can be known of that.
    fn written(&self) -> String {
        let (mut written, mut capacity, mut unknown) = (0, 0, 0);
        for zone in self.zones {
            match zone.written() {
                Some(sectors) => {
                    written += sectors.0.min(zone.capacity.0);
                    capacity += zone.capacity.0;
                }
                None if zone.zone_type != ZoneType::Conventional => unknown += 1,
                None => {}
            }
        }
        let mut text = format!(
            "{} of {}",
            figures::bytes(SectorCount(written).bytes()),
            figures::bytes(SectorCount(capacity).bytes())
        );
        if capacity > 0 {
            text += &format!(" ({:.1} %)", written as f64 / capacity as f64 * 100.0);
        }
        if unknown > 0 {
            text += &format!(", without {} that do not say", plural(unknown, "zone"));
        }
        text
    }
}

#[cfg(test)]
mod tests;
