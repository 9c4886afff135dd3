//! Where a function keeps its MSI-X table.

use std::ops::Range;

const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES_POINTER: u16 = 0x34;
const FIRST_CAPABILITY: u16 = 0x40;
const CAPABILITY_MSIX: u8 = 0x11;
const ENTRY_LEN: u64 = 16;
/// A capability takes at least 4 of the 192 bytes that there are; more steps are a loop.
const MOST_CAPABILITIES: usize = 48;

/// The BAR of the MSI-X table and its place there, if there is one.
pub(super) fn table<E>(
    read_config: impl Fn(u16, &mut [u8]) -> Result<(), E>,
) -> Result<Option<(u8, Range<u64>)>, E> {
    let read_u16 = |at| {
        let mut word = [0; 2];
        read_config(at, &mut word).map(|()| u16::from_le_bytes(word))
    };
    if read_u16(STATUS)? & STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut at = read_u16(CAPABILITIES_POINTER)? & 0xfc;
    for _ in 0..MOST_CAPABILITIES {
        if at < FIRST_CAPABILITY {
            break;
        }
        let [id, next] = read_u16(at)?.to_le_bytes();
        if id == CAPABILITY_MSIX {
            let entries = u64::from(read_u16(at + 2)? & 0x7ff) + 1;
            let mut place = [0; 4];
            read_config(at + 4, &mut place)?;
            let place = u32::from_le_bytes(place);
            let offset = u64::from(place & !7);
            return Ok(Some((
                (place & 7) as u8,
                offset..offset + entries * ENTRY_LEN,
            )));
        }
        at = u16::from(next & 0xfc);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &[u8; 256]) -> Option<(u8, Range<u64>)> {
        table(|at, data: &mut [u8]| {
            let at = usize::from(at);
            data.copy_from_slice(config.get(at..at + data.len()).ok_or(())?);
            Ok::<_, ()>(())
        })
        .unwrap()
    }

    fn config() -> [u8; 256] {
        let mut config = [0; 256];
        config[0x06] = 0x10;
        config[0x34] = 0x40;
        config[0x40..0x42].copy_from_slice(&[0x09, 0x98]);
        config[0x98..0xa0].copy_from_slice(&[0x11, 0, 0x02, 0x80, 0x01, 0x20, 0, 0]);
        config
    }

    #[test]
    fn the_table_is_found_behind_other_capabilities() {
        assert_eq!(find(&config()), Some((1, 0x2000..0x2030)));
    }

    #[test]
    fn no_capabilities_no_table() {
        let mut none = config();
        none[0x06] = 0;
        assert_eq!(find(&none), None);
        let mut other = config();
        other[0x41] = 0;
        assert_eq!(find(&other), None);
    }

    #[test]
    fn a_list_without_end_ends() {
        let mut looped = config();
        looped[0x41] = 0x40;
        assert_eq!(find(&looped), None);
    }

    #[test]
    fn a_function_that_has_gone_has_no_table() {
        // All ones: the pointer leads to 0xfc and from there to itself.
        assert_eq!(find(&[0xff; 256]), None);
    }
}
