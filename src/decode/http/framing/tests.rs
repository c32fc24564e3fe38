use proptest::prelude::*;

use super::*;

/// What goes on of these bytes, in pieces of at most `size`, and how it ended.
fn walk(bytes: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<Refused>) {
    let mut framer = Framer::default();
    let (mut buffer, mut messages, mut current) = (Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match framer.next(&buffer) {
                Ok(0) => break,
                Ok(length) => {
                    current.extend(buffer.drain(..length));
                    if framer.at_rest() {
                        messages.push(std::mem::take(&mut current));
                    }
                }
                Err(refused) => return (messages, Some(refused)),
            }
        }
    }
    if !current.is_empty() {
        messages.push(current);
    }
    (messages, None)
}

fn refused(request: &str) -> Option<u16> {
    walk(request.as_bytes(), usize::MAX).1.map(|refused| refused.status)
}

const GET: &str = "GET /a?x=1 HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn requests_behind_each_other_are_told_apart() {
    let post = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nTrailer: x-sum\r\n\r\n\
                   3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n";
    let empty = "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let all = [GET, post, chunked, GET, empty, GET];
    let whole = all.concat();
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        let (messages, refused) = walk(whole.as_bytes(), size);
        assert_eq!(refused, None);
        let texts: Vec<_> = messages.iter().map(|m| std::str::from_utf8(m).unwrap()).collect();
        assert_eq!(texts, all, "in pieces of {size}");
    }
}

#[test]
fn a_body_whose_end_is_in_doubt_is_refused() {
    let post = |fields: &str, body: &str| {
        refused(&format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}"))
    };
    for (fields, status) in [
        ("Content-Length: 44\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", 400),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: identity, chunked", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding : chunked", 400),
        (" Transfer-Encoding: chunked", 400),
        ("X-A: 1\r\n Transfer-Encoding: chunked", 400),
        ("X-A: 1\rTransfer-Encoding: chunked", 400),
        ("X-A: 1\nTransfer-Encoding: chunked", 400),
        ("Content-Length: 3\r\nContent-Length: 3", 400),
        ("Content-Length: 3, 3", 400),
        ("Content-Length: +3", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 0x3", 400),
        ("Content-Length:", 400),
        ("Content-Length: 18446744073709551616", 413),
        ("Content-Length: 18446744073709551615", 413),
    ] {
        assert_eq!(post(fields, "0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"), Some(status), "{fields}");
    }
    for body in [
        "3;a\nxx\r\n0\r\n\r\n",
        "3;a=b\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\nAuthorization: x\r\n\r\n",
        "0\r\nx-a : b\r\n\r\n",
    ] {
        assert_eq!(post("Transfer-Encoding: chunked", body), Some(400), "{body}");
    }
}

#[test]
fn a_request_line_is_taken_in_one_form() {
    for (line, status) in [
        ("GET http://169.254.169.254/latest HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET /public#/../admin HTTP/1.1", 400),
        ("GET /adm\u{e9} HTTP/1.1", 400),
        ("GET  /a HTTP/1.1", 400),
        ("GET /a  HTTP/1.1", 400),
        ("GET /a", 400),
        ("GET /a HTTP/1.1 ", 400),
        ("GET\t/a HTTP/1.1", 400),
        ("get /a HTTP/1.1", 501),
        ("GeT /a HTTP/1.1", 501),
        ("DELETE\0 /a HTTP/1.1", 400),
        ("CONNECT 169.254.169.254:80 HTTP/1.1", 405),
        ("TRACE /a HTTP/1.1", 405),
        ("GET /a HTTP/1.2", 505),
        ("GET /a HTTP/2.0", 505),
        ("GET /a http/1.1", 505),
    ] {
        assert_eq!(refused(&format!("{line}\r\nHost: x\r\n\r\n")), Some(status), "{line}");
    }
    let long = format!("{} /a HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(1_000));
    assert_eq!(refused(&long), Some(501));
    assert_eq!(refused("GET /a HTTP/1.1\r\n\r\n"), Some(400), "no Host");
    assert_eq!(refused("GET /a HTTP/1.0\r\n\r\n"), None, "HTTP/1.0 needs none");
    assert_eq!(refused("GET /a HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n"), Some(400));
    assert_eq!(refused("GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Some(400));
    assert_eq!(refused("GET /a HTTP/1.1\nHost: x\n\n"), None, "waits for an end that never comes");
    assert_eq!(refused("GET /a HTTP/1.1\nHost: x\r\n\r\n"), Some(400));
}

#[test]
fn heads_and_trailers_are_bounded() {
    let fields = "a: b\r\n".repeat(MAX_FIELDS);
    assert_eq!(refused(&format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), Some(431));
    let endless = format!("GET /a HTTP/1.1\r\nHost: x\r\na: {}", "b".repeat(MAX_HEAD));
    assert_eq!(refused(&endless), Some(431));
    let trailers = format!(
        "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: {}",
        "b".repeat(MAX_TRAILERS)
    );
    assert_eq!(refused(&trailers), Some(431));
}

#[test]
fn behind_a_request_for_websocket_nothing_goes_on_before_the_answer() {
    let upgrade = "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    let bytes = [upgrade, GET].concat();
    let mut framer = Framer::default();
    assert_eq!(framer.next(bytes.as_bytes()), Ok(upgrade.len()));
    assert!(framer.is_upgrading());
    assert_eq!(framer.next(GET.as_bytes()), Ok(0));
    framer.upgraded(false);
    assert_eq!(framer.next(GET.as_bytes()), Ok(GET.len()));
    assert_eq!(framer.next(upgrade.as_bytes()), Ok(upgrade.len()));
    framer.upgraded(true);
    assert_eq!(framer.next(b"\x81\x00\x00\n"), Ok(4));
    assert!(refused(&upgrade.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc")).is_some());
}

fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "GET /a HTTP/1.1\r\n",
        "POST /b HTTP/1.1\r\n",
        "Host: x\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\n",
        "\r\n",
        "\n",
        "\r",
        "3\r\n",
        "abc",
        "0\r\n",
        "a: b\r\n",
        ";",
        " ",
        "\0",
    ]);
    prop::collection::vec(fragment, 0..16).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn however_bytes_are_cut_the_same_go_on(bytes in fragments(), size in 1usize..20) {
        let (whole, refused) = walk(&bytes, usize::MAX);
        let (pieces, refused_in_pieces) = walk(&bytes, size);
        prop_assert_eq!(whole.concat(), pieces.concat());
        prop_assert_eq!(refused.is_some(), refused_in_pieces.is_some());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = walk(&bytes, 7);
    }
}
