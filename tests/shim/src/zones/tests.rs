//! The state machine against the rules of a zoned device.

use super::*;

const ZONE: u64 = 0x1000;

/// Eight zones of 4 KiB, 3 KiB of each writable, one conventional, at most 2 open and 3 active.
fn disk() -> Zones {
    let text = "zone-size=4096\nzone-capacity=3072\nconventional=1\nmax-open=2\nmax-active=3\n\
                read-only=6\noffline=7";
    Zones::new(&Geometry::parse(text).unwrap(), 8 * ZONE)
}

fn write(zones: &mut Zones, offset: u64, len: u64) -> Result<(), i32> {
    zones.begin_write(offset, len)?;
    zones.written(offset, len);
    Ok(())
}

fn state(zones: &Zones, index: u64) -> State {
    zones.from(index * ZONE)[0].state
}

#[test]
fn write_elsewhere_than_at_the_pointer_is_refused() {
    let mut zones = disk();
    assert_eq!(write(&mut zones, ZONE + 512, 512), Err(libc::EIO));
    assert_eq!(write(&mut zones, ZONE, 512), Ok(()));
    assert_eq!(write(&mut zones, ZONE, 512), Err(libc::EIO));
    assert_eq!(write(&mut zones, ZONE + 512, 512), Ok(()));
}

#[test]
fn write_past_the_capacity_is_refused_and_one_up_to_it_fills_the_zone() {
    let mut zones = disk();
    assert_eq!(write(&mut zones, ZONE, 3072 + 512), Err(libc::EIO));
    assert_eq!(write(&mut zones, ZONE, 3072), Ok(()));
    assert_eq!(state(&zones, 1), State::Full);
    assert_eq!(write(&mut zones, ZONE + 3072, 512), Err(libc::EIO));
}

#[test]
fn conventional_zone_takes_writes_anywhere_inside_it_and_no_commands() {
    let mut zones = disk();
    assert_eq!(write(&mut zones, 2048, 2048), Ok(()));
    assert_eq!(write(&mut zones, 2048, 4096), Err(libc::EIO));
    assert_eq!(zones.command(Command::Reset, 0, ZONE), Err(libc::EIO));
}

#[test]
fn writes_close_implicitly_open_zones_until_the_active_limit() {
    let mut zones = disk();
    for zone in 1..=3 {
        assert_eq!(write(&mut zones, zone * ZONE, 512), Ok(()));
    }
    assert_eq!(state(&zones, 1), State::Closed);
    assert_eq!(write(&mut zones, 4 * ZONE, 512), Err(libc::EOVERFLOW));
}

#[test]
fn explicitly_open_zones_are_not_closed_for_another() {
    let mut zones = disk();
    for zone in 1..=2 {
        assert_eq!(zones.command(Command::Open, zone * ZONE, ZONE), Ok(()));
    }
    assert_eq!(write(&mut zones, 3 * ZONE, 512), Err(libc::ETOOMANYREFS));
    assert_eq!(zones.command(Command::Close, ZONE, ZONE), Ok(()));
    assert_eq!(state(&zones, 1), State::Empty);
    assert_eq!(write(&mut zones, 3 * ZONE, 512), Ok(()));
}

#[test]
fn finish_and_reset_move_the_pointer_and_free_the_zone() {
    let mut zones = disk();
    write(&mut zones, ZONE, 512).unwrap();
    assert_eq!(zones.command(Command::Finish, ZONE, ZONE), Ok(()));
    assert_eq!(state(&zones, 1), State::Full);
    assert_eq!(zones.command(Command::Open, ZONE, ZONE), Err(libc::EIO));
    assert_eq!(zones.command(Command::Reset, ZONE, ZONE), Ok(()));
    assert_eq!(
        (state(&zones, 1), zones.from(ZONE)[0].pointer),
        (State::Empty, ZONE)
    );
}

#[test]
fn reset_of_the_whole_disk_leaves_out_zones_that_cannot_be_reset() {
    let mut zones = disk();
    write(&mut zones, ZONE, 512).unwrap();
    assert_eq!(zones.command(Command::Reset, 0, 8 * ZONE), Ok(()));
    assert_eq!(state(&zones, 1), State::Empty);
    assert_eq!(
        (state(&zones, 6), state(&zones, 7)),
        (State::ReadOnly, State::Offline)
    );
}

#[test]
fn command_on_part_of_a_zone_is_refused() {
    assert_eq!(
        disk().command(Command::Reset, ZONE + 512, ZONE),
        Err(libc::EINVAL)
    );
    assert_eq!(disk().command(Command::Reset, ZONE, 512), Err(libc::EINVAL));
}

#[test]
fn offline_zone_cannot_be_read_and_a_read_only_one_can() {
    let zones = disk();
    assert_eq!(zones.check_read(7 * ZONE, 512), Err(libc::EIO));
    assert_eq!(zones.check_read(6 * ZONE, 512), Ok(()));
    assert_eq!(zones.check_read(6 * ZONE, ZONE + 512), Err(libc::EIO));
}
