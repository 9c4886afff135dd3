//! `zbd-bench compare`.

use crate::harness::{assert_refused, json, stdout};

/// Far apart, whatever else the machine does meanwhile.
const DEVICES: &str = "emu:latency=50ms emu:latency=1ms --wait interrupt --depth 1 --count 8";

#[test]
fn the_faster_device_is_found() {
    let document = json(&format!("compare {DEVICES} --repeat 3 --format json"));
    let results = document["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["rounds"].as_array().map(Vec::len), Some(3));
    let ratio = &results[1]["ratio"];
    let figures: Vec<f64> = ["min", "median", "max"]
        .iter()
        .map(|name| ratio[name].as_f64().expect("a number"))
        .collect();
    assert!(figures[0] > 1.0 && figures.is_sorted(), "{ratio}");
    let conclusion = document["conclusions"][0].as_str().expect("text");
    assert!(
        conclusion.contains("was faster than emu:latency=50ms in every round"),
        "{conclusion}"
    );
}

#[test]
fn too_few_rounds_conclude_nothing() {
    let text = stdout(&format!("compare {DEVICES} --repeat 2"));
    assert!(
        text.contains("Nothing can be concluded from 2 rounds"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn a_stored_report_takes_part() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.json").display().to_string();
    stdout(&format!(
        "run --device emu:latency=50ms --wait interrupt --depth 1 --count 8 --format json --output {report}"
    ));
    let document = json(&format!(
        "compare emu:latency=1ms --against {report} --wait interrupt --depth 1 --count 8 --repeat 3 --format json"
    ));
    assert_eq!(document["results"][0]["stored"], true);
    assert!(
        document["results"][1]["ratio"]["min"].as_f64() > Some(1.0),
        "{document}"
    );
    let conclusions = document["conclusions"].to_string();
    assert!(conclusions.contains("at another time"), "{conclusions}");
    assert_refused(
        &format!("compare emu: --against {report}"),
        2,
        "--depth 1, not 32",
    );
}

#[test]
fn what_cannot_be_compared_is_refused() {
    for (arguments, code, word) in [
        ("compare", 2, "DEVICE"),
        ("compare emu:", 2, "one device alone"),
        ("compare emu: nonsense", 2, "nonsense"),
        (
            "compare emu: emu:max-append=0 --count 10",
            3,
            "emu:max-append=0",
        ),
        ("compare emu: emu: --against /nowhere", 2, "/nowhere"),
        ("compare emu: emu: --depth 0", 2, "--depth 0"),
    ] {
        assert_refused(arguments, code, word);
    }
}
