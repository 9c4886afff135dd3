//! What zone management costs, for people.

use std::fmt::Write;

use zbd_core::{AppendSupport, Backend};

use crate::{
    failure::Failure,
    job::select,
    report::{figures, machine::MachineRecord, print, table, wrapped},
    spread::Spread,
    zoneops::{
        Finished, Load, Sampled,
        call::report_requests,
        figures::{Beside, Side, side},
        operation::{Fill, Operation},
        plan,
    },
};

/// From so many samples on the slowest of a hundred is told apart from the slowest of all.
const ENOUGH_FOR_P99: u64 = 100;
/// From so many rounds on something is concluded from what they have in common.
const ENOUGH_ROUNDS: usize = 3;

/// Prints what was measured.
pub(crate) fn zoneops(finished: &Finished) -> Result<(), Failure> {
    let mut text = head(finished);
    text.push('\n');
    text += &alone(finished);
    if let Some(load) = &finished.load {
        text.push('\n');
        text += &beside(finished, load);
    }
    text.push('\n');
    text += &sentences(finished);
    text.push('\n');
    text += &MachineRecord::here().text();
    print(&text)
}

fn head(finished: &Finished) -> String {
    let info = &finished.info;
    let mut text = format!("{} ({})\n", info.name, info.backend.name());
    if let Some(zoned) = &info.zoned {
        let capacity = finished
            .zones
            .first()
            .map_or(0, |zone| zone.capacity.bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} of {}, {} of them used, with a capacity of {} each",
            figures::plural(zoned.zone_count.into(), "zone"),
            figures::bytes(zoned.zone_size.bytes()),
            finished.zones.len(),
            figures::bytes(capacity),
        );
    }
    text
}

/// What the operation is called, short enough for a table.
fn label(sampled: &Sampled) -> String {
    match sampled.operation {
        Operation::ReportAll => {
            format!("report, {}", figures::plural(sampled.zones.into(), "zone"))
        }
        Operation::ReportOne => "report, 1 zone".to_owned(),
        Operation::OpenEmpty => "open, empty".to_owned(),
        Operation::OpenClosed => "open, closed".to_owned(),
        Operation::Close => "close".to_owned(),
        Operation::Finish(fill) => format!("finish, {}", level(fill)),
        Operation::Reset(fill) => format!("reset, {}", level(fill)),
        Operation::ResetAll => format!("reset-all, {} full", sampled.zones),
        Operation::Flush => "flush".to_owned(),
    }
}

fn level(fill: Fill) -> &'static str {
    match fill {
        Fill::Nothing => "empty",
        Fill::OneBlock => "1 block",
        Fill::Quarter => "25 %",
        Fill::Half => "50 %",
        Fill::ThreeQuarters => "75 %",
        Fill::AllButOneBlock => "1 block left",
        Fill::All => "full",
    }
}

fn alone(finished: &Finished) -> String {
    let heads = ["alone", "written", "samples", "min", "p50", "p99", "max"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for sampled in &finished.results {
        let latency = &sampled.latency;
        let count = latency.count();
        let mut row = vec![label(sampled), written(sampled), figures::count(count)];
        let times = [
            Some(latency.min()),
            Some(latency.percentile(50.0)),
            (count >= ENOUGH_FOR_P99).then(|| latency.percentile(99.0)),
            Some(latency.max()),
        ];
        row.extend(times.map(|ns| match ns {
            Some(ns) if count > 0 => figures::time(ns as f64),
            _ => "-".to_owned(),
        }));
        rows.push(row);
    }
    table(1, rows)
}

fn written(sampled: &Sampled) -> String {
    match sampled.fill {
        0 => "-".to_owned(),
        bytes => figures::bytes(bytes),
    }
}

fn beside(finished: &Finished, load: &Load) -> String {
    let plan = &finished.plan;
    let kind = load.kind.name();
    let mut text = match average_alone(finished) {
        None => String::new(),
        Some(alone) => wrapped(&format!(
            "Beside {kind}s of {}, depth {}, to {}: alone {} IOPS (rounds {}..{}).",
            figures::bytes(plan.block_size.into()),
            plan.depth,
            figures::plural(load.zones.into(), "zone"),
            figures::count(alone.median as u64),
            figures::count(alone.min as u64),
            figures::count(alone.max as u64),
        )),
    };
    let heads = [
        "repeated",
        "times",
        "p50",
        &format!("{kind} IOPS"),
        &format!("{kind} p99"),
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for sampled in &finished.results {
        let Some(beside) = &sampled.beside else {
            continue;
        };
        let operations = &beside.loaded.operations;
        let telling = |of: Spread| match beside.is_telling(plan.depth) {
            true => spread(of),
            false => "too short".to_owned(),
        };
        rows.push(vec![
            repeated(sampled),
            figures::count(operations.count()),
            match operations.count() {
                0 => "-".to_owned(),
                _ => figures::time(operations.percentile(50.0) as f64),
            },
            telling(beside.iops_ratio()),
            telling(beside.p99_ratio()),
        ]);
    }
    text.push('\n');
    text += &table(1, rows);
    text
}

/// What was repeated, with what makes the zone ready again.
fn repeated(sampled: &Sampled) -> String {
    match sampled.operation {
        Operation::OpenEmpty => "open + close, empty".to_owned(),
        Operation::OpenClosed => "open + close, 1 block".to_owned(),
        Operation::Close => "close + open, 1 block".to_owned(),
        Operation::Finish(Fill::Nothing) => "finish + reset, empty".to_owned(),
        Operation::Finish(Fill::OneBlock) => "write + finish + reset".to_owned(),
        Operation::Reset(Fill::OneBlock) => "write + reset".to_owned(),
        _ => label(sampled),
    }
}

/// A ratio with its extremes.
fn spread(Spread { median, min, max }: Spread) -> String {
    format!("{} ({}..{})", ratio(median), ratio(min), ratio(max))
}

fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 9.995 => format!("{ratio:.2}"),
        ratio if ratio < 99.95 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

/// The rate of the appends alone, over all rounds of all operations.
fn average_alone(finished: &Finished) -> Option<Spread> {
    let besides = finished
        .results
        .iter()
        .filter_map(|one| one.beside.as_ref());
    let rounds = besides.flat_map(|beside| &beside.rounds);
    let mut rounds = rounds.map(|round| round.alone.iops).peekable();
    rounds.peek()?;
    Some(Spread::of(rounds))
}

fn sentences(finished: &Finished) -> String {
    let mut text = String::new();
    let mut say = |sentence: &str| text += &wrapped(sentence);
    say(
        "Alone: each sample is one operation with nothing else in flight, from its submission to \
         the poll that found it completed. What was written to a zone before is not part of it.",
    );
    device_sentence(finished, &mut say);
    let most = finished.results.iter().map(|one| one.latency.count()).max();
    if most.is_some_and(|most| most < ENOUGH_FOR_P99) {
        say(&format!(
            "A p99 takes {ENOUGH_FOR_P99} samples; --repeat {ENOUGH_FOR_P99} takes them."
        ));
    }
    let fewer = |one: &&Sampled| one.latency.count() < finished.plan.repeat && one.fill > 0;
    let complete = finished.trouble.is_none() && !finished.interrupted;
    if complete
        && finished
            .results
            .iter()
            .filter(|one| one.refused.is_none())
            .any(|one| fewer(&one))
    {
        say(&format!(
            "Where there are fewer samples than {}, more would have taken more than {} of writes \
             (--fill-limit).",
            finished.plan.repeat,
            figures::bytes(finished.plan.fill_limit)
        ));
    }
    for refused in finished
        .results
        .iter()
        .filter_map(|one| one.refused.as_ref())
    {
        say(&format!(
            "This device does not finish an empty zone, and need not: {refused}."
        ));
    }
    if let Some(load) = &finished.load {
        load_sentences(finished, load, &mut say);
    }
    for note in &finished.notes {
        say(note);
    }
    end_sentence(finished, &mut say);
    text
}

fn device_sentence(finished: &Finished, say: &mut impl FnMut(&str)) {
    match finished.info.backend {
        Backend::Emulated => say(
            "The device is a thread of this process, not hardware; that it is woken and gets a \
             processor is part of what an operation takes.",
        ),
        Backend::Kernel => say(
            "Zone commands are ioctls on a thread of this process; that it is woken and gets a \
             processor is part of what an operation takes.",
        ),
        _ => {}
    }
    if let Some(zoned) = &finished.info.zoned
        && finished
            .results
            .iter()
            .any(|one| one.operation == Operation::ReportAll)
    {
        let requests = report_requests(zoned.zone_count);
        if requests > 1 {
            say(&format!(
                "All zones are reported in {requests} requests, whose times are added up."
            ));
        }
    }
}

fn load_sentences(finished: &Finished, load: &Load, say: &mut impl FnMut(&str)) {
    let kind = load.kind.name();
    let queues = if load.shared {
        "The device has one queue, which both share"
    } else {
        "They have a queue each"
    };
    say(&format!(
        "Beside: one thread keeps the {kind}s at their depth and repeats the operation on other \
         zones without a break, with what makes a zone ready again where that is little. {queues}. \
         IOPS and p99 are those of the {kind}s, as multiples of what they are alone, in pairs of \
         windows in turn: the median of the rounds (least..greatest).",
    ));
    let too_short = |beside: &Beside| !beside.is_telling(finished.plan.depth);
    let besides = finished
        .results
        .iter()
        .filter_map(|one| one.beside.as_ref());
    if besides.into_iter().any(too_short) {
        say(&format!(
            "Too short: where zones must be filled first, a window lasts for as many as there are, \
             and here not even as long as 8 turns of the {kind}s' queue. More --zones or a lower \
             --depth help.",
        ));
    }
    let emulated = |zoned: &zbd_core::ZonedInfo| zoned.append == AppendSupport::Emulated;
    if load.kind == plan::Beside::Appends && finished.info.zoned.as_ref().is_some_and(emulated) {
        say("An append here is a write, one at a time in each zone.");
    }
    if load.kind == plan::Beside::Writes {
        say("The zones take no appends, so these are writes.");
    }
    say(&conclusion(finished, kind));
    if finished
        .results
        .iter()
        .any(|one| !one.operation.goes_beside())
    {
        say(&format!(
            "reset-all would empty the zones of the {kind}s and is not repeated beside them."
        ));
    }
}

/// What can be said of the influence, and what cannot.
fn conclusion(finished: &Finished, kind: &str) -> String {
    let on_side = |wanted: Side, of: fn(&Beside) -> Spread| -> Vec<String> {
        let results = finished.results.iter();
        results
            .filter(|one| {
                let beside = one.beside.as_ref();
                let telling = beside.filter(|beside| {
                    beside.is_telling(finished.plan.depth) && beside.rounds.len() >= ENOUGH_ROUNDS
                });
                telling.is_some_and(|beside| side(of(beside)) == wanted)
            })
            .map(|one| repeated(one).replace(", ", " "))
            .collect()
    };
    let slower = on_side(Side::Below, Beside::iops_ratio);
    let later = on_side(Side::Above, Beside::p99_ratio);
    let mut text = match slower.as_slice() {
        [] => format!("No operation made the {kind}s slower in every round"),
        some => format!(
            "In every round fewer {kind}s were completed beside: {}",
            some.join(", ")
        ),
    };
    text += match later.as_slice() {
        [] => "; none made their p99 longer in every round.".to_owned(),
        some => format!(
            ". In every round their p99 was longer beside: {}.",
            some.join(", ")
        ),
    }
    .as_str();
    text
}

fn end_sentence(finished: &Finished, say: &mut impl FnMut(&str)) {
    let interrupted = if finished.interrupted {
        "Interrupted after"
    } else {
        "It took"
    };
    say(&format!(
        "{interrupted} {}, with {} written to fill zones.",
        figures::time(finished.time.as_nanos() as f64),
        figures::bytes(finished.filled)
    ));
    let zones = select::names(&finished.zones);
    say(&match &finished.not_emptied {
        None => format!("The zones that were used are empty now: {zones}."),
        Some(why) => format!("The zones that were used ({zones}) may not be empty: {why}."),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_as_many_digits_as_they_deserve() {
        assert_eq!(ratio(0.994), "0.99");
        assert_eq!(ratio(9.999), "10.0");
        assert_eq!(ratio(123.4), "123");
    }
}
