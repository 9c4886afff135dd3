//! What happens before the clock starts: zones are chosen, emptied or filled.

use std::time::Instant;

use zbd_core::{IoQueue, Request, Sector, SectorCount, Zone, ZoneAction, ZoneId};

use super::{control, plan::Job, progress::Progress, select, stop::Stop};
use crate::failure::{During, Failure};

/// The greatest write with which zones are filled.
const FILL_LEN: u64 = 256 << 10;

/// A part of the device that a job works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    /// The zone that it is, or the beginning of; `None` on a device without zones.
    pub(crate) zone: Option<ZoneId>,
    pub(crate) start: Sector,
    /// How many requests fit.
    pub(crate) blocks: u64,
}

/// A device that is ready for a job.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) areas: Vec<Area>,
    /// How long it took to fill empty zones.
    pub(crate) fill_seconds: f64,
}

/// Makes the device ready for the job, if it may.
pub(crate) fn prepare(
    queue: &mut IoQueue,
    job: &Job,
    stop: &Stop,
    progress: &Progress,
) -> Result<Prepared, Failure> {
    let info = queue.info().clone();
    let Some(zoned) = &info.zoned else {
        return plain(queue, job);
    };
    let report = control::report(queue, 0..zoned.zone_count).map_err(in_use)?;
    let mut zones = select::select(job, &info, &report)?;
    let mut fill_seconds = 0.0;
    if job.op.is_writing() {
        let full = select::not_empty(&zones);
        select::require_consent(
            job.consent,
            &info.name,
            &full,
            "not empty and would be reset",
        )?;
        for zone in full {
            interrupted(stop)?;
            progress.say(format!("resetting zone {}", zone.id));
            control::manage(queue, ZoneAction::Reset, zone.id).map_err(in_use)?;
        }
    } else {
        let empty = select::too_empty(&zones, job);
        let what = "empty and would be filled to have something to read";
        select::require_consent(job.consent, &info.name, &empty, what)?;
        let begun = Instant::now();
        for zone in &empty {
            progress.say(format!("filling zone {}", zone.id));
            fill(queue, zone, stop)?;
        }
        if let (Some(first), Some(last)) = (zones.first(), zones.last())
            && !empty.is_empty()
        {
            fill_seconds = begun.elapsed().as_secs_f64();
            let range = first.id.0..last.id.0 + 1;
            let report = control::report(queue, range).map_err(in_use)?;
            zones = select::select(job, &info, &report)?;
        }
    }
    let areas = zones.iter().map(|zone| Area {
        zone: Some(zone.id),
        start: zone.start,
        blocks: if job.op.is_writing() {
            select::blocks(job, zone.capacity)
        } else {
            select::blocks(job, select::readable(zone))
        },
    });
    let areas: Vec<Area> = areas.filter(|area| area.blocks > 0).collect();
    if areas.is_empty() {
        return Err(Failure::usage(format!(
            "--block-size {}: no zone of {} holds that much",
            job.block_size, info.name
        )));
    }
    Ok(Prepared {
        areas,
        fill_seconds,
    })
}

/// The whole of a device without zones.
fn plain(queue: &IoQueue, job: &Job) -> Result<Prepared, Failure> {
    let info = queue.info();
    if job.op.is_writing() && !job.consent {
        return Err(Failure::device(format!(
            "{}: what is on this disk would be overwritten; give --destroy if that may be",
            info.name
        )));
    }
    let blocks = select::blocks(job, info.capacity);
    if blocks == 0 {
        return Err(Failure::usage(format!(
            "--block-size {}: {} has {} bytes",
            job.block_size,
            info.name,
            info.capacity.bytes()
        )));
    }
    Ok(Prepared {
        areas: vec![Area {
            zone: None,
            start: Sector(0),
            blocks,
        }],
        fill_seconds: 0.0,
    })
}

/// Writes the zone from its write pointer to the end of its capacity.
fn fill(queue: &mut IoQueue, zone: &Zone, stop: &Stop) -> Result<(), Failure> {
    let info = queue.info().clone();
    let unit = info
        .zoned
        .as_ref()
        .map_or(0, |zoned| zoned.write_granularity);
    let unit = u64::from(unit.max(info.block_size));
    let most = FILL_LEN.min(info.max_transfer.into()) / unit * unit;
    let most = most.max(unit) as usize;
    let mut buffer = queue.buffer(most).map_err(in_use)?;
    buffer.fill(0x5a);
    let mut at = zone.write_pointer.unwrap_or(zone.start);
    loop {
        interrupted(stop)?;
        let left = SectorCount(zone.capacity_end().0 - at.0).bytes() / unit * unit;
        let len = left.min(most as u64);
        if len == 0 {
            return Ok(());
        }
        buffer.set_len(len as usize);
        let done = control::execute(queue, Request::Write { at, buffer }).map_err(in_use)?;
        match done.buffer {
            Some(back) => buffer = back,
            None => return Err(Failure::io("a write came back without its buffer")),
        }
        at = at + SectorCount(len / zbd_core::SECTOR_LEN);
    }
}

fn interrupted(stop: &Stop) -> Result<(), Failure> {
    if stop.is_set() {
        return Err(Failure::io(
            "interrupted while preparing the zones; nothing was measured",
        ));
    }
    Ok(())
}

fn in_use(error: zbd_core::Error) -> Failure {
    Failure::from_device(During::Use, &error)
}
