//! Who sees what: the same as by the API, and nothing of what is not for them.

use serde_json::Value;

use super::{Browser, start};
use crate::approval::ask_with;
use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};

/// A session that the agent had, by its id.
fn session(gateway: &Gateway, statement: &str) -> String {
    let mut psql = gateway.client("orders").psql();
    psql.args(["-c", statement]);
    transcript(psql);
    let token = gateway.issuer().token("auditor");
    let mut id = String::new();
    wait_until("the session in the index", || {
        let (_, found) = ask_with(gateway, &token, "GET", "/sessions", "");
        let closed = found["items"][0]["closed_at"].is_string();
        id = found["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        closed
    });
    id
}

#[test]
fn a_page_shows_to_each_what_the_api_does() {
    let database = Database::fresh();
    let gateway = start(Setup::for_targets([database.target("orders")]));
    let id = session(&gateway, "select 1 as one");
    let none = "01890000-0000-7000-8000-000000000000";
    let of_sessions = [
        "/sessions".to_owned(),
        "/live".to_owned(),
        "/overview".to_owned(),
        "/audit".to_owned(),
        format!("/sessions/{id}"),
        format!("/sessions/{id}/verification"),
        format!("/sessions/{none}"),
        "/sessions/x".to_owned(),
        "/changes?live=1&since=x".to_owned(),
    ];
    let for_all = ["/approvals", "/targets", "/policy"].map(str::to_owned);
    for path in of_sessions.iter().chain(&for_all) {
        let answer = Browser::of(&gateway).get(path);
        assert_eq!(answer.status, 303, "{path} without a login");
    }
    // Who may not read is told the same of what is and of what is not.
    for user in ["sam", "dora"] {
        let mut browser = Browser::logged_in(&gateway, user);
        let told = browser.get(&format!("/sessions/{none}")).body;
        for path in &of_sessions {
            let answer = browser.get(path);
            assert_eq!((answer.status, &answer.body), (403, &told), "{path} for {user}");
        }
        for path in &for_all {
            assert_eq!(browser.get(path).status, 200, "{path} for {user}");
        }
        let end = browser.post(&format!("/sessions/{id}/end"), "reason=x");
        assert_eq!((end.status, end.body), (403, told), "{user}");
    }
    for user in ["audrey", "ada"] {
        let mut browser = Browser::logged_in(&gateway, user);
        for path in of_sessions.iter().filter(|path| !path.starts_with("/changes")) {
            let wanted = if path.contains(none) || path.ends_with("/x") { 404 } else { 200 };
            assert_eq!(browser.get(path).status, wanted, "{path} for {user}");
        }
    }
    // An auditor ends nothing; what is over is over.
    let mut audrey = Browser::logged_in(&gateway, "audrey");
    let end = format!("/sessions/{id}/end");
    assert_eq!(audrey.post(&end, "reason=x").status, 403);
    let mut ada = Browser::logged_in(&gateway, "ada");
    assert_eq!(ada.post(&end, "").status, 400);
    assert_eq!(ada.post(&end, "reason=x").status, 409);

    // An admin keeps the recording, everybody who reads sees it, and an auditor lifts nothing.
    let hold = format!("/sessions/{id}/hold");
    assert_eq!(audrey.post(&hold, "reason=x").status, 403);
    assert_eq!(ada.post(&hold, "").status, 400);
    assert_eq!(ada.post(&hold, "reason=case%20%3Cb%3E7").status, 303);
    let page = audrey.get(&format!("/sessions/{id}")).body;
    assert!(page.contains("case &#60;b&#62;7") && !page.contains("/lift"), "{page}");
    let page = ada.get(&format!("/sessions/{id}")).body;
    let (_, rest) = page.split_once("name=\"hold\" value=\"").expect("a form that lifts it");
    let own = rest.split('"').next().unwrap();
    let lift = format!("/sessions/{id}/lift");
    assert_eq!(audrey.post(&lift, &format!("hold={own}&reason=x")).status, 403);
    assert_eq!(ada.post(&lift, "hold=x&reason=x").status, 404);
    assert_eq!(ada.post(&lift, &format!("hold={own}&reason=over")).status, 303);
    assert!(!ada.get(&format!("/sessions/{id}")).body.contains("case &#60;b&#62;7"));

    // Whoever looked is in the audit log, and on the session's page.
    let page = audrey.get(&format!("/sessions/{id}")).body;
    for wanted in ["select 1 as one", "session.show", "recording.command", "recording.verify"] {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }
    let token = gateway.issuer().token("auditor");
    let (_, log) = ask_with(&gateway, &token, "GET", "/audit?user=ada&limit=100", "");
    let actions: Vec<&str> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line["action"].as_str())
        .collect();
    for wanted in ["web.login", "session.list", "session.show", "recording.verify"] {
        assert!(actions.contains(&wanted), "{wanted} in {actions:?}");
    }
    let (_, log) = ask_with(&gateway, &token, "GET", "/audit?user=sam&limit=100", "");
    let refused = |line: &&Value| line["outcome"] == "refused";
    assert!(log["items"].as_array().unwrap().iter().filter(refused).count() > 3, "{log}");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn a_request_shows_to_whom_it_concerns_and_is_decided_by_a_form() {
    let database = Database::fresh();
    let gateway = start(Setup {
        access: "grant = \"approval\"\napprovers = [\"dba\"]\nduration = \"1h\"".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let mut sam = Browser::logged_in(&gateway, "sam");
    let mut dora = Browser::logged_in(&gateway, "dora");
    let asked = sam.post("/targets/orders/access", "reason=a%20%3Cb%3Ereason");
    assert_eq!(asked.status, 303, "{}", asked.body);
    let request = asked.location().to_owned();
    assert!(request.starts_with("/access-requests/"));
    assert_eq!(sam.post("/targets/nothing/access", "").status, 403);
    // The one who asked sees it and cannot decide it; a stranger's is as none.
    let page = sam.get(&request).body;
    assert!(page.contains("a &#60;b&#62;reason") && !page.contains("data-decide"), "{page}");
    assert_eq!(sam.post(&request, "decision=approve").status, 403);
    let mut ada = Browser::logged_in(&gateway, "ada");
    assert_eq!(ada.get(&request).status, 200);
    assert_eq!(ada.post(&request, "decision=approve").status, 403);
    let none = "/access-requests/01890000-0000-7000-8000-000000000000";
    let as_command = request.replace("access-requests", "approvals");
    for path in [none, &as_command, "/access-requests/x"] {
        assert_eq!(dora.get(path).status, 404, "{path}");
        assert_eq!(dora.post(path, "decision=approve").status, 404, "{path}");
    }
    // Looking at it, and a link to it, decide nothing.
    assert!(dora.get(&request).body.contains("data-decide"));
    assert_eq!(dora.send("POST", &request, &[], "decision=approve").status, 403);
    assert_eq!(dora.post(&request, "decision=maybe").status, 400);
    let decided = dora.post(&request, "decision=approve&comment=fine");
    assert_eq!((decided.status, decided.location()), (303, request.as_str()));
    let page = sam.get(&request).body;
    assert!(page.contains("dora approved it") && page.contains("granted"), "{page}");
    assert!(sam.get("/targets").body.contains("granted until"));
    // A ticket is shown once, and counts.
    let made = sam.post("/targets/orders/ticket", "lifetime=900&single_use=1");
    assert_eq!(made.status, 200, "{}", made.body);
    let (_, secret) = made.body.split_once("<code id=\"secret\">").expect("a secret");
    let secret = secret.split('<').next().unwrap();
    let port = gateway.address().port();
    let mut psql = crate::support::client::Client::new(port, "orders", "sam", secret).psql();
    psql.args(["-Atc", "select 40 + 2"]);
    let (done, told) = transcript(psql);
    assert!(done && told.contains("42"), "{told}");
    assert!(!sam.get("/targets").body.contains(secret));
    assert!(gateway.stop().success());
}
