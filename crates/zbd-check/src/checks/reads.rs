//! Reads of zones.

use super::writes::fill;
use crate::{
    Level::Must,
    Requirement,
    outcome::{Verdict, require, undecidable},
    pattern::{difference, pattern},
    request::{Request, read, write},
    subject::Subject,
    wire::{SECTOR, kind, status},
    zone::State,
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "read-across-zones",
        "5.2.6.2",
        Must,
        "An IN of an SWR zone with sectors in more than one zone ends with ZONE_INVALID_CMD.",
        across,
    ),
    Requirement::new(
        "read-unwritten",
        "5.2.6.2",
        Must,
        "A read beyond the write pointer is filled with a pattern of the device's, or fails; what \
         is before the pointer is not changed by that.",
        unwritten,
    ),
    Requirement::new(
        "reset-hides-data",
        "5.2.6.2",
        Must,
        "After a reset, what lies beyond the write pointer is unwritten: earlier data are not \
         returned.",
        after_reset,
    ),
    Requirement::new(
        "finish-unwritten",
        "5.2.6.2",
        Must,
        "After a finish, sectors that were not written count as unwritten: earlier data are not \
         returned.",
        after_finish,
    ),
];

fn across(s: &mut Subject) -> Verdict {
    let zones = s.required(2)?;
    let (first, second) = (zones[0], zones[1]);
    if second.start != first.start + s.device.zone_sectors() {
        return undecidable("no two sequential zones are neighbours");
    }
    let unit = s.device.unit();
    let sectors = unit as u64 / SECTOR;
    // All of it written, where that can be: a device may fail reads of what is not.
    if first.capacity == s.device.zone_sectors() {
        fill(s, &first, 0)?;
        s.must(&write(second.start, pattern(1, unit)))?;
    }
    let answer = s.run(&read(second.start - sectors, 2 * unit))?;
    answer.expect(&[status::INVALID_CMD], "the read has sectors in two zones")
}

fn unwritten(s: &mut Subject) -> Verdict {
    let zone = s.zone()?;
    let unit = s.device.unit();
    s.must(&write(zone.start, pattern(1, unit)))?;
    let answer = s.run(&read(zone.start, 2 * unit))?;
    require(answer.is_status_written(), "the read is answered", || {
        answer.told()
    })?;
    if answer.status() != status::OK {
        return Ok(());
    }
    answer.expect_data(
        &pattern(1, unit),
        "what is before the write pointer is read",
    )?;
    // What the memory held before is no pattern of the device's.
    let other = s.run(&read(zone.start, 2 * unit).filled_with(0x5a))?;
    if other.status() != status::OK {
        return Ok(());
    }
    let same = difference(&answer.data()[unit..], &other.data()[unit..]).is_none();
    require(same, "the rest is filled with the device's pattern", || {
        "it was left as it was".to_owned()
    })
}

/// Fails if a read of `zone` yields what was there under `seed`.
fn hidden(s: &mut Subject, sector: u64, old: &[u8]) -> Verdict {
    let answer = s.run(&read(sector, old.len()))?;
    if answer.status() != status::OK {
        return Ok(());
    }
    require(
        answer.data() != old,
        "earlier data are not returned",
        || "they are".to_owned(),
    )
}

fn after_reset(s: &mut Subject) -> Verdict {
    let zone = s.zone()?;
    let unit = s.device.unit();
    let old = pattern(11, 2 * unit);
    s.must(&write(zone.start, old.clone()))?;
    s.bring(kind::RESET, zone.start, State::EMPTY)?;
    hidden(s, zone.start, &old[..unit])?;
    s.must(&write(zone.start, pattern(12, unit)))?;
    hidden(s, zone.start + unit as u64 / SECTOR, &old[unit..])
}

fn after_finish(s: &mut Subject) -> Verdict {
    let zone = s.zone()?;
    let unit = s.device.unit();
    let old = pattern(13, 2 * unit);
    s.must(&write(zone.start, old.clone()))?;
    s.bring(kind::RESET, zone.start, State::EMPTY)?;
    s.must(&write(zone.start, pattern(14, unit)))?;
    s.must(&Request::new(kind::FINISH, zone.start))?;
    hidden(s, zone.start + unit as u64 / SECTOR, &old[unit..])?;
    let answer = s.must(&read(zone.start, unit))?;
    answer.expect_data(&pattern(14, unit), "what was written is read")
}
