use zbd_core::{SectorCount, ZoneId, ZoneState, ZoneType};

use super::*;
use crate::verify::ledger::Condition;

const START: u64 = 8192;

fn report(state: ZoneState, written: u64) -> Zone {
    let has_pointer = matches!(state, ZoneState::Empty) || state.is_active();
    Zone {
        id: ZoneId(1),
        start: Sector(START),
        size: SectorCount(8192),
        capacity: SectorCount(6000),
        write_pointer: has_pointer.then_some(Sector(START + written)),
        zone_type: ZoneType::SequentialRequired,
        state,
    }
}

/// A zone with records at these sectors, counted from its start, of these lengths.
fn ledger(records: &[(u64, u32)]) -> ZoneLedger {
    let mut ledger = ZoneLedger::new(&report(ZoneState::Empty, 0));
    for (sequence, &(sector, sectors)) in (1..).zip(records) {
        ledger.add(Record {
            sector: START + sector,
            round: 1,
            sequence,
            task: 0,
            sectors,
        });
    }
    ledger
}

fn kinds(findings: Vec<Finding>) -> Vec<Kind> {
    findings.into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn records_join_from_the_start_of_their_zone() {
    let found = |records: &[(u64, u32)]| kinds(compare_places(&ledger(records)));
    assert_eq!(found(&[]), []);
    assert_eq!(found(&[(0, 8), (8, 16), (24, 8)]), []);
    assert_eq!(found(&[(8, 8)]), [Kind::Gap]);
    assert_eq!(found(&[(0, 8), (16, 8), (24, 8)]), [Kind::Gap]);
    assert_eq!(found(&[(0, 8), (0, 8), (8, 8)]), [Kind::Overlap]);
    assert_eq!(
        found(&[(0, 16), (8, 8), (32, 8)]),
        [Kind::Overlap, Kind::Gap]
    );
    let mut doubtful = ledger(&[(8, 8)]);
    doubtful.doubtful = true;
    assert_eq!(kinds(compare_places(&doubtful)), []);
}

#[test]
fn the_write_pointer_is_where_the_records_end() {
    let found = |report: Zone| {
        kinds(compare_report(
            &mut ledger(&[(0, 8), (8, 16)]),
            &report,
            After::Writing,
        ))
    };
    assert_eq!(found(report(ZoneState::ImplicitlyOpen, 24)), []);
    assert_eq!(found(report(ZoneState::Closed, 24)), []);
    for written in [0, 16, 32] {
        let report = report(ZoneState::ImplicitlyOpen, written);
        assert_eq!(found(report), [Kind::WritePointer], "{written}");
    }
    // Old data have come back, or new ones have gone.
    assert_eq!(
        found(report(ZoneState::Empty, 0)),
        [Kind::ZoneState, Kind::WritePointer]
    );
    let moved = Zone {
        start: Sector(START + 8),
        ..report(ZoneState::ImplicitlyOpen, 24)
    };
    assert_eq!(found(moved), [Kind::ZoneState]);
}

#[test]
fn the_state_is_what_was_done_to_the_zone() {
    use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};
    let all = [Empty, ImplicitlyOpen, ExplicitlyOpen, Closed, Full];
    for (condition, after_writing, after_reopening) in [
        (Condition::Empty, &[Empty][..], &[Empty][..]),
        (
            Condition::Written,
            &[ImplicitlyOpen, Closed],
            &[ImplicitlyOpen, Closed],
        ),
        (
            Condition::Explicit,
            &[ExplicitlyOpen],
            &[ImplicitlyOpen, ExplicitlyOpen, Closed],
        ),
        (Condition::Closed, &[Closed], &[Closed]),
        (Condition::Full, &[Full], &[Full]),
    ] {
        for (after, allowed) in [
            (After::Writing, after_writing),
            (After::Reopening, after_reopening),
        ] {
            for state in all {
                let mut ledger = ledger(&[(0, 8)]);
                ledger.condition = condition;
                let found = kinds(compare_report(&mut ledger, &report(state, 8), after));
                assert_eq!(
                    found.is_empty(),
                    allowed.contains(&state),
                    "{condition:?} is {state} after {after:?}"
                );
            }
        }
    }
    // One that was opened and not written to has nothing to keep it from being empty again.
    let mut opened = ledger(&[]);
    opened.condition = Condition::Explicit;
    let found = compare_report(&mut opened, &report(Empty, 0), After::Reopening);
    assert_eq!(kinds(found), []);
    assert_eq!(opened.condition, Condition::Empty);
}
