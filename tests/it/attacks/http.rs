//! HTTP: masks, headers, credentials, methods, paths.

mod bodies;
mod heads;
mod methods;
mod ports;
mod unknown;

use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::daemon::wait_until;
use crate::support::gateway::Gateway;
use crate::support::http::{App, Caller, Canned, Told, curl, folder, gateway};

/// What nobody may see.
const SECRET: &str = "hunter2-sentinel";
/// What may be seen: an answer without it says nothing about masks.
const HARMLESS: &str = "harmless";

const FIELDS: &str = "[[mask]]\nname = \"m\"\ntargets = [\"crew\"]\nfields = [\"**.secret\"]\n";
const PATTERNS: &str =
    "[[mask]]\nname = \"m\"\ntargets = [\"crew\"]\npatterns = [\"email\", \"credit-card\"]\n";

/// A gateway before the application, with more lines of the target and more sections.
struct Stage {
    gateway: Gateway,
    caller: Caller,
    app: App,
    /// Requests past the gateway, by which it is known what the application got before.
    lasts: AtomicUsize,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(lines: &str, sections: &str) -> Self {
        let app = App::start();
        let (keep, folder) = folder();
        let file = folder.join("credential");
        std::fs::write(&file, CREDENTIAL).unwrap();
        let lines = lines.replace("{file}", file.to_str().unwrap());
        let gateway = gateway(&format!("{}{sections}", app.target("crew", &lines)));
        let caller = Caller::of(&gateway);
        Self { gateway, caller, app, lasts: AtomicUsize::new(0), _folder: keep }
    }

    /// What comes of a path; what breaks off is an answer too.
    fn ask(&self, path: &str, arguments: &[&str]) -> Told {
        ask(&self.caller, path, arguments)
    }

    /// The application's answer of these bytes, so many at a time.
    fn body(&self, kind: &str, body: &[u8], chunk: usize) -> Told {
        let mut path = format!("/crew/raw?chunk={chunk}&type={}&body=", escaped(kind));
        for byte in body {
            write!(path, "{byte:02x}").unwrap();
        }
        self.ask(&path, &[])
    }

    /// An answer with this header field.
    fn field(&self, name: &str, value: &str) -> Option<String> {
        let told = self.ask(&format!("/crew/with?{name}={}", escaped(value)), &[]);
        assert_eq!(told.status, 200, "{name}: {value}: {told:?}");
        told.header(name)
    }

    /// The header fields of the last request that the application got.
    fn headers(&self) -> Vec<(String, String)> {
        // What it tells is read as it comes: all that it told before is there with a request of our own.
        let path = format!("/last/{}", self.lasts.fetch_add(1, Ordering::Relaxed));
        curl(&[&format!("http://127.0.0.1:{}{path}", self.app.port)]);
        let mut told = Vec::new();
        wait_until("what the application got", || {
            told = self.app.told();
            let own = told.iter().position(|told| told["path"] == *path);
            told.truncate(own.unwrap_or_default());
            own.is_some()
        });
        let last = told.iter().rev().find_map(|told| told["headers"].as_array()).unwrap();
        let text = |field: &serde_json::Value, at: usize| field[at].as_str().unwrap().to_owned();
        last.iter().map(|field| (text(field, 0), text(field, 1))).collect()
    }

    /// Stops it; nothing that it stored or logged holds the secret.
    fn finish(self, secrets: &[&str]) {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
        let stored = String::from_utf8_lossy(&self.gateway.all_contents()).into_owned();
        for secret in secrets {
            assert!(!stored.contains(secret), "{secret} is stored: {stored}");
            assert!(!self.gateway.daemon().log().contains(secret), "{secret} is logged");
        }
    }
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn ask(caller: &Caller, path: &str, arguments: &[&str]) -> Told {
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--path-as-is", "--max-time", "60", "-H", &bearer]);
    let said = curl.args(arguments).arg(caller.url(path)).output().unwrap().stdout;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = said.split_at(end.map_or(said.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split(' ').nth(1).map_or(0, |status| status.trim().parse().unwrap());
    Told { status, head, body: body.to_vec() }
}

const CREDENTIAL: &str = "canary-Xq7vT2/mK9cR4-credential";
const WITH_CREDENTIAL: &str =
    "credential = { header = \"Authorization\", value = { file = \"{file}\" } }";

fn json() -> String {
    format!(r#"{{"a": "{HARMLESS}", "secret": "{SECRET}", "n": [1, {{"secret": ["{SECRET}"]}}]}}"#)
}

#[test]
fn h01_a_body_is_masked_or_refused_whatever_its_content_type() {
    let stage = Stage::new("", FIELDS);
    let json = json();
    for kind in [
        "application/json",
        "application/x-amz-json-1.1",
        "application/vnd.api+json",
        "application/octet-stream",
        "text/html",
        "text/yaml",
        "text/csv",
        "application/xml",
        "application/cbor",
        "application/x-www-form-urlencoded",
        "image/png",
        "audio/mpeg",
        "application/json, text/html",
        "json",
        ";",
    ] {
        for chunk in [0, 1, 9] {
            let told = stage.body(kind, json.as_bytes(), chunk);
            assert!(!told.text().contains(SECRET), "{kind} {chunk}: {told:?}");
            assert_eq!(told.status, 200, "{kind} {chunk}: {told:?}");
            assert!(told.text().contains(HARMLESS) && told.text().contains("[masked]"), "{kind}");
        }
    }
    let binary: [(&str, &[u8]); 4] = [
        ("application/cbor", b"\xa1fsecretphunter2-sentinel"),
        ("application/msgpack", b"\x81\xa6secret\xb0hunter2-sentinel"),
        ("application/octet-stream", b"\x0a\x10hunter2-sentinel"),
        ("application/x-protobuf", b"\x0a\x10hunter2-sentinel\x12\x00"),
    ];
    let text = [
        ("text/yaml", format!("a: {HARMLESS}\nsecret: {SECRET}\n")),
        ("text/plain", format!("secret: {SECRET}\n")),
        ("application/yaml", format!("\"s\\x65cret\": {SECRET}\n")),
        ("text/csv", format!("name,secret\n{HARMLESS},{SECRET}\n")),
        ("application/xml", format!("<a><secret>{SECRET}</secret></a>")),
        ("text/html", format!("<p>Secret: {SECRET}</p>")),
        ("multipart/mixed; boundary=b", format!("--b\r\n\r\n{json}\r\n--b--")),
    ];
    let text = text.iter().map(|(kind, text)| (*kind, text.as_bytes()));
    for (kind, body) in binary.into_iter().chain(text) {
        for chunk in [0, 1, 9] {
            let told = stage.body(kind, body, chunk);
            assert!(!told.text().contains(SECRET), "{kind} {chunk}: {told:?}");
            assert!(chunk > 0 || told.status == 502, "{kind}: {told:?}");
        }
    }
    stage.finish(&[SECRET]);
}

#[test]
fn h02_what_cannot_be_read_is_answered_with_the_reason_and_logged() {
    let stage = Stage::new("", FIELDS);
    let marked = format!("\u{feff}{}", json());
    let told = stage.body("application/json", marked.as_bytes(), 0);
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.text().contains(HARMLESS) && !told.text().contains(SECRET), "{told:?}");
    let wide = |big: bool| -> Vec<u8> {
        let unit = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        marked.encode_utf16().flat_map(unit).collect()
    };
    let wider: Vec<u8> = marked.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let cut = json().trim_end_matches('}').to_owned();
    for (kind, body) in [
        ("application/json", wide(true)),
        ("application/json", wide(false)),
        ("text/plain", wider.clone()),
        ("application/json", wider),
        ("application/json", b"no JSON".to_vec()),
        ("application/json", format!("{{\"a\": {HARMLESS}").into_bytes()),
        ("text/event-stream", [&b"data: \0"[..], &wide(false)].concat()),
    ] {
        let told = stage.body(kind, &body, 0);
        assert_eq!(told.status, 502, "{kind}: {told:?}");
        assert!(
            told.json()["detail"].as_str().unwrap().contains("cannot be passed on"),
            "{told:?}"
        );
    }
    stage.gateway.daemon().wait_for_log("answer not passed on");
    // Where something was sent before, the head came at least, and the log says what happened.
    let told = stage.body("application/json", cut.as_bytes(), 3);
    assert!(matches!(told.status, 200 | 502), "{told:?}");
    let canned = |head: &str, body: &[u8]| {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n");
        Canned::answering(&[head.as_bytes(), body].concat())
    };
    let body = json();
    for (head, status) in [
        ("", 200),
        ("Content-Type:\r\n", 200),
        ("Content-Type: text/html\r\nContent-Type: text/plain\r\n", 502),
        ("Content-Type: \u{e9}\r\n", 502),
        ("Content-Encoding: gzip\r\n", 502),
    ] {
        let server = canned(head, body.as_bytes());
        let gateway = gateway(&format!("{}{FIELDS}", server.target("crew", "")));
        let told = ask(&Caller::of(&gateway), "/crew/x", &[]);
        assert_eq!(told.status, status, "{head}: {told:?}");
        assert!(!told.text().contains(SECRET), "{head}: {told:?}");
    }
    stage.finish(&[SECRET]);
}

#[test]
fn h04_no_header_claims_an_identity_or_an_address_or_imitates_the_credential() {
    let credential = "credential = { header = \"X-Api-Key\", value = { file = \"{file}\" } }";
    let rule = "[[rule]]\nname = \"no-tenants\"\ntargets = [\"crew\"]\nverdict = \"block\"\n\
                when = '\"x-tenant\" in effect.headers'\n";
    let stage = Stage::new(credential, rule);
    let claims = [
        "X-Api-Key",
        "X_Api_Key",
        "x-api_key",
        "X.Api.Key",
        "Remote-User",
        "X-Remote-User",
        "X-Remote-Group",
        "X-WEBAUTH-USER",
        "X_WEBAUTH_USER",
        "X-Auth-Request-User",
        "Impersonate-User",
        "Impersonate-Group",
        "CF-Connecting-IP",
        "True-Client-IP",
        "X-Client-IP",
        "X_Client_IP",
        "X-Real-IP",
        "X-Forwarded-For",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "Via",
        "X-Cluster-Client-IP",
        "X-Host",
        "X-Original-Host",
        "X-Trino-User",
        "Client-Cert",
        "X-Amzn-Oidc-Data",
        "From",
    ];
    let fields: Vec<String> = claims.iter().map(|name| format!("{name}: claimed")).collect();
    let mut arguments: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    arguments.extend(["-H", "X-Other: mine"]);
    assert_eq!(stage.ask("/crew/x", &arguments).status, 200);
    let headers = stage.headers();
    assert!(!headers.iter().any(|(_, value)| value.contains("claimed")), "{headers:?}");
    assert!(headers.contains(&("x-other".to_owned(), "mine".to_owned())), "{headers:?}");
    let keys =
        headers.iter().filter(|(name, _)| name.to_lowercase().replace('_', "-") == "x-api-key");
    assert_eq!(keys.collect::<Vec<_>>(), [&("x-api-key".to_owned(), CREDENTIAL.to_owned())]);
    assert_eq!(stage.ask("/crew/x", &["-H", "X-Tenant: 7"]).status, 403, "rules see every header");
    assert_eq!(stage.ask("/crew/x", &["-H", "X_HTTP_Method: DELETE"]).status, 400);
    stage.finish(&[CREDENTIAL]);
}

#[test]
fn h05_a_method_asked_for_in_query_or_body_is_judged() {
    let rule = "[[rule]]\nname = \"no-delete\"\nactions = [\"http.delete\"]\nverdict = \"block\"\n";
    let stage = Stage::new("", rule);
    let form = "Content-Type: application/x-www-form-urlencoded";
    let json = "Content-Type: application/json";
    for (path, kind, body) in [
        ("/crew/x?_method=DELETE", form, ""),
        ("/crew/x?%5fmethod=delete", form, ""),
        ("/crew/x", form, "a=1&_method=DELETE"),
        ("/crew/x", form, "_METHOD=delete&a=1"),
        ("/crew/x", form, "%5Fmethod=%44ELETE"),
        ("/crew/x", json, r#"{"_method": "DELETE"}"#),
        ("/crew/x", "X-Tunneled-Method: delete", ""),
    ] {
        let told = stage.ask(path, &["-H", kind, "--data-binary", body]);
        assert_eq!(told.status, 403, "{path} {kind} {body}: {told:?}");
    }
    let part = stage.ask("/crew/x", &["-F", "_method=DELETE", "-F", "a=1"]);
    assert_eq!(part.status, 403, "{part:?}");
    assert_eq!(stage.app.paths(), [""; 0], "nothing went up");
    for body in ["a=_method", "payment_method=delete", "_method=PATCH"] {
        assert_eq!(
            stage.ask("/crew/x", &["-H", form, "--data-binary", body]).status,
            200,
            "{body}"
        );
    }
}

#[test]
fn h06_cookies_that_come_one_by_one_are_one_field() {
    let stage = Stage::new("", "");
    for version in ["--http2-prior-knowledge", "--http1.1"] {
        let cookies = ["-H", "Cookie: a=1", "-H", "X-A: 1", "-H", "Cookie: b=2", version];
        assert_eq!(stage.ask("/crew/x", &cookies).status, 200);
        let headers = stage.headers();
        let cookies = headers.iter().filter(|(name, _)| name == "cookie");
        let cookies: Vec<_> = cookies.map(|(_, value)| value.as_str()).collect();
        assert_eq!(cookies, ["a=1; b=2"], "{version}");
    }
}

#[test]
fn h07_no_header_of_an_answer_leads_around_the_gateway() {
    let stage = Stage::new("", "");
    let target = format!("127.0.0.1:{}", stage.app.port);
    for (name, value, seen) in [
        ("location", "//TARGET/y", Some("/crew/y")),
        ("location", "http://TARGET/y?a#b", Some("/crew/y?a#b")),
        ("location", "HTTP://TARGET", Some("/crew/")),
        ("location", "ws://user@TARGET/y", Some("/crew/y")),
        (
            "location",
            "http://elsewhere.example/?to=http://TARGET/y",
            Some("http://elsewhere.example/?to=/crew/y"),
        ),
        ("content-location", "//TARGET/y", Some("/crew/y")),
        (
            "link",
            "<http://TARGET/y>; rel=next, <//TARGET/z>",
            Some("</crew/y>; rel=next, </crew/z>"),
        ),
        ("refresh", "0; url=http://TARGET/y", Some("0; url=/crew/y")),
        (
            "www-authenticate",
            "Bearer resource_metadata=\"http://TARGET/y\"",
            Some("Bearer resource_metadata=\"/crew/y\""),
        ),
        ("x-any", "see //TARGET/y", Some("see /crew/y")),
        ("x-served-by", "TARGET", None),
        ("alt-svc", "h2=\"TARGET\"", None),
        ("access-control-allow-origin", "http://TARGET", None),
        ("content-security-policy", "default-src http://TARGET", None),
        (
            "report-to",
            "{\"endpoints\":[{\"url\":\"http://TARGET/y\"}]}",
            Some("{\"endpoints\":[{\"url\":\"/crew/y\"}]}"),
        ),
        ("set-cookie", "a=b; Domain=127.0.0.1; Path=/y", Some("a=b; Path=/crew/y")),
        ("x-other", "http://elsewhere.example/y", Some("http://elsewhere.example/y")),
    ] {
        let shown = stage.field(name, &value.replace("TARGET", &target));
        assert_eq!(shown.as_deref(), seen, "{name}: {value}");
    }
}

#[test]
fn h08_a_credential_does_not_come_down_in_pieces() {
    let stage = Stage::new(WITH_CREDENTIAL, "");
    let whole = stage.ask("/crew/echo-part", &[]);
    assert!(whole.text().contains("****"), "{whole:?}");
    assert_eq!(whole.header("accept-ranges"), None);
    for range in ["bytes=0-20", "bytes=178-181", "bytes=60-64,70-75"] {
        let range = format!("Range: {range}");
        let part = stage.ask("/crew/echo-part", &["-H", &range, "-H", "If-Range: \"1\""]);
        assert_eq!((part.status, part.body == whole.body), (200, true), "{range}: {part:?}");
    }
    for size in [1, 2, 5, 9, 16, 30, 100] {
        let path = format!("/crew/cut/{size}");
        let output = stage.caller.python("websocket_messages.py", &[&path]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages: Vec<String> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let joined = messages.concat();
        assert_eq!(joined.len(), CREDENTIAL.len(), "{size}: {said}");
        let shown = joined.chars().filter(|c| *c != '*').count();
        assert!(shown <= 3, "{size}: {joined}");
    }
    stage.finish(&[CREDENTIAL, &CREDENTIAL[8..20]]);
}

#[test]
fn h09_an_escaped_token_in_the_url_is_refused_as_the_plain_one_is() {
    let stage = Stage::new("", "");
    let token = stage.caller.token.clone();
    let (first, rest) = token.split_at(1);
    let hex = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02x}")).collect() };
    let once = format!("{}{rest}", hex(first));
    let twice = once.replace('%', "%25");
    let thrice = twice.replace('%', "%25");
    for token in [&token, &once, &twice, &thrice, &hex(&token)] {
        for path in [format!("/crew/x?t={token}"), format!("/crew/x?a&{token}")] {
            assert_eq!(stage.ask(&path, &[]).status, 400, "{}", path.len());
        }
        let referer = format!("Referer: /x?t={token}");
        assert_eq!(stage.ask("/crew/x", &["-H", &referer]).status, 400);
    }
    assert_eq!(stage.ask(&format!("/crew/{once}"), &[]).status, 400);
    assert_eq!(stage.app.paths(), [""; 0], "nothing went up");
    stage.finish(&[&token, rest]);
}

#[test]
fn h10_only_where_another_token_would_help_is_the_status_401() {
    let stage = Stage::new("", "");
    let nobody = Caller { address: stage.caller.address, token: "none".to_owned() };
    let told = nobody.get("/crew/x");
    assert_eq!(told.status, 401);
    assert!(told.header("www-authenticate").is_some());
    for path in ["/nowhere/x", "/", "/CREW/x"] {
        let told = stage.ask(path, &[]);
        assert_eq!((told.status, told.header("www-authenticate")), (403, None), "{path}");
    }
    let unknown = stage.ask("/nowhere/x", &[]);
    let change = |text: String| text.replace("groups = [\"agents\"]", "groups = [\"x\"]");
    assert!(stage.gateway.reload(change).status.success());
    let told = stage.ask("/crew/x", &[]);
    assert_eq!(told.status, 403);
    assert_eq!(told.body, unknown.body, "what there is is not told");
}

#[test]
fn h11_the_endpoint_of_an_event_stream_leads_through_the_gateway() {
    let stage = Stage::new("", "");
    let target = format!("127.0.0.1:{}", stage.app.port);
    for (place, seen) in [
        ("", "/crew/messages/?session_id=7"),
        ("/messages/?session_id=7", "/crew/messages/?session_id=7"),
        (&format!("http://{target}/messages/?s=7"), "/crew/messages/?s=7"),
        (&format!("//{target}/messages/?s=7"), "/crew/messages/?s=7"),
    ] {
        let told = stage.ask(&format!("/crew/mcp?{place}"), &[]);
        let text = told.text();
        assert!(text.contains(&format!("event: endpoint\r\ndata: {seen}\r\n\r\n")), "{text}");
        assert!(
            text.ends_with("data: {\"path\": \"/messages/\"}\n\n"),
            "other events stay: {text}"
        );
        let posted =
            stage.ask(seen, &["-H", "Content-Type: application/json", "-d", "{\"id\": 1}"]);
        assert_eq!((posted.status, &*posted.text()), (202, "{\"id\": 1}"));
    }
}

#[test]
fn h12_an_encoded_slash_has_the_one_meaning_that_the_target_is_given() {
    let rule = "[[rule]]\nname = \"no-admin\"\nobjects = [\"path:/admin*\"]\nverdict = \"block\"\n";
    for (lines, path, status, went_up) in [
        ("", "/a%2Fb", 400, None),
        ("encoded_slash = \"refuse\"", "/a%2Fb", 400, None),
        ("encoded_slash = \"data\"", "/a%2fb/%40c", 200, Some("/a%2Fb/%40c")),
        ("encoded_slash = \"slash\"", "/a%2fb", 200, Some("/a/b")),
        ("encoded_slash = \"slash\"", "/admin%2fb", 403, None),
        ("encoded_slash = \"slash\"", "/x%2f..%2fadmin", 400, None),
        ("encoded_slash = \"data\"", "/x%2f..%2fadmin", 400, None),
        ("encoded_slash = \"data\"", "/x%2f%2e%2e/admin", 400, None),
        ("", "/%7Eme/%2d%5F", 200, Some("/~me/-_")),
        ("", "/admin%7E", 403, None),
        ("", "/x%2Ey", 200, Some("/x.y")),
    ] {
        let stage = Stage::new(lines, rule);
        let told = stage.ask(&format!("/crew{path}"), &[]);
        assert_eq!(told.status, status, "{lines} {path}: {told:?}");
        assert_eq!(stage.app.paths(), went_up.into_iter().collect::<Vec<_>>(), "{lines} {path}");
    }
    let rule = "[[rule]]\nname = \"one\"\nobjects = [\"path:/g%2Fp\"]\nverdict = \"block\"\n";
    let stage = Stage::new("encoded_slash = \"data\"", rule);
    assert_eq!(stage.ask("/crew/g%2fp", &[]).status, 403, "rules see it as it goes up");
}

#[test]
fn h13_the_rule_of_the_docs_holds_however_a_refund_is_written() {
    let docs = include_str!("../../../docs/http.md");
    let rule = docs.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let rule = rule.into_iter().find(|toml| toml.contains("refunds")).unwrap();
    let rule = rule.replace("\"billing\"", "\"crew\"");
    let stage = Stage::new("", &rule);
    let post = |path: &str, body: &str| stage.caller.post(path, body).status;
    for path in ["/crew/v1/refunds", "/crew/v1/refunds/", "/crew/v1/refunds/7"] {
        for body in [
            r#"{"amount": 2000}"#,
            r#"{"amount": 1, "AMOUNT": 2000}"#,
            r#"{"Amount": 2000, "amount": 1}"#,
            r#"{"AMOUNT": 2000}"#,
            r#"{"amount": 1, "amount": 2000}"#,
            r#"{"amount": "2000"}"#,
            "{}",
        ] {
            assert_eq!(post(path, body), 403, "{path} {body}");
        }
        assert_eq!(post(path, r#"{"amount": 1000}"#), 200, "{path}");
    }
}

#[test]
fn o08_idle_connections_keep_nobody_from_asking_how_the_gateway_is() {
    ports::idle_connections_give_way();
}

#[test]
fn o12_floods_of_frames_that_carry_nothing_are_cut_off() {
    let stage = Stage::new("", "");
    let mut attack = stage.caller.python("http2_attacks.py", &["floods"]);
    let output = attack.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}{complaint}");
    for kind in ["settings", "ping", "priority", "window", "unknown", "empty data"] {
        let ended = told.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(": "));
        let cut = ended.is_some_and(|how| how.starts_with("closed") || how.starts_with("GOAWAY"));
        assert!(cut, "{kind}: {told}");
    }
    assert!(told.contains("ordinary: 200"), "{told}");
    assert_eq!(stage.ask("/crew/x", &[]).status, 200);
}
