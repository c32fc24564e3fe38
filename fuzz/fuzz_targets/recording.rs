//! A recording that somebody else has written.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::recording::run(data));
