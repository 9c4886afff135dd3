//! Which ring features are used.

use std::fmt;

use vfio_virtio::Features;

use crate::{Error, ErrorKind, Result};

/// Whether something optional is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Use {
    /// If the device offers it.
    #[default]
    WhereOffered,
    /// Never.
    Never,
    /// Always: a device that does not offer it is refused.
    Always,
}

/// Which ring features are used (VIRTIO 1.3, 6). The default is all that the device offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RingOptions {
    /// Packed rings (RING_PACKED), rather than split ones.
    pub packed: Use,
    /// Requests in tables outside the ring (INDIRECT_DESC). Without it a queue holds a third as
    /// many.
    pub indirect: Use,
    /// Notifications by index (EVENT_IDX).
    pub event_idx: Use,
    /// Requests returned in order, several at once (IN_ORDER).
    pub in_order: Use,
    /// Notifications that carry the ring's position (NOTIFICATION_DATA).
    pub notification_data: Use,
    /// Notifications that carry a value which the device chose (NOTIF_CONFIG_DATA).
    pub notif_config_data: Use,
    /// Memory accesses ordered as the platform's devices need it (ORDER_PLATFORM). The driver
    /// orders them so in any case.
    pub order_platform: Use,
}

/// A ring feature, its key in device strings, and how QEMU's command line calls it.
struct RingFeature {
    feature: Features,
    key: &'static str,
    qemu: &'static str,
}

const OPTIONS: [RingFeature; 7] = [
    RingFeature {
        feature: Features::RING_PACKED,
        key: "ring",
        qemu: "packed=on",
    },
    RingFeature {
        feature: Features::INDIRECT_DESC,
        key: "indirect",
        qemu: "indirect_desc=on",
    },
    RingFeature {
        feature: Features::EVENT_IDX,
        key: "event-idx",
        qemu: "event_idx=on",
    },
    RingFeature {
        feature: Features::IN_ORDER,
        key: "in-order",
        qemu: "in_order=on",
    },
    RingFeature {
        feature: Features::NOTIFICATION_DATA,
        key: "notification-data",
        qemu: "notification-data=on",
    },
    RingFeature {
        feature: Features::NOTIF_CONFIG_DATA,
        key: "notif-config-data",
        qemu: "",
    },
    RingFeature {
        feature: Features::ORDER_PLATFORM,
        key: "order-platform",
        qemu: "",
    },
];

impl RingOptions {
    fn values(&self) -> [Use; 7] {
        [
            self.packed,
            self.indirect,
            self.event_idx,
            self.in_order,
            self.notification_data,
            self.notif_config_data,
            self.order_platform,
        ]
    }

    fn value_mut(&mut self, key: &str) -> Option<&mut Use> {
        Some(match key {
            "ring" => &mut self.packed,
            "indirect" => &mut self.indirect,
            "event-idx" => &mut self.event_idx,
            "in-order" => &mut self.in_order,
            "notification-data" => &mut self.notification_data,
            "notif-config-data" => &mut self.notif_config_data,
            "order-platform" => &mut self.order_platform,
            _ => return None,
        })
    }

    /// Sets what `key=value` of a device string says; false if there is no such key.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let Some(target) = self.value_mut(key) else {
            return Ok(false);
        };
        let words = match key {
            "ring" => ["packed", "split"],
            _ => ["on", "off"],
        };
        *target = if value == words[0] {
            Use::Always
        } else if value == words[1] {
            Use::Never
        } else {
            return Err(Error::new(
                ErrorKind::InvalidSpec,
                format!("{key}={value}: it is {} or {}", words[0], words[1]),
            ));
        };
        Ok(true)
    }

    /// What of `other` says something, else what this says.
    pub(crate) fn overridden_by(&self, other: &Self) -> Self {
        let choose = |mine: Use, other: Use| match other {
            Use::WhereOffered => mine,
            _ => other,
        };
        Self {
            packed: choose(self.packed, other.packed),
            indirect: choose(self.indirect, other.indirect),
            event_idx: choose(self.event_idx, other.event_idx),
            in_order: choose(self.in_order, other.in_order),
            notification_data: choose(self.notification_data, other.notification_data),
            notif_config_data: choose(self.notif_config_data, other.notif_config_data),
            order_platform: choose(self.order_platform, other.order_platform),
        }
    }

    /// Which of the ring features that device `name` offers are accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if one is not offered that is [always](Use::Always) used.
    pub fn accepted(&self, name: &str, offered: Features) -> Result<Features> {
        let mut accepted = Features::NONE;
        for (option, wanted) in OPTIONS.iter().zip(self.values()) {
            let is_offered = offered.contains(option.feature);
            if wanted == Use::Always && !is_offered {
                let remedy = match option.qemu {
                    "" => String::new(),
                    qemu => format!(" (QEMU: {qemu})"),
                };
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{name}: the device does not offer {:?}, which was asked for; have it offered{remedy} or do without",
                        option.feature
                    ),
                ));
            }
            if wanted != Use::Never && is_offered {
                accepted = accepted | option.feature;
            }
        }
        Ok(accepted)
    }
}

impl fmt::Display for RingOptions {
    /// As in a device string: `,key=value` for what is not the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (option, value) in OPTIONS.iter().zip(self.values()) {
            let word = match (option.key, value) {
                (_, Use::WhereOffered) => continue,
                ("ring", Use::Always) => "packed",
                ("ring", Use::Never) => "split",
                (_, Use::Always) => "on",
                (_, Use::Never) => "off",
            };
            write!(f, ",{}={word}", option.key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = ",ring=split,indirect=off,event-idx=on,in-order=off,notification-data=on,notif-config-data=off,order-platform=on";

    fn parsed(text: &str) -> RingOptions {
        let mut options = RingOptions::default();
        for (key, value) in text.split(',').filter_map(|part| part.split_once('=')) {
            assert!(options.set(key, value).unwrap(), "{key}");
        }
        options
    }

    #[test]
    fn what_is_read_is_written() {
        assert_eq!(parsed(ALL).to_string(), ALL);
        assert_eq!(parsed("").to_string(), "");
        assert!(!RingOptions::default().set("rings", "split").unwrap());
        assert!(RingOptions::default().set("ring", "on").is_err());
    }

    #[test]
    fn only_what_is_offered_and_wanted_is_accepted() {
        let offered = Features::RING_PACKED | Features::INDIRECT_DESC | Features::EVENT_IDX;
        let accepted = |text| parsed(text).accepted("x", offered);
        assert_eq!(accepted("").unwrap(), offered);
        assert_eq!(
            accepted("ring=split,event-idx=on").unwrap(),
            offered - Features::RING_PACKED
        );
        let error = accepted("in-order=on").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("in_order=on"), "{error}");
    }

    #[test]
    fn the_device_string_wins_where_it_says_something() {
        let options = parsed("ring=packed,indirect=off");
        let both = options.overridden_by(&parsed("ring=split,in-order=off"));
        assert_eq!(both, parsed("ring=split,indirect=off,in-order=off"));
    }
}
