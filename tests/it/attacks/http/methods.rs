//! Methods that a body asks for behind what is read of it before the request is decided.

use super::Stage;

const RULE: &str =
    "[[rule]]\nname = \"no-delete\"\nactions = [\"http.delete\"]\nverdict = \"block\"\n";

#[test]
fn a_method_asked_for_behind_the_beginning_of_a_body_breaks_it_off() {
    let stage = Stage::new("", RULE);
    let filler = "x".repeat(200_000);
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts = format!("{}{}--b--\r\n", part("a", &filler), part("_method", "DELETE"));
    for (kind, body) in [
        ("application/x-www-form-urlencoded", format!("a={filler}&_method=DELETE")),
        ("application/x-www-form-urlencoded", format!("a={filler}&%5fmetho%64=DELETE&b=1")),
        ("multipart/form-data; boundary=b", parts),
        ("application/json", format!(r#"{{"a": "{filler}", "_method": "DELETE"}}"#)),
        ("application/json", format!(r#"{{"a": "{filler}", "\u005Fmethod": "DELETE"}}"#)),
        ("application/json", r#"{"a": 1, "a": 2, "_method": "DELETE"}"#.to_owned()),
        ("", format!("a={filler}&_method=DELETE")),
        ("", "_method=DELETE".to_owned()),
        // JSON that calls itself something else: some programs read what it is.
        ("text/plain", r#"{"_method": "DELETE"}"#.to_owned()),
        ("text/plain", format!(r#"{{"a": "{filler}", "\u005fmethod": "DELETE"}}"#)),
        ("application/x-www-form-urlencoded", r#"{"_method": "DELETE"}"#.to_owned()),
        ("multipart/form-data; boundary=b", r#"{"_method": "DELETE"}"#.to_owned()),
        ("application/octet-stream", "\u{feff}\r\n {\"_METHOD\": \"DELETE\"}".to_owned()),
        ("image/png", r#"[{"_method": "DELETE"}]"#.to_owned()),
        ("", r#"{"_method": "DELETE"}"#.to_owned()),
    ] {
        let (_keep, folder) = crate::support::http::folder();
        let file = folder.join("body");
        std::fs::write(&file, &body).unwrap();
        let (kind, from) = (format!("Content-Type: {kind}"), format!("@{}", file.display()));
        let kind = if kind.ends_with(": ") { "Content-Type:" } else { &kind };
        for chunked in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            let arguments = [&["-H", kind, "--data-binary", &from][..], chunked].concat();
            let told = stage.ask("/crew/digest", &arguments);
            assert_eq!(told.status, 400, "{kind} {}: {told:?}", body.len());
        }
    }
    let packed =
        ["-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "-d", "x"];
    assert_eq!(
        stage.ask("/crew/digest", &packed).status,
        403,
        "what nobody reads could ask for it"
    );
    let text =
        ["-H", "Content-Type: text/plain", "-d", "the field \"_method\": \"DELETE\" in a text"];
    assert_eq!(stage.ask("/crew/digest", &text).status, 200);
    let fine = format!(r#"{{"a": "{filler}", "payment_method": "card", "c": "\"_method\": 1"}}"#);
    let (_keep, folder) = crate::support::http::folder();
    let file = folder.join("body");
    std::fs::write(&file, &fine).unwrap();
    let from = format!("@{}", file.display());
    let told = stage
        .ask("/crew/digest", &["-H", "Content-Type: application/json", "--data-binary", &from]);
    assert_eq!(told.json()["length"], fine.len());
}
