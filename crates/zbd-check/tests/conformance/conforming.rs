//! A device that conforms fails nothing, whatever it offers, and is asked what it gives occasion for.

use std::sync::Arc;

use zbd_check::Outcome;
use zbd_emu::ZoneState;

use super::{SMALL, emulated, failing, named, outcomes};

/// Passes if nothing fails; yields the outcomes.
fn conforms(options: &str) -> Vec<(&'static str, Outcome)> {
    let outcomes = outcomes(Arc::new(emulated(options)));
    let failing = failing(&outcomes);
    assert!(failing.is_empty(), "{options}: {failing:#?}");
    outcomes
}

#[test]
fn every_ring_conforms() {
    for ring in ["split", "packed"] {
        for indirect in ["on", "off"] {
            for event_idx in ["on", "off"] {
                for in_order in ["on", "off"] {
                    let outcomes = conforms(&format!(
                        "{SMALL},ring={ring},indirect={indirect},event-idx={event_idx},\
                         in-order={in_order}"
                    ));
                    assert!(named(&outcomes, "pass").len() > 90);
                }
            }
        }
    }
}

#[test]
fn a_host_managed_device_is_looked_at_as_a_whole() {
    let outcomes = conforms(&format!(
        "{SMALL},conventional=1,zone-cap=48k,secure-erase=on,seg-max=10,size-max=32k"
    ));
    assert_eq!(
        named(&outcomes, "not-applicable"),
        [
            "zoned-declined",
            "preferred-write",
            "zone-requests-without-zoned",
            "read-only-write",
            "discard-unmap",
            "discard-unknown-flags",
            "append-unsupported",
            "append-preferred",
        ]
    );
    assert_eq!(
        named(&outcomes, "undecidable"),
        ["read-only-zone", "read-only-zone-commands", "offline-zone"]
    );
}

#[test]
fn failed_zones_are_looked_at() {
    let function = emulated(SMALL);
    let control = function.control();
    control.fail_zone(0, ZoneState::ReadOnly).unwrap();
    control.fail_zone(3, ZoneState::Offline).unwrap();
    let outcomes = outcomes(Arc::new(function));
    assert_eq!(failing(&outcomes), []);
    let passed = named(&outcomes, "pass");
    for id in ["read-only-zone", "read-only-zone-commands", "offline-zone"] {
        assert!(passed.contains(&id), "{id}");
    }
}

#[test]
fn a_host_aware_device_conforms() {
    let outcomes = conforms("model=ha,zones=8,zone-size=64k,max-append=16k,conventional=1");
    let passed = named(&outcomes, "pass");
    for id in [
        "zoned-declined",
        "zone-requests-without-zoned",
        "append-preferred",
        "preferred-write",
        "discard-unmap",
        "close-explicit",
        "write-fills",
    ] {
        assert!(passed.contains(&id), "{id}: {outcomes:#?}");
    }
}

#[test]
fn a_plain_disk_conforms() {
    let outcomes = conforms("model=none,size=1m");
    let passed = named(&outcomes, "pass");
    for id in [
        "zone-requests-without-zoned",
        "write-zeroes-reads-zero",
        "discard-unmap",
        "secure-erase-unknown-flags",
        "read-write",
        "framing-data",
    ] {
        assert!(passed.contains(&id), "{id}: {outcomes:#?}");
    }
    assert_eq!(named(&outcomes, "undecidable"), [""; 0]);
}

#[test]
fn devices_at_the_edge_conform() {
    for options in [
        // No limits, one of them, both the same.
        "zones=8,zone-size=64k,max-append=16k,max-open=0,max-active=0",
        "zones=8,zone-size=64k,max-append=16k,max-open=2,max-active=0",
        "zones=8,zone-size=64k,max-append=16k,max-open=3,max-active=3",
        "zones=2,zone-size=64k,max-open=1,max-active=1",
        "zones=8,zone-size=64k,max-append=0",
        "zones=8,zone-size=64k,max-append=4k",
        "zones=8,zone-size=64k,readonly=on",
        "model=ha,zones=8,zone-size=64k,readonly=on",
        "model=none,size=1m,readonly=on",
        // Zones that are no power of two, and a short last one.
        "size=200k,zone-size=48k,zone-cap=44k,block-size=512,max-append=16k",
        "size=52k,zone-size=48k,max-append=16k",
        "zones=1,zone-size=64k",
        "zones=4,zone-size=64k,conventional=4",
        "zones=8,zone-size=64k,block-size=64k",
        // As few descriptors and segments as can be.
        "zones=8,zone-size=64k,queue-size=4,indirect=off,max-append=16k",
        "zones=8,zone-size=64k,max-append=4k,seg-max=1,size-max=4k",
        "zones=8,zone-size=64k,write-zeroes=off,lifetime=off,vectors=0,queues=1",
        "zones=8,zone-size=64k,discard=on,serial=12345678901234567890",
        "zones=8,zone-size=64k,notification-data=on,notif-config-data=on,order-platform=on",
    ] {
        conforms(options);
    }
}

#[test]
fn limits_beyond_the_number_of_zones_are_left_open() {
    let outcomes = conforms("zones=4,zone-size=64k,max-open=8,max-active=12");
    let open = named(&outcomes, "undecidable");
    for id in ["max-open-reached", "active-limit-write", "open-limit-held"] {
        assert!(open.contains(&id), "{id}: {open:?}");
    }
}
