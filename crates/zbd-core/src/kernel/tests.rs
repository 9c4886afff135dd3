//! What can be told without a block device: turns, meanings of errors, reports.

use rustix::io::Errno;
use vfio_virtio::DmaArena;

use super::{
    fault::{self, Attempt, Limit, Seen},
    ioctl::RawZone,
    report,
    turns::{Claim, Pointer, Step, Turn, Who},
};
use crate::{
    ErrorKind, Sector, SectorCount, ZoneAction, ZoneId, ZoneState, ZoneType, virtio::ZoneGrid,
};

const START: u64 = 4096;
const CAPACITY: u64 = 1000;

fn zone(state: u8, written: u64) -> RawZone {
    RawZone {
        start: START,
        len: 1024,
        write_pointer: START + written,
        zone_type: 2,
        state,
        capacity: CAPACITY,
        ..RawZone::default()
    }
}

/// A generator of small numbers, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A request of the model, and what the zone is to make of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Append(u64),
    /// A plain write, which takes the place that the model gives it.
    Write,
    /// A zone command: a reset, or one that leaves the pointer.
    Command(bool),
}

/// A zone as a device has it, and those who have requests to it.
struct Model {
    turn: Turn,
    /// The device's write pointer; what the turn knows may be older.
    pointer: u64,
    requests: Vec<Kind>,
    /// Started and not ended: the request, and where it writes.
    begun: Vec<(Who, u64)>,
    asked: usize,
    entered: Vec<Who>,
    started: Vec<Who>,
    ended: usize,
    refused: usize,
}

impl Model {
    fn take(&mut self, steps: &mut Vec<Step>) {
        for step in steps.drain(..) {
            if let Some(who) = step.who() {
                self.started.push(who);
                let kind = self.requests[usize::from(who.slot)];
                match (step, kind) {
                    (Step::Append(_, at), Kind::Append(len)) => {
                        assert!(self.begun.is_empty() && self.asked == 0, "not alone");
                        assert_eq!(at.0, self.pointer, "not at the write pointer");
                        assert!(at.0 + len <= START + CAPACITY);
                        self.begun.push((who, at.0));
                    }
                    (Step::Start(_), Kind::Write) => {
                        let mut others = self.begun.iter();
                        let shares = others
                            .all(|(who, _)| self.requests[usize::from(who.slot)] == Kind::Write);
                        assert!(shares && self.asked == 0);
                        // They are issued in order, so each goes behind the one before.
                        self.begun.push((who, self.pointer));
                        self.pointer += 1;
                    }
                    (Step::Start(_), Kind::Command(_)) => {
                        assert!(self.begun.is_empty() && self.asked == 0, "not alone");
                        self.begun.push((who, 0));
                    }
                    (Step::Refuse(_), Kind::Append(len)) => {
                        assert!(
                            self.pointer + len > START + CAPACITY,
                            "it would have fitted"
                        );
                        self.ended += 1;
                        self.refused += 1;
                    }
                    (step, kind) => panic!("{step:?} for {kind:?}"),
                }
            } else {
                assert_eq!(step, Step::Ask(ZoneId(4)));
                assert!(self.begun.is_empty() && self.asked == 0, "asked while busy");
                self.asked = 1;
            }
        }
    }

    fn known(&self) -> Pointer {
        match self.pointer < START + CAPACITY {
            true => Pointer::At(Sector(self.pointer)),
            false => Pointer::None,
        }
    }
}

#[test]
fn in_any_schedule_every_request_has_its_turn_in_order_and_appends_are_alone() {
    let mut total_refused = 0;
    for seed in 1..400 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut steps = Vec::new();
        let end = Sector(START + CAPACITY);
        let mut model = Model {
            turn: Turn::new(ZoneId(4), end, Pointer::At(Sector(START))),
            pointer: START,
            requests: Vec::new(),
            begun: Vec::new(),
            asked: 0,
            entered: Vec::new(),
            started: Vec::new(),
            ended: 0,
            refused: 0,
        };
        let mut left = 300;
        while left > 0 || model.asked > 0 || !model.begun.is_empty() {
            match random.below(10) {
                0..4 if left > 0 => {
                    left -= 1;
                    let slot = model.requests.len() as u16;
                    let who = Who {
                        lane: random.below(3) as u16,
                        slot,
                    };
                    let (kind, claim) = match random.below(20) {
                        0..12 => {
                            let len = 1 + random.below(40);
                            (Kind::Append(len), Claim::Append(SectorCount(len)))
                        }
                        12..18 => (Kind::Write, Claim::Write),
                        18 => (Kind::Command(random.below(4) == 0), Claim::Command),
                        _ => (Kind::Command(false), Claim::Command),
                    };
                    model.requests.push(kind);
                    model.entered.push(who);
                    model.turn.enter(who, claim, &mut steps);
                }
                4..8 if !model.begun.is_empty() => {
                    let at = random.below(model.begun.len() as u64) as usize;
                    let (who, sector) = model.begun.swap_remove(at);
                    model.ended += 1;
                    let failed = random.below(12) == 0;
                    match model.requests[usize::from(who.slot)] {
                        Kind::Append(_) if failed => {
                            // Nothing was written, and the zone was asked.
                            let known = model.known();
                            model.turn.pointer_is(known, &mut steps);
                        }
                        Kind::Append(len) => {
                            model.pointer = sector + len;
                            let end = Pointer::At(Sector(model.pointer));
                            model.turn.release(end, &mut steps);
                        }
                        Kind::Write if failed => model.turn.wrote(None, &mut steps),
                        Kind::Write => {
                            model.turn.wrote(Some(Sector(sector + 1)), &mut steps);
                        }
                        Kind::Command(is_reset) => {
                            if is_reset {
                                model.pointer = START;
                            }
                            let known = match is_reset {
                                true => Pointer::At(Sector(START)),
                                false => model.turn.pointer(),
                            };
                            model.turn.release(known, &mut steps);
                        }
                    }
                }
                8 if model.asked > 0 => {
                    model.asked = 0;
                    let known = model.known();
                    model.turn.pointer_is(known, &mut steps);
                }
                9 if model.begun.is_empty() && random.below(20) == 0 => {
                    // Somebody resets the zone out of turn.
                    model.pointer = START;
                    model.turn.taint();
                }
                _ => {}
            }
            model.take(&mut steps);
        }
        assert_eq!(model.ended, 300, "seed {seed}");
        assert_eq!(model.started, model.entered, "out of order, seed {seed}");
        total_refused += model.refused;
    }
    assert!(total_refused > 100, "zones were hardly ever full");
}

#[test]
fn a_request_that_gives_up_waiting_lets_those_behind_it_go_on() {
    let end = Sector(START + CAPACITY);
    let mut turn = Turn::new(ZoneId(4), end, Pointer::At(Sector(START)));
    let who = |slot| Who { lane: 0, slot };
    let mut steps = Vec::new();
    turn.enter(who(0), Claim::Write, &mut steps);
    turn.enter(who(1), Claim::Append(SectorCount(8)), &mut steps);
    turn.enter(who(2), Claim::Write, &mut steps);
    assert_eq!(steps, [Step::Start(who(0))]);
    steps.clear();
    assert!(turn.leave(who(1), &mut steps));
    assert_eq!(steps, [Step::Start(who(2))]);
    assert!(!turn.leave(who(1), &mut steps), "it has gone");
    assert!(!turn.leave(who(2), &mut steps), "it has begun");
}

#[test]
fn an_append_is_refused_only_after_the_zone_was_asked() {
    let end = Sector(START + CAPACITY);
    let mut turn = Turn::new(ZoneId(4), end, Pointer::None);
    let who = |slot| Who { lane: 0, slot };
    let mut steps = Vec::new();
    for slot in 0..3 {
        turn.enter(who(slot), Claim::Append(SectorCount(8)), &mut steps);
    }
    // Once for all that wait.
    assert_eq!(steps, [Step::Ask(ZoneId(4))]);
    steps.clear();
    turn.pointer_is(Pointer::None, &mut steps);
    assert_eq!(steps, [0, 1, 2].map(|slot| Step::Refuse(who(slot))));
    steps.clear();
    // Later ones ask again: it may have been reset.
    turn.enter(who(3), Claim::Append(SectorCount(8)), &mut steps);
    assert_eq!(steps, [Step::Ask(ZoneId(4))]);
    steps.clear();
    turn.pointer_is(Pointer::At(Sector(START)), &mut steps);
    assert_eq!(steps, [Step::Append(who(3), Sector(START))]);
}

#[test]
fn what_was_done_to_a_zone_out_of_turn_makes_its_pointer_unknown() {
    let end = Sector(START + CAPACITY);
    let mut turn = Turn::new(ZoneId(4), end, Pointer::At(Sector(START)));
    let who = |slot| Who { lane: 0, slot };
    let mut steps = Vec::new();
    turn.enter(who(0), Claim::Append(SectorCount(8)), &mut steps);
    turn.taint();
    steps.clear();
    turn.enter(who(1), Claim::Append(SectorCount(8)), &mut steps);
    turn.release(Pointer::At(Sector(START + 8)), &mut steps);
    assert_eq!(steps, [Step::Ask(ZoneId(4))]);
    // Whoever cannot be helped is told, one after the other.
    steps.clear();
    turn.enter(who(2), Claim::Append(SectorCount(8)), &mut steps);
    turn.pointer_is_lost(&mut steps);
    assert_eq!(steps, [Step::Lose(who(1)), Step::Ask(ZoneId(4))]);
}

#[test]
fn reports_are_read_like_those_of_virtio_devices() {
    let arena = DmaArena::detached(1 << 20).unwrap();
    let states = [
        (0, ZoneState::NotWritePointer),
        (1, ZoneState::Empty),
        (2, ZoneState::ImplicitlyOpen),
        (3, ZoneState::ExplicitlyOpen),
        (4, ZoneState::Closed),
        (13, ZoneState::ReadOnly),
        (14, ZoneState::Full),
        (15, ZoneState::Offline),
    ];
    let zones: Vec<_> = (0..)
        .zip(states)
        .map(|(i, (state, _))| RawZone {
            start: i * 1024,
            write_pointer: i * 1024 + 8,
            zone_type: [2, 1][usize::from(state == 0)],
            ..zone(state, 0)
        })
        .collect();
    let grid = ZoneGrid {
        zone_size: SectorCount(1024),
        zone_count: zones.len() as u32,
        end: Sector(1024 * zones.len() as u64),
    };
    let mut buffer = arena.allocate(64 * (1 + zones.len()) + 63).unwrap();
    buffer.fill(0xee);
    report::encode(&zones, &mut buffer);
    let read = grid.parse(ZoneId(0), &buffer).unwrap();
    assert_eq!(read.len(), states.len());
    for ((read, raw), (_, state)) in read.iter().zip(&zones).zip(states) {
        assert_eq!((read.state, raw.state()), (state, Some(state)));
        assert_eq!(read.capacity, SectorCount(CAPACITY));
        let conventional = read.zone_type == ZoneType::Conventional;
        assert_eq!(conventional, state == ZoneState::NotWritePointer);
        let pointer = match raw.pointer() {
            Pointer::At(pointer) => Some(pointer),
            _ => None,
        };
        assert_eq!(read.write_pointer, pointer);
    }
    // No more than there is room for.
    buffer.set_len(64 * 3 + 10);
    report::encode(&zones, &mut buffer);
    assert_eq!(grid.parse(ZoneId(0), &buffer).unwrap().len(), 2);
    assert_eq!(
        (report::room(0), report::room(64), report::room(128)),
        (0, 0, 1)
    );
}

const EMPTY: u8 = 1;
const OPEN: u8 = 2;
const EXPLICIT: u8 = 3;
const CLOSED: u8 = 4;
const FULL: u8 = 14;

fn kind(errno: Errno, attempt: Attempt, zone: Option<RawZone>) -> ErrorKind {
    let seen = zone.map(|zone| Seen { zone, limit: None });
    fault::explain(errno, attempt, seen.as_ref()).0
}

#[test]
fn every_error_of_the_kernel_has_one_meaning() {
    for (errno, expected) in [
        (Errno::TOOMANYREFS, ErrorKind::OpenLimit),
        (Errno::OVERFLOW, ErrorKind::ActiveLimit),
        (Errno::PERM, ErrorKind::ReadOnly),
        (Errno::ROFS, ErrorKind::ReadOnly),
        (Errno::NODEV, ErrorKind::DeviceGone),
        (Errno::NXIO, ErrorKind::DeviceGone),
        (Errno::OPNOTSUPP, ErrorKind::Unsupported),
        (Errno::NOTTY, ErrorKind::Unsupported),
        (Errno::TIMEDOUT, ErrorKind::Timeout),
        (Errno::NOMEM, ErrorKind::OutOfMemory),
        (Errno::INVAL, ErrorKind::InvalidRequest),
        (Errno::NOSPC, ErrorKind::InvalidRequest),
        (Errno::IO, ErrorKind::Medium),
        (Errno::NODATA, ErrorKind::Medium),
        (Errno::ILSEQ, ErrorKind::Medium),
        (Errno::CANCELED, ErrorKind::Io),
        (Errno::DEADLK, ErrorKind::Io),
    ] {
        assert_eq!(kind(errno, Attempt::Other, None), expected, "{errno:?}");
        // A zone that is as it should be changes nothing.
        let write = Attempt::Write {
            at: Sector(START + 8),
            len: SectorCount(8),
        };
        assert_eq!(kind(errno, write, Some(zone(OPEN, 8))), expected);
    }
}

#[test]
fn an_io_error_is_explained_by_the_zone() {
    let write = |at, len| Attempt::Write {
        at: Sector(START + at),
        len: SectorCount(len),
    };
    for (attempt, zone, expected) in [
        (write(0, 8), zone(OPEN, 8), ErrorKind::UnalignedWritePointer),
        (
            write(16, 8),
            zone(OPEN, 8),
            ErrorKind::UnalignedWritePointer,
        ),
        (
            write(8, 8),
            zone(EMPTY, 8),
            ErrorKind::UnalignedWritePointer,
        ),
        (write(996, 8), zone(OPEN, 996), ErrorKind::InvalidZoneState),
        (write(992, 8), zone(OPEN, 992), ErrorKind::Medium),
        (write(8, 8), zone(FULL, 8), ErrorKind::InvalidZoneState),
        (write(8, 8), zone(13, 8), ErrorKind::InvalidZoneState),
        (write(8, 8), zone(15, 8), ErrorKind::InvalidZoneState),
        (write(8, 8), zone(0, 0), ErrorKind::Medium),
        (write(8, 8), zone(99, 8), ErrorKind::Medium),
        (
            Attempt::Manage(ZoneAction::Open),
            zone(FULL, 0),
            ErrorKind::InvalidZoneState,
        ),
        (
            Attempt::Manage(ZoneAction::Close),
            zone(EMPTY, 0),
            ErrorKind::InvalidZoneState,
        ),
        (
            Attempt::Manage(ZoneAction::Reset),
            zone(0, 0),
            ErrorKind::InvalidZoneState,
        ),
        (
            Attempt::Manage(ZoneAction::Reset),
            zone(FULL, 0),
            ErrorKind::Medium,
        ),
        (
            Attempt::Manage(ZoneAction::Finish),
            zone(OPEN, 8),
            ErrorKind::Medium,
        ),
        (Attempt::Other, zone(FULL, 8), ErrorKind::Medium),
    ] {
        assert_eq!(
            kind(Errno::IO, attempt, Some(zone)),
            expected,
            "{attempt:?} {zone:?}"
        );
    }
}

#[test]
fn a_limit_is_the_reason_only_where_it_is_reached() {
    let others = [
        zone(EXPLICIT, 0),
        zone(EXPLICIT, 8),
        zone(OPEN, 8),
        zone(CLOSED, 8),
    ];
    let of = |state, open, active| Limit::of(&zone(state, 8), (open, active), &others);
    assert_eq!(of(EMPTY, Some(2), None), Some(Limit::Open));
    assert_eq!(of(CLOSED, Some(2), Some(4)), Some(Limit::Open));
    // What is open implicitly makes room.
    assert_eq!(of(EMPTY, Some(3), None), None);
    assert_eq!(of(EMPTY, Some(2), Some(4)), Some(Limit::Active));
    assert_eq!(of(EMPTY, None, Some(5)), None);
    // What is active already takes nothing.
    assert_eq!(of(CLOSED, None, Some(4)), None);
    assert_eq!(of(OPEN, Some(1), Some(1)), None);
    assert_eq!(of(99, Some(1), Some(1)), None);

    for (limit, expected) in [
        (Limit::Open, ErrorKind::OpenLimit),
        (Limit::Active, ErrorKind::ActiveLimit),
    ] {
        let seen = Seen {
            zone: zone(EMPTY, 0),
            limit: Some(limit),
        };
        let write = Attempt::Write {
            at: Sector(START),
            len: SectorCount(8),
        };
        for attempt in [write, Attempt::Manage(ZoneAction::Open)] {
            assert_eq!(fault::explain(Errno::IO, attempt, Some(&seen)).0, expected);
        }
        // Resetting takes no zone's place.
        let reset = Attempt::Manage(ZoneAction::Reset);
        assert_eq!(
            fault::explain(Errno::IO, reset, Some(&seen)).0,
            ErrorKind::Medium
        );
    }
}

#[test]
fn an_append_is_tried_again_only_where_nothing_of_it_can_have_been_written() {
    let tried = Sector(START + 100);
    let second = |state, written| {
        fault::second_try(tried, SectorCount(8), &zone(state, written)).map(|at| at.0 - START)
    };
    assert_eq!(second(EMPTY, 0), Some(0));
    assert_eq!(second(OPEN, 92), Some(92));
    for written in 100..=108 {
        assert_eq!(second(OPEN, written), None, "{written}");
    }
    assert_eq!(second(OPEN, 109), Some(109));
    assert_eq!(second(OPEN, CAPACITY - 8), Some(CAPACITY - 8));
    assert_eq!(second(OPEN, CAPACITY - 7), None);
    assert_eq!(second(FULL, 0), None);
}
