//! Faults that tests ask for. A device without any never looks at them.

mod data;

use std::collections::VecDeque;

use crate::{disk::Outcome, ring::Used, wire::request};

pub(crate) use data::{DataFaults, Prospect};

/// Something that a device must not do, done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The next successful append lands where it should and reports this sector.
    AppendSector(u64),
    /// The next request is not carried out and ends with this status byte.
    Status(u8),
    /// The next request is completed with this id in its used element; a packed ring has room for
    /// its low 16 bits.
    UsedId(u32),
    /// The next request is completed with this length in its used element.
    UsedLen(u32),
    /// After the next request the used index, or the place of the next used descriptor in a packed
    /// ring, jumps ahead by this many.
    UsedIndexJump(u16),
}

/// The faults that have not happened yet, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Faults(VecDeque<Fault>);

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.0.push_back(fault);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<T>(&mut self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let index = self.0.iter().position(|fault| pick(fault).is_some())?;
        self.0.remove(index).and_then(|fault| pick(&fault))
    }

    /// The status that the next request ends with, whatever it is.
    #[inline]
    pub(crate) fn status(&mut self) -> Option<u8> {
        if self.is_empty() {
            return None;
        }
        self.take(|fault| match fault {
            Fault::Status(status) => Some(*status),
            _ => None,
        })
    }

    /// Alters how a request of `kind` ended.
    #[inline]
    pub(crate) fn alter(&mut self, kind: u32, outcome: &mut Outcome) {
        if self.is_empty() || kind != request::ZONE_APPEND || outcome.status != 0 {
            return;
        }
        let sector = self.take(|fault| match fault {
            Fault::AppendSector(sector) => Some(*sector),
            _ => None,
        });
        outcome.append_sector = sector.unwrap_or(outcome.append_sector);
    }

    /// The used element of a request, altered, and how far the place of the next one jumps.
    pub(crate) fn used(&mut self, mut used: Used) -> (Used, u16) {
        let id = self.take(|fault| match fault {
            Fault::UsedId(id) => Some(*id),
            _ => None,
        });
        let len = self.take(|fault| match fault {
            Fault::UsedLen(len) => Some(*len),
            _ => None,
        });
        let jump = self.take(|fault| match fault {
            Fault::UsedIndexJump(by) => Some(*by),
            _ => None,
        });
        used.id = id.unwrap_or(used.id);
        used.len = len.unwrap_or(used.len);
        (used, jump.unwrap_or(0))
    }
}
