//! The option part of the device string that stands for a configuration.

use std::{fmt, time::Duration};

use super::{EmulatedConfig, RingFormat, StoreKind, Switch, ZoneModel};

impl fmt::Display for EmulatedConfig {
    /// Writes what differs from the default; it parses back into the same configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut options = Vec::new();
        let mut option = |differs: bool, key: &str, value: String| {
            if differs {
                options.push(format!("{key}={value}"));
            }
        };
        match self.size_bytes {
            Some(size) => option(true, "size", size_text(size)),
            None => option(
                self.zones.is_some(),
                "zones",
                self.zones.unwrap_or_default().to_string(),
            ),
        }
        for (key, bytes) in [
            ("zone-size", self.zone_size_bytes),
            ("zone-cap", self.zone_capacity_bytes),
            ("max-append", self.max_append_bytes),
            ("block-size", self.block_size_bytes.map(u64::from)),
        ] {
            if let Some(bytes) = bytes {
                option(true, key, size_text(bytes));
            }
        }
        for (key, value, default) in [
            ("queues", self.queues, usual.queues),
            ("queue-size", self.queue_size, usual.queue_size),
        ] {
            option(value != default, key, value.to_string());
        }
        if let Some(model) = self.model {
            option(true, "model", model.key().to_owned());
        }
        option(self.ring == RingFormat::Packed, "ring", "packed".to_owned());
        for (key, switch, default) in [
            ("indirect", self.indirect, usual.indirect),
            ("event-idx", self.event_idx, usual.event_idx),
            ("in-order", self.in_order, usual.in_order),
            (
                "notification-data",
                self.notification_data,
                usual.notification_data,
            ),
            (
                "notif-config-data",
                self.notif_config_data,
                usual.notif_config_data,
            ),
            ("order-platform", self.order_platform, usual.order_platform),
            ("flush", self.flush, usual.flush),
            ("write-zeroes", self.write_zeroes, usual.write_zeroes),
            ("lifetime", self.lifetime, usual.lifetime),
            ("readonly", self.readonly, usual.readonly),
        ] {
            option(switch != default, key, switch.key().to_owned());
        }
        for (key, switch) in [
            ("discard", self.discard),
            ("secure-erase", self.secure_erase),
        ] {
            if let Some(switch) = switch {
                option(true, key, switch.key().to_owned());
            }
        }
        for (key, limit) in [
            ("conventional", self.conventional_zones),
            ("max-open", self.max_open_zones),
            ("max-active", self.max_active_zones),
            ("vectors", self.vectors.map(u32::from)),
            ("size-max", self.size_max),
            ("seg-max", self.seg_max),
        ] {
            let text = limit.unwrap_or_default().to_string();
            option(limit.is_some(), key, text);
        }
        if let Some(serial) = &self.serial {
            option(true, "serial", serial.clone());
        }
        match &self.store {
            StoreKind::Memory => {}
            StoreKind::Null => option(true, "store", "null".to_owned()),
            StoreKind::File(path) => option(true, "store", path.display().to_string()),
        }
        if let Some(bytes) = self.cache_bytes {
            option(true, "cache", size_text(bytes));
        }
        let latency = humantime::format_duration(self.latency).to_string();
        option(self.latency != Duration::ZERO, "latency", latency);
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        option(!faults.is_empty(), "fault", faults.join("+"));
        let quirks: Vec<String> = self.quirks.iter().map(ToString::to_string).collect();
        option(!quirks.is_empty(), "quirks", quirks.join("+"));
        f.write_str(&options.join(","))
    }
}

/// A size in the largest unit of which it is a multiple.
fn size_text(bytes: u64) -> String {
    [(30, "g"), (20, "m"), (10, "k")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(
            || bytes.to_string(),
            |(shift, unit)| format!("{}{unit}", bytes >> shift),
        )
}

impl ZoneModel {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::HostManaged => "hm",
            Self::HostAware => "ha",
            Self::None => "none",
        }
    }
}

impl Switch {
    fn key(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}
