//! `zbd-bench sweep`.

use std::fs;

use serde_json::Value;

use crate::harness::{assert_refused, interrupt, json, start, stdout, text};

const QUICK: &str = "--device emu:store=null --count 500 --repeat 2";

#[test]
fn every_combination_is_measured_as_often_as_asked() {
    let document = json(&format!(
        "sweep {QUICK} --ops append,write,randread --depths 1,8 --zones-list 1,2 --block-sizes \
         4k,16k --queues-list 1 --format json"
    ));
    let results = document["results"].as_array().expect("results");
    assert_eq!(results.len(), 3 * 2 * 2 * 2);
    for result in results {
        assert_eq!(result["rounds"], 2, "{result}");
        let iops = &result["iops"];
        let figures: Vec<f64> = ["min", "median", "max"]
            .iter()
            .map(|name| iops[name].as_f64().expect("a number"))
            .collect();
        assert!(figures[0] > 0.0 && figures.is_sorted(), "{result}");
    }
    let is = |result: &&Value| result["depth"] == 8 && result["block_size"] == 16384;
    assert_eq!(results.iter().filter(is).count(), 6);
    assert!(document["machine"]["commit"].is_string());
}

#[test]
fn depths_end_where_the_device_does() {
    let document = json(
        "sweep --device emu:queue-size=16,store=null --count 50 --repeat 1 --ops append --format \
         json",
    );
    let depths: Vec<u64> = document["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|result| result["depth"].as_u64())
        .collect();
    assert_eq!(depths, [1, 2, 4, 8, 16]);
}

#[test]
fn the_result_is_a_table_a_chart_and_pictures() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (svg, html) = (path("chart.svg"), path("page.html"));
    let text = stdout(&format!(
        "sweep {QUICK} --depths 1,4 --plot {svg} --plot {html}"
    ));
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.contains("depth") && text.contains("append"), "{text}");
    let picture = fs::read_to_string(svg).expect("the picture is there");
    assert!(
        picture.starts_with("<svg") || picture.starts_with("<?xml"),
        "{picture}"
    );
    assert!(picture.contains("IOPS by depth"), "{picture}");
    let latency = fs::read_to_string(path("chart-latency.svg")).expect("the second is beside it");
    assert!(latency.contains("latency"), "{latency}");
    let page = fs::read_to_string(html).expect("the page is there");
    for words in ["<svg", "<table", "zbd-bench sweep", "features"] {
        assert!(page.contains(words), "{words}");
    }
    let csv = stdout(&format!("sweep {QUICK} --depths 1,4 --format csv"));
    assert_eq!(csv.lines().count(), 5, "{csv}");
}

#[test]
fn what_depth_brings_is_said() {
    // 4 ms each, however many there are.
    let device = "emu:zones=8,zone-size=1m,store=null,latency=4ms";
    let document = json(&format!(
        "sweep --device {device} --ops append --depths 1,8 --zones-list 1 --count 64 --repeat 1 \
         --format json"
    ));
    let parallel = document["findings"][0].as_str().expect("a finding");
    assert!(
        parallel.contains("reaches its best at depth 8"),
        "{parallel}"
    );
}

#[test]
fn impossible_points_are_refused_before_anything_is_measured() {
    for (arguments, word) in [
        ("sweep --depths 1,1000", "--depth 1000"),
        ("sweep --depths 0", "--depth 0"),
        ("sweep --zones-list 4,400", "64 zones"),
        ("sweep --queues-list 3", "2 queues"),
        ("sweep --repeat 0", "--repeat"),
        ("sweep --plot chart.png", ".svg or .html"),
        ("sweep --plot /nowhere/chart.svg", "/nowhere/chart.svg"),
        ("sweep --block-sizes 4k,1m", "524288"),
    ] {
        assert_refused(arguments, 2, word);
    }
    assert_refused(
        "sweep --device emu:model=none --ops append",
        3,
        "not a zoned",
    );
}

#[test]
fn an_interrupt_shows_what_is_known() {
    let child = start("sweep --runtime 100ms --depths 1,2 --repeat 1000 --format json");
    std::thread::sleep(std::time::Duration::from_secs(1));
    interrupt(&child);
    let output = child.wait_with_output().expect("the tool ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["interrupted"], true);
    assert!(document["results"][0]["rounds"].as_u64() > Some(0));
}
