//! `zbd-bench run`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{assert_refused, interrupt, json, start, stdout, text};

#[test]
fn every_job_completes_what_was_asked_for() {
    // Small zones with room for less than a block at their end, so that they fill and turn.
    let device = "emu:zones=10,zone-size=1m,zone-cap=764k,conventional=2,store=null";
    for op in ["append", "write", "read", "randread"] {
        for more in [
            "--api queue",
            "--api async",
            "--queues 2",
            "--depth 1 --zones 1",
        ] {
            let options = format!("--device {device} --op {op} --block-size 8k {more}");
            let document = json(&format!("{options} --count 2001 --format json"));
            let result = &document["results"][0];
            assert_eq!(result["ios"], 2001, "{options}");
            assert_eq!(result["errors"], 0, "{options}");
            assert_eq!(result["bytes"], 2001 * 8192, "{options}");
            let resets = result["zone_resets"].as_u64().expect("a number");
            assert_eq!(resets > 0, op == "append" || op == "write", "{options}");
            let filled = result["fill_seconds"].as_f64().expect("a number") > 0.0;
            assert_eq!(filled, op == "read" || op == "randread", "{options}");
        }
    }
}

#[test]
fn a_disk_without_zones_is_read_and_written() {
    for op in ["write", "read", "randread"] {
        let device = "emu:model=none,zones=1,zone-size=1m";
        let options = format!("--device {device} --op {op} --count 1000 --queues 2 --format json");
        let document = json(&options);
        assert_eq!(document["results"][0]["ios"], 1000, "{op}");
        assert_eq!(document["device"]["zoned"], Value::Null);
    }
}

#[test]
fn the_json_has_the_promised_fields() {
    let document = json("run --count 500 --format json --batch 20 --zones 3");
    assert_eq!(document["schema"], "zbd-bench/1");
    assert_eq!(document["interrupted"], false);
    assert_eq!(document["config"]["batch"], 20);
    assert_eq!(document["config"]["count"], 500);
    assert_eq!(document["config"]["seed"], 1);
    assert_eq!(document["device"]["zoned"]["zones"], 64);
    let result = document["results"][0].as_object().expect("an object");
    for field in ["seconds", "iops", "bytes_per_second"] {
        assert!(result[field].as_f64().expect("a number") > 0.0, "{field}");
    }
    for field in [
        "doorbells",
        "interrupts",
        "zone_resets",
        "errors",
        "block_size",
    ] {
        assert!(result[field].is_u64(), "{field}");
    }
    assert_eq!(result["op"], "append");
    assert_eq!(
        (&result["depth"], &result["zones"]),
        (&32.into(), &3.into())
    );
    assert!(result["cpu_seconds"]["user"].is_f64() && result["cpu_seconds"]["system"].is_f64());
    let latency = &result["latency_ns"];
    let quantiles = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let times: Vec<u64> = quantiles
        .iter()
        .map(|name| latency[name].as_u64().expect(name))
        .collect();
    assert!(times[0] > 0 && times.is_sorted(), "{latency}");
    assert!(latency["mean"].is_f64());
}

#[test]
fn the_fio_format_has_fios_fields() {
    let document = json("--op read --count 100 --format fio");
    let job = &document["jobs"][0];
    assert_eq!(job["read"]["total_ios"], 100);
    assert_eq!(job["read"]["clat_ns"]["N"], 100);
    assert!(job["read"]["clat_ns"]["percentile"]["99.000000"].is_u64());
    assert_eq!(job["write"]["total_ios"], 0);
    assert_eq!(job["iodepth_level"]["32"], 100.0);
    assert_eq!(job["zbd_bench"]["result"]["ios"], 100);
    assert!(job["usr_cpu"].is_f64());
    let appends = json("--count 100 --format fio");
    assert_eq!(appends["jobs"][0]["write"]["total_ios"], 100);
}

#[test]
fn fios_names_mean_the_same_here() {
    let document = json(
        "--filename emu: --rw randread --bs 8k --iodepth 4 --numjobs 2 --number_ios 100 \
         --randseed 9 --format json",
    );
    let config = &document["config"];
    for (key, value) in [
        ("block_size", 8192),
        ("depth", 4),
        ("queues", 2),
        ("seed", 9),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(document["results"][0]["op"], "randread");
    let document = json(
        "--rw append --time_based --runtime 300ms --ramp_time 100ms --rate_iops 2k \
         --max_open_zones 2 --rwmixread 30 --format json",
    );
    let config = &document["config"];
    assert_eq!(config["ramp_seconds"], 0.1);
    assert_eq!(config["rate_iops"], 2000);
    assert_eq!(
        (&config["max_open_zones"], &config["read_mix"]),
        (&2.into(), &30.into())
    );
}

#[test]
fn a_mix_reads_what_it_has_written() {
    for more in [
        "--op append",
        "--op write",
        "--op append --api async",
        "--op write --api async",
    ] {
        let device = "emu:zones=10,zone-size=1m,zone-cap=764k,conventional=2";
        let options = format!("--device {device} {more} --read-mix 25 --count 4000 --zones 3");
        let document = json(&format!("{options} --format json"));
        let results = document["results"].as_array().expect("results");
        let ios: Vec<u64> = results
            .iter()
            .filter_map(|result| result["ios"].as_u64())
            .collect();
        assert_eq!(results[1]["op"], "randread", "{options}");
        assert_eq!(ios.iter().sum::<u64>(), 4000, "{options}");
        assert!((700..1300).contains(&ios[1]), "{options}: {ios:?}");
        assert!(results[0]["zone_resets"].as_u64() > Some(0), "{options}");
        assert!(
            results[1]["latency_ns"]["p50"].as_u64() > Some(0),
            "{options}"
        );
        let fio = json(&format!("{options} --format fio"));
        let job = &fio["jobs"][0];
        let both = job["read"]["total_ios"]
            .as_u64()
            .zip(job["write"]["total_ios"].as_u64());
        assert_eq!(
            both.map(|(read, write)| read + write),
            Some(4000),
            "{options}"
        );
    }
}

#[test]
fn a_rate_is_kept_and_latencies_count_from_when_requests_were_due() {
    // Each request takes 2 ms, and one is in flight at a time: half of what is due is sent.
    for api in ["queue", "async"] {
        let options =
            format!("--device emu:latency=2ms --api {api} --depth 1 --rate-iops 1000 --runtime 1s");
        let result = &json(&format!("{options} --format json"))["results"][0];
        let number = |value: &Value| value.as_u64().expect("a number");
        let (latency, service) = (&result["latency_ns"], &result["service_latency_ns"]);
        assert!(number(&latency["max"]) > 300_000_000, "{api}: {latency}");
        assert!(number(&service["p50"]) < 100_000_000, "{api}: {service}");
        // Latencies are kept to one part in a thousand.
        assert!(number(&service["min"]) >= 1_990_000, "{api}: {service}");
        assert!(number(&result["unsent"]) > 300, "{api}: {result}");
    }
    let slow = &json("--rate-iops 500 --runtime 1s --format json")["results"][0];
    let ios = slow["ios"].as_u64().expect("a number");
    assert!((450..=501).contains(&ios), "{ios}");
    assert!(slow["unsent"].as_u64() <= Some(50), "{slow}");
}

#[test]
fn what_the_ramp_time_does_is_not_measured() {
    let begun = Instant::now();
    let device = "emu:latency=10ms";
    for api in ["queue", "async"] {
        let options = format!("--device {device} --api {api} --depth 1 --ramp-time 500ms");
        let result = &json(&format!("{options} --runtime 500ms --format json"))["results"][0];
        let (ios, seconds) = (result["ios"].as_u64(), result["seconds"].as_f64());
        assert!((1..=50).contains(&ios.expect("a number")), "{result}");
        assert!(seconds.expect("a number") < 0.9, "{result}");
        let result = &json(&format!("{options} --count 7 --format json"))["results"][0];
        assert_eq!(result["ios"], 7, "{api}");
    }
    assert!(begun.elapsed() > Duration::from_secs(2));
}

#[test]
fn zones_are_opened_finished_and_reset_as_the_policy_says() {
    // 40 zones of 64 blocks, of which half are written before they are finished.
    let device = "emu:zones=40,zone-size=256k,max-open=3,max-active=3";
    for api in ["queue", "async"] {
        for op in ["append", "write"] {
            let options = format!(
                "--device {device} --op {op} --api {api} --zones 10 --max-open-zones 3 --finish-at \
                 50 --reset oldest --count 640 --depth 8"
            );
            let result = &json(&format!("{options} --format json"))["results"][0];
            assert_eq!(result["ios"], 640, "{options}");
            assert_eq!(
                result["zone_finishes"].as_u64().map(|n| n / 2),
                Some(9),
                "{options}"
            );
            assert!(result["management_share"].as_f64() > Some(0.0), "{options}");
            let resets = result["zone_resets"].as_u64().expect("a number");
            assert!((8..=12).contains(&resets), "{options}: {resets}");
        }
    }
}

#[test]
fn seconds_are_told_apart() {
    let result = &json("--runtime 2100ms --format json --rate-iops 1000")["results"][0];
    let series = result["series"].as_array().expect("a series");
    assert!((2..=3).contains(&series.len()), "{series:?}");
    let ios: u64 = series
        .iter()
        .filter_map(|second| second["ios"].as_u64())
        .sum();
    assert_eq!(Some(ios), result["ios"].as_u64());
    assert_eq!(series[0]["second"], 1);
    assert!(series[0]["latency_ns"]["max"].as_u64() > Some(0));
}

#[test]
fn a_file_describes_jobs() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jobs.toml");
    let text = "count = 100\nzones = 2\n[[job]]\nname = 'first'\n[[job]]\nrw = 'read'\n\
                device = 'emu:zones=9'\n";
    fs::write(&file, text).expect("the file is written");
    let output = directory.path().join("result");
    let command = format!(
        "run --job-file {} --output {}",
        file.display(),
        output.display()
    );
    for (format, jobs) in [("json", "jobs"), ("fio", "jobs")] {
        assert_eq!(
            stdout(&format!("{command} --format {format} --depth 3")),
            ""
        );
        let text = fs::read_to_string(&output).expect("the result is there");
        let document: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(document[jobs].as_array().map(Vec::len), Some(2), "{format}");
        if format == "json" {
            let second = &document[jobs][1];
            assert_eq!(
                (&second["name"], &second["config"]["depth"]),
                (&"job 2".into(), &3.into())
            );
            assert_eq!(second["results"][0]["op"], "read");
            assert_eq!(second["device"]["zoned"]["zones"], 9);
            assert!(document["machine"]["kernel"].is_string());
        }
    }
    stdout(&format!("{command} --format text"));
    let text = fs::read_to_string(&output).expect("the result is there");
    assert!(
        text.contains("first\n") && text.contains("job 2\n"),
        "{text}"
    );
    fs::write(&file, "[[job]]\ndepth = 0\n").expect("the file is written");
    assert_refused(
        &format!("run --job-file {}", file.display()),
        2,
        "job 1: --depth 0",
    );
    assert_refused("run --job-file /nowhere", 2, "/nowhere");
    assert_refused("run --output /nowhere/x", 2, "/nowhere/x");
}

#[test]
fn tables_fit_a_terminal() {
    let output = stdout("--count 1000");
    assert!(
        output.lines().all(|line| line.chars().count() <= 80),
        "{output}"
    );
    assert!(
        output.contains("IOPS") && output.contains("p99.9"),
        "{output}"
    );
    assert!(output.contains("This was: zone appends"), "{output}");
    assert!(!output.contains("Next:"), "{output}");
    for command in ["zones report emu:", "info emu:"] {
        let table = stdout(command);
        let fits = table.lines().all(|line| line.chars().count() <= 80);
        assert!(fits, "{table}");
    }
}

#[test]
fn an_interrupt_prints_what_was_measured() {
    for api in ["queue", "async"] {
        let begun = Instant::now();
        let child = start(&format!("--runtime 60s --format json --api {api}"));
        interrupt(&child);
        let output = child.wait_with_output().expect("the tool ends");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(document["interrupted"], true);
        assert!(document["results"][0]["ios"].as_u64() > Some(0));
    }
}

#[test]
fn a_device_that_answers_nothing_can_be_interrupted() {
    for wait in ["poll", "adaptive", "interrupt"] {
        let device = "emu:model=none,latency=1h";
        let mut child = start(&format!(
            "--count 5 --device {device} --op write --wait {wait}"
        ));
        let begun = Instant::now();
        interrupt(&child);
        while child.try_wait().expect("it is a child").is_none() {
            if begun.elapsed() > Duration::from_secs(20) {
                child.kill().expect("it is a child");
            }
            thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("the tool ends");
        assert!(begun.elapsed() < Duration::from_secs(20), "{wait}");
        assert_ne!(output.status.code(), Some(0), "{wait}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{wait}");
    }
}

#[test]
fn completions_are_waited_for_as_asked() {
    // Slow enough for adaptive waits to sleep.
    let device = "emu:latency=2ms,store=null";
    for (api, default) in [("queue", "poll"), ("async", "adaptive")] {
        for asked in ["", "--wait poll", "--wait adaptive", "--wait interrupt"] {
            let wait = asked.strip_prefix("--wait ").unwrap_or(default);
            let options = format!("--device {device} --api {api} {asked} --depth 4 --count 200");
            let document = json(&format!("{options} --format json"));
            assert_eq!(document["config"]["wait"], wait, "{options}");
            let result = &document["results"][0];
            assert_eq!(result["ios"], 200, "{options}");
            let interrupts = result["interrupts"].as_u64().expect("it is counted");
            // Several come back at once, and are found by one look; adaptive waits can find them
            // before they sleep.
            match wait {
                "poll" => assert_eq!(interrupts, 0, "{options}"),
                "adaptive" => assert!((1..=220).contains(&interrupts), "{options}: {interrupts}"),
                _ => assert!((20..=220).contains(&interrupts), "{options}: {interrupts}"),
            }
        }
    }
}
