//! What an HTTP client sends: framing, the path and the query, JSON bodies, heads, frames of
//! WebSocket and HTTP/2, what asks for another method. However the bytes are cut, the same go on.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::http::run(data));
