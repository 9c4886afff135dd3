use zbd_core::{Sector, SectorCount, Zone, ZoneId, ZoneState, ZoneType};

use super::*;
use crate::verify::ledger::Record;

const CAPACITY: u64 = 6000;

fn limits(max_open: Option<u32>, max_active: Option<u32>) -> Limits {
    Limits {
        unit: 8,
        most: 256,
        max_open,
        max_active,
        appends: true,
    }
}

fn zones(count: u32) -> Vec<ZoneLedger> {
    let zone = |id: u32| Zone {
        id: ZoneId(id),
        start: Sector(u64::from(id) * 8192),
        size: SectorCount(8192),
        capacity: SectorCount(CAPACITY),
        write_pointer: Some(Sector(u64::from(id) * 8192)),
        zone_type: ZoneType::SequentialRequired,
        state: ZoneState::Empty,
    };
    (0..count).map(|id| ZoneLedger::new(&zone(id))).collect()
}

/// Does to a zone what a step says, as a device would; says how many sectors were written.
fn perform(zone: &mut ZoneLedger, step: &Step, limits: &Limits) {
    match step {
        Step::Open => {
            assert_ne!(zone.condition, Condition::Full);
            zone.condition = Condition::Explicit;
        }
        Step::Close | Step::Finish => {
            // Not every device closes or finishes one that is not open, or is empty.
            assert_eq!(zone.condition, Condition::Explicit);
            assert!(zone.written > 0);
            zone.condition = match step {
                Step::Close => Condition::Closed,
                _ => Condition::Full,
            };
        }
        Step::Reset => zone.reset(),
        Step::Append(lengths) | Step::Write(lengths) => {
            for &sectors in lengths {
                assert_ne!(zone.condition, Condition::Full);
                assert!(sectors > 0 && sectors <= limits.most && sectors % limits.unit == 0);
                assert!(zone.written + u64::from(sectors) <= zone.capacity);
                zone.add(Record {
                    sector: zone.write_pointer().0,
                    round: 1,
                    sequence: 1,
                    task: 0,
                    sectors,
                });
            }
        }
        Step::Flush | Step::Look => {}
    }
}

fn count(zones: &[ZoneLedger], is_one: fn(Condition) -> bool) -> u32 {
    let conditions = zones.iter().map(|zone| zone.condition);
    conditions.filter(|condition| is_one(*condition)).count() as u32
}

fn is_explicit(condition: Condition) -> bool {
    condition == Condition::Explicit
}

#[test]
fn a_round_is_decided_by_the_seed_its_number_and_the_zones() {
    let (limits, zones) = (limits(None, None), zones(8));
    assert_eq!(round(1, 1, &limits, &zones), round(1, 1, &limits, &zones));
    assert_ne!(round(1, 1, &limits, &zones), round(2, 1, &limits, &zones));
    assert_ne!(round(1, 1, &limits, &zones), round(1, 2, &limits, &zones));
}

#[test]
fn no_round_exceeds_what_the_device_allows() {
    for (max_open, max_active) in [
        (None, None),
        (Some(1), Some(1)),
        (Some(1), Some(3)),
        (Some(2), Some(2)),
        (Some(3), Some(4)),
        (Some(4), None),
    ] {
        let limits = limits(max_open, max_active);
        let mut zones = zones(6);
        for number in 1..400 {
            let planned = round(number.into(), number, &limits, &zones);
            assert!(!planned.scripts.is_empty());
            // All that are written to may be active at the same time, whatever they are reset to.
            let mut active = zones.clone();
            let mut opened = zones.clone();
            for script in &planned.scripts {
                active[script.zone].condition = Condition::Written;
                if script.steps.contains(&Step::Open) {
                    opened[script.zone].condition = Condition::Explicit;
                }
            }
            let active = count(&active, Condition::is_active);
            assert!(max_active.is_none_or(|most| active <= most), "{number}");
            // One more has to be opened to be written to, unless it is all that are.
            let spare = u32::from(
                planned
                    .scripts
                    .iter()
                    .any(|script| opened[script.zone].condition != Condition::Explicit),
            );
            let opened = count(&opened, is_explicit);
            assert!(
                max_open.is_none_or(|most| opened + spare <= most),
                "{number}"
            );
            for script in &planned.scripts {
                for step in &script.steps {
                    perform(&mut zones[script.zone], step, &limits);
                }
            }
            let left = count(&zones, is_explicit);
            assert!(max_open.is_none_or(|most| left < most), "{number}");
        }
    }
}

#[test]
fn everything_there_is_to_do_is_done_in_time() {
    let limits = limits(Some(8), Some(8));
    let mut zones = zones(8);
    let (mut kinds, mut filled, mut reopened, mut mixed) = (Vec::new(), false, false, false);
    for number in 1..40 {
        let planned = round(7, number, &limits, &zones);
        reopened |= planned.reopen;
        let resets = |script: &Script| script.steps.contains(&Step::Reset);
        let appends = |script: &Script| {
            let mut steps = script.steps.iter();
            steps.any(|step| matches!(step, Step::Append(_)))
        };
        mixed |= planned.scripts.iter().any(resets) && planned.scripts.iter().any(appends);
        for script in &planned.scripts {
            for step in &script.steps {
                kinds.push(std::mem::discriminant(step));
                perform(&mut zones[script.zone], step, &limits);
                filled |= zones[script.zone].written == CAPACITY;
            }
        }
    }
    let mut known: Vec<_> = Vec::new();
    for kind in kinds {
        if !known.contains(&kind) {
            known.push(kind);
        }
    }
    assert_eq!(
        known.len(),
        8,
        "open, close, finish, reset, append, write, flush, look"
    );
    assert!(filled && reopened && mixed);
}

#[test]
fn without_appends_everything_is_written_in_order() {
    let limits = Limits {
        appends: false,
        ..limits(None, None)
    };
    for number in 1..50 {
        for script in round(3, number, &limits, &zones(4)).scripts {
            let is_append = |step: &Step| matches!(step, Step::Append(_));
            assert!(!script.steps.iter().any(is_append));
        }
    }
}

#[test]
fn records_have_all_lengths() {
    let limits = limits(None, None);
    let mut lengths: Vec<u32> = Vec::new();
    for number in 1..50 {
        for script in round(5, number, &limits, &zones(4)).scripts {
            for step in script.steps {
                if let Step::Append(some) = step {
                    lengths.extend(some);
                }
            }
        }
    }
    let share = |least: u32, most: u32| {
        let within = |length: &&u32| (least..=most).contains(*length);
        lengths.iter().filter(within).count() as f64 / lengths.len() as f64
    };
    assert!(share(8, 8) > 0.05 && share(256, 256) > 0.02);
    assert!(share(9, 64) > 0.2 && share(65, 255) > 0.2);
}
