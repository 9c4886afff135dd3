//! Writes to zones.

use crate::{
    Level::{Defined, Must},
    Model, Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{read, write},
    subject::Subject,
    wire::{SECTOR, kind, status},
    zone::{State, Zone},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "write-at-pointer",
        "5.2.6",
        Defined,
        "A write of write_granularity bytes at the write pointer of an SWR zone succeeds.",
        at_pointer,
    ),
    Requirement::new(
        "write-off-pointer",
        "5.2.6.2",
        Must,
        "An OUT whose sector is not aligned with the zone's write pointer ends with \
         ZONE_UNALIGNED_WP.",
        off_pointer,
    ),
    Requirement::new(
        "write-granularity-end",
        "5.2.6",
        Defined,
        "A write to an SWR zone that does not end at a multiple of write_granularity ends with \
         ZONE_UNALIGNED_WP.",
        granularity_end,
    ),
    Requirement::new(
        "write-beyond-zone-capacity",
        "5.2.6.2",
        Must,
        "An OUT that exceeds the remaining capacity of its zone ends with ZONE_INVALID_CMD.",
        beyond_capacity,
    ),
    Requirement::new(
        "write-across-zones",
        "5.2.6.2",
        Must,
        "An OUT to an SWR zone with sectors in more than one zone ends with ZONE_INVALID_CMD.",
        across,
    ),
    Requirement::new(
        "write-full",
        "5.2.6.2",
        Must,
        "An OUT to a full SWR zone, which exceeds its remaining capacity, is refused with \
         ZONE_INVALID_CMD, or ZONE_UNALIGNED_WP where the sector counts first.",
        full,
    ),
    Requirement::new(
        "write-fills",
        "5.2.6",
        Defined,
        "A write with which the zone reaches its writable capacity takes it to FULL.",
        fills,
    ),
    Requirement::new(
        "preferred-write",
        "5.2.6",
        Defined,
        "SWP zones accept writes at other sectors than the write pointer.",
        preferred,
    ),
];

/// Writes the zone from its start on until `left` bytes of its capacity are.
pub(super) fn fill(s: &mut Subject, zone: &Zone, left: usize) -> Verdict<u64> {
    const PIECE: usize = 256 << 10;
    let unit = s.device.unit();
    let total = zone.capacity * SECTOR;
    if total > s.options.most_written_bytes {
        return undecidable(format!(
            "a zone has {} MiB, and no more than {} MiB are written for this",
            total >> 20,
            s.options.most_written_bytes >> 20
        ));
    }
    if !total.is_multiple_of(unit as u64) || total < left as u64 {
        return undecidable(format!(
            "the capacity of {total} bytes is no multiple of {unit}, or too small"
        ));
    }
    let end = zone.start + (total - left as u64) / SECTOR;
    let piece = (PIECE / unit * unit)
        .min(s.device.segment_len() / unit * unit)
        .max(unit);
    let mut at = zone.start;
    while at < end {
        let len = piece.min(((end - at) * SECTOR) as usize);
        s.must(&write(at, pattern(at, len)))?;
        at += len as u64 / SECTOR;
    }
    Ok(end)
}

fn at_pointer(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    for i in 0..3 {
        let at = zone.start + i * unit as u64 / SECTOR;
        let answer = s.run(&write(at, pattern(i, unit)))?;
        answer.expect(&[status::OK], "a write at the write pointer succeeds")?;
    }
    Ok(())
}

fn off_pointer(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    let sectors = unit as u64 / SECTOR;
    let required = "the write pointer is elsewhere";
    let answer = s.run(&write(zone.start + sectors, vec![0; unit]))?;
    answer.expect(&[status::UNALIGNED_WP], required)?;
    s.must(&write(zone.start, pattern(1, unit)))?;
    s.must(&write(zone.start + sectors, pattern(2, unit)))?;
    for at in [zone.start, zone.start + sectors, zone.start + 3 * sectors] {
        let answer = s.run(&write(at, vec![0; unit]))?;
        answer.expect(&[status::UNALIGNED_WP], required)?;
    }
    let answer = s.must(&read(zone.start, unit))?;
    answer.expect_data(&pattern(1, unit), "a refused write changes nothing")
}

fn granularity_end(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    if unit < 1024 {
        return not_applicable("write_granularity is a sector: every write ends at a multiple");
    }
    for len in [SECTOR as usize, unit + SECTOR as usize] {
        let answer = s.run(&write(zone.start, vec![0; len]))?;
        answer.expect(
            &[status::UNALIGNED_WP],
            "the write does not end at a multiple of write_granularity",
        )?;
    }
    Ok(())
}

/// Ends a check whose request would exceed the device's capacity, too: then two rules apply.
fn inside(s: &Subject, zone: &Zone, len: u64) -> Verdict {
    let end = zone.start + s.device.zone_sectors() + len / SECTOR;
    match end <= s.device.capacity_sectors {
        true => Ok(()),
        false => undecidable("no zone that can be written is followed by enough others"),
    }
}

fn beyond_capacity(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    inside(s, &zone, 2 * unit as u64)?;
    let at = fill(s, &zone, unit)?;
    let answer = s.run(&write(at, vec![0; 2 * unit]))?;
    answer.expect(
        &[status::INVALID_CMD],
        "the remaining capacity is half as much",
    )?;
    let now = s.zone_at(zone.start)?;
    require(
        now.pointer == at && now.state != State::FULL,
        "a refused write changes nothing",
        || format!("the zone is {now:?}"),
    )
}

fn across(s: &mut Subject) -> Verdict {
    const MOST: u64 = 4 << 20;
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    let rest = (s.device.zone_sectors().saturating_sub(zone.capacity)) * SECTOR + 2 * unit as u64;
    if rest > MOST {
        return undecidable("the zone's capacity ends too far from the next zone");
    }
    inside(s, &zone, rest)?;
    let at = fill(s, &zone, unit)?;
    let answer = s.run(&write(at, vec![0; rest as usize]))?;
    answer.expect(&[status::INVALID_CMD], "the write has sectors in two zones")
}

fn full(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    let unit = s.device.unit();
    s.bring(kind::OPEN, zone.start, State::EOPEN)?;
    s.bring(kind::FINISH, zone.start, State::FULL)?;
    let answer = s.run(&write(zone.start, vec![0; unit]))?;
    answer.expect(
        &[status::INVALID_CMD, status::UNALIGNED_WP],
        "a full zone takes no writes",
    )
}

fn fills(s: &mut Subject) -> Verdict {
    let zone = s.zone()?;
    let unit = s.device.unit();
    let at = fill(s, &zone, unit)?;
    let answer = s.run(&write(at, pattern(at, unit)))?;
    answer.expect(&[status::OK], "the zone's last block can be written")?;
    s.expect_state(zone.start, State::FULL, "the zone has reached its capacity")
}

fn preferred(s: &mut Subject) -> Verdict {
    s.zoned()?;
    if s.device.model != Model::HostAware {
        return not_applicable("the device has no sequential-write-preferred zones");
    }
    let zone = s.zone()?;
    let unit = s.device.unit();
    let sectors = unit as u64 / SECTOR;
    for (block, seed) in [(3, 1), (0, 2), (3, 3)] {
        let at = zone.start + block * sectors;
        let answer = s.run(&write(at, pattern(seed, unit)))?;
        answer.expect(
            &[status::OK],
            "a write elsewhere than at the write pointer succeeds",
        )?;
        let answer = s.must(&read(at, unit))?;
        answer.expect_data(&pattern(seed, unit), "what was written is read")?;
    }
    Ok(())
}
