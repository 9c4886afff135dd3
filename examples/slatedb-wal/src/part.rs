//! What a record of the log holds: a log file of SlateDB, or a part of one that is longer than a
//! record can be.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | 1 if a file begins here, 2 if one ends here; both are added |
//! | 6 | 0 |
//! | 8 | the epoch of SlateDB's writer, little-endian |
//! | | [rows](crate::rows), or those bytes of them that belong to this part |
//!
//! Id, length and checksum are those of the record. A file's id is that of its last record.

use bytes::{Buf as _, BufMut as _, Bytes};
use slatedb::wal::WalError;

use crate::error::data_error;

/// The length of what comes before the rows.
pub(crate) const HEADER_LEN: usize = 16;

const VERSION: u8 = 1;
const BEGINS: u8 = 1;
const ENDS: u8 = 2;

/// A record's payload, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// Of the writer.
    pub(crate) epoch: u64,
    pub(crate) begins: bool,
    pub(crate) ends: bool,
    pub(crate) rows: Bytes,
}

/// A record's payload.
pub(crate) fn encode(epoch: u64, begins: bool, ends: bool, rows: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(HEADER_LEN + rows.len());
    payload.put_u8(VERSION);
    payload.put_u8(if begins { BEGINS } else { 0 } | if ends { ENDS } else { 0 });
    payload.put_bytes(0, 6);
    payload.put_u64_le(epoch);
    payload.put_slice(rows);
    payload
}

impl Part {
    /// # Errors
    /// If `payload` was not made by [`encode`].
    pub(crate) fn decode(id: u64, mut payload: Bytes) -> Result<Self, WalError> {
        let foreign = || {
            data_error(format!(
                "record {id} is none of SlateDB's: the zones hold the log of something else; \
                 give SlateDB others, or reset these if nothing in them is wanted"
            ))
        };
        if payload.len() < HEADER_LEN || payload[2..8] != [0; 6] {
            return Err(foreign());
        }
        let (version, flags) = (payload.get_u8(), payload.get_u8());
        payload.advance(6);
        let epoch = payload.get_u64_le();
        if version != VERSION || flags & !(BEGINS | ENDS) != 0 {
            return Err(foreign());
        }
        Ok(Self {
            epoch,
            begins: flags & BEGINS != 0,
            ends: flags & ENDS != 0,
            rows: payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_comes_back() {
        for (begins, ends) in [(false, false), (false, true), (true, false), (true, true)] {
            let part = Part {
                epoch: 1 << 40,
                begins,
                ends,
                rows: Bytes::from_static(b"rows"),
            };
            let payload = encode(part.epoch, begins, ends, &part.rows);
            assert_eq!(Part::decode(1, payload.into()).unwrap(), part);
        }
    }

    #[test]
    fn what_is_no_part_is_refused() {
        let part = encode(3, true, true, b"");
        assert!(Part::decode(1, Bytes::copy_from_slice(&part[..15])).is_err());
        for at in [0, 1, 2, 7] {
            let mut other = part.clone();
            other[at] |= 4;
            let error = Part::decode(8, other.into()).unwrap_err();
            assert!(error.to_string().contains("record 8"), "{error}");
        }
    }
}
