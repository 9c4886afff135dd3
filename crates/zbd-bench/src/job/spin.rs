//! Waiting between polls.

use std::hint;

/// Pauses between polls: shortly at first, then for a sixteenth of the wait so far, so that what
/// has come back is found late by no more than that.
///
/// Unlike crossbeam's backoff it executes hardly anything but pauses: under emulation, where a
/// pause takes as long as many instructions, that is what waiting costs.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// How many pauses there were.
    paused: u32,
}

impl Spin {
    /// Pauses once more.
    #[inline]
    pub(crate) fn once(&mut self) {
        let sixteens = self.sixteens();
        for _ in 0..sixteens {
            pause_sixteen_times();
        }
        self.paused = self.paused.saturating_add(sixteens * 16);
    }

    /// How many times sixteen pauses come next.
    #[inline]
    fn sixteens(&self) -> u32 {
        match self.paused {
            0..64 => 1,
            paused => (paused / 1024).clamp(1, 16) * 4,
        }
    }
}

/// Without a loop, which would cost more than what it repeats.
#[inline(always)]
fn pause_sixteen_times() {
    macro_rules! pause {
        ($($n:literal)*) => {
            $({
                let _ = $n;
                hint::spin_loop();
            })*
        };
    }
    pause!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_wait_and_stay_a_small_part_of_it() {
        let mut spin = Spin::default();
        let mut longest = 0;
        while spin.paused < 1 << 20 {
            let next = spin.sixteens() * 16;
            assert!(next >= longest, "never shorter again");
            assert!(
                next <= 64.max(spin.paused / 16),
                "{next} after {}",
                spin.paused
            );
            longest = next;
            spin.paused += next;
        }
        assert_eq!(longest, 1024);
    }
}
