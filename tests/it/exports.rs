//! Recordings in other formats, and rules tried on them: by command and by API.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::approval::ask_with;
use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::{PATIENCE, wait_until};
use crate::support::gateway::{Gateway, Setup, portcullis, told};

const WEB: &str =
    "web = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";
const RULE: &str = "[[rule]]\nname = \"no-drops\"\nactions = [\"sql.drop\"]\nverdict = \"block\"\n\
                    reason = \"=cmd|'/C calc'!A0\"\n";
/// What is sent and what comes back is as hostile as it gets.
const STATEMENTS: &[&str] = &[
    "=select 1",
    "select '<script>alert(1)</script>' as \"<b>x</b>\", E'\\x1b]0;t\\x07' as a, '=1+1' as f",
    "select 1 as live",
    "drop table nothing",
    "select '\u{202e}' -- </style><script>alert(2)</script>",
];

fn site() -> (Database, Gateway) {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        policy: RULE.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    (database, gateway)
}

/// Has a session with these statements, and waits until it is sealed and in the index.
fn session(gateway: &Gateway, client: &Client, statements: &[&str]) -> String {
    let mut psql = client.psql();
    psql.args(["-v", "ON_ERROR_STOP=0"]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    transcript(psql);
    let token = gateway.issuer().token("auditor");
    let mut id = String::new();
    wait_until("the session in the index", || {
        let (_, found) = ask_with(gateway, &token, "GET", "/sessions", "");
        id = found["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        found["items"][0]["closed_at"].is_string()
    });
    id
}

/// A whole answer: its head, and its body without the chunks.
fn fetch(gateway: &Gateway, path: &str, user: &str) -> (String, String) {
    let mut stream = TcpStream::connect(gateway.web()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let token = gateway.issuer().token(user);
    // A client of HTTP/1.0 gets no chunks.
    let request = format!(
        "GET /api/v1{path} HTTP/1.0\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn an_export_acts_on_nothing_that_opens_it_and_is_the_same_by_command_and_by_api() {
    let (_database, gateway) = site();
    let id = session(&gateway, &gateway.client("orders"), STATEMENTS);
    let path = gateway
        .recordings()
        .into_iter()
        .find(|path| path.to_string_lossy().contains(&id))
        .expect("the recording");
    let by_command = |format: &str| {
        let output =
            portcullis(&["recording", "export", path.to_str().unwrap(), "--format", format]);
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for (format, kind, file) in [
        ("csv", "text/csv", "csv"),
        ("sql", "application/sql", "sql"),
        ("jsonl", "application/x-ndjson", "jsonl"),
        ("html", "text/html", "html"),
    ] {
        let (head, body) =
            fetch(&gateway, &format!("/sessions/{id}/export?format={format}"), "auditor");
        assert!(
            head.contains(" 200 ") && head.contains(&format!("content-type: {kind}")),
            "{head}"
        );
        let attached = format!("attachment; filename=\"{id}.{file}\"");
        assert!(head.contains(&attached), "{head}");
        let without_time = |text: &str| {
            text.lines().filter(|line| !line.contains("Found when")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(without_time(&body), without_time(&by_command(format)), "{format}");
    }

    let csv = by_command("csv");
    assert!(csv.contains("\"'=select ?\""), "{csv}");
    assert!(csv.contains("\"'=cmd|'/C calc'!A0\""), "{csv}");
    assert!(csv.contains("\\u{202e}") && !csv.contains('\u{202e}'), "{csv}");
    let sql = by_command("sql");
    let live: Vec<_> = sql.lines().filter(|line| line.starts_with("select")).collect();
    assert!(live.contains(&"select 1 as live") && !live.iter().any(|l| l.contains("x1b")), "{sql}");
    assert!(sql.contains("--   drop table nothing") && sql.contains("--   =select ?"), "{sql}");
    assert!(sql.contains("block by no-drops"), "{sql}");
    let html = by_command("html");
    assert!(!html.contains("<script") && !html.contains('\u{202e}'), "markup of what was recorded");
    assert!(html.contains("&#60;script&#62;alert(1)"), "{html}");
    assert_eq!(html.matches("</style>").count(), 1);
    let policy = "default-src 'none'; style-src 'sha256-";
    assert!(html.contains(policy) && html.contains("✓ Whole"), "{html}");
    let lines = by_command("jsonl");
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

    // Who may not read gets none, what it has not is told, and each is in the audit log.
    let (head, _) = fetch(&gateway, &format!("/sessions/{id}/export?format=html"), "agent");
    assert!(head.contains(" 403 "), "{head}");
    for (path, status) in [
        (format!("/sessions/{id}/export?format=asciicast"), " 409 "),
        (format!("/sessions/{id}/export?format=docx"), " 400 "),
        (format!("/sessions/{id}/export"), " 400 "),
        ("/sessions/01890000-0000-7000-8000-000000000000/export?format=csv".to_owned(), " 404 "),
    ] {
        let (head, body) = fetch(&gateway, &path, "auditor");
        assert!(head.contains(status) && head.contains("problem+json"), "{path}: {head} {body}");
    }
    let token = gateway.issuer().token("auditor");
    let (_, log) = ask_with(&gateway, &token, "GET", "/audit?text=recording.export&limit=100", "");
    let formats: Vec<_> =
        log["items"].as_array().unwrap().iter().map(|line| &line["detail"]["format"]).collect();
    assert_eq!(formats.len(), 5, "{log}");
}

#[test]
fn a_damaged_recording_is_exported_up_to_the_damage_and_says_so() {
    let (_database, gateway) = site();
    let id = session(&gateway, &gateway.client("orders"), &["select 1 as live"]);
    assert!(gateway.stop().success());
    let path = gateway
        .recordings()
        .into_iter()
        .find(|path| path.to_string_lossy().contains(&id))
        .expect("the recording");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 200;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let export = |format: &str| {
        portcullis(&["recording", "export", path.to_str().unwrap(), "--format", format])
    };
    let html = export("html");
    let page = String::from_utf8_lossy(&html.stdout).into_owned();
    assert!(!html.status.success() && told(&html).contains("block"), "{}", told(&html));
    assert!(page.contains("✗ Not what was written") && page.contains("</html>"), "{page}");
    let csv = export("csv");
    assert!(!csv.status.success() && told(&csv).contains("block"), "{}", told(&csv));
}

#[test]
fn a_draft_is_tried_on_what_was_recorded_and_comes_into_force_nowhere() {
    let (_database, gateway) = site();
    let statements = ["create table t (i int)", "insert into t values (1)", "drop table t"];
    session(&gateway, &gateway.client("orders"), &statements);
    let auditor = gateway.issuer().token("auditor");
    let backtest = |body: &str| ask_with(&gateway, &auditor, "POST", "/policy/backtest", body);
    let (status, same) = backtest("{}");
    assert_eq!(
        (status, &same["commands"], &same["unchanged"]),
        (200, &3.into(), &3.into()),
        "{same}"
    );
    assert_eq!((&same["complete"], &same["sessions"]), (&true.into(), &1.into()));
    let draft = serde_json::json!({ "draft":
        "[[rule]]\nname = \"no-drops\"\nactions = [\"sql.drop\"]\nverdict = \"approve\"\n\
         approvers = [\"dba\"]\n[[rule]]\nname = \"no-inserts\"\nactions = [\"sql.insert\"]\n\
         verdict = \"block\"\n" });
    let (status, tried) = backtest(&draft.to_string());
    assert_eq!((status, &tried["unchanged"]), (200, &1.into()), "{tried}");
    let changes: Vec<_> = tried["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["from"].as_str().unwrap(), change["to"].as_str().unwrap()))
        .collect();
    assert!(changes.contains(&("block", "approve")) && changes.contains(&("allow", "block")));
    assert_ne!(tried["policy"], same["policy"]);
    // Of another time there is nothing; what is wrong is told with its place.
    let (_, before) = backtest(r#"{"to": "2020-01-01T00:00:00Z"}"#);
    assert_eq!(before["sessions"], 0);
    for (body, wanted) in [
        (r#"{"draft": "[[rule]]\nname = 'x'\nverdict = 'maybe'"}"#, "the draft:3"),
        (r#"{"draft": "[[target]]\nname = 'x'"}"#, "target"),
        (r#"{"draft": "include = ['/etc/passwd']"}"#, "include"),
        (r#"{"draft": "x ="}"#, "the draft:1"),
        (r#"{"since": "x"}"#, "since"),
    ] {
        let (status, problem) = backtest(body);
        assert_eq!(status, 400, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{body}: {problem}");
    }
    for (user, expected) in [("agent", 403), ("stranger", 403), ("admin", 200)] {
        let token = gateway.issuer().token(user);
        assert_eq!(
            ask_with(&gateway, &token, "POST", "/policy/backtest", "{}").0,
            expected,
            "{user}"
        );
    }

    // What is asked for oneself, and for others; nothing of a target that one may not reach.
    let explain = |user: &str, body: &str| {
        let token = gateway.issuer().token(user);
        ask_with(&gateway, &token, "POST", "/policy/explain", body)
    };
    let own = r#"{"target": "orders", "command": "drop table t"}"#;
    let (status, told) = explain("agent", own);
    assert_eq!((status, &told["decision"]["verdict"]), (200, &"block".into()), "{told}");
    assert_eq!(told["outcome"], "block", "{told}");
    assert_eq!(told["effects"][0]["action"], "sql.drop");
    let other = r#"{"target": "orders", "command": "drop table t", "groups": ["dba"]}"#;
    assert_eq!((explain("agent", other).0, explain("auditor", other).0), (403, 200));
    let hidden = explain("stranger", own);
    let none = explain("stranger", r#"{"target": "nothing", "command": "x"}"#);
    assert_eq!((hidden.0, &hidden), (404, &none));
    // The draft is not in force.
    let (_, told) =
        explain("agent", r#"{"target": "orders", "command": "insert into t values (1)"}"#);
    assert_eq!(
        (&told["decision"]["verdict"], &told["outcome"]),
        (&"allow".into(), &"allow".into())
    );
}
