//! Values of Postgres types: nothing panics, and what is taken apart is put together again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::postgres_typed::run(data));
