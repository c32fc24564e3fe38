//! Masks over HTTP: what nobody may see crosses no socket and is in no store, however it is written,
//! encoded and cut.

use crate::support::gateway::Gateway;
use crate::support::http::{App, Caller, Canned, Told, gateway};

/// What stands in what the application says.
const SENTINELS: &[&str] = &["alice.secret", "078-05-1120"];

const MASKS: &str = r#"
[[mask]]
name = "pii"
targets = ["crew"]
fields = ["customer.ssn", "**.ssn"]
patterns = ["email"]
"#;

struct Masked {
    app: App,
    gateway: Gateway,
    caller: Caller,
}

impl Masked {
    fn new(masks: &str) -> Self {
        let app = App::start();
        let gateway = gateway(&format!("{}{masks}", app.target("crew", "")));
        let caller = Caller::of(&gateway);
        Self { app, gateway, caller }
    }

    /// An answer in which nothing stands that must not.
    #[track_caller]
    fn shows_nothing(&self, path: &str, arguments: &[&str]) -> Told {
        let told = self.caller.curl(path, arguments);
        let all = format!("{}\n{}", told.head, told.text());
        for sentinel in SENTINELS {
            assert!(!all.contains(sentinel), "{path}: {all}");
        }
        told
    }

    /// The header fields of the first request that the application got.
    fn asked(&self) -> String {
        self.app.told()[0]["headers"].to_string().to_lowercase()
    }

    /// Stops the gateway, and looks through everything that it stored.
    fn finish(self, secrets: &[&str]) -> String {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
        let stored = String::from_utf8_lossy(&self.gateway.all_contents()).into_owned();
        let log = self.gateway.daemon().log();
        for secret in secrets {
            assert!(!stored.contains(secret), "{secret} is in a recording: {stored}");
            assert!(!log.contains(secret), "{secret} is in the log");
            for file in self.gateway.stored_files() {
                let bytes = std::fs::read(&file).unwrap();
                let there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!there, "{secret} is in {}", file.display());
            }
        }
        stored
    }
}

const CUSTOMER: &str =
    r#"{"customer": {"name": "Alice", "email": "[email]", "ssn": "[masked]"}, "total": 7}"#;

#[test]
fn no_form_encoding_or_cut_of_an_answer_brings_a_masked_value() {
    let masked = Masked::new(MASKS);
    let lines = format!("{CUSTOMER}\n{CUSTOMER}\n");
    let (first, second) = CUSTOMER.split_at(30);
    let events = format!(
        ": [email]\nevent: step\ndata: {first}\ndata: {second}\n\ndata: to [email]\n\ndata: [DONE]\n\n"
    );
    for (how, expected) in [
        ("json", CUSTOMER),
        ("problem", CUSTOMER),
        ("lines", &lines),
        ("text", "Alice, [email]"),
        ("disguised", CUSTOMER),
        ("untyped", CUSTOMER),
        ("html", "<a href='mailto:[email]'>Alice</a>"),
        ("form", "to=%5Bemail%5D&%73sn=%5Bmasked%5D&n=7"),
        ("empty", ""),
        ("events", &events),
    ] {
        for chunk in ["", "chunk=1", "chunk=7", "chunk=40"] {
            let told = masked.shows_nothing(&format!("/crew/secrets/{how}?{chunk}"), &[]);
            assert_eq!((told.status, &*told.text()), (200, expected), "{how} {chunk}");
        }
    }
    let told = masked.shows_nothing("/crew/secrets/escaped?chunk=3", &[]).json();
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(CUSTOMER).unwrap());
    let stored = masked.finish(SENTINELS);
    assert!(stored.contains(r#""ssn": "[masked]""#), "{stored}");
}

#[test]
fn what_cannot_be_masked_does_not_pass() {
    let masked = Masked::new(MASKS);
    for how in [
        "json?coding=gzip",
        "text?coding=gzip",
        "json?status=206",
        "parts",
        "utf-16",
        "utf-7",
        "binary",
    ] {
        let told = masked.shows_nothing(&format!("/crew/secrets/{how}"), &[]);
        assert_eq!(told.status, 502, "{how}: {told:?}");
    }
    let told = masked.shows_nothing("/crew/secrets/not-json?chunk=1000", &[]);
    assert_eq!(told.status, 502, "nothing was sent before: {told:?}");
    for how in ["broken", "large"] {
        let url = masked.caller.url(&format!("/crew/secrets/{how}?chunk=1000"));
        let bearer = format!("Authorization: Bearer {}", masked.caller.token);
        let mut curl = std::process::Command::new("curl");
        let output = curl.args(["-sS", "-i", "--max-time", "60", "-H", &bearer, &url]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{how}: {said}");
        assert!(!said.contains("078-05-1120") && !said.contains("alice.secret"), "{how}: {said}");
    }
    assert_eq!(masked.shows_nothing("/crew/secrets/json", &[]).status, 200, "the session goes on");
    masked.finish(SENTINELS);
}

#[test]
fn heads_ask_for_nothing_and_tell_nothing_that_masks_could_not_hold() {
    let masked = Masked::new(MASKS);
    let fields = [
        "Range: bytes=0-10",
        "If-None-Match: \"1\"",
        "If-Modified-Since: Sat, 21 Nov 2026 10:00:00 GMT",
        "If-Range: \"1\"",
        "Accept-Encoding: gzip, br",
        "Want-Digest: sha-256",
        "X-Other: 7",
    ];
    let arguments: Vec<&str> = fields.iter().flat_map(|field| ["-H", *field]).collect();
    let told = masked.shows_nothing("/crew/secrets/json", &arguments);
    for gone in ["etag", "last-modified", "accept-ranges", "digest", "content-length"] {
        assert_eq!(told.header(gone), None, "{gone}: {}", told.head);
    }
    assert_eq!(told.header("x-customer").as_deref(), Some("[email]"));
    assert_eq!(told.header("link").as_deref(), Some("</customers/%5Bemail%5D%3E; rel=self"));
    assert_eq!(told.header("content-type").as_deref(), Some("application/json"));
    let asked = masked.asked();
    for gone in ["range", "if-", "gzip", "want-"] {
        assert!(!asked.contains(gone), "{gone}: {asked}");
    }
    assert!(asked.contains(r#"["accept-encoding","identity"]"#) && asked.contains("x-other"));
    masked.finish(SENTINELS);
}

#[test]
fn a_field_whose_name_holds_what_is_masked_is_left_out() {
    let secrets = ["4111111111111111", "GB82WEST12345698765432"];
    let [card, iban] = secrets;
    let canned = Canned::answering(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-{card}: there\r\n{iban}: there\r\n\
             X-Plain: there\r\nTransfer-Encoding: chunked\r\nTrailer: {card}\r\n\r\n\
             2\r\nok\r\n0\r\n{card}: there\r\nX-Last: there\r\n\r\n"
        )
        .as_bytes(),
    );
    let mask = "[[mask]]\nname = \"money\"\ntargets = [\"shop\"]\n\
                patterns = [\"credit-card\", \"iban\"]\n";
    let gateway = gateway(&format!("{}{mask}", canned.target("shop", "")));
    let caller = Caller::of(&gateway);
    let told = caller.curl("/shop/x", &["-H", &format!("X-{card}: 1"), "-H", "TE: trailers"]);
    assert_eq!((told.status, told.text()), (200, "ok".to_owned()));
    assert_eq!(told.header("x-plain").as_deref(), Some("there"));
    let shown = format!("{}{}", told.head, told.text()).to_uppercase();
    assert!(gateway.stop().success());
    let stored = String::from_utf8_lossy(&gateway.all_contents()).to_uppercase();
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!stored.contains(secret), "{secret} is stored");
    }
    assert!(stored.contains("X-PLAIN"), "{stored}");
}

#[test]
fn what_a_client_sends_goes_up_as_it_is_and_is_stored_masked() {
    let masked = Masked::new(MASKS);
    let json = r#"{"ssn": "078-05-1120", "to": "alice.secret@example.com", "n": 5}"#;
    let escaped = r#"{"\u0073sn": "078-05\u002d1120", "to": "alice\u002esecret@example.com"}"#;
    let form = "ssn=078-05-1120&to=alice.secret%40example.com";
    let upload = format!("{} alice.secret@example.com", "x".repeat(100_000));
    for (kind, body) in [
        ("application/json", json),
        ("application/json", escaped),
        ("application/x-www-form-urlencoded", form),
        ("text/plain", &upload),
        ("text/plain; charset=utf-16", json),
    ] {
        let content_type = format!("Content-Type: {kind}");
        for chunked in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            let arguments = [&["-H", &content_type, "--data-binary", body][..], chunked].concat();
            let told = masked.caller.curl("/crew/digest", &arguments).json();
            assert_eq!(told["length"], body.len(), "{kind}");
        }
    }
    let large = serde_json::json!({ "ssn": "078-05-1120", "x": "y".repeat(3 << 19) }).to_string();
    let (_keep, folder) = crate::support::http::folder();
    let file = folder.join("large.json");
    std::fs::write(&file, &large).unwrap();
    let from = format!("@{}", file.display());
    let arguments = ["-H", "Content-Type: application/json", "--data-binary", &from];
    assert_eq!(masked.caller.curl("/crew/digest", &arguments).json()["length"], large.len());
    let fields = [
        "-H",
        "X-Customer: alice.secret@example.com",
        "-H",
        "Referer: /a?b=alice.secret%40example.com",
    ];
    masked.caller.curl(
        "/crew/digest/alice.secret%40example.com?to=alice%2Esecret@example.com&ssn=078-05-1120",
        &fields,
    );
    let stored = masked.finish(&["alice.secret", "078-05-1120", "alice%2E", "05\\u002d1120"]);
    assert!(stored.contains(r#"{"ssn": "[masked]", "to": "[email]", "n": 5}"#), "{stored}");
    assert!(stored.contains("GET /digest/%5Bemail%5D?to=[email]&ssn=%5Bmasked%5D"), "{stored}");
}

#[test]
fn messages_of_websockets_are_masked() {
    let masked = Masked::new(MASKS);
    let output = masked.caller.python("masked_websockets.py", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("ok"), "{said}{complaint}");
    masked.finish(SENTINELS);
}

#[test]
fn a_lifted_mask_shows_to_the_client_alone() {
    let masked = Masked::new(&format!("{MASKS}unless_groups = [\"agents\"]\n"));
    for how in ["json", "escaped", "lines", "text", "form", "events"] {
        let told = masked.caller.get(&format!("/crew/secrets/{how}?chunk=5"));
        assert_eq!(told.status, 200);
        assert!(told.head.contains("alice.secret@example.com"), "{}", told.head);
        assert!(!told.text().contains("[masked]") && !told.text().contains("[email]"), "{how}");
    }
    masked.finish(SENTINELS);
}

#[test]
fn without_masks_nothing_changes() {
    let masked = Masked::new("");
    let told = masked.caller.curl("/crew/secrets/json", &["-H", "Range: bytes=0-1"]);
    assert_eq!((told.status, told.header("etag").as_deref()), (200, Some("\"1\"")));
    assert!(told.text().contains("078-05-1120"));
    assert!(masked.asked().contains("range"));
}
