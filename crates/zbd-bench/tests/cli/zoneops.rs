//! `zbd-bench zoneops`.

use serde_json::{Value, json};

use crate::harness::{self, assert_refused, interrupt, start, text};

/// Small zones, so that filling them takes no time.
const SMALL: &str = "emu:zones=16,zone-size=512k,conventional=2";
/// As fast as it goes.
const QUICK: &str = "--repeat 3 --runtime 2ms";

#[track_caller]
fn stdout(arguments: &str) -> String {
    harness::stdout(&format!("zoneops {arguments}"))
}

#[track_caller]
fn json(arguments: &str) -> Value {
    let document = harness::json(&format!("zoneops {arguments} --format json"));
    assert_eq!(document["schema"], "zbd-bench/1");
    document
}

fn results(document: &Value) -> &Vec<Value> {
    document["results"].as_array().expect("results")
}

/// What each result is about: operation, state and fill level.
fn about(document: &Value) -> Vec<(String, Value, u64)> {
    let about = |result: &Value| {
        (
            result["op"].as_str().expect("op").to_owned(),
            result["state"].clone(),
            result["fill_bytes"].as_u64().expect("fill_bytes"),
        )
    };
    results(document).iter().map(about).collect()
}

#[track_caller]
fn assert_ordered(latency: &Value) {
    let order = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let order = order.map(|name| latency[name].as_u64().expect("a number"));
    assert!(order[0] > 0 && order.is_sorted(), "{latency}");
}

#[test]
fn every_operation_is_measured_alone_and_beside_appends() {
    let document = json(&format!("{SMALL} {QUICK}"));
    let kib = |n: u64| n << 10;
    let expected = [
        ("report", None, 0),
        ("report", None, 0),
        ("open", Some("empty"), 0),
        ("open", Some("closed"), kib(4)),
        ("close", Some("exp-open"), kib(4)),
        ("finish", Some("empty"), 0),
        ("finish", Some("imp-open"), kib(4)),
        ("finish", Some("imp-open"), kib(128)),
        ("finish", Some("imp-open"), kib(256)),
        ("finish", Some("imp-open"), kib(384)),
        ("finish", Some("imp-open"), kib(508)),
        ("reset", Some("imp-open"), kib(4)),
        ("reset", Some("imp-open"), kib(256)),
        ("reset", Some("full"), kib(512)),
        ("reset-all", Some("full"), kib(512)),
        ("flush", None, kib(4)),
    ];
    let expected = expected.map(|(op, state, fill)| (op.to_owned(), json!(state), fill));
    assert_eq!(about(&document), expected);
    for result in results(&document) {
        assert_eq!(result["samples"], 3, "{result}");
        assert_eq!(result["errors"], 0, "{result}");
        assert_eq!(result["refused"], Value::Null, "{result}");
        assert_ordered(&result["latency_ns"]);
        let beside = &result["beside"];
        if result["op"] == "reset-all" {
            assert_eq!(
                *beside,
                Value::Null,
                "it would empty the zones of the appends"
            );
            continue;
        }
        // One in which the processor was elsewhere does not count.
        let rounds = beside["rounds"].as_array().map_or(0, Vec::len);
        assert!((1..=5).contains(&rounds), "{beside}");
        assert_ordered(&beside["operation"]["latency_ns"]);
        for phase in ["alone", "loaded"] {
            assert_ordered(&beside[phase]["latency_ns"]);
            assert!(beside[phase]["seconds"].as_f64() > Some(0.0), "{beside}");
        }
        let ratio = |name: &str| beside["iops_ratio"][name].as_f64().expect("a number");
        assert!(ratio("min") <= ratio("median") && ratio("median") <= ratio("max"));
    }
    assert_eq!(results(&document)[0]["zones"], 16);
    assert_eq!(
        results(&document)[14]["zones"],
        8,
        "reset-all, all that are used"
    );
    assert_eq!(document["config"]["zones"], json!([2, 3, 4, 5, 6, 7, 8, 9]));
    let load = &document["load"];
    assert_eq!((&load["op"], &load["zones"]), (&json!("append"), &json!(4)));
    assert_eq!(load["same_queue"], false);
    assert_eq!(document["zones_left_empty"], true);
    assert_eq!(document["interrupted"], false);
    assert_eq!(document["error"], Value::Null);
}

#[test]
fn only_what_is_asked_for_is_measured() {
    let document = json(&format!("{SMALL} {QUICK} --no-load --ops close,report"));
    let ops: Vec<String> = about(&document).into_iter().map(|(op, ..)| op).collect();
    assert_eq!(ops, ["report", "report", "close"]);
    assert_eq!(document["load"], Value::Null);
    assert!(
        results(&document)
            .iter()
            .all(|result| result["beside"].is_null())
    );
}

#[test]
fn zones_that_were_used_are_empty_afterwards_and_others_as_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = directory.path().join("disk").display().to_string();
    let device = format!("emu:zones=8,zone-size=256k,store={disk}");
    let states = || -> Vec<String> {
        let report = harness::json(&format!("zones report {device} --format json"));
        let zones = report["zones"].as_array().expect("zones");
        let states = zones.iter().map(|zone| zone["state"].as_str());
        states
            .map(|state| state.expect("a state").to_owned())
            .collect()
    };
    harness::stdout(&format!("zones finish {device} --zone 0 --zone 7"));
    let options = format!("{QUICK} --zones 4 --ops open,close,finish,reset,flush");
    let document = json(&format!("{device} {options}"));
    assert_eq!(document["zones_left_empty"], true);
    let mut expected = vec!["empty"; 8];
    expected[7] = "full";
    assert_eq!(states(), expected);
    json(&format!("{device} {QUICK} --zones 4"));
    assert_eq!(states(), ["empty"; 8], "reset-all is not choosy");
}

#[test]
fn devices_of_all_kinds_are_measured() {
    for (device, op, zones, same_queue) in [
        ("queues=1", "append", 4, true),
        (
            "queues=1,queue-size=64,indirect=off,ring=packed",
            "append",
            4,
            true,
        ),
        ("model=ha", "write", 4, false),
        ("max-append=0", "write", 4, false),
        ("max-open=2,max-active=2", "append", 1, false),
        ("max-open=3", "append", 2, false),
        ("max-active=4,max-open=4", "append", 3, false),
        ("zone-cap=500k,block-size=512", "append", 4, false),
    ] {
        let arguments = format!("emu:zones=16,zone-size=512k,{device} {QUICK} --depth 15");
        let document = json(&arguments);
        let load = &document["load"];
        assert_eq!(load["op"], op, "{device}");
        assert_eq!(load["zones"], zones, "{device}");
        assert_eq!(load["same_queue"], same_queue, "{device}");
        assert_eq!(results(&document).len(), 16, "{device}");
        for result in results(&document) {
            assert_eq!(result["samples"], 3, "{device}: {result}");
            let beside = result["op"] != "reset-all";
            assert_eq!(result["beside"].is_object(), beside, "{device}: {result}");
        }
        assert_eq!(document["zones_left_empty"], true, "{device}");
    }
}

#[test]
fn what_limits_forbid_beside_is_left_out_and_said() {
    for device in [
        "emu:zones=8,zone-size=256k,max-open=1",
        "emu:zones=8,zone-size=256k,max-active=1,max-open=1",
        "emu:zones=1,zone-size=256k",
    ] {
        let document = json(&format!("{device} {QUICK}"));
        assert_eq!(document["load"], Value::Null, "{device}");
        assert_eq!(results(&document).len(), 16, "{device}");
        let note = document["notes"][0].as_str().expect("a note");
        assert!(note.contains("beside appends"), "{note}");
    }
    // Nothing that is not there is missed.
    assert_eq!(
        json(&format!("{SMALL} {QUICK} --no-load"))["notes"],
        json!([])
    );
}

#[test]
fn small_zones_have_fewer_fill_levels() {
    let document = json(&format!(
        "emu:zones=8,zone-size=8k {QUICK} --ops finish,reset"
    ));
    let about = about(&document);
    let fills = |op: &str| -> Vec<u64> {
        let about = about.iter().filter(|(name, ..)| name == op);
        about.map(|(.., fill)| *fill).collect()
    };
    assert_eq!(fills("finish"), [0, 4096]);
    assert_eq!(fills("reset"), [4096, 8192]);
}

#[test]
fn the_limit_of_what_is_written_takes_samples_away_but_not_all() {
    let options = "--repeat 20 --no-load --ops reset,reset-all --fill-limit 4m";
    let document = json(&format!("{SMALL} {options}"));
    let samples = |i: usize| results(&document)[i]["samples"].clone();
    // 4 KiB, 256 KiB, 512 KiB; and 8 zones of 512 KiB would be 4 MiB for each sample.
    assert_eq!([samples(0), samples(1), samples(2)], [20, 16, 8]);
    assert_eq!(samples(3), 4);
    assert_eq!(results(&document)[3]["zones"], 2);
    assert!(
        document["filled_bytes"].as_u64() < Some(16 << 20),
        "{document}"
    );
}

#[test]
fn text_fits_a_terminal_and_says_what_it_is() {
    let page = stdout(&format!("{SMALL} {QUICK}"));
    assert!(
        page.lines().all(|line| line.chars().count() <= 80),
        "{page}"
    );
    for words in [
        "report, 16 zones",
        "finish, 1 block left",
        "reset-all, 8 full",
        "open + close, empty",
        "append IOPS",
        "A p99 takes 100 samples",
        "not hardware",
        "They have a queue each",
        "The zones that were used are empty now",
    ] {
        assert!(page.contains(words), "{words} is missing:\n{page}");
    }
    let rows = |page: &str, name: &str| -> Vec<String> {
        let lines = page
            .lines()
            .filter(|line| line.starts_with(&format!("  {name}")));
        lines
            .map(|line| {
                line.split_whitespace()
                    .rev()
                    .nth(1)
                    .unwrap_or("")
                    .to_owned()
            })
            .collect()
    };
    let few = stdout(&format!("{SMALL} --repeat 99 --no-load --ops close"));
    assert!(
        rows(&few, "close")[0] != "us" && few.contains("  -  "),
        "{few}"
    );
    let enough = stdout(&format!("{SMALL} --repeat 100 --no-load --ops close"));
    assert!(
        !enough.contains("  -  ") && !enough.contains("A p99"),
        "{enough}"
    );
    assert!(stdout(&format!("{SMALL},queues=1 {QUICK}")).contains("one queue, which both share"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (arguments, word) in [
        ("", "DEVICE"),
        ("emu: --ops fly", "fly"),
        ("emu: --repeat 0", "--repeat 0"),
        ("emu: --zones 0", "--zones 0"),
        ("emu: --zones 65", "64 sequential zones"),
        ("emu: --depth 0", "--depth 0"),
        ("emu: --depth 257", "256"),
        ("emu:queues=1 --depth 256", "255"),
        ("emu: --block-size 6k", "4096"),
        ("emu: --block-size 1000", "512"),
        ("emu: --block-size 1m", "524288"),
        ("emu: --block-size 16m --no-load", "two blocks"),
        ("emu: --runtime 0", "--runtime 0"),
        ("nonsense", "nonsense"),
    ] {
        assert_refused(&format!("zoneops {arguments}"), 2, word);
    }
    for (arguments, word) in [
        ("emu:model=none", "not a zoned device"),
        ("emu:conventional=64", "no sequential zones"),
        ("emu:readonly=on", "zones report works"),
        ("/dev/null", "/dev/null"),
    ] {
        assert_refused(&format!("zoneops {arguments}"), 3, word);
    }
}

#[test]
fn an_interrupted_measurement_prints_what_it_has() {
    for options in ["--runtime 60s", "--no-load --repeat 100000000"] {
        let child = start(&format!("zoneops {SMALL} --format json {options}"));
        interrupt(&child);
        let output = child.wait_with_output().expect("the tool ends");
        assert_eq!(text(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0), "{options}");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(document["interrupted"], true);
        assert_eq!(document["zones_left_empty"], true);
        assert!(
            results(&document)[0]["samples"].as_u64() > Some(2),
            "{document}"
        );
    }
}
