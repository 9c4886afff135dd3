//! What a device tells of itself on request: its ID string and how worn it is.

use std::fmt;

use vfio_virtio::DmaBuffer;

use crate::{Error, ErrorKind, Request, Result};

/// Reads the completed buffer of a [`Request::GetId`]: up to 20 bytes of ASCII, ended by a NUL only
/// where there is room for one (VIRTIO 1.3, 5.2.6). Whatever cannot be printed becomes `U+FFFD`, so
/// that no device writes to anybody's terminal what it likes.
pub fn parse_id(buffer: &DmaBuffer) -> String {
    let mut bytes = [0; Request::ID_LEN];
    let len = buffer.len().min(bytes.len());
    buffer.read_at(0, &mut bytes[..len]);
    bytes
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

/// How worn a device is (VIRTIO 1.3, 5.2.6, after JESD84-B50).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// How much of the reserved blocks has been consumed.
    pub pre_eol: PreEol,
    /// The wear of the SLC cells.
    pub type_a: Wear,
    /// The wear of the MLC cells.
    pub type_b: Wear,
}

/// How much of a device's reserved blocks has been consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PreEol {
    /// The device does not know.
    Undefined,
    /// Less than 80%.
    Normal,
    /// 80%.
    Warning,
    /// 90%.
    Urgent,
    /// A value that the specification reserves.
    Reserved(u16),
}

/// How much of its estimated life a part of a device has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wear {
    /// The device does not know.
    Undefined,
    /// At the most so many percent, in steps of ten.
    UpToPercent(u8),
    /// More than was estimated.
    Exceeded,
    /// A value that the specification reserves.
    Reserved(u16),
}

impl Lifetime {
    /// Reads the completed buffer of a [`Request::GetLifetime`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the buffer is shorter than that of such a request.
    pub fn parse(buffer: &DmaBuffer) -> Result<Self> {
        if buffer.len() < Request::LIFETIME_LEN {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "a lifetime has {} bytes, the buffer {}",
                    Request::LIFETIME_LEN,
                    buffer.len()
                ),
            ));
        }
        let field = |offset| {
            let mut bytes = [0; 2];
            buffer.read_at(offset, &mut bytes);
            u16::from_le_bytes(bytes)
        };
        Ok(Self {
            pre_eol: PreEol::from(field(0)),
            type_a: Wear::from(field(2)),
            type_b: Wear::from(field(4)),
        })
    }
}

impl From<u16> for PreEol {
    fn from(raw: u16) -> Self {
        match raw {
            0 => Self::Undefined,
            1 => Self::Normal,
            2 => Self::Warning,
            3 => Self::Urgent,
            _ => Self::Reserved(raw),
        }
    }
}

impl From<u16> for Wear {
    fn from(raw: u16) -> Self {
        match raw {
            0 => Self::Undefined,
            1..=10 => Self::UpToPercent(raw as u8 * 10),
            11 => Self::Exceeded,
            _ => Self::Reserved(raw),
        }
    }
}

impl fmt::Display for PreEol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.pad("unknown"),
            Self::Normal => f.pad("less than 80%"),
            Self::Warning => f.pad("80%"),
            Self::Urgent => f.pad("90%"),
            Self::Reserved(raw) => write!(f, "reserved value {raw}"),
        }
    }
}

impl fmt::Display for Wear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.pad("unknown"),
            Self::UpToPercent(percent) => write!(f, "up to {percent}%"),
            Self::Exceeded => f.pad("exceeded"),
            Self::Reserved(raw) => write!(f, "reserved value {raw}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_lifetime_has_one_meaning() {
        let pre_eol: Vec<_> = (0..5).map(PreEol::from).collect();
        assert_eq!(
            pre_eol,
            [
                PreEol::Undefined,
                PreEol::Normal,
                PreEol::Warning,
                PreEol::Urgent,
                PreEol::Reserved(4)
            ]
        );
        assert_eq!(PreEol::from(u16::MAX), PreEol::Reserved(u16::MAX));
        assert_eq!(Wear::from(0), Wear::Undefined);
        for raw in 1..=10 {
            assert_eq!(Wear::from(raw), Wear::UpToPercent(raw as u8 * 10));
        }
        assert_eq!(Wear::from(11), Wear::Exceeded);
        for raw in [12, 255, 256, 257, u16::MAX] {
            assert_eq!(Wear::from(raw), Wear::Reserved(raw));
        }
    }
}
