//! What a sweep looks like, and what can be said of it.

use zbd_core::Backend;

use super::{Measurement, Point, Swept};
use crate::{
    chart::{self, Axis, Chart, Scale, Series},
    cli::Op,
    report::{figures, machine::MachineRecord},
    spread::Spread,
};

/// More than can be told apart in one chart.
const MOST_SERIES: usize = 8;

/// What a point can differ in, other than its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    Depth,
    Zones,
    BlockSize,
    Queues,
}

use Dimension::{BlockSize, Depth, Queues, Zones};

impl Dimension {
    const ALL: [Self; 4] = [Depth, Zones, BlockSize, Queues];

    pub(crate) fn of(self, point: Point) -> u64 {
        match self {
            Depth => point.depth,
            Zones => point.zones,
            BlockSize => point.block_size,
            Queues => point.queues,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Depth => "depth",
            Zones => "zones",
            BlockSize => "block size",
            Queues => "queues",
        }
    }

    /// A value of it in words.
    fn say(self, value: u64) -> String {
        match self {
            Depth => format!("depth {value}"),
            Zones => figures::plural(value, "zone"),
            BlockSize => figures::bytes(value),
            Queues => figures::plural(value, "queue"),
        }
    }

    fn axis(self) -> Axis {
        let (label, unit) = match self {
            Depth => ("requests in flight in each queue", ""),
            Zones => ("zones", ""),
            BlockSize => ("block size", "B"),
            Queues => ("queues", ""),
        };
        Axis {
            label: label.to_owned(),
            unit: unit.to_owned(),
            scale: Scale::Log2,
        }
    }
}

impl Swept {
    /// What is swept over: what charts have along x, first.
    pub(crate) fn dimensions(&self) -> Vec<Dimension> {
        let varies = |dimension: &Dimension| {
            let mut values = self.measurements.iter().map(|m| dimension.of(m.point));
            let first = values.next();
            values.any(|value| Some(value) != first)
        };
        let mut varying: Vec<Dimension> = Dimension::ALL.into_iter().filter(varies).collect();
        if varying.is_empty() {
            varying.push(Depth);
        }
        varying
    }

    /// The measurements that one line of a chart goes through.
    fn lines(&self) -> Vec<(String, Vec<&Measurement>)> {
        let dimensions = self.dimensions();
        let mut lines: Vec<(String, Vec<&Measurement>)> = Vec::new();
        for measurement in &self.measurements {
            let point = measurement.point;
            let mut words = vec![point.op.name().to_owned()];
            words.extend(dimensions[1..].iter().map(|d| d.say(d.of(point))));
            let name = words.join(", ");
            match lines.iter_mut().find(|(line, _)| *line == name) {
                Some((_, line)) => line.push(measurement),
                None => lines.push((name, vec![measurement])),
            }
        }
        lines
    }

    /// The job in words, without what is swept over.
    pub(crate) fn setting(&self) -> String {
        let dimensions = self.dimensions();
        let Some(first) = self.measurements.first() else {
            return self.device.clone();
        };
        let mut words: Vec<String> = Dimension::ALL
            .into_iter()
            .filter(|dimension| !dimensions.contains(dimension))
            .map(|dimension| dimension.say(dimension.of(first.point)))
            .collect();
        words.push(format!("wait {}", self.job.wait));
        words.push(format!("{} API", self.job.api.name()));
        words.push(format!(
            "medians of {}, bars from least to most",
            figures::plural(self.rounds.into(), "round")
        ));
        words.join(", ")
    }

    /// What the figures say, in sentences.
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if self.dimensions().first() == Some(&Depth) {
            findings.extend(
                self.lines()
                    .iter()
                    .filter_map(|(name, line)| gain(name, line)),
            );
        }
        findings.extend(self.against_writes());
        findings
    }

    /// How appends compare with writes at the greatest depth.
    fn against_writes(&self) -> Option<String> {
        let appends = |m: &&Measurement| m.point.op == Op::Append;
        let deepest = self
            .measurements
            .iter()
            .filter(appends)
            .max_by_key(|m| m.point.depth)?;
        let write = self.at(Point {
            op: Op::Write,
            ..deepest.point
        })?;
        let ratio = Spread::of(
            deepest
                .samples
                .iter()
                .zip(&write.samples)
                .map(|(append, write)| append.iops / write.iops),
        );
        let merging = match self.info.backend {
            Backend::Emulated => "",
            _ => {
                " A hypervisor may merge neighbouring writes into one and never merges appends: \
                 compare the two with merging off."
            }
        };
        Some(format!(
            "At {} appends reach {:.2} times the IOPS of writes ({:.2} to {:.2} over {}).{merging}",
            Depth.say(deepest.point.depth),
            ratio.median,
            ratio.min,
            ratio.max,
            figures::plural(deepest.rounds() as u64, "round"),
        ))
    }

    /// The charts: throughput, and latency below it.
    pub(crate) fn charts(&self) -> Vec<Chart> {
        let lines = self.lines();
        lines
            .chunks(MOST_SERIES)
            .flat_map(|lines| {
                let throughput = self.chart("IOPS", lines, |m| m.iops());
                let latency = self.chart("Latency (99th percentile)", lines, |m| {
                    let p99 = m.p99();
                    Spread {
                        median: p99.median / 1e9,
                        min: p99.min / 1e9,
                        max: p99.max / 1e9,
                    }
                });
                let throughput = Chart {
                    notes: self.findings(),
                    ..throughput
                };
                [throughput, latency]
            })
            .collect()
    }

    fn chart(
        &self,
        what: &str,
        lines: &[(String, Vec<&Measurement>)],
        value: impl Fn(&Measurement) -> Spread,
    ) -> Chart {
        let along = self.dimensions()[0];
        let is_latency = what != "IOPS";
        let series = lines
            .iter()
            .map(|(name, line)| Series {
                name: name.clone(),
                points: line
                    .iter()
                    .map(|m| {
                        let spread = value(m);
                        chart::Point {
                            x: along.of(m.point) as f64,
                            y: spread.median,
                            low: spread.min,
                            high: spread.max,
                        }
                    })
                    .collect(),
            })
            .collect();
        Chart {
            title: format!("{what} by {}: {}", along.name(), self.info.name),
            subtitle: self.setting(),
            notes: Vec::new(),
            x: along.axis(),
            y: Axis {
                label: if is_latency {
                    "p99 latency"
                } else {
                    "throughput"
                }
                .to_owned(),
                unit: if is_latency { "s" } else { "IOPS" }.to_owned(),
                scale: Scale::Linear,
            },
            series,
        }
    }

    /// Everything on one page.
    pub(crate) fn page(&self, command: String, table: chart::Table) -> chart::Page {
        let [machine, build] = MachineRecord::here().lines();
        let pair = |name: &str, value: String| (name.to_owned(), value);
        chart::Page {
            title: format!("zbd-bench sweep: {}", self.info.name),
            intro: vec![self.setting()],
            charts: self.charts(),
            tables: vec![table],
            machine: vec![
                pair("machine", machine),
                pair("build", build),
                pair("device", self.info.name.clone()),
                pair("back end", self.info.backend.name().to_owned()),
                pair("features", self.info.features.join(" ")),
                pair("merging", figures::merging(self.info.backend, None)),
            ],
            commands: vec![command],
        }
    }
}

/// What deeper queues bring. A line that hardly rises is that of a device that carries out one
/// request after the other: what is gained then is that the next one is there when one has ended.
fn gain(name: &str, line: &[&Measurement]) -> Option<String> {
    /// What may still be noise.
    const NEARLY: f64 = 0.85;
    /// Less than so many times what is there without company, or with that of one other: of two
    /// that are carried out side by side more is left.
    const HARDLY: [(u64, f64); 2] = [(1, 3.0), (2, 2.0)];
    let (first, last) = (line.first()?, line.last()?);
    if last.point.depth < 8 || first.point.depth != 1 {
        return None;
    }
    let best = line.iter().map(|m| m.iops().median).fold(0.0, f64::max);
    let gain = best / first.iops().median;
    let rises = line.iter().any(|m| {
        let hardly = HARDLY.iter().find(|(depth, _)| *depth == m.point.depth);
        hardly.is_some_and(|(_, times)| best >= times * m.iops().median)
    });
    if rises {
        let enough = line.iter().find(|m| m.iops().median >= NEARLY * best)?;
        return Some(format!(
            "{name}: reaches its best at depth {} or nearly so, {gain:.1} times the IOPS of depth 1.",
            enough.point.depth
        ));
    }
    Some(format!(
        "{name}: depth brings little, at best {gain:.1} times the IOPS of depth 1 with up to {} in \
         flight. So does a device, or a hypervisor behind it, that carries out one request after \
         the other (it serialises them): the line is its limit, not the driver's.",
        last.point.depth
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Sample;

    /// What is said of a line with these IOPS at the depths 1, 2, 4 and so on.
    fn said(iops: &[f64]) -> Option<String> {
        let line: Vec<Measurement> = (0..)
            .zip(iops)
            .map(|(i, &iops)| Measurement {
                point: Point {
                    op: Op::Append,
                    depth: 1 << i,
                    zones: 4,
                    block_size: 4096,
                    queues: 1,
                },
                samples: vec![Sample {
                    iops,
                    p50: 1.0,
                    p99: 1.0,
                    per_doorbell: 1.0,
                }],
            })
            .collect();
        gain("append", &line.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_flat_line_is_the_limit_of_a_device_that_serialises() {
        for flat in [
            &[100.0, 95.0, 105.0, 110.0][..],
            &[100.0, 170.0, 180.0, 175.0],
            // What was measured of appends to QEMU's device.
            &[7.5, 12.2, 12.1, 14.1, 14.7, 14.1, 16.2, 13.3],
        ] {
            let text = said(flat).unwrap();
            assert!(text.contains("it serialises them"), "{text}");
        }
    }

    #[test]
    fn a_line_that_rises_is_not() {
        let rising = said(&[100.0, 200.0, 400.0, 600.0]).unwrap();
        assert!(rising.contains("best at depth 8") && !rising.contains("serialises"));
        // Of reads from the same device.
        let rising = said(&[9.0, 14.8, 25.4, 42.7, 44.1, 56.9, 68.6, 70.6]).unwrap();
        assert!(rising.contains("best at depth 64") && !rising.contains("serialises"));
        // Two at a time.
        let rising = said(&[100.0, 190.0, 390.0, 395.0]).unwrap();
        assert!(rising.contains("best at depth 4") && !rising.contains("serialises"));
    }

    #[test]
    fn too_little_is_said_of_nothing() {
        assert_eq!(said(&[100.0, 100.0, 100.0]), None);
    }
}
