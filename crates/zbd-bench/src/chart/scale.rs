//! Where values lie on an axis, and which of them are named there.

use super::{Axis, Scale};

/// More ticks than this are hard to tell apart.
const MOST_TICKS: usize = 12;

/// An axis that is laid out: its ends and its ticks.
#[derive(Debug)]
pub(super) struct Ruler {
    scale: Scale,
    from: f64,
    to: f64,
    pub(super) ticks: Vec<Tick>,
}

/// A value that is named on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

impl Ruler {
    /// The axis of what was set: it has its ticks where the values are, if these are few.
    pub(super) fn along(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (low, high) = match (values.first(), values.last()) {
            (Some(low), Some(high)) => (*low, *high),
            _ => (1.0, 1.0),
        };
        match axis.scale {
            Scale::Log2 => {
                let margin = ((high.log2() - low.log2()) * 0.05).clamp(0.3, 0.6);
                let (from, to) = (low.log2() - margin, high.log2() + margin);
                let at = if values.len() <= MOST_TICKS + 4 {
                    values
                } else {
                    powers(low, high)
                };
                Self::new(axis, from, to, at)
            }
            Scale::Linear => {
                let (low, high) = if low < high {
                    (low, high)
                } else {
                    (low - 0.5, high + 0.5)
                };
                let at = round(low, high, 10);
                let margin = (high - low) * 0.03;
                let (from, to) = (low - margin, high + margin);
                let inside = |at: &f64| (from..=to).contains(at);
                Self::new(axis, from, to, at.into_iter().filter(inside).collect())
            }
        }
    }

    /// The axis of what was measured: from 0, if it can, to a round value.
    pub(super) fn up(axis: &Axis, low: f64, high: f64) -> Self {
        match axis.scale {
            Scale::Linear => {
                let (low, high) = (low.min(0.0), high.max(0.0));
                let high = if low < high { high } else { 1.0 };
                let at = round(low, high, 6);
                let from = at.first().copied().unwrap_or(low).min(low);
                let to = at.last().copied().unwrap_or(high).max(high);
                Self::new(axis, from, to, at)
            }
            Scale::Log2 => {
                let (low, high) = if low <= high { (low, high) } else { (1.0, 1.0) };
                let at = decades(low, high);
                let end = |at: Option<&f64>, value: f64| at.copied().unwrap_or(value).log2();
                let (from, to) = (end(at.first(), low), end(at.last(), high));
                Self::new(axis, from, to, at)
            }
        }
    }

    fn new(axis: &Axis, from: f64, to: f64, at: Vec<f64>) -> Self {
        let labels = Labels::new(axis, &at);
        let ticks = at.iter().map(|&at| Tick {
            at,
            label: labels.of(at),
        });
        Self {
            scale: axis.scale,
            from,
            to,
            ticks: ticks.collect(),
        }
    }

    /// How far along the axis a value is, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log2 => value.log2(),
        };
        // Halves, because the whole way between the ends can be more than a number holds.
        let share = (value / 2.0 - self.from / 2.0) / (self.to / 2.0 - self.from / 2.0);
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

/// Powers of two from one that is no more than `low` to one that is no less than `high`.
fn powers(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log2().floor() as i32, high.log2().ceil() as i32);
    let stride = (last - first) as usize / MOST_TICKS + 1;
    (first..=last)
        .step_by(stride)
        .map(|n| f64::from(n).exp2())
        .collect()
}

/// Powers of ten, with values between them if there are few, from one that is no more than `low` to
/// one that is more than `high`.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().floor() as i32 + 1);
    let digits: &[f64] = match last - first {
        ..=2 => &[1.0, 2.0, 5.0],
        3 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let stride = (last - first) as usize / MOST_TICKS + 1;
    let at: Vec<_> = (first..=last)
        .step_by(stride)
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
        .collect();
    // What lies beyond the values on either side is of no use.
    let from = at.iter().rposition(|at| *at <= low).unwrap_or(0);
    let to = at.iter().position(|at| *at > high).unwrap_or(at.len() - 1);
    at[from..=to].to_vec()
}

/// Round values, about `most` of them, from one that is no more than `low` to one that is no less
/// than `high`.
fn round(low: f64, high: f64, most: usize) -> Vec<f64> {
    let raw = (high / most as f64) - (low / most as f64);
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step >= raw * 0.999_999)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor(), (high / step - 1e-9).ceil());
    // Steps that are too small for the number beside them would never get there.
    (0..=(last - first).min(2.0 * most as f64) as u32)
        .map(|i| (first + f64::from(i)) * step)
        .collect()
}

/// How the ticks of an axis are written: with one prefix, and as many digits as they need.
struct Labels {
    /// What a value is divided by, and what is written after it.
    prefix: Option<(f64, String)>,
    decimals: usize,
    binary: bool,
    seconds: bool,
}

impl Labels {
    fn new(axis: &Axis, at: &[f64]) -> Self {
        let greatest = at.iter().fold(0f64, |most, at| most.max(at.abs()));
        let binary = is_binary(axis);
        let prefix = if axis.scale == Scale::Linear {
            prefix(greatest, &axis.unit)
        } else {
            None
        };
        let divisor = prefix.as_ref().map_or(1.0, |(divisor, _)| *divisor);
        let decimals = (0..9).find(|decimals| {
            let digit = 10f64.powi(-*decimals);
            at.iter().all(|at| {
                let shown = at / divisor / digit;
                (shown - shown.round()).abs() < 1e-4
            })
        });
        Self {
            prefix,
            decimals: decimals.unwrap_or(9) as usize,
            binary,
            seconds: axis.unit == "s",
        }
    }

    /// A value of a logarithmic axis, which has a prefix of its own.
    fn alone(&self, value: f64) -> String {
        // Powers of two are known by all their digits.
        if !self.seconds && value.fract() == 0.0 && value < 1e5 {
            return format!("{value:.0}");
        }
        match prefix(value, if self.seconds { "s" } else { "" }) {
            Some((divisor, prefix)) => {
                let digits = trimmed(value / divisor, 2);
                format!("{digits} {prefix}").trim_end().to_owned()
            }
            None => value.to_string(),
        }
    }

    fn of(&self, value: f64) -> String {
        if value.abs() >= 1e21 {
            return format!("{value:.0e}");
        }
        if self.binary {
            return binary(value);
        }
        let Some((divisor, prefix)) = &self.prefix else {
            return self.alone(value);
        };
        if value == 0.0 {
            return "0".to_owned();
        }
        let digits = format!("{:.*}", self.decimals, value / divisor);
        format!("{digits} {prefix}").trim_end().to_owned()
    }
}

/// The prefix that suits a value, and what one of it is. Seconds are too common in thousandths to
/// leave their letter out.
fn prefix(value: f64, unit: &str) -> Option<(f64, String)> {
    const LARGE: [(f64, &str); 6] = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ];
    const SMALL: [(f64, &str); 3] = [(1e-3, "m"), (1e-6, "\u{b5}"), (1e-9, "n")];
    let seconds = unit == "s";
    let value = value.abs();
    let found = if value >= 1e3 && !seconds {
        LARGE.into_iter().find(|(least, _)| value >= *least)
    } else if value > 0.0 && (value < 1e-3 || seconds && value < 1.0) {
        // Below the last prefix there are more zeroes.
        let found = SMALL.into_iter().find(|(least, _)| value >= *least);
        found.or(Some(SMALL[2]))
    } else {
        Some((1.0, ""))
    };
    found.map(|(least, prefix)| {
        let unit = if seconds { "s" } else { "" };
        (least, format!("{prefix}{unit}"))
    })
}

/// A value in three digits, with the prefix that suits it.
pub(super) fn short(value: f64, unit: &str) -> String {
    if value.abs() >= 1e21 {
        return format!("{value:.1e}");
    }
    let Some((divisor, prefix)) = prefix(value, unit) else {
        return value.to_string();
    };
    let shown = value / divisor;
    let digits = match shown.abs() {
        s if s >= 99.95 || divisor == 1.0 && s.fract() == 0.0 => format!("{shown:.0}"),
        s if s >= 9.995 => format!("{shown:.1}"),
        s if s > 0.0 && s < 0.01 => format!("{shown:.1e}"),
        _ => format!("{shown:.2}"),
    };
    format!("{digits} {prefix}").trim_end().to_owned()
}

/// Whether the ticks of an axis carry its unit.
pub(super) fn carries_unit(axis: &Axis) -> bool {
    axis.unit == "s" || is_binary(axis)
}

fn is_binary(axis: &Axis) -> bool {
    axis.unit == "B" && axis.scale == Scale::Log2
}

/// A value along x, as its tick has it.
pub(super) fn named(value: f64, axis: &Axis) -> String {
    Labels::new(axis, &[value]).of(value)
}

/// A number of bytes.
fn binary(value: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (value, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", trimmed(value, 2), UNITS[unit])
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(unit: &str, scale: Scale) -> Axis {
        Axis {
            label: "label".to_owned(),
            unit: unit.to_owned(),
            scale,
        }
    }

    fn up(unit: &str, high: f64) -> Vec<String> {
        let ruler = Ruler::up(&axis(unit, Scale::Linear), high, high);
        ruler.ticks.into_iter().map(|tick| tick.label).collect()
    }

    fn along(unit: &str, scale: Scale, values: &[f64]) -> Vec<String> {
        let ruler = Ruler::along(&axis(unit, scale), values.iter().copied());
        ruler.ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn values_have_round_ticks_from_zero_with_one_prefix() {
        let rate = |high| up("IOPS", high);
        assert_eq!(
            rate(93_000.0),
            ["0", "20 k", "40 k", "60 k", "80 k", "100 k"]
        );
        assert_eq!(
            rate(1_200_000.0),
            ["0", "0.2 M", "0.4 M", "0.6 M", "0.8 M", "1.0 M", "1.2 M"]
        );
        assert_eq!(rate(0.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(
            up("s", 0.000_11),
            [
                "0",
                "20 \u{b5}s",
                "40 \u{b5}s",
                "60 \u{b5}s",
                "80 \u{b5}s",
                "100 \u{b5}s",
                "120 \u{b5}s"
            ]
        );
        assert_eq!(up("s", 5000.0).last().map(String::as_str), Some("5000 s"));
    }

    #[test]
    fn no_value_is_too_large_or_too_small_for_its_ticks() {
        for exponent in -300..=300 {
            let high = 1.7 * 10f64.powi(exponent);
            let ruler = Ruler::up(&axis("", Scale::Linear), 0.0, high);
            assert!((4..=9).contains(&ruler.ticks.len()), "{high}: {ruler:?}");
            let last = ruler.ticks.last().expect("there are some").at;
            assert!(last >= high && last < high * 2.0, "{high}: {last}");
            assert!(ruler.ticks.iter().all(|t| t.label.len() < 16), "{ruler:?}");
        }
    }

    #[test]
    fn what_was_set_has_its_ticks_where_it_was_set() {
        let depths = [1.0, 2.0, 4.0, 48.0, 64.0];
        assert_eq!(along("", Scale::Log2, &depths), ["1", "2", "4", "48", "64"]);
        let sizes = [512.0, 4096.0, 1_048_576.0];
        assert_eq!(along("B", Scale::Log2, &sizes), ["512 B", "4 KiB", "1 MiB"]);
        let many: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!(
            along("", Scale::Log2, &many),
            ["1", "2", "4", "8", "16", "32", "64", "128"]
        );
        assert_eq!(along("s", Scale::Linear, &[0.0, 5.0, 10.0]).len(), 11);
    }

    #[test]
    fn each_doubling_is_as_far() {
        let ruler = Ruler::along(&axis("", Scale::Log2), [1.0, 16.0].into_iter());
        let steps: Vec<_> = [1.0, 2.0, 4.0, 8.0, 16.0].map(|x| ruler.share(x)).to_vec();
        let first = steps[1] - steps[0];
        assert!(first > 0.1);
        assert!(steps.windows(2).all(|w| (w[1] - w[0] - first).abs() < 1e-9));
    }

    #[test]
    fn measured_values_on_a_logarithmic_axis_have_round_ticks() {
        let up = |low, high| -> Vec<_> {
            let ruler = Ruler::up(&axis("s", Scale::Log2), low, high);
            ruler.ticks.into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(
            up(2.2e-6, 3e-5),
            [
                "2 \u{b5}s",
                "5 \u{b5}s",
                "10 \u{b5}s",
                "20 \u{b5}s",
                "50 \u{b5}s"
            ]
        );
        assert_eq!(up(2e-6, 0.05)[1..3], ["10 \u{b5}s", "100 \u{b5}s"]);
        assert_eq!(up(1.0, 1.0), ["1 s", "2 s"]);
        for exponent in -290..=290 {
            let low = 10f64.powi(exponent);
            let high = 10f64.powi(exponent.abs());
            let ruler = Ruler::up(&axis("", Scale::Log2), low, high);
            assert!((2..=14).contains(&ruler.ticks.len()), "{ruler:?}");
            assert!(ruler.share(low) < ruler.share(high * 1.01), "{ruler:?}");
        }
    }

    #[test]
    fn short_values_have_three_digits() {
        assert_eq!(short(45_234.0, "IOPS"), "45.2 k");
        assert_eq!(short(1_234_000.0, ""), "1.23 M");
        assert_eq!(short(12.0, ""), "12");
        assert_eq!(short(0.0, "s"), "0 s");
        assert_eq!(short(0.000_012_34, "s"), "12.3 \u{b5}s");
        assert_eq!(short(123.4, ""), "123");
    }
}
