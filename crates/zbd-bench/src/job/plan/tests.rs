use clap::Parser;

use super::*;
use crate::{cli::Cli, failure::Exit};

fn job(options: &str) -> Result<Job, Failure> {
    let args = Cli::try_parse_from(["zbd-bench"].into_iter().chain(options.split_whitespace()))
        .expect("clap takes it")
        .run;
    let spec = args.device.parse().expect("a device");
    Job::resolve(&args.device, &args.job, &spec)
}

/// The job that the options describe, checked against the device they name.
fn checked(options: &str) -> Result<Job, Failure> {
    let job = job(options)?;
    let queue = zbd_core::IoQueue::open(&job.device).expect("the device opens");
    job.check(queue.info())?;
    Ok(job)
}

#[track_caller]
fn assert_refused(result: Result<Job, Failure>, exit: Exit, word: &str) {
    let failure = result.expect_err("is refused");
    assert_eq!(failure.exit(), exit, "{}", failure.message());
    assert!(failure.message().contains(word), "{}", failure.message());
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let job = checked("").unwrap();
    assert_eq!(job.op, Op::Append);
    assert_eq!(
        (job.block_size, job.depth, job.queues, job.zones),
        (4096, 32, 1, 4)
    );
    assert_eq!(job.length, Length::Runtime(Duration::from_secs(5)));
    assert_eq!(job.api, Api::Queue);
}

#[test]
fn the_batch_is_three_quarters_of_the_depth_and_never_nothing() {
    for (depth, batch) in [
        (1, 1),
        (2, 1),
        (4, 3),
        (7, 5),
        (32, 24),
        (256, 192),
        (32768, 24576),
    ] {
        assert_eq!(job(&format!("--depth {depth}")).unwrap().batch, batch);
    }
    assert_eq!(job("--depth 8 --batch 8").unwrap().batch, 8);
    assert_refused(job("--depth 8 --batch 9"), Exit::Usage, "--batch 9");
    assert_refused(job("--batch 0"), Exit::Usage, "--batch 0");
}

#[test]
fn the_emulated_device_needs_no_consent_and_others_do() {
    assert!(job("").unwrap().consent);
    assert!(!job("--device pci:0000:00:01.0").unwrap().consent);
    assert!(job("--device pci:0000:00:01.0 --destroy").unwrap().consent);
}

#[test]
fn waiting_is_by_default_what_suits_the_door() {
    for (options, wait) in [
        ("", WaitPolicy::Poll),
        ("--api async", WaitPolicy::Adaptive),
        ("--api async --wait poll", WaitPolicy::Poll),
        ("--wait interrupt", WaitPolicy::Interrupt),
    ] {
        assert_eq!(job(options).unwrap().wait, wait, "{options}");
    }
}

#[test]
fn values_without_sense_are_usage_errors() {
    for (options, word) in [
        ("--depth 0", "--depth 0"),
        ("--depth 32769", "32768"),
        ("--queues 0", "--queues 0"),
        ("--zones 0", "--zones 0"),
        ("--block-size 0", "--block-size 0"),
        ("--block-size 1000", "512"),
        ("--block-size 2g", "1g"),
        ("--count 0", "--count 0"),
        ("--runtime 0s", "--runtime 0"),
    ] {
        assert_refused(job(options), Exit::Usage, word);
    }
}

#[test]
fn values_outside_the_limits_of_the_device_are_usage_errors() {
    for (options, word) in [
        ("--depth 5 --device emu:queue-size=4", "holds 4 requests"),
        ("--block-size 512", "blocks of emu: have 4096"),
        ("--block-size 1m", "524288"),
        ("--zones 65", "64 zones"),
        (
            "--zones 3 --device emu:max-open=2,max-active=2",
            "max_active",
        ),
    ] {
        assert_refused(checked(options), Exit::Usage, word);
    }
    checked("--zones 3 --op read --device emu:max-open=2,max-active=2").unwrap();
    checked("--zones 3 --device emu:max-open=2,max-active=3").unwrap();
    let job = job("--queues 2 --zones 1").unwrap();
    let queue = zbd_core::IoQueue::open("emu:").unwrap();
    assert!(job.check(queue.info()).is_err(), "a queue without a zone");
}

#[test]
fn what_a_device_cannot_do_is_no_usage_error() {
    assert_refused(
        checked("--device emu:model=none"),
        Exit::Device,
        "not a zoned",
    );
    let no_append = "--device emu:max-append=0";
    assert_refused(checked(no_append), Exit::Device, "--op write");
    checked(&format!("{no_append} --op write")).unwrap();
    checked("--device emu:model=none --op write").unwrap();
}
