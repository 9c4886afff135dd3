//! Write batches that wait to be written, gathered into log files.

use std::collections::VecDeque;

use slatedb::RowEntry;
use slatedb::wal::WalError;

use crate::part::{self, HEADER_LEN};
use crate::rows;

/// A log file with its place in the log: what is written, acknowledged and replayed as a whole.
#[derive(Debug)]
pub(crate) struct File {
    /// Of its first record; the others follow.
    pub(crate) first_id: u64,
    /// The payloads of its records.
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) last_seq: u64,
    pub(crate) row_count: usize,
}

impl File {
    /// Its id, which is that of its last record.
    pub(crate) fn id(&self) -> u64 {
        self.first_id + self.records.len() as u64 - 1
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

/// Batches in the order in which they came. Those that come while others are being written share a
/// record, up to the length that one can have.
#[derive(Debug)]
pub(crate) struct Pending {
    epoch: u64,
    /// How many bytes of rows a record takes.
    room: usize,
    next_id: u64,
    sealed: VecDeque<File>,
    /// Rows of the file that is not sealed.
    open: Vec<u8>,
    open_rows: usize,
    last_seq: u64,
}

impl Pending {
    /// Nothing yet, for a log whose records are at most `record_len` bytes long.
    pub(crate) fn new(epoch: u64, record_len: usize, next_id: u64) -> Self {
        Self {
            epoch,
            room: record_len.saturating_sub(HEADER_LEN).max(1),
            next_id,
            sealed: VecDeque::new(),
            open: Vec::new(),
            open_rows: 0,
            last_seq: 0,
        }
    }

    /// Adds a batch, all of whose rows get into one file.
    pub(crate) fn push(&mut self, batch: &[RowEntry]) -> Result<(), WalError> {
        let before = self.open.len();
        for row in batch {
            if let Err(error) = rows::encode(row, &mut self.open) {
                self.open.truncate(before);
                return Err(error);
            }
        }
        if before > 0 && self.open.len() > self.room {
            let batch = self.open.split_off(before);
            self.seal();
            self.open = batch;
        }
        self.open_rows += batch.len();
        self.last_seq = batch
            .iter()
            .map(|row| row.seq)
            .fold(self.last_seq, u64::max);
        if self.open.len() >= self.room {
            self.seal();
        }
        Ok(())
    }

    /// Lets the next batch begin a file, and yields the id of the last one that has an end.
    pub(crate) fn seal(&mut self) -> u64 {
        if self.open_rows > 0 {
            let rows = std::mem::take(&mut self.open);
            let parts = rows.chunks(self.room);
            let count = parts.len();
            let records = parts.enumerate().map(|(number, rows)| {
                part::encode(self.epoch, number == 0, number + 1 == count, rows)
            });
            let file = File {
                first_id: self.next_id,
                records: records.collect(),
                last_seq: self.last_seq,
                row_count: std::mem::take(&mut self.open_rows),
            };
            self.next_id = file.id() + 1;
            self.sealed.push_back(file);
        }
        self.next_id - 1
    }

    /// Takes the files that come next: one, and more as long as they have no more than `records`
    /// records together.
    pub(crate) fn take(&mut self, records: usize) -> Vec<File> {
        self.seal();
        let mut left = records;
        let mut taken = Vec::new();
        while let Some(file) = self.sealed.front() {
            if !taken.is_empty() && file.records.len() > left {
                break;
            }
            left = left.saturating_sub(file.records.len());
            taken.extend(self.sealed.pop_front());
        }
        taken
    }

    /// How much memory waits here.
    pub(crate) fn len_bytes(&self) -> usize {
        self.open.len() + self.sealed.iter().map(File::len_bytes).sum::<usize>()
    }

    pub(crate) fn row_count(&self) -> usize {
        self.open_rows + self.sealed.iter().map(|file| file.row_count).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use slatedb::ValueDeletable;

    use super::*;
    use crate::part::Part;

    fn batch(seq: u64, lens: &[usize]) -> Vec<RowEntry> {
        let row = |len: &usize| RowEntry {
            key: Bytes::from(format!("{seq}")),
            value: ValueDeletable::Value(vec![seq as u8; *len].into()),
            seq,
            create_ts: None,
            expire_ts: None,
        };
        lens.iter().map(row).collect()
    }

    fn rows_of(file: &File) -> Vec<RowEntry> {
        let mut bytes = Vec::new();
        for (number, record) in file.records.iter().enumerate() {
            let part = Part::decode(0, record.clone().into()).unwrap();
            assert_eq!(part.epoch, 7);
            assert_eq!(part.begins, number == 0);
            assert_eq!(part.ends, number + 1 == file.records.len());
            bytes.extend_from_slice(&part.rows);
        }
        rows::decode(bytes.into()).unwrap()
    }

    #[test]
    fn batches_share_a_record_until_it_is_full() {
        let mut pending = Pending::new(7, 200, 5);
        for seq in 1..=5 {
            pending.push(&batch(seq, &[50])).unwrap();
        }
        let files = pending.take(16);
        let ids: Vec<_> = files.iter().map(File::id).collect();
        assert_eq!(ids, [5, 6, 7]);
        let seqs: Vec<Vec<u64>> = files
            .iter()
            .map(|file| rows_of(file).iter().map(|row| row.seq).collect())
            .collect();
        assert_eq!(seqs, [vec![1, 2], vec![3, 4], vec![5]]);
        assert!(
            files
                .iter()
                .all(|file| file.records.iter().all(|r| r.len() <= 200))
        );
        assert_eq!((pending.len_bytes(), pending.row_count()), (0, 0));
    }

    #[test]
    fn batch_longer_than_a_record_is_one_file_of_several() {
        let mut pending = Pending::new(7, 100, 1);
        pending.push(&batch(1, &[10])).unwrap();
        pending.push(&batch(2, &[10, 500, 10])).unwrap();
        pending.push(&batch(3, &[10])).unwrap();
        let files = pending.take(1);
        assert_eq!(files.len(), 1);
        let files = pending.take(1);
        assert_eq!(files.len(), 1, "a file is taken whole");
        assert_eq!((files[0].first_id, files[0].last_seq), (2, 2));
        assert_eq!(rows_of(&files[0]), batch(2, &[10, 500, 10]));
        assert!(files[0].records.iter().all(|r| r.len() <= 100));
        let next = pending.take(1);
        assert_eq!(next[0].first_id, files[0].id() + 1);
        assert_eq!(rows_of(&next[0]), batch(3, &[10]));
    }

    #[test]
    fn sealing_separates_what_comes_before_from_what_comes_after() {
        let mut pending = Pending::new(7, 1000, 3);
        assert_eq!(pending.seal(), 2, "nothing to seal");
        pending.push(&batch(1, &[1])).unwrap();
        assert_eq!(pending.seal(), 3);
        assert_eq!(pending.seal(), 3);
        pending.push(&batch(2, &[1])).unwrap();
        assert_eq!(pending.seal(), 4);
        assert_eq!(pending.take(16).len(), 2);
    }
}
