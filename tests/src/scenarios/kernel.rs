//! Linux's own driver on the zoned disks: that the disks are what they claim to be, before any driver
//! of ours is tried on them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;

use super::Context;
use crate::inside::kernel_view::{Command, KernelDisk, State, Zone};

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn zoned_disks_show_the_geometry_they_were_given(context: &mut Context) -> Result<()> {
    for described in context.machine.disks {
        let Some(zones) = &described.zones else {
            continue;
        };
        let disk = context.kernel_disk(described.name)?;
        let count = described.bytes / zones.zone_size;
        for (attribute, expected) in [
            ("queue/chunk_sectors", zones.zone_size / 512),
            ("queue/nr_zones", count),
            ("queue/max_open_zones", zones.max_open),
            ("queue/max_active_zones", zones.max_active),
            ("queue/zone_append_max_bytes", zones.max_append),
            ("queue/logical_block_size", zones.block),
            ("size", described.bytes / 512),
        ] {
            let found = disk.number(attribute)?;
            ensure!(
                found == expected,
                "{}: {attribute} is {found}, not {expected}",
                described.name
            );
        }
        for (attribute, expected) in [("queue/zoned", "host-managed"), ("serial", described.name)] {
            let found = disk.attribute(attribute)?;
            ensure!(
                found == expected,
                "{}: {attribute} is {found}, not {expected}",
                described.name
            );
        }
        let report = disk.report()?;
        ensure!(
            report.len() as u64 == count,
            "{}: {} zones reported",
            described.name,
            report.len()
        );
        for (index, zone) in (0..).zip(&report) {
            let start = index * zones.zone_size / 512;
            let conventional = index < zones.conventional;
            let (state, capacity) = if conventional {
                (State::Conventional, zones.zone_size)
            } else {
                (State::Empty, zones.zone_capacity)
            };
            // A conventional zone's write pointer means nothing.
            let pointer = if conventional { zone.pointer } else { start };
            let (size, capacity) = (zones.zone_size / 512, capacity / 512);
            let expected = Zone {
                start,
                size,
                capacity,
                pointer,
                state,
            };
            ensure!(
                *zone == expected,
                "{}: {zone:?}, not {expected:?}",
                described.name
            );
        }
    }
    Ok(())
}

pub(super) fn plain_disk_has_no_zones(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("plain")?;
    let model = disk.attribute("queue/zoned")?;
    ensure!(model == "none", "{model}");
    disk.write(8, &[7; 4096])?;
    ensure!(disk.read(8, 4096)? == [7; 4096]);
    Ok(())
}

pub(super) fn zone_commands_change_states(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("main")?;
    let zone = first_sequential(&disk)?;
    let send = |command| disk.command(command, zone.start, zone.size);
    let state = || -> Result<State> { Ok(find(&disk, zone.start)?.state) };

    send(Command::Open)?;
    ensure!(state()? == State::ExplicitlyOpen);
    send(Command::Close)?;
    ensure!(
        state()? == State::Empty,
        "closing a zone without data leaves it {:?}",
        state()?
    );

    disk.write(zone.start, &[1; 4096])?;
    ensure!(state()? == State::ImplicitlyOpen);
    send(Command::Close)?;
    ensure!(state()? == State::Closed);
    send(Command::Open)?;
    ensure!(state()? == State::ExplicitlyOpen);
    send(Command::Finish)?;
    ensure!(state()? == State::Full);
    ensure!(
        send(Command::Open) == Err(Errno::IO),
        "a full zone was opened"
    );
    send(Command::Reset)?;
    let after = find(&disk, zone.start)?;
    ensure!(
        (after.state, after.pointer) == (State::Empty, zone.start),
        "{after:?}"
    );
    Ok(())
}

pub(super) fn writes_are_taken_at_the_write_pointer_only(context: &mut Context) -> Result<()> {
    for name in ["main", "unmerged", "no-iommu"] {
        let disk = context.kernel_disk(name)?;
        let zone = first_sequential(&disk)?;
        disk.write(zone.start, &[1; 4096])?;
        disk.write(zone.start + 8, &[2; 8192])?;
        ensure!(
            disk.write(zone.start, &[3; 4096]).is_err(),
            "{name}: written below the pointer"
        );
        ensure!(
            disk.write(zone.start + 64, &[3; 4096]).is_err(),
            "{name}: written above the pointer"
        );
        let after = find(&disk, zone.start)?;
        ensure!(after.written() == 24, "{name}: {after:?}");
        let data = disk.read(zone.start, 3 * 4096)?;
        ensure!(
            data[..4096] == [1; 4096] && data[4096..] == [2; 8192],
            "{name}: other data"
        );
    }
    Ok(())
}

pub(super) fn zone_is_full_at_its_capacity(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("main")?;
    let zone = first_sequential(&disk)?;
    ensure!(zone.capacity < zone.size, "{zone:?}");
    let step = vec![5; 256 << 10];
    let sectors = step.len() as u64 / 512;
    for sector in (0..zone.capacity).step_by(step.len() / 512) {
        let left = (zone.capacity - sector).min(sectors) as usize * 512;
        disk.write(zone.start + sector, &step[..left])?;
    }
    ensure!(find(&disk, zone.start)?.state == State::Full);
    let beyond = disk.write(zone.start + zone.capacity, &[6; 4096]);
    ensure!(beyond.is_err(), "written between capacity and size");
    Ok(())
}

pub(super) fn conventional_zone_takes_writes_anywhere(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("main")?;
    let zone = disk.report()?[1];
    ensure!(zone.state == State::Conventional, "{zone:?}");
    for (sector, value) in [(zone.start + 80, 1), (zone.start, 2), (zone.start + 80, 3)] {
        disk.write(sector, &[value; 4096])?;
        ensure!(disk.read(sector, 4096)? == [value; 4096]);
    }
    ensure!(
        disk.command(Command::Reset, zone.start, zone.size).is_err(),
        "it was reset"
    );
    Ok(())
}

pub(super) fn open_and_active_limits_hold(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("main")?;
    let (open, active) = (
        disk.number("queue/max_open_zones")?,
        disk.number("queue/max_active_zones")?,
    );
    let zones = disk.report()?;
    let sequential: Vec<&Zone> = zones
        .iter()
        .filter(|zone| zone.state == State::Empty)
        .collect();
    let (open, active) = (usize::try_from(open)?, usize::try_from(active)?);
    for zone in &sequential[..open] {
        disk.command(Command::Open, zone.start, zone.size)?;
    }
    let one_more = sequential[open];
    ensure!(
        disk.command(Command::Open, one_more.start, one_more.size)
            .is_err(),
        "more than {open} zones were opened"
    );
    // With data in them, zones stay active when they are closed.
    for zone in &sequential[..active] {
        if disk.command(Command::Open, zone.start, zone.size).is_err() {
            disk.command(Command::Close, sequential[0].start, sequential[0].size)?;
        }
        disk.write(zone.start, &[1; 4096])
            .with_context(|| format!("{zone:?}"))?;
        disk.command(Command::Close, zone.start, zone.size)?;
    }
    let one_more = sequential[active];
    ensure!(
        disk.write(one_more.start, &[1; 4096]).is_err(),
        "more than {active} zones are active"
    );
    disk.command(Command::Finish, sequential[0].start, sequential[0].size)?;
    // After an error Linux takes no more writes to a zone until it has been told where the write
    // pointer is.
    disk.report()?;
    disk.write(one_more.start, &[1; 4096])
        .context("after one was finished")
}

fn first_sequential(disk: &KernelDisk) -> Result<Zone> {
    let zones = disk.report()?;
    let zone = zones
        .into_iter()
        .find(|zone| zone.state != State::Conventional);
    zone.context("no sequential zone")
}

fn find(disk: &KernelDisk, start: u64) -> Result<Zone> {
    let zones = disk.report()?;
    zones
        .into_iter()
        .find(|zone| zone.start == start)
        .with_context(|| format!("no zone at {start}"))
}
