//! The option part of a device string, `key=value,key=value`.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use vfio_virtio::{Error, ErrorKind, Result};

use super::{EmulatedConfig, RingFormat, StoreKind, Switch, ZoneModel};

/// Every key, for messages.
const KEYS: &str = "zones, size, zone-size, zone-cap, conventional, max-open, max-active, \
                    max-append, block-size, model, queues, queue-size, ring, indirect, event-idx, \
                    in-order, notification-data, notif-config-data, order-platform, \
                    vectors, serial, flush, discard, write-zeroes, secure-erase, lifetime, \
                    readonly, size-max, seg-max, store, cache, latency, fault, quirks";

impl FromStr for EmulatedConfig {
    type Err = Error;

    /// Parses `key=value` pairs separated by commas; what is not named keeps its default.
    fn from_str(options: &str) -> Result<Self> {
        let mut config = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                invalid(format!(
                    "'{option}' is no option of the emulated device: options are key=value, with \
                     the keys {KEYS}"
                ))
            })?;
            if seen.contains(&key) {
                return Err(invalid(format!("{key} is given twice")));
            }
            seen.push(key);
            config.set(key, value)?;
        }
        if seen.contains(&"zones") && seen.contains(&"size") {
            return Err(invalid(
                "zones and size are both given: give one, the other follows from zone-size",
            ));
        }
        // Inconsistent geometry is refused here already, where the string is still at hand. What a
        // file is to hold is known once it is opened.
        if !matches!(config.store, StoreKind::File(_)) {
            super::Resolved::new(&config)?;
        }
        Ok(config)
    }
}

impl EmulatedConfig {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "zones" => self.zones = Some(number(key, value, 1..=u32::MAX)?),
            "size" => self.size_bytes = Some(bytes(key, value)?),
            "zone-size" => self.zone_size_bytes = Some(bytes(key, value)?),
            "zone-cap" => self.zone_capacity_bytes = Some(bytes(key, value)?),
            "conventional" => self.conventional_zones = Some(number(key, value, 0..=u32::MAX)?),
            "max-open" => self.max_open_zones = Some(number(key, value, 0..=u32::MAX)?),
            "max-active" => self.max_active_zones = Some(number(key, value, 0..=u32::MAX)?),
            "max-append" => self.max_append_bytes = Some(bytes(key, value)?),
            "block-size" => {
                self.block_size_bytes = Some(
                    u32::try_from(bytes(key, value)?)
                        .map_err(|_| malformed(key, value, "a power of two from 512 to 64k"))?,
                );
            }
            "model" => {
                self.model = match value {
                    "hm" => Some(ZoneModel::HostManaged),
                    "ha" => Some(ZoneModel::HostAware),
                    "none" => Some(ZoneModel::None),
                    _ => {
                        return Err(malformed(
                            key,
                            value,
                            "hm (host-managed), ha (host-aware) or none (an ordinary disk)",
                        ));
                    }
                }
            }
            "queues" => self.queues = number(key, value, 1..=64)?,
            "queue-size" => self.queue_size = number(key, value, 4..=32768)?,
            "ring" => {
                self.ring = match value {
                    "split" => RingFormat::Split,
                    "packed" => RingFormat::Packed,
                    _ => return Err(malformed(key, value, "split or packed")),
                }
            }
            "indirect" => self.indirect = switch(key, value)?,
            "event-idx" => self.event_idx = switch(key, value)?,
            "in-order" => self.in_order = switch(key, value)?,
            "notification-data" => self.notification_data = switch(key, value)?,
            "notif-config-data" => self.notif_config_data = switch(key, value)?,
            "order-platform" => self.order_platform = switch(key, value)?,
            "vectors" => self.vectors = Some(number(key, value, 0..=128)?),
            "serial" => self.serial = Some(value.to_owned()),
            "flush" => self.flush = switch(key, value)?,
            "discard" => self.discard = Some(switch(key, value)?),
            "write-zeroes" => self.write_zeroes = switch(key, value)?,
            "secure-erase" => self.secure_erase = Some(switch(key, value)?),
            "lifetime" => self.lifetime = switch(key, value)?,
            "readonly" => self.readonly = switch(key, value)?,
            "size-max" => {
                self.size_max = Some(
                    u32::try_from(bytes(key, value)?)
                        .map_err(|_| malformed(key, value, "a size below 4g"))?,
                );
            }
            "seg-max" => self.seg_max = Some(number(key, value, 1..=u32::MAX)?),
            "store" => {
                self.store = match value {
                    "mem" => StoreKind::Memory,
                    "null" => StoreKind::Null,
                    path if path.contains('/') => StoreKind::File(path.into()),
                    _ => {
                        return Err(malformed(
                            key,
                            value,
                            "mem, null or the path of a file, with a / in it and no comma",
                        ));
                    }
                }
            }
            "cache" => self.cache_bytes = Some(bytes(key, value)?),
            "latency" => self.latency = duration(key, value)?,
            "quirks" => self.quirks = value.split('+').map(str::parse).collect::<Result<_>>()?,
            "fault" => self.faults = value.split('+').map(str::parse).collect::<Result<_>>()?,
            _ => {
                return Err(invalid(format!(
                    "the emulated device has no option '{key}' (in '{key}={value}'); it has {KEYS}"
                )));
            }
        }
        Ok(())
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn malformed(key: &str, value: &str, allowed: &str) -> Error {
    invalid(format!("{key}={value} is not allowed: give {allowed}"))
}

fn number<T>(key: &str, value: &str, allowed: RangeInclusive<T>) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    value
        .parse()
        .ok()
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            malformed(key, value, &format!("a number from {least} to {most}"))
        })
}

fn bytes(key: &str, value: &str) -> Result<u64> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(value)
        .map_err(|e| {
            malformed(key, value, "a size in bytes such as 4096, 512k, 64m or 1g").with_source(e)
        })
}

fn duration(key: &str, value: &str) -> Result<Duration> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(value)
        .map_err(|e| malformed(key, value, "a time such as 10us or 2ms").with_source(e))
}

fn switch(key: &str, value: &str) -> Result<Switch> {
    match value {
        "on" => Ok(Switch::On),
        "off" => Ok(Switch::Off),
        _ => Err(malformed(key, value, "on or off")),
    }
}
