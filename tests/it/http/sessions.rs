//! Which requests belong together, how long, and what is kept of them.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis};
use crate::support::http::{App, Caller, gateway, sessions, setup};

/// What the API says of a session's commands, by the command line.
fn shown(gateway: &Gateway, session: &str) -> String {
    let config = gateway.configuration();
    let arguments = ["session", "show", session, "--json", "--config", config.to_str().unwrap()];
    String::from_utf8(portcullis(&arguments).stdout).unwrap()
}

#[test]
fn requests_of_one_run_are_one_session_whatever_connections_they_come_on() {
    let app = App::start();
    let gateway = gateway(&format!("{}{}", app.target("crew", ""), app.target("other", "")));
    let caller = Caller::of(&gateway);
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let run = |fields: &[&str]| {
        let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", *field]).collect();
        let echo = caller.curl("/crew/x", &fields).json();
        assert!(!echo["headers"].to_string().contains("x-portcullis"), "{echo}");
    };
    let named = ["X-Portcullis-Workflow: nightly", "X-Portcullis-Run: run-7"];
    run(&[]);
    run(&[]);
    run(&named);
    run(&named);
    run(&[trace]);
    caller.get("/other/x");
    // Another token of the same caller is the same caller.
    let again = Caller { token: gateway.issuer().token("agent"), ..Caller::of(&gateway) };
    again.get("/crew/x");
    assert!(gateway.stop().success());
    gateway.verify_all();
    assert_eq!(gateway.recordings().len(), 4, "{:?}", gateway.recordings());
}

#[test]
fn a_run_is_found_and_its_commands_with_what_came_of_them() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let named = ["-H", "X-Portcullis-Workflow: nightly", "-H", "X-Portcullis-Run: run-7"];
    caller.curl("/crew/v1/things?a=1", &named);
    caller.curl("/crew/status/404", &named);
    let listed = sessions(&gateway, 1);
    let session = &listed[0];
    assert_eq!(
        (session["workflow"].as_str(), session["run"].as_str()),
        (Some("nightly"), Some("run-7"))
    );
    assert_eq!(session["workflow_proved"], false);
    let id = session["id"].as_str().unwrap().to_owned();
    wait_until("both commands", || {
        let text = shown(&gateway, &id);
        text.contains("GET /v1/things?a=1")
            && text.contains("GET /status/404")
            && text.contains("404")
    });
    let text = shown(&gateway, &id);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(text.contains("path:/v1/things") && text.contains("http.get"), "{json}");
}

#[test]
fn a_session_ends_when_no_request_came_for_a_while() {
    let app = App::start();
    let sections = format!("[http]\nsession_idle = \"1s\"\n{}", app.target("crew", ""));
    let gateway = gateway(&sections);
    let caller = Caller::of(&gateway);
    caller.get("/crew/x");
    gateway.daemon().wait_for_log("session ended");
    assert!(gateway.daemon().log().contains("\"how\":\"idle\""), "{}", gateway.daemon().log());
    caller.get("/crew/x");
    assert!(gateway.stop().success());
    gateway.verify_all();
    assert_eq!(gateway.recordings().len(), 2);
}

#[test]
fn a_reload_that_takes_the_access_away_ends_what_runs() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let mut listening = Command::new("curl")
        .args(["-sSN", "-o", "/dev/null", "-H", &bearer, &caller.url("/crew/events?one")])
        .spawn()
        .unwrap();
    wait_until("the request at the target", || app.paths() == ["/events"]);
    let reloaded = gateway.reload(|text| text.replace("groups = [\"agents\"]", "groups = [\"x\"]"));
    assert!(reloaded.status.success());
    assert!(!listening.wait().unwrap().success(), "the stream went on");
    assert_eq!(caller.get("/crew/x").status, 403);
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn a_request_ends_with_its_token() {
    let app = App::start();
    let gateway = Gateway::start(&Setup {
        token_seconds: Some(3),
        server: "expiry_grace = \"1s\"".to_owned(),
        ..setup(&app.target("crew", ""))
    });
    let caller = Caller::of(&gateway);
    let told = caller.get("/crew/hang");
    assert_eq!(told.status, 503, "{told:?}");
    assert_eq!(caller.get("/crew/x").status, 401);
    wait_until("the target to be left", || app.told().iter().any(|told| told["gone"] == "/hang"));
}

#[test]
fn a_stop_lets_running_requests_end_and_seals_recordings() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let bearer = format!("Authorization: Bearer {}", caller.token);
    let listening = Command::new("curl")
        .args(["-sSN", "-H", &bearer, &caller.url("/crew/events?one")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the request at the target", || app.paths() == ["/events"]);
    rustix::process::kill_process(gateway.daemon().pid(), rustix::process::Signal::TERM).unwrap();
    gateway.daemon().wait_for_log("stopping");
    crate::support::http::curl(&[&format!("http://127.0.0.1:{}/release?one", app.port)]);
    let output = listening.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("data: second"));
    assert!(output.status.success());
    assert!(gateway.stop().success());
    gateway.verify_all();
}
