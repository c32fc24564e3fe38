//! What a server sends: framing in pieces of any size, every message that a session looks into.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::postgres_backend::run(data));
