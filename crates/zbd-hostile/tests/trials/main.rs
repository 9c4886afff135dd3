//! Drivers on devices that lie: what the fuzzer has found, and random bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod answers;
mod corpus;
mod random;
