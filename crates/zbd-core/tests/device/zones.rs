//! Zone commands through the polled door, and the states that they lead to.

use zbd_core::{ErrorKind, Request, Result, Sector, ZoneAction, ZoneId, ZoneState, ZoneType};
use zbd_emu::ZoneState as Failed;

use crate::rig::Rig;

use ZoneAction::{Close, Finish, Open, Reset};

fn append(rig: &mut Rig, zone: u32) -> Result<Sector> {
    let request = rig.append(zone, 4096, zone.into());
    let done = rig.run(request);
    assert_eq!(done.buffer.unwrap().len(), 4096, "with or without an error");
    done.result
}

fn state(rig: &mut Rig, zone: u32) -> ZoneState {
    let zone = rig.report()[zone as usize];
    let own = rig.device.control.zone_state(zone.id.0 as usize).unwrap();
    assert_eq!(
        format!("{own:?}"),
        format!("{:?}", zone.state),
        "the device's own word"
    );
    zone.state
}

fn refused(result: Result<Sector>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn commands_lead_from_state_to_state() {
    let mut rig = Rig::stepped("zones=4,zone-size=1m");
    assert_eq!(state(&mut rig, 1), ZoneState::Empty);
    for (action, after) in [
        (Open, ZoneState::ExplicitlyOpen),
        // Nothing was written.
        (Close, ZoneState::Empty),
        (Open, ZoneState::ExplicitlyOpen),
        (Reset, ZoneState::Empty),
        (Finish, ZoneState::Full),
        (Finish, ZoneState::Full),
        (Reset, ZoneState::Empty),
    ] {
        assert_eq!(rig.manage(action, 1).unwrap(), Sector(2048));
        assert_eq!(state(&mut rig, 1), after, "after {action:?}");
    }
    append(&mut rig, 1).unwrap();
    assert_eq!(state(&mut rig, 1), ZoneState::ImplicitlyOpen);
    for (action, after, pointer) in [
        (Close, ZoneState::Closed, Some(2056)),
        (Open, ZoneState::ExplicitlyOpen, Some(2056)),
        (Close, ZoneState::Closed, Some(2056)),
        (Finish, ZoneState::Full, None),
        (Reset, ZoneState::Empty, Some(2048)),
    ] {
        rig.manage(action, 1).unwrap();
        assert_eq!(state(&mut rig, 1), after, "after {action:?}");
        let zone = rig.report()[1];
        assert_eq!(zone.write_pointer.map(|at| at.0), pointer);
    }
    assert_eq!(rig.report()[1].written().unwrap().0, 0);
}

#[test]
fn reset_all_empties_every_zone_that_can_be_emptied() {
    let mut rig = Rig::stepped("zones=7,zone-size=1m,conventional=1");
    append(&mut rig, 1).unwrap();
    rig.manage(Open, 2).unwrap();
    rig.manage(Finish, 3).unwrap();
    append(&mut rig, 4).unwrap();
    rig.manage(Close, 4).unwrap();
    append(&mut rig, 5).unwrap();
    rig.device.control.fail_zone(5, Failed::ReadOnly).unwrap();
    rig.device.control.fail_zone(6, Failed::Offline).unwrap();
    assert_eq!(rig.run(Request::ResetAll).result.unwrap(), Sector(0));
    let states: Vec<_> = rig.report().iter().map(|zone| zone.state).collect();
    let empty = ZoneState::Empty;
    let (not_wp, read_only) = (ZoneState::NotWritePointer, ZoneState::ReadOnly);
    let offline = ZoneState::Offline;
    assert_eq!(
        states,
        [not_wp, empty, empty, empty, empty, read_only, offline]
    );
    assert_eq!(rig.read(2048, 4096), [0; 4096], "the data are gone");
}

#[test]
fn zones_that_refuse_say_so() {
    let mut rig = Rig::stepped("zones=5,zone-size=1m,conventional=1");
    rig.manage(Finish, 1).unwrap();
    rig.device.control.fail_zone(2, Failed::ReadOnly).unwrap();
    rig.device.control.fail_zone(3, Failed::Offline).unwrap();
    for zone in 0..4 {
        for action in [Open, Close, Finish, Reset] {
            if zone == 1 && matches!(action, Finish | Reset) {
                continue;
            }
            let kind = refused(rig.manage(action, zone));
            assert_eq!(kind, ErrorKind::InvalidZoneState, "{action:?} of {zone}");
        }
        if zone > 0 {
            assert_eq!(refused(append(&mut rig, zone)), ErrorKind::InvalidZoneState);
        }
    }
    // The specification knows no way to close an empty zone.
    assert_eq!(refused(rig.manage(Close, 4)), ErrorKind::InvalidZoneState);
    let buffer = rig.filled(4096, 0);
    let at = Sector(3 * 2048);
    let done = rig.run(Request::Read { at, buffer });
    assert_eq!(refused(done.result), ErrorKind::InvalidZoneState);
    assert_eq!(done.buffer.unwrap().len(), 4096);
}

#[test]
fn the_open_limit_is_an_error_of_its_own_until_a_zone_is_closed() {
    let mut rig = Rig::stepped("zones=6,zone-size=1m,max-open=2,max-active=4");
    let zoned = rig.queue.info().zoned.as_ref().unwrap();
    assert_eq!((zoned.max_open, zoned.max_active), (Some(2), Some(4)));
    rig.manage(Open, 0).unwrap();
    rig.manage(Open, 1).unwrap();
    assert_eq!(refused(rig.manage(Open, 2)), ErrorKind::OpenLimit);
    assert_eq!(refused(append(&mut rig, 2)), ErrorKind::OpenLimit);
    let request = rig.write(2 * 2048, 4096, 0);
    assert_eq!(refused(rig.run(request).result), ErrorKind::OpenLimit);
    append(&mut rig, 0).unwrap();
    rig.manage(Close, 0).unwrap();
    append(&mut rig, 2).unwrap();
    // A zone that was opened implicitly gives way to another.
    append(&mut rig, 3).unwrap();
    assert_eq!(state(&mut rig, 2), ZoneState::Closed);
}

#[test]
fn the_active_limit_is_an_error_of_its_own_until_a_zone_is_finished() {
    let mut rig = Rig::stepped("zones=6,zone-size=1m,max-open=2,max-active=3");
    for zone in 0..3 {
        append(&mut rig, zone).unwrap();
    }
    assert_eq!(refused(append(&mut rig, 3)), ErrorKind::ActiveLimit);
    assert_eq!(refused(rig.manage(Open, 3)), ErrorKind::ActiveLimit);
    rig.manage(Finish, 1).unwrap();
    append(&mut rig, 3).unwrap();
    assert_eq!(refused(append(&mut rig, 4)), ErrorKind::ActiveLimit);
    rig.manage(Reset, 0).unwrap();
    append(&mut rig, 4).unwrap();
}

#[test]
fn geometry_is_reported_as_it_is() {
    // Zones of 3 MiB, of which 2 can be written; the last has 1.
    let mut rig = Rig::stepped("size=10m,zone-size=3m,zone-cap=2m,conventional=1,store=null");
    let zones = rig.report();
    assert_eq!(zones.len(), 4);
    for (i, zone) in zones.iter().enumerate() {
        assert_eq!(zone.start.0, i as u64 * 6144);
        assert_eq!(zone.size.bytes(), if i == 3 { 1 << 20 } else { 3 << 20 });
        let capacity = [3 << 20, 2 << 20, 2 << 20, 1 << 20][i];
        assert_eq!(zone.capacity.bytes(), capacity);
        let sequential = ZoneType::SequentialRequired;
        assert_eq!(
            zone.zone_type,
            [ZoneType::Conventional, sequential][usize::from(i > 0)]
        );
        let info = rig.queue.info().zoned().unwrap();
        assert_eq!(info.capacity(zone.id), Some(zone.capacity));
        assert_eq!(info.zone_type(zone.id), Some(zone.zone_type));
        assert_eq!(info.zone_of(zone.start), Some(zone.id));
    }
    let info = rig.queue.info().zoned().unwrap();
    assert_eq!(info.zone_count, 4);
    assert_eq!(info.zone_of(Sector(12 * 2048)), None);
}

#[test]
fn past_a_short_last_zone_there_is_no_zone() {
    let rig = Rig::stepped("size=10m,zone-size=3m,store=null");
    let info = rig.queue.info().zoned().unwrap();
    assert_eq!(info.zone_of(Sector(10 * 2048 - 1)), Some(ZoneId(3)));
    assert_eq!(info.zone_of(Sector(10 * 2048)), None);
}
