//! What a record looks like on the device: a header, the payload, zeroes up to a whole granule.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64, U128},
};

use crate::{Error, ErrorKind, Result};

/// The first bytes of each record.
const MAGIC: [u8; 8] = *b"zbd log\0";
/// The layout below.
const VERSION: u16 = 1;

/// The header as it is stored. The module's documentation of [`crate::log`] says what the fields
/// mean.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Stored {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    reserved: u8,
    len: U32,
    identity: U128,
    epoch: U64,
    start: U64,
    previous: U64,
    id: U64,
    base: U64,
    durable: U64,
    payload_crc: U32,
    header_crc: U32,
}

/// The length of a header in bytes.
pub(super) const HEADER_LEN: usize = size_of::<Stored>();
const _: () = assert!(HEADER_LEN == 88);

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Carries a payload of the user, under an id.
    Data,
    /// Says what its header says, for the epoch and the trim point. Its id is the next record's.
    Mark,
    /// Ends a zone that is finished before it is full. What can be read behind it was not written
    /// since the zone's reset, or lost in a crash.
    Seal,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) len: u32,
    pub(super) identity: u128,
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) previous: u64,
    pub(super) id: u64,
    pub(super) base: u64,
    pub(super) durable: u64,
    pub(super) payload_crc: u32,
}

impl Header {
    /// The bytes to store.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut stored = Stored {
            magic: MAGIC,
            version: VERSION.into(),
            kind: match self.kind {
                Kind::Data => 1,
                Kind::Mark => 2,
                Kind::Seal => 3,
            },
            reserved: 0,
            len: self.len.into(),
            identity: self.identity.into(),
            epoch: self.epoch.into(),
            start: self.start.into(),
            previous: self.previous.into(),
            id: self.id.into(),
            base: self.base.into(),
            durable: self.durable.into(),
            payload_crc: self.payload_crc.into(),
            header_crc: U32::ZERO,
        };
        stored.header_crc = stored.checksum().into();
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(stored.as_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if there is an undamaged one.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: there is one, of a layout that is not known here.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let Ok((stored, _)) = Stored::read_from_prefix(bytes) else {
            return Ok(None);
        };
        if stored.magic != MAGIC || stored.header_crc.get() != stored.checksum() {
            return Ok(None);
        }
        let kind = match (stored.version.get(), stored.kind) {
            (VERSION, 1) => Kind::Data,
            (VERSION, 2) => Kind::Mark,
            (VERSION, 3) => Kind::Seal,
            (version, kind) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "a record of the log has layout {version} and kind {kind}, this version knows layout {VERSION} and kinds 1 to 3; use the version that wrote it"
                    ),
                ));
            }
        };
        Ok(Some(Self {
            kind,
            len: stored.len.get(),
            identity: stored.identity.get(),
            epoch: stored.epoch.get(),
            start: stored.start.get(),
            previous: stored.previous.get(),
            id: stored.id.get(),
            base: stored.base.get(),
            durable: stored.durable.get(),
            payload_crc: stored.payload_crc.get(),
        }))
    }
}

impl Stored {
    /// Over all fields before it.
    fn checksum(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32c::crc32c(&bytes[..HEADER_LEN - size_of::<U32>()])
    }
}

/// How many granules a record with a payload of `len_bytes` takes.
pub(super) fn granules(len_bytes: usize, granule: usize) -> u64 {
    (len_bytes.saturating_add(HEADER_LEN)).div_ceil(granule) as u64
}
