//! The conformance of a device as text, JSON or JUnit.

use std::fmt::Write;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use zbd_check::{Device, Exchange, Model, Outcome, Requirement, section_title};

use super::{SCHEMA, WIDTH, print, print_json};
use crate::{cli::CheckFormat, failure::Failure};

/// What was found.
pub(crate) struct Checked<'a> {
    /// The device as it was named.
    device: &'a str,
    facts: Device,
    /// How many requirements were to be looked at.
    pub(crate) selected: usize,
    pub(crate) results: Vec<(&'static Requirement, Outcome)>,
    pub(crate) is_interrupted: bool,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(device: &'a str, facts: &Device, selected: usize) -> Self {
        Self {
            device,
            facts: facts.clone(),
            selected,
            results: Vec::new(),
            is_interrupted: false,
        }
    }

    fn count(&self, holds: impl Fn(&Requirement, &Outcome) -> bool) -> usize {
        let results = self.results.iter();
        results.filter(|(it, outcome)| holds(it, outcome)).count()
    }

    /// How many of those that bind a device are not met.
    pub(crate) fn failed(&self) -> usize {
        self.count(|it, outcome| it.level.is_binding() && matches!(outcome, Outcome::Fail(_)))
    }

    /// How many of those that should be met are not.
    pub(crate) fn warnings(&self) -> usize {
        self.count(|it, outcome| !it.level.is_binding() && matches!(outcome, Outcome::Fail(_)))
    }

    fn summary(&self) -> Summary {
        Summary {
            requirements: self.selected,
            met: self.count(|_, outcome| *outcome == Outcome::Pass),
            failed: self.failed(),
            warnings: self.warnings(),
            not_applicable: self.count(|_, it| matches!(it, Outcome::NotApplicable(_))),
            undecidable: self.count(|_, it| matches!(it, Outcome::Undecidable(..))),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    requirements: usize,
    met: usize,
    failed: usize,
    warnings: usize,
    not_applicable: usize,
    undecidable: usize,
}

/// The requirements in the order of their sections, with what is there of each.
fn by_section<T>(results: &[T], section: impl Fn(&T) -> &'static str) -> Vec<(&'static str, &[T])> {
    results
        .chunk_by(|a, b| section(a) == section(b))
        .map(|chunk| (section(&chunk[0]), chunk))
        .collect()
}

/// Adds `text` after `first`, its lines no wider than a terminal, those that follow indented.
fn wrapped(out: &mut String, first: &str, indent: usize, text: &str) {
    let indent = " ".repeat(indent);
    let options = textwrap::Options::new(WIDTH.into())
        .initial_indent(first)
        .subsequent_indent(&indent);
    for line in textwrap::wrap(text, options) {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Prints the requirements.
pub(crate) fn list(selected: &[&Requirement], format: CheckFormat) -> Result<(), Failure> {
    if format == CheckFormat::Json {
        #[derive(Serialize)]
        struct List<'a> {
            schema: &'static str,
            requirements: Vec<Named<'a>>,
        }
        return print_json(&List {
            schema: SCHEMA,
            requirements: selected.iter().map(|it| named(it)).collect(),
        });
    }
    if format == CheckFormat::Junit {
        return Err(Failure::usage(
            "--list is printed as text or JSON: JUnit is for results",
        ));
    }
    let mut out = String::new();
    for (section, requirements) in by_section(selected, |it| it.section) {
        let _ = writeln!(out, "VIRTIO 1.3, {section}  {}", section_title(section));
        for it in requirements {
            let _ = writeln!(out, "  {:<8} {}", it.level, it.id);
            wrapped(&mut out, &" ".repeat(11), 11, it.text);
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{} requirements", selected.len());
    print(&out)
}

/// Prints what was found for people to read.
pub(crate) fn text(checked: &Checked<'_>) -> Result<(), Failure> {
    let mut out = String::new();
    describe(&mut out, checked);
    for (section, results) in by_section(&checked.results, |(it, _)| it.section) {
        let _ = writeln!(out, "\nVIRTIO 1.3, {section}  {}", section_title(section));
        for (it, outcome) in results {
            result(&mut out, it, outcome);
        }
    }
    let sum = checked.summary();
    let _ = writeln!(
        out,
        "\n{} requirements: {} met, {} not met, {} warnings,\n{} not applicable, {} not decidable \
         here",
        checked.results.len(),
        sum.met,
        sum.failed,
        sum.warnings,
        sum.not_applicable,
        sum.undecidable
    );
    if checked.is_interrupted {
        let left = checked.selected - checked.results.len();
        let _ = writeln!(out, "interrupted: {left} more were not looked at");
    }
    print(&out)
}

fn describe(out: &mut String, checked: &Checked<'_>) {
    let facts = &checked.facts;
    let mut text = format!("{} sectors", facts.capacity_sectors);
    if facts.is_zoned() {
        let limit = |limit: u64| match limit {
            0 => "any number".to_owned(),
            limit => limit.to_string(),
        };
        let _ = write!(
            text,
            ", {}, {} zones of {} sectors, {} may be open and {} active, appends of up to {} \
             sectors",
            model(facts.model),
            facts.zone_count(),
            facts.zone_sectors(),
            limit(facts.max_open()),
            limit(facts.max_active()),
            facts.max_append_sectors()
        );
    } else {
        let _ = write!(text, ", {}", model(facts.model));
    }
    wrapped(out, "", 2, checked.device);
    wrapped(out, "  ", 2, &text);
}

fn model(model: Model) -> &'static str {
    match model {
        Model::HostManaged => "host-managed",
        Model::HostAware => "host-aware",
        Model::None => "without a zoned model",
        _ => "not zoned",
    }
}

fn mark(it: &Requirement, outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "ok",
        Outcome::Fail(_) if it.level.is_binding() => "FAIL",
        Outcome::Fail(_) => "warn",
        Outcome::NotApplicable(_) => "n/a",
        Outcome::Undecidable(..) => "open",
    }
}

fn result(out: &mut String, it: &Requirement, outcome: &Outcome) {
    const INDENT: usize = 16;
    let first = format!("  {:<4} {:<8} ", mark(it, outcome), it.level);
    match outcome {
        Outcome::Pass => wrapped(out, &first, INDENT, it.id),
        Outcome::NotApplicable(why) | Outcome::Undecidable(why, _) => {
            wrapped(out, &first, INDENT, &format!("{}: {why}", it.id));
        }
        Outcome::Fail(evidence) => {
            wrapped(out, &first, INDENT, it.id);
            let lines = [
                ("", it.text),
                ("required: ", &evidence.required),
                ("found: ", &evidence.found),
            ];
            for (name, text) in lines {
                wrapped(out, &format!("{:INDENT$}{name}", ""), INDENT + 2, text);
            }
            for (exchange, number) in evidence.exchanges.iter().zip(1..) {
                let first = format!("{:INDENT$}{number}. ", "");
                wrapped(out, &first, INDENT + 3, &exchange.to_string());
            }
        }
    }
}

/// Who a requirement is.
#[derive(Serialize)]
struct Named<'a> {
    id: &'a str,
    section: &'a str,
    clause: String,
    level: &'a str,
    binding: bool,
    text: &'a str,
}

fn named(it: &Requirement) -> Named<'_> {
    Named {
        id: it.id,
        section: it.section,
        clause: it.clause(),
        level: it.level.name(),
        binding: it.level.is_binding(),
        text: it.text,
    }
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requests: Vec<Sent<'a>>,
}

/// A request and its answer.
#[derive(Serialize)]
struct Sent<'a> {
    r#type: u32,
    type_name: &'a str,
    sector: u64,
    readable_bytes: &'a [u32],
    writable_bytes: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_header: Option<&'a [u8]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<&'a str>,
}

impl<'a> From<&'a Exchange> for Sent<'a> {
    fn from(exchange: &'a Exchange) -> Self {
        let answer = exchange.answer.as_ref();
        Self {
            r#type: exchange.kind,
            type_name: exchange.kind_name(),
            sector: exchange.sector,
            readable_bytes: &exchange.readable,
            writable_bytes: &exchange.writable,
            status: answer.ok().map(|it| it.status),
            status_name: answer.ok().map(|it| it.status_name()),
            in_header: answer.ok().map(|it| &it.in_header[..]),
            used_length: answer.ok().map(|it| it.used_len),
            unanswered: answer.err().map(String::as_str),
        }
    }
}

impl<'a> Record<'a> {
    fn new(it: &'a Requirement, outcome: &'a Outcome) -> Self {
        let (why, evidence, exchanges) = match outcome {
            Outcome::Pass => (None, None, &[][..]),
            Outcome::Fail(evidence) => (None, Some(evidence), &evidence.exchanges[..]),
            Outcome::NotApplicable(why) => (Some(why.as_str()), None, &[][..]),
            Outcome::Undecidable(why, exchanges) => (Some(why.as_str()), None, &exchanges[..]),
        };
        Self {
            named: named(it),
            outcome: outcome.name(),
            why,
            required: evidence.map(|it| it.required.as_str()),
            found: evidence.map(|it| it.found.as_str()),
            requests: exchanges.iter().map(Sent::from).collect(),
        }
    }
}

/// Prints what was found as JSON.
pub(crate) fn json(checked: &Checked<'_>) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Described<'a> {
        name: &'a str,
        model: &'a str,
        capacity_sectors: u64,
        zones: u64,
        zone_sectors: u64,
        features_offered: u64,
        features_accepted: u64,
    }
    #[derive(Serialize)]
    struct Printed<'a> {
        schema: &'static str,
        device: Described<'a>,
        requirements: Vec<Record<'a>>,
        summary: Summary,
        interrupted: bool,
    }
    let facts = &checked.facts;
    print_json(&Printed {
        schema: SCHEMA,
        device: Described {
            name: checked.device,
            model: model(facts.model),
            capacity_sectors: facts.capacity_sectors,
            zones: facts.zone_count(),
            zone_sectors: facts.zone_sectors(),
            features_offered: facts.offered.bits(),
            features_accepted: facts.accepted.bits(),
        },
        requirements: checked
            .results
            .iter()
            .map(|(it, outcome)| Record::new(it, outcome))
            .collect(),
        summary: checked.summary(),
        interrupted: checked.is_interrupted,
    })
}

/// Prints what was found as JUnit: what should be and is not is skipped there, with its evidence, so
/// that it does not make a build fail.
pub(crate) fn junit(checked: &Checked<'_>) -> Result<(), Failure> {
    let mut report = Report::new("zbd-bench check");
    for (section, results) in by_section(&checked.results, |(it, _)| it.section) {
        let mut suite = TestSuite::new(format!("VIRTIO 1.3, {section}"));
        for (it, outcome) in results {
            let mut status = match outcome {
                Outcome::Pass => TestCaseStatus::success(),
                Outcome::Fail(_) if it.level.is_binding() => {
                    TestCaseStatus::non_success(NonSuccessKind::Failure)
                }
                _ => TestCaseStatus::skipped(),
            };
            match outcome {
                Outcome::Pass => {}
                Outcome::Fail(evidence) => {
                    let mut told = format!("{}\nrequired: {}\n", it.text, evidence.required);
                    for exchange in &evidence.exchanges {
                        let _ = writeln!(told, "{exchange}");
                    }
                    status
                        .set_type(it.level.name())
                        .set_message(evidence.found.as_str())
                        .set_description(told);
                }
                Outcome::NotApplicable(why) | Outcome::Undecidable(why, _) => {
                    status.set_type(outcome.name()).set_message(why.as_str());
                }
            }
            let mut case = TestCase::new(it.id, status);
            case.set_classname(checked.device);
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    let text = report
        .to_string()
        .map_err(|error| Failure::io(format!("cannot write the result: {error}")))?;
    print(&text)
}
