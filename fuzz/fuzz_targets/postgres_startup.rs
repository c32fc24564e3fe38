//! The first packet of a connection, before anybody is proved.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::postgres_startup::run(data));
