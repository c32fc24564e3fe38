//! WebSocket through the gateway: both sides as they are, each message recorded.

use std::io::{Read as _, Write as _};

use crate::support::daemon::wait_until;
use crate::support::http::{App, Caller, gateway, statuses};

#[test]
fn websockets_works_unchanged_and_every_message_is_recorded() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let output = Caller::of(&gateway).python("http_websockets.py", &[]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("ok"), "{told}{complaint}");
    assert!(gateway.stop().success());
    gateway.verify_all();
    let stored = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    for text in
        ["hello over the gateway", "in three pieces", "the client closed: 1000", "as you wish"]
    {
        assert!(stored.contains(text), "{text} is not recorded");
    }
}

const OPENING: &str = "GET /crew/ws HTTP/1.1\r\nHost: x\r\n{auth}Connection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Opens a connection and sends these bytes behind the opening; what came back.
fn after_opening(caller: &Caller, bytes: &[u8]) -> String {
    let mut stream = caller.connect();
    stream.write_all(caller.with_token(OPENING).as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(bytes).unwrap();
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn frames_that_no_client_may_send_end_the_connection() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let token = caller.token.as_bytes();
    let length = u16::try_from(token.len()).unwrap().to_be_bytes();
    let with_token = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0][..], token].concat();
    for (what, frame) in [
        ("not masked", &[0x81, 0x01, b'a'][..]),
        ("an extension", &[0xc1, 0x81, 0, 0, 0, 0, b'a']),
        ("an unknown kind", &[0x83, 0x80, 0, 0, 0, 0]),
        ("text that is not UTF-8", &[0x81, 0x81, 0, 0, 0, 0, 0xff]),
        ("a huge message", &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a continuation of nothing", &[0x80, 0x81, 0, 0, 0, 0, b'a']),
        ("the token", &with_token),
    ] {
        // Nothing, or the frame that says why it ends (RFC 6455 section 7.4).
        let said = after_opening(&caller, frame);
        assert!(said.is_empty() || said.starts_with("\u{fffd}\u{2}\u{3}"), "{what}: {said:?}");
    }
    wait_until("the target to be left", || {
        app.told().iter().filter(|told| told["gone"] == "/ws").count() == 7
    });
}

#[test]
fn an_opening_that_is_malformed_or_refused_is_an_ordinary_answer() {
    let app = App::start();
    let rule = "[[rule]]\nname = \"no-ws\"\nobjects = [\"path:/blocked\"]\n\
                when = 'effect.headers.upgrade == \"websocket\"'\nverdict = \"block\"\n";
    let gateway = gateway(&format!("{}{rule}", app.target("crew", "")));
    let caller = Caller::of(&gateway);
    let ask = |request: String| {
        let next = "GET /crew/next HTTP/1.1\r\nHost: x\r\n{auth}Connection: close\r\n\r\n";
        statuses(&caller.raw(&format!("{request}{next}")))
    };
    assert_eq!(ask(OPENING.replace("Version: 13", "Version: 8")), [400, 200]);
    assert_eq!(ask(OPENING.replace("/ws ", "/blocked ")), [403, 200]);
    assert_eq!(ask(OPENING.replace("/ws ", "/refuse ")), [403, 200], "the target says no");
}
