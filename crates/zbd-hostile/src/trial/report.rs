//! Reports of zones, ID strings and lifetimes, read from memory that has anything in it.

use std::sync::{Arc, OnceLock};

use zbd_core::{
    Backend, DeviceInfo, DmaArena, ErrorKind, IoQueue, Lifetime, OpenOptions, Request, ZoneId,
    ZonedInfo, parse_id,
};

use super::function::check_zone;
use crate::{HostileFunction, Lies, Script};

/// An honest device, for its grid of zones and its memory: 4 zones of 64 sectors.
fn honest() -> (&'static ZonedInfo, &'static DmaArena) {
    static DEVICE: OnceLock<(Arc<DeviceInfo>, DmaArena)> = OnceLock::new();
    let (info, arena) = DEVICE.get_or_init(|| {
        let function = HostileFunction::new(&Script::new(&[]), Lies::Nowhere);
        let options = OpenOptions {
            memory_len: 2 << 20,
            ..OpenOptions::default()
        };
        let queue: Option<IoQueue> = options
            .open_function(Arc::new(function), Backend::Emulated, "honest".into())
            .expect("it is honest")
            .pop();
        let queue = queue.expect("one was asked for");
        (Arc::clone(queue.info()), queue.memory().clone())
    });
    (info.zoned().expect("it has zones"), arena)
}

/// Reads `bytes`, after a first one for the zone, as the answers of a device.
pub fn report(bytes: &[u8]) {
    let (zoned, arena) = honest();
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    if bytes.is_empty() {
        return;
    }
    let first = match first {
        0xff => ZoneId(u32::MAX),
        n => ZoneId(u32::from(*n % 6)),
    };
    let mut buffer = arena.allocate(bytes.len()).expect("there is room");
    buffer.copy_from_slice(bytes);
    match zoned.parse_report(first, &buffer) {
        Ok(zones) => {
            let count = u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
            assert_eq!(zones.len() as u64, count);
            for (i, (zone, id)) in zones.iter().zip(first.0..).enumerate() {
                let id = ZoneId(id);
                assert!(id.0 < zoned.zone_count);
                check_zone(zone, id, zoned.start(id), zoned.zone_size);
                let word = |at: usize| {
                    let at = 64 + 64 * i + at;
                    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
                };
                assert_eq!((zone.capacity.0, zone.start.0), (word(0), word(8)));
            }
        }
        Err(error) => match error.kind() {
            ErrorKind::InvalidRequest => assert!(bytes.len() < 64),
            kind => assert_eq!(kind, ErrorKind::Protocol, "{error}"),
        },
    }
    let id = parse_id(&buffer);
    assert!(id.chars().count() <= Request::ID_LEN && !id.chars().any(char::is_control));
    let lifetime = Lifetime::parse(&buffer);
    assert_eq!(lifetime.is_ok(), bytes.len() >= Request::LIFETIME_LEN);
}
