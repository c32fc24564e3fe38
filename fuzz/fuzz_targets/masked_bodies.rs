//! JSON, events, forms and plain text behind masks: however the bytes arrive, the same comes out.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::masked_bodies::run(data));
