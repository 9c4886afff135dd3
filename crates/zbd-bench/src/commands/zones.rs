//! `zbd-bench zones`

use zbd_core::{IoQueue, Request, Zone, ZoneAction, ZoneState, ZoneType};

use crate::{
    cli::{NamedZonesArgs, ResetAllArgs, SomeZonesArgs, ZonesCommand, ZonesFormat},
    failure::{During, Failure},
    job::{control, select},
    report,
};

/// Reports and manages zones.
pub(crate) fn zones(command: &ZonesCommand) -> Result<(), Failure> {
    match command {
        ZonesCommand::Report(args) => report(args),
        ZonesCommand::Map(args) => super::zone_map::map(args),
        ZonesCommand::Open(args) => manage(args, ZoneAction::Open, true),
        ZonesCommand::Close(args) => manage(args, ZoneAction::Close, true),
        ZonesCommand::Finish(args) => manage(args, ZoneAction::Finish, true),
        ZonesCommand::Reset(args) => manage(&args.named, ZoneAction::Reset, args.destroy),
        ZonesCommand::ResetAll(args) => reset_all(args),
    }
}

fn report(args: &SomeZonesArgs) -> Result<(), Failure> {
    let (mut queue, _) = super::open(&args.device)?;
    let zones = named(&mut queue, &args.zones)?;
    report::zones::zones(&queue.info().name, &zones, args.format)
}

fn manage(args: &NamedZonesArgs, action: ZoneAction, destroy: bool) -> Result<(), Failure> {
    let (mut queue, emulated) = super::open(&args.device)?;
    // All zones are looked at before the first is changed.
    let zones = named(&mut queue, &args.zones)?;
    if action == ZoneAction::Reset {
        consent(&queue, &zones, emulated || destroy)?;
    }
    for zone in &zones {
        control::manage(&mut queue, action, zone.id).map_err(|error| {
            let (verb, id) = (verb(action), zone.id);
            let what = format!(
                "{verb} zone {id}, which is {} ({})",
                zone.state, zone.zone_type
            );
            Failure::doing(&what, &error)
        })?;
    }
    let zones = named(&mut queue, &args.zones)?;
    report::zones::zones(&queue.info().name, &zones, args.format)
}

fn reset_all(args: &ResetAllArgs) -> Result<(), Failure> {
    let (mut queue, emulated) = super::open(&args.device)?;
    let zones = named(&mut queue, &[])?;
    consent(&queue, &zones, emulated || args.destroy)?;
    control::execute(&mut queue, Request::ResetAll).map_err(in_use)?;
    let zones = named(&mut queue, &[])?;
    let name = &queue.info().name;
    if args.format == ZonesFormat::Text {
        let empty = zones.iter().filter(|z| z.state == ZoneState::Empty).count();
        return report::print(&format!(
            "{empty} of {} zones of {name} are empty\n",
            zones.len()
        ));
    }
    report::zones::zones(name, &zones, args.format)
}

fn verb(action: ZoneAction) -> &'static str {
    match action {
        ZoneAction::Open => "open",
        ZoneAction::Close => "close",
        ZoneAction::Finish => "finish",
        ZoneAction::Reset => "reset",
    }
}

fn consent(queue: &IoQueue, zones: &[Zone], given: bool) -> Result<(), Failure> {
    let sequential = zones
        .iter()
        .filter(|z| z.zone_type != ZoneType::Conventional);
    let lost = select::not_empty(&sequential.copied().collect::<Vec<_>>());
    let name = &queue.info().name;
    select::require_consent(given, name, &lost, "not empty and would be reset")
}

/// Reports the zones with these numbers, or all if none is given.
pub(super) fn named(queue: &mut IoQueue, numbers: &[u32]) -> Result<Vec<Zone>, Failure> {
    let info = queue.info().clone();
    let count = info.zoned().map_err(in_use)?.zone_count;
    if numbers.is_empty() {
        return control::report(queue, 0..count).map_err(in_use);
    }
    if let Some(number) = numbers.iter().find(|number| **number >= count) {
        return Err(Failure::usage(format!(
            "--zone {number}: {} has {count} zones, numbered from 0",
            info.name
        )));
    }
    let mut zones = Vec::new();
    for &number in numbers {
        zones.extend(control::report(queue, number..number + 1).map_err(in_use)?);
    }
    Ok(zones)
}

fn in_use(error: zbd_core::Error) -> Failure {
    Failure::from_device(During::Use, &error)
}
