//! Revoking people.

use std::time::Duration;

use serde_json::json;

use super::{OpenSession, ask, client_with, command, gateways, psql, ticket};
use crate::support::client::Database;
use crate::support::daemon::wait_until;

#[test]
fn a_revoked_user_has_nothing_anywhere_until_they_are_let_in_again() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "", "");
    let agent = first.issuer().token("agent");
    let (_, secret) = ticket(&first, r#"{"target": "orders"}"#);
    let by_token = OpenSession::open(&client_with(&first, "orders", &agent));
    let by_ticket = OpenSession::open(&client_with(&second, "orders", &secret));
    let other = OpenSession::open(&client_with(&second, "orders", &first.issuer().token("bert")));

    let subject = {
        let mut subject = String::new();
        wait_until("the sessions in the index", || {
            let (_, page) = ask(&first, "auditor", "GET", "/sessions?user=agent", "");
            subject = page["items"][0]["subject"].as_str().unwrap_or_default().to_owned();
            !subject.is_empty()
        });
        subject
    };
    let wanted = json!({"issuer": "dev", "subject": subject}).to_string();
    for (who, body, status) in [
        ("agent", wanted.as_str(), 403),
        ("auditor", &wanted, 403),
        ("admin", r#"{"issuer": "nobody", "subject": "agent"}"#, 400),
        ("admin", r#"{"issuer": "dev", "subject": ""}"#, 400),
        ("admin", r#"{"issuer": "dev", "subject": "x", "duration_seconds": 0}"#, 400),
        ("admin", &wanted, 200),
    ] {
        let (given, answer) = ask(&first, who, "POST", "/revoked-users", body);
        assert_eq!(given, status, "{who} {body}: {answer}");
    }
    for session in [by_token, by_ticket] {
        let (took, said) = session.wait_for_end();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(said.contains("the access to this target was withdrawn"), "{said}");
    }
    other.query("select 1").unwrap();
    for gateway in [&first, &second] {
        // A token that is made now is of the same user.
        for secret in [&agent, &secret, &gateway.issuer().token("agent")] {
            assert!(!psql(&client_with(gateway, "orders", secret), "select 1").0);
        }
        assert_eq!(ask(gateway, "agent", "GET", "/tickets", "").0, 401);
    }

    let (ok, listed) = command(&second, "auditor", &["user", "list"]);
    assert!(ok && listed.contains(&subject) && listed.contains("admin"), "{listed}");
    let (ok, said) = command(&second, "admin", &["user", "restore", &subject, "--issuer", "dev"]);
    assert!(ok && said.contains("is let in again"), "{said}");
    let (ok, _) = command(&second, "admin", &["user", "restore", &subject, "--issuer", "dev"]);
    assert!(!ok, "nothing is left to restore");
    for gateway in [&first, &second] {
        wait_until("the user to be let in", || {
            psql(&client_with(gateway, "orders", &agent), "select 1").0
        });
    }
    let arguments = ["user", "revoke", &subject, "--issuer", "dev", "--for", "1s"];
    assert!(command(&first, "admin", &arguments).0);
    wait_until("the time to be over", || {
        psql(&client_with(&second, "orders", &agent), "select 1").0
    });
    // The last word counts, also when it is for less.
    let revoke = |time: &str| {
        let arguments = ["user", "revoke", &subject, "--issuer", "dev", "--for", time, "--json"];
        let (ok, said) = command(&first, "admin", &arguments);
        assert!(ok, "{said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["until"].clone()
    };
    revoke("12h");
    let until = revoke("2s");
    let (_, page) = ask(&second, "auditor", "GET", "/revoked-users", "");
    assert_eq!(page["items"][0]["until"], until);
    wait_until("the shorter time to be over", || {
        psql(&client_with(&second, "orders", &agent), "select 1").0
    });
    let (_, log) = ask(&second, "auditor", "GET", "/audit?text=user.re", "");
    assert!(log["items"].as_array().unwrap().len() >= 4, "{log}");
}
