//! Protocols, extensions and streams that the gateway does not know.

use std::io::{Read as _, Write as _};

use super::{FIELDS, HARMLESS, SECRET, Stage};
use crate::support::http::{Caller, Canned, gateway, statuses};

#[test]
fn what_calls_itself_an_event_stream_and_is_none_shows_no_field() {
    let stage = Stage::new("", FIELDS);
    for body in [
        format!("{{\n  \"a\": 1,\n  \"secret\":\n    \"{SECRET}\"\n}}\n"),
        format!("{{\n  \"secret\": [\n    \"{SECRET}\",\n    \"{SECRET}\"\n  ]\n}}"),
        format!("[\n\n{{\"secret\":\n\n\"{SECRET}\"}}\n]"),
        format!("secret:\n  {SECRET}\n"),
        format!("secret: >\r\n\r\n  {SECRET}\r\n"),
        format!("<secret>\n{SECRET}\n</secret>\n"),
        format!("secret\n{SECRET}\n"),
        format!("\u{feff}secret\r{SECRET}\r"),
        format!("data: 1\n\nsecret\n{SECRET}\n\ndata: 2\n\n"),
    ] {
        for chunk in [0, 1, 9] {
            let told = stage.body("text/event-stream", body.as_bytes(), chunk);
            assert!(!told.text().contains(SECRET), "{body:?} {chunk}: {told:?}");
        }
    }
    let stream = format!(
        ": {HARMLESS}\nid: 7\nretry: 10\nevent: a\ndata: {{\"a\": \"{HARMLESS}\", \"secret\": \"{SECRET}\"}}\n\n"
    );
    let told = stage.body("text/event-stream", stream.as_bytes(), 0);
    assert_eq!(told.text(), stream.replace(SECRET, "[masked]"), "what is one passes");
    stage.finish(&[SECRET]);
}

#[test]
fn a_protocol_that_is_not_known_is_not_asked_for() {
    let stage = Stage::new("", "");
    for protocol in ["SPDY/3.1", "h2c", "TLS/1.0", "made-up", "IRC/6.9, made-up", ""] {
        let arguments = ["-H", "Connection: Upgrade", "-H", &format!("Upgrade: {protocol}")];
        let told = stage.ask("/crew/x", &arguments);
        assert_eq!(told.status, 200, "{protocol}: {told:?}");
        let headers = stage.headers();
        let asks = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        assert!(!asks("upgrade") && !asks("http2-settings"), "{protocol}: {headers:?}");
    }
    stage.finish(&[]);
}

/// A client's handshake, and a target that agrees on more than was offered.
#[test]
fn an_extension_or_protocol_of_websockets_that_nobody_offered_is_refused() {
    let asked = "GET /odd/x HTTP/1.1\r\nHost: x\r\n{auth}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate, made-up\r\n\r\n";
    for (more, status) in [
        ("", 101),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", 502),
        ("Sec-WebSocket-Extensions: made-up\r\n", 502),
        ("Sec-WebSocket-Protocol: made-up\r\n", 502),
    ] {
        let canned = Canned::answering(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{more}\r\n"
            )
            .as_bytes(),
        );
        let gateway = gateway(&canned.target("odd", ""));
        let caller = Caller::of(&gateway);
        let mut stream = caller.connect();
        stream.write_all(caller.with_token(asked).as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(statuses(&String::from_utf8_lossy(&head)), [status], "{more}");
        drop(stream);
        assert!(gateway.stop().success());
    }
}
