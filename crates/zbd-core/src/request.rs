//! Requests and their completions, as an [`IoQueue`](crate::IoQueue) takes and returns them.

use vfio_virtio::DmaBuffer;

use crate::{Error, Result, Sector, ZoneId};

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
}

impl Request {
    /// The buffer, if the request has one.
    pub fn into_buffer(self) -> Option<DmaBuffer> {
        match self {
            Self::Read { buffer, .. }
            | Self::Write { buffer, .. }
            | Self::Append { buffer, .. }
            | Self::Report { buffer, .. } => Some(buffer),
            Self::Flush | Self::Manage { .. } | Self::ResetAll => None,
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
