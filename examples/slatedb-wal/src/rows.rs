//! Rows as bytes.
//!
//! A row is a fixed part, then its key, then its value; all numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 0 value, 1 merge operand, 2 tombstone; 16 is added if it was created at a known time, 32 if it expires |
//! | 4, 4 | length of the key, of the value |
//! | 8 | sequence number |
//! | 0 or 8 | when it was created |
//! | 0 or 8 | when it expires |
//!
//! The checksum is that of the log's record.

use bytes::{Buf as _, BufMut as _, Bytes};
use slatedb::wal::WalError;
use slatedb::{RowEntry, ValueDeletable};

use crate::error::{data_error, internal_error};

const VALUE: u8 = 0;
const MERGE: u8 = 1;
const TOMBSTONE: u8 = 2;
const CREATED: u8 = 16;
const EXPIRES: u8 = 32;

/// Adds a row to `out`.
///
/// # Errors
/// If its key or its value is longer than 4 GiB, which SlateDB does not take anyway.
pub(crate) fn encode(row: &RowEntry, out: &mut Vec<u8>) -> Result<(), WalError> {
    let (kind, value): (u8, &[u8]) = match &row.value {
        ValueDeletable::Value(value) => (VALUE, value),
        ValueDeletable::Merge(value) => (MERGE, value),
        ValueDeletable::Tombstone => (TOMBSTONE, &[]),
    };
    let created = if row.create_ts.is_some() { CREATED } else { 0 };
    let expires = if row.expire_ts.is_some() { EXPIRES } else { 0 };
    let len = |bytes: &[u8]| {
        u32::try_from(bytes.len()).map_err(|_| {
            internal_error(format!(
                "a key or a value of {} bytes: split it",
                bytes.len()
            ))
        })
    };
    let (key_len, value_len) = (len(&row.key)?, len(value)?);
    out.put_u8(kind | created | expires);
    out.put_u32_le(key_len);
    out.put_u32_le(value_len);
    out.put_u64_le(row.seq);
    if let Some(created) = row.create_ts {
        out.put_i64_le(created);
    }
    if let Some(expires) = row.expire_ts {
        out.put_i64_le(expires);
    }
    out.put_slice(&row.key);
    out.put_slice(value);
    Ok(())
}

/// Reads all rows of `bytes`. They share its memory.
///
/// # Errors
/// If it is not rows from beginning to end.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Vec<RowEntry>, WalError> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let row = decode_one(&mut bytes);
        rows.push(row.ok_or_else(|| {
            data_error(format!(
                "row {} of a log file makes no sense: this log was written by something else",
                rows.len()
            ))
        })?);
    }
    Ok(rows)
}

fn decode_one(bytes: &mut Bytes) -> Option<RowEntry> {
    let kind = bytes.try_get_u8().ok()?;
    let key_len = bytes.try_get_u32_le().ok()? as usize;
    let value_len = bytes.try_get_u32_le().ok()? as usize;
    let seq = bytes.try_get_u64_le().ok()?;
    let mut time = |flag| match kind & flag {
        0 => Some(None),
        _ => Some(Some(bytes.try_get_i64_le().ok()?)),
    };
    let create_ts = time(CREATED)?;
    let expire_ts = time(EXPIRES)?;
    let mut take = |len| (len <= bytes.len()).then(|| bytes.split_to(len));
    let key = take(key_len)?;
    let value = take(value_len)?;
    let value = match kind & !(CREATED | EXPIRES) {
        VALUE => ValueDeletable::Value(value),
        MERGE => ValueDeletable::Merge(value),
        TOMBSTONE if value.is_empty() => ValueDeletable::Tombstone,
        _ => return None,
    };
    Some(RowEntry {
        key,
        value,
        seq,
        create_ts,
        expire_ts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<RowEntry> {
        let row = |key: &'static [u8], value, seq, create_ts, expire_ts| RowEntry {
            key: Bytes::from_static(key),
            value,
            seq,
            create_ts,
            expire_ts,
        };
        let bytes = Bytes::from_static;
        vec![
            row(b"a", ValueDeletable::Value(bytes(b"first")), 1, None, None),
            row(b"bb", ValueDeletable::Merge(bytes(b"")), 2, Some(-5), None),
            row(b"", ValueDeletable::Tombstone, u64::MAX, None, Some(9)),
            row(
                b"d",
                ValueDeletable::Value(bytes(b"d")),
                3,
                Some(i64::MIN),
                Some(1),
            ),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in &rows() {
            encode(row, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn rows_of_every_kind_come_back() {
        assert_eq!(decode(encoded().into()).unwrap(), rows());
    }

    #[test]
    fn rows_that_are_cut_short_are_refused() {
        let whole = encoded();
        let mut ends = vec![0];
        for row in &rows() {
            let mut one = Vec::new();
            encode(row, &mut one).unwrap();
            ends.push(ends[ends.len() - 1] + one.len());
        }
        for len in 0..whole.len() {
            let cut = decode(Bytes::copy_from_slice(&whole[..len]));
            assert_eq!(cut.is_ok(), ends.contains(&len), "{len} bytes");
        }
    }

    #[test]
    fn kinds_that_nobody_wrote_are_refused() {
        for kind in [3, 4, 64, 128, 255] {
            let mut bytes = encoded();
            bytes[0] = kind;
            assert!(decode(bytes.into()).is_err(), "{kind}");
        }
    }
}
