//! How much of the log lies after a place in it.

use std::collections::VecDeque;

/// Remembers how long the log was at some ids, as coarsely as it is asked about.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Ids with the bytes written up to them, in ascending order.
    marks: VecDeque<(u64, u64)>,
    written: u64,
    step: u64,
}

impl Usage {
    /// A log of nothing, remembered in steps of so many bytes.
    pub(crate) fn new(step: u64) -> Self {
        Self {
            marks: VecDeque::new(),
            written: 0,
            step: step.max(1),
        }
    }

    /// Counts a file or a record.
    pub(crate) fn add(&mut self, id: u64, bytes: u64) {
        self.written += bytes;
        let last = self.marks.back().map_or(0, |&(_, written)| written);
        if self.written - last >= self.step {
            self.marks.push_back((id, self.written));
        }
    }

    /// The bytes written after `id`, at most a step too many.
    pub(crate) fn after(&self, id: u64) -> u64 {
        let known = self.marks.partition_point(|&(mark, _)| mark <= id);
        let before = known.checked_sub(1).map_or(0, |at| self.marks[at].1);
        self.written - before
    }

    /// Forgets what nobody asks about any more.
    pub(crate) fn forget(&mut self, below: u64) {
        // The mark before `below` is what the bytes after it are counted from.
        while self.marks.get(1).is_some_and(|&(mark, _)| mark < below) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_an_id_are_right_to_a_step() {
        let mut usage = Usage::new(100);
        for id in 1..=1000 {
            usage.add(id, 30);
        }
        for forgotten in [0, 500] {
            usage.forget(forgotten);
            for id in forgotten..=1000 {
                let exact = 30 * (1000 - id);
                let after = usage.after(id);
                assert!(
                    (exact..exact + 130).contains(&after),
                    "{id}: {after}, {exact}"
                );
            }
        }
        assert!(usage.marks.len() < 200);
    }
}
