//! A device that deviates fails exactly the requirements that it does not meet, each with the request
//! that shows it.

use std::{sync::Arc, time::Duration};

use zbd_check::{Evidence, Options, Outcome, Suite, requirements};
use zbd_emu::Fault;

use super::{SMALL, emulated, failing, outcomes};

/// Passes if exactly `expected` fail.
fn fails(options: &str, expected: &[&str]) {
    let outcomes = outcomes(Arc::new(emulated(options)));
    let failing = failing(&outcomes);
    let mut found: Vec<_> = failing.iter().map(|(id, _)| *id).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{options}: {failing:#?}");
}

#[test]
fn each_quirk_is_found_by_the_checks_meant_for_it() {
    for (quirk, expected) in [
        ("append-overflow", &["append-full"][..]),
        ("append-spills", &["append-beyond-zone-capacity"]),
        (
            "no-resource-status",
            &[
                "active-before-open",
                "active-limit-append",
                "active-limit-open",
                "active-limit-write",
                "open-limit-append",
                "open-limit-open",
                "open-limit-write",
            ],
        ),
        (
            "write-io-error",
            &[
                "active-limit-write",
                "open-limit-write",
                "write-across-zones",
                "write-beyond-zone-capacity",
                "write-full",
                "write-granularity-end",
                "write-off-pointer",
            ],
        ),
        (
            "append-invalid",
            &[
                "active-limit-append",
                "append-granularity-end",
                "open-limit-append",
            ],
        ),
        ("short-report-breaks", &["short-report-answered"]),
        ("short-append-breaks", &["short-append-answered"]),
        ("used-length", &["used-length"]),
        ("zoned-optional", &["host-managed-without-zoned"]),
        (
            "zoned-optional+zoned-always",
            &["host-managed-without-zoned", "zone-requests-without-zoned"],
        ),
        ("id-unpadded", &["get-id", "used-length"]),
        ("read-across", &["read-across-zones"]),
        (
            "close-opens",
            &[
                "close-explicit",
                "close-explicit-unwritten",
                "close-implicit",
            ],
        ),
        (
            "reset-keeps-data",
            &["reset-hides-data", "finish-unwritten"],
        ),
    ] {
        fails(&format!("{SMALL},quirks={quirk}"), expected);
    }
    fails(
        &format!("{SMALL},quirks=append-segments"),
        &["append-granularity-end", "framing-append"],
    );
    // Where blocks are smaller than what an append is aligned to, that is found, too.
    fails(
        "zones=8,zone-size=64k,block-size=512,quirks=append-segments+append-overflow",
        &["append-one-granule", "framing-append", "append-full"],
    );
    fails(&format!("{SMALL},flush=off"), &["flush-offered"]);
}

#[track_caller]
fn failure(outcome: Outcome) -> Evidence {
    match outcome {
        Outcome::Fail(evidence) => evidence,
        other => panic!("it does not fail: {other:?}"),
    }
}

#[test]
fn evidence_names_request_answer_and_what_is_required() {
    let function = Arc::new(emulated(&format!("{SMALL},quirks=append-overflow")));
    let mut suite = Suite::open(function, Options::default()).unwrap();
    let all = requirements();
    let requirement = all.iter().find(|it| it.id == "append-full").unwrap();
    assert_eq!(requirement.clause(), "VIRTIO 1.3, 5.2.6.2");
    let evidence = failure(suite.check(requirement));
    assert_eq!(evidence.found, "status 0 (OK), not ZONE_INVALID_CMD");
    let shown = evidence.exchanges.last().unwrap().to_string();
    assert_eq!(
        shown,
        "ZONE_APPEND (15), sector 0, reads 16+4096 B, writes 9 B: status 0 (OK), in-header [80 00 \
         00 00 00 00 00 00 00], used length 9"
    );
}

#[test]
fn a_device_that_does_not_answer_is_reset_and_the_next_check_goes_on() {
    let function = emulated(SMALL);
    let control = function.control();
    let mut options = Options::default();
    options.patience = Duration::from_secs(1);
    let mut suite = Suite::open(Arc::new(function), options).unwrap();
    let all = requirements();
    let by_id = |id| all.iter().find(|it| it.id == id).unwrap();
    assert_eq!(suite.check(by_id("write-at-pointer")), Outcome::Pass);

    control.hold();
    let evidence = failure(suite.check(by_id("get-id")));
    assert!(evidence.found.contains("within 1s"), "{evidence:?}");
    control.release();
    assert_eq!(suite.check(by_id("get-id")), Outcome::Pass);

    // One that has broken down, and one that breaks the rules of the ring.
    control.needs_reset();
    let evidence = failure(suite.check(by_id("get-id")));
    assert!(
        evidence.found.contains("DEVICE_NEEDS_RESET"),
        "{evidence:?}"
    );
    assert_eq!(suite.check(by_id("get-id")), Outcome::Pass);
    for fault in [
        Fault::UsedId(9999),
        Fault::UsedLen(9999),
        Fault::UsedIndexJump(3),
    ] {
        control.inject(fault);
        let evidence = failure(suite.check(by_id("get-id")));
        assert!(evidence.found.contains("broke the rules"), "{evidence:?}");
        assert_eq!(suite.check(by_id("get-id")), Outcome::Pass);
    }

    // What goes for good leaves everything open, at once.
    control.unplug();
    for requirement in &all {
        if let Outcome::Fail(evidence) = suite.check(requirement) {
            assert!(evidence.found.contains("gone"), "{evidence:?}");
        }
    }
}

#[test]
fn wrong_answers_of_single_requests_are_found() {
    for (id, fault) in [
        ("append-returns-sector", Fault::AppendSector(4096)),
        ("unknown-type", Fault::Status(0)),
        ("flush", Fault::Status(1)),
        ("flush", Fault::Status(9)),
        ("get-id", Fault::Status(0xa5)),
        ("report-succeeds", Fault::Status(3)),
        ("read-beyond-capacity", Fault::Status(0)),
        ("read-beyond-capacity", Fault::Status(7)),
        ("command-beyond-capacity", Fault::Status(0)),
        ("odd-length-answered", Fault::Status(200)),
        ("conventional-commands", Fault::Status(0)),
        ("conventional-append", Fault::Status(1)),
        ("write-zeroes-unknown-flags", Fault::Status(0)),
        ("secure-erase-unknown-flags", Fault::Status(1)),
    ] {
        let function = emulated(&format!("{SMALL},conventional=1,secure-erase=on"));
        let control = function.control();
        let mut suite = Suite::open(Arc::new(function), Options::default()).unwrap();
        let all = requirements();
        let requirement = all.iter().find(|it| it.id == id).unwrap();
        // Zones are known from then on, and those that were used are emptied when the next check
        // begins: so that the next request is the one looked at.
        assert_eq!(suite.check(requirement), Outcome::Pass, "{id}");
        let quiet = all.iter().find(|it| it.id == "flush-offered").unwrap();
        assert_eq!(suite.check(quiet), Outcome::Pass);
        control.inject(fault);
        let outcome = suite.check(requirement);
        assert!(matches!(outcome, Outcome::Fail(_)), "{id}: {outcome:?}");
        assert_eq!(suite.check(requirement), Outcome::Pass, "{id}");
    }
}
