//! A packed virtqueue whose device lies in the ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zbd_hostile::trial::packed_queue(bytes));
