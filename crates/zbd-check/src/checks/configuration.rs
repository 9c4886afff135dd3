//! The device configuration.

use crate::{
    Level::{Defined, Must},
    Model, Requirement,
    outcome::{Verdict, not_applicable, require, undecidable},
    subject::Subject,
    wire::{feature, offset},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "config-fields-readable",
        "2.5.2",
        Must,
        "The device allows reading of any field of its configuration that belongs to a feature \
         that it offers.",
        fields_readable,
    ),
    Requirement::new(
        "queues-exist",
        "5.2.2",
        Defined,
        "The device has num_queues request queues if MQ is negotiated, else one.",
        queues_exist,
    ),
    Requirement::new(
        "config-padding-zero",
        "5.2.5.2",
        Must,
        "The device initializes the padding unused0 and unused1 to 0.",
        padding,
    ),
    Requirement::new(
        "zoned-padding-zero",
        "5.2.5.2",
        Must,
        "A zoned device initializes the padding unused2 to 0.",
        zoned_padding,
    ),
    Requirement::new(
        "zoned-model",
        "5.2.5.2",
        Must,
        "If ZONED is negotiated, the device sets model to NONE (0), HM (1) or HA (2).",
        model,
    ),
    Requirement::new(
        "zone-sectors",
        "5.2.5.2",
        Must,
        "A zoned device sets zone_sectors to the size of a single zone.",
        zone_sectors,
    ),
    Requirement::new(
        "max-append-segments",
        "5.2.5.2",
        Must,
        "max_append_sectors does not exceed seg_max * size_max.",
        max_append_segments,
    ),
    Requirement::new(
        "write-granularity",
        "5.2.5.2",
        Must,
        "A zoned device sets write_granularity to the alignment, in bytes, of writes to its \
         sequential zones.",
        granularity,
    ),
    Requirement::new(
        "secure-erase-alignment",
        "5.2.6.2",
        Must,
        "If ZONED and SECURE_ERASE are negotiated, secure_erase_sector_alignment is a multiple of \
         zone_sectors.",
        secure_erase_alignment,
    ),
];

fn fields_readable(s: &mut Subject) -> Verdict {
    let fields = [
        (feature::SIZE_MAX, offset::SIZE_MAX + 4, "size_max"),
        (feature::SEG_MAX, offset::SEG_MAX + 4, "seg_max"),
        (feature::BLK_SIZE, offset::BLK_SIZE + 4, "blk_size"),
        (feature::TOPOLOGY, offset::TOPOLOGY + 8, "topology"),
        (feature::CONFIG_WCE, offset::WRITEBACK + 1, "writeback"),
        (feature::MQ, offset::NUM_QUEUES + 2, "num_queues"),
        (
            feature::DISCARD,
            offset::MAX_DISCARD + 12,
            "discard_sector_alignment",
        ),
        (
            feature::WRITE_ZEROES,
            offset::MAX_WRITE_ZEROES + 9,
            "write_zeroes_may_unmap",
        ),
        (
            feature::SECURE_ERASE,
            offset::MAX_SECURE_ERASE + 12,
            "secure_erase_sector_alignment",
        ),
        (feature::ZONED, offset::MODEL + 1, "zoned.model"),
    ];
    let len = s.device.config.len();
    require(len >= 8, "the configuration holds capacity", || {
        format!("it has {len} bytes")
    })?;
    for (feature, end, field) in fields {
        let there = !s.device.offers(feature) || end <= len;
        require(
            there,
            "the configuration holds the fields of what is offered",
            || {
                format!(
                    "{feature:?} is offered, {field} ends at {end:#x}, and the configuration has {len:#x} bytes"
                )
            },
        )?;
    }
    Ok(())
}

fn queues_exist(s: &mut Subject) -> Verdict {
    let expected = match s.device.accepted.contains(feature::MQ) {
        true => s.device.field(offset::NUM_QUEUES, 2),
        false => 1,
    };
    require(expected > 0, "num_queues is 1 at least", || {
        "it is 0".to_owned()
    })?;
    let accepted = s.device.accepted;
    let Some(configured) = s.negotiate(accepted)? else {
        return undecidable("the device refuses the features that it accepted at first");
    };
    for index in 0..expected as u16 {
        match configured.queue_size_max(index) {
            Ok(size) => require(size > 0, "each of num_queues queues has a size", || {
                format!("num_queues is {expected}, and the size of queue {index} is 0")
            })?,
            Err(error) => return undecidable(format!("the queue's size cannot be read: {error}")),
        }
    }
    Ok(())
}

fn zero(s: &Subject, from: usize, to: usize, name: &str) -> Verdict {
    let bytes = s.device.config.get(from..to).unwrap_or_default();
    require(bytes.iter().all(|byte| *byte == 0), "padding is 0", || {
        format!("{name} is {bytes:02x?}")
    })
}

fn padding(s: &mut Subject) -> Verdict {
    if s.device.config.len() <= offset::UNUSED0 {
        return not_applicable("the configuration ends before its padding");
    }
    zero(s, offset::UNUSED0, offset::UNUSED0 + 1, "unused0")?;
    // A configuration may end before padding that no field follows.
    match s.device.offers(feature::SECURE_ERASE) || s.device.offers(feature::ZONED) {
        true => zero(s, offset::UNUSED1, offset::UNUSED1 + 3, "unused1"),
        false => Ok(()),
    }
}

fn zoned_padding(s: &mut Subject) -> Verdict {
    zoned(s)?;
    zero(s, offset::UNUSED2, offset::END, "unused2")
}

/// That the device states a zoned model, whatever else it states.
fn zoned(s: &Subject) -> Verdict {
    match s.device.is_zoned() {
        true => Ok(()),
        false => not_applicable("the device is neither host-managed nor host-aware"),
    }
}

fn model(s: &mut Subject) -> Verdict {
    if s.device.model == Model::NotZoned {
        return not_applicable("the device does not offer ZONED");
    }
    if s.device.config.len() <= offset::MODEL {
        return undecidable("the configuration ends before the field");
    }
    let value = s.device.field(offset::MODEL, 1);
    require(value <= 2, "model is 0, 1 or 2", || {
        format!("it is {value}")
    })
}

fn zone_sectors(s: &mut Subject) -> Verdict {
    zoned(s)?;
    let sectors = s.device.zone_sectors();
    require(sectors > 0, "zone_sectors is the size of a zone", || {
        "it is 0".to_owned()
    })
}

fn max_append_segments(s: &mut Subject) -> Verdict {
    zoned(s)?;
    if !s.device.offers(feature::SEG_MAX) || !s.device.offers(feature::SIZE_MAX) {
        return not_applicable("the device does not offer both SEG_MAX and SIZE_MAX");
    }
    let (count, size) = (
        s.device.field(offset::SEG_MAX, 4),
        s.device.field(offset::SIZE_MAX, 4),
    );
    let append = s.device.max_append_sectors() * 512;
    require(
        append <= count * size,
        "max_append_sectors is no more than seg_max * size_max",
        || format!("{append} bytes are more than {count} * {size}"),
    )
}

fn granularity(s: &mut Subject) -> Verdict {
    zoned(s)?;
    let bytes = s.device.field(offset::GRANULARITY, 4);
    require(
        bytes > 0,
        "write_granularity is an alignment in bytes",
        || "it is 0".to_owned(),
    )
}

fn secure_erase_alignment(s: &mut Subject) -> Verdict {
    zoned(s)?;
    if !s.device.offers(feature::SECURE_ERASE) {
        return not_applicable("the device does not offer SECURE_ERASE");
    }
    let alignment = s.device.field(offset::SECURE_ERASE_ALIGNMENT, 4);
    let zone = s.device.zone_sectors();
    if zone == 0 {
        return undecidable("zone_sectors is 0");
    }
    require(
        alignment.is_multiple_of(zone),
        "secure_erase_sector_alignment is a multiple of zone_sectors",
        || format!("{alignment} is no multiple of {zone}"),
    )
}
