//! The condition of a row filter from any text, with any value in it: nothing panics, and what is
//! written of it goes into a statement as the condition that it is, or not at all.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::row_filter::run(data));
