//! What the command line asks for, checked: by itself, then against the device and its zones.

use std::time::Duration;

use zbd_core::{
    AppendSupport, Backend, DeviceInfo, DeviceSpec, SECTOR_LEN, Zone, ZoneState, ZoneType,
};

use super::operation::Measures;
use crate::{
    cli::{ZoneOp, ZoneopsArgs},
    failure::{During, Failure},
    job::select,
};

/// How many zones are used unless something else is asked for.
const ZONES: usize = 8;
/// How many zones are appended to at the most.
const APPENDED: usize = 4;
/// No virtqueue holds more requests (VIRTIO 1.3, 2.7).
const MAX_DEPTH: u64 = 32768;
const MAX_BLOCK_SIZE: u64 = 1 << 30;

/// What is asked for, and makes sense by itself.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The device as it was named.
    pub(crate) device: String,
    pub(crate) spec: DeviceSpec,
    /// Nothing means everything.
    pub(crate) ops: Vec<ZoneOp>,
    pub(crate) repeat: u64,
    pub(crate) zones: Option<u64>,
    pub(crate) block_size: u32,
    pub(crate) depth: u16,
    pub(crate) runtime: Duration,
    pub(crate) fill_limit: u64,
    pub(crate) load: bool,
    pub(crate) destroy: bool,
    /// Whether zones may be emptied: on the emulated device always.
    pub(crate) consent: bool,
}

/// Which zones are used, and for what.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The zones that are appended to while others are managed.
    pub(crate) appended: Vec<Zone>,
    /// The zones that are managed.
    pub(crate) managed: Vec<Zone>,
    pub(crate) measures: Measures,
    /// How many zones can be active beside those that are appended to; `None` for any number.
    pub(crate) room: Option<u32>,
    /// Why nothing is appended beside, if that was not asked for.
    pub(crate) no_load: Option<String>,
}

/// How what runs beside is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Appends,
    /// On a device that knows no append.
    Writes,
}

impl Beside {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Appends => "append",
            Self::Writes => "write",
        }
    }
}

impl Plan {
    /// Checks what can be checked without a device.
    pub(crate) fn resolve(args: &ZoneopsArgs) -> Result<Self, Failure> {
        let spec: DeviceSpec = args
            .device
            .parse()
            .map_err(|error| Failure::from_device(During::Opening, &error))?;
        if args.repeat == 0 {
            return Err(Failure::usage("--repeat 0: give at least 1"));
        }
        if args.zones == Some(0) {
            return Err(Failure::usage(
                "--zones 0: give 1, or 2 and more to append beside",
            ));
        }
        let depth = u16::try_from(args.depth)
            .ok()
            .filter(|_| (1..=MAX_DEPTH).contains(&args.depth))
            .ok_or_else(|| {
                Failure::usage(format!("--depth {}: give 1 to {MAX_DEPTH}", args.depth))
            })?;
        let block_size = u32::try_from(args.block_size)
            .ok()
            .filter(|size| *size > 0 && u64::from(*size) <= MAX_BLOCK_SIZE)
            .filter(|size| u64::from(*size).is_multiple_of(SECTOR_LEN))
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--block-size {}: give a multiple of {SECTOR_LEN} bytes, at most 1g",
                    args.block_size
                ))
            })?;
        if args.runtime.is_zero() {
            return Err(Failure::usage(
                "--runtime 0: give a time such as 100ms, or --no-load",
            ));
        }
        let consent = args.destroy || matches!(spec, DeviceSpec::Emulated(_));
        Ok(Self {
            device: args.device.clone(),
            spec,
            ops: args.ops.clone(),
            repeat: args.repeat,
            zones: args.zones,
            block_size,
            depth,
            runtime: args.runtime,
            fill_limit: args.fill_limit,
            load: !args.no_load,
            destroy: args.destroy,
            consent,
        })
    }

    /// Whether an operation is asked for.
    pub(crate) fn wants(&self, op: ZoneOp) -> bool {
        self.ops.is_empty() || self.ops.contains(&op)
    }

    /// How many queues to open: two where appends and operations can each have one.
    pub(crate) fn queues(&self, info: &DeviceInfo) -> u16 {
        // The kernel gives out as many as are asked for.
        let several = info.max_queues > 1 || info.backend == Backend::Kernel;
        if self.load && several { 2 } else { 1 }
    }

    /// How the zones are written beside.
    pub(crate) fn beside(info: &DeviceInfo, zones: &[Zone]) -> Beside {
        let required = |zone: &Zone| zone.zone_type == ZoneType::SequentialRequired;
        match &info.zoned {
            Some(zoned) if zoned.append != AppendSupport::None && zones.iter().all(required) => {
                Beside::Appends
            }
            _ => Beside::Writes,
        }
    }

    /// Checks the plan against the limits of the device.
    pub(crate) fn check(&self, info: &DeviceInfo) -> Result<(), Failure> {
        let (size, name) = (self.block_size, &info.name);
        let zoned = info
            .zoned()
            .map_err(|error| Failure::from_device(During::Opening, &error))?;
        if info.read_only {
            return Err(Failure::device(format!(
                "{name} is read-only, so its zones cannot be managed; zbd-bench zones report works"
            )));
        }
        let unit = info.block_size.max(zoned.write_granularity);
        if !size.is_multiple_of(info.block_size) || !size.is_multiple_of(zoned.write_granularity) {
            return Err(Failure::usage(format!(
                "--block-size {size}: {name} writes in units of {unit} bytes; give a multiple"
            )));
        }
        if size > info.max_transfer {
            return Err(Failure::usage(format!(
                "--block-size {size}: a request to {name} has {} bytes at the most",
                info.max_transfer
            )));
        }
        if !self.load {
            return Ok(());
        }
        // One request of a queue that is shared is the operation.
        let shared = u16::from(self.queues(info) == 1);
        let most = info.queue_depth.saturating_sub(shared);
        if self.depth > most {
            return Err(Failure::usage(match shared {
                0 => format!(
                    "--depth {}: a queue of {name} holds {most} requests at the most",
                    self.depth
                ),
                _ => format!(
                    "--depth {}: {name} has one queue of {} requests, and one of these is for the operations; give {most} or less, or --no-load",
                    self.depth, info.queue_depth
                ),
            }));
        }
        let max_append = zoned.max_append.bytes();
        if zoned.append != AppendSupport::None && max_append > 0 && u64::from(size) > max_append {
            return Err(Failure::usage(format!(
                "--block-size {size}: an append to {name} has {max_append} bytes at the most"
            )));
        }
        Ok(())
    }

    /// Chooses the zones, if they may be used.
    pub(crate) fn layout(&self, info: &DeviceInfo, report: &[Zone]) -> Result<Layout, Failure> {
        let zones = self.zones(info, report)?;
        let measures = self.measures(info, &zones)?;
        self.require_consent(info, &zones, report)?;
        let (room, taken) = room(info, &zones, report);
        if room == Some(0) {
            return Err(Failure::device(format!(
                "{} {} the limits of {} (max_open, max_active), and no other zone can be opened; finish or reset some",
                select::names(&taken),
                if taken.len() == 1 {
                    "uses up"
                } else {
                    "use up"
                },
                info.name
            )));
        }
        let appended = match room {
            None => APPENDED,
            Some(room) => APPENDED.min(room.saturating_sub(1) as usize),
        };
        let appended = appended.min(zones.len() / 2);
        let no_load = match (self.load, appended) {
            (true, 0) if zones.len() < 2 => {
                Some("that takes 2 zones at least, and 1 is used".to_owned())
            }
            (true, 0) => Some(format!(
                "{} lets one zone be open at a time, and that takes two",
                info.name
            )),
            _ => None,
        };
        let appended = if self.load { appended } else { 0 };
        let (appended, managed) = zones.split_at(appended);
        Ok(Layout {
            room: room.map(|room| room - appended.len() as u32),
            appended: appended.to_vec(),
            managed: managed.to_vec(),
            measures,
            no_load,
        })
    }

    /// The first sequential zones that can be used.
    fn zones(&self, info: &DeviceInfo, report: &[Zone]) -> Result<Vec<Zone>, Failure> {
        let usable = select::usable(info, report)?;
        match self.zones {
            Some(zones) => select::first(zones, usable, info),
            None => Ok(usable.into_iter().take(ZONES).collect()),
        }
    }

    fn measures(&self, info: &DeviceInfo, zones: &[Zone]) -> Result<Measures, Failure> {
        let granularity = info
            .zoned
            .as_ref()
            .map_or(0, |zoned| zoned.write_granularity);
        let capacities = zones.iter().map(|zone| zone.capacity.bytes());
        let measures = Measures {
            capacity: capacities.min().unwrap_or_default(),
            block: self.block_size.into(),
            unit: info.block_size.max(granularity).into(),
        };
        // Fewer than two blocks are no room for fill levels.
        if measures.capacity < 2 * measures.block {
            return Err(Failure::usage(format!(
                "--block-size {}: a zone of {} has a capacity of {} bytes, and two blocks at least are needed",
                self.block_size, info.name, measures.capacity
            )));
        }
        Ok(measures)
    }

    /// What is on the zones is lost, and with a reset of all zones what is on the others, too.
    fn require_consent(
        &self,
        info: &DeviceInfo,
        zones: &[Zone],
        report: &[Zone],
    ) -> Result<(), Failure> {
        let full = select::not_empty(zones);
        select::require_consent(
            self.consent,
            &info.name,
            &full,
            "not empty and would be reset",
        )?;
        if !self.wants(ZoneOp::ResetAll) {
            return Ok(());
        }
        let sequential: Vec<Zone> = report
            .iter()
            .filter(|zone| zone.zone_type != ZoneType::Conventional)
            .copied()
            .collect();
        select::require_consent(
            self.consent,
            &info.name,
            &select::not_empty(&sequential),
            "not empty and would be emptied by reset-all, which --ops can leave out",
        )
    }

    /// How many samples to take of an operation for each of which so much is written.
    pub(crate) fn samples(&self, bytes: u64) -> u64 {
        const LEAST: u64 = 3;
        let affordable = self.fill_limit.checked_div(bytes).unwrap_or(u64::MAX);
        self.repeat.min(affordable.max(LEAST))
    }
}

/// How many zones can be active at once, beside those of others, and which these are. What others
/// have open explicitly stays open.
fn room(info: &DeviceInfo, zones: &[Zone], report: &[Zone]) -> (Option<u32>, Vec<Zone>) {
    let Some(zoned) = &info.zoned else {
        return (None, Vec::new());
    };
    let others = |counts: fn(ZoneState) -> bool| -> Vec<Zone> {
        let used = |zone: &Zone| zones.iter().any(|used| used.id == zone.id);
        let others = report.iter().filter(|zone| counts(zone.state));
        others.filter(|zone| !used(zone)).copied().collect()
    };
    let active = others(ZoneState::is_active);
    let open = others(|state| state == ZoneState::ExplicitlyOpen);
    let left = |limit: Option<u32>, taken: &[Zone]| {
        limit.map(|limit| limit.saturating_sub(taken.len() as u32))
    };
    let rooms = [
        (left(zoned.max_active, &active), active),
        (left(zoned.max_open, &open), open),
    ];
    let limited = rooms.into_iter().filter(|(room, _)| room.is_some());
    limited
        .min_by_key(|(room, _)| *room)
        .unwrap_or((None, Vec::new()))
}

#[cfg(test)]
mod tests;
