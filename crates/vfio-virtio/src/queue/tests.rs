//! What can be tested without a device; the rest is tested through the software device by the crates
//! above.

use super::split::passed;

#[test]
fn an_event_is_passed_exactly_when_it_lies_in_the_range() {
    // All distances, from starts on both sides of the wrap.
    for old in [0, 1, 0x7fff, 0x8000, 0xfff0, 0xffff] {
        for len in [0, 1, 2, 255, 256, 32768] {
            let new = u16::wrapping_add(old, len);
            for event in 0..=u16::MAX {
                let inside = event.wrapping_sub(old) < len;
                assert_eq!(passed(event, old, new), inside, "{event} in {old}..{new}");
            }
        }
    }
}

#[test]
fn parking_asks_for_nothing_before_the_index_comes_round() {
    for used in 0..=u16::MAX {
        let parked = used.wrapping_sub(1);
        // The largest batch that a ring of the greatest size allows.
        assert!(!passed(parked, used, used.wrapping_add(32768)));
    }
}
