//! What can be concluded from a comparison, and what cannot.

use super::Compared;
use crate::{report::figures, spread::Spread};

/// Fewer rounds prove nothing, whatever they say.
const ENOUGH_ROUNDS: usize = 3;
/// The ratio of IOPS of one contestant to the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) spread: Spread,
    pub(crate) rounds: usize,
}

impl Ratio {
    /// Round by round; a stored report has one round, which stands for all.
    pub(crate) fn of(reference: &[f64], other: &[f64]) -> Self {
        let rounds = match (reference.len(), other.len()) {
            (1, n) | (n, 1) => n,
            (a, b) => a.min(b),
        };
        let at = |figures: &[f64], i: usize| match figures {
            [only] => *only,
            figures => figures[i],
        };
        let ratios = (0..rounds).map(|i| at(other, i) / at(reference, i));
        Self {
            spread: Spread::of(ratios.filter(|ratio| ratio.is_finite())),
            rounds,
        }
    }

    /// Whether all rounds say the same, and there are enough.
    fn outcome(&self) -> Outcome {
        match self.spread {
            _ if self.rounds < ENOUGH_ROUNDS => Outcome::TooFew,
            Spread { min, .. } if min > 1.0 => Outcome::Faster,
            Spread { max, .. } if max < 1.0 => Outcome::Slower,
            _ => Outcome::Undecided,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    TooFew,
    Faster,
    Slower,
    Undecided,
}

impl Compared {
    /// The IOPS of each contestant but the first, as ratios to the first's.
    pub(crate) fn ratios(&self) -> Vec<Ratio> {
        let Some((first, others)) = self.contestants.split_first() else {
            return Vec::new();
        };
        let reference = first.all_iops();
        others
            .iter()
            .map(|other| Ratio::of(&reference, &other.all_iops()))
            .collect()
    }

    /// Sentences that say what was found, and what it does not mean.
    pub(crate) fn conclusions(&self) -> Vec<String> {
        let Some((first, others)) = self.contestants.split_first() else {
            return Vec::new();
        };
        let mut sentences: Vec<String> = others
            .iter()
            .zip(self.ratios())
            .map(|(other, ratio)| sentence(&first.name, &other.name, ratio))
            .collect();
        sentences.extend(self.caveats());
        sentences
    }
}

fn sentence(first: &str, other: &str, ratio: Ratio) -> String {
    let Ratio {
        spread: Spread { median, min, max },
        rounds,
    } = ratio;
    let in_rounds = figures::plural(rounds as u64, "round");
    let figures = format!("{median:.2} times the IOPS ({min:.2} to {max:.2} over {in_rounds})");
    match ratio.outcome() {
        Outcome::Faster => format!("{other} was faster than {first} in every round: {figures}."),
        Outcome::Slower => format!("{other} was slower than {first} in every round: {figures}."),
        Outcome::Undecided => format!(
            "Which of {other} and {first} is faster cannot be concluded: {figures}, and the rounds \
             contradict each other. Longer or more rounds may tell."
        ),
        Outcome::TooFew => format!(
            "Nothing can be concluded from {in_rounds}: {other} had {figures} of {first}. Give \
             --repeat {ENOUGH_ROUNDS} or more."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reference: &[f64], other: &[f64]) -> String {
        sentence("A", "B", Ratio::of(reference, other))
    }

    #[test]
    fn what_every_round_says_is_concluded() {
        let text = said(&[100.0, 50.0, 80.0], &[200.0, 100.0, 120.0]);
        assert_eq!(
            text,
            "B was faster than A in every round: 2.00 times the IOPS (1.50 to 2.00 over 3 rounds)."
        );
        assert!(said(&[2.0; 3], &[1.0; 3]).starts_with("B was slower"));
    }

    #[test]
    fn rounds_that_contradict_each_other_conclude_nothing() {
        let text = said(&[100.0, 100.0, 100.0], &[110.0, 90.0, 120.0]);
        assert!(text.contains("cannot be concluded"), "{text}");
        let text = said(&[100.0, 100.0], &[200.0, 200.0]);
        assert!(
            text.starts_with("Nothing can be concluded from 2 rounds"),
            "{text}"
        );
    }

    #[test]
    fn a_stored_round_stands_for_all() {
        let ratio = Ratio::of(&[100.0], &[150.0, 200.0, 250.0]);
        assert_eq!((ratio.rounds, ratio.spread.median), (3, 2.0));
    }
}
