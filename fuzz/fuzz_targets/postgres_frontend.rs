//! What a client sends: framing in pieces of any size, every message, the commands in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::postgres_frontend::run(data));
