//! Requests and their completions, as an [`IoQueue`](crate::IoQueue) takes and returns them.

use vfio_virtio::DmaBuffer;

use crate::{Error, Result, Sector, SectorCount, ZoneId};

/// A request. It owns its buffer; refused, it comes back whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Reads the whole buffer from `at` on.
    Read {
        /// The first sector.
        at: Sector,
        /// Where the data go.
        buffer: DmaBuffer,
    },
    /// Writes the whole buffer from `at` on.
    Write {
        /// The first sector; in a sequential zone its write pointer.
        at: Sector,
        /// The data.
        buffer: DmaBuffer,
    },
    /// Writes the whole buffer to `zone` at a place that the device chooses.
    Append {
        /// The zone.
        zone: ZoneId,
        /// The data.
        buffer: DmaBuffer,
    },
    /// Makes all that was completed before durable.
    Flush,
    /// Reports zones from the one that contains `from` on, as many as the buffer holds. The
    /// completed buffer is read with [`ZonedInfo::parse_report`](crate::ZonedInfo::parse_report).
    Report {
        /// A sector of the first zone.
        from: Sector,
        /// Where the report goes: 64 bytes and 64 for each zone.
        buffer: DmaBuffer,
    },
    /// Changes the state of one zone.
    Manage {
        /// The change.
        action: ZoneAction,
        /// The zone.
        zone: ZoneId,
    },
    /// Resets all sequential zones.
    ResetAll,
    /// Tells the device that the data of a range are no longer needed. What is read from there
    /// afterwards is undefined.
    ///
    /// This request, [`WriteZeroes`](Self::WriteZeroes) and [`SecureErase`](Self::SecureErase) take
    /// a page of DMA memory until they end, to tell the device the range.
    Discard {
        /// The first sector.
        at: Sector,
        /// How many.
        len: SectorCount,
    },
    /// Lets a range read as zeroes, without data to be sent. As a write, it needs a flush to be
    /// durable. Whether sequential zones take it is up to the device.
    WriteZeroes {
        /// The first sector.
        at: Sector,
        /// How many.
        len: SectorCount,
        /// Whether the device may give the space back.
        unmap: Unmap,
    },
    /// Erases a range beyond recovery, and copies of it that the device may have made. Zones are
    /// reset by it (VIRTIO 1.3, 5.2.6.2).
    SecureErase {
        /// The first sector.
        at: Sector,
        /// How many.
        len: SectorCount,
    },
    /// Asks for the device's ID string, mostly a serial number. The completed buffer is read with
    /// [`parse_id`](crate::parse_id).
    GetId {
        /// Where the string goes: [`ID_LEN`](Self::ID_LEN) bytes, which are set to 0 first.
        buffer: DmaBuffer,
    },
    /// Asks how worn the device is. The completed buffer is read with
    /// [`Lifetime::parse`](crate::Lifetime::parse).
    GetLifetime {
        /// Where the answer goes: [`LIFETIME_LEN`](Self::LIFETIME_LEN) bytes, which are set to 0
        /// first.
        buffer: DmaBuffer,
    },
}

impl Request {
    /// The length in bytes of the buffer of [`GetId`](Self::GetId).
    pub const ID_LEN: usize = 20;
    /// The length in bytes of the buffer of [`GetLifetime`](Self::GetLifetime).
    pub const LIFETIME_LEN: usize = 6;

    /// The buffer, if the request has one.
    pub fn into_buffer(self) -> Option<DmaBuffer> {
        match self {
            Self::Read { buffer, .. }
            | Self::Write { buffer, .. }
            | Self::Append { buffer, .. }
            | Self::Report { buffer, .. }
            | Self::GetId { buffer }
            | Self::GetLifetime { buffer } => Some(buffer),
            Self::Flush
            | Self::Manage { .. }
            | Self::ResetAll
            | Self::Discard { .. }
            | Self::WriteZeroes { .. }
            | Self::SecureErase { .. } => None,
        }
    }
}

/// A change of one zone's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneAction {
    /// To explicitly open.
    Open,
    /// From open to closed, or to empty if nothing was written.
    Close,
    /// To full, whatever was written.
    Finish,
    /// To empty; the data are gone.
    Reset,
}

/// What a device may do with the space of a range that it sets to zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmap {
    /// Keep it: later writes to the range do not run out of space.
    Keep,
    /// Give it back, as after a discard. What is read are zeroes all the same.
    Allow,
}

/// A request that was not accepted, handed back. The device has not seen it.
#[derive(Debug)]
pub struct Rejected {
    /// Why.
    pub error: Error,
    /// The request as it came in.
    pub request: Request,
}

impl From<Rejected> for Error {
    /// Keeps the buffer, drops the rest of the request.
    fn from(rejected: Rejected) -> Self {
        rejected.error.with_buffer(rejected.request.into_buffer())
    }
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// The token under which it was submitted.
    pub token: u64,
    /// For a read, a write or an append where its data begin, which for an append is where the
    /// device put them. For other requests the sector that they named, or 0.
    pub result: Result<Sector>,
    /// The buffer. Missing if the request had none, and where the device may still be using it.
    pub buffer: Option<DmaBuffer>,
}
