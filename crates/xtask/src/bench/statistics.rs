//! Medians and spreads.

use std::fmt;

/// What was measured several times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// 0 if nothing was measured.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// Each sample, less `amount`.
    pub(crate) fn less(&self, amount: f64) -> Self {
        Self(self.0.iter().map(|sample| sample - amount).collect())
    }
}

/// `median (least-greatest)`, with the precision that is asked for.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(0);
        let (median, min, max) = (self.median(), self.min(), self.max());
        write!(f, "{median:.digits$} ({min:.digits$}-{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread_do_not_depend_on_the_order() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), 0.0);
        for value in [5.0, 1.0, 9.0] {
            samples.add(value);
        }
        assert_eq!(format!("{samples:.1}"), "5.0 (1.0-9.0)");
        samples.add(6.0);
        assert_eq!(samples.median(), 5.5);
        assert_eq!(samples.less(1.0).max(), 8.0);
    }
}
