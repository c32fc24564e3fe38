//! Access that people grant for some time.

use std::time::Duration;

use serde_json::Value;

use super::{OpenSession, ask, command, gateways, psql};
use crate::support::client::Database;
use crate::support::daemon::wait_until;

const ASKED: &str = "grant = \"approval\"\napprovers = [\"dba\"]\nduration = \"1h\"";

/// The id of the one request for access that waits.
fn waiting(gateway: &crate::support::gateway::Gateway) -> Value {
    let (status, page) = ask(gateway, "anna", "GET", "/access-requests?state=pending", "");
    assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 1), "{page}");
    page["items"][0].clone()
}

#[test]
fn connecting_asks_for_access_that_opens_once_it_is_granted_and_ends_when_it_is_taken_back() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, ASKED, "");
    let client = first.client("orders");
    for _ in 0..2 {
        let (ok, said) = psql(&client, "select 1");
        assert!(!ok && said.contains("access to \"orders\" waits for approval"), "{said}");
    }
    assert!(!psql(&second.client("orders"), "select 1").0);
    // It is asked once.
    let request = waiting(&second);
    assert_eq!((&request["kind"], &request["seconds"]), (&"access".into(), &3600.into()));
    let path = format!("/access-requests/{}", request["id"].as_str().unwrap());
    for (who, status) in [("agent", 403), ("stranger", 404), ("anna", 200), ("bert", 409)] {
        let (given, answer) = ask(&second, who, "POST", &format!("{path}/approve"), "");
        assert_eq!(given, status, "{who}: {answer}");
    }
    assert_eq!(ask(&second, "anna", "GET", &path, "").1["state"], "consumed");
    // A request for access is none for a command.
    let other = path.replace("access-requests", "approvals");
    assert_eq!(ask(&second, "anna", "GET", &other, "").0, 404);
    assert_eq!(psql(&client, "select 'in'"), (true, "in\n".to_owned()));

    let here = OpenSession::open(&client);
    let there = OpenSession::open(&second.client("orders"));
    let (_, grants) = ask(&first, "agent", "GET", "/grants", "");
    let grant = grants["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&first, "anna", "DELETE", &format!("/grants/{grant}"), "").0, 404);
    let (ok, said) = command(&first, "admin", &["access", "revoke", &grant]);
    assert!(ok, "{said}");
    for session in [here, there] {
        let (took, said) = session.wait_for_end();
        assert!(took < Duration::from_secs(2) && said.contains("withdrawn"), "{took:?} {said}");
    }
    assert!(!psql(&client, "select 1").0);
    waiting(&first);
}

#[test]
fn the_time_counts_from_the_grant_and_its_end_closes_what_it_opened() {
    let database = Database::fresh();
    let [gateway] = gateways(&database, &ASKED.replace("1h", "4s"), "");
    let arguments = ["access", "request", "orders", "--for", "1h", "--reason", "refund 4711"];
    let (ok, said) = command(&gateway, "agent", &arguments);
    assert!(ok && said.contains("is pending"), "{said}");
    let request = waiting(&gateway);
    assert_eq!(request["comment"], "refund 4711");
    assert_eq!(request["seconds"], 4, "at most what the rule gives");
    let id = request["id"].as_str().unwrap();
    let (ok, said) = command(&gateway, "anna", &["access", "approve", id, "--comment", "fine"]);
    assert!(ok && said.contains("is consumed"), "{said}");
    let session = OpenSession::open(&gateway.client("orders"));
    session.query("begin").unwrap();
    let (took, said) = session.wait_for_end();
    assert!(took < Duration::from_secs(6) && said.contains("time is over"), "{took:?} {said}");
    assert!(!psql(&gateway.client("orders"), "select 1").0);
    let (ok, list) = command(&gateway, "auditor", &["access", "list"]);
    assert!(ok && list.contains("agent\torders"), "{list}");

    // It asks again; and who is told no stays out.
    let id = waiting(&gateway)["id"].as_str().unwrap().to_owned();
    assert!(command(&gateway, "anna", &["access", "deny", &id]).0);
    let (ok, said) = psql(&gateway.client("orders"), "select 1");
    assert!(!ok && said.contains("was denied"), "{said}");
    let (_, page) = ask(&gateway, "anna", "GET", "/access-requests?state=pending", "");
    assert_eq!(page["items"], serde_json::json!([]), "who was told no rings again");
    let (_, shown) = command(&gateway, "agent", &["access", "show", &id]);
    assert!(shown.contains("denied by") && shown.contains("anna"), "{shown}");
    let (status, answer) =
        ask(&gateway, "stranger", "POST", "/access-requests", r#"{"target": "orders"}"#);
    assert_eq!(status, 403, "{answer}");
    wait_until("the words in the audit log", || {
        let (_, log) = ask(&gateway, "auditor", "GET", "/audit?text=access.", "");
        let words: Vec<_> = log["items"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
        ["access.request", "access.approve", "access.deny"]
            .iter()
            .all(|word| words.contains(&&Value::from(*word)))
    });
}
