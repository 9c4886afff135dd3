//! Which features are offered, and what becomes of those that are not accepted.

use vfio_virtio::Features;

use crate::{
    Level::{Defined, Must, Should},
    Model, Requirement, facts,
    outcome::{Verdict, not_applicable, require, undecidable},
    request::Request,
    subject::Subject,
    wire::{REPORT_ENTRY, feature, kind, offset, status},
};

pub(crate) const ALL: &[Requirement] = &[
    Requirement::new(
        "features-subset",
        "2.2.2",
        Should,
        "The device accepts any valid subset of the features that it offers.",
        subset,
    ),
    Requirement::new(
        "flush-offered",
        "5.2.5.2",
        Should,
        "Devices always offer FLUSH.",
        flush_offered,
    ),
    Requirement::new(
        "flush-with-config-wce",
        "5.2.5.2",
        Must,
        "Devices offer FLUSH if they offer CONFIG_WCE.",
        flush_with_config_wce,
    ),
    Requirement::new(
        "writeback-without-flush",
        "5.2.5.2",
        Must,
        "If CONFIG_WCE is negotiated but FLUSH is not, the device initializes writeback to 0.",
        writeback_without_flush,
    ),
    Requirement::new(
        "writeback-switch",
        "5.2.5",
        Defined,
        "If CONFIG_WCE is negotiated, the cache mode can be read or set through writeback: 0 is \
         writethrough, 1 writeback.",
        writeback_switch,
    ),
    Requirement::new(
        "zoned-not-offered",
        "5.2.5.2",
        Should,
        "A device that is not zoned does not offer ZONED.",
        zoned_not_offered,
    ),
    Requirement::new(
        "host-managed-without-zoned",
        "5.2.5.2",
        Must,
        "If ZONED is not accepted, a host-managed device fails to set FEATURES_OK.",
        host_managed_without_zoned,
    ),
    Requirement::new(
        "zoned-declined",
        "5.2.5.2",
        Should,
        "If ZONED is not accepted, a host-aware device, or one without zones, proceeds and sets \
         all zoned characteristics to zero.",
        zoned_declined,
    ),
    Requirement::new(
        "zone-requests-without-zoned",
        "5.2.6.2",
        Must,
        "If ZONED is not negotiated, the device rejects all zone requests with UNSUPP.",
        zone_requests_without_zoned,
    ),
];

/// What cannot be declined.
fn least(s: &Subject) -> Features {
    match s.device.model {
        Model::HostManaged => feature::ZONED,
        _ => Features::NONE,
    }
}

fn subset(s: &mut Subject) -> Verdict {
    let least = least(s);
    let accepted = s.negotiate(least)?.is_some();
    require(accepted, "FEATURES_OK stays set", || {
        format!(
            "the device refused {least:?} of the offered {:?}",
            s.device.offered
        )
    })
}

fn flush_offered(s: &mut Subject) -> Verdict {
    let offers = s.device.offers(feature::FLUSH);
    require(offers, "FLUSH is offered", || offered(s))
}

fn offered(s: &Subject) -> String {
    format!("the device offers {:?}", s.device.offered)
}

fn flush_with_config_wce(s: &mut Subject) -> Verdict {
    if !s.device.offers(feature::CONFIG_WCE) {
        return not_applicable("the device does not offer CONFIG_WCE");
    }
    let offers = s.device.offers(feature::FLUSH);
    require(offers, "FLUSH is offered with CONFIG_WCE", || offered(s))
}

fn writeback_without_flush(s: &mut Subject) -> Verdict {
    if !s.device.offers(feature::CONFIG_WCE) {
        return not_applicable("the device does not offer CONFIG_WCE");
    }
    let wanted = least(s) | feature::CONFIG_WCE;
    let Some(configured) = s.negotiate(wanted)? else {
        return undecidable("the device refuses CONFIG_WCE without FLUSH");
    };
    let writeback = configured.read_config(|config| config.u8(offset::WRITEBACK as u64));
    match writeback {
        Ok(value) => require(value == 0, "writeback is 0", || format!("it is {value}")),
        Err(error) => undecidable(format!("writeback cannot be read: {error}")),
    }
}

fn writeback_switch(s: &mut Subject) -> Verdict {
    if !s.device.accepted.contains(feature::CONFIG_WCE) {
        return not_applicable("the device does not offer CONFIG_WCE");
    }
    let before = s.device.field(offset::WRITEBACK, 1) as u8;
    let mut outcome = Ok(());
    for value in [0, 1, before] {
        if let Err(error) = s.set_writeback(value)? {
            outcome = require(false, "writeback keeps what is written", || {
                error.to_string()
            });
        }
    }
    outcome
}

fn zoned_not_offered(s: &mut Subject) -> Verdict {
    match s.device.model {
        Model::NotZoned | Model::HostManaged | Model::HostAware => Ok(()),
        Model::None => undecidable(
            "it states no zoned model: whether it is a drive-managed zoned device or none cannot \
             be seen",
        ),
    }
}

fn host_managed_without_zoned(s: &mut Subject) -> Verdict {
    if s.device.model != Model::HostManaged {
        return not_applicable("the device is not host-managed");
    }
    let refused = s.negotiate(Features::NONE)?.is_none();
    require(
        refused,
        "FEATURES_OK reads as 0 after it was written without ZONED",
        || "FEATURES_OK stayed set".to_owned(),
    )
}

fn zoned_declined(s: &mut Subject) -> Verdict {
    match s.device.model {
        Model::NotZoned => return not_applicable("the device does not offer ZONED"),
        Model::HostManaged => return not_applicable("the device is host-managed"),
        Model::HostAware | Model::None => {}
    }
    let Some(configured) = s.negotiate(Features::NONE)? else {
        return require(false, "FEATURES_OK stays set without ZONED", || {
            "the device refused the features".to_owned()
        });
    };
    match configured.read_config(facts::bytes) {
        Ok(bytes) => {
            let zoned = bytes.get(offset::ZONE_SECTORS..).unwrap_or_default();
            let all_zero = zoned.iter().all(|byte| *byte == 0);
            require(all_zero, "all zoned characteristics are 0", || {
                format!(
                    "from {:#x} on the configuration is {zoned:02x?}",
                    offset::ZONE_SECTORS
                )
            })
        }
        Err(error) => undecidable(format!("the configuration cannot be read: {error}")),
    }
}

fn zone_requests_without_zoned(s: &mut Subject) -> Verdict {
    let without = s.device.accepted - feature::ZONED - s.options.rings;
    if !s.start_with(without)? {
        return not_applicable("the device refuses to run without ZONED");
    }
    let unit = s.device.unit();
    for kind in [
        kind::REPORT,
        kind::OPEN,
        kind::CLOSE,
        kind::FINISH,
        kind::RESET,
        kind::RESET_ALL,
        kind::APPEND,
    ] {
        // A sequential zone, if there are any: the device may carry it out.
        let sector = s.device.capacity_sectors.saturating_sub(1);
        let start = match s.device.zone_sectors() {
            0 => 0,
            zone => sector / zone * zone,
        };
        let request = Request::new(kind, if kind == kind::RESET_ALL { 0 } else { start });
        let request = match kind {
            kind::REPORT => request.receives(2 * REPORT_ENTRY),
            kind::APPEND => request.sends(vec![0; unit]),
            _ => request,
        };
        let answer = s.run_here(&request)?;
        answer.expect(&[status::UNSUPP], "without ZONED, zone requests are UNSUPP")?;
    }
    Ok(())
}
