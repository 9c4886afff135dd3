//! What `zbd-bench verify` finds on devices that work, and on those that do not.

use std::{process::Stdio, thread, time::Duration};

use serde_json::Value;

use crate::harness::{interrupt, run, text, tool};

fn number(result: &Value, field: &str) -> u64 {
    result[field].as_u64().expect(field)
}

/// The result of a run that finds nothing wrong.
#[track_caller]
fn clean(device: &str, options: &str) -> Value {
    let arguments = format!("verify {device} --format json {options}");
    let output = run(&arguments);
    assert_eq!(text(&output.stderr), "", "{arguments}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("the tool prints JSON");
    assert_eq!(output.status.code(), Some(0), "{document}");
    assert_eq!(document["schema"], "zbd-bench/1");
    assert_eq!(document["interrupted"], false);
    let result = document["results"][0].clone();
    assert_eq!(result["verdict"], "pass", "{result}");
    assert_eq!(result["findings_total"], 0);
    assert_eq!(result["reproduce"], Value::Null);
    assert!(number(&result, "reopens") > 0);
    assert!(number(&result, "records_written") > 20, "{result}");
    let verified = number(&result, "records_verified");
    assert!(
        verified * 2 > number(&result, "records_written"),
        "{result}"
    );
    result
}

/// The result of a run that finds something.
#[track_caller]
fn failing(arguments: &str) -> Value {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments}: {message}");
    assert!(
        message.starts_with("zbd-bench: verification failed in round"),
        "{message}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("the tool prints JSON");
    let result = document["results"][0].clone();
    assert_eq!(result["verdict"], "fail");
    result
}

const SMALL: &str = "zones=8,zone-size=1m";

#[test]
fn devices_of_every_shape_are_right() {
    for device in [
        "emu:zones=8,zone-size=1m,ring=packed",
        "emu:zones=9,zone-size=1m,zone-cap=764k,conventional=3,queues=2",
        "emu:zones=8,zone-size=1m,max-open=1,max-active=1",
        "emu:zones=8,zone-size=1m,max-open=2,max-active=3",
        "emu:zones=4,zone-size=600k,block-size=512,max-append=7k",
        "emu:zones=2,zone-size=64k,max-append=4k,queues=1,queue-size=8",
        "emu:zones=5,zone-size=1m,max-append=1m,latency=100us",
        "emu:zones=5,zone-size=1m,indirect=off,seg-max=4,size-max=128k",
    ] {
        let result = clean(device, "--rounds 12 --seed 1");
        assert_eq!(result["append"], "native");
        assert!(number(&result, "appends") > 20, "{device}: {result}");
        assert!(number(&result, "writes") > 0, "{device}: {result}");
        assert!(number(&result, "zone_resets") > 0, "{device}: {result}");
    }
}

#[test]
fn a_device_in_a_file_is_right_after_it_was_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let device = format!("emu:store={},{SMALL},cache=512k", path.display());
    let result = clean(&device, "--rounds 12 --seed 2 --queues 2");
    assert!(number(&result, "reopens") > 1, "{result}");
    // Of what a run has left nothing can be mistaken for what the next one writes.
    clean(&device, "--rounds 3 --seed 2");
}

#[test]
fn a_device_without_appends_is_written_in_order() {
    for device in [
        "emu:zones=8,zone-size=1m,max-append=0",
        "emu:zones=8,zone-size=1m,model=ha",
    ] {
        let result = clean(device, "--rounds 12 --seed 3");
        assert_eq!(result["append"], "none");
        assert_eq!(number(&result, "appends"), 0);
        let output = run(&format!("verify {device} --rounds 1"));
        assert!(text(&output.stdout).contains("takes no appends"));
    }
}

#[test]
fn tasks_depth_zones_and_time_are_as_asked() {
    let device = format!("emu:{SMALL}");
    let one = clean(&device, "--rounds 8 --tasks 1 --depth 1 --zones 1 --seed 4");
    let many = clean(
        &device,
        "--rounds 8 --tasks 40 --depth 9 --zones 8 --seed 4",
    );
    assert!(number(&many, "appends") > number(&one, "appends"));
    let timed = clean(&device, "--duration 300ms");
    let seconds = timed["seconds"].as_f64().expect("seconds");
    assert!(
        number(&timed, "rounds") > 1 && (0.25..30.0).contains(&seconds),
        "{timed}"
    );
    // What is written depends on nothing but the seed.
    let again = clean(
        &device,
        "--rounds 8 --tasks 40 --depth 9 --zones 8 --seed 4",
    );
    for field in [
        "appends",
        "writes",
        "bytes_written",
        "zone_resets",
        "zone_finishes",
    ] {
        assert_eq!(again[field], many[field], "{field}");
    }
}

/// Runs until the fault is found, and as the report says once more.
#[track_caller]
fn assert_found(device: &str, kind: &str) -> Value {
    let first = failing(&format!(
        "verify {device} --rounds 200 --seed 6 --format json"
    ));
    let found = &first["findings"][0];
    assert_eq!(found["kind"], kind, "{first:#}");
    let line = first["reproduce"].as_str().expect("a command");
    let arguments = line.strip_prefix("zbd-bench ").expect("this tool");
    let again = failing(&format!("{arguments} --format json"));
    assert_eq!(again["findings"][0]["kind"], kind, "{again:#}");
    assert_eq!(again["rounds"], first["rounds"]);
    first
}

#[test]
fn a_flipped_bit_is_found() {
    let result = assert_found(&format!("emu:{SMALL},fault=flip-bit@200"), "flipped-bit");
    let found = &result["findings"][0];
    let difference = &found["difference"];
    let bytes = |name: &str| difference[name].as_str().expect(name).to_owned();
    assert_eq!(bytes("expected").len(), 64);
    assert_ne!(bytes("expected"), bytes("found"));
    assert_eq!(found["found"], "unknown");
    assert_eq!(result["findings_total"], 1);
    let (zone, sector) = (number(found, "zone"), number(found, "sector"));
    assert_eq!(sector / 2048, zone);
    assert_eq!(number(&found["expected"], "zone"), zone);
}

#[test]
fn swapped_sectors_are_found() {
    let result = assert_found(
        &format!("emu:{SMALL},fault=swap-sectors@200"),
        "swapped-sectors",
    );
    let found = &result["findings"][0];
    let (expected, record) = (&found["expected"], &found["found_record"]);
    assert_eq!(expected["sequence"], record["sequence"]);
    assert_eq!(expected["index"], 0);
    assert_eq!(number(record, "index") + 1, number(record, "sectors"));
}

#[test]
fn a_record_elsewhere_than_reported_is_found() {
    let result = assert_found(
        &format!("emu:{SMALL},fault=misreport@200"),
        "misplaced-record",
    );
    let found = &result["findings"][0];
    let says = format!(
        "was reported at sector {} and lies at sector {}",
        number(found, "sector"),
        number(found, "sector") + 8
    );
    let told = found["text"].as_str().expect("a text");
    assert!(told.contains(&says), "{told}");
}

#[test]
fn a_lost_append_is_found() {
    let result = assert_found(&format!("emu:{SMALL},fault=lose-append@200"), "lost-append");
    let told = result["findings"][0]["text"].as_str().expect("a text");
    assert!(
        told.contains("nowhere in the zone") || told.contains("write pointer"),
        "{told}"
    );
    // One of the first round, whose data are lost, has nothing but zeroes in its place.
    let result = assert_found(&format!("emu:{SMALL},fault=lose-data@3"), "lost-append");
    assert_eq!(result["findings"][0]["found"], "zeroes");
}

#[test]
fn a_duplicated_append_is_found() {
    assert_found(
        &format!("emu:{SMALL},fault=repeat-append@200"),
        "duplicated-append",
    );
}

#[test]
fn data_of_an_earlier_round_are_found() {
    // By then all of so small a disk has been written to.
    let result = assert_found(
        "emu:zones=2,zone-size=128k,max-append=32k,fault=lose-data@300",
        "stale-data",
    );
    let found = &result["findings"][0];
    assert_eq!(found["found"], "record");
    let round = |field: &str| number(&found[field], "round");
    assert!(round("found_record") <= round("expected"), "{found}");
    assert_ne!(
        found["found_record"]["sequence"],
        found["expected"]["sequence"]
    );
}

#[test]
fn faults_of_a_device_in_a_file_are_found() {
    for (fault, kind) in [
        ("flip-bit@60", "flipped-bit"),
        ("misreport@60", "misplaced-record"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        let device = format!("emu:store={},{SMALL},fault={fault}", path.display());
        assert_found(&device, kind);
    }
}

#[test]
fn faults_of_writes_are_found_where_there_are_no_appends() {
    let device = format!("emu:{SMALL},max-append=0,fault=flip-bit@100");
    assert_found(&device, "flipped-bit");
}

#[test]
fn the_report_of_a_failure_can_be_read() {
    let device = format!("emu:{SMALL},fault=swap-sectors@100");
    let output = run(&format!("verify {device} --seed 1 --rounds 100"));
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    for word in [
        "FAILED in round",
        "swapped-sectors",
        "expected",
        "found",
        "seed 1",
    ] {
        assert!(report.contains(word), "{word}: {report}");
    }
    let reproduce = report.lines().last().expect("a line");
    let again = format!("reproduce: zbd-bench verify {device} --seed 1 --rounds ");
    assert!(reproduce.starts_with(&again), "{reproduce}");
    let wide = |line: &&str| line.chars().count() > 80 && !line.starts_with("reproduce: ");
    assert_eq!(report.lines().find(wide), None, "{report}");
    let clean = text(&run(&format!("verify emu:{SMALL} --rounds 2")).stdout);
    assert!(
        clean.contains("All records are where the device said"),
        "{clean}"
    );
    assert!(
        clean.lines().all(|line| line.chars().count() <= 80),
        "{clean}"
    );
}

#[test]
fn an_interrupted_run_says_what_it_did() {
    // Nothing it was told to do would end it.
    let child = tool("verify emu:zones=4,zone-size=1m --duration 10min --format json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    thread::sleep(Duration::from_millis(700));
    interrupt(&child);
    let output = child.wait_with_output().expect("the tool ends");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["interrupted"], true);
    assert_eq!(document["results"][0]["verdict"], "interrupted");
    assert!(number(&document["results"][0], "records_written") > 0);
}

#[track_caller]
fn assert_refused(arguments: &str, code: i32, word: &str) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments}: {message}");
    assert!(message.contains(word), "{arguments}: {message}");
    assert_eq!(text(&output.stdout), "", "{arguments}");
}

#[test]
fn what_cannot_be_verified_is_refused() {
    for (arguments, code, word) in [
        ("verify", 2, "DEVICE"),
        ("verify nonsense", 2, "nonsense"),
        ("verify emu: --tasks 0", 2, "--tasks 0"),
        ("verify emu: --depth 0", 2, "--depth 0"),
        ("verify emu: --rounds 0", 2, "--rounds 0"),
        ("verify emu: --zones 0", 2, "--zones 0"),
        ("verify emu: --zones 65", 2, "64 sequential zones"),
        ("verify emu: --queues 3", 2, "3"),
        ("verify emu: --duration 0", 2, "--duration 0"),
        ("verify emu:fault=flip-bit", 2, "KIND@N"),
        ("verify emu:store=null", 3, "store=mem"),
        ("verify emu:model=none", 3, "not a zoned device"),
        ("verify emu:conventional=64", 3, "no sequential zones"),
        ("verify emu:readonly=on", 3, "read-only"),
        ("verify /dev/null", 3, "/dev/null"),
    ] {
        assert_refused(arguments, code, word);
    }
}
