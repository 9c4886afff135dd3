//! `cargo xtask bench`: what requests cost, beside other drivers, against the budgets.
//!
//! Without arguments, on the software device: instructions, nanoseconds, allocations, system calls
//! and doorbells per request, beside the crate `virtio-driver` (`host`), and what the software
//! device itself can do (`threaded`). With `--guest`, also in a QEMU guest, over VFIO, beside
//! libblkio and the kernel's io_uring (`guest`). All budgets are in `budgets`, and a miss of one is
//! a failure.

mod budgets;
mod guest;
mod host;
mod machine;
mod program;
mod statistics;
mod threaded;

use anyhow::{Result, bail};

use budgets::Budgets;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (on_host, in_guest) = match arguments {
        [] => (true, false),
        ["--guest"] => (true, true),
        // While the guest's part is worked on.
        ["--guest-only"] => (false, true),
        _ => bail!("usage: cargo xtask bench [--guest|--guest-only]"),
    };
    machine::print();
    let mut budgets = Budgets::default();
    if on_host {
        let program = program::Program::build()?;
        host::run(&program, &mut budgets)?;
        threaded::run(&program, &mut budgets)?;
    }
    if in_guest {
        guest::run(&mut budgets)?;
    }
    budgets.print();
    match budgets.missed() {
        0 => Ok(()),
        missed => bail!("{missed} budgets missed"),
    }
}
