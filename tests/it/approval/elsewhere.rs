//! Commands that wait over SSH and HTTP, with ssh and curl.

use std::fs;
use std::process::Stdio;
use std::thread;

use super::held::{decide, id, pending, start, state};
use super::{WEB, ask, wait_for_state};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{App, Caller, setup as http_setup};
use crate::support::ssh::{Site, Sshd, fed};

/// The API's groups, behind a section that has its own address.
pub fn groups() -> &'static str {
    WEB.split_once('\n').unwrap().1
}

/// A host whose command lines that write wait.
pub fn site(timeout: &str) -> Site {
    let policy = format!(
        "[[rule]]\nname = \"writes-need-a-human\"\nactions = [\"ssh.exec\"]\ntext = '>>'\n\
         verdict = \"approve\"\napprovers = [\"dba\"]\ntimeout = \"{timeout}\"\n\
         reason = \"Writes are looked at.\"\n"
    );
    let sections = format!("{}\n{}", Sshd::shared().target("web-1", ""), groups());
    let site = Site::set_up(&sections, Setup { policy, ..Setup::default() });
    wait_for_state(&site.gateway);
    site
}

#[test]
fn ssh_waits_is_told_where_and_the_command_runs_once() {
    let site = site("60s");
    let out = site.path("out");
    let line = format!("cat >> {}", out.display());
    let mut ssh = site.ssh();
    ssh.arg(&line);
    let waiting = thread::spawn(move || fed(ssh, b"typed before anybody decided\n"));
    let request = pending(&site.gateway);
    assert_eq!(request["command"]["text"], line.as_str());
    assert!(request["cautions"].to_string().contains("while it runs is not part"), "{request}");
    assert!(!out.exists(), "it ran before anybody decided");
    assert_eq!(decide(&site.gateway, "agent", &request, "approve").0, 403);
    assert_eq!(decide(&site.gateway, "anna", &request, "approve").0, 200);
    let output = waiting.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("this waits for approval") && said.contains(&id(&request)), "{said}");
    assert_eq!(fs::read(&out).unwrap(), b"typed before anybody decided\n");
    assert_eq!(state(&site.gateway, &request)["state"], "consumed");
    assert_eq!(decide(&site.gateway, "bert", &request, "approve").0, 409);
    wait_until("the command in the index", || {
        let (_, page) = ask(&site.gateway, "auditor", "GET", "/commands?verdict=approve", "");
        page["items"][0]["overridden"] == "approval"
    });
    site.finish();
}

#[test]
fn what_is_denied_or_waits_too_long_over_ssh_does_not_run() {
    let site = site("60s");
    let out = site.path("out");
    let line = format!("echo x >> {}", out.display());
    let mut ssh = site.ssh();
    ssh.arg(&line);
    let waiting = start(ssh);
    let request = pending(&site.gateway);
    assert_eq!(decide(&site.gateway, "anna", &request, "deny").0, 200);
    let (ok, said) = waiting.join().unwrap();
    assert!(!ok && said.contains("denied by anna: I looked"), "{said}");

    // A client that goes away waits for nothing, and what it wanted does not run later.
    let mut ssh = site.ssh();
    ssh.arg(&line).stdout(Stdio::null()).stderr(Stdio::null());
    let mut gone = ssh.spawn().unwrap();
    let request = pending(&site.gateway);
    gone.kill().unwrap();
    gone.wait().unwrap();
    wait_until("the request to end", || state(&site.gateway, &request)["state"] == "expired");
    assert_eq!(decide(&site.gateway, "anna", &request, "approve").0, 409);
    assert!(!out.exists());
    assert_eq!(site.stdout("echo on"), "on\n");
    site.finish();

    let site = self::site("1s");
    let output = site.run(&line);
    assert_eq!(output.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody approved it in time"));
    assert!(!out.exists());
    site.finish();
}

#[test]
fn ctrl_c_at_a_terminal_ends_the_wait_over_ssh() {
    let site = site("60s");
    let out = site.path("out");
    let mut ssh = site.ssh();
    ssh.args(["-tt", &format!("echo x >> {}", out.display())]);
    let mut ssh =
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let request = pending(&site.gateway);
    std::io::Write::write_all(ssh.stdin.as_mut().unwrap(), b"never mind\x03").unwrap();
    let output = ssh.wait_with_output().unwrap();
    let said = crate::support::gateway::told(&output);
    assert!(said.contains("cancelled while it waited"), "{said}");
    wait_until("the request to end", || {
        state(&site.gateway, &request)["note"] == "the client cancelled"
    });
    assert!(!out.exists());
    site.finish();
}

/// POSTs wait.
pub fn rule(timeout: &str) -> String {
    format!(
        "[[rule]]\nname = \"writes-need-a-human\"\nactions = [\"http.post\"]\n\
         verdict = \"approve\"\napprovers = [\"dba\"]\ntimeout = \"{timeout}\"\n\
         reason = \"Writes are looked at.\"\n"
    )
}

/// A service whose POSTs wait.
pub fn service(timeout: &str) -> (App, Gateway) {
    service_by(timeout, "")
}

/// The same with more rules.
pub fn service_by(timeout: &str, rules: &str) -> (App, Gateway) {
    let app = App::start();
    let sections = format!("web = \"127.0.0.1:0\"\n{}\n{}", groups(), app.target("crew", ""));
    let gateway = Gateway::start(&Setup { policy: rule(timeout) + rules, ..http_setup(&sections) });
    wait_for_state(&gateway);
    (app, gateway)
}

#[test]
fn curl_waits_and_the_request_runs_once_with_the_body_it_sent() {
    let (app, gateway) = service("60s");
    let caller = Caller::of(&gateway);
    let body = r#"{"amount": 4711}"#;
    let waiting = thread::spawn(move || caller.post("/crew/refunds", body));
    let request = pending(&gateway);
    assert!(request["command"]["text"].as_str().unwrap().contains("/refunds"), "{request}");
    assert!(app.paths().is_empty(), "it ran before anybody decided");
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
    let told = waiting.join().unwrap();
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.text().contains("4711"), "{told:?}");
    assert_eq!(app.paths(), ["/refunds"]);
    assert_eq!(decide(&gateway, "bert", &request, "approve").0, 409);
    assert_eq!(Caller::of(&gateway).get("/crew/refunds").status, 200, "reading does not wait");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn a_body_that_streams_is_kept_shown_and_sent_as_it_was_shown() {
    let (app, gateway) = service("60s");
    let plain = ["-H", "Content-Type: text/plain", "-H", "Transfer-Encoding: chunked"];
    let post = |body: String| {
        let caller = Caller::of(&gateway);
        let arguments = [&plain[..], &["--data-binary", &body]].concat();
        caller.curl("/crew/notes", &arguments)
    };
    thread::scope(|scope| {
        let body = format!("refund 4711 {}", "x".repeat(50_000));
        let (post, sent) = (&post, body.clone());
        let waiting = scope.spawn(move || post(sent));
        let request = pending(&gateway);
        assert!(request["visible_text"].as_str().unwrap().ends_with(&body), "{request}");
        assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
        let told = waiting.join().unwrap();
        assert_eq!(told.status, 200, "{told:?}");
        assert!(told.text().contains(&body));
    });
    assert_eq!(app.paths(), ["/notes"]);
    // What nobody would read to its end is not asked about.
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    fs::write(&large, vec![b'x'; 2 << 20]).unwrap();
    let told = post(format!("@{}", large.display()));
    assert_eq!(told.status, 403, "{told:?}");
    assert!(told.json()["detail"].as_str().unwrap().contains("over 1 MiB"), "{told:?}");
    assert_eq!(app.paths(), ["/notes"]);
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn what_is_denied_or_waits_too_long_over_http_does_not_run() {
    let (app, gateway) = service("60s");
    let caller = Caller::of(&gateway);
    let waiting = thread::spawn(move || caller.post("/crew/refunds", "{}"));
    let request = pending(&gateway);
    assert_eq!(decide(&gateway, "anna", &request, "deny").0, 200);
    let told = waiting.join().unwrap();
    assert_eq!(told.status, 403, "{told:?}");
    assert!(told.json()["detail"].as_str().unwrap().contains("denied by anna"), "{told:?}");

    let caller = Caller::of(&gateway);
    let mut stream = caller.connect();
    let asked = "POST /crew/refunds HTTP/1.1\r\nHost: gateway\r\n{auth}Content-Length: 2\r\n\r\n{}";
    std::io::Write::write_all(&mut stream, caller.with_token(asked).as_bytes()).unwrap();
    let request = pending(&gateway);
    drop(stream);
    wait_until("the request to end", || state(&gateway, &request)["state"] == "expired");
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 409);
    assert!(app.paths().is_empty());
    assert!(gateway.stop().success());
    gateway.verify_all();

    let (app, gateway) = service("1s");
    let told = Caller::of(&gateway).post("/crew/refunds", "{}");
    assert_eq!(told.status, 403, "{told:?}");
    assert!(told.json()["detail"].as_str().unwrap().contains("in time"), "{told:?}");
    assert!(app.paths().is_empty());
}
