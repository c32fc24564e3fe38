//! Tickets, and what may open one session only.

use std::time::Duration;

use super::{
    OpenSession, ask, ask_with, client_with, command, gateways, psql, setup, ticket, wait_for_state,
};
use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{Options, PostgresServer};

#[test]
fn a_ticket_opens_its_target_as_its_owner_and_nothing_else() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        policy: "[tickets]\nmax_lifetime = \"1h\"\n".to_owned(),
        targets: vec![database.target("orders"), database.target("other")],
        ..setup(&database)
    });
    wait_for_state(&gateway);
    let (id, secret) = ticket(&gateway, r#"{"target": "orders", "lifetime_seconds": 600}"#);
    assert!(secret.len() < 1023, "OpenSSH's prompt takes 1,023 bytes");
    let client = client_with(&gateway, "orders", &secret);
    for _ in 0..2 {
        assert_eq!(psql(&client, "select 'in'"), (true, "in\n".to_owned()));
    }
    let (ok, said) = psql(&client_with(&gateway, "other", &secret), "select 1");
    assert!(!ok && said.contains("access denied"), "{said}");
    for wrong in [format!("{secret}x"), secret[..40].to_owned(), "pct_".to_owned()] {
        assert!(!psql(&client_with(&gateway, "orders", &wrong), "select 1").0);
    }
    // The API is no target: there a token is needed.
    assert_eq!(ask_with(&gateway, &secret, "GET", "/tickets", "").0, 401);

    // It is who made it; the secret is nowhere.
    wait_until("the sessions in the index", || {
        let (_, page) = ask(&gateway, "auditor", "GET", "/sessions?user=agent", "");
        page["items"].as_array().is_some_and(|items| items.len() == 2)
    });
    let (_, listed) = ask(&gateway, "agent", "GET", "/tickets", "");
    assert_eq!(listed["items"][0]["id"], id.as_str());
    assert!(listed["items"][0]["secret"].is_null());
    for stored in gateway.stored_files() {
        let bytes = std::fs::read(&stored).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
    }
    assert!(!gateway.daemon().log().contains(&secret));

    for (who, body, status) in [
        ("agent", r#"{"target": "orders", "lifetime_seconds": 3601}"#, 400),
        ("agent", r#"{"target": "orders", "lifetime_seconds": 0}"#, 400),
        ("agent", r#"{"target": "nowhere"}"#, 403),
        ("stranger", r#"{"target": "orders"}"#, 403),
        ("agent", r#"{"target": "orders", "groups": ["dba"]}"#, 400),
        ("agent", "[]", 400),
    ] {
        let (given, answer) = ask(&gateway, who, "POST", "/tickets", body);
        assert_eq!(given, status, "{who} {body}: {answer}");
    }
}

#[test]
fn tickets_are_made_listed_and_revoked_by_command() {
    let database = Database::fresh();
    let gateway = Gateway::start(&setup(&database));
    wait_for_state(&gateway);
    let (ok, secret) = command(&gateway, "agent", &["ticket", "create", "orders", "--for", "5m"]);
    assert!(ok, "{secret}");
    let client = client_with(&gateway, "orders", secret.trim());
    assert!(psql(&client, "select 1").0);
    let (ok, list) = command(&gateway, "agent", &["ticket", "list"]);
    assert!(ok && list.contains("\torders\t"), "{list}");
    let id = list.split('\t').next().unwrap().to_owned();
    // Whose it is, or an admin; nobody else learns that it is there.
    assert!(!command(&gateway, "anna", &["ticket", "revoke", &id]).0);
    assert_eq!(command(&gateway, "anna", &["ticket", "list"]), (true, String::new()));
    assert!(psql(&client, "select 1").0);
    assert!(command(&gateway, "admin", &["ticket", "revoke", &id]).0);
    assert!(!psql(&client, "select 1").0);
    let (_, list) = command(&gateway, "auditor", &["ticket", "list", "--json"]);
    assert!(list.contains("\"revoked_by\": \"admin\""), "{list}");
    let config = gateway.configuration();
    let local = crate::support::gateway::portcullis(&[
        "ticket",
        "create",
        "orders",
        "--config",
        config.to_str().unwrap(),
    ]);
    let said = crate::support::gateway::told(&local);
    assert!(!local.status.success() && said.contains("--server"), "{said}");
}

#[test]
fn revoking_a_ticket_ends_its_sessions_on_every_gateway_within_two_seconds() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "", "");
    let (id, secret) = ticket(&first, r#"{"target": "orders"}"#);
    let here = OpenSession::open(&client_with(&first, "orders", &secret));
    let there = OpenSession::open(&client_with(&second, "orders", &secret));
    let other = OpenSession::open(&second.client("orders"));
    here.query("begin").unwrap();
    assert_eq!(ask(&first, "agent", "DELETE", &format!("/tickets/{id}"), "").0, 200);
    for session in [here, there] {
        let (took, said) = session.wait_for_end();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(said.contains("withdrawn"), "{said}");
    }
    other.query("select 1").unwrap();
    for gateway in [&first, &second] {
        assert!(!psql(&client_with(gateway, "orders", &secret), "select 1").0);
    }
}

#[test]
fn what_may_be_used_once_opens_one_session_over_all_gateways() {
    let database = Database::fresh();
    let [mut first, second] = gateways(&database, "", "");
    let (_, secret) = ticket(&first, r#"{"target": "orders", "single_use": true}"#);
    // A wrong target does not use it.
    assert!(!psql(&client_with(&first, "orders/nowhere", &secret), "select 1").0);
    assert!(psql(&client_with(&first, "orders", &secret), "select 1").0);
    for gateway in [&second, &first] {
        assert!(!psql(&client_with(gateway, "orders", &secret), "select 1").0);
    }
    assert!(first.stop().success());
    first.restart();
    wait_for_state(&first);
    assert!(!psql(&client_with(&first, "orders", &secret), "select 1").0);
}

#[test]
fn with_single_session_a_token_opens_one_session_and_its_twin_none() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "single_session = true", "");
    let token = first.issuer().token("agent");
    let twin = high_s_twin(&token);
    assert_ne!(token, twin);
    assert!(psql(&client_with(&first, "orders", &token), "select 1").0);
    for gateway in [&first, &second] {
        for presented in [&token, &twin] {
            let (ok, said) = psql(&client_with(gateway, "orders", presented), "select 1");
            assert!(!ok && said.contains("access denied"), "{said}");
        }
    }
    assert!(first.daemon().log().contains("may open one only"));
    let other = second.issuer().token("agent");
    assert!(psql(&client_with(&second, "orders", &high_s_twin(&other)), "select 1").0);
    assert!(!psql(&client_with(&second, "orders", &other), "select 1").0);
}

/// The other valid signature over the same bytes: `(r, n - s)` of an ECDSA signature on P-256.
fn high_s_twin(token: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(bytes.len(), 64, "an ES256 signature");
    let order: Vec<u8> =
        (0..32).map(|i| u8::from_str_radix(&N[2 * i..2 * i + 2], 16).unwrap()).collect();
    let mut borrow = 0_i32;
    for i in (0..32).rev() {
        let difference = i32::from(order[i]) - i32::from(bytes[32 + i]) - borrow;
        borrow = i32::from(difference < 0);
        bytes[32 + i] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn while_state_is_out_of_reach_tickets_are_refused_and_tokens_are_not() {
    let database = Database::fresh();
    let state = PostgresServer::start(&Options::default());
    let url = state.url(&state.create_database());
    let gateway =
        Gateway::start(&Setup { database: Some(format!("url = {url:?}")), ..setup(&database) });
    wait_for_state(&gateway);
    let (_, secret) = ticket(&gateway, r#"{"target": "orders"}"#);
    let client = client_with(&gateway, "orders", &secret);
    assert!(psql(&client, "select 1").0);
    state.kill();
    gateway.daemon().wait_for_log("state cannot be read");
    assert!(!psql(&client, "select 1").0);
    assert!(psql(&gateway.client("orders"), "select 1").0);
    state.restart();
    wait_until("tickets to count again", || psql(&client, "select 1").0);
}
