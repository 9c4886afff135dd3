//! The address of a PCI function.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind};

/// Where a PCI function is: domain, bus, device and function, written `dddd:bb:dd.f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = Error;

    /// Reads `dddd:bb:dd.f`, or `bb:dd.f` for a function of domain 0.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "`{text}` is not a PCI address; write it as dddd:bb:dd.f, such as 0000:00:01.0"
                ),
            )
        })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest.rsplit(':');
    let device = hex(parts.next()?, 2, 0x1f)?;
    let bus = hex(parts.next()?, 2, 0xff)?;
    // Domains of devices behind a VMD controller have five digits and more.
    let domain = parts.next().map_or(Some(0), |d| hex(d, 8, u32::MAX))?;
    if parts.next().is_some() {
        return None;
    }
    Some(PciAddress {
        domain,
        bus: bus.try_into().ok()?,
        device: device.try_into().ok()?,
        function: hex(function, 1, 7)?.try_into().ok()?,
    })
}

fn hex(digits: &str, most_digits: usize, most: u32) -> Option<u32> {
    let plain = !digits.is_empty()
        && digits.len() <= most_digits
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = plain.then(|| u32::from_str_radix(digits, 16).ok())??;
    (value <= most).then_some(value)
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_short_forms_name_the_same_function() {
        let full: PciAddress = "0000:3b:1f.7".parse().unwrap();
        assert_eq!(full, "3b:1f.7".parse().unwrap());
        assert_eq!(full.to_string(), "0000:3b:1f.7");
        assert_eq!(
            "1:2.3".parse::<PciAddress>().unwrap().to_string(),
            "0000:01:02.3"
        );
    }

    #[test]
    fn domains_may_exceed_four_digits() {
        let text = "10000:01:00.0";
        assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            ".",
            "00:01",
            "0000:00:01",
            "00:01.8",
            "00:20.0",
            "100:01:00",
            "0:0:0:0.0",
            "+0:01.0",
            "00:01.0 ",
            "../00:01.0",
            "00:01.00",
            "00:01.",
            ":01.0",
            "g0:01.0",
            "123456789:00:01.0",
            "emu:",
        ] {
            let error = text.parse::<PciAddress>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
