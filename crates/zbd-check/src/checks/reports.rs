//! Zone reports.

use crate::{
    Level::Defined,
    Model, Requirement,
    outcome::{Verdict, require, undecidable},
    pattern::pattern,
    request::{Request, write},
    subject::Subject,
    wire::{REPORT_ENTRY, SECTOR, kind, status},
    zone::{CONVENTIONAL, Report, SWP, SWR, State, Zone},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "report-succeeds",
        "5.2.6",
        Defined,
        "A zone report returns the state of the device's zones.",
        succeeds,
    ),
    Requirement::new(
        "report-count",
        "5.2.6",
        Defined,
        "nr_zones is the number of descriptors that were transferred whole.",
        count,
    ),
    Requirement::new(
        "report-first-zone",
        "5.2.6",
        Defined,
        "A report begins with the zone that contains the request's sector.",
        first_zone,
    ),
    Requirement::new(
        "report-grid",
        "5.2.5.2",
        crate::Level::Must,
        "All zones have the size zone_sectors, except that the last may be smaller; their number \
         follows from capacity.",
        grid,
    ),
    Requirement::new(
        "report-capacity",
        "5.2.6",
        Defined,
        "z_cap is no more than zone_sectors.",
        capacity,
    ),
    Requirement::new(
        "report-types",
        "5.2.6",
        Defined,
        "z_type is CONV, SWR or SWP; a host-managed device has SWR zones, a host-aware one SWP \
         zones.",
        types,
    ),
    Requirement::new(
        "report-states",
        "5.2.6",
        Defined,
        "z_state is one that is defined, NOT_WP for conventional zones and for no others.",
        states,
    ),
    Requirement::new(
        "report-pointer",
        "5.2.6",
        Defined,
        "z_wp is the zone's start in an empty zone, and moves by the sectors written.",
        pointer,
    ),
];

fn every(s: &mut Subject, required: &str, holds: impl Fn(u64, &Zone) -> bool) -> Verdict {
    for (zone, index) in s.zones()?.iter().zip(0..) {
        require(holds(index, zone), required, || {
            format!("zone {index} is {zone:?}")
        })?;
    }
    Ok(())
}

fn succeeds(s: &mut Subject) -> Verdict {
    s.zoned()?;
    let answer = s.run(&Request::new(kind::REPORT, 0).receives(2 * REPORT_ENTRY))?;
    answer.expect(&[status::OK], "a report from sector 0 on succeeds")
}

fn count(s: &mut Subject) -> Verdict {
    s.zoned()?;
    let half = REPORT_ENTRY / 2;
    for len in [2 * REPORT_ENTRY, 2 * REPORT_ENTRY + half, 3 * REPORT_ENTRY] {
        let answer = s.must(&Request::new(kind::REPORT, 0).receives(len))?;
        let count = Report::parse(answer.data()).count;
        let room = (len / REPORT_ENTRY - 1) as u64;
        require(count <= room, "nr_zones is what fits", || {
            format!("it is {count}, and {len} bytes have room for {room}")
        })?;
    }
    let last = s.device.capacity_sectors - 1;
    let answer = s.must(&Request::new(kind::REPORT, last).receives(4 * REPORT_ENTRY))?;
    let count = Report::parse(answer.data()).count;
    require(count <= 1, "from the last zone on there is one", || {
        format!("nr_zones is {count}")
    })
}

fn first_zone(s: &mut Subject) -> Verdict {
    s.zoned()?;
    let size = s.device.zone_sectors();
    let count = s.device.zone_count();
    let capacity = s.device.capacity_sectors;
    let middle = count / 2 * size;
    for sector in [
        0,
        middle,
        middle + size / 2,
        middle + size - 1,
        capacity - 1,
    ] {
        let sector = sector.min(capacity - 1);
        let zone = s.zone_at(sector)?;
        let expected = sector / size * size;
        require(
            zone.start == expected,
            "the first zone contains the sector",
            || format!("z_start is {}, not {expected}", zone.start),
        )?;
    }
    Ok(())
}

fn grid(s: &mut Subject) -> Verdict {
    let size = s.device.zone_sectors();
    every(s, "zone n begins at n * zone_sectors", |index, zone| {
        zone.start == index * size
    })?;
    let (found, count) = (s.zones()?.len() as u64, s.device.zone_count());
    require(
        found == count,
        "as many zones as follow from capacity",
        || format!("{found} zones are reported, not {count}"),
    )
}

fn capacity(s: &mut Subject) -> Verdict {
    let size = s.device.zone_sectors();
    every(s, "z_cap is no more than zone_sectors", |_, zone| {
        zone.capacity <= size
    })
}

fn types(s: &mut Subject) -> Verdict {
    let sequential = match s.device.model {
        Model::HostAware => SWP,
        _ => SWR,
    };
    every(
        s,
        "zones are of the types of the device's model",
        |_, zone| zone.kind == CONVENTIONAL || zone.kind == sequential,
    )
}

fn states(s: &mut Subject) -> Verdict {
    every(
        s,
        "states are defined, NOT_WP for conventional zones only",
        |_, zone| {
            zone.state.name() != "undefined"
                && (zone.state == State::NOT_WP) == (zone.kind == CONVENTIONAL)
        },
    )
}

fn pointer(s: &mut Subject) -> Verdict {
    let zone = s.zone()?;
    let now = s.zone_at(zone.start)?;
    require(
        now.pointer == zone.start,
        "z_wp of an empty zone is its start",
        || format!("it is {}, not {}", now.pointer, zone.start),
    )?;
    let unit = s.device.unit();
    let mut expected = zone.start;
    for units in [1, 2] {
        s.must(&write(expected, pattern(1, units * unit)))?;
        expected += (units * unit) as u64 / SECTOR;
        let now = s.zone_at(zone.start)?;
        if !now.state.has_pointer() {
            return undecidable(format!("the zone is {} after a write", now.state));
        }
        require(
            now.pointer == expected,
            "z_wp moves by the sectors written",
            || format!("it is {}, not {expected}", now.pointer),
        )?;
    }
    Ok(())
}
