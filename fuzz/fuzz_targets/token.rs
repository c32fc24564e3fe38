<<<<<<< HEAD
//! What somebody presents as a token.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::identity::token;

fuzz_target!(|text: &str| {
    let _any = token::parse(text);
=======
//! No text makes the token parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _parsed = portcullis::identity::token::parse(text);
>>>>>>> wt-identity
});
