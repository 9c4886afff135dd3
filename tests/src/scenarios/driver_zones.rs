//! Every zone command through the driver, and the states that come of it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use zbd_core::{ErrorKind, Sector, ZoneId, ZoneState, ZonedDevice};

use super::Context;
use crate::inside::claim::{Claim, block_on, ensure_same_zones};
use crate::inside::record::UNIT;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

const CONVENTIONAL: ZoneId = ZoneId(1);
const ZONE: ZoneId = ZoneId(2);

#[derive(Debug, Clone, Copy)]
enum Step {
    Open,
    Close,
    Finish,
    Reset,
    Append,
}

impl Step {
    async fn take(self, device: &ZonedDevice, id: ZoneId) -> zbd_core::Result<()> {
        let zone = device.zone(id);
        match self {
            Self::Open => zone.open().await,
            Self::Close => zone.close().await,
            Self::Finish => zone.finish().await,
            Self::Reset => zone.reset().await,
            Self::Append => {
                let buffer = device.buffer(UNIT)?;
                zone.append(buffer).await.map(drop)
            }
        }
    }
}

pub(super) fn commands_change_states(context: &mut Context) -> Result<()> {
    use Step::{Append, Close, Finish, Open, Reset};
    use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};
    let claim = context.claim("main")?;
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        let mut written = 0;
        for (number, (step, becomes)) in [
            (Open, ExplicitlyOpen),
            (Open, ExplicitlyOpen),
            (Close, Empty),
            (Append, ImplicitlyOpen),
            (Close, Closed),
            (Close, Closed),
            (Append, ImplicitlyOpen),
            (Open, ExplicitlyOpen),
            (Append, ExplicitlyOpen),
            (Close, Closed),
            (Open, ExplicitlyOpen),
            (Finish, Full),
            (Finish, Full),
            (Reset, Empty),
            (Reset, Empty),
            (Finish, Full),
            (Reset, Empty),
            (Append, ImplicitlyOpen),
            (Reset, Empty),
            (Append, ImplicitlyOpen),
            (Close, Closed),
            (Finish, Full),
            (Reset, Empty),
        ]
        .into_iter()
        .enumerate()
        {
            let done = step.take(&device, ZONE).await;
            done.with_context(|| format!("step {number}, {step:?}"))?;
            match step {
                Append => written += UNIT as u64 / 512,
                Reset => written = 0,
                _ => {}
            }
            let zone = device.zone(ZONE).report().await?;
            let pointer = (becomes != Full).then_some(Sector(zone.start.0 + written));
            ensure!(
                zone.state == becomes && zone.write_pointer == pointer,
                "step {number}, {step:?}, {written} sectors written: {zone:?}"
            );
        }
        Ok(())
    })
}

pub(super) fn refused_commands_leave_everything_as_it_was(context: &mut Context) -> Result<()> {
    use Step::{Append, Close, Finish, Open, Reset};
    let panel = context.panel("main")?;
    let max_append = context.geometry("main")?.max_append as usize;
    let claim = context.claim("main")?;
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        device.zone(ZONE).finish().await?;
        let before = device.report(..).await?;
        let count = ZoneId(u32::try_from(before.len())?);

        // QEMU has one answer for all of these.
        for (zone, step) in [
            (CONVENTIONAL, Open),
            (CONVENTIONAL, Close),
            (CONVENTIONAL, Finish),
            (CONVENTIONAL, Reset),
            (ZONE, Open),
            (ZONE, Close),
        ] {
            let done = step.take(&device, zone).await;
            expect(
                done,
                ErrorKind::InvalidZoneState,
                format!("{step:?} {zone}"),
            )?;
        }
        // A write elsewhere than at the write pointer.
        let third = before[3].start;
        let write = device.write(Sector(third.0 + 8), device.buffer(UNIT)?);
        let done = write.await.map(drop);
        expect(done, ErrorKind::Medium, "write past the pointer".into())?;

        // None of these reaches the device.
        let counted = panel.counters()?;
        for (zone, step) in [
            (CONVENTIONAL, Append),
            (count, Append),
            (count, Open),
            (count, Close),
            (count, Finish),
            (count, Reset),
        ] {
            let done = step.take(&device, zone).await;
            expect(done, ErrorKind::InvalidRequest, format!("{step:?} {zone}"))?;
        }
        for len in [100, 511, max_append + 512] {
            let done = device
                .append(ZoneId(3), device.buffer(len)?)
                .await
                .map(drop);
            expect(done, ErrorKind::InvalidRequest, format!("append of {len}"))?;
        }
        let end = Sector(device.info().capacity.0);
        let read = device.read(end, UNIT).await.map(drop);
        expect(read, ErrorKind::InvalidRequest, "read past the end".into())?;
        let after = panel.counters()?;
        ensure!(counted == after, "{counted:?} became {after:?}");

        ensure!(device.report(..).await? == before, "a zone has changed");
        let some = device.report(ZoneId(3)..ZoneId(7)).await?;
        ensure!(some == before[3..7], "{some:?}");
        let last = device.report(ZoneId(count.0 - 1)..).await?;
        ensure!(last == before[before.len() - 1..], "{last:?}");
        Ok(())
    })
}

fn expect(done: zbd_core::Result<()>, kind: ErrorKind, what: String) -> Result<()> {
    match done {
        Ok(()) => bail!("{what}: the device did it"),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => bail!("{what}: {error:?}, not {kind:?}"),
    }
}

pub(super) fn open_and_active_limits_are_errors(context: &mut Context) -> Result<()> {
    let geometry = context.geometry("main")?;
    let (open, active) = (geometry.max_open as u32, geometry.max_active as u32);
    let claim = context.claim("main")?;
    let device = ZonedDevice::open(&claim.spec())?;
    block_on(async {
        let zone = |index| ZoneId(ZONE.0 + index);
        // QEMU never says which limit it was; its zones do.
        for index in 0..open {
            device.zone(zone(index)).open().await?;
        }
        for step in [Step::Open, Step::Append] {
            let done = step.take(&device, zone(open)).await;
            let what = format!("{step:?} beyond {open} open zones");
            expect(done, ErrorKind::OpenLimit, what)?;
        }
        device.zone(zone(0)).close().await?;
        Step::Append.take(&device, zone(open)).await?;

        // Only with data in it does a zone stay active when it is closed.
        for index in 0..active {
            let done = Step::Append.take(&device, zone(index)).await;
            done.with_context(|| format!("active zone {index}"))?;
            device.zone(zone(index)).close().await?;
        }
        for step in [Step::Open, Step::Append] {
            let done = step.take(&device, zone(active)).await;
            expect(
                done,
                ErrorKind::ActiveLimit,
                format!("{step:?} beyond {active} active zones"),
            )?;
        }
        device.zone(zone(0)).finish().await?;
        Step::Append.take(&device, zone(active)).await?;
        let report = device.report(..).await?;
        let counted = report.iter().filter(|zone| zone.state.is_active()).count();
        ensure!(counted == active as usize, "{counted} zones are active");
        Ok(())
    })
}

pub(super) fn linux_sees_the_states_that_the_driver_left(context: &mut Context) -> Result<()> {
    use Step::{Append, Close, Finish, Open};
    let claim = context.claim("main")?;
    let device = ZonedDevice::open(&claim.spec())?;
    let report = block_on(async {
        let recipes: [&[Step]; 6] = [
            &[Open],
            &[Append],
            &[Append, Append, Open],
            &[Append, Append, Append, Close],
            &[Finish],
            &[Append, Finish],
        ];
        for (zone, steps) in (ZONE.0..).zip(recipes) {
            for step in steps {
                let done = step.take(&device, ZoneId(zone)).await;
                done.with_context(|| format!("{step:?} zone {zone}"))?;
            }
        }
        Ok(device.report(..).await?)
    })?;
    let states: Vec<ZoneState> = report[ZONE.0 as usize..][..7]
        .iter()
        .map(|zone| zone.state)
        .collect();
    let expected = [
        ZoneState::ExplicitlyOpen,
        ZoneState::ImplicitlyOpen,
        ZoneState::ExplicitlyOpen,
        ZoneState::Closed,
        ZoneState::Full,
        ZoneState::Full,
        ZoneState::Empty,
    ];
    ensure!(states == expected, "{states:?}");
    drop(device);
    let function = claim.function.clone();
    let disk = claim.give_back()?;
    ensure_same_zones(&report, &disk.report()?)?;
    drop(disk);

    let claim = Claim::take(function)?;
    let device = ZonedDevice::open(&claim.spec())?;
    let report = block_on(async {
        device.reset_all().await?;
        Ok(device.report(..).await?)
    })?;
    let sequential = &report[ZONE.0 as usize..];
    let all_empty = sequential.iter().all(|zone| zone.state == ZoneState::Empty);
    ensure!(all_empty, "{sequential:?}");
    drop(device);
    ensure_same_zones(&report, &claim.give_back()?.report()?)
}
