//! Requests of any block device.

use crate::{
    Level::{Defined, Must},
    Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{Answer, Request, append, read, write},
    subject::Subject,
    wire::{ID_LEN, REPORT_ENTRY, SECTOR, STATUS_LEN, feature, kind, status},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "used-length",
        "2.7.8.2",
        Must,
        "The device writes at least as many bytes as it says in the used length.",
        used_length,
    ),
    Requirement::new(
        "unknown-type",
        "5.2.6",
        Defined,
        "A request that the device does not support ends with UNSUPP.",
        unknown_type,
    ),
    Requirement::new(
        "read-write",
        "5.2.6",
        Defined,
        "OUT writes its data to the device, and IN reads the contents of sectors.",
        read_write,
    ),
    Requirement::new(
        "read-beyond-capacity",
        "5.2.6",
        Defined,
        "A read beyond capacity, a driver error, does not succeed.",
        read_beyond_capacity,
    ),
    Requirement::new(
        "write-beyond-capacity",
        "5.2.6",
        Defined,
        "A write beyond capacity, a driver error, does not succeed.",
        write_beyond_capacity,
    ),
    Requirement::new(
        "odd-length-answered",
        "5.2.6",
        Defined,
        "The device answers reads and writes whose data are no multiple of 512 bytes, a driver \
         error, with a status.",
        odd_length,
    ),
    Requirement::new(
        "short-append-answered",
        "5.2.6",
        Defined,
        "The device answers an append without room for append_sector, a driver error, with a \
         status.",
        short_append,
    ),
    Requirement::new(
        "short-report-answered",
        "5.2.6",
        Defined,
        "The device answers a report with room for no zone, or less than the header, with a \
         status.",
        short_report,
    ),
    Requirement::new(
        "get-id",
        "5.2.6",
        Defined,
        "GET_ID fetches the device ID: an ASCII string of up to 20 bytes, padded with NUL.",
        get_id,
    ),
    Requirement::new(
        "flush",
        "5.2.6",
        Defined,
        "A device with FLUSH carries out FLUSH requests.",
        flush,
    ),
    Requirement::new(
        "lifetime-values",
        "5.2.6.2",
        Must,
        "A device that offers lifetime metrics sends no reserved values.",
        lifetime,
    ),
    Requirement::new(
        "read-only-write",
        "5.2.6.2",
        Must,
        "If RO is offered, the device sets the status of write requests to IOERR and writes no \
         data.",
        read_only_write,
    ),
];

/// Fails if `answer`, whose memory held something else than in `other`, is shorter than it says.
fn written(answer: &Answer, other: &Answer, what: &str) -> Verdict {
    // What both times is as it was before was not written.
    let untouched = answer
        .writable
        .iter()
        .zip(&other.writable)
        .filter(|(a, b)| **a == 0xa5 && **b == 0x5a)
        .count();
    let written = answer.writable.len() - untouched;
    require(
        answer.used_len as usize <= written,
        "the used length is no more than what was written",
        || {
            format!(
                "of {what} the device wrote {written} of {} bytes and says it wrote {}",
                answer.writable.len(),
                answer.used_len
            )
        },
    )
}

fn used_length(s: &mut Subject) -> Verdict {
    let unit = s.device.unit();
    let mut requests = vec![
        (read(s.device.capacity_sectors, unit), "a read that fails"),
        (Request::new(kind::GET_ID, 0).receives(ID_LEN), "an ID"),
        (read(0, unit), "a read"),
        (Request::new(0x7ffe, 0).receives(64), "an unknown request"),
    ];
    if s.device.is_zoned() && s.device.zone_sectors() > 0 {
        let last = s.device.capacity_sectors.saturating_sub(1);
        let report = Request::new(kind::REPORT, last).receives(8 * REPORT_ENTRY);
        requests.push((report, "a report of fewer zones than fit"));
    }
    for (request, what) in requests {
        let answer = s.run(&request)?;
        let other = s.run(&request.filled_with(0x5a))?;
        written(&answer, &other, what)?;
    }
    Ok(())
}

fn unknown_type(s: &mut Subject) -> Verdict {
    let required = "a type that is not defined is UNSUPP";
    for kind in [0x7fff, 0x7ffe, 28] {
        let answer = s.run(&Request::new(kind, 0))?;
        answer.expect(&[status::UNSUPP], required)?;
    }
    let answer = s.run(&Request::new(0x7ffe, 0).receives(512))?;
    answer.expect(&[status::UNSUPP], required)?;
    let answer = s.run(&Request::new(0x7fff, 0).sends(vec![0; 512]))?;
    answer.expect(&[status::UNSUPP], required)
}

fn read_write(s: &mut Subject) -> Verdict {
    s.writable()?;
    let unit = s.device.unit();
    let start = match s.device.is_zoned() {
        true => s.zone()?.start,
        false => 0,
    };
    let len = 4 * unit;
    let data = pattern(7, len);
    for i in 0..4 {
        let at = start + (i * unit) as u64 / SECTOR;
        let answer = s.run(&write(at, data[i * unit..(i + 1) * unit].to_vec()))?;
        answer.expect(&[status::OK], "a write succeeds")?;
    }
    let answer = s.run(&read(start, len))?;
    answer.expect(&[status::OK], "a read succeeds")?;
    answer.expect_data(&data, "what was written is read")?;
    let answer = s.run(&read(start + unit as u64 / SECTOR, unit))?;
    answer.expect(&[status::OK], "a read succeeds")?;
    answer.expect_data(&data[unit..], "what was written is read")
}

/// Places beyond the end, or that reach there.
fn beyond(s: &Subject) -> [u64; 3] {
    let sectors = s.device.unit() as u64 / SECTOR;
    let capacity = s.device.capacity_sectors;
    // So far out that a count of bytes does not fit into 64 bits.
    [capacity, (1 << 55) + capacity, u64::MAX / sectors * sectors]
}

fn read_beyond_capacity(s: &mut Subject) -> Verdict {
    let required = "a read beyond capacity does not succeed";
    let unit = s.device.unit();
    for sector in beyond(s) {
        s.run(&read(sector, unit))?.expect_refusal(required)?;
    }
    let last = s
        .device
        .capacity_sectors
        .saturating_sub(unit as u64 / SECTOR);
    s.run(&read(last, 2 * unit))?.expect_refusal(required)
}

fn write_beyond_capacity(s: &mut Subject) -> Verdict {
    s.writable()?;
    let required = "a write beyond capacity does not succeed";
    let unit = s.device.unit();
    for sector in beyond(s) {
        let answer = s.run(&write(sector, vec![0; unit]))?;
        answer.expect_refusal(required)?;
    }
    let last = s
        .device
        .capacity_sectors
        .saturating_sub(unit as u64 / SECTOR);
    let answer = s.run(&write(last, vec![0; 2 * unit]))?;
    answer.expect_refusal(required)
}

fn answered(answer: &Answer) -> Verdict {
    let is_defined = answer.is_status_written() && answer.status() <= status::ACTIVE_RESOURCE;
    require(is_defined, "the final status byte is written", || {
        answer.told()
    })
}

fn odd_length(s: &mut Subject) -> Verdict {
    for len in [1, 511, 513] {
        answered(&s.run(&read(0, len))?)?;
    }
    if s.writable().is_err() {
        return Ok(());
    }
    let start = match s.device.is_zoned() {
        true => s.zone()?.start,
        false => 0,
    };
    for len in [1, 511, 513] {
        answered(&s.run(&write(start, vec![0; len]))?)?;
    }
    Ok(())
}

fn short_append(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    for len in [STATUS_LEN, 8] {
        let answer = s.run(&append(zone.start, vec![0; unit]).answered_in(len))?;
        answered(&answer)?;
    }
    Ok(())
}

fn short_report(s: &mut Subject) -> Verdict {
    s.zoned()?;
    for room in [REPORT_ENTRY, REPORT_ENTRY - 1, 8] {
        let answer = s.run(&Request::new(kind::REPORT, 0).receives(room))?;
        answered(&answer)?;
    }
    Ok(())
}

fn get_id(s: &mut Subject) -> Verdict {
    let answer = s.run(&Request::new(kind::GET_ID, 0).receives(ID_LEN))?;
    if answer.status() == status::UNSUPP {
        return not_applicable("the device does not support GET_ID");
    }
    answer.expect(&[status::OK], "GET_ID succeeds, or is UNSUPP")?;
    let id = answer.data();
    let len = id.iter().position(|byte| *byte == 0).unwrap_or(ID_LEN);
    let shown = || {
        format!(
            "it is [{}]",
            id.iter()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(" ")
        )
    };
    require(id[..len].is_ascii(), "the ID is ASCII", shown)?;
    let is_padded = id[len..].iter().all(|byte| *byte == 0);
    require(is_padded, "the ID is padded with NUL to 20 bytes", shown)
}

fn flush(s: &mut Subject) -> Verdict {
    if !s.device.accepted.contains(feature::FLUSH) {
        return not_applicable("the device does not offer FLUSH");
    }
    let answer = s.run(&Request::new(kind::FLUSH, 0))?;
    answer.expect(&[status::OK], "a flush succeeds")
}

fn lifetime(s: &mut Subject) -> Verdict {
    if !s.device.accepted.contains(feature::LIFETIME) {
        return not_applicable("the device does not offer LIFETIME");
    }
    let answer = s.run(&Request::new(kind::GET_LIFETIME, 0).receives(6))?;
    if answer.status() != status::OK {
        return undecidable(format!("GET_LIFETIME ended with {}", answer.told()));
    }
    let values = answer.data().chunks_exact(2).zip([3, 11, 11]);
    for (value, most) in values {
        let value = u16::from_le_bytes([value[0], value[1]]);
        require(
            value <= most,
            "pre_eol_info is 0 to 3, estimates are 0 to 11",
            || format!("{value} exceeds {most}: {:02x?}", answer.data()),
        )?;
    }
    Ok(())
}

fn read_only_write(s: &mut Subject) -> Verdict {
    if !s.device.offers(feature::RO) {
        return not_applicable("the device does not offer RO");
    }
    let unit = s.device.unit();
    let before = s.run(&read(0, unit))?;
    let answer = s.run(&write(0, pattern(3, unit)))?;
    answer.expect(&[status::IOERR], "a write to a read-only device is IOERR")?;
    let after = s.run(&read(0, unit))?;
    if before.status() != status::OK {
        return Ok(());
    }
    after.expect_data(before.data(), "no data are written")
}
