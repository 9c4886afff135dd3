//! Configuration space, mappings and the life of the function.

use std::sync::Arc;

use vfio_virtio::{EventFd, HostMemory, Iova, PciFunction, Translation, Width};

use crate::driver::{BASE, DATA, Rig, config};

fn config_space(rig: &Rig) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    rig.function.read_config(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_header_is_that_of_a_modern_block_device() {
    let rig = Rig::bare("");
    let space = config_space(&rig);
    assert_eq!(space[..4], [0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(space[8..12], [1, 0, 0x80, 0x01]);
    assert_eq!(space[6] & 0x10, 0x10);
}

#[test]
fn the_capabilities_name_every_structure_once() {
    let rig = Rig::bare("queues=5");
    let space = config_space(&rig);
    let mut at = usize::from(space[0x34]);
    let mut structures = Vec::new();
    let mut vectors = 0;
    while at != 0 {
        match space[at] {
            0x11 => vectors = u16::from_le_bytes([space[at + 2], space[at + 3]]) & 0x7ff,
            0x09 => {
                let long =
                    |o: usize| u32::from_le_bytes(space[at + o..at + o + 4].try_into().unwrap());
                structures.push((space[at + 3], space[at + 4], long(8), long(12)));
                if space[at + 3] == 2 {
                    assert_eq!(space[at + 2], 20);
                    assert_eq!(long(16), 4);
                }
            }
            id => panic!("capability {id:#x}"),
        }
        at = usize::from(space[at + 1]);
    }
    assert_eq!(vectors + 1, rig.function.msix_vectors());
    assert_eq!(vectors, 5);
    assert_eq!(
        structures,
        [
            (1, 4, 0, 0x3c),
            (2, 4, 0x3000, 20),
            (3, 4, 0x1000, 1),
            (4, 4, 0x2000, 0x60),
            (5, 0, 0, 0)
        ]
    );
}

#[test]
fn bars_are_sized_by_writing_ones() {
    let rig = Rig::bare("");
    rig.function.write_config(0x20, &[0xff; 8]).unwrap();
    let space = config_space(&rig);
    let low = u32::from_le_bytes(space[0x20..0x24].try_into().unwrap());
    assert_eq!(low & 0xf, 0xc);
    assert_eq!(!(low & !0xf) + 1, 0x4000);
    assert_eq!(rig.bar.len_bytes(), 0x4000);
    assert!(rig.function.open_bar(0).is_err());
    assert!(rig.function.open_bar(1).is_err());
    assert!(rig.function.write_config(0xfe, &[0; 4]).is_err());
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let rig = Rig::bare("queues=3");
    let mut at = usize::from(config_space(&rig)[0x34]);
    while config_space(&rig)[at + 3] != 5 || config_space(&rig)[at] != 9 {
        at = usize::from(config_space(&rig)[at + 1]);
    }
    let select = |offset: u32, len: u32| {
        rig.function.write_config(at as u16 + 4, &[4]).unwrap();
        rig.function
            .write_config(at as u16 + 8, &offset.to_le_bytes())
            .unwrap();
        rig.function
            .write_config(at as u16 + 12, &len.to_le_bytes())
            .unwrap();
    };
    let mut word = [0; 2];
    select(0x12, 2);
    rig.function.read_config(at as u16 + 16, &mut word).unwrap();
    assert_eq!(word, [3, 0]);
    select(0x14, 1);
    rig.function.write_config(at as u16 + 16, &[3]).unwrap();
    assert_eq!(rig.status(), 3);
    // A bystander that dumps the space sets nothing off.
    config_space(&rig);
    assert_eq!(rig.status(), 3);
}

#[test]
fn a_function_that_does_not_master_the_bus_does_nothing() {
    let mut rig = Rig::ready("");
    rig.function.write_config(4, &[0x02, 0]).unwrap();
    rig.put_header(DATA, 4, 0);
    rig.lay_out(0, 0, DATA, 0, &[1]);
    rig.offer(0, 0);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.used_index(0), 0);
    rig.function.write_config(4, &[0x06, 0]).unwrap();
    rig.step();
    assert_eq!(rig.used_index(0), 1);
    rig.function.write_config(4, &[0x04, 0]).unwrap();
    assert_eq!(rig.read(0x14, Width::Byte), 0xff);
}

#[test]
fn only_whole_free_pages_inside_the_ranges_are_mapped() {
    let rig = Rig::bare("");
    let ranges = rig.function.iova_ranges().unwrap();
    assert_eq!(rig.function.translation(), Translation::Software);
    let memory = Arc::new(HostMemory::new(8192).unwrap());
    let len = memory.len_bytes() as u64;
    let map = |iova| rig.function.map_dma(Iova(iova), Arc::clone(&memory));
    let host = memory.as_ptr() as u64;
    assert!(ranges.iter().all(|range| !range.contains(&host)));
    assert!(map(host).is_err());
    assert!(map(0).is_err());
    assert!(map(BASE).is_err());
    assert!(map(BASE - len + 4096).is_err());
    assert!(map(0x1_0000_0800).is_err());
    assert!(map(ranges[0].end() - len + 4097).is_err());
    map(ranges[0].end() - len + 1).unwrap();
    map(*ranges[0].start()).unwrap();
    assert_eq!(Arc::strong_count(&memory), 3);
    rig.function.unmap_dma(Iova(*ranges[0].start())).unwrap();
    assert!(rig.function.unmap_dma(Iova(*ranges[0].start())).is_err());
    assert!(rig.function.unmap_dma(Iova(BASE + 4096)).is_err());
    assert_eq!(Arc::strong_count(&memory), 2);
    drop(rig);
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn more_events_than_vectors_are_refused() {
    let rig = Rig::bare("queues=1");
    let events: Vec<_> = (0..3).map(|_| EventFd::new(0).unwrap()).collect();
    assert!(rig.function.enable_msix(&events).is_err());
    rig.function.enable_msix(&events[..2]).unwrap();
    assert_eq!(config_space(&rig)[0x43] & 0x80, 0x80);
    rig.function.disable_msix().unwrap();
    assert_eq!(config_space(&rig)[0x43] & 0x80, 0);
}

#[test]
fn without_msix_the_isr_status_tells_and_is_cleared_by_reading() {
    let mut rig = Rig::ready("event-idx=off");
    rig.function.disable_msix().unwrap();
    assert_eq!(rig.command(4, 0), 0);
    assert_eq!(rig.read(0x1000, Width::Byte), 1);
    assert_eq!(rig.read(0x1000, Width::Byte), 0);
}

#[test]
fn a_device_pulled_out_reads_as_all_ones_and_answers_nothing() {
    let mut rig = Rig::ready("");
    rig.control.unplug();
    assert_eq!(rig.status(), 0xff);
    assert_eq!(rig.read(0, Width::Long), u32::MAX);
    assert!(config_space(&rig).iter().all(|byte| *byte == 0xff));
    rig.offer(0, 0);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.used_index(0), 0);
}

#[test]
fn dropping_the_function_stops_the_device_and_lets_go_of_memory() {
    let mut rig = Rig::threaded("");
    assert_eq!(rig.command(4, 0), 0);
    let memory = rig.arena.memory();
    let Rig {
        function,
        bar,
        doorbells,
        arena,
        ..
    } = rig;
    assert_eq!(Arc::strong_count(&memory), 3);
    drop(function);
    assert_eq!(Arc::strong_count(&memory), 2);
    drop(arena);
    assert_eq!(bar.read(0x14, Width::Byte).unwrap(), 0xff);
    doorbells[0].ring(0);
}

#[test]
fn an_inconsistent_configuration_is_refused() {
    let mut broken = config("");
    broken.queue_size = 100;
    assert!(zbd_emu::EmulatedFunction::new(&broken).is_err());
}
