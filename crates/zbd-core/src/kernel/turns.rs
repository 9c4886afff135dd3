//! Whose turn it is in a zone.
//!
//! The kernel knows no append, so an append is a write at the write pointer, one at a time in each
//! zone. Requests to a zone take turns in the order in which they come, whatever queue they come
//! from: an append and a zone command have the zone for themselves, plain writes share it. So the
//! write pointer is known when an append's turn comes, or is asked for. Nothing here does I/O.

use std::collections::VecDeque;

use crate::{Sector, SectorCount, ZoneId};

/// A request: a queue of the device and a slot of that queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) lane: u16,
    pub(super) slot: u16,
}

/// What a request wants of its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// To write where it says.
    Write,
    /// To write so much at the write pointer.
    Append(SectorCount),
    /// To change the zone's state.
    Command,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is this request's turn.
    Start(Who),
    /// It is this append's turn, and it goes here.
    Append(Who, Sector),
    /// This append does not fit into what is left of the zone.
    Refuse(Who),
    /// The write pointer of this append's zone could not be had.
    Lose(Who),
    /// The write pointer must be asked for, and told with [`Turn::pointer_is`].
    Ask(ZoneId),
}

impl Step {
    /// The request that the step is about.
    pub(super) fn who(self) -> Option<Who> {
        match self {
            Self::Start(who) | Self::Append(who, _) | Self::Refuse(who) | Self::Lose(who) => {
                Some(who)
            }
            Self::Ask(_) => None,
        }
    }
}

/// What is known of a write pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointer {
    /// Nothing.
    Unknown,
    /// Where it is.
    At(Sector),
    /// The zone's state defines none, and takes no writes.
    None,
}

/// One zone: who has it, and who waits.
#[derive(Debug)]
pub(super) struct Turn {
    zone: ZoneId,
    /// The sector after the last that can be written.
    end: Sector,
    pointer: Pointer,
    /// Has been asked for, so that it holds even against an append.
    is_fresh: bool,
    /// Plain writes that have the zone.
    writes: u32,
    /// Whether an append, a command, or who asks for the pointer has the zone.
    is_taken: bool,
    /// Something has been done to the zone meanwhile: what its holder says of the pointer is old.
    is_tainted: bool,
    waiting: VecDeque<(Who, Claim)>,
}

impl Turn {
    pub(super) fn new(zone: ZoneId, end: Sector, pointer: Pointer) -> Self {
        Self {
            zone,
            end,
            pointer,
            is_fresh: false,
            writes: 0,
            is_taken: false,
            is_tainted: false,
            waiting: VecDeque::new(),
        }
    }

    /// A request comes.
    pub(super) fn enter(&mut self, who: Who, claim: Claim, steps: &mut Vec<Step>) {
        self.waiting.push_back((who, claim));
        self.advance(steps);
    }

    /// A request that waits goes; false if it does not wait any more.
    pub(super) fn leave(&mut self, who: Who, steps: &mut Vec<Step>) -> bool {
        let Some(at) = self.waiting.iter().position(|(other, _)| *other == who) else {
            return false;
        };
        self.waiting.remove(at);
        self.advance(steps);
        true
    }

    /// A plain write has ended: at `end` if it was carried out.
    pub(super) fn wrote(&mut self, end: Option<Sector>, steps: &mut Vec<Step>) {
        self.writes = self.writes.saturating_sub(1);
        self.pointer = match (self.pointer, end) {
            // Writes that share the zone may end in any order.
            (Pointer::At(pointer), Some(end)) => Pointer::At(pointer.max(end)),
            _ => Pointer::Unknown,
        };
        self.advance(steps);
    }

    /// The append or the command that had the zone has ended, and left the pointer so.
    pub(super) fn release(&mut self, pointer: Pointer, steps: &mut Vec<Step>) {
        self.settle(pointer, false);
        self.advance(steps);
        self.is_fresh = false;
    }

    /// The answer to [`Step::Ask`], or what was asked after a failure by who has the zone.
    pub(super) fn pointer_is(&mut self, pointer: Pointer, steps: &mut Vec<Step>) {
        self.settle(pointer, true);
        self.advance(steps);
        // For those that wait now. Later ones may find that somebody else has reset the zone.
        self.is_fresh = false;
    }

    /// The pointer could not be asked for: the append that is first ends.
    pub(super) fn pointer_is_lost(&mut self, steps: &mut Vec<Step>) {
        self.settle(Pointer::Unknown, false);
        // Who is first must not ask again and again.
        if let Some((who, Claim::Append(_))) = self.waiting.front() {
            steps.push(Step::Lose(*who));
            self.waiting.pop_front();
        }
        self.advance(steps);
    }

    /// Something has been done to the zone, or may be going on, that takes no turns.
    pub(super) fn taint(&mut self) {
        self.pointer = Pointer::Unknown;
        self.is_tainted = self.is_taken;
    }

    /// What is known of the pointer.
    pub(super) fn pointer(&self) -> Pointer {
        self.pointer
    }

    fn settle(&mut self, pointer: Pointer, is_fresh: bool) {
        self.is_taken = false;
        self.is_fresh = is_fresh && !self.is_tainted;
        self.pointer = match self.is_tainted {
            true => Pointer::Unknown,
            false => pointer,
        };
        self.is_tainted = false;
    }

    /// Lets those have the zone whose turn it is.
    fn advance(&mut self, steps: &mut Vec<Step>) {
        while !self.is_taken
            && let Some((who, claim)) = self.waiting.front().copied()
        {
            match claim {
                Claim::Write => {
                    self.writes += 1;
                    self.is_fresh = false;
                    steps.push(Step::Start(who));
                }
                _ if self.writes > 0 => return,
                Claim::Command => {
                    self.is_taken = true;
                    steps.push(Step::Start(who));
                }
                Claim::Append(len) => match self.pointer {
                    Pointer::At(pointer) if pointer + len <= self.end => {
                        self.is_taken = true;
                        steps.push(Step::Append(who, pointer));
                    }
                    Pointer::At(_) | Pointer::None if self.is_fresh => {
                        steps.push(Step::Refuse(who));
                    }
                    // Before it is refused, what is known is looked at again: the zone may have
                    // been reset by somebody else.
                    _ => {
                        self.is_taken = true;
                        steps.push(Step::Ask(self.zone));
                        return;
                    }
                },
            }
            self.waiting.pop_front();
        }
    }
}
