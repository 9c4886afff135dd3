//! Zone rules as a driver meets them: status bytes and reported states.

use zbd_emu::ZoneState::{
    self, Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen, NotWritePointer,
};

use crate::driver::{APPEND, CLOSE, FINISH, IN, OPEN, OUT, RESET, RESET_ALL, Rig};

const OK: u8 = 0;
const INVALID: u8 = 3;
const UNALIGNED: u8 = 4;
const NO_OPEN: u8 = 5;
const NO_ACTIVE: u8 = 6;

fn append(rig: &mut Rig, sector: u64) -> u8 {
    rig.request(APPEND, sector, &[1; 4096], 0).status
}

fn states(rig: &Rig) -> Vec<ZoneState> {
    (0..)
        .map_while(|zone| rig.control.zone_state(zone))
        .collect()
}

#[test]
fn a_zone_is_filled_to_its_capacity_and_no_further() {
    // Neither size is a power of two; a zone is 24 sectors of which 16 can be written.
    let mut rig = Rig::ready("zones=3,zone-size=12k,zone-cap=8k,block-size=4096");
    assert_eq!(append(&mut rig, 24), OK);
    assert_eq!(states(&rig), [Empty, ImplicitlyOpen, Empty]);
    assert_eq!(rig.request(APPEND, 24, &[1; 8192], 0).status, INVALID);
    assert_eq!(append(&mut rig, 24), OK);
    assert_eq!(states(&rig), [Empty, Full, Empty]);
    assert_eq!(append(&mut rig, 24), INVALID);
    assert_eq!(rig.request(OUT, 40, &[1; 4096], 0).status, INVALID);
    let read = rig.request(IN, 24, &[], 12288);
    assert_eq!(read.status, OK);
    assert!(read.bytes[..8192].iter().all(|byte| *byte == 1));
    assert!(read.bytes[8192..].iter().all(|byte| *byte == 0));
    assert_eq!(rig.request(IN, 24, &[], 12800).status, INVALID);
}

#[test]
fn the_last_zone_may_be_short() {
    let mut rig = Rig::ready("size=28k,zone-size=12k");
    assert_eq!(states(&rig).len(), 3);
    assert_eq!(append(&mut rig, 48), OK);
    assert_eq!(states(&rig)[2], Full);
}

#[test]
fn writes_must_start_at_the_write_pointer_and_end_on_a_block() {
    let mut rig = Rig::ready("zones=2,zone-size=1m");
    assert_eq!(rig.request(OUT, 8, &[1; 4096], 0).status, UNALIGNED);
    assert_eq!(rig.request(OUT, 0, &[1; 512], 0).status, UNALIGNED);
    assert_eq!(rig.request(APPEND, 0, &[1; 512], 0).status, UNALIGNED);
    assert_eq!(rig.request(OUT, 0, &[1; 4096], 0).status, OK);
    assert_eq!(rig.request(OUT, 0, &[1; 4096], 0).status, UNALIGNED);
    assert_eq!(rig.request(OUT, 8, &[1; 4096], 0).status, OK);
    assert_eq!(append(&mut rig, 8), INVALID);
    assert_eq!(append(&mut rig, 1 << 40), INVALID);
}

#[test]
fn conventional_zones_take_writes_anywhere_and_no_zone_command() {
    let mut rig = Rig::ready("zones=4,zone-size=1m,conventional=2");
    assert_eq!(
        states(&rig),
        [NotWritePointer, NotWritePointer, Empty, Empty]
    );
    assert_eq!(rig.request(OUT, 2047, &[7; 1024], 0).status, OK);
    assert_eq!(rig.request(IN, 2047, &[], 1024).bytes[..1024], [7; 1024]);
    // Not into a sequential zone, not even at its write pointer.
    assert_eq!(rig.request(OUT, 4088, &[7; 8192], 0).status, INVALID);
    assert_eq!(append(&mut rig, 0), INVALID);
    for kind in [OPEN, CLOSE, FINISH, RESET] {
        assert_eq!(rig.command(kind, 0), INVALID);
    }
}

#[test]
fn commands_move_zones_between_their_states() {
    let mut rig = Rig::ready("zones=1,zone-size=1m");
    let mut go = |kind, status, state| {
        let got = match kind {
            APPEND => append(&mut rig, 0),
            _ => rig.command(kind, 0),
        };
        assert_eq!(
            (got, rig.control.zone_state(0)),
            (status, Some(state)),
            "{kind}"
        );
    };
    go(RESET, OK, Empty);
    // Chosen: there is nothing to close in an empty zone.
    go(CLOSE, INVALID, Empty);
    go(OPEN, OK, ExplicitlyOpen);
    go(OPEN, OK, ExplicitlyOpen);
    go(CLOSE, OK, Empty);
    go(OPEN, OK, ExplicitlyOpen);
    go(APPEND, OK, ExplicitlyOpen);
    go(CLOSE, OK, Closed);
    go(CLOSE, OK, Closed);
    go(APPEND, OK, ImplicitlyOpen);
    go(OPEN, OK, ExplicitlyOpen);
    go(CLOSE, OK, Closed);
    go(OPEN, OK, ExplicitlyOpen);
    go(RESET, OK, Empty);
    go(APPEND, OK, ImplicitlyOpen);
    go(CLOSE, OK, Closed);
    // Chosen: a closed or empty zone can be finished.
    go(FINISH, OK, Full);
    go(FINISH, OK, Full);
    go(OPEN, INVALID, Full);
    go(CLOSE, INVALID, Full);
    go(RESET, OK, Empty);
    go(FINISH, OK, Full);
    go(APPEND, INVALID, Full);
    go(RESET_ALL, OK, Empty);
}

#[test]
fn commands_name_a_zone_by_its_first_sector() {
    let mut rig = Rig::ready("zones=2,zone-size=1m");
    for kind in [OPEN, CLOSE, FINISH, RESET] {
        assert_eq!(rig.command(kind, 8), INVALID);
        assert_eq!(rig.command(kind, 4096), INVALID);
    }
}

#[test]
fn an_implicitly_open_zone_gives_way_and_an_explicitly_open_one_does_not() {
    let mut rig = Rig::ready("zones=5,zone-size=1m,max-open=2,max-active=0");
    assert_eq!(append(&mut rig, 0), OK);
    assert_eq!(append(&mut rig, 2048), OK);
    assert_eq!(append(&mut rig, 0), OK);
    assert_eq!(append(&mut rig, 4096), OK);
    // Zone 0 was opened first.
    assert_eq!(states(&rig)[..3], [Closed, ImplicitlyOpen, ImplicitlyOpen]);
    assert_eq!(rig.command(OPEN, 0), OK);
    assert_eq!(states(&rig)[..3], [ExplicitlyOpen, Closed, ImplicitlyOpen]);
    assert_eq!(rig.command(OPEN, 4096), OK);
    assert_eq!(append(&mut rig, 2048), NO_OPEN);
    assert_eq!(rig.command(OPEN, 2048), NO_OPEN);
    assert_eq!(rig.command(OPEN, 6144), NO_OPEN);
    // A refused request changes nothing.
    assert_eq!(
        states(&rig)[..4],
        [ExplicitlyOpen, Closed, ExplicitlyOpen, Empty]
    );
    assert_eq!(rig.command(CLOSE, 0), OK);
    assert_eq!(append(&mut rig, 2048), OK);
}

#[test]
fn the_active_limit_counts_closed_zones_and_is_reported_first() {
    let mut rig = Rig::ready("zones=5,zone-size=1m,max-open=1,max-active=2");
    assert_eq!(append(&mut rig, 0), OK);
    assert_eq!(append(&mut rig, 2048), OK);
    assert_eq!(append(&mut rig, 4096), NO_ACTIVE);
    assert_eq!(rig.command(OPEN, 4096), NO_ACTIVE);
    // A zone that is active already may be reopened.
    assert_eq!(rig.command(OPEN, 0), OK);
    assert_eq!(append(&mut rig, 2048), NO_OPEN);
    assert_eq!(append(&mut rig, 4096), NO_ACTIVE);
    assert_eq!(rig.command(FINISH, 2048), OK);
    assert_eq!(append(&mut rig, 4096), NO_OPEN);
    assert_eq!(rig.command(RESET_ALL, 0), OK);
    assert_eq!(append(&mut rig, 4096), OK);
}

#[test]
fn host_aware_zones_take_writes_anywhere_and_no_append() {
    let mut rig = Rig::ready("zones=3,zone-size=1m,model=ha");
    assert_eq!(append(&mut rig, 0), INVALID);
    assert_eq!(rig.request(OUT, 0, &[5; 16384], 0).status, OK);
    assert_eq!(rig.command(RESET, 0), OK);
    // What lies before the write is unwritten, whatever was there in an earlier life.
    assert_eq!(rig.request(OUT, 16, &[6; 4096], 0).status, OK);
    let read = rig.request(IN, 0, &[], 16384);
    assert!(read.bytes[..8192].iter().all(|byte| *byte == 0));
    assert!(read.bytes[8192..12288].iter().all(|byte| *byte == 6));
    assert!(read.bytes[12288..].iter().all(|byte| *byte == 0));
    // Across a border, to the end of a zone.
    assert_eq!(rig.request(OUT, 2040, &[7; 8192], 0).status, OK);
    assert_eq!(states(&rig), [Full, ImplicitlyOpen, Empty]);
    assert_eq!(rig.request(OUT, 0, &[8; 512], 0).status, OK);
    assert_eq!(states(&rig)[0], Full);
    assert_eq!(rig.request(IN, 2040, &[], 8192).bytes[..8192], [7; 8192]);
}
