//! HAR: what passed, as browsers and other tools read it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::support::client::venv;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, portcullis, told};
use crate::support::http::{App, Caller, Canned, folder, gateway};

const ADMIN: &str = "[[rule]]\nname = \"no-admin\"\nobjects = [\"path:/admin*\"]\n\
                     verdict = \"block\"\nreason = \"Ask a human.\"\n";

/// The entries of every recording of HTTP, read by a schema, by their path and query.
fn entries(gateway: &Gateway) -> BTreeMap<String, Value> {
    let (_keep, folder) = folder();
    let mut found = BTreeMap::new();
    for (number, recording) in gateway.recordings().iter().enumerate() {
        let path = recording.to_str().unwrap();
        let output = portcullis(&["recording", "export", path, "--format", "har"]);
        if !output.status.success() {
            assert!(told(&output).contains("of no session"), "{}", told(&output));
            continue;
        }
        let file = folder.join(format!("{number}.har"));
        fs::write(&file, &output.stdout).unwrap();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/har_read.py");
        let mut read = Command::new(venv().join("bin/python"));
        let read = read.args(["-B", program]).arg(&file).output().unwrap();
        assert!(read.status.success(), "{}", told(&read));
        let har: Value = serde_json::from_slice(&output.stdout).unwrap();
        for entry in har["log"]["entries"].as_array().unwrap() {
            let url = entry["request"]["url"].as_str().unwrap().to_owned();
            found.insert(url.trim_start_matches("http://").to_owned(), entry.clone());
        }
    }
    found
}

fn header<'e>(message: &'e Value, name: &str) -> Option<&'e str> {
    let headers = message["headers"].as_array().unwrap();
    headers.iter().find(|header| header["name"] == name)?["value"].as_str()
}

#[test]
fn every_kind_of_exchange_is_exported_as_the_schema_has_it() {
    let app = App::start();
    let hostile = b"HTTP/1.1 200 \"OK\"\r\nX-Quote: \"</script>\\\r\nX-Latin: caf\xe9 \x9b\r\n\
                    X-Hidden: a\xe2\x80\xaeb\r\nContent-Type: text/html; charset=\"x\r\n\
                    Content-Length: 9\r\n\r\n<b>\x1b[2J\xff!";
    let canned = Canned::answering(hostile);
    let mut gateway =
        gateway(&format!("{}{}{ADMIN}", app.target("crew", ""), canned.target("odd", "")));
    let caller = Caller::of(&gateway);
    caller.post("/crew/v1/things?x=1&y=a%20b", r#"{"seen": "once"}"#);
    let (_keep, folder) = folder();
    let file = folder.join("binary");
    fs::write(&file, [0xff; 70_000]).unwrap();
    let from = format!("@{}", file.display());
    caller.curl("/crew/digest", &["-H", "Content-Type: image/png", "--data-binary", &from]);
    caller.get("/crew/gzip");
    caller.get("/crew/bytes/6000000");
    assert_eq!(caller.get("/crew/admin/x").status, 403);
    caller.get("/crew/release?now");
    caller.get("/crew/events?now");
    caller.get("/crew/redirect?/elsewhere");
    caller.curl("/odd/x?[a]=%5B|", &["-g"]);
    let output = caller.python("http_websockets.py", &[]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let mut leaving = caller.connect();
    let hang = caller.with_token("GET /crew/hang HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    leaving.write_all(hang.as_bytes()).unwrap();
    wait_until("the request at the target", || app.paths().contains(&"/hang".to_owned()));
    drop(leaving);
    wait_until("the target to be left", || app.told().iter().any(|told| told["gone"] == "/hang"));
    let mut killed = caller.connect();
    killed.write_all(hang.replace("/hang", "/hang/on").as_bytes()).unwrap();
    wait_until("the request at the target", || app.paths().contains(&"/hang/on".to_owned()));
    gateway.daemon().kill9();
    gateway.restart();
    assert!(gateway.stop().success());

    let entries = entries(&gateway);
    let of = |url: &str| entries.get(url).unwrap_or_else(|| panic!("{url}: {:?}", entries.keys()));
    let json = of("crew/v1/things?x=1&y=a%20b");
    let request = &json["request"];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["postData"]["text"], r#"{"seen": "once"}"#);
    assert_eq!(request["queryString"][1]["value"], "a b");
    assert_eq!(header(request, "content-type"), Some("application/json"));
    let content = &json["response"]["content"];
    assert_eq!(
        (&json["response"]["status"], &content["mimeType"]),
        (&200.into(), &"application/json".into())
    );
    assert!(content["text"].as_str().unwrap().contains("seen"), "{content}");
    assert_eq!(json["response"]["bodySize"], content["text"].as_str().unwrap().len());

    let binary = &of("crew/digest")["request"];
    assert_eq!(
        (&binary["postData"]["_encoding"], &binary["bodySize"]),
        (&"base64".into(), &70_000.into())
    );
    assert_eq!(of("crew/gzip")["response"]["content"]["encoding"], "base64");
    let large = &of("crew/bytes/6000000")["response"]["content"];
    assert_eq!(large["size"], 6_000_000);
    assert!(large["comment"].as_str().unwrap().ends_with(" of 6000000 bytes"), "{large}");

    let refused = of("crew/admin/x");
    assert_eq!(refused["response"]["status"], 403);
    assert_eq!(refused["comment"], "block by no-admin: Ask a human.");
    assert!(refused["response"]["content"]["text"].as_str().unwrap().contains("no-admin"));
    let events = &of("crew/events?now")["response"]["content"];
    assert!(events["text"].as_str().unwrap().contains("data: second"), "{events}");
    assert_eq!(of("crew/redirect?/elsewhere")["response"]["redirectURL"], "/crew/elsewhere");

    let odd = of("odd/x?%5Ba%5D=%5B%7C");
    assert_eq!(header(&odd["response"], "x-quote"), Some("\"</script>\\"));
    assert_eq!(header(&odd["response"], "x-latin"), Some("café \u{9b}"));
    assert_eq!(header(&odd["response"], "x-hidden"), Some("a\u{202e}b"));
    assert_eq!(odd["response"]["content"]["encoding"], "base64");

    let messages = of("crew/ws")["_webSocketMessages"].as_array().unwrap();
    assert_eq!(messages[0]["data"], "bye");
    let gone = of("crew/hang");
    assert_eq!(gone["response"]["status"], 0);
    assert!(gone["_error"].as_str().unwrap().contains("the client left"), "{gone}");
    assert_eq!(of("crew/hang/on")["_error"], "the recording ends before the answer did");
}

#[test]
fn messages_of_websockets_are_whole_and_say_who_sent_them() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let output = Caller::of(&gateway).python("http_websockets.py", &[]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(gateway.stop().success());
    let recordings = gateway.recordings();
    let mut all = Vec::new();
    for recording in &recordings {
        let path = recording.to_str().unwrap();
        let output = portcullis(&["recording", "export", path, "--format", "har"]);
        let har: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for entry in har["log"]["entries"].as_array().into_iter().flatten() {
            assert_eq!(entry["response"]["status"], 101);
            all.push(entry["_webSocketMessages"].as_array().unwrap().clone());
        }
    }
    let [first, second] = &*all else { panic!("{all:?}") };
    assert_eq!(first.len(), 2 * 203);
    assert_eq!(
        (&first[0]["type"], &first[0]["data"]),
        (&"send".into(), &"hello over the gateway".into())
    );
    let binary = first.iter().find(|message| message["opcode"] == 2).unwrap();
    // 76,800 bytes, which are stored in two pieces.
    assert_eq!(binary["data"].as_str().unwrap().len(), 102_400);
    assert!(first.iter().any(|m| m["type"] == "receive" && m["data"] == "in three pieces"));
    assert_eq!(second.len(), 1);
}
