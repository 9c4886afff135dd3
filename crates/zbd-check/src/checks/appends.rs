//! Zone appends.

use std::collections::BTreeSet;

use super::writes::fill;
use crate::{
    Level::{Defined, Must},
    Model, Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{Request, append, read},
    subject::Subject,
    wire::{SECTOR, kind, status},
    zone::State,
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "append-returns-sector",
        "5.2.6.2",
        Must,
        "append_sector of a successful append is the first sector of the data written to the zone.",
        returns_sector,
    ),
    Requirement::new(
        "append-one-granule",
        "5.2.5.2",
        Must,
        "write_granularity is the alignment of appends: one of as many bytes succeeds, wherever the \
         write pointer is.",
        one_granule,
    ),
    Requirement::new(
        "append-granularity-end",
        "5.2.6",
        Defined,
        "An append that does not end at a multiple of write_granularity ends with \
         ZONE_UNALIGNED_WP.",
        granularity_end,
    ),
    Requirement::new(
        "append-largest",
        "5.2.5.2",
        Must,
        "max_append_sectors is the largest append that can succeed.",
        largest,
    ),
    Requirement::new(
        "append-too-long",
        "5.2.6.2",
        Must,
        "An append that exceeds a max_append_sectors other than zero ends with ZONE_INVALID_CMD.",
        too_long,
    ),
    Requirement::new(
        "append-unsupported",
        "5.2.6.2",
        Must,
        "Where max_append_sectors is zero, an append ends with UNSUPP.",
        unsupported,
    ),
    Requirement::new(
        "append-inside-zone",
        "5.2.6.2",
        Must,
        "An append whose sector is not the lowest of a zone ends with ZONE_INVALID_CMD.",
        inside_zone,
    ),
    Requirement::new(
        "append-beyond-capacity",
        "5.2.6",
        Defined,
        "An append to a zone that does not exist, an error of the zoned model, ends with \
         ZONE_INVALID_CMD.",
        no_such_zone,
    ),
    Requirement::new(
        "append-preferred",
        "5.2.6.2",
        Must,
        "An append to an SWP zone ends with ZONE_INVALID_CMD.",
        preferred,
    ),
    Requirement::new(
        "append-beyond-zone-capacity",
        "5.2.6.2",
        Must,
        "An append that exceeds the remaining capacity of its zone ends with ZONE_INVALID_CMD.",
        beyond_capacity,
    ),
    Requirement::new(
        "append-full",
        "5.2.6.2",
        Must,
        "An append to a full zone, which exceeds its remaining capacity, ends with \
         ZONE_INVALID_CMD.",
        full,
    ),
    Requirement::new(
        "append-fills",
        "5.2.6",
        Defined,
        "An append with which the zone reaches its writable capacity takes it to FULL.",
        fills,
    ),
    Requirement::new(
        "append-many",
        "5.2.6.2",
        Must,
        "Of appends to one zone at once, each is written where its append_sector says.",
        many,
    ),
];

fn sector_is(found: u64, expected: u64) -> Verdict {
    require(
        found == expected,
        "append_sector is where the write pointer was",
        || format!("it is {found}, not {expected}"),
    )
}

fn returns_sector(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zones = s.appendable(2)?;
    for index in 0..4 {
        for zone in &zones {
            let data = pattern(zone.start + index, unit);
            let answer = s.must(&append(zone.start, data.clone()))?;
            let expected = zone.start + index * unit as u64 / SECTOR;
            sector_is(answer.append_sector(), expected)?;
            let answer = s.must(&read(expected, unit))?;
            answer.expect_data(&data, "the data are at append_sector")?;
        }
    }
    Ok(())
}

fn one_granule(s: &mut Subject) -> Verdict {
    let zone = s.appendable(1)?[0];
    let unit = s.device.unit();
    for seed in 0..9 {
        let answer = s.run(&append(zone.start, pattern(seed, unit)))?;
        answer.expect(
            &[status::OK],
            "an append of write_granularity bytes succeeds",
        )?;
    }
    Ok(())
}

fn granularity_end(s: &mut Subject) -> Verdict {
    let zone = s.appendable(1)?[0];
    let unit = s.device.unit();
    if unit < 1024 {
        return not_applicable("write_granularity is a sector: every append ends at a multiple");
    }
    let answer = s.run(&append(zone.start, vec![0; SECTOR as usize]))?;
    answer.expect(
        &[status::UNALIGNED_WP],
        "the append does not end at a multiple of write_granularity",
    )
}

/// The length of the largest append in bytes, if a request of it can be made.
fn largest_len(s: &Subject) -> Verdict<usize> {
    const MOST: u64 = 4 << 20;
    let len = s.device.max_append_sectors() * SECTOR;
    match len <= MOST {
        true => Ok(len as usize),
        false => undecidable(format!(
            "max_append_sectors is more than {} MiB",
            MOST >> 20
        )),
    }
}

fn largest(s: &mut Subject) -> Verdict {
    let zone = s.appendable(1)?[0];
    let len = largest_len(s)?;
    if len as u64 > zone.capacity * SECTOR {
        return undecidable("max_append_sectors is more than a zone's capacity");
    }
    let unit = s.device.unit();
    if !len.is_multiple_of(unit) {
        return undecidable("max_append_sectors is no multiple of write_granularity");
    }
    let data = pattern(3, len);
    let answer = s.run(&append(zone.start, data.clone()))?;
    answer.expect(&[status::OK], "an append of max_append_sectors succeeds")?;
    sector_is(answer.append_sector(), zone.start)?;
    // The end of it is what a device that cuts it short would lose.
    let last = zone.start + (len - unit) as u64 / SECTOR;
    let answer = s.must(&read(last, unit))?;
    answer.expect_data(&data[len - unit..], "all of the data are there")
}

fn too_long(s: &mut Subject) -> Verdict {
    let zone = s.appendable(1)?[0];
    let unit = s.device.unit();
    let len = (largest_len(s)? / unit + 1) * unit;
    let answer = s.run(&append(zone.start, vec![0; len]))?;
    answer.expect(
        &[status::INVALID_CMD],
        "the append is longer than max_append_sectors",
    )?;
    s.expect_state(zone.start, State::EMPTY, "a refused append changes nothing")
}

fn unsupported(s: &mut Subject) -> Verdict {
    let zone = s.required(1)?[0];
    if s.device.max_append_sectors() != 0 {
        return not_applicable("max_append_sectors is not 0");
    }
    let answer = s.run(&append(zone.start, vec![0; s.device.unit()]))?;
    answer.expect(&[status::UNSUPP], "max_append_sectors is 0")
}

fn inside_zone(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    let sectors = unit as u64 / SECTOR;
    s.must(&append(zone.start, pattern(1, unit)))?;
    // One of them is where the write pointer is.
    for sector in [zone.start + sectors, zone.start + 2 * sectors] {
        let answer = s.run(&append(sector, vec![0; unit]))?;
        answer.expect(&[status::INVALID_CMD], "the sector is not a zone's first")?;
    }
    Ok(())
}

fn no_such_zone(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    s.appendable(1)?;
    let end = s.device.zone_count() * s.device.zone_sectors();
    for sector in [end, u64::MAX / 4096 * 4096] {
        let answer = s.run(&append(sector, vec![0; unit]))?;
        answer.expect(&[status::INVALID_CMD], "there is no such zone")?;
    }
    Ok(())
}

fn preferred(s: &mut Subject) -> Verdict {
    s.zoned()?;
    if s.device.model != Model::HostAware {
        return not_applicable("the device has no sequential-write-preferred zones");
    }
    if s.device.max_append_sectors() == 0 {
        return not_applicable("max_append_sectors is 0: the device takes no appends");
    }
    let zone = s.zone()?;
    let answer = s.run(&append(zone.start, vec![0; s.device.unit()]))?;
    answer.expect(&[status::INVALID_CMD], "the zone is not an SWR zone")
}

fn beyond_capacity(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    if 2 * unit as u64 / SECTOR > s.device.max_append_sectors() {
        return undecidable("max_append_sectors is less than two blocks");
    }
    fill(s, &zone, unit)?;
    let answer = s.run(&append(zone.start, vec![0; 2 * unit]))?;
    answer.expect(
        &[status::INVALID_CMD],
        "the remaining capacity is half as much",
    )
}

fn full(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    s.bring(kind::OPEN, zone.start, State::EOPEN)?;
    s.bring(kind::FINISH, zone.start, State::FULL)?;
    let answer = s.run(&append(zone.start, vec![0; unit]))?;
    answer.expect(&[status::INVALID_CMD], "a full zone has no capacity left")
}

fn fills(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    let at = fill(s, &zone, unit)?;
    let answer = s.run(&append(zone.start, pattern(at, unit)))?;
    answer.expect(&[status::OK], "the zone's last block can be appended")?;
    sector_is(answer.append_sector(), at)?;
    s.expect_state(zone.start, State::FULL, "the zone has reached its capacity")
}

fn many(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    const COUNT: u64 = 8;
    let zone = s.appendable(1)?[0];
    let requests: Vec<Request> = (0..COUNT)
        .map(|seed| append(zone.start, pattern(seed + 100, unit)))
        .collect();
    if COUNT * unit as u64 / SECTOR > zone.capacity {
        return undecidable("the zone is too small");
    }
    let answers = s.run_all(&requests)?;
    let mut sectors = BTreeSet::new();
    for answer in &answers {
        answer.expect(&[status::OK], "appends that fit succeed")?;
        sectors.insert(answer.append_sector());
    }
    let expected: BTreeSet<_> = (0..COUNT)
        .map(|index| zone.start + index * unit as u64 / SECTOR)
        .collect();
    require(
        sectors == expected,
        "the data lie one after the other",
        || format!("append_sectors are {sectors:?}, not {expected:?}"),
    )?;
    for (answer, seed) in answers.iter().zip(100..) {
        let found = s.must(&read(answer.append_sector(), unit))?;
        found.expect_data(&pattern(seed, unit), "the data are at append_sector")?;
    }
    Ok(())
}
