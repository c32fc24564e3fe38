//! Any text, masked at the source: unchanged, refused, or a text that reads nothing masked.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::rewrite::run(data));
