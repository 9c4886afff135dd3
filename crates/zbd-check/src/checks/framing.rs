//! Requests cut into descriptors in ways that are unusual and allowed.

use crate::{
    Level::Must,
    Requirement,
    outcome::{Verdict, require},
    pattern::pattern,
    request::{append, read, write},
    subject::Subject,
    wire::{HEADER_LEN, SECTOR, feature, status},
};

const ALLOWED: &str = "the device makes no assumptions about the arrangement of descriptors";

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "framing-header",
        "2.7.4.1",
        Must,
        "The device makes no assumptions about descriptors: a header in several, or in one with \
         data.",
        header,
    ),
    Requirement::new(
        "framing-data",
        "2.7.4.1",
        Must,
        "The device makes no assumptions about descriptors: data of reads and writes cut \
         anywhere.",
        data,
    ),
    Requirement::new(
        "framing-append",
        "2.7.4.1",
        Must,
        "The device makes no assumptions about descriptors: data of appends cut anywhere.",
        append_data,
    ),
    Requirement::new(
        "framing-answer",
        "2.7.4.1",
        Must,
        "The device makes no assumptions about descriptors: an answer in several, or in one with \
         data.",
        answer,
    ),
];

/// A place with two blocks of data, and the data, as they are read in the usual framing; whether the
/// place after them can be written.
fn written(s: &mut Subject) -> Verdict<(u64, Vec<u8>)> {
    let unit = s.device.unit();
    let mut at = 0;
    if !s.device.offers(feature::RO) {
        if s.device.is_zoned() {
            at = s.zone()?.start;
        }
        s.must(&write(at, pattern(at, 2 * unit)))?;
    }
    let answer = s.must(&read(at, 2 * unit))?;
    Ok((at, answer.data().to_vec()))
}

fn header(s: &mut Subject) -> Verdict {
    let unit = s.device.unit();
    let (start, data) = written(s)?;
    for cuts in [&[8, 8][..], &[1, 15], &[4, 4, 8]] {
        let answer = s.run(&read(start, 2 * unit).readable_cut(cuts))?;
        answer.expect(&[status::OK], ALLOWED)?;
        answer.expect_data(&data, ALLOWED)?;
    }
    if s.device.offers(feature::RO) {
        return Ok(());
    }
    let mut at = start + 2 * unit as u64 / SECTOR;
    for cuts in [&[HEADER_LEN + 512][..], &[8, 8 + 512]] {
        let data = pattern(at, unit);
        let answer = s.run(&write(at, data.clone()).readable_cut(cuts))?;
        answer.expect(&[status::OK], ALLOWED)?;
        let answer = s.must(&read(at, unit))?;
        answer.expect_data(&data, "what is written is read back")?;
        at += unit as u64 / SECTOR;
    }
    Ok(())
}

fn data(s: &mut Subject) -> Verdict {
    let unit = s.device.unit();
    let room = room(s, 3);
    let (start, data) = written(s)?;
    let cuts = &[300, 1, unit][..room];
    let answer = s.run(&read(start, 2 * unit).writable_cut(cuts))?;
    answer.expect(&[status::OK], ALLOWED)?;
    answer.expect_data(&data, "what is written is read back")?;
    if s.device.offers(feature::RO) {
        return Ok(());
    }
    let at = start + 2 * unit as u64 / SECTOR;
    let data = pattern(at, 2 * unit);
    let cuts = [&[HEADER_LEN][..], &[100, 200, unit][..room]].concat();
    let answer = s.run(&write(at, data.clone()).readable_cut(&cuts))?;
    answer.expect(&[status::OK], ALLOWED)?;
    let answer = s.must(&read(at, 2 * unit))?;
    answer.expect_data(&data, "what is written is read back")
}

/// How many cuts there may be in data, `wanted` at the most.
fn room(s: &Subject, wanted: usize) -> usize {
    wanted.min(s.device.segments().saturating_sub(1))
}

fn append_data(s: &mut Subject) -> Verdict {
    let unit = s.append_len()?;
    let zone = s.appendable(1)?[0];
    let room = room(s, 2);
    let cuts = [&[HEADER_LEN][..], &[100, 200][..room]].concat();
    let data = pattern(1, unit);
    let answer = s.run(&append(zone.start, data.clone()).readable_cut(&cuts))?;
    answer.expect(&[status::OK], ALLOWED)?;
    let answer = s.must(&read(zone.start, unit))?;
    answer.expect_data(&data, "what is appended is read back")
}

fn answer(s: &mut Subject) -> Verdict {
    let unit = s.device.unit();
    let (start, data) = written(s)?;
    // One descriptor for data and status, or a border inside what is one of each.
    for cuts in [2 * unit + 1, 2 * unit - 1] {
        let answer = s.run(&read(start, 2 * unit).writable_cut(&[cuts]))?;
        answer.expect(&[status::OK], ALLOWED)?;
        answer.expect_data(&data, ALLOWED)?;
    }
    let Ok(unit) = s.append_len() else {
        return Ok(());
    };
    for zone in s.appendable(1)? {
        for (cuts, index) in [&[4, 4, 1][..], &[8, 1], &[3, 6]].into_iter().zip(0..) {
            let answer = s.run(&append(zone.start, pattern(index, unit)).writable_cut(cuts))?;
            answer.expect(&[status::OK], ALLOWED)?;
            let expected = zone.start + index * unit as u64 / SECTOR;
            require(
                answer.append_sector() == expected,
                "append_sector is where the data are",
                || format!("it is {}, not {expected}", answer.append_sector()),
            )?;
        }
    }
    Ok(())
}
