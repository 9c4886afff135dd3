//! The same requests mean the same in every format of ring.

use proptest::prelude::*;

use crate::driver::{
    APPEND, Answer, DATA, FLUSH, GET_ID, IN, OUT, REPORT, RESET, Rig, Shape, WRITE,
};

const GEOMETRY: &str = "zones=4,zone-size=32k,conventional=1,max-open=2,max-active=2,queues=1,\
                        discard=on,secure-erase=on";

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
                    // Only whole zones are erased.
                    let unit = if operation.kind == 14 { 64 } else { 8 };
                    segment.extend((unit * operation.blocks).to_le_bytes());
                    segment.extend(u32::from(operation.odd).to_le_bytes());
                    rig.request(operation.kind, 0, &segment, 0)
                }
                10 | IN | REPORT | GET_ID => rig.request(operation.kind, sector, &[], len),
                _ => rig.request(operation.kind, sector, &[], 0),
            }
        })
        .collect()
}

/// The writable bytes of `operations` when `depth` of them are in flight together.
fn pipeline(rig: &mut Rig, operations: &[Operation], depth: usize) -> Vec<Vec<u8>> {
    const SLOT: usize = 0x8000;
    let mut answers = Vec::new();
    for (batch, operations) in operations.chunks(depth).enumerate() {
        let mut writable = Vec::new();
        for (i, operation) in operations.iter().enumerate() {
            let at = DATA + SLOT * i;
            let len = operation.blocks * 4096;
            let sector = match operation.kind {
                OUT | IN => operation.zone * 64 + operation.sector,
                _ => operation.zone * 64,
            };
            rig.put_header(at, operation.kind, sector);
            let out = at + 64;
            let (out_len, in_len) = match operation.kind {
                APPEND | OUT => (len, 0),
                IN | REPORT | GET_ID => (0, len),
                _ => (0, 0),
            };
            rig.arena
                .write(out, &vec![(batch * depth + i) as u8; out_len as usize]);
            let answer = if operation.kind == APPEND { 9 } else { 1 };
            let end = out + out_len as usize;
            let all = in_len + answer;
            rig.arena.write(end, &vec![0xaa; all as usize]);
            let parts = [
                (at, 16, 0),
                (out, out_len, 0),
                (end, in_len, WRITE),
                (end + in_len as usize, answer, WRITE),
            ];
            // Each way of describing a request in turn.
            let shape = match i % 2 {
                0 => Shape::Direct,
                _ => Shape::Indirect(at + SLOT - 0x100),
            };
            let used = [true, out_len != 0, in_len != 0, true];
            let parts: Vec<_> = parts
                .into_iter()
                .zip(used)
                .filter_map(|(part, used)| used.then_some(part))
                .collect();
            rig.submit(0, &parts, shape);
            writable.push((end, all as usize));
        }
        rig.kick(0);
        rig.step();
        while rig.take_used(0).is_some() {}
        assert!(rig.queues[0].outstanding.is_empty());
        answers.extend(writable.iter().map(|(at, len)| rig.arena.read(*at, *len)));
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_format_gives_the_same_answers(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
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
                let mut rig = Rig::ready(&format!("{GEOMETRY},{ring}"));
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

    #[test]
    fn requests_in_flight_together_give_the_same_answers(
        operations in prop::collection::vec(operation(), 1..80),
        depth in 1usize..40,
    ) {
        let mut expected = None;
        for ring in [
            "ring=split,queue-size=256",
            "ring=split,queue-size=256,in-order=on",
            "ring=packed,queue-size=161",
            "ring=packed,queue-size=160,in-order=on,event-idx=off",
            "ring=packed,queue-size=256,in-order=on,latency=1us",
        ] {
            let mut rig = Rig::ready(&format!("{GEOMETRY},{ring}"));
            let answers = pipeline(&mut rig, &operations, depth);
            prop_assert_eq!(rig.control.broken(), None);
            match &expected {
                None => expected = Some(answers),
                Some(expected) => prop_assert_eq!(expected, &answers, "{}", ring),
            }
        }
    }
}
