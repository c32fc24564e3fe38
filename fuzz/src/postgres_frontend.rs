//! What a client sends: framing in pieces of any size, every message, the commands in them.

use portcullis::decode::postgres::frontend::Message;
use portcullis::decode::postgres::{command, frame, frontend};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    super::pieces::of_any_size(frame::Side::Frontend, data, |message| {
        match frontend::message(message) {
            Ok(Message::Query { sql } | Message::Parse { sql, .. }) => {
                let _any = command::of_text(sql);
            }
            Ok(Message::Bind(bind)) => {
                let _any = command::bind(&bind, false);
            }
            _ => {}
        }
        let _any = frontend::password(message);
    });
}
