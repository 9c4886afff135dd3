//! The same requests mean the same in every format of ring.

use proptest::prelude::*;

use crate::driver::{APPEND, Answer, FLUSH, GET_ID, IN, OUT, REPORT, RESET, Rig, Shape};

/// Where the table of an indirect request lies: below all buffers.
const TABLE_AT: usize = 0x1f_f000;

#[derive(Clone, Debug)]
struct Operation {
    kind: u32,
    zone: u64,
    sector: u64,
    blocks: u32,
    /// Whether a malformed length is asked for.
    odd: bool,
}

fn operation() -> impl Strategy<Value = Operation> {
    let kinds = vec![
        APPEND, APPEND, OUT, OUT, IN, IN, IN, FLUSH, GET_ID, REPORT, RESET, 18, 20, 22, 26, 77, 10,
        11, 13, 14,
    ];
    (
        prop::sample::select(kinds),
        0u64..5,
        0u64..40,
        0u32..4,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(kind, zone, sector, blocks, odd)| Operation {
            kind,
            zone,
            sector,
            blocks,
            odd,
        })
}

fn run(rig: &mut Rig, operations: &[Operation]) -> Vec<Answer> {
    operations
        .iter()
        .enumerate()
        .map(|(i, operation)| {
            let len = operation.blocks * 4096 + u32::from(operation.odd);
            let sector = match operation.kind {
                OUT | IN => operation.zone * 64 + operation.sector,
                _ => operation.zone * 64,
            };
            match operation.kind {
                APPEND | OUT => {
                    let data = vec![i as u8; len as usize];
                    rig.request(operation.kind, sector, &data, 0)
                }
                11 | 13 | 14 => {
                    let mut segment = sector.to_le_bytes().to_vec();
                    segment.extend((8 * operation.blocks).to_le_bytes());
                    segment.extend(u32::from(operation.odd).to_le_bytes());
                    rig.request(operation.kind, 0, &segment, 0)
                }
                10 | IN | REPORT | GET_ID => rig.request(operation.kind, sector, &[], len),
                _ => rig.request(operation.kind, sector, &[], 0),
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_format_gives_the_same_answers(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let geometry = "zones=4,zone-size=32k,conventional=1,max-open=2,max-active=2,queues=1,\
                        discard=on,secure-erase=on";
        let mut expected = None;
        for ring in [
            "ring=split,queue-size=8",
            "ring=split,queue-size=8,in-order=on",
            "ring=packed,queue-size=8",
            "ring=packed,queue-size=7,in-order=on",
            "ring=packed,queue-size=5,event-idx=off",
            "ring=packed,queue-size=9,notification-data=on",
            "ring=split,queue-size=4,notification-data=on,notif-config-data=on",
        ] {
            for shape in [Shape::Direct, Shape::Indirect(TABLE_AT)] {
                let mut rig = Rig::ready(&format!("{geometry},{ring}"));
                rig.shape = shape;
                let answers = run(&mut rig, &operations);
                prop_assert_eq!(rig.control.broken(), None);
                match &expected {
                    None => expected = Some(answers),
                    Some(expected) => prop_assert_eq!(expected, &answers, "{} {:?}", ring, shape),
                }
            }
        }
    }
}
