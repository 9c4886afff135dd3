//! `zbd-bench check`.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::harness::{assert_refused, interrupt, run, start, text};

const SMALL: &str =
    "emu:zones=8,zone-size=64k,max-append=16k,max-open=3,max-active=5,conventional=1";

/// What it prints, if it ends with `code` and says `complaint`.
#[track_caller]
fn ends(arguments: &str, code: i32, complaint: &str) -> String {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {errors}");
    match complaint.is_empty() {
        true => assert_eq!(errors, "", "{arguments}"),
        false => {
            assert!(errors.contains(complaint), "{arguments}: {errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
    }
    text(&output.stdout)
}

fn json(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).expect("the tool prints JSON");
    assert_eq!(value["schema"], "zbd-bench/1");
    value
}

#[test]
fn a_conforming_device_passes_and_nothing_is_wider_than_a_terminal() {
    let printed = ends(&format!("check {SMALL}"), 0, "");
    assert!(printed.contains("host-managed, 8 zones of 128 sectors"));
    assert!(printed.contains("\n  ok   MUST     append-full\n"));
    assert!(printed.contains(" 0 not met, 0 warnings,"));
    let listed = ends("check --list", 0, "");
    assert!(listed.contains("VIRTIO 1.3, 5.2.6.2  Device Requirements: Device Operation"));
    let failed = ends(
        &format!("check {SMALL},quirks=append-overflow+no-resource-status+used-length"),
        1,
        "9 requirements are not met",
    );
    for line in printed.lines().chain(listed.lines()).chain(failed.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_failure_is_told_with_clause_request_and_answer() {
    let device = format!("{SMALL},quirks=append-overflow");
    let only = "--only append-full --only flush,get-id";
    let complaint = "1 requirement is not met";
    let printed = ends(&format!("check {device} {only}"), 1, complaint);
    assert!(
        printed.contains("\n  FAIL MUST     append-full\n"),
        "{printed}"
    );
    for words in [
        "VIRTIO 1.3, 5.2.6.2",
        "required: a full zone has no capacity left",
        "found: status 0 (OK), not ZONE_INVALID_CMD",
        "ZONE_APPEND (15), sector 128, reads 16+4096 B, writes 9 B:",
        "3 requirements: 2 met, 1 not met",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }

    let printed = ends(
        &format!("check {device} {only} --format json"),
        1,
        complaint,
    );
    let value = json(&printed);
    assert_eq!(value["summary"]["failed"], 1);
    assert_eq!(value["summary"]["met"], 2);
    assert_eq!(value["interrupted"], false);
    let requirements = value["requirements"].as_array().expect("requirements");
    let failed = requirements.iter().find(|it| it["outcome"] == "fail");
    let failed = failed.expect("one failed");
    assert_eq!(failed["id"], "append-full");
    assert_eq!(failed["level"], "MUST");
    assert_eq!(failed["clause"], "VIRTIO 1.3, 5.2.6.2");
    let requests = failed["requests"].as_array().expect("requests");
    let last = requests.last().expect("one at least");
    assert_eq!(last["type_name"], "ZONE_APPEND");
    assert_eq!((&last["sector"], &last["status"]), (&128.into(), &0.into()));

    let printed = ends(
        &format!("check {device} {only} --format junit"),
        1,
        complaint,
    );
    assert!(printed.starts_with("<?xml"), "{printed}");
    assert!(printed.contains(r#"tests="3""#) && printed.contains(r#"failures="1""#));
    assert!(
        printed.contains(r#"<testcase name="append-full""#),
        "{printed}"
    );
}

#[test]
fn what_should_be_counts_with_strict_only() {
    let device = "emu:zones=4,zone-size=64k,flush=off";
    let printed = ends(&format!("check {device} --only flush-offered"), 0, "");
    assert!(
        printed.contains("\n  warn SHOULD   flush-offered\n"),
        "{printed}"
    );
    assert!(printed.contains("0 not met, 1 warnings"), "{printed}");
    ends(
        &format!("check {device} --only flush-offered --strict"),
        1,
        "1 requirement is not met",
    );
}

#[test]
fn what_cannot_be_checked_is_refused() {
    for (arguments, code, complaint) in [
        ("check", 2, "DEVICE"),
        ("check emu: --only append", 2, "--list"),
        ("check --list --format junit", 2, "text or JSON"),
        ("check emu:zones=x", 2, "zones=x"),
        ("check /dev/null", 3, "zbd-bench bind"),
        ("check pci:0000:00:1f.7", 3, "--destroy"),
        ("check pci:0000:00:1f.7 --destroy", 3, "0000:00:1f.7"),
    ] {
        assert_refused(arguments, code, complaint);
    }
    let value = json(&ends("check --list --only flush --format json", 0, ""));
    assert_eq!(value["requirements"][0]["id"], "flush");
}

#[test]
fn interrupted_it_tells_what_is_known() {
    // Each request takes a while, so that there is something to interrupt.
    let child = start(&format!("check {SMALL},latency=20ms"));
    thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    let output = child.wait_with_output().expect("the tool ends");
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{printed}{errors}");
    assert!(errors.contains("interrupted after "), "{errors}");
    assert!(printed.contains("more were not looked at"), "{printed}");
}
