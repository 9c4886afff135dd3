//! A workload whose state after a crash can be told from what was acknowledged before it.
//!
//! Keys are numbers, put in ascending order, each once. Since a log loses an end of it at the most,
//! what is found after a crash has to be all keys below some number; and that number must be above
//! all that were acknowledged, and no more than were put.

use std::fmt;

use slatedb::{Db, WriteHandle};
use tokio::sync::mpsc;

/// The longest value.
const MAX_VALUE: u64 = 3000;

/// The key of `number`.
pub fn key(number: u64) -> Vec<u8> {
    format!("{number:016}").into_bytes()
}

/// What belongs to `number`, and to no other.
pub fn value(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut value = number.to_le_bytes().to_vec();
    // Mostly short values, some long ones.
    let len = random.u64(0..MAX_VALUE) * random.u64(0..MAX_VALUE) / MAX_VALUE;
    value.extend(std::iter::repeat_with(|| random.u8(..)).take(len as usize));
    value
}

/// Puts the numbers from `from` on, as many as `count` says or until the database fails, with
/// `window` of them unacknowledged at the most. `acknowledged` is told each number when it is
/// durable, in ascending order; so no more than `window` numbers above the last one that it was told
/// have been put.
///
/// # Errors
/// The database's.
///
/// # Panics
/// If `window` is less than 3.
pub async fn put(
    db: &Db,
    from: u64,
    count: Option<u64>,
    window: usize,
    mut acknowledged: impl FnMut(u64),
) -> Result<(), slatedb::Error> {
    // One more is with each of the two halves below.
    let (sent, mut received) = mpsc::channel::<(u64, WriteHandle)>(window - 2);
    let write = async move {
        let end = count.map_or(u64::MAX, |count| from + count);
        for number in from..end {
            let handle = db.put(key(number), value(number)).await?;
            if sent.send((number, handle)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let acknowledge = async move {
        while let Some((number, handle)) = received.recv().await {
            handle.await_durable().await?;
            acknowledged(number);
        }
        Ok(())
    };
    tokio::try_join!(write, acknowledge).map(|_| ())
}

/// How many numbers the database holds, which are all below that.
///
/// # Errors
/// If they are not, or one has not its value.
pub async fn found(db: &Db) -> Result<u64, Mismatch> {
    let mut rows = db.scan(..).await?;
    let mut number = 0;
    while let Some(row) = rows.next().await? {
        if *row.key != *key(number) {
            let found = String::from_utf8_lossy(&row.key).into_owned();
            return Err(Mismatch::Key { number, found });
        }
        if *row.value != *value(number) {
            return Err(Mismatch::Value(number));
        }
        number += 1;
    }
    Ok(number)
}

/// Why a database is not what the workload can have left.
#[derive(Debug)]
#[non_exhaustive]
pub enum Mismatch {
    /// There is another key where that of `number` should be.
    Key {
        /// The number.
        number: u64,
        /// The key.
        found: String,
    },
    /// This number has a value that it was not given.
    Value(u64),
    /// The database cannot be read.
    Read(slatedb::Error),
}

impl From<slatedb::Error> for Mismatch {
    fn from(error: slatedb::Error) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { number, found } => write!(f, "{number} is missing, and {found:?} follows"),
            Self::Value(number) => write!(f, "{number} has the value of something else"),
            Self::Read(_) => f.write_str("the database cannot be read"),
        }
    }
}

impl std::error::Error for Mismatch {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            _ => None,
        }
    }
}
