//! A process that is killed while it has appends in flight.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use zbd_core::{ZoneId, ZonedDevice};

use super::Context;
use crate::inside::beside::{self, DEPTH};
use crate::inside::claim::{block_on, ensure_same_zones, records, records_seen_by_linux};
use crate::inside::record::{Placed, Record, ensure_present};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

const ZONES: [u32; 3] = [1, 2, 5];

pub(super) fn killed_process_leaves_a_usable_device(context: &mut Context) -> Result<()> {
    let claim = context.claim("unmerged")?;
    let zones = ZONES.map(ZoneId);
    let mut acknowledged: Vec<Placed> = Vec::new();
    let mut unacknowledged = 0;
    let mut report = Vec::new();
    for (seed, kill_after) in (1..).zip([1, 200, 1500]) {
        let mut acknowledged_now = append_and_kill(&claim.spec(), seed, kill_after)?;
        acknowledged.append(&mut acknowledged_now);

        let device = ZonedDevice::open(&claim.spec()).context("after the kill")?;
        let found = block_on(async {
            report = device.report(..).await?;
            let mut found = Vec::new();
            for zone in ZONES {
                found.extend(records(&device, &report[zone as usize]).await?);
            }
            Ok(found)
        })?;
        // All that was acknowledged is there, and nothing else but what was in flight; whatever lies
        // below a write pointer is an intact record, once.
        ensure_present(&acknowledged, &found).with_context(|| format!("job {seed}"))?;
        let unknown = (found.len() - acknowledged.len()) as u64;
        ensure!(
            unknown <= unacknowledged + DEPTH,
            "{unknown} records that nobody acknowledged, {unacknowledged} of them from before"
        );
        unacknowledged = unknown;
        let elsewhere = report
            .iter()
            .filter(|zone| !zones.contains(&zone.id))
            .find(|zone| zone.written().is_some_and(|written| written.0 > 0));
        ensure!(elsewhere.is_none(), "{elsewhere:?}");
    }
    context.metric("carried_out_unacknowledged", unacknowledged as f64);
    let disk = claim.give_back()?;
    ensure_same_zones(&report, &disk.report()?)?;
    ensure_present(&acknowledged, &records_seen_by_linux(&disk, &zones)?)
}

/// Has another process append, kills it when it has acknowledged so many appends, and returns all
/// that it acknowledged before it died.
fn append_and_kill(spec: &str, seed: u64, kill_after: usize) -> Result<Vec<Placed>> {
    let mut arguments = vec![spec.to_owned(), seed.to_string()];
    arguments.extend(ZONES.map(|zone| zone.to_string()));
    let mut command = beside::command(beside::APPEND, &arguments)?;
    let mut child: Child = command.stdout(Stdio::piped()).spawn()?;
    let mut printed = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut text = String::new();
    for _ in 0..kill_after {
        ensure!(printed.read_line(&mut text)? > 0, "it ended by itself");
    }
    child.kill()?;
    let status = child.wait()?;
    ensure!(status.code().is_none(), "it ended by itself: {status}");
    printed.read_to_string(&mut text)?;
    text.lines()
        .map(|line| {
            let (sequence, sector) = line.split_once(' ').context("half a line")?;
            let sequence = sequence.parse()?;
            let record = Record {
                seed,
                sequence,
                zone: ZONES[sequence as usize % ZONES.len()],
                units: 1,
            };
            let sector = sector.parse()?;
            Ok(Placed { sector, record })
        })
        .collect()
}
