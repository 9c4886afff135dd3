//! Conventional zones.

use crate::{
    Level::{Defined, Must},
    Requirement,
    outcome::Verdict,
    pattern::pattern,
    request::{Request, append, read, write},
    subject::Subject,
    wire::{SECTOR, kind, status},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "conventional-write",
        "5.2.6",
        Defined,
        "Any block of a conventional zone can be read or written at any time and in any order.",
        anywhere,
    ),
    Requirement::new(
        "conventional-commands",
        "5.2.6.2",
        Must,
        "OPEN, CLOSE, FINISH and RESET of a conventional zone end with ZONE_INVALID_CMD.",
        commands,
    ),
    Requirement::new(
        "conventional-append",
        "5.2.6.2",
        Must,
        "An append to a conventional zone ends with ZONE_INVALID_CMD.",
        appends,
    ),
];

fn anywhere(s: &mut Subject) -> Verdict {
    let zone = s.conventional()?;
    s.writable()?;
    let unit = s.device.unit();
    let sectors = unit as u64 / SECTOR;
    let blocks = (s.device.zone_sectors() / sectors).min(8);
    for block in [blocks - 1, 0, blocks / 2, 0] {
        let at = zone.start + block * sectors;
        let data = pattern(block, unit);
        let answer = s.run(&write(at, data.clone()))?;
        answer.expect(&[status::OK], "a conventional zone is written anywhere")?;
        let answer = s.run(&read(at, unit))?;
        answer.expect(&[status::OK], "a conventional zone is read anywhere")?;
        answer.expect_data(&data, "what was written is read")?;
    }
    Ok(())
}

fn commands(s: &mut Subject) -> Verdict {
    let zone = s.conventional()?;
    s.writable()?;
    for kind in [kind::OPEN, kind::CLOSE, kind::FINISH, kind::RESET] {
        let answer = s.run(&Request::new(kind, zone.start))?;
        answer.expect(
            &[status::INVALID_CMD],
            "conventional zones take no zone commands",
        )?;
    }
    Ok(())
}

fn appends(s: &mut Subject) -> Verdict {
    let zone = s.conventional()?;
    s.writable()?;
    if s.device.max_append_sectors() == 0 {
        return crate::outcome::not_applicable(
            "max_append_sectors is 0: the device takes no appends",
        );
    }
    let answer = s.run(&append(zone.start, vec![0; s.device.unit()]))?;
    answer.expect(&[status::INVALID_CMD], "conventional zones take no appends")
}
