//! What is known of zones between reports: what is in flight on each, and which hold the device's
//! open and active resources.
//!
//! A request costs two counts. The ledger behind its lock is for what is rare: a zone that has not
//! been written to yet, a command, a zone that is full.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use event_listener::{Event, EventListener};
use tokio::sync::Mutex as Lock;

use crate::{
    DeviceInfo, Error, ErrorKind, Request, Sector, SectorCount, Zone, ZoneAction, ZoneId,
    ZoneState, ZonedInfo, units::SECTOR_LEN,
};

mod books;

pub(super) use books::Books;

/// How many zones an error names; there can be thousands.
const NAMED: usize = 16;

/// What a request in flight means for the zones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    zone: u32,
    sectors: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Changes no zone.
    Other,
    /// Moves a write pointer.
    Write,
    Manage(ZoneAction),
    /// Changes many zones.
    All,
}

/// No zone has this number: a device has fewer (see `MOST_ZONES`).
const NO_ZONE: u32 = u32::MAX;

impl Flight {
    pub(super) const NONE: Self = Self {
        zone: NO_ZONE,
        sectors: 0,
        kind: Kind::Other,
    };

    /// The same for a request that was not sent: it changes nothing.
    pub(super) fn unsent(self) -> Self {
        Self {
            kind: Kind::Other,
            ..self
        }
    }
}

#[derive(Debug, Default)]
struct Cell {
    in_flight: AtomicU32,
    /// Whether the zone holds an active resource, and may be written without another look.
    is_admitted: AtomicBool,
    /// Whether it holds that for somebody who has yet to write to it: not before it is given up do
    /// others get it. Changed with the ledger locked.
    is_reserved: AtomicBool,
}

/// What a zone is admitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A write that follows at once.
    Write,
    /// Writes that follow whenever they do.
    Reservation,
}

/// What a zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nothing,
    /// An active resource, and an open one while it is written to, which the device can take back.
    Active,
    /// Both, until a command says otherwise.
    Explicit,
    /// Nothing, nor does it take anything: it is full, has failed, or is conventional. Whether it can
    /// be written to has nothing to do with the others.
    Ended,
}

impl From<ZoneState> for Standing {
    fn from(state: ZoneState) -> Self {
        match state {
            ZoneState::ExplicitlyOpen => Self::Explicit,
            ZoneState::ImplicitlyOpen | ZoneState::Closed => Self::Active,
            ZoneState::Full
            | ZoneState::ReadOnly
            | ZoneState::Offline
            | ZoneState::NotWritePointer => Self::Ended,
            _ => Self::Nothing,
        }
    }
}

impl Standing {
    fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::Explicit)
    }
}

#[derive(Debug, Default)]
struct Ledger {
    standings: Vec<Standing>,
    active: u32,
    explicit: u32,
    /// Whether the standings are the device's.
    is_true: bool,
    /// Changes with them.
    version: u64,
}

impl Ledger {
    /// Takes over what all zones hold.
    fn take_over(&mut self, standings: Vec<Standing>) {
        let count = |standing| {
            let all = standings.iter();
            all.filter(|known| **known == standing).count() as u32
        };
        self.explicit = count(Standing::Explicit);
        self.active = count(Standing::Active) + self.explicit;
        self.standings = standings;
    }

    fn set(&mut self, zone: ZoneId, to: Standing) {
        let Some(standing) = self.standings.get_mut(zone.0 as usize) else {
            return;
        };
        let count = |standing: Standing| {
            let active = u32::from(standing.is_active());
            (active, u32::from(standing == Standing::Explicit))
        };
        let (before, after) = (count(*standing), count(to));
        self.active = self.active - before.0 + after.0;
        self.explicit = self.explicit - before.1 + after.1;
        *standing = to;
        self.version += 1;
    }

    fn holders(&self, is_holder: impl Fn(Standing) -> bool) -> Vec<ZoneId> {
        let all = self.standings.iter().zip(0..);
        all.filter(|(standing, _)| is_holder(**standing))
            .map(|(_, zone)| ZoneId(zone))
            .collect()
    }
}

/// What others are to be told of the end of requests.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub(super) struct Tidings {
    is_freed: bool,
    is_settled: bool,
}

impl Tidings {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            is_freed: self.is_freed | other.is_freed,
            is_settled: self.is_settled | other.is_settled,
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Sure,
    Failed,
}

/// Why a zone cannot be written to now.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// What is known may not be so any more: ask the device, then try again.
    Unknown,
    /// The device's resources are taken.
    Taken(Error),
}

/// The accounts of a device's zones.
#[derive(Debug)]
pub struct Accounts {
    cells: Box<[Cell]>,
    is_limited: bool,
    /// Buffers that are no longer than this take one request.
    plain_len: usize,
    ledger: Mutex<Ledger>,
    /// Told when a zone gives its resources back.
    freed: Event,
    /// Told when nothing is in flight on some zone.
    settled: Event,
    lines: Lines,
}

/// Where those wait who come second: a lock's waiters get it in their order.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) memory: Lock<()>,
    pub(super) zones: Lock<()>,
}

impl Accounts {
    fn new(info: &DeviceInfo) -> Self {
        let zoned = info.zoned.as_ref();
        let shapes = zoned.map(|zoned| &zoned.shapes[..]).unwrap_or_default();
        let mut ledger = Ledger::default();
        // The device has just been opened; if not, what is wrong turns out before anybody is refused.
        ledger.take_over(shapes.iter().map(|shape| shape.opened_as.into()).collect());
        ledger.is_true = true;
        Self {
            cells: shapes.iter().map(|_| Cell::default()).collect(),
            is_limited: zoned
                .is_some_and(|zoned| zoned.max_open.is_some() || zoned.max_active.is_some()),
            plain_len: info.max_transfer.min(info.max_segment) as usize,
            ledger: Mutex::new(ledger),
            freed: Event::new(),
            settled: Event::new(),
            lines: Lines::default(),
        }
    }

    /// What `request` means for the zones.
    #[inline]
    fn flight(request: &Request, zoned: Option<&ZonedInfo>) -> Flight {
        let Some(zoned) = zoned else {
            return Flight::NONE;
        };
        let sectors = |len: usize| (len as u64 / SECTOR_LEN) as u32;
        let zone_of = |at| zoned.zone_of(at).map_or(NO_ZONE, |zone| zone.0);
        let (zone, sectors, kind) = match request {
            Request::Append { zone, buffer } => (zone.0, sectors(buffer.len()), Kind::Write),
            Request::Write { at, buffer } => (zone_of(*at), sectors(buffer.len()), Kind::Write),
            Request::Read { at, .. } => (zone_of(*at), 0, Kind::Other),
            Request::Manage { zone, action } => (zone.0, 0, Kind::Manage(*action)),
            Request::ResetAll | Request::SecureErase { .. } => (NO_ZONE, 0, Kind::All),
            _ => return Flight::NONE,
        };
        Flight {
            zone,
            sectors,
            kind,
        }
    }

    /// Counts a request that is about to be submitted. [`ended`](Self::ended) follows in any case.
    #[inline]
    fn begun(&self, flight: Flight) {
        if let Some(cell) = self.cells.get(flight.zone as usize) {
            cell.in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether what zones hold has changed with the end of a request, or may have.
    #[inline]
    fn is_of_note(
        &self,
        flight: Flight,
        place: Option<Sector>,
        zoned: Option<&ZonedInfo>,
    ) -> Option<Outcome> {
        if !self.is_limited || flight.kind == Kind::Other {
            return None;
        }
        match (flight.kind, place, zoned) {
            (Kind::Write, Some(at), Some(zoned)) => {
                let end = at + SectorCount(flight.sectors.into());
                let is_full = zoned.capacity_end(ZoneId(flight.zone)) == Some(end);
                is_full.then_some(Outcome::Sure)
            }
            (_, Some(_), _) => Some(Outcome::Sure),
            (_, None, _) => Some(Outcome::Failed),
        }
    }

    /// Takes note of how a request ended. What comes back is to be [told](Self::tell).
    #[inline]
    fn ended(&self, flight: Flight, place: Option<Sector>, zoned: Option<&ZonedInfo>) -> Tidings {
        let mut tidings = Tidings::default();
        if let Some(outcome) = self.is_of_note(flight, place, zoned) {
            self.note(flight, outcome);
            tidings.is_freed = true;
        }
        if let Some(cell) = self.cells.get(flight.zone as usize)
            // Release: whoever sees that nothing is in flight sees what this request did.
            && cell.in_flight.fetch_sub(1, Ordering::Release) == 1
        {
            tidings.is_settled = true;
        }
        tidings
    }

    /// Wakes those whom it concerns. That may run foreign code: nothing is locked or borrowed here.
    #[inline]
    fn tell(&self, tidings: Tidings) {
        if tidings.is_freed {
            self.freed.notify(usize::MAX);
        }
        if tidings.is_settled {
            self.settled.notify(usize::MAX);
        }
    }

    /// Takes note of what changed what zones hold, or may have. Resources may have become free.
    #[cold]
    fn note(&self, flight: Flight, outcome: Outcome) {
        let mut ledger = self.ledger();
        let zone = ZoneId(flight.zone);
        self.forget(zone);
        if outcome == Outcome::Sure && flight.kind != Kind::Manage(ZoneAction::Open) {
            self.give_up(zone);
        }
        match (flight.kind, outcome) {
            (Kind::Other, _) => {}
            (
                // A write that filled its zone.
                Kind::Write | Kind::Manage(ZoneAction::Finish),
                Outcome::Sure,
            ) => ledger.set(zone, Standing::Ended),
            (Kind::Manage(ZoneAction::Reset), Outcome::Sure) => {
                ledger.set(zone, Standing::Nothing);
                // What is written to it at the same time may have opened it again.
                ledger.is_true &= self.in_flight(zone) <= 1;
            }
            (Kind::Manage(ZoneAction::Open), Outcome::Sure) => {
                ledger.set(zone, Standing::Explicit);
                // That leaves less for all others.
                self.forget_all();
            }
            // A closed zone may have become an empty one, and what an error leaves nobody knows: the
            // device is to be asked.
            (Kind::Manage(ZoneAction::Close), _) | (_, Outcome::Failed) | (Kind::All, _) => {
                ledger.is_true = false;
                ledger.version += 1;
                if flight.kind == Kind::All {
                    self.forget_all();
                    (0..self.cells.len() as u32).for_each(|zone| self.give_up(ZoneId(zone)));
                }
            }
        }
    }

    fn in_flight(&self, zone: ZoneId) -> u32 {
        let cell = self.cells.get(zone.0 as usize);
        // Acquire: pairs with `ended`.
        cell.map_or(0, |cell| cell.in_flight.load(Ordering::Acquire))
    }

    fn forget(&self, zone: ZoneId) {
        if let Some(cell) = self.cells.get(zone.0 as usize) {
            cell.is_admitted.store(false, Ordering::Relaxed);
        }
    }

    fn give_up(&self, zone: ZoneId) {
        if let Some(cell) = self.cells.get(zone.0 as usize) {
            cell.is_reserved.store(false, Ordering::Relaxed);
        }
    }

    fn forget_all(&self) {
        for cell in &self.cells {
            cell.is_admitted.store(false, Ordering::Relaxed);
        }
    }

    /// Whether `zone` can be written to as far as the device's limits are concerned, without another
    /// look.
    #[inline]
    pub(super) fn is_admitted(&self, zone: ZoneId) -> bool {
        !self.is_limited
            || self
                .cells
                .get(zone.0 as usize)
                // A zone that does not exist is refused elsewhere.
                .is_none_or(|cell| cell.is_admitted.load(Ordering::Relaxed))
    }

    /// Counts `zone` as one that is written to, if the device's limits allow it.
    pub(super) fn admit(
        &self,
        zone: ZoneId,
        zoned: &ZonedInfo,
        claim: Claim,
    ) -> Result<(), Obstacle> {
        let mut ledger = self.ledger();
        if !ledger.is_true {
            return Err(Obstacle::Unknown);
        }
        let Some(standing) = ledger.standings.get(zone.0 as usize).copied() else {
            return Ok(());
        };
        if standing == Standing::Ended {
            return Ok(());
        }
        if standing == Standing::Nothing
            && let Some(max) = zoned.max_active
            && ledger.active >= max
        {
            let holders = ledger.holders(Standing::is_active);
            ledger.is_true = false;
            return Err(Obstacle::Taken(active_limit(zone, max, &holders)));
        }
        if standing != Standing::Explicit
            && let Some(max) = zoned.max_open
            && ledger.explicit >= max
        {
            let holders = ledger.holders(|standing| standing == Standing::Explicit);
            ledger.is_true = false;
            return Err(Obstacle::Taken(open_limit(zone, max, &holders)));
        }
        if standing == Standing::Nothing {
            ledger.set(zone, Standing::Active);
        }
        if let Some(cell) = self.cells.get(zone.0 as usize) {
            cell.is_admitted.store(true, Ordering::Relaxed);
            if claim == Claim::Reservation {
                cell.is_reserved.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// A number that changes when what zones hold does.
    pub(super) fn version(&self) -> u64 {
        self.ledger().version
    }

    /// Takes over what the device says of all its zones, in a report that was begun at `version`.
    /// Zones that are reserved, or have been admitted and are being written to, hold their resources
    /// although the device may not know yet.
    /// If something else has changed meanwhile, that has to be done again, unless it is enough.
    pub(super) fn take_over(&self, report: &[Zone], version: u64, is_enough: bool) {
        let mut ledger = self.ledger();
        if ledger.version != version && ledger.is_true {
            return;
        }
        let is_current = ledger.version == version || is_enough;
        let mut standings = Vec::with_capacity(report.len());
        for zone in report {
            let cell = self.cells.get(zone.id.0 as usize);
            let is_coming = cell.is_some_and(|cell| {
                cell.is_reserved.load(Ordering::Relaxed)
                    || cell.is_admitted.load(Ordering::Relaxed)
                        && cell.in_flight.load(Ordering::Relaxed) > 0
            });
            let standing = match zone.state {
                ZoneState::Empty if is_coming => Standing::Active,
                state => state.into(),
            };
            if !standing.is_active() {
                self.forget(zone.id);
                self.give_up(zone.id);
            }
            standings.push(standing);
        }
        ledger.take_over(standings);
        ledger.is_true = is_current;
        ledger.version += u64::from(!is_current);
    }

    #[inline]
    pub(super) fn plain_len(&self) -> usize {
        self.plain_len
    }

    pub(super) fn is_limited(&self) -> bool {
        self.is_limited
    }

    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Told when resources may have become free.
    pub(super) fn on_freed(&self) -> EventListener {
        self.freed.listen()
    }

    /// Whether nothing is in flight on `zone`.
    pub(super) fn is_settled(&self, zone: ZoneId) -> bool {
        self.in_flight(zone) == 0
    }

    /// Told when nothing is in flight on some zone.
    pub(super) fn on_settled(&self) -> EventListener {
        self.settled.listen()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // No code that can panic runs under the lock.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(zones: &[ZoneId]) -> String {
    let mut names: Vec<_> = zones.iter().take(NAMED).map(ToString::to_string).collect();
    if zones.len() > NAMED {
        names.push(format!("and {} more", zones.len() - NAMED));
    }
    names.join(", ")
}

pub(super) fn active_limit(zone: ZoneId, max: u32, holders: &[ZoneId]) -> Error {
    Error::new(
        ErrorKind::ActiveLimit,
        format!(
            "zone {zone} cannot be written to: the device allows {max} active zones, and these are: {}; finish or reset one of them",
            named(holders)
        ),
    )
}

pub(super) fn open_limit(zone: ZoneId, max: u32, holders: &[ZoneId]) -> Error {
    Error::new(
        ErrorKind::OpenLimit,
        format!(
            "zone {zone} cannot be opened: the device allows {max} open zones, and these are explicitly open: {}; close, finish or reset one of them",
            named(holders)
        ),
    )
}
