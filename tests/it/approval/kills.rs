//! Ending sessions.

use std::time::Duration;

use super::{
    OpenSession, ask, client_with, command, gateways, open_session_id, psql, setup, wait_for_state,
};
use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::Gateway;

/// Row A43 of the cases of tokens: also behind a restart.
#[test]
fn a_session_is_ended_from_another_gateway_and_what_opened_it_is_refused() {
    let database = Database::fresh();
    let [mut first, second] = gateways(&database, "", "");
    let token = first.issuer().token("agent");
    let session = OpenSession::open(&client_with(&first, "orders", &token));
    let id = open_session_id(&second);
    let path = format!("/sessions/{id}/kill");
    for (who, status) in [("agent", 403), ("auditor", 403), ("admin", 200)] {
        let (given, answer) = ask(&second, who, "POST", &path, "");
        assert_eq!(given, status, "{who}: {answer}");
    }
    let (took, said) = session.wait_for_end();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(said.contains("ended by an administrator"), "{said}");

    // What opened it opens nothing, anywhere, also behind a restart.
    wait_until("the token to be refused by the other gateway", || {
        !psql(&client_with(&second, "orders", &token), "select 1").0
    });
    assert!(!psql(&client_with(&first, "orders", &token), "select 1").0);
    let (status, _) = super::ask_with(&first, &token, "GET", "/tickets", "");
    assert_eq!(status, 401);
    assert!(psql(&first.client("orders"), "select 1").0, "another token is not concerned");
    assert!(first.stop().success());
    first.restart();
    wait_for_state(&first);
    assert!(!psql(&client_with(&first, "orders", &token), "select 1").0);

    wait_until("its end in the index", || {
        let (_, session) = ask(&second, "auditor", "GET", &format!("/sessions/{id}"), "");
        session["ended"] == "killed" && session["ended_text"] == "ended by admin"
    });
    let (status, answer) = ask(&second, "admin", "POST", &path, "");
    assert_eq!(status, 409, "{answer}");
    let none = "/sessions/01890000-0000-7000-8000-000000000000/kill";
    assert_eq!(ask(&second, "admin", "POST", none, "").0, 404);
    let (_, log) = ask(&second, "auditor", "GET", "/audit?text=session.kill", "");
    assert_eq!(log["items"][2]["object"], id.as_str(), "{log}");
}

#[test]
fn a_kill_ends_what_runs_and_a_ticket_made_with_what_opened_it() {
    let database = Database::fresh();
    let gateway = Gateway::start(&setup(&database));
    wait_for_state(&gateway);
    let token = gateway.issuer().token("agent");
    let (status, made) =
        super::ask_with(&gateway, &token, "POST", "/tickets", r#"{"target": "orders"}"#);
    assert_eq!(status, 201);
    let by_ticket = client_with(&gateway, "orders", made["secret"].as_str().unwrap());
    assert!(psql(&by_ticket, "select 1").0);

    let session = OpenSession::open(&client_with(&gateway, "orders", &token));
    session.start("select pg_sleep(600)");
    let id = open_session_id(&gateway);
    let (ok, said) = command(&gateway, "admin", &["session", "kill", &id]);
    assert!(ok && said.contains("has ended"), "{said}");
    session.wait_for_end();
    assert!(!psql(&by_ticket, "select 1").0);
    let (ok, watched) = command(&gateway, "auditor", &["session", "watch", &id]);
    assert!(ok && watched.contains("ended by admin"), "{watched}");
}
