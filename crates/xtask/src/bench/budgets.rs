//! What requests may cost, and what they do cost. The numbers are the design's; whoever changes one
//! changes what the project promises.

use std::fmt;

use Limit::{AtLeast, AtMost, LessThan};

/// What has a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    SplitLayer,
    PackedLayer,
    SplitLayerAlone,
    PackedLayerAlone,
    IoQueue,
    ZonedDevice,
    Allocations,
    SystemCalls,
    Doorbells,
    DoorbellsWhileBusy,
    GuestInstructions,
    GuestOverLibblkio,
    GuestOverKernel,
    GuestAppendOverWrite,
    GuestRequestsPerDoorbell,
    IdleCpu,
    EmulatedMemory,
    EmulatedNull,
}

/// How a budget is meant.
#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
    LessThan(f64),
}

const ALL: &[(Budget, Limit, &str)] = &[
    (
        Budget::SplitLayer,
        AtMost(80.0),
        "instructions per request, ring and virtio-blk layer, split, indirect, depth >= 32",
    ),
    (
        Budget::PackedLayer,
        AtMost(100.0),
        "the same, packed, indirect",
    ),
    (
        Budget::SplitLayerAlone,
        AtMost(180.0),
        "the same at depth 1, split",
    ),
    (
        Budget::PackedLayerAlone,
        AtMost(215.0),
        "the same at depth 1, packed",
    ),
    (
        Budget::IoQueue,
        AtMost(180.0),
        "instructions per request, IoQueue, the whole of it, depth >= 32",
    ),
    (
        Budget::ZonedDevice,
        AtMost(350.0),
        "instructions per request, ZonedDevice on a thread that owns its queue, depth >= 32",
    ),
    (
        Budget::Allocations,
        AtMost(0.0),
        "allocations per request, polled, steady state",
    ),
    (
        Budget::SystemCalls,
        AtMost(0.0),
        "system calls per request, polled, steady state",
    ),
    (
        Budget::Doorbells,
        AtMost(1.0 / 8.0),
        "doorbells per request at depth 32",
    ),
    (
        Budget::DoorbellsWhileBusy,
        AtMost(1.0 / 32.0),
        "the same, each request published by itself while the device is busy: one in 32",
    ),
    (
        Budget::GuestInstructions,
        AtMost(500.0),
        "guest instructions per request, depth 32, polling included, appends as reads",
    ),
    (
        Budget::GuestOverLibblkio,
        AtLeast(1.0),
        "guest, sequential write and read, depth 32, default merging, over libblkio",
    ),
    (
        Budget::GuestOverKernel,
        AtLeast(4.0),
        "the same over the kernel's io_uring, a system call a request",
    ),
    (
        Budget::GuestAppendOverWrite,
        AtLeast(0.95),
        "guest, append over own write, depth 32, merging off",
    ),
    (
        Budget::GuestRequestsPerDoorbell,
        AtLeast(24.0),
        "guest, requests per doorbell, depth 32",
    ),
    (
        Budget::IdleCpu,
        LessThan(1.0),
        "adaptive wait: CPU of an idle open device, per cent",
    ),
    (
        Budget::EmulatedMemory,
        AtLeast(0.5),
        "software device on its own thread, memory store, 4 KiB append, over memcpy",
    ),
    (
        Budget::EmulatedNull,
        AtLeast(4.0),
        "the same, null store, depth 128, millions a second",
    ),
];

impl Limit {
    fn allows(self, value: f64) -> bool {
        match self {
            AtMost(most) => value <= most,
            AtLeast(least) => value >= least,
            LessThan(bound) => value < bound,
        }
    }

    /// The one of two values that is further from being allowed.
    fn worse(self, a: f64, b: f64) -> bool {
        match self {
            AtMost(_) | LessThan(_) => a > b,
            AtLeast(_) => a < b,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, limit) = match self {
            AtMost(limit) => ("<=", limit),
            AtLeast(limit) => (">=", limit),
            LessThan(limit) => ("<", limit),
        };
        f.pad(&format!("{sign} {}", rounded(*limit)))
    }
}

struct Measured {
    budget: Budget,
    value: f64,
    /// Of what.
    case: String,
}

/// What has been measured.
#[derive(Default)]
pub(crate) struct Budgets(Vec<Measured>);

impl Budgets {
    /// Notes what something costs. Where it is noted for several cases, all have to keep to the
    /// budget.
    pub(crate) fn note(&mut self, budget: Budget, value: f64, case: impl Into<String>) {
        self.0.push(Measured {
            budget,
            value,
            case: case.into(),
        });
    }

    pub(crate) fn missed(&self) -> usize {
        let missed =
            |budget: Budget, limit: Limit| self.of(budget).any(|one| !limit.allows(one.value));
        let missed = |(budget, limit, _): &&(Budget, Limit, &str)| missed(*budget, *limit);
        ALL.iter().filter(missed).count()
    }

    /// Prints all budgets, each with the worst of what was measured.
    pub(crate) fn print(&self) {
        println!("\nbudgets, and the worst of what was measured");
        for (budget, limit, what) in ALL {
            let worst = self
                .of(*budget)
                .reduce(|a, b| if limit.worse(b.value, a.value) { b } else { a });
            match worst {
                None => println!("  {:>16} {limit:>9}  {what}", "not measured"),
                Some(worst) => {
                    let verdict = match limit.allows(worst.value) {
                        true => "met",
                        false => "MISSED",
                    };
                    let count = self.of(*budget).count();
                    println!(
                        "  {verdict:6} {:>9} {limit:>9}  {what}\n{:30}{} (of {count})",
                        rounded(worst.value),
                        "",
                        worst.case
                    );
                }
            }
        }
    }

    fn of(&self, budget: Budget) -> impl Iterator<Item = &Measured> {
        self.0.iter().filter(move |one| one.budget == budget)
    }
}

/// With as many digits as are of interest.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.1 => format!("{value:.4}"),
        some if some < 20.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_missed_if_one_of_its_cases_is() {
        let mut budgets = Budgets::default();
        budgets.note(Budget::Allocations, 0.0, "");
        budgets.note(Budget::IoQueue, 180.0, "");
        budgets.note(Budget::EmulatedNull, 4.0, "");
        assert_eq!(budgets.missed(), 0);
        budgets.note(Budget::IoQueue, 180.1, "");
        budgets.note(Budget::IoQueue, 150.0, "");
        assert_eq!(budgets.missed(), 1);
        budgets.note(Budget::EmulatedNull, 3.9, "");
        budgets.note(Budget::Allocations, 0.001, "");
        assert_eq!(budgets.missed(), 3);
    }
}
