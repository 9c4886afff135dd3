//! A split virtqueue whose device lies in the ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbd_hostile::trial::split_queue(bytes));
