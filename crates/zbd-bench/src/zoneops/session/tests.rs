use clap::Parser;
use zbd_core::{Backend, OpenOptions};
use zbd_emu::{Control, EmulatedFunction, Fault, ZoneState as Emulated};

use super::*;
use crate::cli::{Cli, Command};

/// A session on a device of 8 zones, of which 0 to 3 are appended to, and a hand on its other side.
fn session(options: &str) -> (Session, IoQueue, Control) {
    const SPEC: &str = "emu:zones=8,zone-size=256k";
    let words = [
        "zbd-bench",
        "zoneops",
        SPEC,
        "--repeat",
        "3",
        "--runtime",
        "2ms",
    ];
    let cli = Cli::try_parse_from(words.into_iter().chain(options.split_whitespace())).unwrap();
    let Some(Command::Zoneops(args)) = cli.command else {
        panic!("{cli:?}");
    };
    let plan = Plan::resolve(&args).unwrap();
    let config = SPEC.strip_prefix("emu:").unwrap().parse().unwrap();
    let function = EmulatedFunction::new(&config).unwrap();
    let control = function.control();
    let options = OpenOptions {
        queues: 2,
        ..OpenOptions::default()
    };
    let queues = options.open_function(Arc::new(function), Backend::Emulated, SPEC.to_owned());
    let [operations, appends] = <[IoQueue; 2]>::try_from(queues.unwrap()).unwrap();
    let session = Session::begin(plan, operations, Stop::default).unwrap();
    (session, appends, control)
}

fn ended(mut session: Session, appends: IoQueue) -> (Finished, String) {
    session.measure(Some(appends));
    let finished = session.finish(Instant::now());
    let trouble = finished.trouble.as_ref().map(Trouble::text);
    (finished, trouble.expect("something went wrong"))
}

#[test]
fn failure_says_what_could_not_be_done_to_which_zone_in_which_state() {
    let (session, appends, control) = session("--ops report,finish");
    control.fail_zone(5, Emulated::ReadOnly).unwrap();
    let (finished, trouble) = ended(session, appends);
    assert!(
        trouble.starts_with("cannot finish zone 5, which is read-only"),
        "{trouble}"
    );
    // What was measured before is there, and so is where it ended.
    let counts = finished
        .results
        .iter()
        .map(|one| (one.latency.count(), one.errors));
    assert_eq!(counts.collect::<Vec<_>>(), [(3, 0), (3, 0), (1, 1)]);
    assert!(finished.load.is_none());
}

#[test]
fn failure_to_prepare_a_zone_is_told_from_that_of_the_operation() {
    let (session, appends, control) = session("--ops reset");
    control.fail_zone(4, Emulated::Offline).unwrap();
    let (_, trouble) = ended(session, appends);
    assert!(
        trouble.starts_with("cannot fill zone 4, which is offline, to prepare it"),
        "{trouble}"
    );
}

#[test]
fn failure_beside_appends_keeps_what_was_measured_alone() {
    for (zone, words) in [
        (2, "cannot append to zones 0, 1, 2, 3 beside"),
        (4, "cannot open zone 4, which is read-only"),
    ] {
        let (mut session, appends, control) = session("--ops report,open");
        session.alone().unwrap();
        control.fail_zone(zone, Emulated::ReadOnly).unwrap();
        let trouble = session.beside(Some(appends)).unwrap_err();
        session.failed(trouble);
        let finished = session.finish(Instant::now());
        let trouble = finished.trouble.as_ref().map(Trouble::text).unwrap();
        assert!(trouble.contains(words), "{trouble}");
        assert!(finished.results.iter().all(|one| one.latency.count() == 3));
        assert_eq!(
            finished.results.iter().map(|one| one.errors).sum::<u64>(),
            1
        );
        // A zone that cannot be emptied is named.
        let not_emptied = finished.not_emptied.unwrap();
        assert!(
            not_emptied.contains(&format!("zone {zone}")),
            "{not_emptied}"
        );
    }
}

#[test]
fn device_that_goes_is_asked_for_nothing_more() {
    let (mut session, appends, control) = session("");
    session.alone().unwrap();
    control.unplug();
    let trouble = session.beside(Some(appends)).unwrap_err();
    assert_eq!(trouble.error.kind(), ErrorKind::DeviceGone);
    session.failed(trouble);
    let finished = session.finish(Instant::now());
    assert_eq!(
        finished.not_emptied.as_deref(),
        Some("the device does not answer")
    );
}

#[test]
fn refusal_to_finish_an_empty_zone_is_no_failure() {
    let (mut session, appends, control) = session("--ops finish");
    control.inject(Fault::Status(3));
    session.measure(Some(appends));
    let finished = session.finish(Instant::now());
    assert!(finished.trouble.is_none(), "{:?}", finished.trouble);
    let empty = &finished.results[0];
    assert_eq!((empty.latency.count(), empty.errors), (0, 0));
    assert!(
        empty
            .refused
            .as_ref()
            .is_some_and(|why| why.contains("INVALID_CMD"))
    );
    assert!(empty.beside.is_none());
    let others = &finished.results[1..];
    assert!(
        others
            .iter()
            .all(|one| one.refused.is_none() && one.beside.is_some())
    );
}

#[test]
fn stopped_session_measures_no_more_and_empties_its_zones() {
    let (mut session, appends, control) = session("");
    session.alone().unwrap();
    session.hands.stop.set();
    session.measure(Some(appends));
    let finished = session.finish(Instant::now());
    assert!(finished.trouble.is_none() && finished.not_emptied.is_none());
    assert!((0..8).all(|zone| control.zone_state(zone) == Some(Emulated::Empty)));
}
