//! What an HTTP client sends: framing, the path and the query, JSON bodies, heads, frames of
//! WebSocket and HTTP/2, what asks for another method. However the bytes are cut, the same go on.

use portcullis::decode::http::framing::Framer;
use portcullis::decode::http::head::Head;
use portcullis::decode::http::http2::Meter;
use portcullis::decode::http::overrides::{self, Kind, Scanner};
use portcullis::decode::http::path::{EncodedSlash, Path};
use portcullis::decode::http::{json, query, websocket};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    assert_eq!(passed(bytes, bytes.len()), passed(bytes, usize::from(size) + 1));
    let _ = Head::parse(bytes);
    let _ = json::parse(bytes);
    let _ = websocket::head(bytes, size & 1 == 0, 1 << 20);
    let _ = Meter::new(std::time::Instant::now()).received(bytes, std::time::Instant::now());
    let _ = (overrides::of_form(bytes), overrides::of_multipart(bytes));
    for kind in [None, Some(Kind::Form), Some(Kind::Json), Some(Kind::Multipart)] {
        let found = |size: usize| {
            let mut scanner = Scanner::new(kind);
            let count = bytes.len().div_ceil(size);
            let pieces = bytes.chunks(size).enumerate();
            pieces
                .map(|(at, piece)| scanner.finds(piece, at + 1 == count))
                .fold(false, |a, b| a | b)
        };
        assert!(!found(usize::from(size) + 1) || found(bytes.len().max(1)));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = query::parse(text);
        for slash in [EncodedSlash::Refuse, EncodedSlash::Data, EncodedSlash::Slash] {
            let Ok(path) = Path::parse_with(text, slash) else { continue };
            let read = path.decoded().replace("%2F", "/");
            assert!(!read.split('/').any(|segment| segment == ".."));
            assert!(!read.contains("//"));
            let again = Path::parse_with(path.as_str(), slash);
            assert_eq!(again.as_ref().map(Path::decoded), Ok(path.decoded()));
        }
    }
}

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
