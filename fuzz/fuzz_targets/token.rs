//! What somebody presents as a token.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::identity::token;

fuzz_target!(|text: &str| {
    let _any = token::parse(text);
});
