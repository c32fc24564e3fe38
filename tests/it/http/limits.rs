//! Clients that are slow, large, many or malformed cost little, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::process::Command;

use crate::support::http::{App, Caller, gateway, statuses};

#[test]
fn a_flood_of_header_bytes_is_cut_off_and_others_are_served() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    caller.get("/crew/x");
    let before = gateway.daemon().resident();
    let mut slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = caller.connect();
            stream.write_all(b"GET /crew/x HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let mut stream = caller.connect();
        let endless = format!("GET /crew/x HTTP/1.1\r\nHost: x\r\nX-A: {}", "a".repeat(1 << 20));
        let _cut = stream.write_all(endless.as_bytes());
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || statuses(&answer) == [431], "{answer}");
    }
    let many: String = (0..1_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = caller.raw(&format!("GET /crew/x HTTP/1.1\r\nHost: x\r\n{{auth}}{many}\r\n"));
    assert_eq!(statuses(&many), [431]);
    let long = "a".repeat(70_000);
    assert!(matches!(
        *statuses(&caller.raw(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n{{auth}}\r\n"))),
        [414 | 431]
    ));
    assert_eq!(caller.get("/crew/x").status, 200, "others are served meanwhile");
    for stream in &mut slow {
        stream.write_all(b"1").unwrap();
    }
    let grown = gateway.daemon().resident().saturating_sub(before);
    assert!(grown < 32 << 20, "the gateway grew by {} kB", grown >> 10);
}

#[test]
fn tiny_chunks_pass_one_by_one() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let head = caller.with_token(
        "POST /crew/x HTTP/1.1\r\nHost: x\r\n{auth}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    );
    let chunks = "1\r\na\r\n".repeat(20_000);
    let answer = caller.raw_bytes(format!("{head}{chunks}0\r\n\r\n").as_bytes());
    assert!(answer.contains("\"length\": 20000"), "{}", &answer[..answer.len().min(500)]);
}

#[test]
fn rapid_reset_and_floods_of_frames_close_the_connection_and_others_are_served() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    caller.get("/crew/x");
    let before = gateway.daemon().resident();
    let mut attack: Command = caller.python("http2_attacks.py", &[]);
    let output = attack.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}{complaint}");
    for attack in
        ["rapid-reset", "continuation", "settings", "ping", "hpack", "crlf", "te", "length"]
    {
        assert!(told.contains(&format!("{attack}: ")), "{attack}: {told}");
    }
    assert_eq!(caller.get("/crew/x").status, 200);
    let reached = app.paths().iter().filter(|path| *path == "/reset").count();
    assert!(reached < 1_000, "{reached} of the requests that were taken back went up");
    let grown = gateway.daemon().resident().saturating_sub(before);
    assert!(grown < 48 << 20, "the gateway grew by {} kB", grown >> 10);
}
