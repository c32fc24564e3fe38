//! No text makes the token parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _parsed = portcullis::identity::token::parse(text);
});
