//! The state machine against a model that is written the other way round: the model keeps no
//! counts and no lists, and derives everything from what happened to each zone.

use proptest::prelude::*;

use super::{Command, Geometry, Refusal, ZoneKind, ZoneState, ZoneTable, read::Stretch};

const ZONE: u64 = 12;
const BLOCK: u64 = 2;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Append { zone: u64, blocks: u64 },
    Write { sector: u64, sectors: u64 },
    WriteAtPointer { zone: u64, blocks: u64 },
    Command { command: Command, sector: u64 },
    ResetAll,
    Fail { zone: usize, state: ZoneState },
}

#[derive(Clone, Debug)]
struct ModelZone {
    state: ZoneState,
    written: u64,
    /// When it was last opened implicitly.
    opened: u64,
}

struct Model {
    geometry: Geometry,
    zones: Vec<ModelZone>,
    clock: u64,
}

impl Model {
    fn new(geometry: Geometry) -> Self {
        let count = geometry.sectors.div_ceil(ZONE);
        let zones = (0..count)
            .map(|i| ModelZone {
                state: if i < geometry.conventional_zones.into() {
                    ZoneState::NotWritePointer
                } else {
                    ZoneState::Empty
                },
                written: 0,
                opened: 0,
            })
            .collect();
        Self {
            geometry,
            zones,
            clock: 0,
        }
    }

    fn len(&self, zone: usize) -> u64 {
        (self.geometry.sectors - zone as u64 * ZONE).min(ZONE)
    }

    fn capacity(&self, zone: usize) -> u64 {
        self.len(zone).min(self.geometry.capacity_sectors)
    }

    fn count(&self, states: &[ZoneState]) -> usize {
        self.zones
            .iter()
            .filter(|zone| states.contains(&zone.state))
            .count()
    }

    fn open(&mut self, zone: usize, state: ZoneState) -> Result<(), Refusal> {
        use ZoneState::{Closed, Empty, ExplicitlyOpen, ImplicitlyOpen};
        let (max_open, max_active) = (self.geometry.max_open, self.geometry.max_active);
        let open = self.count(&[ImplicitlyOpen, ExplicitlyOpen]);
        let active = open + self.count(&[Closed]);
        let old = self.zones[zone].state;
        if matches!(old, ImplicitlyOpen | ExplicitlyOpen) {
            if state == ExplicitlyOpen {
                self.zones[zone].state = state;
            }
            return Ok(());
        }
        if old == Empty && max_active > 0 && active >= max_active as usize {
            return Err(Refusal::ActiveResource);
        }
        if max_open > 0 && open >= max_open as usize {
            let victim = (0..self.zones.len())
                .filter(|other| self.zones[*other].state == ImplicitlyOpen)
                .min_by_key(|other| self.zones[*other].opened)
                .ok_or(Refusal::OpenResource)?;
            self.zones[victim].state = Closed;
        }
        self.clock += 1;
        self.zones[zone].opened = self.clock;
        self.zones[zone].state = state;
        Ok(())
    }

    /// A write of whole or partial blocks inside one sequential zone, at `offset` in it.
    fn put(&mut self, zone: usize, offset: u64, sectors: u64) -> Result<u64, Refusal> {
        use ZoneState::{Full, Offline, ReadOnly};
        if matches!(self.zones[zone].state, Full | Offline | ReadOnly) {
            return Err(Refusal::InvalidCommand);
        }
        let start = zone as u64 * ZONE;
        if offset != self.zones[zone].written || !(start + offset + sectors).is_multiple_of(BLOCK) {
            return Err(Refusal::UnalignedWritePointer);
        }
        if offset + sectors > self.capacity(zone) {
            return Err(Refusal::InvalidCommand);
        }
        self.open(zone, ZoneState::ImplicitlyOpen)?;
        self.zones[zone].written += sectors;
        if self.zones[zone].written == self.capacity(zone) {
            self.zones[zone].state = Full;
        }
        Ok(start + offset)
    }

    fn is_conventional(&self, zone: usize) -> bool {
        zone < self.geometry.conventional_zones as usize
    }

    fn write(&mut self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        if sector + sectors > self.geometry.sectors {
            return Err(Refusal::OutOfRange);
        }
        if sectors == 0 {
            return Ok(sector);
        }
        let first = (sector / ZONE) as usize;
        let last = ((sector + sectors - 1) / ZONE) as usize;
        if (first..=last).all(|zone| self.is_conventional(zone)) {
            return Ok(sector);
        }
        if first != last {
            return Err(Refusal::InvalidCommand);
        }
        self.put(first, sector % ZONE, sectors)
    }

    fn append(&mut self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        let zone = (sector / ZONE) as usize;
        let names_a_zone = sector < self.geometry.sectors && sector.is_multiple_of(ZONE);
        if !names_a_zone || self.is_conventional(zone) || sectors == 0 {
            return Err(Refusal::InvalidCommand);
        }
        self.put(zone, self.zones[zone].written, sectors)
    }

    fn command(&mut self, command: Command, sector: u64) -> Result<(), Refusal> {
        use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};
        if sector >= self.geometry.sectors || !sector.is_multiple_of(ZONE) {
            return Err(Refusal::InvalidCommand);
        }
        let index = (sector / ZONE) as usize;
        let zone = &mut self.zones[index];
        let alive = matches!(
            zone.state,
            Empty | ImplicitlyOpen | ExplicitlyOpen | Closed | Full
        );
        if !alive {
            return Err(Refusal::InvalidCommand);
        }
        match command {
            Command::Reset => {
                zone.state = Empty;
                zone.written = 0;
            }
            Command::Finish => zone.state = Full,
            Command::Open if zone.state == Full => return Err(Refusal::InvalidCommand),
            Command::Open => return self.open(index, ExplicitlyOpen),
            Command::Close if matches!(zone.state, Empty | Full) => {
                return Err(Refusal::InvalidCommand);
            }
            Command::Close => zone.state = if zone.written == 0 { Empty } else { Closed },
        }
        Ok(())
    }

    fn reset_all(&mut self) {
        use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};
        for zone in &mut self.zones {
            if matches!(zone.state, ImplicitlyOpen | ExplicitlyOpen | Closed | Full) {
                zone.state = Empty;
                zone.written = 0;
            }
        }
    }
}

fn operations() -> impl Strategy<Value = Operation> {
    let zone = 0u64..9;
    let command = prop_oneof![
        Just(Command::Open),
        Just(Command::Open),
        Just(Command::Close),
        Just(Command::Finish),
        Just(Command::Reset),
    ];
    let failure = prop_oneof![Just(ZoneState::ReadOnly), Just(ZoneState::Offline)];
    prop_oneof![
        12 => (zone.clone(), 0u64..4).prop_map(|(zone, blocks)| Operation::Append { zone, blocks }),
        8 => (zone.clone(), 0u64..4)
            .prop_map(|(zone, blocks)| Operation::WriteAtPointer { zone, blocks }),
        4 => (0u64..110, 0u64..16)
            .prop_map(|(sector, sectors)| Operation::Write { sector, sectors }),
        12 => (command, zone, prop_oneof![9 => Just(0u64), 1 => 0u64..ZONE])
            .prop_map(|(command, zone, offset)| Operation::Command {
                command,
                sector: zone * ZONE + offset,
            }),
        1 => Just(Operation::ResetAll),
        1 => (0usize..8, failure).prop_map(|(zone, state)| Operation::Fail { zone, state }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_agrees_with_the_model(
        operations in prop::collection::vec(operations(), 1..120),
        max_open in 0u32..4,
        extra in 0u32..3,
        limit_active: bool,
        conventional_zones in 0u32..3,
        capacity_sectors in prop_oneof![Just(12u64), Just(8), Just(2)],
        short in prop_oneof![Just(12u64), Just(6), Just(2)],
    ) {
        let geometry = Geometry {
            sectors: 7 * ZONE + short,
            zone_sectors: ZONE,
            capacity_sectors,
            conventional_zones,
            sequential: ZoneKind::SequentialRequired,
            block_sectors: BLOCK,
            max_open,
            max_active: if limit_active && max_open > 0 { max_open + extra } else { 0 },
        };
        let mut table = ZoneTable::new(geometry);
        let mut model = Model::new(geometry);
        for operation in operations {
            match operation {
                Operation::Append { zone, blocks } => {
                    let (sector, sectors) = (zone * ZONE, blocks * BLOCK);
                    let got = table.check_append(sector, sectors).map(|write| {
                        table.commit(write);
                        write.sector
                    });
                    prop_assert_eq!(got, model.append(sector, sectors), "{:?}", operation);
                }
                Operation::Write { sector, sectors } => {
                    let got = table.check_write(sector, sectors).map(|write| {
                        table.commit(write);
                        write.sector
                    });
                    prop_assert_eq!(got, model.write(sector, sectors), "{:?}", operation);
                }
                Operation::WriteAtPointer { zone, blocks } => {
                    let Some(at) = model.zones.get(zone as usize).map(|zone| zone.written) else {
                        continue;
                    };
                    let (sector, sectors) = (zone * ZONE + at, blocks * BLOCK);
                    let got = table.check_write(sector, sectors).map(|write| {
                        table.commit(write);
                        write.sector
                    });
                    prop_assert_eq!(got, model.write(sector, sectors), "{:?}", operation);
                }
                Operation::Command { command, sector } => {
                    let got = table.command(command, sector);
                    prop_assert_eq!(got, model.command(command, sector), "{:?}", operation);
                }
                Operation::ResetAll => {
                    table.reset_all();
                    model.reset_all();
                }
                Operation::Fail { zone, state } => {
                    if table.fail(zone, state) {
                        model.zones[zone].state = state;
                    }
                }
            }
            for (index, zone) in table.zones().iter().enumerate() {
                let expected = &model.zones[index];
                prop_assert_eq!(zone.state, expected.state, "zone {} after {:?}", index, operation);
                if !model.is_conventional(index) {
                    prop_assert_eq!(zone.written_end - zone.start, expected.written);
                    prop_assert_eq!(zone.writable_end - zone.start, model.capacity(index));
                }
            }
            let open = model.count(&[ZoneState::ImplicitlyOpen, ZoneState::ExplicitlyOpen]);
            prop_assert!(max_open == 0 || open <= max_open as usize);
        }
    }
}

fn table(sequential: ZoneKind, conventional_zones: u32) -> ZoneTable {
    ZoneTable::new(Geometry {
        sectors: 40,
        zone_sectors: ZONE,
        capacity_sectors: ZONE,
        conventional_zones,
        sequential,
        block_sectors: BLOCK,
        max_open: 0,
        max_active: 0,
    })
}

#[test]
fn a_read_is_split_where_data_end_and_zones_do() {
    let mut table = table(ZoneKind::SequentialPreferred, 1);
    let write = table.check_write(10, 8).unwrap();
    table.commit(write);
    assert_eq!(table.check_read(8, 32), Ok(()));
    let stretch = |sector, written, unwritten| Stretch {
        sector,
        written,
        unwritten,
    };
    assert_eq!(
        table.stretches(8, 32).collect::<Vec<_>>(),
        [
            stretch(8, 4, 0),
            stretch(12, 6, 6),
            stretch(24, 0, 12),
            stretch(36, 0, 4)
        ]
    );
}

#[test]
fn a_write_leaves_no_gap_but_before_itself() {
    let mut table = table(ZoneKind::SequentialPreferred, 0);
    let write = table.check_write(6, 10).unwrap();
    let gap = table.gaps(write).next();
    assert_eq!(gap, Some(0..6));
    table.commit(write);
    assert_eq!(table.zones()[0].state, ZoneState::Full);
    let again = table.check_write(2, 2).unwrap();
    assert_eq!(table.gaps(again).count(), 0);
}

#[test]
fn reads_that_touch_a_sequential_required_zone_stay_inside_it() {
    let table = table(ZoneKind::SequentialRequired, 2);
    assert_eq!(table.check_read(4, 16), Ok(()));
    assert_eq!(table.check_read(20, 8), Err(Refusal::InvalidCommand));
    assert_eq!(table.check_read(24, 12), Ok(()));
    assert_eq!(table.check_read(24, 14), Err(Refusal::InvalidCommand));
    assert_eq!(table.check_read(36, 5), Err(Refusal::OutOfRange));
    assert_eq!(table.check_read(u64::MAX, 2), Err(Refusal::OutOfRange));
}
