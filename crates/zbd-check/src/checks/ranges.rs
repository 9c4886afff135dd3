//! Requests that name ranges of sectors: discard, write zeroes, secure erase.

use vfio_virtio::Features;

use crate::{
    Level::Must,
    Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{Request, read, write},
    subject::Subject,
    wire::{SECTOR, feature, kind, status},
    zone::State,
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "discard-unmap",
        "5.2.6.2",
        Must,
        "A discard with the unmap flag ends with UNSUPP.",
        discard_unmap,
    ),
    Requirement::new(
        "discard-unknown-flags",
        "5.2.6.2",
        Must,
        "A discard with an unknown flag ends with UNSUPP.",
        discard_flags,
    ),
    Requirement::new(
        "write-zeroes-unknown-flags",
        "5.2.6.2",
        Must,
        "A write zeroes with an unknown flag ends with UNSUPP.",
        write_zeroes_flags,
    ),
    Requirement::new(
        "secure-erase-unknown-flags",
        "5.2.6.2",
        Must,
        "A secure erase with an unknown flag ends with UNSUPP.",
        secure_erase_flags,
    ),
    Requirement::new(
        "write-zeroes-reads-zero",
        "5.2.6.2",
        Must,
        "After a write zeroes, reads of the range return zeroes, whether unmap was set or not.",
        write_zeroes,
    ),
    Requirement::new(
        "secure-erase-resets-zones",
        "5.2.6.2",
        Must,
        "A secure erase is handled as a zone reset of the zones of its range.",
        secure_erase,
    ),
];

const UNMAP: u32 = 1;

/// A request for one range.
fn range(kind: u32, sector: u64, sectors: u64, flags: u32) -> Request {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend((sectors as u32).to_le_bytes());
    segment.extend(flags.to_le_bytes());
    Request::new(kind, 0).sends(segment)
}

fn flagged(s: &mut Subject, feature: Features, kind: u32, flags: &[u32]) -> Verdict {
    s.writable()?;
    if !s.device.accepted.contains(feature) {
        let why = match s.device.offers(feature) {
            true => "a driver must not accept DISCARD from a host-managed device",
            false => "the device does not offer the feature",
        };
        return not_applicable(why);
    }
    let sectors = s.device.unit() as u64 / SECTOR;
    for flags in flags {
        let answer = s.run(&range(kind, 0, sectors, *flags))?;
        answer.expect(&[status::UNSUPP], "the flag is not supported")?;
    }
    Ok(())
}

fn discard_unmap(s: &mut Subject) -> Verdict {
    flagged(s, feature::DISCARD, kind::DISCARD, &[UNMAP])
}

fn discard_flags(s: &mut Subject) -> Verdict {
    flagged(s, feature::DISCARD, kind::DISCARD, &[2, 1 << 31])
}

fn write_zeroes_flags(s: &mut Subject) -> Verdict {
    flagged(s, feature::WRITE_ZEROES, kind::WRITE_ZEROES, &[2, 1 << 31])
}

fn secure_erase_flags(s: &mut Subject) -> Verdict {
    flagged(s, feature::SECURE_ERASE, kind::SECURE_ERASE, &[2, 1 << 31])
}

fn write_zeroes(s: &mut Subject) -> Verdict {
    s.writable()?;
    if !s.device.accepted.contains(feature::WRITE_ZEROES) {
        return not_applicable("the device does not offer WRITE_ZEROES");
    }
    let start = match s.device.is_zoned() {
        true => match s.conventional() {
            Ok(zone) => zone.start,
            Err(_) => {
                return undecidable(
                    "the device has no conventional zone, and what a write zeroes does in others \
                     is not said",
                );
            }
        },
        false => 0,
    };
    let unit = s.device.unit();
    for flags in [0, UNMAP] {
        s.must(&write(start, pattern(9, 2 * unit)))?;
        let request = range(kind::WRITE_ZEROES, start, unit as u64 / SECTOR, flags);
        let answer = s.run(&request)?;
        if answer.status() != status::OK {
            return undecidable(format!("the request ended with {}", answer.told()));
        }
        let answer = s.must(&read(start, 2 * unit))?;
        answer.expect_data(&vec![0; unit], "the range reads as zeroes")?;
        let rest = &answer.data()[unit..];
        require(
            rest == &pattern(9, 2 * unit)[unit..],
            "what follows the range is as it was",
            || "it has changed".to_owned(),
        )?;
    }
    Ok(())
}

fn secure_erase(s: &mut Subject) -> Verdict {
    s.zoned()?;
    if !s.device.accepted.contains(feature::SECURE_ERASE) {
        return not_applicable("the device does not offer SECURE_ERASE");
    }
    let zone = s.zone()?;
    let unit = s.device.unit();
    s.must(&write(zone.start, pattern(4, unit)))?;
    let sectors = s.device.zone_sectors();
    let answer = s.run(&range(kind::SECURE_ERASE, zone.start, sectors, 0))?;
    answer.expect(&[status::OK], "the zone can be reset")?;
    s.expect_state(zone.start, State::EMPTY, "the zone is reset")
}
