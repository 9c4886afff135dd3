//! Which zones a job uses, and whether it may.

use zbd_core::{DeviceInfo, SECTOR_LEN, SectorCount, Zone, ZoneState, ZoneType};

use super::plan::Job;
use crate::{cli::Op, failure::Failure};

/// The sequential zones that can be written to, of which there must be some.
pub(crate) fn usable(info: &DeviceInfo, report: &[Zone]) -> Result<Vec<Zone>, Failure> {
    let usable: Vec<Zone> = report
        .iter()
        .filter(|zone| zone.zone_type != ZoneType::Conventional)
        .filter(|zone| !matches!(zone.state, ZoneState::ReadOnly | ZoneState::Offline))
        .copied()
        .collect();
    if usable.is_empty() {
        return Err(Failure::device(format!(
            "{} has no sequential zones that can be used: all are conventional, read-only or offline",
            info.name
        )));
    }
    Ok(usable)
}

/// The first of the usable zones, of which there must be so many.
pub(crate) fn first(
    wanted: u64,
    mut usable: Vec<Zone>,
    info: &DeviceInfo,
) -> Result<Vec<Zone>, Failure> {
    if (usable.len() as u64) < wanted {
        return Err(Failure::usage(format!(
            "--zones {wanted}: {} has {} sequential zones that can be used",
            info.name,
            usable.len()
        )));
    }
    usable.truncate(wanted as usize);
    Ok(usable)
}

/// The zones that a job uses.
pub(crate) fn select(job: &Job, info: &DeviceInfo, report: &[Zone]) -> Result<Vec<Zone>, Failure> {
    let zones = first(job.zones.into(), usable(info, report)?, info)?;
    let preferred = |zone: &&Zone| zone.zone_type == ZoneType::SequentialPreferred;
    if job.op == Op::Append
        && let Some(zone) = zones.iter().find(preferred)
    {
        return Err(Failure::device(format!(
            "zone {} of {} is written best in sequence but need not be, and such zones take no appends; use --op write",
            zone.id, info.name
        )));
    }
    for zone in &zones {
        if zone.capacity.bytes() < u64::from(job.block_size) {
            return Err(Failure::usage(format!(
                "--block-size {}: zone {} of {} has a capacity of {} bytes",
                job.block_size,
                zone.id,
                info.name,
                zone.capacity.bytes()
            )));
        }
    }
    if job.op.is_writing() {
        check_active(job, &zones, info, report)?;
    }
    Ok(zones)
}

/// Zones that others left active count against the limit, too.
fn check_active(
    job: &Job,
    zones: &[Zone],
    info: &DeviceInfo,
    report: &[Zone],
) -> Result<(), Failure> {
    let Some(max_active) = info.zoned.as_ref().and_then(|zoned| zoned.max_active) else {
        return Ok(());
    };
    let others: Vec<Zone> = report
        .iter()
        .filter(|zone| zone.state.is_active() && !zones.iter().any(|used| used.id == zone.id))
        .copied()
        .collect();
    if job.max_open as usize + others.len() > max_active as usize {
        return Err(Failure::usage(format!(
            "--zones {}: {} has {max_active} active zones at the most (max_active), and {} active already; finish or reset those, or use fewer",
            zones.len(),
            info.name,
            names(&others),
        )));
    }
    Ok(())
}

/// The zones that a writing job must reset before it can begin.
pub(crate) fn not_empty(zones: &[Zone]) -> Vec<Zone> {
    let not_empty = |zone: &&Zone| zone.state != ZoneState::Empty;
    zones.iter().filter(not_empty).copied().collect()
}

/// The zones that hold not even one block to read and must be filled first.
pub(crate) fn too_empty(zones: &[Zone], job: &Job) -> Vec<Zone> {
    zones
        .iter()
        .filter(|zone| readable(zone).bytes() < u64::from(job.block_size))
        .copied()
        .collect()
}

/// How much of the zone lies below its write pointer.
pub(crate) fn readable(zone: &Zone) -> SectorCount {
    zone.written().unwrap_or_default()
}

/// Refuses to touch zones that hold data, or that would be filled, unless that was allowed.
pub(crate) fn require_consent(
    consent: bool,
    device: &str,
    zones: &[Zone],
    what: &str,
) -> Result<(), Failure> {
    if consent || zones.is_empty() {
        return Ok(());
    }
    let verb = if zones.len() == 1 { "is" } else { "are" };
    Err(Failure::device(format!(
        "{device}: {} {verb} {what}; give --destroy if that may be",
        names(zones)
    )))
}

/// The numbers of zones in words, the first few at least.
pub(crate) fn names(zones: &[Zone]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = zones.iter().take(SHOWN).map(|z| z.id.to_string()).collect();
    match zones.len() {
        1 => format!("zone {}", shown.join("")),
        n if n <= SHOWN => format!("zones {}", shown.join(", ")),
        n => format!("zones {} and {} more", shown.join(", "), n - SHOWN),
    }
}

/// How many requests of the job fit into so many sectors.
pub(crate) fn blocks(job: &Job, sectors: SectorCount) -> u64 {
    sectors.0 / (u64::from(job.block_size) / SECTOR_LEN)
}

#[cfg(test)]
mod tests {
    use zbd_core::{Sector, ZoneId};

    use super::*;

    fn zone(id: u32, state: ZoneState) -> Zone {
        let start = Sector(u64::from(id) * 100);
        Zone {
            id: ZoneId(id),
            start,
            size: SectorCount(100),
            capacity: SectorCount(80),
            write_pointer: state.is_active().then_some(start),
            zone_type: ZoneType::SequentialRequired,
            state,
        }
    }

    #[test]
    fn many_zones_are_named_in_few_words() {
        let zones: Vec<Zone> = (0..10).map(|id| zone(id, ZoneState::Full)).collect();
        assert_eq!(names(&zones[3..4]), "zone 3");
        assert_eq!(names(&zones[..3]), "zones 0, 1, 2");
        assert_eq!(names(&zones), "zones 0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }

    #[test]
    fn consent_is_asked_for_only_where_something_would_be_lost() {
        let full = [zone(5, ZoneState::Full)];
        let refusal = require_consent(false, "pci:x", &full, "not empty").unwrap_err();
        assert_eq!(refusal.exit(), crate::failure::Exit::Device);
        assert!(refusal.message().contains("zone 5 is not empty"));
        assert!(refusal.message().contains("--destroy"));
        assert!(require_consent(true, "pci:x", &full, "not empty").is_ok());
        assert!(require_consent(false, "pci:x", &[], "not empty").is_ok());
    }

    #[test]
    fn every_zone_but_an_empty_one_must_be_reset_before_writing() {
        let states = [
            ZoneState::Empty,
            ZoneState::ImplicitlyOpen,
            ZoneState::ExplicitlyOpen,
            ZoneState::Closed,
            ZoneState::Full,
        ];
        let zones: Vec<Zone> = (0..)
            .zip(states)
            .map(|(id, state)| zone(id, state))
            .collect();
        let ids: Vec<u32> = not_empty(&zones).iter().map(|zone| zone.id.0).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
    }
}
