//! What is remembered of a request in flight.

use std::time::Duration;

use crate::Sector;

/// What is remembered of a request in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tag {
    pub(super) token: u64,
    /// The sector that the request named, and marks on top of it.
    pub(super) at: Sector,
    /// The last sector at which the device may have put an append; [`NO_APPEND`] for others.
    pub(super) append_limit: Sector,
    /// When the request's time is up.
    pub(super) due: Due,
}

/// Past the end of all devices.
pub(super) const NO_APPEND: Sector = Sector(u64::MAX);

/// Marks in a sector. No device has such a sector, so with a mark it is not one at which an append
/// may have begun: together with a limit of 0, marked requests complete on the path of failures,
/// and the others need not tell them apart.
const HIDDEN_BUFFER: u64 = 1 << 63;
const EXPIRED: u64 = 1 << 62;

impl Tag {
    #[inline]
    pub(super) fn new(token: u64, at: Sector, due: Due) -> Self {
        Self {
            token,
            at,
            append_limit: NO_APPEND,
            due,
        }
    }

    /// For a request whose buffer the caller has not seen and will not see.
    pub(super) fn with_hidden_buffer(token: u64, at: Sector, due: Due) -> Self {
        Self {
            token,
            at: Sector(at.0 | HIDDEN_BUFFER),
            append_limit: Sector(0),
            due,
        }
    }

    pub(super) fn has_hidden_buffer(&self) -> bool {
        self.at.0 & HIDDEN_BUFFER != 0
    }

    /// The caller has been told that the request's time was up: nobody waits for it any more.
    pub(super) fn expire(&mut self) {
        self.at.0 |= EXPIRED;
        self.append_limit = Sector(0);
        self.due = Due::NEVER;
    }

    pub(super) fn is_expired(&self) -> bool {
        self.at.0 & EXPIRED != 0
    }

    /// The sector that the request named.
    pub(super) fn sector(&self) -> Sector {
        Sector(self.at.0 & !(HIDDEN_BUFFER | EXPIRED))
    }
}

/// A time in milliseconds since the queue was opened, cut to 32 bits; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due(u32);

impl Due {
    pub(super) const NEVER: Self = Self(0);
    /// The farthest that can be told from the past, 24 days.
    const FARTHEST: u128 = i32::MAX as u128;

    /// The first whole millisecond that is `timeout` after `now`, both since the queue was opened.
    pub(super) fn after(now: Duration, timeout: Duration) -> Self {
        let timeout = timeout.as_millis().min(Self::FARTHEST - 2) + 1;
        match (now.as_millis() + timeout) as u32 {
            0 => Self(1),
            at => Self(at),
        }
    }

    /// Whether the time has come at `now`.
    pub(super) fn has_come(self, now: Duration) -> bool {
        let behind = (now.as_millis() as u32).wrapping_sub(self.0);
        self != Self::NEVER && behind.cast_signed() >= 0
    }

    /// How long it is until then; `None` for never.
    pub(super) fn remaining(self, now: Duration) -> Option<Duration> {
        let ahead = self.0.wrapping_sub(now.as_millis() as u32).cast_signed();
        let ahead = u64::try_from(ahead).unwrap_or(0);
        (self != Self::NEVER).then(|| Duration::from_millis(ahead))
    }

    /// The earlier of two times.
    pub(super) fn earlier(self, other: Self) -> Self {
        match (self, other) {
            (Self::NEVER, other) | (other, Self::NEVER) => other,
            _ if self.0.wrapping_sub(other.0).cast_signed() < 0 => self,
            _ => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_when_it_has_passed_and_not_before() {
        // On both sides of where 32 bits of milliseconds come round.
        for begin in [
            0,
            1,
            5,
            (1 << 32) - 20,
            (1 << 32) - 11,
            1 << 32,
            (7 << 32) - 1,
        ] {
            let due = Due::after(Duration::from_millis(begin), Duration::from_millis(10));
            for later in 0..10 {
                let now = Duration::from_millis(begin + later);
                assert!(!due.has_come(now), "{begin} + {later}");
                let remaining = due.remaining(now).unwrap();
                assert!(due.has_come(now + remaining), "{begin} + {later}");
            }
            for later in [12, 13, 1000, 1 << 30] {
                let now = Duration::from_millis(begin + later);
                assert!(due.has_come(now), "{begin} + {later}");
            }
        }
        assert!(!Due::NEVER.has_come(Duration::from_secs(5)));
        assert_eq!(Due::NEVER.remaining(Duration::from_secs(5)), None);
    }

    #[test]
    fn the_longest_time_is_not_taken_for_the_past() {
        let now = Duration::from_secs(77);
        let due = Due::after(now, Duration::MAX);
        assert!(!due.has_come(now));
        assert!(!due.has_come(now + Duration::from_secs(86_400 * 24)));
    }

    #[test]
    fn the_earlier_of_two_is_found_across_the_wrap() {
        let at = |ms| Due::after(Duration::from_millis(ms), Duration::ZERO);
        let (before, after) = (at((1 << 32) - 10), at((1 << 32) + 10));
        assert_eq!(before.earlier(after), before);
        assert_eq!(after.earlier(before), before);
        assert_eq!(Due::NEVER.earlier(after), after);
        assert_eq!(after.earlier(Due::NEVER), after);
    }
}
