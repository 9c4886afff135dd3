//! Zones that have failed.

use crate::{
    Level::Must,
    Requirement,
    outcome::Verdict,
    request::{Request, append, read, write},
    subject::Subject,
    wire::{kind, status},
    zone::State,
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "read-only-zone",
        "5.2.6.2",
        Must,
        "OUT and ZONE_APPEND to a zone that is read-only end with ZONE_INVALID_CMD.",
        read_only,
    ),
    Requirement::new(
        "read-only-zone-commands",
        "5.2.6.2",
        Must,
        "OPEN, CLOSE, FINISH and RESET of a zone that is read-only, from which no transition \
         leads there, end with ZONE_INVALID_CMD.",
        read_only_commands,
    ),
    Requirement::new(
        "offline-zone",
        "5.2.6.2",
        Must,
        "All requests to a zone that is offline end with ZONE_INVALID_CMD.",
        offline,
    ),
];

fn writes(s: &mut Subject, start: u64, required: &str) -> Verdict {
    let data = vec![0; s.device.unit()];
    let answer = s.run(&write(start, data.clone()))?;
    answer.expect(&[status::INVALID_CMD], required)?;
    if s.device.max_append_sectors() > 0 {
        let answer = s.run(&append(start, data))?;
        answer.expect(&[status::INVALID_CMD], required)?;
    }
    Ok(())
}

fn commands(s: &mut Subject, start: u64, required: &str) -> Verdict {
    for kind in [kind::OPEN, kind::CLOSE, kind::FINISH, kind::RESET] {
        let answer = s.run(&Request::new(kind, start))?;
        answer.expect(&[status::INVALID_CMD], required)?;
    }
    Ok(())
}

fn read_only(s: &mut Subject) -> Verdict {
    let zone = s.failed(State::READ_ONLY)?;
    s.writable()?;
    writes(s, zone.start, "the zone is read-only")
}

fn read_only_commands(s: &mut Subject) -> Verdict {
    let zone = s.failed(State::READ_ONLY)?;
    s.writable()?;
    commands(s, zone.start, "the zone is read-only")
}

fn offline(s: &mut Subject) -> Verdict {
    let zone = s.failed(State::OFFLINE)?;
    s.writable()?;
    let required = "the zone is offline";
    writes(s, zone.start, required)?;
    commands(s, zone.start, required)?;
    let answer = s.run(&read(zone.start, s.device.unit()))?;
    answer.expect(&[status::INVALID_CMD], required)
}
