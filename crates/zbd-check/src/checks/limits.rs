//! How many zones may be open and active.

use crate::{
    Level::{Defined, Must},
    Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{Request, append, write},
    subject::Subject,
    wire::{kind, status},
    zone::{State, Zone},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "max-open-reached",
        "5.2.5.2",
        Must,
        "max_open_zones is the maximum number of zones that can be open.",
        max_open,
    ),
    Requirement::new(
        "max-active-reached",
        "5.2.5.2",
        Must,
        "max_active_zones is the maximum number of zones that can be active.",
        max_active,
    ),
    Requirement::new(
        "open-limit-open",
        "5.2.6.2",
        Must,
        "A ZONE_OPEN that lacks open zone resources ends with ZONE_OPEN_RESOURCE, and the zone \
         does not change.",
        |s| beyond_open(s, Way::Open),
    ),
    Requirement::new(
        "open-limit-write",
        "5.2.6.2",
        Must,
        "An OUT that lacks open zone resources ends with ZONE_OPEN_RESOURCE.",
        |s| beyond_open(s, Way::Write),
    ),
    Requirement::new(
        "open-limit-append",
        "5.2.6.2",
        Must,
        "A ZONE_APPEND that lacks open zone resources ends with ZONE_OPEN_RESOURCE.",
        |s| beyond_open(s, Way::Append),
    ),
    Requirement::new(
        "active-limit-open",
        "5.2.6.2",
        Must,
        "A ZONE_OPEN that lacks active zone resources ends with ZONE_ACTIVE_RESOURCE, and the zone \
         does not change.",
        |s| beyond_active(s, Way::Open),
    ),
    Requirement::new(
        "active-limit-write",
        "5.2.6.2",
        Must,
        "An OUT that lacks active zone resources ends with ZONE_ACTIVE_RESOURCE.",
        |s| beyond_active(s, Way::Write),
    ),
    Requirement::new(
        "active-limit-append",
        "5.2.6.2",
        Must,
        "A ZONE_APPEND that lacks active zone resources ends with ZONE_ACTIVE_RESOURCE.",
        |s| beyond_active(s, Way::Append),
    ),
    Requirement::new(
        "active-before-open",
        "5.2.6",
        Defined,
        "A request that exceeds both limits ends with ZONE_ACTIVE_RESOURCE.",
        both,
    ),
    Requirement::new(
        "open-limit-held",
        "5.2.6",
        Defined,
        "No more than max_open_zones zones are open, whatever is written.",
        held,
    ),
];

/// What makes a zone open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Write,
    Append,
}

impl Way {
    /// `unit` is the length of its data.
    fn request(self, unit: usize, zone: &Zone) -> Request {
        let data = || pattern(5, unit);
        match self {
            Self::Open => Request::new(kind::OPEN, zone.start),
            Self::Write => write(zone.start, data()),
            Self::Append => append(zone.start, data()),
        }
    }

    fn unit(self, s: &mut Subject) -> Verdict<usize> {
        match self {
            Self::Append => s.append_len(),
            Self::Open | Self::Write => Ok(s.device.unit()),
        }
    }
}

/// As many empty zones as `limit` and one more.
fn zones(s: &mut Subject, limit: u64, way: Way) -> Verdict<Vec<Zone>> {
    s.zoned()?;
    s.writable()?;
    if limit == 0 {
        return not_applicable("the device states no such limit");
    }
    let count = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    match way {
        Way::Append => s.appendable(count),
        // What a limit means for zones that take writes anywhere is not looked at.
        Way::Open | Way::Write => s.required(count),
    }
}

fn open_limit(s: &Subject) -> u64 {
    s.device.max_open()
}

fn active_limit(s: &Subject) -> u64 {
    s.device.max_active()
}

fn max_open(s: &mut Subject) -> Verdict {
    let zones = zones(s, open_limit(s), Way::Open)?;
    let (_, allowed) = split(&zones)?;
    for zone in allowed {
        let answer = s.run(&Request::new(kind::OPEN, zone.start))?;
        answer.expect(&[status::OK], "max_open_zones zones can be open at once")?;
    }
    Ok(())
}

fn max_active(s: &mut Subject) -> Verdict {
    let zones = zones(s, active_limit(s), Way::Open)?;
    let (_, allowed) = split(&zones)?;
    for zone in allowed {
        let data = pattern(5, s.device.unit());
        let answer = s.run(&write(zone.start, data))?;
        answer.expect(
            &[status::OK],
            "max_active_zones zones can be active at once",
        )?;
        s.bring(kind::CLOSE, zone.start, State::CLOSED)?;
    }
    Ok(())
}

/// The zone that is one too many, and those that are not.
fn split(zones: &[Zone]) -> Verdict<(&Zone, &[Zone])> {
    zones
        .split_first()
        .map_or_else(|| undecidable("there are no zones"), Ok)
}

fn beyond_open(s: &mut Subject, way: Way) -> Verdict {
    let limit = open_limit(s);
    if active_limit(s) != 0 && active_limit(s) <= limit {
        return not_applicable("the limit of active zones is reached no later");
    }
    let unit = way.unit(s)?;
    let zones = zones(s, limit, way)?;
    let (one_more, allowed) = split(&zones)?;
    for zone in allowed {
        s.bring(kind::OPEN, zone.start, State::EOPEN)?;
    }
    let answer = s.run(&way.request(unit, one_more))?;
    answer.expect(
        &[status::OPEN_RESOURCE],
        "max_open_zones zones are explicitly open",
    )?;
    s.expect_state(one_more.start, State::EMPTY, "the zone does not change")
}

fn beyond_active(s: &mut Subject, way: Way) -> Verdict {
    let unit = way.unit(s)?;
    let zones = zones(s, active_limit(s), way)?;
    let (one_more, allowed) = split(&zones)?;
    for zone in allowed {
        s.must(&write(zone.start, pattern(5, s.device.unit())))?;
        s.bring(kind::CLOSE, zone.start, State::CLOSED)?;
    }
    let answer = s.run(&way.request(unit, one_more))?;
    answer.expect(
        &[status::ACTIVE_RESOURCE],
        "max_active_zones zones are closed",
    )?;
    s.expect_state(one_more.start, State::EMPTY, "the zone does not change")
}

fn both(s: &mut Subject) -> Verdict {
    let (open, active) = (open_limit(s), active_limit(s));
    if open == 0 || active == 0 {
        return not_applicable("the device does not state both limits");
    }
    let zones = zones(s, active, Way::Open)?;
    let (one_more, allowed) = split(&zones)?;
    // As many are open as may be, and the rest of those that may be active are closed.
    let closed = active.saturating_sub(open) as usize;
    for (zone, index) in allowed.iter().zip(0..) {
        s.must(&write(zone.start, pattern(5, s.device.unit())))?;
        match index < closed {
            true => s.bring(kind::CLOSE, zone.start, State::CLOSED)?,
            false => s.bring(kind::OPEN, zone.start, State::EOPEN)?,
        }
    }
    let answer = s.run(&Way::Open.request(0, one_more))?;
    answer.expect(&[status::ACTIVE_RESOURCE], "both limits are reached")
}

fn held(s: &mut Subject) -> Verdict {
    let limit = open_limit(s);
    let zones = zones(s, limit, Way::Write)?;
    for zone in &zones {
        // Whether the device closes another or refuses is its choice.
        s.run(&write(zone.start, pattern(5, s.device.unit())))?;
    }
    let mut open = 0;
    for zone in &zones {
        open += u64::from(s.zone_at(zone.start)?.state.is_open());
    }
    require(
        open <= limit,
        "no more than max_open_zones zones are open",
        || format!("{open} are, and max_open_zones is {limit}"),
    )
}
