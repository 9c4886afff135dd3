//! How a caller wants a queue to wait.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind};

/// How a thread waits for the device and for work.
///
/// | | latency | costs | when to use |
/// |---|---|---|---|
/// | `poll` | the least | a whole core, also when idle | cores are set aside for I/O, or a benchmark |
/// | `adaptive` | that of `poll` while requests keep coming; a wake-up (5 to 100 us) after a pause | up to 100 us of spinning a wait, nothing when idle | otherwise |
/// | `interrupt` | a wake-up for each wait | a system call and an interrupt a wait, no spinning | cores are scarce, the device is slow |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitPolicy {
    /// Looks without end and never sleeps. The device's interrupt is not used.
    Poll,
    /// Looks for about twice as long as recent waits took, then asks for the device's interrupt
    /// and sleeps. A device that has no interrupts is looked at every 50 us instead.
    #[default]
    Adaptive,
    /// Asks for the device's interrupt and sleeps as soon as there is nothing to do. A device that
    /// has no interrupts cannot be opened so ([`ErrorKind::Unsupported`]).
    Interrupt,
}

impl WaitPolicy {
    const ALL: [Self; 3] = [Self::Poll, Self::Adaptive, Self::Interrupt];

    fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Adaptive => "adaptive",
            Self::Interrupt => "interrupt",
        }
    }
}

impl fmt::Display for WaitPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WaitPolicy {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::InvalidSpec`] for anything but `poll`, `adaptive` and `interrupt`.
    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidSpec,
                format!("{name:?} is no way to wait: use poll, adaptive or interrupt"),
            )
        })
    }
}
