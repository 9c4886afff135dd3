//! Which of the features that a device offers are accepted.

use vfio_virtio::{Config, Features, Negotiation};
use virtio_bindings::virtio_blk as binding;

use super::config::{self, Offset};
use crate::Result;

/// Where the fields of a feature end. Those of ZONED are not here: without them, the device cannot
/// be driven.
const FIELD_ENDS: &[(Features, u64)] = &[
    (config::SIZE_MAX, Offset::SIZE_MAX + 4),
    (config::SEG_MAX, Offset::SEG_MAX + 4),
    (config::BLK_SIZE, Offset::BLK_SIZE + 4),
    (config::TOPOLOGY, Offset::PHYSICAL_BLOCK_EXP + 1),
    (config::CONFIG_WCE, Offset::WRITEBACK + 1),
    (config::MQ, Offset::NUM_QUEUES + 2),
    (config::DISCARD, Offset::DISCARD_ALIGNMENT + 4),
    (config::WRITE_ZEROES, Offset::ZEROES_MAY_UNMAP + 1),
    (config::SECURE_ERASE, Offset::ERASE_ALIGNMENT + 4),
];

/// What of this device's features, apart from those of rings, makes sense to accept.
pub(super) fn wanted(negotiation: &Negotiation) -> Result<Features> {
    let rings = config::RING_FEATURES
        .iter()
        .fold(Features::NONE, |all, feature| all | *feature);
    let known = config::NAMES
        .iter()
        .fold(Features::NONE, |all, (feature, _)| all | *feature)
        - rings;
    let offered = negotiation.offered() & known;
    let unusable = negotiation.read_config(|config| unusable(offered, config))?;
    if unusable != Features::NONE {
        tracing::debug!(
            device = negotiation.name(),
            features = ?config::names(unusable).collect::<Vec<_>>(),
            "the device offers features that it does not complete or that do not go together; they are not used"
        );
    }
    Ok(offered - unusable)
}

/// Those of the offered features that are not to be accepted.
fn unusable(offered: Features, config: &Config<'_>) -> vfio_virtio::Result<Features> {
    let offers = |feature| offered.contains(feature);
    // Some back ends serve a configuration that ends before fields of what they offer.
    let mut unusable = FIELD_ENDS
        .iter()
        .filter(|(feature, end)| offers(*feature) && *end > config.len_bytes())
        .fold(Features::NONE, |all, (feature, _)| all | *feature);
    // VIRTIO 1.3, 5.2.5.1: a host-managed device must not be given DISCARD.
    if offers(config::ZONED)
        && offers(config::DISCARD)
        && config.len_bytes() > Offset::MODEL
        && u32::from(config.u8(Offset::MODEL)?) == binding::VIRTIO_BLK_Z_HM
    {
        unusable = unusable | config::DISCARD;
    }
    // VIRTIO 1.3, 5.2.5.2: CONFIG_WCE comes with FLUSH, without which a volatile cache could not be
    // emptied.
    if offers(config::CONFIG_WCE) && !offers(config::FLUSH) {
        unusable = unusable | config::CONFIG_WCE;
    }
    Ok(unusable)
}
