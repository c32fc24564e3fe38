//! What a client sends: framing in pieces of any size, every message, the commands in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::decode::postgres::{command, frame, frontend};

mod pieces;

fuzz_target!(|data: &[u8]| {
    pieces::of_any_size(frame::Side::Frontend, data, |message| {
        if let Ok(decoded) = frontend::message(message) {
            let _any = command::of(&decoded);
        }
        let _any = frontend::password(message);
    });
});
