//! Zones that hold what others need: named by errors, waited for in line.

use anyhow::{Result, ensure};
use zbd_core::{ErrorKind, ZoneId, ZonedDevice};

use super::{append, refused};
use crate::inside::record::{Record, UNIT};

pub(super) async fn exercise(device: &ZonedDevice, zones: &[ZoneId]) -> Result<()> {
    active(device, zones).await?;
    open(device, zones).await
}

/// The zones that `max` allows at once, and one that is too many where there is such a one.
fn within(zones: &[ZoneId], max: Option<u32>) -> (&[ZoneId], Option<ZoneId>) {
    match max {
        Some(max) if (max as usize) < zones.len() => {
            let max = max as usize;
            (&zones[..max], Some(zones[max]))
        }
        _ => (zones, None),
    }
}

async fn one(device: &ZonedDevice, zone: ZoneId) -> Result<()> {
    let record = Record {
        seed: 3000,
        sequence: 0,
        zone: zone.0,
        units: 1,
    };
    append(device, record).await?;
    Ok(())
}

async fn active(device: &ZonedDevice, zones: &[ZoneId]) -> Result<()> {
    let info = device.info();
    let max = info.zoned()?.max_active;
    device.reset_all().await?;
    let (within, beyond) = within(zones, max);
    for zone in within {
        device.zone(*zone).reserve().await?;
        one(device, *zone).await?;
    }
    let Some(beyond) = beyond else {
        return Ok(());
    };
    let holder = format!(" {}", within[0]);
    let came_back = refused(
        device.append(beyond, device.buffer(UNIT)?).await,
        ErrorKind::ActiveLimit,
        &[&holder, "finish or reset"],
        "append to one zone too many",
    )?;
    ensure!(came_back, "the buffer stays away");

    let waiting = tokio::spawn({
        let device = device.clone();
        async move {
            device.zone(beyond).reserve().await?;
            one(&device, beyond).await
        }
    });
    for _ in 0..10 {
        device.report(..).await?;
        ensure!(
            !waiting.is_finished(),
            "nothing was given back: {waiting:?}"
        );
    }
    device.zone(within[0]).reset().await?;
    waiting.await?
}

async fn open(device: &ZonedDevice, zones: &[ZoneId]) -> Result<()> {
    let info = device.info();
    let zoned = info.zoned()?;
    device.reset_all().await?;
    let (within, beyond) = within(zones, zoned.max_open);
    for zone in within {
        device.zone(*zone).open().await?;
    }
    let Some(beyond) = beyond else {
        return Ok(());
    };
    let holder = format!(" {}", within[0]);
    // Where no more may be active than open, that is what is in the way: closing helps nobody.
    let (kind, remedy) = match zoned.max_active == zoned.max_open {
        true => (ErrorKind::ActiveLimit, "finish or reset"),
        false => (ErrorKind::OpenLimit, "close, finish or reset"),
    };
    let words: &[&str] = &[&holder, remedy];
    let what = "one open zone too many";
    refused(device.zone(beyond).open().await, kind, words, what)?;
    let buffer = device.buffer(UNIT)?;
    refused(device.append(beyond, buffer).await, kind, words, what)?;
    // Nothing was written to it: that makes it empty.
    device.zone(within[0]).close().await?;
    one(device, beyond).await
}
