//! Requests over HTTP whose client does not wait for people but sends them again.

use std::sync::Arc;
use std::thread;

use serde_json::Value;

use super::elsewhere::{groups, rule, service};
use super::held::{decide, id, pending, state};
use super::{ask, ask_with, wait_for_state};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{App, Caller, Told, setup as http_setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::PostgresServer;

const PREFER: [&str; 2] = ["-H", "Prefer: respond-async"];

/// Posts JSON and does not wait.
fn send(caller: &Caller, path: &str, body: &str) -> Told {
    let json = ["-H", "Content-Type: application/json", "--data-binary", body];
    caller.curl(path, &[&PREFER[..], &json].concat())
}

/// What was said of the request, which waits.
fn waits(told: &Told) -> String {
    assert_eq!(told.status, 202, "{told:?}");
    assert_eq!(told.header("preference-applied").as_deref(), Some("respond-async"));
    assert!(told.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(told.json()["state"], "pending");
    told.header("location").unwrap()
}

fn refused(told: &Told, why: &str) {
    assert_eq!(told.status, 403, "{told:?}");
    assert!(told.json()["detail"].as_str().unwrap().contains(why), "{told:?}");
}

#[test]
fn who_does_not_wait_is_told_where_to_look_and_the_same_request_runs_once_after_a_yes() {
    let (app, gateway) = service("60s");
    let caller = Caller::of(&gateway);
    let body = r#"{"amount": 4711}"#;
    let place = waits(&send(&caller, "/crew/refunds?of=7", body));
    let request = pending(&gateway);
    assert_eq!(place, format!("/.portcullis/approvals/{}", id(&request)));
    assert!(request["visible_text"].as_str().unwrap().ends_with(body), "{request}");
    assert!(request["cautions"].to_string().contains("asks again"), "{request}");

    // Again is the same, whatever tells one try from the next; anything else is another.
    let traced = ["-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"];
    let json = ["-H", "Content-Type: application/json", "--data-binary", body];
    let again = caller.curl("/crew/refunds?of=7", &[&PREFER[..], &traced, &json].concat());
    assert_eq!(waits(&again), place);
    let other = Caller { token: gateway.issuer().token("bert"), ..Caller::of(&gateway) };
    let colour = ["-H", "X-Colour: red"];
    for others in [
        send(&caller, "/crew/refunds?of=8", body),
        send(&caller, "/crew/refunds?of=7", r#"{"amount": 4712}"#),
        caller.curl("/crew/refunds?of=7", &[&PREFER[..], &json, &colour].concat()),
        send(&other, "/crew/refunds?of=7", body),
    ] {
        assert_ne!(waits(&others), place);
    }
    let (_, page) = ask(&gateway, "anna", "GET", "/approvals?state=pending", "");
    assert_eq!(page["items"].as_array().unwrap().len(), 5, "{page}");

    // Where it stands is told to who asked, with whatever they present there, and to nobody else.
    assert_eq!(caller.get(&place).json()["state"], "pending");
    let (status, made) = ask(&gateway, "agent", "POST", "/tickets", r#"{"target": "crew"}"#);
    assert_eq!(status, 201, "{made}");
    let ticket = Caller { token: made["secret"].as_str().unwrap().to_owned(), ..caller };
    assert_eq!(ticket.get(&place).json()["state"], "pending");
    assert_eq!(other.get(&place).status, 404);
    assert_eq!(ticket.get("/.portcullis/approvals/none").status, 404);
    assert_eq!(ticket.get("/.portcullis/elsewhere").status, 404);
    assert_eq!(ticket.post(&place, "{}").status, 400);
    assert_eq!(Caller { token: "none".to_owned(), ..ticket }.get(&place).status, 401);

    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
    assert!(app.paths().is_empty(), "it ran by itself");
    let caller = Caller::of(&gateway);
    let looked = caller.get(&place).json();
    assert_eq!(looked["state"], "approved");
    assert_eq!(looked["detail"], "approved by anna: I looked");
    let ran = send(&caller, "/crew/refunds?of=7", body);
    assert_eq!(ran.status, 200, "{ran:?}");
    assert!(ran.text().contains("4711"), "{ran:?}");
    assert_eq!(app.paths(), ["/refunds"]);
    assert_eq!(caller.get(&place).json()["state"], "consumed");
    // A yes is for once.
    assert_ne!(waits(&send(&caller, "/crew/refunds?of=7", body)), place);
    assert_eq!(app.paths(), ["/refunds"]);
    wait_until("both in the index", || {
        let (_, page) = ask(&gateway, "auditor", "GET", "/commands?verdict=approve", "");
        let rows = page["items"].as_array().unwrap().clone();
        let ran = |row: &&Value| row["overridden"] == "approval" && row["status"] == "200";
        let waits = |row: &&Value| row["overridden"].is_null() && row["error_code"] == "waits";
        rows.iter().filter(ran).count() == 1 && rows.iter().filter(waits).count() == 7
    });
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn why_it_does_not_run_is_told_once_and_then_it_is_asked_for_anew() {
    let (app, gateway) = service("60s");
    let caller = Caller::of(&gateway);
    let first = waits(&send(&caller, "/crew/refunds", "{}"));
    assert_eq!(decide(&gateway, "anna", &pending(&gateway), "deny").0, 200);
    assert_eq!(caller.get(&first).json()["detail"], "denied by anna: I looked");
    refused(&send(&caller, "/crew/refunds", "{}"), "denied by anna: I looked");
    let second = waits(&send(&caller, "/crew/refunds", "{}"));
    assert_ne!(second, first);

    // A yes by rules that no longer hold is none.
    let request = pending(&gateway);
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
    let (one, two) = ("approvers = [\"dba\"]", "approvals = 2\napprovers = [\"dba\"]");
    assert!(gateway.reload(|text| text.replace(one, two)).status.success());
    refused(&send(&caller, "/crew/refunds", "{}"), "the rules changed while it waited");
    assert_eq!(state(&gateway, &request)["note"], "the rules changed");
    let third = waits(&send(&caller, "/crew/refunds", "{}"));
    assert_ne!(third, second);
    // What cannot be kept is not asked for, and a request that may run does not wait.
    let large = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(large.path(), vec![b'x'; (1 << 20) + 1]).unwrap();
    let large = format!("@{}", large.path().display());
    let told = caller.curl("/crew/refunds", &[&PREFER[..], &["--data-binary", &large]].concat());
    refused(&told, "it is too large to be shown to those who approve");
    assert_eq!(caller.curl("/crew/refunds", &PREFER).status, 200);
    assert_eq!(app.paths(), ["/refunds"]);
    assert!(gateway.stop().success());
    gateway.verify_all();

    let (app, gateway) = service("1s");
    let caller = Caller::of(&gateway);
    let place = waits(&send(&caller, "/crew/refunds", "{}"));
    wait_until("its end", || caller.get(&place).json()["state"] == "expired");
    refused(&send(&caller, "/crew/refunds", "{}"), "nobody approved it in time");
    assert_ne!(waits(&send(&caller, "/crew/refunds", "{}")), place);
    assert!(app.paths().is_empty());
}

#[test]
fn over_gateways_and_restarts_it_runs_once() {
    let app = App::start();
    let issuer = Arc::new(Issuer::start(3600));
    let state_url = format!("url = {:?}", PostgresServer::fresh_index());
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "one key for all of these gateways").unwrap();
    let sections = format!("web = \"127.0.0.1:0\"\n{}\n{}", groups(), app.target("crew", ""));
    let [mut first, second] = [(); 2].map(|()| {
        Gateway::start(&Setup {
            policy: rule("60s"),
            issuer: Some(Arc::clone(&issuer)),
            database: Some(state_url.clone()),
            recording: format!("mask_key = {{ file = {:?} }}\n", key.path()),
            ..http_setup(&sections)
        })
    });
    wait_for_state(&first);
    wait_for_state(&second);
    for round in 1..=3 {
        let place = waits(&send(&Caller::of(&first), "/crew/refunds", "{}"));
        assert_eq!(waits(&send(&Caller::of(&second), "/crew/refunds", "{}")), place);
        first.daemon().kill9();
        first.restart();
        wait_for_state(&first);
        let request = pending(&second);
        let path = format!("/approvals/{}/approve", id(&request));
        assert_eq!(ask_with(&second, &issuer.token("anna"), "POST", &path, "").0, 200);
        assert_eq!(Caller::of(&first).get(&place).json()["state"], "approved");
        // Many at once, at both.
        let told: Vec<u16> = thread::scope(|scope| {
            let sent: Vec<_> = [&first, &second, &first, &second]
                .map(|gateway| {
                    scope.spawn(|| send(&Caller::of(gateway), "/crew/refunds", "{}").status)
                })
                .into_iter()
                .collect();
            sent.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(told.iter().filter(|status| **status == 200).count(), 1, "{told:?}");
        assert_eq!(app.paths().len(), round, "{told:?}");
        assert_eq!(Caller::of(&second).get(&place).json()["state"], "consumed");
        // Who came too late asked anew.
        let (_, page) = ask(&second, "anna", "GET", "/approvals?state=pending", "");
        for request in page["items"].as_array().unwrap() {
            assert_eq!(decide(&second, "anna", request, "deny").0, 200);
            refused(&send(&Caller::of(&first), "/crew/refunds", "{}"), "denied by anna");
        }
    }
}
