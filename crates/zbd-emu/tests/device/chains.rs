//! Malformed requests: the device gives up, it never panics.

use vfio_virtio::{Iova, PciFunction};

use crate::driver::{APPEND, BASE, DATA, Desc, FLUSH, INDIRECT, NEXT, OUT, Rig, TABLE, WRITE};

fn desc(offset: usize, len: u32, flags: u16, next: u16) -> Desc {
    Desc {
        address: BASE + offset as u64,
        len,
        flags,
        next,
    }
}

/// A device with a header of a flush in place.
fn rig() -> Rig {
    let rig = Rig::ready("queue-size=16");
    rig.put_header(DATA, FLUSH, 0);
    rig
}

#[test]
fn a_head_beyond_the_queue_breaks_the_device() {
    assert_eq!(rig().breaks_with(16), "a head beyond the queue");
}

#[test]
fn a_next_index_beyond_the_queue_breaks_the_device() {
    let mut rig = rig();
    rig.set_desc(0, 0, desc(DATA, 16, NEXT, 16));
    assert_eq!(rig.breaks_with(0), "a descriptor index beyond the queue");
}

#[test]
fn a_loop_breaks_the_device() {
    let mut rig = rig();
    rig.set_desc(0, 0, desc(DATA, 16, NEXT, 1));
    rig.set_desc(0, 1, desc(DATA, 16, NEXT, 0));
    assert_eq!(rig.breaks_with(0), "a chain longer than the queue");
}

#[test]
fn an_available_index_that_jumps_breaks_the_device() {
    let mut rig = rig();
    rig.set_avail_index(0, 17);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.control.broken(), Some("an available index that jumped"));
}

#[test]
fn requests_without_header_or_status_break_the_device() {
    let mut first = rig();
    first.set_desc(0, 0, desc(DATA, 15, NEXT, 1));
    first.set_desc(0, 1, desc(DATA, 1, WRITE, 0));
    assert_eq!(first.breaks_with(0), "a request without a whole header");
    let mut second = rig();
    second.set_desc(0, 0, desc(DATA, 16, 0, 0));
    assert_eq!(second.breaks_with(0), "a request without a status byte");
    let mut third = rig();
    third.set_desc(0, 0, desc(DATA, 16, NEXT, 1));
    third.set_desc(0, 1, desc(DATA, 0, WRITE, 0));
    assert_eq!(third.breaks_with(0), "a request without a status byte");
}

#[test]
fn an_append_without_room_for_its_location_is_an_io_error() {
    for room in [1, 7] {
        let mut rig = Rig::ready("");
        let answer = rig.request(APPEND, 0, &[1; 4096], room);
        assert_eq!((answer.status, answer.used_len), (1, room + 1));
        // Nothing was written: the next one is the zone's first.
        assert_eq!(rig.request(APPEND, 0, &[1; 4096], 0).sector(), 0);
    }
}

#[test]
fn readable_after_writable_breaks_the_device() {
    let mut rig = rig();
    rig.set_desc(0, 0, desc(DATA, 16, NEXT, 1));
    rig.set_desc(0, 1, desc(DATA + 16, 1, WRITE | NEXT, 2));
    rig.set_desc(0, 2, desc(DATA, 16, 0, 0));
    assert_eq!(
        rig.breaks_with(0),
        "a buffer to be read after one to be written"
    );
}

#[test]
fn more_writable_bytes_than_can_be_reported_break_the_device() {
    let mut rig = rig();
    rig.set_desc(0, 0, desc(DATA, 16, NEXT, 1));
    rig.set_desc(0, 1, desc(DATA, u32::MAX, WRITE | NEXT, 2));
    rig.set_desc(0, 2, desc(DATA, 1, WRITE, 0));
    assert_eq!(rig.breaks_with(0), "more than 4 GiB of writable buffers");
}

#[test]
fn data_at_unmapped_addresses_breaks_the_device() {
    let end = 8 << 20;
    for (header, data, status) in [
        // Each part in turn lies beyond the mapping, the last byte of it at least.
        (end - 15, DATA, DATA),
        (DATA, end - 511, DATA),
        (DATA, DATA, end),
        (DATA, usize::MAX - BASE as usize - 100, DATA),
    ] {
        let mut rig = Rig::ready("queue-size=16");
        rig.put_header(DATA, OUT, 0);
        rig.set_desc(0, 0, desc(header, 16, NEXT, 1));
        rig.set_desc(
            0,
            1,
            Desc {
                address: BASE.wrapping_add(data as u64),
                len: 4096,
                flags: NEXT,
                next: 2,
            },
        );
        rig.set_desc(0, 2, desc(status, 1, WRITE, 0));
        assert_eq!(rig.breaks_with(0), "an address that is not mapped");
    }
}

#[test]
fn addresses_of_this_process_mean_nothing_to_the_device() {
    let mut rig = Rig::ready("queue-size=16");
    rig.put_header(DATA, OUT, 0);
    let host = rig.arena.memory().as_ptr() as u64;
    rig.lay_out(0, 0, DATA, 4096, &[1]);
    rig.set_desc(
        0,
        1,
        Desc {
            address: host + DATA as u64 + 16,
            len: 4096,
            flags: NEXT,
            next: 2,
        },
    );
    assert_eq!(rig.breaks_with(0), "an address that is not mapped");
}

#[test]
fn ring_outside_the_mapping_breaks_the_device() {
    let mut rig = Rig::ready("queue-size=16");
    rig.function.unmap_dma(Iova(BASE)).unwrap();
    rig.kick(0);
    rig.step();
    assert_eq!(rig.control.broken(), Some("an address that is not mapped"));
}

/// An indirect table at `DATA + 0x1000` and the descriptor that refers to it.
fn indirect(rig: &Rig, len: u32, flags: u16, table: &[Desc]) {
    for (i, entry) in table.iter().enumerate() {
        rig.arena.write(DATA + 0x1000 + 16 * i, &entry.bytes());
    }
    rig.set_desc(0, 0, desc(DATA + 0x1000, len, TABLE | flags, 0));
}

#[test]
fn an_indirect_request_is_served_wherever_its_table_lies() {
    let mut rig = rig();
    let table = [
        desc(DATA, 16, NEXT, 2),
        desc(0, 0, 0, 0),
        desc(DATA + 16, 1, WRITE, 0),
    ];
    for (i, entry) in table.iter().enumerate() {
        rig.arena.write(DATA + 0x1003 + 16 * i, &entry.bytes());
    }
    rig.arena.write(DATA + 16, &[0xaa]);
    // §2.7.5.3.2: the write flag of the descriptor that refers to the table is ignored.
    rig.set_desc(0, 3, desc(DATA + 0x1003, 48, TABLE | WRITE, 0));
    rig.offer(0, 3);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.take_used(0), Some((3, 1)));
    assert_eq!(rig.arena.read(DATA + 16, 1), [0]);
}

#[test]
fn an_indirect_table_may_end_a_chain() {
    let mut rig = rig();
    rig.set_desc(0, 1, desc(DATA, 16, NEXT, 0));
    indirect(&rig, 16, 0, &[desc(DATA + 16, 1, WRITE, 0)]);
    rig.offer(0, 1);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.take_used(0), Some((1, 1)));
}

#[test]
fn malformed_indirect_tables_break_the_device() {
    let header = desc(DATA, 16, NEXT, 1);
    let status = desc(DATA + 16, 1, WRITE, 0);
    let whole = "an indirect table that is no whole number of descriptors";
    for (len, flags, table, reason) in [
        (
            32,
            NEXT,
            vec![header, status],
            "an indirect descriptor with a next one",
        ),
        (31, 0, vec![header, status], whole),
        (0, 0, vec![], whole),
        (
            16,
            0,
            vec![header],
            "a descriptor index beyond the indirect table",
        ),
        (
            32,
            0,
            vec![header, desc(DATA, 16, TABLE, 0)],
            "an indirect descriptor inside an indirect table",
        ),
        (
            32,
            0,
            vec![header, desc(DATA, 16, NEXT, 0)],
            "a chain longer than the queue",
        ),
        (
            u32::MAX - 15,
            0,
            vec![header],
            "an address that is not mapped",
        ),
    ] {
        let mut rig = rig();
        indirect(&rig, len, flags, &table);
        assert_eq!(rig.breaks_with(0), reason);
    }
}

#[test]
fn an_indirect_table_that_was_not_negotiated_breaks_the_device() {
    let mut rig = Rig::bare("queue-size=16");
    rig.start(!INDIRECT);
    indirect(&rig, 32, 0, &[]);
    assert_eq!(
        rig.breaks_with(0),
        "an indirect descriptor that was not negotiated"
    );
}

#[test]
fn a_broken_device_does_nothing_until_it_is_reset() {
    let mut rig = rig();
    rig.breaks_with(16);
    rig.lay_out(0, 0, DATA, 0, &[1]);
    rig.offer(0, 0);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.used_index(0), 0);
    rig.start(u64::MAX);
    assert_eq!(rig.command(FLUSH, 0), 0);
}

#[test]
fn what_came_before_a_malformed_request_is_completed() {
    let mut rig = rig();
    rig.lay_out(0, 0, DATA, 0, &[1]);
    rig.offer(0, 0);
    rig.offer(0, 99);
    rig.kick(0);
    rig.step();
    assert_eq!(rig.take_used(0), Some((0, 1)));
    assert_eq!(rig.control.broken(), Some("a head beyond the queue"));
}
