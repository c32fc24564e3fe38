//! Any text as SQL, under any settings: an answer, a view that shows no literal, and the same answer
//! whatever was read before.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::sql::run(data));
