//! The whole driver, on a device that lies about everything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbd_hostile::trial::function(bytes));
