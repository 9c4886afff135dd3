use clap::Parser;
use zbd_core::{IoQueue, ZoneId};

use super::*;
use crate::{
    cli::{Cli, Command},
    failure::Exit,
    job::control,
};

fn plan(arguments: &str) -> Plan {
    let words = arguments.split_whitespace();
    let cli = Cli::try_parse_from(["zbd-bench", "zoneops"].into_iter().chain(words)).unwrap();
    match cli.command {
        Some(Command::Zoneops(args)) => Plan::resolve(&args).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A device, and its zones as somebody left them.
fn device(spec: &str, states: &[(u32, ZoneState)]) -> (IoQueue, Vec<Zone>) {
    let mut queue = IoQueue::open(spec).unwrap();
    let mut report = control::report(&mut queue, 0..u32::MAX).unwrap();
    for (zone, state) in states {
        report[*zone as usize].state = *state;
    }
    (queue, report)
}

fn ids(zones: &[Zone]) -> Vec<ZoneId> {
    zones.iter().map(|zone| zone.id).collect()
}

#[test]
fn zones_are_shared_out_within_the_limits() {
    for (limits, options, appended, managed, room) in [
        ("", "", 4, 4, None),
        ("", "--zones 3", 1, 2, None),
        ("", "--zones 1", 0, 1, None),
        ("", "--no-load", 0, 8, None),
        (",max-open=7,max-active=7", "", 4, 4, Some(3)),
        (",max-open=3", "", 2, 6, Some(1)),
        (",max-open=1", "", 0, 8, Some(1)),
    ] {
        let unlimited = if limits.is_empty() {
            ",max-open=0,max-active=0"
        } else {
            limits
        };
        let spec = format!("emu:zones=10,conventional=1{unlimited}");
        let (queue, report) = device(&spec, &[]);
        let layout = plan(&format!("emu: {options}"))
            .layout(queue.info(), &report)
            .unwrap();
        let counts = (layout.appended.len(), layout.managed.len(), layout.room);
        assert_eq!(counts, (appended, managed, room), "{limits} {options}");
        let all = [ids(&layout.appended), ids(&layout.managed)].concat();
        assert!(
            all.into_iter()
                .eq((1..=appended as u32 + managed as u32).map(ZoneId))
        );
        let silent = appended > 0 || options == "--no-load";
        assert_eq!(layout.no_load.is_none(), silent, "{limits} {options}");
    }
}

#[test]
fn zones_of_others_take_their_part_of_the_limits() {
    let spec = "emu:zones=12,max-open=4,max-active=6";
    for (states, room) in [
        // Of 4 open and 6 active ones; those that are implicitly open are closed if need be.
        (
            &[(9, ZoneState::ImplicitlyOpen), (10, ZoneState::Closed)][..],
            4,
        ),
        (
            &[(9, ZoneState::ExplicitlyOpen), (10, ZoneState::Closed)],
            3,
        ),
        (
            &[
                (8, ZoneState::Closed),
                (9, ZoneState::Closed),
                (10, ZoneState::Closed),
            ],
            3,
        ),
        // Those of the zones that are used are emptied first.
        (&[(0, ZoneState::ExplicitlyOpen), (1, ZoneState::Closed)], 4),
    ] {
        let (queue, report) = device(spec, states);
        let layout = plan("emu: --no-load")
            .layout(queue.info(), &report)
            .unwrap();
        assert_eq!(layout.room, Some(room), "{states:?}");
    }
    let (queue, report) = device(
        "emu:zones=12,max-open=1,max-active=1",
        &[(10, ZoneState::Closed)],
    );
    let refusal = plan("emu:").layout(queue.info(), &report).unwrap_err();
    assert_eq!(refusal.exit(), Exit::Device);
    assert!(
        refusal.message().starts_with("zone 10 uses up the limits"),
        "{}",
        refusal.message()
    );
}

#[test]
fn zones_that_cannot_be_written_are_passed_over() {
    let states = [
        (0, ZoneState::Offline),
        (2, ZoneState::ReadOnly),
        (3, ZoneState::Full),
    ];
    let (queue, report) = device("emu:zones=6", &states);
    let layout = plan("emu:").layout(queue.info(), &report).unwrap();
    let all = [ids(&layout.appended), ids(&layout.managed)].concat();
    assert_eq!(all, [1, 3, 4, 5].map(ZoneId));
}

#[test]
fn data_are_destroyed_by_consent_only() {
    let (queue, report) = device(
        "emu:zones=10",
        &[(3, ZoneState::Full), (9, ZoneState::Full)],
    );
    let refusal = |arguments: &str| {
        let refusal = plan(arguments).layout(queue.info(), &report).err();
        refusal.map(|refusal| refusal.message().to_owned())
    };
    let refused = refusal("/dev/null").unwrap();
    assert!(refused.contains("zone 3 is not empty") && refused.contains("--destroy"));
    let refused = refusal("/dev/null --zones 3").unwrap();
    assert!(
        refused.contains("zones 3, 9") && refused.contains("--ops"),
        "{refused}"
    );
    assert_eq!(refusal("/dev/null --zones 3 --ops reset"), None);
    assert_eq!(refusal("/dev/null --destroy"), None);
    assert_eq!(refusal("emu:"), None);
}

#[test]
fn fewer_samples_are_taken_rather_than_too_much_written() {
    let plan = plan("emu: --repeat 20 --fill-limit 1m");
    assert_eq!(plan.samples(0), 20);
    assert_eq!(plan.samples(1 << 16), 16);
    assert_eq!(plan.samples(1 << 30), 3);
}
