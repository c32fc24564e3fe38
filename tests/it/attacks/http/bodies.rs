//! Bodies under masks: other kinds, other grammars, both ways.

use super::{FIELDS, HARMLESS, PATTERNS, SECRET, Stage, json};

#[test]
fn patterns_are_found_in_what_is_json_under_another_type_and_what_hides_them_is_refused() {
    let stage = Stage::new("", PATTERNS);
    let escaped = format!(r#"{{"a": "{HARMLESS}", "to": "alice\u0040example.com"}}"#);
    for kind in ["text/html", "application/octet-stream", "text/plain", "image/gif", "x/y"] {
        let told = stage.body(kind, escaped.as_bytes(), 0);
        assert_eq!(told.status, 200, "{kind}: {told:?}");
        assert!(told.text().contains("[email]") && told.text().contains(HARMLESS), "{told:?}");
    }
    let plain = format!("{HARMLESS}: mail alice@example.com, card 4111111111111111");
    for (kind, chunk) in [("text/plain", 0), ("text/html", 5), ("text/yaml", 1), ("", 0)] {
        let told = stage.body(kind, plain.as_bytes(), chunk);
        assert_eq!(told.text(), format!("{HARMLESS}: mail [email], card [credit-card]"), "{kind}");
    }
    let wide: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let card = [&b"\xa1dcard\x1b"[..], &4_111_111_111_111_111_u64.to_be_bytes()].concat();
    for (kind, body) in [
        ("text/html", b"alice&#64;example.com".to_vec()),
        ("application/xml", b"alice&#x40;example.com".to_vec()),
        ("text/html", b"<a href='mailto:alice%40example.com'>".to_vec()),
        ("text/plain", b"\"alice\\u0040example.com\" and more".to_vec()),
        ("application/cbor", card),
        ("text/plain", wide),
        ("multipart/mixed; boundary=b", b"--b\r\n\r\nalice=40example.com\r\n--b--".to_vec()),
    ] {
        let told = stage.body(kind, &body, 0);
        assert_eq!(told.status, 502, "{kind}: {told:?}");
    }
    stage.finish(&["alice@", "4111111111111111"]);
}

#[test]
fn fields_are_found_in_forms_and_events_however_they_are_written() {
    let stage = Stage::new("", FIELDS);
    let form = "application/x-www-form-urlencoded";
    let json = json();
    for body in [
        format!("a={HARMLESS}&user[secret]={SECRET}"),
        format!("a={HARMLESS}&user.secret={SECRET}&user%5Bsecret%5D={SECRET}"),
        format!("a={HARMLESS}&payload={}", super::escaped(&json)),
        format!("a={HARMLESS}&secret: {SECRET}"),
    ] {
        let told = stage.body(form, body.as_bytes(), 0);
        assert!(told.text().contains(HARMLESS), "{body}: {told:?}");
        assert!(!told.text().contains(SECRET), "{body}: {told:?}");
    }
    for body in [
        format!(": {json}\ndata: {HARMLESS}\n\n"),
        format!("{json}\n\ndata: {HARMLESS}\n\n"),
        format!("data: secret: {SECRET}\n\ndata: {HARMLESS}\n\n"),
        format!("id: secret={SECRET}\nevent: secret {SECRET}\ndata: {HARMLESS}\n\n"),
        format!("data: a: 1\ndata: secret: {SECRET}\n\ndata: {HARMLESS}\n\n"),
    ] {
        for chunk in [0, 1] {
            let told = stage.body("text/event-stream", body.as_bytes(), chunk);
            assert!(told.text().contains(HARMLESS), "{body}: {told:?}");
            assert!(!told.text().contains(SECRET), "{body}: {told:?}");
        }
    }
    stage.finish(&[SECRET]);
}

#[test]
fn pictures_pass_as_what_they_are_and_listed_types_as_what_they_say() {
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0secret\xff\xfe".repeat(4);
    let document = b"%PDF-1.7\n\x00\xffsecret harmless".to_vec();
    let stage = Stage::new("unmasked_types = [\"application/pdf\", \"font/*\"]", FIELDS);
    for (kind, body, chunk, status) in [
        ("image/png", &picture, 0, 200),
        ("image/png", &picture, 3, 200),
        ("image/svg+xml", &picture, 0, 200),
        ("application/pdf", &document, 0, 200),
        ("Application/PDF; a=b", &document, 0, 200),
        ("font/x", &document, 0, 200),
        ("application/zip", &document, 0, 502),
        ("image/png", &document, 0, 502),
        ("text/plain", &picture, 0, 502),
    ] {
        let told = stage.body(kind, body, chunk);
        assert_eq!(told.status, status, "{kind}: {told:?}");
        assert!(status != 200 || told.body == *body, "{kind} is changed");
    }
    let told = stage.body("application/pdf", json().as_bytes(), 0);
    assert!(told.text().contains(HARMLESS) && !told.text().contains(SECRET), "{told:?}");
    stage.finish(&[SECRET]);
}

#[test]
fn what_a_client_sends_in_no_known_format_is_not_stored() {
    let stage = Stage::new("", FIELDS);
    let yaml = format!("a: 1\nsecret: {SECRET}\n");
    let packed = format!("\u{1}\u{6}secret\u{10}{SECRET}");
    for (kind, body) in [
        ("text/yaml", &yaml),
        ("application/octet-stream", &json()),
        ("application/msgpack", &packed),
        ("text/html", &json()),
    ] {
        let kind = format!("Content-Type: {kind}");
        let told = stage.ask("/crew/digest", &["-H", &kind, "--data-binary", body]);
        assert_eq!(told.json()["length"], body.len(), "{kind}: it goes up as it is");
    }
    stage.finish(&[SECRET]);
}
