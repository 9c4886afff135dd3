//! What a device string says of quirks: their names, joined by `+`.

use std::{fmt, str::FromStr};

use vfio_virtio::{Error, ErrorKind, Result};

/// A way in which the device deviates from the specification whenever there is occasion, for those
/// who want to see whether that is noticed. Those named after what QEMU 10.0 does are like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quirk {
    /// `append-overflow`: an append to a full zone goes to the next one, as QEMU's does.
    AppendOverflow,
    /// `append-spills`: an append that exceeds the capacity that its zone has left goes to the next
    /// zone.
    AppendSpills,
    /// `append-segments`: each segment of an append is to be aligned to 4096 bytes, as in QEMU where
    /// that is the physical block size, else the append is an invalid command.
    AppendSegments,
    /// `no-resource-status`: where zone resources are missing, a write is an I/O error, and everything
    /// else an invalid command, as in QEMU.
    NoResourceStatus,
    /// `write-io-error`: a write that a zone refuses is an I/O error, as in QEMU.
    WriteIoError,
    /// `append-invalid`: an append that a zone refuses for whatever reason is an invalid command, as
    /// in QEMU.
    AppendInvalid,
    /// `short-report-breaks`: a report without room for a zone breaks the device, as in QEMU.
    ShortReportBreaks,
    /// `short-append-breaks`: an append without room for its sector breaks the device, as in QEMU.
    ShortAppendBreaks,
    /// `used-length`: what a request that fails does not write is said to be written, as by QEMU.
    UsedLength,
    /// `zoned-optional`: a host-managed device runs without ZONED, as QEMU's does.
    ZonedOptional,
    /// `zoned-always`: zone requests are carried out whether ZONED was negotiated or not, as in QEMU.
    ZonedAlways,
    /// `id-unpadded`: the ID ends with one NUL, and what follows is left as it was, as in QEMU.
    IdUnpadded,
    /// `read-across`: a read may run through several zones, as in QEMU.
    ReadAcross,
    /// `close-opens`: a zone that is closed stays open.
    CloseOpens,
    /// `reset-keeps-data`: what a zone held before a reset can still be read.
    ResetKeepsData,
}

impl Quirk {
    pub(crate) const ALL: [Self; 15] = [
        Self::AppendOverflow,
        Self::AppendSpills,
        Self::AppendSegments,
        Self::NoResourceStatus,
        Self::WriteIoError,
        Self::AppendInvalid,
        Self::ShortReportBreaks,
        Self::ShortAppendBreaks,
        Self::UsedLength,
        Self::ZonedOptional,
        Self::ZonedAlways,
        Self::IdUnpadded,
        Self::ReadAcross,
        Self::CloseOpens,
        Self::ResetKeepsData,
    ];

    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::AppendOverflow => "append-overflow",
            Self::AppendSpills => "append-spills",
            Self::AppendSegments => "append-segments",
            Self::NoResourceStatus => "no-resource-status",
            Self::WriteIoError => "write-io-error",
            Self::AppendInvalid => "append-invalid",
            Self::ShortReportBreaks => "short-report-breaks",
            Self::ShortAppendBreaks => "short-append-breaks",
            Self::UsedLength => "used-length",
            Self::ZonedOptional => "zoned-optional",
            Self::ZonedAlways => "zoned-always",
            Self::IdUnpadded => "id-unpadded",
            Self::ReadAcross => "read-across",
            Self::CloseOpens => "close-opens",
            Self::ResetKeepsData => "reset-keeps-data",
        }
    }
}

impl FromStr for Quirk {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = |quirk: &Self| quirk.key() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            let names = Self::ALL.map(Self::key).join(", ");
            Error::new(
                ErrorKind::InvalidInput,
                format!("quirks={text} is not allowed: give some of {names}, joined by +"),
            )
        })
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}
