#![no_main]
//! What an HTTP client sends: framing, the path and the query, JSON bodies, heads, frames of
//! WebSocket. However the bytes are cut, the same go on.

use libfuzzer_sys::fuzz_target;
use portcullis::decode::http::framing::Framer;
use portcullis::decode::http::head::Head;
use portcullis::decode::http::path::Path;
use portcullis::decode::http::{json, query, websocket};

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(passed(bytes, bytes.len()), passed(bytes, usize::from(size) + 1));
    let _ = Head::parse(bytes);
    let _ = json::parse(bytes);
    let _ = websocket::head(bytes, size & 1 == 0, 1 << 20);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = query::parse(text);
        if let Ok(path) = Path::parse(text) {
            assert!(!path.decoded().split('/').any(|segment| segment == ".."));
            assert!(!path.decoded().contains("//"));
        }
    }
});

/// What goes on of these bytes, in pieces of at most `size`.
fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut framer, mut buffer, mut passed) = (Framer::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match framer.next(&buffer) {
                Ok(0) => break,
                Ok(length) => passed.extend(buffer.drain(..length)),
                Err(_) => return passed,
            }
        }
    }
    passed
}
