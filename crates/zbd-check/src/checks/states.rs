//! The states of zones: what takes a zone from one to another (VIRTIO 1.3, 5.2.6).
//!
//! Not looked at, because nothing is said: FINISH of an empty or a closed zone, CLOSE of an empty
//! one.

use crate::{
    Level::{Defined, Must},
    Requirement,
    outcome::{Verdict, require, undecidable},
    pattern::pattern,
    request::{Request, append, write},
    subject::Subject,
    wire::{SECTOR, kind, request_name, status},
    zone::{State, Zone},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "write-opens",
        "5.2.6",
        Defined,
        "A successful OUT takes an empty or closed zone to IOPEN.",
        write_opens,
    ),
    Requirement::new(
        "append-opens",
        "5.2.6",
        Defined,
        "A successful ZONE_APPEND takes an empty or closed zone to IOPEN.",
        append_opens,
    ),
    Requirement::new(
        "write-keeps-explicit",
        "5.2.6",
        Defined,
        "A write that does not fill it leaves an explicitly open zone as it is.",
        write_keeps_explicit,
    ),
    Requirement::new(
        "open-empty",
        "5.2.6",
        Defined,
        "A successful ZONE_OPEN takes an empty zone to EOPEN.",
        |s| step(s, State::EMPTY, kind::OPEN, State::EOPEN),
    ),
    Requirement::new(
        "open-implicit",
        "5.2.6",
        Defined,
        "A successful ZONE_OPEN takes an implicitly open zone to EOPEN.",
        |s| step(s, State::IOPEN, kind::OPEN, State::EOPEN),
    ),
    Requirement::new(
        "open-closed",
        "5.2.6",
        Defined,
        "A successful ZONE_OPEN takes a closed zone to EOPEN.",
        |s| step(s, State::CLOSED, kind::OPEN, State::EOPEN),
    ),
    Requirement::new(
        "open-explicit",
        "5.2.6",
        Defined,
        "A ZONE_OPEN of an explicitly open zone succeeds, and the zone stays so.",
        |s| step(s, State::EOPEN, kind::OPEN, State::EOPEN),
    ),
    Requirement::new(
        "close-implicit",
        "5.2.6",
        Defined,
        "A successful ZONE_CLOSE takes an implicitly open zone to CLOSED.",
        |s| step(s, State::IOPEN, kind::CLOSE, State::CLOSED),
    ),
    Requirement::new(
        "close-explicit",
        "5.2.6",
        Defined,
        "A successful ZONE_CLOSE takes an explicitly open zone with data to CLOSED.",
        close_explicit,
    ),
    Requirement::new(
        "close-explicit-unwritten",
        "5.2.6",
        Defined,
        "A successful ZONE_CLOSE takes an explicitly open zone without data to EMPTY.",
        |s| step(s, State::EOPEN, kind::CLOSE, State::EMPTY),
    ),
    Requirement::new(
        "close-closed",
        "5.2.6",
        Defined,
        "A ZONE_CLOSE of a closed zone succeeds, and the zone stays so.",
        |s| step(s, State::CLOSED, kind::CLOSE, State::CLOSED),
    ),
    Requirement::new(
        "finish-implicit",
        "5.2.6",
        Defined,
        "A successful ZONE_FINISH takes an implicitly open zone to FULL.",
        |s| step(s, State::IOPEN, kind::FINISH, State::FULL),
    ),
    Requirement::new(
        "finish-explicit",
        "5.2.6",
        Defined,
        "A successful ZONE_FINISH takes an explicitly open zone to FULL.",
        |s| step(s, State::EOPEN, kind::FINISH, State::FULL),
    ),
    Requirement::new(
        "finish-full",
        "5.2.6",
        Defined,
        "A ZONE_FINISH of a full zone succeeds, and the zone stays so.",
        |s| step(s, State::FULL, kind::FINISH, State::FULL),
    ),
    Requirement::new(
        "reset-empty",
        "5.2.6",
        Defined,
        "A ZONE_RESET of an empty zone succeeds, and the zone stays so.",
        |s| step(s, State::EMPTY, kind::RESET, State::EMPTY),
    ),
    Requirement::new(
        "reset-implicit",
        "5.2.6",
        Defined,
        "A successful ZONE_RESET takes an implicitly open zone to EMPTY.",
        |s| step(s, State::IOPEN, kind::RESET, State::EMPTY),
    ),
    Requirement::new(
        "reset-explicit",
        "5.2.6",
        Defined,
        "A successful ZONE_RESET takes an explicitly open zone to EMPTY.",
        |s| step(s, State::EOPEN, kind::RESET, State::EMPTY),
    ),
    Requirement::new(
        "reset-closed",
        "5.2.6",
        Defined,
        "A successful ZONE_RESET takes a closed zone to EMPTY.",
        |s| step(s, State::CLOSED, kind::RESET, State::EMPTY),
    ),
    Requirement::new(
        "reset-full",
        "5.2.6",
        Defined,
        "A successful ZONE_RESET takes a full zone to EMPTY.",
        |s| step(s, State::FULL, kind::RESET, State::EMPTY),
    ),
    Requirement::new(
        "reset-all",
        "5.2.6.2",
        Defined,
        "ZONE_RESET_ALL takes all sequential zones that are open, closed or full to EMPTY.",
        reset_all,
    ),
    Requirement::new(
        "open-full",
        "5.2.6.2",
        Must,
        "A ZONE_OPEN whose transition cannot be performed, as from FULL, ends with \
         ZONE_INVALID_CMD.",
        |s| refused(s, kind::OPEN),
    ),
    Requirement::new(
        "close-full",
        "5.2.6.2",
        Must,
        "A ZONE_CLOSE whose transition cannot be performed, as from FULL, ends with \
         ZONE_INVALID_CMD.",
        |s| refused(s, kind::CLOSE),
    ),
    Requirement::new(
        "command-inside-zone",
        "5.2.6",
        Defined,
        "A zone command for a sector that is not a zone's first, an error of the zoned model, ends \
         with ZONE_INVALID_CMD.",
        inside,
    ),
    Requirement::new(
        "command-beyond-capacity",
        "5.2.6",
        Defined,
        "A zone command beyond the last zone, an error of the zoned model, ends with \
         ZONE_INVALID_CMD.",
        beyond,
    ),
];

/// An empty zone taken into `state`.
fn zone_in(s: &mut Subject, state: State) -> Verdict<Zone> {
    let zone = s.zone()?;
    bring(s, &zone, state)?;
    Ok(zone)
}

fn bring(s: &mut Subject, zone: &Zone, state: State) -> Verdict {
    let start = zone.start;
    match state {
        State::EMPTY => Ok(()),
        State::EOPEN => s.bring(kind::OPEN, start, State::EOPEN),
        State::IOPEN => {
            let data = pattern(1, s.device.unit());
            s.must(&write(start, data))?;
            let now = s.zone_at(start)?.state;
            match now == State::IOPEN {
                true => Ok(()),
                false => undecidable(format!("after a write the zone is {now}, not IOPEN")),
            }
        }
        State::CLOSED => {
            bring(s, zone, State::IOPEN)?;
            s.bring(kind::CLOSE, start, State::CLOSED)
        }
        _ => {
            bring(s, zone, State::EOPEN)?;
            s.bring(kind::FINISH, start, State::FULL)
        }
    }
}

fn step(s: &mut Subject, from: State, command: u32, to: State) -> Verdict {
    let zone = zone_in(s, from)?;
    let answer = s.run(&Request::new(command, zone.start))?;
    let required = format!(
        "{} takes the zone from {} to {}",
        request_name(command),
        from.name(),
        to.name()
    );
    answer.expect(&[status::OK], &required)?;
    s.expect_state(zone.start, to, &required)
}

fn close_explicit(s: &mut Subject) -> Verdict {
    let zone = zone_in(s, State::EOPEN)?;
    s.must(&write(zone.start, pattern(1, s.device.unit())))?;
    let answer = s.run(&Request::new(kind::CLOSE, zone.start))?;
    let required = "ZONE_CLOSE takes a zone with data from EOPEN to CLOSED";
    answer.expect(&[status::OK], required)?;
    s.expect_state(zone.start, State::CLOSED, required)
}

fn write_opens(s: &mut Subject) -> Verdict {
    let unit = s.device.unit();
    let zone = s.zone()?;
    s.must(&write(zone.start, pattern(1, unit)))?;
    s.expect_state(
        zone.start,
        State::IOPEN,
        "OUT takes a zone from EMPTY to IOPEN",
    )?;
    s.bring(kind::CLOSE, zone.start, State::CLOSED)?;
    s.must(&write(zone.start + unit as u64 / SECTOR, pattern(2, unit)))?;
    s.expect_state(
        zone.start,
        State::IOPEN,
        "OUT takes a zone from CLOSED to IOPEN",
    )
}

fn append_opens(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    s.must(&append(zone.start, pattern(1, unit)))?;
    s.expect_state(
        zone.start,
        State::IOPEN,
        "ZONE_APPEND takes a zone from EMPTY to IOPEN",
    )?;
    s.bring(kind::CLOSE, zone.start, State::CLOSED)?;
    s.must(&append(zone.start, pattern(2, unit)))?;
    s.expect_state(
        zone.start,
        State::IOPEN,
        "ZONE_APPEND takes a zone from CLOSED to IOPEN",
    )
}

fn write_keeps_explicit(s: &mut Subject) -> Verdict {
    let zone = zone_in(s, State::EOPEN)?;
    s.must(&write(zone.start, pattern(1, s.device.unit())))?;
    s.expect_state(zone.start, State::EOPEN, "a write leaves the zone EOPEN")
}

fn reset_all(s: &mut Subject) -> Verdict {
    let zones = s.sequential(4)?;
    let states = [State::IOPEN, State::CLOSED, State::FULL, State::EOPEN];
    // Only what the limits leave room for.
    for (zone, state) in zones.iter().zip(states) {
        let _ = bring(s, zone, state);
    }
    let answer = s.run(&Request::new(kind::RESET_ALL, 0))?;
    let required = "ZONE_RESET_ALL takes all sequential zones to EMPTY";
    answer.expect(&[status::OK], required)?;
    for zone in zones {
        s.expect_state(zone.start, State::EMPTY, required)?;
    }
    Ok(())
}

fn refused(s: &mut Subject, command: u32) -> Verdict {
    let zone = zone_in(s, State::FULL)?;
    let answer = s.run(&Request::new(command, zone.start))?;
    let required = "from FULL a zone goes to EMPTY only, by a reset";
    answer.expect(&[status::INVALID_CMD], required)?;
    let now = s.zone_at(zone.start)?.state;
    require(
        now == State::FULL,
        "a refused command changes nothing",
        || format!("the zone is {now}"),
    )
}

const COMMANDS: [u32; 4] = [kind::OPEN, kind::CLOSE, kind::FINISH, kind::RESET];

fn inside(s: &mut Subject) -> Verdict {
    let zone = zone_in(s, State::IOPEN)?;
    let sectors = s.device.unit() as u64 / SECTOR;
    for command in COMMANDS {
        let answer = s.run(&Request::new(command, zone.start + sectors))?;
        answer.expect(&[status::INVALID_CMD], "the sector is not a zone's first")?;
    }
    s.expect_state(
        zone.start,
        State::IOPEN,
        "a refused command changes nothing",
    )
}

fn beyond(s: &mut Subject) -> Verdict {
    s.zoned()?;
    s.writable()?;
    let end = s.device.zone_count() * s.device.zone_sectors();
    for command in COMMANDS {
        for sector in [end, u64::MAX / 4096 * 4096] {
            let answer = s.run(&Request::new(command, sector))?;
            answer.expect(&[status::INVALID_CMD], "there is no such zone")?;
        }
    }
    Ok(())
}
