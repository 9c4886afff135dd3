//! Developer commands: `cargo xtask TASK`. Each task has a file of its own.

mod apt;
mod bench;
mod kernel;
mod modules;
mod no_iommu;
mod paths;
mod pictures;
mod qemu;
mod sanitize;
mod setup;
mod static_guest;
mod step;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK

tasks:
  test         everything that CI runs: setup, format, lints, docs, tests, tests in a guest
  setup        install QEMU and fetch a guest kernel, where they are missing
  bench        measure what requests cost beside other drivers, against the budgets;
               --guest: in a guest too, --guest-only: nowhere else
  pictures     draw the charts and write the reports of docs/measurements anew
  sanitize     run the tests that drop futures under AddressSanitizer, which takes a nightly
               toolchain and is no part of test; a number says how many random
               schedules each of them runs
  guest-build  build what runs in and under the guest: static programs and the shim";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["test"] => test::run(),
        ["setup"] => setup::run(),
        ["sanitize", ref schedules @ ..] => sanitize::run(schedules),
        ["bench", ref options @ ..] => bench::run(options),
        ["pictures"] => pictures::run(),
        ["guest-build"] => static_guest::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
