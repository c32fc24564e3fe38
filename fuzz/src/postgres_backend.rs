//! What a server sends: framing in pieces of any size, every message that a session looks into.

use portcullis::decode::postgres::{backend, frame};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    super::pieces::of_any_size(frame::Side::Backend, data, |message| {
        let _any = backend::ready_for_query(message);
        let _any = backend::command_tag(message).map(backend::rows);
        let _any = backend::report(message);
        let _any = backend::parameter_status(message);
        let _any = backend::row_description(message);
        let _any = backend::data_row(message).map(|row| row.for_each(drop));
        let _any = backend::copy_formats(message);
        let _any = backend::report_fields(message);
        let _any = backend::notification(message);
    });
}
