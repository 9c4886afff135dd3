//! A function that is unplugged while a process has it: what the platform tells, and that letting go
//! is enough.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vfio_virtio::{EventFd, Notice, PciFunction as _, VfioFunction};

use super::Context;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The flag of an event that is not waited for.
const NONBLOCK: i32 = 0o4000;

pub(super) fn unplugged_function_is_asked_for_and_let_go(context: &mut Context) -> Result<()> {
    let claim = context.claim("unplugged")?;
    let function = VfioFunction::open(claim.address())?;
    let [replaced, asked, broken] = [event()?, event()?, event()?];
    ensure!(function.notify(Notice::ReleaseRequest, Some(&replaced))?);
    ensure!(function.notify(Notice::ReleaseRequest, Some(&asked))?);
    ensure!(function.notify(Notice::BusError, Some(&broken))?);

    let mut control = context.control()?;
    let start = Instant::now();
    control.unplug(&claim.function)?;
    let limit = start + Duration::from_secs(20);
    while !has_come(&asked) {
        ensure!(Instant::now() < limit, "nobody asked for the function back");
        std::thread::sleep(Duration::from_millis(2));
    }
    context.metric("seconds_until_asked", start.elapsed().as_secs_f64());
    ensure!(!has_come(&replaced), "the event that was replaced came");
    ensure!(!has_come(&broken), "a bus error came");
    // The kernel waits for us; until then it is all there.
    ensure!(claim.function.exists());
    let mut vendor = [0; 2];
    function.read_config(0, &mut vendor)?;
    ensure!(vendor == [0xf4, 0x1a], "{vendor:x?}");

    drop(function);
    control.unplugged(&claim.function)?;
    context.metric("seconds_until_gone", start.elapsed().as_secs_f64());
    control.plug(&claim.function)?;
    let disk = claim.function.bind_to_kernel()?;
    ensure!(disk.read(0, 4096)? == [0; 4096]);
    Ok(())
}

pub(super) fn notices_are_given_where_the_function_has_them(context: &mut Context) -> Result<()> {
    // Only functions of PCI Express, behind a port, report errors of the bus.
    for (name, bus_errors) in [("main", false), ("unplugged", true)] {
        let claim = context.claim(name)?;
        let function = VfioFunction::open(claim.address())?;
        let event = event()?;
        for (notice, given) in [
            (Notice::ReleaseRequest, true),
            (Notice::BusError, bus_errors),
        ] {
            for event in [None, Some(&event), Some(&event), None, None] {
                let found = function.notify(notice, event)?;
                ensure!(found == given, "{name}: {notice:?} is {found}");
            }
        }
        ensure!(!has_come(&event));
        drop(function);
        claim.give_back()?;
    }
    Ok(())
}

fn event() -> Result<EventFd> {
    Ok(EventFd::new(NONBLOCK)?)
}

fn has_come(event: &EventFd) -> bool {
    event.read().is_ok()
}
