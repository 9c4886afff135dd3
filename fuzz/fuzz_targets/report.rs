//! Reports of zones, ID strings and lifetimes, from memory that has anything in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbd_hostile::trial::report(bytes));
