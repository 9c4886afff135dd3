//! The tool as its users meet it, on the emulated device.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

fn tool(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbd-bench"));
    command.args(arguments.split_whitespace());
    command
}

fn run(arguments: &str) -> Output {
    tool(arguments).output().expect("the tool starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the tool prints text")
}

/// The output of a command that succeeds in silence.
#[track_caller]
fn stdout(arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments}");
    assert_eq!(output.status.code(), Some(0), "{arguments}");
    text(&output.stdout)
}

#[track_caller]
fn json(arguments: &str) -> Value {
    serde_json::from_str(&stdout(arguments)).expect("the tool prints JSON")
}

#[track_caller]
fn assert_refused(arguments: &str, code: i32, word: &str) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments}: {message}");
    assert!(message.starts_with("zbd-bench: "), "{message}");
    assert!(message.contains(word), "{arguments}: {message}");
    assert_eq!(text(&output.stdout), "", "{arguments}");
}

/// Starts the tool, to be interrupted.
fn start(arguments: &str) -> Child {
    let child = tool(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    thread::sleep(Duration::from_millis(500));
    child
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn usage_errors_end_with_2() {
    for (arguments, word) in [
        ("--frobnicate", "--frobnicate"),
        ("frobnicate", "frobnicate"),
        ("run --op fly", "fly"),
        ("--depth 0", "--depth 0"),
        ("--depth 257", "256"),
        ("--depth 32768", "256"),
        ("--depth many", "many"),
        ("--queues 3", "has 2"),
        ("--zones 0", "--zones 0"),
        ("--zones 65", "64 zones"),
        (
            "--zones 3 --device emu:zones=4,conventional=2",
            "2 sequential",
        ),
        ("--zones 49", "max_active"),
        ("--queues 2 --zones 1", "as many zones as queues"),
        ("--block-size 0", "--block-size 0"),
        ("--block-size 6k", "4096"),
        ("--block-size 1m", "524288"),
        ("--block-size 128m --op read", "capacity"),
        ("--block-size 1g --depth 256 --op read", "capacity"),
        ("--count 0", "--count 0"),
        ("--op read --read-mix 10", "--read-mix 10"),
        ("--read-mix 100", "percent"),
        ("--rate-iops 0", "requests a second"),
        ("--rate-iops 10 --batch 2", "--batch"),
        ("--max-open-zones 5", "--max-open-zones 5"),
        ("--queues 2 --max-open-zones 1", "--max-open-zones 1"),
        ("--threads 2", "--api async"),
        (
            "--api async --threads 5 --depth 8",
            "each thread needs a zone",
        ),
        ("--api async --threads 3 --depth 2", "2 tasks"),
        ("--count 1 --time_based", "--time-based"),
        ("--count 1 --runtime 1s", "--runtime"),
        ("--wait sleep", "adaptive"),
        ("--device nonsense", "nonsense"),
        ("--device emu:zones=0", "zones=0"),
        ("info pci:1", "PCI address"),
        ("zones", "command is missing"),
        ("zones open emu:", "--zone"),
        ("zones close emu:", "--zone"),
        ("zones finish emu:", "--zone"),
        ("zones reset emu:", "--zone"),
        ("zones reset emu: --zone 64", "64 zones"),
        ("bind 0000:00:01", "PCI address"),
    ] {
        assert_refused(arguments, 2, word);
    }
}

#[test]
fn what_a_device_cannot_do_ends_with_3() {
    for (arguments, word) in [
        ("--device emu:model=none", "not a zoned device"),
        ("--device emu:max-append=0", "--op write"),
        ("--device emu:model=ha", "--op write"),
        ("--device emu:conventional=64", "no sequential zones"),
        ("--device /dev/null", "/dev/null"),
        ("--device pci:ffff:ff:1f.7", "ffff:ff:1f.7"),
        ("zones report emu:model=none", "not a zoned device"),
        ("bind ffff:ff:1f.7", "ffff:ff:1f.7"),
        ("unbind ffff:ff:1f.7", "ffff:ff:1f.7"),
    ] {
        assert_refused(arguments, 3, word);
    }
}

#[test]
fn a_refused_zone_command_ends_with_1_and_says_what_could_not_be_done() {
    assert_refused(
        "zones close emu: --zone 3",
        1,
        "close zone 3, which is empty",
    );
}

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
        assert!(number(&service["min"]) >= 2_000_000, "{api}: {service}");
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
    std::fs::write(&file, text).expect("the file is written");
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
        let text = std::fs::read_to_string(&output).expect("the result is there");
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
    let text = std::fs::read_to_string(&output).expect("the result is there");
    assert!(
        text.contains("first\n") && text.contains("job 2\n"),
        "{text}"
    );
    std::fs::write(&file, "[[job]]\ndepth = 0\n").expect("the file is written");
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
