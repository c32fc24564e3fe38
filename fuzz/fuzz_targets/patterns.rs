//! Every built-in pattern: however a text is cut, the same comes out, and nothing panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::patterns::run(data));
