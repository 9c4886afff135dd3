//! Rings of random content: the device gives up or goes on, it never panics and always ends.

use proptest::prelude::*;

use crate::driver::{BASE, DATA, Desc, Rig};

/// Flags that mean something more often than not, in either format.
fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0x80),
        Just(0x81),
        Just(0x82),
        Just(0x83),
        Just(0x84),
        Just(0x8000),
        Just(0x8001),
        0u16..8,
        any::<u16>(),
    ]
}

fn desc() -> impl Strategy<Value = Desc> {
    let lens = prop_oneof![0u32..40, Just(4096), any::<u32>()];
    let addresses = prop_oneof![
        (0u64..0x4000).prop_map(|offset| BASE + DATA as u64 + offset),
        // Rings too are memory that the device may be pointed at.
        (0u64..0x100).prop_map(|offset| BASE + offset),
        any::<u64>(),
    ];
    (addresses, lens, flags(), 0u16..12).prop_map(|(address, len, flags, next)| Desc {
        address,
        len,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_rings_do_no_harm(
        rounds in prop::collection::vec(
            (prop::collection::vec(desc(), 8), prop::collection::vec(0u16..9, 1..6)),
            1..4,
        ),
        kinds in prop::collection::vec(0u32..28, 16),
        hold: bool,
    ) {
        for ring in [
            "ring=packed",
            "ring=packed,in-order=on",
            "ring=split",
            "ring=split,in-order=on",
        ] {
            let options = "queue-size=8,queues=1,zones=4,zone-size=1m,discard=on,secure-erase=on";
            let mut rig = Rig::ready(&format!("{options},{ring}"));
            for (i, kind) in kinds.iter().enumerate() {
                rig.put_header(DATA + 32 * i, *kind, 0);
            }
            if hold {
                rig.control.hold();
            }
            for (descs, heads) in &rounds {
                for (i, desc) in descs.iter().enumerate() {
                    let bytes = match rig.is_packed() {
                        true => desc.packed_bytes(),
                        false => desc.bytes(),
                    };
                    rig.arena.write(16 * i, &bytes);
                }
                if !rig.is_packed() {
                    for head in heads {
                        rig.offer(0, *head);
                    }
                }
                rig.kick(0);
                // Far more steps than there are requests.
                let stepper = rig.stepper.as_mut().unwrap();
                prop_assert!(
                    (0..200).any(|_| stepper.step() == zbd_emu::Step::Idle),
                    "{}",
                    ring
                );
                prop_assert_eq!(rig.status() & 64 != 0, rig.control.broken().is_some());
            }
            rig.control.release();
            let stepper = rig.stepper.as_mut().unwrap();
            prop_assert!((0..200).any(|_| stepper.step() == zbd_emu::Step::Idle));
            // After a reset it is as good as new.
            rig.start(u64::MAX);
            prop_assert_eq!(rig.command(4, 0), 0);
        }
    }
}
