//! What passes, passes as it is; what does not is said to.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::support::certificates::Authority;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Setup, portcullis, told};
use crate::support::http::{App, Caller, Nginx, curl, folder, gateway, sessions, setup, target};

const RULES: &str = r#"
[[rule]]
name = "no-large-refunds"
actions = ["http.post"]
objects = ["path:/v1/refunds"]
when = 'effect.json.amount > 1000'
verdict = "block"
reason = "Large refunds need a human."

[[rule]]
name = "no-admin"
objects = ["path:/admin*"]
verdict = "block"
"#;

#[test]
fn a_request_reaches_the_target_as_it_is_and_the_answer_comes_back() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let fields = ["-H", "X-Trace: 7", "-H", "Accept: application/json"];
    let told = caller.curl("/crew/v1/things%20x?b=2&a=1", &fields);
    assert_eq!(told.status, 200, "{told:?}");
    let echo = told.json();
    assert_eq!(
        (echo["method"].as_str(), echo["path"].as_str()),
        (Some("GET"), Some("/v1/things%20x"))
    );
    assert_eq!(echo["query"], "b=2&a=1");
    let headers = echo["headers"].to_string();
    assert!(headers.contains(r#"["x-trace","7"]"#), "{headers}");
    let host = format!(r#"["host","127.0.0.1:{}"]"#, app.port);
    assert!(headers.contains(&host), "the authority is the catalog's: {headers}");
    assert!(!headers.contains("authorization") && !headers.contains(&caller.token), "{headers}");

    let posted = caller.post("/crew/v1/echo", r#"{"amount": 5}"#).json();
    assert_eq!(
        (posted["method"].as_str(), posted["body"].as_str()),
        (Some("POST"), Some(r#"{"amount": 5}"#))
    );
    assert_eq!(caller.curl("/crew", &[]).json()["path"], "/");
    for status in [204, 304, 404, 500] {
        assert_eq!(caller.get(&format!("/crew/status/{status}")).status, status);
    }
    let head = caller.curl("/crew/status/200", &["-I"]);
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("4")));
    let redirect = caller.get("/crew/redirect?http://elsewhere.example/x");
    assert_eq!(redirect.status, 302, "redirects are passed, not followed");
    assert_eq!(redirect.header("location").as_deref(), Some("http://elsewhere.example/x"));
    let own = caller.get(&format!("/crew/redirect?http://127.0.0.1:{}/y", app.port));
    assert_eq!(own.header("location").as_deref(), Some("/crew/y"), "as the client reaches it");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn http2_and_tls_are_spoken_on_both_sides() {
    let (_keep, folder) = folder();
    let authority = Authority::new();
    let app = App::over_tls(&folder, &authority.issue(&["127.0.0.1", "localhost"]));
    let root = folder.join("root.crt");
    std::fs::write(&root, authority.pem()).unwrap();
    let url = format!("https://localhost:{}", app.port);
    let proved = target("proved", &url, &format!("ca = {root:?}"));
    let unproved = target("unproved", &url, "");
    let gateway = crate::support::gateway::Gateway::start(&Setup {
        tls: Some(authority.issue(&["localhost"])),
        ..setup(&format!("{proved}{unproved}"))
    });
    let caller = Caller::of(&gateway);
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let ask = |path: &str, version: &str| {
        let url = format!("https://localhost:{}{path}", caller.address.port());
        let root = root.to_str().unwrap();
        curl(&[
            version,
            "--cacert",
            root,
            "--resolve",
            "localhost:1:127.0.0.1",
            "-H",
            &bearer,
            &url,
        ])
    };
    for (version, line) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200")] {
        let told = ask("/proved/x", version);
        assert!(told.head.starts_with(line), "{told:?}");
        assert_eq!(told.json()["version"], "2", "the target speaks HTTP/2: {told:?}");
        let large = ask("/proved/bytes/3000000", version);
        assert_eq!(large.body.len(), 3_000_000);
    }
    let refused = ask("/unproved/x", "--http2");
    assert_eq!(refused.status, 502, "a certificate that nobody vouches for: {refused:?}");

    // Without TLS and with it, HTTP/2 may also be known beforehand.
    let plain = gateway_in_the_clear(&app, &root);
    let caller = Caller::of(&plain);
    let told = caller.curl("/proved/x", &["--http2-prior-knowledge"]);
    assert!(told.head.starts_with("HTTP/2 200"), "{told:?}");
    let told = caller.curl("/proved/x", &["--http2"]);
    assert!(told.head.starts_with("HTTP/1.1 200"), "an upgrade to h2c is not taken up: {told:?}");
}

fn gateway_in_the_clear(app: &App, root: &std::path::Path) -> crate::support::gateway::Gateway {
    let url = format!("https://localhost:{}", app.port);
    gateway(&target("proved", &url, &format!("ca = {root:?}")))
}

#[test]
fn a_rule_on_path_or_json_blocks_and_the_client_is_told_why() {
    let app = App::start();
    let gateway = gateway(&format!("{}{RULES}", app.target("pay", "")));
    let caller = Caller::of(&gateway);
    assert_eq!(caller.post("/pay/v1/refunds", r#"{"amount": 1000}"#).status, 200);
    let blocked = caller.post("/pay/v1/refunds", r#"{"amount": 2000}"#);
    assert_eq!(blocked.status, 403, "{blocked:?}");
    assert_eq!(blocked.header("content-type").as_deref(), Some("application/problem+json"));
    let problem = blocked.json();
    assert_eq!(problem["rule"], "no-large-refunds");
    assert_eq!(problem["reason"], "Large refunds need a human.");
    let session = problem["session"].as_str().unwrap();

    // What cannot be looked into is not let through.
    let large = format!(r#"{{"amount": 1, "note": "{}"}}"#, "x".repeat(70_000));
    for (what, kind, body) in [
        ("two amounts", "application/json", r#"{"amount": 1, "amount": 2000}"#),
        ("no JSON", "application/json", "amount=1"),
        ("another type", "text/plain", r#"{"amount": 1}"#),
        ("another charset", "application/json; charset=utf-16", r#"{"amount": 1}"#),
        ("a body over the bound", "application/json", &large),
        ("no amount", "application/json", "{}"),
    ] {
        let kind = format!("Content-Type: {kind}");
        let told = caller.curl("/pay/v1/refunds", &["-H", &kind, "--data-binary", body]);
        assert_eq!(told.status, 403, "{what}: {told:?}");
    }
    assert_eq!(caller.get("/pay/admin/users").json()["rule"], "no-admin");
    assert_eq!(caller.curl("/pay/admin", &["-I"]).status, 403);
    assert_eq!(app.paths(), ["/v1/refunds"], "what was blocked did not reach the target");

    let listed = sessions(&gateway, 1);
    assert_eq!(listed[0]["id"], session);
    assert_eq!(
        (listed[0]["protocol"].as_str(), listed[0]["target"].as_str()),
        (Some("http"), Some("pay"))
    );
    wait_until("its commands in the index", || sessions(&gateway, 1)[0]["blocked"] == 9);
    assert_eq!(sessions(&gateway, 1)[0]["allowed"], 1);
}

#[test]
fn events_come_one_by_one_as_the_target_sends_them() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let mut listening = Command::new("curl")
        .args(["-sSN", "-H", &bearer, &caller.url("/crew/events?one")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = listening.stdout.take().unwrap();
    let mut event = [0; "id: 1\nevent: step\ndata: first\n\n".len()];
    out.read_exact(&mut event).unwrap();
    assert!(String::from_utf8_lossy(&event).ends_with("data: first\n\n"));
    // The target sends the second only once the first was seen.
    assert_eq!(caller.get("/crew/release?one").status, 200);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: second"), "{rest}");
    assert!(listening.wait().unwrap().success());
}

#[test]
fn large_bodies_pass_both_ways_in_little_memory() {
    const MEGABYTES: usize = 300;
    let app = App::start();
    let nginx = Nginx::start();
    nginx.write("large", &vec![b'x'; MEGABYTES << 20]);
    let gateway = gateway(&format!("{}{}", app.target("crew", ""), nginx.target("files")));
    let caller = Caller::of(&gateway);
    caller.get("/crew/x");
    caller.get("/files/x");
    let idle = gateway.daemon().resident();
    let (_keep, folder) = folder();
    let file = folder.join("large");
    let to = file.to_str().unwrap();
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let down = Command::new("curl")
        .args(["-sS", "-o", to, "-H", &bearer, &caller.url("/files/files/large")])
        .status()
        .unwrap();
    assert!(down.success());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), (MEGABYTES << 20) as u64);
    let up = caller.curl("/crew/upload", &["-T", to, "-H", "Content-Type: text/plain"]);
    assert_eq!(up.json()["length"], MEGABYTES << 20, "{}", up.head);
    let grown = gateway.daemon().peak_resident().saturating_sub(idle);
    println!("{MEGABYTES} MB each way: {} kB above idle", grown >> 10);
    // As for Postgres; it is half of that, and beside other tests a little more.
    assert!(grown < 64 << 20, "the gateway grew by {} kB", grown >> 10);
}

#[test]
fn ranges_trailers_and_early_hints_keep_to_their_rules() {
    let nginx = Nginx::start();
    nginx.write("letters", b"abcdefghij");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\
                 Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    let canned = crate::support::http::Canned::answering(hints.as_bytes());
    let gateway = gateway(&format!("{}{}", nginx.target("files"), canned.target("hints", "")));
    let caller = Caller::of(&gateway);
    let part = caller.curl("/files/files/letters", &["-H", "Range: bytes=2-4"]);
    assert_eq!((part.status, part.text().as_str()), (206, "cde"));
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 2-4/10"));
    let tagged = caller.get("/files/files/letters").header("etag").unwrap();
    let none_match = format!("If-None-Match: {tagged}");
    assert_eq!(caller.curl("/files/files/letters", &["-H", &none_match]).status, 304);

    let request =
        "GET /hints/x HTTP/1.1\r\nHost: x\r\n{auth}TE: trailers\r\nConnection: TE, close\r\n\r\n";
    let answer = caller.raw(request);
    assert!(answer.starts_with("HTTP/1.1 200"), "1xx answers are dropped: {answer}");
    assert!(answer.contains("abc") && answer.to_lowercase().contains("x-sum: 7"), "{answer}");
}

#[test]
fn a_client_that_leaves_frees_the_target_and_the_recording_says_so() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let mut stream = caller.connect();
    let request = caller.with_token("GET /crew/hang HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    wait_until("the request at the target", || app.paths() == ["/hang"]);
    drop(stream);
    wait_until("the target to be left", || app.told().iter().any(|told| told["gone"] == "/hang"));
    assert!(gateway.stop().success());
    gateway.verify_all();
    assert!(String::from_utf8_lossy(&gateway.all_contents()).contains("the client left"));
}

#[test]
fn a_target_that_is_down_is_named_and_nothing_more() {
    let gateway = gateway(&target("gone", "http://127.0.0.1:1", ""));
    let told = Caller::of(&gateway).get("/gone/x");
    assert_eq!(told.status, 502);
    assert!(told.text().contains("gone") && !told.text().contains("127.0.0.1"), "{told:?}");
}

#[test]
fn a_replay_shows_requests_and_answers() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    caller.post("/crew/v1/things", r#"{"seen": "once"}"#);
    assert!(gateway.stop().success());
    let recording = gateway.recordings();
    let replay = portcullis(&["replay", recording[0].to_str().unwrap()]);
    let shown = told(&replay);
    for text in ["POST /v1/things", "> {\"seen\": \"once\"}", "< HTTP/1.1 200 OK"] {
        assert!(shown.contains(text), "{text} is not shown: {shown}");
    }
}
