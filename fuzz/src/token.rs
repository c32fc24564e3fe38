//! What somebody presents as a token.

use portcullis::identity::token;

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _any = token::parse(text);
}
