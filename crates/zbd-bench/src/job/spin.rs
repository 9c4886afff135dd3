//! Waiting between polls.

use std::hint;

/// The shortest burst of pauses.
const SHORTEST: u32 = 4;
/// The longest burst while the wait is young, and the longest at all.
const YOUNG: u32 = 64;
const LONGEST: u32 = 1024;

/// Pauses between polls: bursts that double up to 64 pauses, and then are a sixteenth of the wait so
/// far, so that what has come back is found late by no more than that.
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
        let burst = self.burst();
        for _ in 0..burst / 16 {
            sixteen_pauses();
        }
        for _ in 0..burst % 16 / 4 {
            four_pauses();
        }
        self.paused = self.paused.saturating_add(burst);
    }

    /// How many pauses come next, a multiple of four.
    #[inline]
    fn burst(&self) -> u32 {
        let longest = (self.paused / 16).clamp(YOUNG, LONGEST);
        self.paused.clamp(SHORTEST, longest) & !3
    }
}

// Without loops, which would cost more than what they repeat.

#[inline(always)]
fn four_pauses() {
    hint::spin_loop();
    hint::spin_loop();
    hint::spin_loop();
    hint::spin_loop();
}

#[inline(always)]
fn sixteen_pauses() {
    four_pauses();
    four_pauses();
    four_pauses();
    four_pauses();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_grow_with_the_wait_and_stay_a_small_part_of_it() {
        let mut spin = Spin::default();
        let mut bursts = Vec::new();
        while spin.paused < 1 << 20 {
            let burst = spin.burst();
            assert!(
                burst <= YOUNG.max(spin.paused / 16),
                "{burst} after {}",
                spin.paused
            );
            bursts.push(burst);
            spin.paused += burst;
        }
        assert_eq!(bursts[..6], [4, 4, 8, 16, 32, 64]);
        assert!(bursts.is_sorted(), "never shorter again");
        assert_eq!(bursts.last(), Some(&LONGEST));
    }
}
