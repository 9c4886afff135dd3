//! zbd-bench
fn main() {}
