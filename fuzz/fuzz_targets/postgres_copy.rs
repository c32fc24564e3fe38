//! COPY data in each format: rows are the same however the bytes arrive, and their fields are read.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::postgres_copy::run(data));
