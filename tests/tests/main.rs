//! The workspace's integration tests, end to end: on the embedded device, and on a real one in a
//! guest.

mod embedded;
mod guest;
