//! Random operations on a small device, against an independent oracle.

use std::{collections::HashMap, sync::Arc};

use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any},
    prop_oneof,
    test_runner::{FileFailurePersistence, TestRunner},
};
use zbd_core::{Completion, ErrorKind, Request, Sector, Zone, ZoneAction, ZoneId, ZonedInfo};

use crate::{
    oracle::{BLOCK, Oracle},
    rig::{Rig, pattern},
};

const ZONES: usize = 4;
/// No powers of two.
const ZONE_BLOCKS: usize = 24;
const CAPACITY_BLOCKS: usize = 19;

#[derive(Clone, Debug)]
enum Operation {
    Append {
        zone: usize,
        blocks: usize,
    },
    /// `ahead` is the distance from the write pointer.
    Write {
        zone: usize,
        ahead: usize,
        blocks: usize,
    },
    Read {
        zone: usize,
        block: usize,
        blocks: usize,
    },
    Manage {
        action: ZoneAction,
        zone: usize,
    },
    ResetAll,
    Report,
    Flush,
    /// Shows the device what has gathered and waits for it.
    Settle,
}

fn operation() -> impl Strategy<Value = Operation> {
    let zone = || 0..ZONES;
    let action = prop_oneof![
        Just(ZoneAction::Open),
        Just(ZoneAction::Close),
        Just(ZoneAction::Finish),
        Just(ZoneAction::Reset),
    ];
    prop_oneof![
        8 => (zone(), 1..8usize).prop_map(|(zone, blocks)| Operation::Append { zone, blocks }),
        4 => (zone(), prop_oneof![9 => Just(0usize), 1 => 1..20usize], 1..8usize)
            .prop_map(|(zone, ahead, blocks)| Operation::Write { zone, ahead, blocks }),
        6 => (zone(), 0..ZONE_BLOCKS, 1..12usize)
            .prop_map(|(zone, block, blocks)| Operation::Read { zone, block, blocks }),
        3 => (action, zone()).prop_map(|(action, zone)| Operation::Manage { action, zone }),
        1 => prop_oneof![1 => Just(Operation::ResetAll), 3 => Just(Operation::Flush)],
        2 => Just(Operation::Report),
        3 => Just(Operation::Settle),
    ]
}

/// What a request must come to.
enum Expected {
    Sector(Result<Sector, ErrorKind>),
    Data(Sector, Result<Vec<u8>, ErrorKind>),
    Zones(Vec<(Option<u64>, zbd_core::ZoneState)>),
}

fn sector(zone: usize, block: usize) -> Sector {
    Sector((zone * ZONE_BLOCKS + block) as u64)
}

/// The write pointers and states that a report must show.
fn zones(oracle: &Oracle) -> Vec<(Option<u64>, zbd_core::ZoneState)> {
    let zones = oracle.zones.iter().enumerate();
    zones
        .map(|(i, zone)| {
            let pointer = sector(i, zone.data.len() / BLOCK).0;
            let full = zone.state == zbd_core::ZoneState::Full;
            ((!full).then_some(pointer), zone.state)
        })
        .collect()
}

struct Run {
    rig: Rig,
    oracle: Oracle,
    expected: HashMap<u64, Expected>,
    next: u64,
}

impl Run {
    /// The device under test takes requests in order, so the oracle may be asked right away.
    fn submit(&mut self, request: Request, expected: Expected) {
        if self.rig.queue.in_flight() == usize::from(self.rig.queue.depth()) {
            self.settle();
        }
        self.rig.queue.submit(request, self.next).unwrap();
        self.expected.insert(self.next, expected);
        self.next += 1;
    }

    fn settle(&mut self) {
        for done in self.rig.finish() {
            let expected = self.expected.remove(&done.token).unwrap();
            self.check(done, expected);
        }
        assert!(self.expected.is_empty());
    }

    fn check(&self, done: Completion, expected: Expected) {
        let result = done.result.map_err(|error| error.kind());
        match expected {
            Expected::Sector(expected) => assert_eq!(result, expected),
            Expected::Data(at, expected) => {
                assert_eq!(result, expected.as_ref().map(|_| at).map_err(|kind| *kind));
                if let Ok(data) = expected {
                    assert!(done.buffer.unwrap().to_vec() == data, "data at {at}");
                }
            }
            Expected::Zones(expected) => {
                let info = Arc::clone(self.rig.queue.info());
                let buffer = done.buffer.unwrap();
                let seen = info.zoned().unwrap().parse_report(ZoneId(0), &buffer);
                let seen = seen.unwrap().into_iter();
                let short = |zone: Zone| (zone.write_pointer.map(|at| at.0), zone.state);
                assert_eq!(seen.map(short).collect::<Vec<_>>(), expected);
            }
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Append { zone, blocks } => {
                let data = pattern(self.next, blocks * BLOCK);
                let at = self.oracle.write(zone, None, &data);
                let request = self.rig.append(zone as u32, data.len(), self.next);
                self.submit(
                    request,
                    Expected::Sector(at.map(|block| sector(zone, block))),
                );
            }
            Operation::Write {
                zone,
                ahead,
                blocks,
            } => {
                let block = self.oracle.zones[zone].data.len() / BLOCK + ahead;
                let at = sector(zone, block.min(ZONE_BLOCKS - 1));
                let data = pattern(self.next, blocks * BLOCK);
                if at.0 + blocks as u64 > (ZONES * ZONE_BLOCKS) as u64 {
                    return;
                }
                let end = self
                    .oracle
                    .write(zone, Some(block.min(ZONE_BLOCKS - 1)), &data);
                let request = self.rig.write(at.0, data.len(), self.next);
                self.submit(request, Expected::Sector(end.map(|_| at)));
            }
            Operation::Read {
                zone,
                block,
                blocks,
            } => {
                let at = sector(zone, block);
                if at.0 + blocks as u64 > (ZONES * ZONE_BLOCKS) as u64 {
                    return;
                }
                let buffer = self.rig.filled(blocks * BLOCK, u64::MAX);
                let data = self.oracle.read(zone, block, blocks);
                self.submit(Request::Read { at, buffer }, Expected::Data(at, data));
            }
            Operation::Manage { action, zone } => {
                let end = self.oracle.manage(action, zone).map(|()| sector(zone, 0));
                let zone = ZoneId(zone as u32);
                self.submit(Request::Manage { action, zone }, Expected::Sector(end));
            }
            Operation::ResetAll => {
                self.oracle.reset_all();
                self.submit(Request::ResetAll, Expected::Sector(Ok(Sector(0))));
            }
            Operation::Report => {
                let buffer = self.rig.filled(ZonedInfo::report_len(ZONES as u32), 1);
                let from = Sector(0);
                let expected = Expected::Zones(zones(&self.oracle));
                self.submit(Request::Report { from, buffer }, expected);
            }
            Operation::Flush => self.submit(Request::Flush, Expected::Sector(Ok(Sector(0)))),
            Operation::Settle => self.settle(),
        }
    }
}

fn agree(operations: &[Operation], indirect: bool) {
    let indirect = if indirect { "on" } else { "off" };
    let options = format!(
        "zones={ZONES},zone-size={},zone-cap={},block-size={BLOCK},max-open=0,max-active=0,\
         queues=1,queue-size=64,indirect={indirect}",
        ZONE_BLOCKS * BLOCK,
        CAPACITY_BLOCKS * BLOCK
    );
    let mut run = Run {
        rig: Rig::stepped(&options),
        oracle: Oracle::new(ZONES, ZONE_BLOCKS, CAPACITY_BLOCKS),
        expected: HashMap::new(),
        next: 0,
    };
    for operation in operations {
        run.apply(operation);
    }
    run.apply(&Operation::Report);
    for zone in 0..ZONES {
        let blocks = ZONE_BLOCKS;
        run.apply(&Operation::Read {
            zone,
            block: 0,
            blocks,
        });
    }
    run.settle();
}

#[test]
fn random_operations_agree_with_the_oracle() {
    let config = ProptestConfig {
        cases: 400,
        // Cases are found anew from the seed that is printed; nothing is written to the tree.
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|it| it as _),
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(
            &(vec(operation(), 1..250), any::<bool>()),
            |(operations, indirect)| {
                agree(&operations, indirect);
                Ok(())
            },
        )
        .unwrap();
}
