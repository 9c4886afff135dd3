//! What the command line asks for, checked: first by itself, then against an open device.

use std::time::Duration;

use zbd_core::{DeviceInfo, DeviceSpec, SECTOR_LEN, Zone, ZoneState, ZoneType};
use zbd_emu::StoreKind;

use super::plan::Limits;
use crate::{
    cli::VerifyArgs,
    failure::{During, Failure},
    job::select,
};

const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// How many zones are used where it is not said.
const DEFAULT_ZONES: usize = 16;
/// No record is longer, whatever an append may be.
const MOST_LEN: u64 = 1 << 20;
/// So many are a mistake.
const MOST_TASKS: u32 = 65536;

/// What a run is made from.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) device: String,
    pub(crate) seed: u64,
    pub(crate) duration: Option<Duration>,
    pub(crate) rounds: Option<u32>,
    pub(crate) tasks: u32,
    pub(crate) depth: u32,
    /// How many zones were asked for.
    pub(crate) zones: Option<u32>,
    pub(crate) queues: u16,
    pub(crate) destroy: bool,
    /// Whether data may be destroyed: on the emulated device always.
    pub(crate) consent: bool,
}

impl Settings {
    /// Checks what can be checked without a device, whose string has been parsed as `spec`.
    pub(super) fn resolve(args: &VerifyArgs, spec: &DeviceSpec) -> Result<Self, Failure> {
        for (option, value, most) in [
            ("tasks", args.tasks, MOST_TASKS),
            ("depth", args.depth, MOST_TASKS),
            ("queues", args.queues.into(), u16::MAX.into()),
            ("rounds", args.rounds.unwrap_or(1), u32::MAX),
            ("zones", args.zones.unwrap_or(1), u32::MAX),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Failure::usage(format!(
                    "--{option} {value}: give 1 to {most}"
                )));
            }
        }
        if args.duration == Some(Duration::ZERO) {
            return Err(Failure::usage("--duration 0: give a time such as 10s"));
        }
        if let DeviceSpec::Emulated(config) = spec
            && config.store == StoreKind::Null
        {
            return Err(Failure::device(format!(
                "{}: with store=null no data are kept that could be verified; use store=mem or store=PATH",
                args.device
            )));
        }
        Ok(Self {
            device: args.device.clone(),
            seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
            duration: match args.rounds {
                Some(_) => args.duration,
                None => Some(args.duration.unwrap_or(DEFAULT_DURATION)),
            },
            rounds: args.rounds,
            tasks: args.tasks,
            depth: args.depth,
            zones: args.zones,
            queues: args.queues,
            destroy: args.destroy,
            consent: args.destroy || matches!(spec, DeviceSpec::Emulated(_)),
        })
    }

    /// The zones to use: the first that can be written to.
    pub(super) fn select(&self, info: &DeviceInfo, report: &[Zone]) -> Result<Vec<Zone>, Failure> {
        let usable = select::usable(info, report)?;
        match self.zones {
            Some(zones) => select::first(zones.into(), usable, info),
            None => Ok(usable.into_iter().take(DEFAULT_ZONES).collect()),
        }
    }

    /// What the device allows, to whom these zones are left.
    pub(super) fn limits(
        &self,
        info: &DeviceInfo,
        report: &[Zone],
        zones: &[Zone],
        contiguous_len: usize,
    ) -> Result<Limits, Failure> {
        let zoned = info
            .zoned()
            .map_err(|error| Failure::from_device(During::Opening, &error))?;
        let others = |holds: fn(&Zone) -> bool| {
            let others = report.iter().filter(|zone| holds(zone));
            others
                .filter(|zone| !zones.iter().any(|used| used.id == zone.id))
                .count() as u32
        };
        let left = |most: Option<u32>, taken: u32, what: &str| match most {
            Some(most) if most <= taken => Err(Failure::device(format!(
                "{}: other zones hold all {most} that may be {what}; finish or reset some of them",
                info.name
            ))),
            Some(most) => Ok(Some(most - taken)),
            None => Ok(None),
        };
        let appends = zoned.max_append.0 > 0
            && zones
                .iter()
                .all(|zone| zone.zone_type == ZoneType::SequentialRequired);
        let unit = u64::from(zoned.write_granularity.max(info.block_size)).max(SECTOR_LEN);
        let mut most = MOST_LEN
            .min(info.max_transfer.into())
            .min(info.max_segment.into())
            .min(contiguous_len as u64 / 4);
        if appends {
            most = most.min(zoned.max_append.bytes());
        }
        let most = (most / unit * unit).max(unit);
        Ok(Limits {
            unit: (unit / SECTOR_LEN) as u32,
            most: (most / SECTOR_LEN) as u32,
            max_open: left(
                zoned.max_open,
                others(|zone| zone.state == ZoneState::ExplicitlyOpen),
                "open",
            )?,
            max_active: left(
                zoned.max_active,
                others(|zone| zone.state.is_active()),
                "active",
            )?,
            appends,
        })
    }

    /// The command that does the same again, up to the round in which it failed.
    pub(crate) fn reproduction(&self, rounds: u32) -> String {
        let mut text = format!(
            "zbd-bench verify {} --seed {} --rounds {rounds}",
            quoted(&self.device),
            self.seed
        );
        let mut option = |name: &str, value: String| {
            text += &format!(" --{name} {value}");
        };
        option("tasks", self.tasks.to_string());
        option("depth", self.depth.to_string());
        if let Some(zones) = self.zones {
            option("zones", zones.to_string());
        }
        if self.queues > 1 {
            option("queues", self.queues.to_string());
        }
        if self.destroy {
            text += " --destroy";
        }
        text
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-,=@+".contains(&byte);
    if word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_take_a_device_as_it_was_given() {
        assert_eq!(
            quoted("emu:zones=4,fault=flip-bit@1+misreport@2"),
            "emu:zones=4,fault=flip-bit@1+misreport@2"
        );
        assert_eq!(quoted("emu:store=/a b"), "'emu:store=/a b'");
        assert_eq!(quoted("emu:store=/it's"), r"'emu:store=/it'\''s'");
    }
}
