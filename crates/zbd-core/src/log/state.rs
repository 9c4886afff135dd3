//! What a log knows: its records, its zones, and what is to be done next. Nothing here waits.

use std::collections::VecDeque;

use super::{
    geometry::Geometry,
    options::{RecordId, RecordInfo},
    record::{Header, Kind},
};
use crate::{DmaBuffer, Error, ErrorKind, Sector, ZoneId, writer::flight::Ticket};

/// A record from the trim point on.
pub(super) struct Entry {
    pub(super) epoch: u64,
    pub(super) zone: u32,
    pub(super) len: u32,
    pub(super) place: Place,
}

/// Where a record is.
pub(super) enum Place {
    InFlight(Ticket),
    At(Sector),
    /// It could not be written.
    Nowhere,
}

/// How far a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    /// Records go here.
    Active,
    /// No more records go here, some are on their way.
    Draining,
    Finishing,
    /// Holds records and is not written any more.
    Closed,
    Resetting,
    /// Will never be written again.
    Unusable,
}

/// A zone of the log.
#[derive(Debug)]
pub(super) struct LogZone {
    pub(super) id: ZoneId,
    pub(super) phase: Phase,
    /// How many granules it holds when it is empty.
    pub(super) capacity: u64,
    /// How many granules can still be written.
    pub(super) room: u64,
    pub(super) in_flight: u32,
    /// The greatest id of a record that may be in it.
    pub(super) last: Option<u64>,
}

/// A mark that has been written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) base: u64,
    pub(super) zone: usize,
}

/// What ended the log's writing.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Records from this one on will not become durable.
    pub(super) from: u64,
    kind: ErrorKind,
    context: String,
}

impl Failure {
    pub(super) fn new(from: u64, what: &str, error: &Error) -> Self {
        Self {
            from,
            kind: error.kind(),
            context: format!("{what}: {error}"),
        }
    }

    #[cold]
    pub(super) fn error(&self) -> Error {
        Error::new(
            self.kind,
            format!(
                "the log ends before record {}: {}; it takes no more. Open it anew",
                self.from, self.context
            ),
        )
    }
}

/// What is to be done with a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Finish(usize),
    Reset(usize),
}

/// What a record is written for: the more it matters, the more of the last zone it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To hold data.
    Data,
    /// To say what lets no zone be reset yet.
    Note,
    /// To let a zone be reset, or the log be opened.
    Mark,
}

/// Why a record has no place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// A zone is being finished or reset; there may be room then.
    Wait,
    /// There will be none until the log is trimmed.
    Full,
}

pub(super) struct State {
    pub(super) identity: u128,
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) previous: u64,
    /// Records below are given up.
    pub(super) base: u64,
    /// Those from `base` on.
    pub(super) entries: VecDeque<Entry>,
    /// All below are written.
    pub(super) complete: u64,
    /// All below are durable.
    pub(super) durable: u64,
    pub(super) is_flushing: bool,
    pub(super) is_marking: bool,
    pub(super) written_mark: Option<Mark>,
    pub(super) durable_mark: Option<Mark>,
    pub(super) failure: Option<Failure>,
    /// That a zone could not be reset, for the next trim to tell.
    pub(super) reset_failure: Option<Error>,
    pub(super) zones: Vec<LogZone>,
    pub(super) active: Option<usize>,
    /// How many granules notes leave of the last zone there is.
    pub(super) reserve: u64,
    /// How many granules the longest record takes.
    pub(super) longest: u64,
    pub(super) max_open: usize,
    pub(super) tasks: Vec<Task>,
    /// The memory of seals, unless one is on its way.
    pub(super) seal: Option<DmaBuffer>,
    /// How many records have ended whose places in the window have not been given back yet.
    pub(super) freed: usize,
}

impl State {
    pub(super) fn next(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(super) fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries
            .get(usize::try_from(id.checked_sub(self.base)?).ok()?)
    }

    fn entry_mut(&mut self, id: u64) -> Option<&mut Entry> {
        let at = usize::try_from(id.checked_sub(self.base)?).ok()?;
        self.entries.get_mut(at)
    }

    /// The header of what is written now.
    pub(super) fn header(&self, kind: Kind, id: u64, len: u32, payload_crc: u32) -> Header {
        Header {
            kind,
            len,
            identity: self.identity,
            epoch: self.epoch,
            start: self.start,
            previous: self.previous,
            id,
            base: self.base,
            durable: self.durable,
            payload_crc,
        }
    }

    /// The records that can be read in `ids`.
    pub(super) fn info(&self, id: u64, geometry: &Geometry) -> Option<RecordInfo> {
        let entry = self.entry(id)?;
        let Place::At(sector) = entry.place else {
            return None;
        };
        Some(RecordInfo {
            id: RecordId(id),
            epoch: entry.epoch,
            zone: ZoneId(geometry.zones.start.0 + entry.zone),
            sector,
            len_bytes: entry.len as usize,
        })
    }

    /// Finds a zone for `granules` and takes them there.
    ///
    /// Data leave one zone empty. After a crash the zone that was written may be one that cannot be
    /// written on, and without a zone for its mark a log could neither be opened nor trimmed.
    pub(super) fn place(&mut self, purpose: Purpose, granules: u64) -> Result<usize, NoRoom> {
        let empties = self.empties();
        let (spare, keep) = match purpose {
            Purpose::Data => (1, 0),
            Purpose::Note if empties == 0 => (0, self.reserve),
            Purpose::Note | Purpose::Mark => (0, 0),
        };
        if let Some(active) = self.active
            && empties >= spare
            && self.zones[active].room >= granules.saturating_add(keep)
            && !(purpose == Purpose::Mark && self.should_move())
        {
            self.take(active, granules);
            return Ok(active);
        }
        let Some(empty) = self.next_empty().filter(|_| empties > spare) else {
            let is_freed = |zone: &LogZone| match zone.phase {
                Phase::Resetting => true,
                Phase::Draining | Phase::Finishing => self.is_over(zone),
                _ => false,
            };
            return Err(match self.zones.iter().any(is_freed) {
                true => NoRoom::Wait,
                false => NoRoom::Full,
            });
        };
        if let Some(active) = self.active.take() {
            self.zones[active].phase = Phase::Draining;
            self.settle(active);
        }
        let is_open = |zone: &&LogZone| matches!(zone.phase, Phase::Draining | Phase::Finishing);
        if self.zones.iter().filter(is_open).count() >= self.max_open {
            return Err(NoRoom::Wait);
        }
        self.zones[empty].phase = Phase::Active;
        self.active = Some(empty);
        if self.zones[empty].room < granules {
            // No record is that long.
            return Err(NoRoom::Full);
        }
        self.take(empty, granules);
        Ok(empty)
    }

    fn empties(&self) -> usize {
        let is_empty = |zone: &&LogZone| zone.phase == Phase::Empty;
        self.zones.iter().filter(is_empty).count()
    }

    /// Whether a mark had better go to the last empty zone, because the active one then holds nothing
    /// and can be reset, and has little room as it is.
    fn should_move(&self) -> bool {
        self.empties() == 1
            && self.active.is_some_and(|active| {
                let zone = &self.zones[active];
                zone.room < self.longest && zone.last.is_none_or(|last| last < self.base)
            })
    }

    fn take(&mut self, zone: usize, granules: u64) {
        self.zones[zone].room -= granules;
        self.zones[zone].in_flight += 1;
    }

    /// The next empty zone after the active one, so that all are used alike.
    fn next_empty(&self) -> Option<usize> {
        let count = self.zones.len();
        let after = self.active.or(self.written_mark.map(|mark| mark.zone));
        let first = after.map_or(0, |zone| zone + 1);
        (first..first + count)
            .map(|zone| zone % count)
            .find(|zone| self.zones[*zone].phase == Phase::Empty)
    }

    /// Gives the new record `next` its entry.
    pub(super) fn enter(&mut self, zone: usize, len: u32, ticket: Ticket) {
        let id = self.next();
        self.zones[zone].last = self.zones[zone].last.max(Some(id));
        self.entries.push_back(Entry {
            epoch: self.epoch,
            zone: zone as u32,
            len,
            place: Place::InFlight(ticket),
        });
    }

    /// Lets record `id` go to another zone.
    pub(super) fn move_to(&mut self, id: u64, zone: usize, ticket: Ticket) {
        self.zones[zone].last = self.zones[zone].last.max(Some(id));
        if let Some(entry) = self.entry_mut(id) {
            entry.zone = zone as u32;
            entry.place = Place::InFlight(ticket);
        }
    }

    /// A write to `zone` has ended.
    pub(super) fn landed(&mut self, zone: usize) {
        self.zones[zone].in_flight -= 1;
        self.settle(zone);
    }

    /// Notes where record `id` is.
    pub(super) fn settle_record(&mut self, id: u64, place: Place) {
        if let Some(entry) = self.entry_mut(id) {
            entry.place = place;
        }
        while let Some(Entry {
            place: Place::At(_),
            ..
        }) = self.entry(self.complete)
        {
            self.complete += 1;
        }
    }

    /// The device takes nothing more in `zone`, although there should be room.
    pub(super) fn give_up(&mut self, zone: usize) {
        let place = &mut self.zones[zone];
        place.room = 0;
        if place.phase == Phase::Active {
            place.phase = Phase::Draining;
            self.active = None;
        }
        self.settle(zone);
    }

    /// Moves a zone that is drained on.
    pub(super) fn settle(&mut self, zone: usize) {
        let place = &mut self.zones[zone];
        if place.phase != Phase::Draining || place.in_flight > 0 {
            return;
        }
        // A zone that is written to its end is full by itself.
        if place.room == 0 {
            place.phase = Phase::Closed;
            self.collect();
        } else {
            place.phase = Phase::Finishing;
            self.tasks.push(Task::Finish(zone));
        }
    }

    pub(super) fn finished(&mut self, zone: usize) {
        let place = &mut self.zones[zone];
        place.room = 0;
        place.phase = Phase::Closed;
        self.collect();
    }

    pub(super) fn reset(&mut self, zone: usize) {
        let place = &mut self.zones[zone];
        place.phase = Phase::Empty;
        place.room = place.capacity;
        place.last = None;
    }

    /// Whether it is known, durably, that nothing in `zone` is wanted.
    fn is_over(&self, zone: &LogZone) -> bool {
        self.durable_mark
            .is_some_and(|mark| zone.last.is_none_or(|last| last < mark.base))
    }

    /// What a mark of the present trim point is for.
    pub(super) fn mark_purpose(&self) -> Purpose {
        let frees = |zone: &LogZone| {
            zone.phase == Phase::Closed && zone.last.is_none_or(|last| last < self.base)
        };
        match self.durable_mark {
            Some(_) if !self.should_move() && !self.zones.iter().any(frees) => Purpose::Note,
            _ => Purpose::Mark,
        }
    }

    /// Lets the zones be reset that hold nothing any more.
    pub(super) fn collect(&mut self) {
        // A mark that has been written is the durable one soon.
        let kept = [self.durable_mark, self.written_mark].map(|mark| mark.map(|mark| mark.zone));
        for at in 0..self.zones.len() {
            let zone = &self.zones[at];
            if zone.phase == Phase::Closed && self.is_over(zone) && !kept.contains(&Some(at)) {
                self.zones[at].phase = Phase::Resetting;
                self.tasks.push(Task::Reset(at));
            }
        }
    }

    /// Gives up the records below `below`, which are durable.
    pub(super) fn trim(&mut self, below: u64) {
        while self.base < below && self.entries.pop_front().is_some() {
            self.base += 1;
        }
    }

    /// The log takes nothing more.
    pub(super) fn fail(&mut self, failure: Failure) {
        tracing::warn!(from = failure.from, "{}", failure.context);
        let is_first = (self.failure.as_ref()).is_none_or(|known| failure.from < known.from);
        if is_first {
            self.failure = Some(failure);
        }
    }
}
