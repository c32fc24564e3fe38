//! A value that nobody may see crosses in no coding, charset, spelling or cut: not to the client, not
//! into what is stored.

use std::fmt::Write as _;
use std::process::Command;

use crate::support::gateway::Gateway;
use crate::support::http::{App, Caller, Told, gateway};

const EMAIL: &str = "alice.secret@example.com";
const SSN: &str = "078-05-1120";
const CARD: &str = "4111111111111111";
/// What may be seen: an answer without it says nothing about masks.
const HARMLESS: &str = "harmless";

const MASKS: &str = r#"
[[mask]]
name = "pii"
targets = ["crew"]
fields = ["**.ssn"]
patterns = ["email", "credit-card"]
"#;

/// The texts that readers of some bytes may see in them.
fn readings(bytes: &[u8]) -> [String; 4] {
    let plain = String::from_utf8_lossy(bytes).into_owned();
    let wide = plain.replace('\0', "");
    [unescaped(&plain, "\\u", 4), unescaped(&plain, "%", 2), wide, plain]
}

/// With escapes of so many hexadecimal digits undone.
fn unescaped(text: &str, sign: &str, digits: usize) -> String {
    let mut parts = text.split(sign);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => plain.extend([&c.to_string(), &part[digits..]]),
            None => plain.extend([sign, part]),
        }
    }
    plain
}

#[track_caller]
fn shows_none(what: &str, bytes: &[u8]) {
    for text in readings(bytes) {
        for sentinel in [EMAIL, SSN, CARD, "4111.1", "4.1111"] {
            let from = text.find(sentinel).unwrap_or(text.len()).saturating_sub(200);
            assert!(
                !text.contains(sentinel),
                "{what}: {}",
                &text[text.floor_char_boundary(from)..]
            );
        }
    }
}

struct Stage {
    gateway: Gateway,
    caller: Caller,
    _app: App,
}

impl Stage {
    fn new() -> Self {
        let app = App::start();
        let gateway = gateway(&format!("{}{MASKS}", app.target("crew", "")));
        let caller = Caller::of(&gateway);
        Self { gateway, caller, _app: app }
    }

    /// The application's answer of these bytes, so many at a time.
    fn answer(&self, kind: Option<&str>, coding: Option<&str>, body: &[u8], chunk: usize) -> Told {
        let mut path = format!("/crew/raw?chunk={chunk}&body=");
        for byte in body {
            write!(path, "{byte:02x}").unwrap();
        }
        for (name, value) in [("type", kind), ("coding", coding)] {
            if let Some(value) = value {
                let value = value.replace(';', "%3B").replace(' ', "%20").replace('"', "%22");
                write!(path, "&{name}={}", value.replace('+', "%2B")).unwrap();
            }
        }
        let told = self.get(&path);
        shows_none(&format!("{kind:?} {coding:?} {chunk}"), &told.body);
        shows_none("the head", told.head.as_bytes());
        told
    }

    /// The same as [`Caller::get`], but what breaks off is an answer too.
    fn get(&self, path: &str) -> Told {
        let bearer = format!("Authorization: Bearer {}", self.caller.token);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "--max-time", "60", "-H", &bearer, &self.caller.url(path)]);
        let said = curl.output().unwrap().stdout;
        let end = said.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = said.split_at(end.map_or(said.len(), |end| end + 4));
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.split(' ').nth(1).map_or(0, |status| status.trim().parse().unwrap());
        Told { status, head, body: body.to_vec() }
    }

    fn finish(self) {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
        shows_none("what is stored", &self.gateway.all_contents());
        shows_none("the log", self.gateway.daemon().log().as_bytes());
    }
}

fn wide(text: &str, mark: &[u8], big: bool) -> Vec<u8> {
    let units = text
        .encode_utf16()
        .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
    mark.iter().copied().chain(units).collect()
}

/// Nothing that stands in the body came.
#[track_caller]
fn refused(told: &Told, what: &str) {
    assert!(!told.text().contains(HARMLESS), "{what}: {told:?}");
}

#[test]
fn in_no_coding_or_charset_does_a_masked_value_cross() {
    let stage = Stage::new();
    let json = format!(r#"{{"a": "{HARMLESS}", "ssn": "{SSN}", "to": "{EMAIL}", "n": {CARD}}}"#);
    // Whether the bytes are what the coding says or not.
    for coding in [
        "gzip",
        "GZIP",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "x-unknown",
        "gzip, identity",
        "identity, br",
        "aes128gcm",
    ] {
        for kind in ["application/json", "text/plain"] {
            let told = stage.answer(Some(kind), Some(coding), json.as_bytes(), 0);
            assert_eq!(told.status, 502, "{coding}");
            refused(&told, coding);
        }
    }
    let told = stage.answer(Some("application/json"), Some("identity"), json.as_bytes(), 0);
    assert!(told.text().contains(HARMLESS), "{told:?}");
    for charset in [
        "utf-16",
        "utf-16le",
        "UTF-32",
        "utf-7",
        "ibm037",
        "cp500",
        "shift_jis",
        "x-user-defined",
        "\"utf-16\"",
        "utf_16",
    ] {
        for kind in ["application/json", "text/plain", "text/event-stream", "application/xml"] {
            let kind = format!("{kind}; charset={charset}");
            let told = stage.answer(Some(&kind), None, json.as_bytes(), 0);
            assert_eq!(told.status, 502, "{kind}");
            refused(&told, &kind);
        }
    }
    // What says nothing, or lies, but that readers would recognise.
    for (mark, big) in
        [(&[0xff, 0xfe][..], false), (&[0xfe, 0xff], true), (&[], false), (&[], true)]
    {
        let body = wide(&json, mark, big);
        for kind in [
            "application/json",
            "text/plain",
            "text/plain; charset=utf-8",
            "text/html",
            "text/csv",
            "text/event-stream",
            "application/xml",
            "image/svg+xml",
            "application/x-www-form-urlencoded",
        ] {
            for chunk in [0, 1, 5] {
                refused(&stage.answer(Some(kind), None, &body, chunk), kind);
            }
        }
        refused(&stage.answer(None, None, &body, 0), "no type");
    }
    stage.finish();
}

#[test]
fn however_it_is_written_and_cut_a_masked_value_does_not_cross() {
    let stage = Stage::new();
    let escape = |text: &str| -> String {
        text.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect()
    };
    let json = format!(r#"{{"a": "{HARMLESS}", "ssn": "{SSN}", "to": "{EMAIL}", "n": {CARD}}}"#);
    let (left, right) = json.split_at(json.find(", \"ssn\"").unwrap() + 1);
    let percent = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02x}")).collect() };
    let documents = [
        json.clone(),
        format!(
            r#"{{"a": "{HARMLESS}", "{}": "{}", "{}": "{}"}}"#,
            escape("ssn"),
            escape(SSN),
            escape(EMAIL),
            escape(CARD)
        ),
        format!(
            r#"{{"a": "{HARMLESS}", "s\u0073n": 1, "ssn": "{SSN}", "ssn": ["{SSN}"], "ssn": {{"x": "{SSN}"}}}}"#
        ),
        format!(
            r#"["{HARMLESS}", {CARD}, -{CARD}, {CARD}.0, {CARD}e0, 4.111111111111111e15, 4.111111111111111E+15, 41111111111111110e-1, 411111111111111100.0e-2]"#
        ),
        format!(
            r#"[["{HARMLESS} {EMAIL}"], [[{{"ssn": [["{SSN}"]]}}]], "4111 1111 1111 1111", "x{CARD}"]"#
        ),
        format!(r#""{HARMLESS} {{\"to\": \"{EMAIL}\"}}""#),
        format!("{json}\r\n{json}\n\n{json}"),
        format!("\u{1e}{json}\n"),
        format!("\u{feff}{json}"),
    ];
    let events = [
        format!("data: {json}\n\n"),
        format!("data:{left}\ndata:{right}\n\n"),
        format!("id: {EMAIL}\r\nevent: {CARD}\r\n: {EMAIL}\r\ndata: {HARMLESS} {EMAIL}\r\n\r\n"),
        format!("data: {HARMLESS}\rdata: {EMAIL}\r\rdata: {CARD}\r\r"),
        format!("\u{feff}data: {HARMLESS}\n\nretry: 1\ndata\ndata: {EMAIL}\n\ndata: {json}"),
        // A line that is no part of an event stream becomes a comment.
        format!("{EMAIL}: x\ndata: {HARMLESS}\n\n"),
    ];
    let forms = [
        format!("a={HARMLESS}&ssn={SSN}&to={}&n={CARD}", EMAIL.replace('@', "%40")),
        format!("a={HARMLESS}&{}={};to={}", percent("ssn"), percent(SSN), percent(EMAIL)),
        format!("{}={HARMLESS}&4111+1111+1111+1111", percent(EMAIL)),
    ];
    let texts = [
        format!("{HARMLESS}, mail {EMAIL}, card {CARD}"),
        format!("name,mail\n{HARMLESS},{EMAIL}\n\"{CARD}\",\n"),
        format!("<p title='{EMAIL}'>{HARMLESS}</p><b>{CARD}</b>"),
    ];
    let kinds: [(&[&str], &[String]); 4] = [
        (
            &["application/json", "application/problem+json", "application/x-ndjson", "text/plain"],
            &documents,
        ),
        (&["text/event-stream"], &events),
        (&["application/x-www-form-urlencoded"], &forms),
        (
            &[
                "text/plain; charset=\"utf-8\"",
                "text/csv",
                "text/html",
                "application/octet-stream",
                "application/pdf",
            ],
            &texts,
        ),
    ];
    for (kinds, bodies) in kinds {
        for (kind, body) in
            kinds.iter().flat_map(|kind| bodies.iter().map(move |body| (kind, body)))
        {
            for chunk in [0, 1, 2, 7, 40] {
                let told = stage.answer(Some(kind), None, body.as_bytes(), chunk);
                // Readers of JSON may pass over a byte order mark; what is typed so breaks off.
                let left_out = body.starts_with('\u{feff}') && kind.contains("json");
                assert!(left_out || told.status == 200, "{kind} {body}: {told:?}");
                let left_out = left_out || told.text() == "[masked]";
                assert!(left_out || told.text().contains(HARMLESS), "{kind} {body}: {told:?}");
            }
        }
    }
    stage.finish();
}

#[test]
fn what_masks_hid_is_counted() {
    let app = App::start();
    let sections = format!("metrics = \"127.0.0.1:0\"\n{}{MASKS}", app.target("crew", ""));
    let gateway = gateway(&sections);
    let caller = Caller::of(&gateway);
    for how in ["json", "text", "events", "form"] {
        assert_eq!(caller.get(&format!("/crew/secrets/{how}")).status, 200);
    }
    let page = crate::support::http::curl(&[&format!(
        "http://{}/metrics",
        gateway.daemon().address_of("metrics")
    )]);
    let line = "portcullis_masked_values_total{protocol=\"http\",target=\"crew\"}";
    // Two header fields of each answer; then a field and an address, an address, four of both, two.
    assert!(page.text().contains(&format!("{line} 17\n")), "{}", page.text());
    assert!(gateway.stop().success());
    let stored = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    for counts in [
        r#""masked":{"patterns":3,"pii":1}"#,
        r#""masked":{"patterns":3}"#,
        r#""masked":{"patterns":5,"pii":1}"#,
    ] {
        assert!(stored.contains(counts), "{counts}: {stored}");
    }
}
