//! A rule from any text, held against a command: nothing panics, and the text forms of objects
//! read back as what they were.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::rule::run(data));
