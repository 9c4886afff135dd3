//! What a device string says of faults: `kind@N` or `kind@every:N`, joined by `+`.

use std::{fmt, num::NonZeroU64, str::FromStr};

use vfio_virtio::{Error, ErrorKind, Result};

/// What the device does wrong with data, without a word.
///
/// What counts as a write is a write or an append that succeeds and moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataFaultKind {
    /// `flip-bit`: of what a write stores, one bit is wrong.
    FlipBit,
    /// `swap-sectors`: of what a write stores, the first sector and the last change places. Writes
    /// of one sector do not count.
    SwapSectors,
    /// `lose-data`: a write stores nothing, and everything else is as if it had.
    LoseData,
    /// `lose-append`: an append is answered as if it had been carried out, and nothing more: the
    /// write pointer stays where it was, so that the next append is put in the same place.
    LoseAppend,
    /// `repeat-append`: an append is carried out twice, and the second place is reported. Appends
    /// do not count that find no room for a second.
    RepeatAppend,
    /// `misreport`: an append lands where it should and reports the block before that. Appends to
    /// the start of a zone do not count.
    Misreport,
}

/// Which of those that count are done wrong. They are counted from when the device is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// `@N`: only the one with this number.
    Once(NonZeroU64),
    /// `@every:N`: each whose number is a multiple of this.
    Every(NonZeroU64),
}

/// A fault that a device string asks for, such as `flip-bit@100` or `lose-append@every:1000`.
///
/// Where several are due for one write, it gets the one that is named first; the others wait for
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFault {
    /// What is done wrong.
    pub kind: DataFaultKind,
    /// With which of the writes or appends.
    pub when: Recurrence,
}

impl DataFaultKind {
    const ALL: [Self; 6] = [
        Self::FlipBit,
        Self::SwapSectors,
        Self::LoseData,
        Self::LoseAppend,
        Self::RepeatAppend,
        Self::Misreport,
    ];

    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::FlipBit => "flip-bit",
            Self::SwapSectors => "swap-sectors",
            Self::LoseData => "lose-data",
            Self::LoseAppend => "lose-append",
            Self::RepeatAppend => "repeat-append",
            Self::Misreport => "misreport",
        }
    }

    /// Whether only appends can be done wrong in this way.
    pub(crate) const fn is_of_appends(self) -> bool {
        matches!(
            self,
            Self::LoseAppend | Self::RepeatAppend | Self::Misreport
        )
    }
}

impl FromStr for DataFault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            let kinds = DataFaultKind::ALL.map(DataFaultKind::key).join(", ");
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "fault={text} is not allowed: give KIND@N for the Nth, or KIND@every:N, with \
                     one of the kinds {kinds}; several are joined by +"
                ),
            )
        };
        let (kind, when) = text.split_once('@').ok_or_else(malformed)?;
        let kind = DataFaultKind::ALL
            .into_iter()
            .find(|known| known.key() == kind)
            .ok_or_else(malformed)?;
        let when = match when.strip_prefix("every:") {
            Some(number) => number.parse().map(Recurrence::Every),
            None => when.parse().map(Recurrence::Once),
        };
        Ok(Self {
            kind,
            when: when.map_err(|_| malformed())?,
        })
    }
}

impl fmt::Display for DataFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            Recurrence::Once(number) => write!(f, "{}@{number}", self.kind.key()),
            Recurrence::Every(number) => write!(f, "{}@every:{number}", self.kind.key()),
        }
    }
}
