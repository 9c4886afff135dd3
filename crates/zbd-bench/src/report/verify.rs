//! What a verification came to.

use std::fmt::Write;

use serde::Serialize;

use super::{
    SCHEMA, device::DeviceRecord, figures, machine::MachineRecord, print, print_json, table,
};
use crate::{
    failure::Failure,
    verify::{
        Verified, Writing,
        finding::{Content, Difference, Evidence, Finding, Stamp, describe},
    },
};

const WIDTH: usize = super::WIDTH as usize;

/// Prints the result for people.
pub(crate) fn text(verified: &Verified) -> Result<(), Failure> {
    let mut text = head(verified);
    text.push('\n');
    text += &counts(verified);
    text.push('\n');
    text += &MachineRecord::here().text();
    text.push('\n');
    text += &conclusion(verified);
    print(&text)
}

fn head(verified: &Verified) -> String {
    let (settings, info) = (&verified.settings, &verified.info);
    let (name, backend) = (&info.name, info.backend.name());
    let between = match name.chars().count() + backend.len() + 3 > WIDTH {
        true => "\n",
        false => " ",
    };
    format!(
        "{name}{between}({backend})\nverify, {} at depth {}, {}, {}, seed {}\n",
        figures::plural(settings.tasks.into(), "task"),
        settings.depth,
        figures::plural(verified.zones.into(), "zone"),
        figures::plural(settings.queues.into(), "queue"),
        settings.seed,
    )
}

fn counts(verified: &Verified) -> String {
    let counts = &verified.counts;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    table(
        2,
        vec![
            row("rounds", figures::count(verified.rounds.into())),
            row(
                "written",
                format!(
                    "{}, {}: {} and {}",
                    figures::plural(counts.appends + counts.writes, "record"),
                    mebibytes(counts.bytes_written),
                    figures::plural(counts.appends, "append"),
                    figures::plural(counts.writes, "write"),
                ),
            ),
            row(
                "read back",
                format!(
                    "{}, {}",
                    figures::plural(counts.records_verified, "record"),
                    mebibytes(counts.bytes_verified)
                ),
            ),
            row(
                "zones",
                format!(
                    "{}, {}, {}, {}, {}",
                    figures::plural(counts.zones_reported, "report"),
                    figures::plural(counts.opens, "open"),
                    figures::plural(counts.closes, "close"),
                    match counts.finishes {
                        1 => "1 finish".to_owned(),
                        n => format!("{} finishes", figures::count(n)),
                    },
                    figures::plural(counts.resets, "reset"),
                ),
            ),
            row(
                "device",
                format!(
                    "flushed {}, closed and opened again {}",
                    times(counts.flushes),
                    times(counts.reopens)
                ),
            ),
            row("seconds", format!("{:.3}", verified.seconds)),
        ],
    )
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{} times", figures::count(n)),
    }
}

fn conclusion(verified: &Verified) -> String {
    let mut text = String::new();
    match verified.writing {
        Writing::Appends => {}
        Writing::EmulatedAppends => {
            text += "The appends were emulated by this tool: writes at the write pointers.\n";
        }
        Writing::Writes => {
            text += "The device takes no appends: all was written at the write pointers.\n";
        }
    }
    if !verified.findings.is_empty() {
        text += &failed(verified);
        return text;
    }
    if verified.interrupted {
        text += "Interrupted: what was verified until then is right.\n";
    } else if verified.counts.appends + verified.counts.writes == 0 {
        text += "Nothing was written, so nothing was verified: give it more time.\n";
    } else {
        text += "All records are where the device said, whole, and nothing else is.\n";
    }
    text
}

fn failed(verified: &Verified) -> String {
    let mut text = format!("FAILED in round {}", verified.rounds);
    if verified.findings_total > 1 {
        text += &format!(", {} findings", figures::count(verified.findings_total));
    }
    text.push('\n');
    for finding in &verified.findings {
        text += &format!("\n{}\n", finding.kind.name());
        text += &wrapped(&finding.text);
        if let Some(evidence) = &finding.evidence {
            text += &proof(evidence, verified.settings.seed);
        }
    }
    let left = verified.findings_total - verified.findings.len() as u64;
    if left > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\nand {} more", figures::count(left));
    }
    text += &format!(
        "\nreproduce: {}\n",
        verified.settings.reproduction(verified.rounds)
    );
    text
}

/// What was expected and what was found, in words and in bytes.
fn proof(evidence: &Evidence, seed: u64) -> String {
    let mut text = wrapped(&format!("expected {}", describe(&evidence.expected)));
    text += &wrapped(&format!("found    {}", evidence.found.describe(seed)));
    if let Some(difference) = &evidence.difference {
        text += &dump("expected", difference.offset, &difference.expected);
        text += &dump("found", difference.offset, &difference.found);
    }
    text
}

/// Bytes, 16 in a line, after where in the sector they are.
fn dump(name: &str, offset: usize, bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        let name = if i == 0 { name } else { "" };
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let at = offset + 16 * i;
        let _ = writeln!(text, "  {name:<8} {at:03x}  {}", bytes.join(" "));
    }
    text
}

/// A sentence in lines that fit a terminal, indented by two.
fn wrapped(sentence: &str) -> String {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent("  ")
        .subsequent_indent("    ")
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(sentence, options) + "\n"
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    machine: MachineRecord,
    device: DeviceRecord,
    config: Config,
    interrupted: bool,
    results: [ResultRecord; 1],
}

#[derive(Serialize)]
struct Config {
    device: String,
    seed: u64,
    duration_seconds: Option<f64>,
    rounds: Option<u32>,
    tasks: u32,
    depth: u32,
    zones: u32,
    queues: u16,
    destroy: bool,
}

#[derive(Serialize)]
struct ResultRecord {
    op: &'static str,
    /// `pass`, `fail`, or `interrupted`: what was verified by then was right.
    verdict: &'static str,
    rounds: u32,
    seconds: f64,
    /// `native`, `emulated`, or `none` where all was written at the write pointers.
    append: &'static str,
    records_written: u64,
    appends: u64,
    writes: u64,
    bytes_written: u64,
    records_verified: u64,
    bytes_verified: u64,
    zone_reports: u64,
    zone_opens: u64,
    zone_closes: u64,
    zone_finishes: u64,
    zone_resets: u64,
    flushes: u64,
    reopens: u64,
    findings_total: u64,
    findings: Vec<FindingRecord>,
    reproduce: Option<String>,
}

#[derive(Serialize)]
struct FindingRecord {
    kind: &'static str,
    zone: Option<u32>,
    sector: Option<u64>,
    text: String,
    expected: Option<StampRecord>,
    /// `record`, `zeroes` or `unknown`.
    found: Option<&'static str>,
    found_record: Option<StampRecord>,
    difference: Option<DifferenceRecord>,
}

#[derive(Serialize)]
struct StampRecord {
    seed: u64,
    round: u32,
    zone: u32,
    task: u32,
    sequence: u32,
    index: u32,
    sectors: u32,
}

#[derive(Serialize)]
struct DifferenceRecord {
    offset: usize,
    expected: String,
    found: String,
}

impl From<&Stamp> for StampRecord {
    fn from(stamp: &Stamp) -> Self {
        Self {
            seed: stamp.seed,
            round: stamp.round,
            zone: stamp.zone,
            task: stamp.task,
            sequence: stamp.sequence,
            index: stamp.index,
            sectors: stamp.sectors,
        }
    }
}

impl From<&Difference> for DifferenceRecord {
    fn from(difference: &Difference) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            offset: difference.offset,
            expected: hex(&difference.expected),
            found: hex(&difference.found),
        }
    }
}

impl From<&Finding> for FindingRecord {
    fn from(finding: &Finding) -> Self {
        let evidence = finding.evidence.as_ref();
        let found = evidence.map(|evidence| &evidence.found);
        Self {
            kind: finding.kind.name(),
            zone: finding.zone,
            sector: finding.sector,
            text: finding.text.clone(),
            expected: evidence.map(|evidence| StampRecord::from(&evidence.expected)),
            found: found.map(|found| match found {
                Content::Record(_) => "record",
                Content::Zeroes => "zeroes",
                Content::Unknown => "unknown",
            }),
            found_record: match found {
                Some(Content::Record(stamp)) => Some(StampRecord::from(stamp)),
                _ => None,
            },
            difference: evidence
                .and_then(|evidence| evidence.difference.as_ref())
                .map(DifferenceRecord::from),
        }
    }
}

/// Prints the result as JSON.
pub(crate) fn json(verified: &Verified) -> Result<(), Failure> {
    let (settings, counts) = (&verified.settings, &verified.counts);
    print_json(&Document {
        schema: SCHEMA,
        machine: MachineRecord::here(),
        device: DeviceRecord::from(&*verified.info),
        config: Config {
            device: settings.device.clone(),
            seed: settings.seed,
            duration_seconds: settings.duration.map(|time| time.as_secs_f64()),
            rounds: settings.rounds,
            tasks: settings.tasks,
            depth: settings.depth,
            zones: verified.zones,
            queues: settings.queues,
            destroy: settings.destroy,
        },
        interrupted: verified.interrupted,
        results: [ResultRecord {
            op: "verify",
            verdict: match verified.findings_total {
                0 if verified.interrupted => "interrupted",
                0 => "pass",
                _ => "fail",
            },
            rounds: verified.rounds,
            seconds: verified.seconds,
            append: match verified.writing {
                Writing::Appends => "native",
                Writing::EmulatedAppends => "emulated",
                Writing::Writes => "none",
            },
            records_written: counts.appends + counts.writes,
            appends: counts.appends,
            writes: counts.writes,
            bytes_written: counts.bytes_written,
            records_verified: counts.records_verified,
            bytes_verified: counts.bytes_verified,
            zone_reports: counts.zones_reported,
            zone_opens: counts.opens,
            zone_closes: counts.closes,
            zone_finishes: counts.finishes,
            zone_resets: counts.resets,
            flushes: counts.flushes,
            reopens: counts.reopens,
            findings_total: verified.findings_total,
            findings: verified.findings.iter().map(FindingRecord::from).collect(),
            reproduce: (verified.findings_total > 0)
                .then(|| settings.reproduction(verified.rounds)),
        }],
    })
}
