//! The features that a configuration stands for.

use super::{EmulatedConfig, RingFormat, Switch, ZoneModel};
use crate::wire::feature;

/// The features that a device with `config` offers.
pub(super) fn features(config: &EmulatedConfig) -> u64 {
    let model = config.model();
    let zoned = model != ZoneModel::None;
    let on = |switch: Switch| switch == Switch::On;
    let mut features = feature::VERSION_1
        | feature::ACCESS_PLATFORM
        | feature::RING_RESET
        | feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::MQ;
    for (offered, bits) in [
        // §5.2.5.2: a device that is not zoned should not offer the feature.
        (zoned, feature::ZONED),
        // §5.2.5.2: CONFIG_WCE is offered with FLUSH only.
        (on(config.flush), feature::FLUSH | feature::CONFIG_WCE),
        (
            config.discard.map_or(model != ZoneModel::HostManaged, on),
            feature::DISCARD,
        ),
        (on(config.write_zeroes), feature::WRITE_ZEROES),
        (
            config.secure_erase.map_or(!zoned, on),
            feature::SECURE_ERASE,
        ),
        (on(config.lifetime), feature::LIFETIME),
        (on(config.readonly), feature::RO),
        (config.size_max.is_some(), feature::SIZE_MAX),
        (on(config.indirect), feature::INDIRECT_DESC),
        (on(config.event_idx), feature::EVENT_IDX),
        (config.ring == RingFormat::Packed, feature::RING_PACKED),
        (on(config.in_order), feature::IN_ORDER),
        (on(config.order_platform), feature::ORDER_PLATFORM),
        (on(config.notification_data), feature::NOTIFICATION_DATA),
        (on(config.notif_config_data), feature::NOTIF_CONFIG_DATA),
    ] {
        if offered {
            features |= bits;
        }
    }
    features
}
