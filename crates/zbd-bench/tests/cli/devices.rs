//! `zbd-bench zones` and `zbd-bench info`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::harness::{json, stdout, text, tool};

#[test]
fn zones_are_reported_in_three_formats() {
    let device = "emu:zones=3,zone-size=2m,zone-cap=1m,conventional=1";
    let csv = stdout(&format!("zones report {device} --format csv"));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "zone,start_sector,size_sectors,capacity_sectors,write_pointer_sector,type,state"
    );
    assert_eq!(lines[1], "0,0,4096,4096,,conventional,not-wp");
    assert_eq!(lines[2], "1,4096,4096,2048,4096,seq-required,empty");
    let one = json(&format!("zones report {device} --zone 2 --format json"));
    assert_eq!(one["zones"][0]["start_sector"], 8192);
    assert_eq!(one["zones"].as_array().map(Vec::len), Some(1));
    assert_eq!(stdout(&format!("zones report {device}")).lines().count(), 5);
}

#[test]
fn zones_change_their_state_on_command() {
    for (command, state) in [("open", "exp-open"), ("finish", "full"), ("reset", "empty")] {
        let document = json(&format!(
            "zones {command} emu: --zone 1 --zone 7 --format json"
        ));
        for (i, id) in [(0, 1), (1, 7)] {
            assert_eq!(document["zones"][i]["zone"], id);
            assert_eq!(document["zones"][i]["state"], state);
        }
    }
    assert!(stdout("zones reset-all emu:").contains("64 of 64"));
}

#[test]
fn info_names_the_limits() {
    let document = json("info emu:max-open=5,max-active=6,queues=3,lifetime=off --format json");
    assert_eq!(document["device"]["zoned"]["max_open_zones"], 5);
    assert_eq!(document["device"]["zoned"]["max_active_zones"], 6);
    assert_eq!(document["device"]["max_queues"], 3);
    assert!(stdout("info emu:").contains("host-managed"));
    assert_eq!(document["device"]["max_segments"], 254);
    assert_eq!(document["device"]["cache_switchable"], true);
    assert_eq!(document["device"]["discard"], Value::Null);
    assert_eq!(document["told"]["write_cache"], "writeback");
    assert_eq!(document["told"]["lifetime"], Value::Null);
    assert_ne!(document["told"]["id"], Value::Null);
    let text = stdout("info emu:");
    for (row, value) in [
        ("data segments", "254 at the most"),
        ("write cache", "writeback; can be switched"),
        ("discard", "no"),
        ("secure erase", "no"),
    ] {
        let shown = text.lines().find(|line| line.trim().starts_with(row));
        let shown = shown.and_then(|line| line.trim().strip_prefix(row));
        assert_eq!(shown.map(str::trim), Some(value), "{text}");
    }
}

#[test]
fn info_shows_what_only_some_devices_can_do() {
    let device = "emu:model=none,discard=on,secure-erase=on,lifetime=on,serial=A1,size-max=64k";
    let document = json(&format!("info {device} --format json"));
    let (limits, told) = (&document["device"], &document["told"]);
    assert_eq!(limits["discard"]["max_bytes"], 16 << 20);
    assert_eq!(limits["discard"]["alignment_bytes"], 4096);
    assert_eq!(limits["write_zeroes"]["may_unmap"], true);
    assert_eq!(limits["secure_erase"]["max_ranges"], 4);
    assert_eq!(limits["max_segment_bytes"], 65536);
    assert_eq!(told["id"], "A1");
    assert_eq!(told["lifetime"]["wear_slc"], "up to 20%");
    assert_eq!(told["lifetime"]["wear_mlc"], "up to 30%");
    let text = stdout(&format!("info {device}"));
    for words in [
        "16 MiB at once, in units of 4 KiB",
        "8 MiB at once, may give space back",
        "254 at the most, of 64 KiB each",
        "SLC up to 20%, MLC up to 30%",
        "less than 80%",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn info_says_how_a_device_is_waited_for() {
    let document = json("info emu: --format json");
    assert_eq!(document["device"]["wait"], "adaptive");
    assert_eq!(document["device"]["interrupts"], true);
    let method = document["device"]["wait_method"].as_str().expect("text");
    assert!(
        method.starts_with("io_uring") || method.starts_with("epoll"),
        "{method}"
    );
    assert!(stdout("info emu:").contains("adaptive, the device interrupts, sleeps in"));
    let without = json("info emu:vectors=0 --format json");
    assert_eq!(without["device"]["interrupts"], false);
    assert!(stdout("info emu:vectors=0").contains("without interrupts"));
}
#[test]
fn nobody_reading_the_output_is_no_crash() {
    let mut child = tool("zones report emu:zones=4000,zone-size=1m --format csv")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut line = String::new();
    let mut out = BufReader::with_capacity(16, child.stdout.take().expect("is piped"));
    out.read_line(&mut line).expect("a line");
    drop(out);
    let output = child.wait_with_output().expect("the tool ends");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
