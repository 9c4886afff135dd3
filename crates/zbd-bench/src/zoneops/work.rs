//! What is repeated beside appends: an operation, and what makes its zone ready again.

use zbd_core::{Zone, ZoneAction};

use super::{
    call::Call,
    hands::Used,
    operation::{Fill, Operation},
};

/// What is repeated on a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The operation that is measured.
    Operation,
    /// What makes its zone ready again.
    Manage(ZoneAction),
    WriteBlock,
}

/// What is repeated for an operation.
pub(super) fn cycle(operation: Operation) -> &'static [Step] {
    use Step::{Manage, WriteBlock};
    match operation {
        Operation::OpenEmpty | Operation::OpenClosed => {
            &[Step::Operation, Manage(ZoneAction::Close)]
        }
        Operation::Close => &[Step::Operation, Manage(ZoneAction::Open)],
        Operation::Finish(Fill::Nothing) => &[Step::Operation, Manage(ZoneAction::Reset)],
        Operation::Finish(Fill::OneBlock) => {
            &[WriteBlock, Step::Operation, Manage(ZoneAction::Reset)]
        }
        Operation::Reset(Fill::OneBlock) => &[WriteBlock, Step::Operation],
        _ => &[Step::Operation],
    }
}

/// Whether windows last as long as there are zones that were made ready before.
pub(super) fn uses_up_zones(operation: Operation) -> bool {
    operation.action().is_some() && cycle(operation).len() == 1
}

/// The operations of a window.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) operation: Operation,
    pub(super) steps: &'static [Step],
    pub(super) zones: &'a [Used],
    /// The step that comes next, or is under way, of all that there have been.
    pub(super) step: usize,
    /// The operation that is under way, if it is the operation.
    pub(super) call: Option<Call>,
    /// When the request in flight was submitted.
    pub(super) submitted: Option<u64>,
    /// What the operation's former requests took.
    pub(super) spent: u64,
    pub(super) ended: u64,
}

impl<'a> Work<'a> {
    pub(super) fn new(operation: Operation, zones: &'a [Used]) -> Self {
        Self {
            operation,
            steps: cycle(operation),
            zones,
            step: 0,
            call: None,
            submitted: None,
            spent: 0,
            ended: 0,
        }
    }

    /// Whether there is nothing left to begin.
    pub(super) fn is_used_up(&self) -> bool {
        uses_up_zones(self.operation) && self.step == self.zones.len()
    }

    pub(super) fn step(&self) -> Step {
        self.steps[self.step % self.steps.len()]
    }

    pub(super) fn zone(&self) -> &'a Zone {
        &self.zones[self.step / self.steps.len() % self.zones.len()].zone
    }
}
