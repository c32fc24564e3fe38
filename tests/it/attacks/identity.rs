//! Tokens, tickets, logins and withdrawals.

mod given_back;
mod scripted;
mod stalled;

use std::sync::Arc;

use serde_json::{Value, json};

pub use self::scripted::Scripted;
use crate::approval::{
    self, OpenSession, ask, ask_with, client_with, command, gateways, open_session_id, psql,
    wait_for_state,
};
use crate::identity::mint::{self, Key};
use crate::pages::{self, Browser};
use crate::support::client::{Client, Database};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::PostgresServer;

const NO_TOKENS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";

/// A gateway with the development issuer and another one at which people log in.
fn with_another(other: &Scripted) -> Gateway {
    pages::start(Setup { policy: other.section("hostile"), ..Setup::default() })
}

/// The query of where `/login` sends a browser, for an issuer.
fn sent_away(browser: &mut Browser, issuer: &str) -> (String, String) {
    let answer = browser.get(&format!("/login?issuer={issuer}&to=/"));
    assert_eq!(answer.status, 303, "{}", answer.body);
    let (place, query) = answer.location().split_once('?').unwrap();
    (place.to_owned(), query.to_owned())
}

/// Logs somebody in at the honest issuer with a query that it was sent.
fn log_in(browser: &mut Browser, issuer: &Issuer, query: &str) -> String {
    let place = format!("{}/authorize", issuer.url());
    let answer = browser.send("POST", &place, &[], &format!("{query}&user=ada"));
    assert_eq!(answer.status, 303, "{}", answer.body);
    answer.location().to_owned()
}

/// A place without one of its parameters.
fn without(place: &str, name: &str) -> String {
    let (path, query) = place.split_once('?').unwrap();
    let kept = query.split('&').filter(|pair| !pair.starts_with(&format!("{name}=")));
    format!("{path}?{}", kept.collect::<Vec<_>>().join("&"))
}

#[test]
fn a06_a_code_of_one_issuer_is_never_posted_to_another() {
    let hostile = Scripted::start(NO_TOKENS);
    let gateway = with_another(&hostile);
    let honest = gateway.issuer();
    let mut victim = Browser::of(&gateway);
    // The hostile issuer's authorization endpoint sends the victim on to the honest one, with the
    // gateway's own state and challenge.
    let (place, query) = sent_away(&mut victim, "hostile");
    assert!(place.starts_with(&hostile.url) && query.contains("login%2Fcallback%2Fhostile"));
    let back = log_in(&mut victim, honest, &query);
    assert!(back.contains("/login/callback/hostile?") && back.contains("&iss="), "{back}");
    assert_eq!(victim.get(&back).status, 403);
    // So it does with the redirect URI of the honest issuer, and whatever `iss` is made of it.
    let (_, query) = sent_away(&mut victim, "hostile");
    let query = query.replace("callback%2Fhostile", "callback%2Fdev");
    let back = log_in(&mut victim, honest, &query);
    for back in [back.clone(), without(&back, "iss"), back.replace("&iss=", "&iss=x")] {
        assert_eq!(victim.get(&back).status, 403, "{back}");
    }
    assert!(!victim.cookies.contains_key("portcullis"));
    assert_eq!(hostile.asked("/token"), [""; 0]);
    gateway.daemon().wait_for_log("the response is of another issuer");
    gateway.daemon().wait_for_log("redirected by another issuer");
    // The honest way still works, at an address of its own.
    let (_, query) = sent_away(&mut victim, "dev");
    assert!(query.contains("login%2Fcallback%2Fdev"), "{query}");
    let back = log_in(&mut victim, honest, &query);
    assert_eq!(victim.get(&back).status, 303);
    assert!(victim.cookies.contains_key("portcullis"));
}

/// RFC 9207 section 2.4: what the metadata promise must be there, errors included.
#[test]
fn a_response_without_the_iss_that_the_issuer_announces_is_refused() {
    let gateway = pages::start(Setup::default());
    let mut browser = Browser::of(&gateway);
    let back = browser.at_issuer("ada", "/");
    let state = back.split(['?', '&']).find(|pair| pair.starts_with("state=")).unwrap();
    for refused in [
        without(&back, "iss"),
        back.replace("&iss=http", "&iss=https"),
        format!("{back}&iss=http%3A%2F%2Felsewhere.example"),
        format!("/login/callback?{state}&error=access_denied"),
        format!("/login/callback?{state}&error=access_denied&iss=http%3A%2F%2Felsewhere.example"),
        back.replace("/login/callback?", "/login/callback/dev?"),
    ] {
        let answer = browser.get(&refused);
        assert!((400..=403).contains(&answer.status), "{refused}: {}", answer.status);
        assert!(!answer.body.contains("access_denied"), "{}", answer.body);
    }
    assert!(!browser.cookies.contains_key("portcullis"));
    assert_eq!(browser.get(&back).status, 303, "the code was not used by any of them");
}

/// An issuer that announces no `iss` is asked as before, with S256 whatever it prefers, and its
/// token endpoint sends the code nowhere else.
#[test]
fn a_code_and_its_verifier_go_to_the_token_endpoint_alone() {
    let elsewhere = Scripted::start(NO_TOKENS);
    let moved = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/token\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url
    );
    let issuer = Scripted::start(&moved);
    let gateway = with_another(&issuer);
    let mut browser = Browser::of(&gateway);
    let (_, query) = sent_away(&mut browser, "hostile");
    assert!(query.contains("code_challenge_method=S256") && query.contains("&nonce="), "{query}");
    let state = query.split('&').find(|pair| pair.starts_with("state=")).unwrap();
    let back = format!("/login/callback/hostile?{state}&code=abc");
    // Not another browser's, and not with another state.
    assert_eq!(Browser::of(&gateway).get(&back).status, 403);
    assert_eq!(browser.get(&back.replace("state=", "state=x")).status, 403);
    assert_eq!(issuer.asked("/token"), [""; 0]);
    assert_eq!(browser.get(&back).status, 403);
    let posted = issuer.asked("/token");
    assert!(posted.len() == 1 && posted[0].contains("code_verifier="), "{posted:?}");
    assert!(posted[0].contains("login%2Fcallback%2Fhostile"), "{posted:?}");
    assert_eq!(elsewhere.asked("/token"), [""; 0]);
}

/// So many withdrawals as no list was read to, all newer than the one that counts.
const MANY: &str = "insert into withdrawals (kind, key, until, username) \
    select 'credential', md5(n::text), now() + interval '1 hour', 'agent' \
    from generate_series(1, 100001) n";

#[test]
fn a07_who_is_revoked_stays_so_however_many_others_were_after_them() {
    let database = Database::fresh();
    let url = PostgresServer::fresh_index();
    let issuer = Arc::new(Issuer::start(3600));
    let mut gateway = Gateway::start(&Setup {
        issuer: Some(Arc::clone(&issuer)),
        database: Some(format!("url = {url:?}")),
        ..approval::setup(&database)
    });
    wait_for_state(&gateway);
    let token = issuer.token("agent");
    let open = OpenSession::open(&client_with(&gateway, "orders", &issuer.token("bert")));
    let revoke = json!({ "issuer": "dev", "subject": "agent" }).to_string();
    assert_eq!(ask(&gateway, "admin", "POST", "/revoked-users", &revoke).0, 200);
    PostgresServer::psql_at(&url, MANY);
    assert!(!psql(&client_with(&gateway, "orders", &token), "select 1").0);
    assert!(gateway.stop().success());
    drop(open);
    gateway.restart();
    wait_for_state(&gateway);
    let (ok, said) = psql(&client_with(&gateway, "orders", &token), "select 1");
    assert!(!ok && said.contains("access denied"), "{said}");

    // Also with what is new at once: a user and a session, older than the rest of it.
    let open = OpenSession::open(&client_with(&gateway, "orders", &issuer.token("bert")));
    open.query("select 1").unwrap();
    let user = format!(
        "insert into withdrawals (kind, key, until, username) \
         values ('user', '{} bert', now() + interval '1 hour', 'admin');",
        issuer.url()
    );
    let others = MANY.replace("md5(n::text)", "md5(n::text || 'x')");
    PostgresServer::psql_at(&url, &format!("begin; {user} {others}; commit"));
    let (_, said) = open.wait_for_end();
    assert!(said.contains("withdrawn"), "{said}");
}

#[test]
fn a_withdrawal_that_is_committed_late_counts() {
    let database = Database::fresh();
    let url = PostgresServer::fresh_index();
    let issuer = Arc::new(Issuer::start(3600));
    let gateway = Gateway::start(&Setup {
        issuer: Some(Arc::clone(&issuer)),
        database: Some(format!("url = {url:?}")),
        ..approval::setup(&database)
    });
    wait_for_state(&gateway);
    let revoke = |who: &str| {
        format!(
            "insert into withdrawals (kind, key, until, username) \
             values ('user', '{} {who}', now() + interval '1 hour', 'admin')",
            issuer.url()
        )
    };
    let [agent, bert] = ["agent", "bert"]
        .map(|who| OpenSession::open(&client_with(&gateway, "orders", &issuer.token(who))));
    // Its time is before that of what the gateway reads meanwhile.
    let (port, name) = url.rsplit_once(':').unwrap().1.split_once('/').unwrap();
    let late = OpenSession::open(&Client::new(port.parse().unwrap(), name, "postgres", ""));
    late.query("begin").unwrap();
    late.query(&revoke("agent")).unwrap();
    PostgresServer::psql_at(&url, &revoke("bert"));
    bert.wait_for_end();
    agent.query("select 1").unwrap();
    late.query("commit").unwrap();
    let (_, said) = agent.wait_for_end();
    assert!(said.contains("withdrawn"), "{said}");
}

#[test]
fn tickets_of_one_identity_are_bounded_in_number_and_in_an_hour() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        policy: "[tickets]\nmax_live = 3\nmax_per_hour = 5\n".to_owned(),
        ..approval::setup(&database)
    });
    wait_for_state(&gateway);
    let make = |who: &str| ask(&gateway, who, "POST", "/tickets", r#"{"target": "orders"}"#);
    let ids: Vec<String> =
        (0..3).map(|_| make("agent").1["id"].as_str().unwrap().to_owned()).collect();
    let (status, answer) = make("agent");
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("3 at a time"), "{answer}");
    for (id, status) in ids.iter().zip([201, 201, 429]) {
        assert_eq!(ask(&gateway, "agent", "DELETE", &format!("/tickets/{id}"), "").0, 200);
        let (given, answer) = make("agent");
        assert_eq!(given, status, "{answer}");
        if status == 429 {
            assert!(answer["detail"].as_str().unwrap().contains("5 in an hour"), "{answer}");
        }
    }
    assert_eq!(make("bert").0, 201, "another identity has limits of its own");
}

#[test]
fn a08_a_gateway_that_stood_still_runs_nothing_of_who_was_revoked_meanwhile() {
    stalled::row();
}

#[test]
fn a_revocation_counts_on_a_gateway_that_just_started() {
    let database = Database::fresh();
    let [first, mut second] = gateways(&database, "", "");
    let token = first.issuer().token("agent");
    let revoke = json!({ "issuer": "dev", "subject": "agent" }).to_string();
    assert!(second.stop().success());
    assert_eq!(ask(&first, "admin", "POST", "/revoked-users", &revoke).0, 200);
    second.restart();
    // Not waited for: the first thing that it hears of is this client.
    assert!(!psql(&client_with(&second, "orders", &token), "select 1").0);
    wait_until("the others to be let in", || {
        let token = first.issuer().token("bert");
        psql(&client_with(&second, "orders", &token), "select 1").0
    });
}

#[test]
fn a03_a_token_in_which_a_name_is_repeated_is_refused() {
    let key = Key::es256("k1");
    let issuer = Scripted::publishing(NO_TOKENS, &[&key]);
    let database = Database::fresh();
    let gateway =
        Gateway::start(&Setup { policy: issuer.section("corp"), ..approval::setup(&database) });
    wait_for_state(&gateway);
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "k1" }).to_string();
    let claims = json!({ "groups": ["agents"], "realm": { "roles": ["x"] } });
    let claims = mint::claims(&issuer.url, &claims).to_string();
    // One more member before all others, with the same value or another one.
    let with = |object: &str, member: &str| format!("{{{member},{}", &object[1..]);
    let opens = |header: &str, claims: &str| {
        let token = key.token_of(header.as_bytes(), claims.as_bytes());
        let (ok, said) = psql(&client_with(&gateway, "orders", &token), "select 1");
        assert!(ok || said.contains("access denied"), "{said}");
        ok
    };
    assert!(opens(&header, &claims));
    for member in [r#""alg":"none""#, r#""alg":"ES256""#, r#""kid":"k1""#, r#""x":[{"a":1,"a":2}]"#]
    {
        assert!(!opens(&with(&header, member), &claims), "{member}");
    }
    for member in [
        r#""groups":["strangers"]"#,
        r#""sub":"somebody""#,
        r#""sub":"crew-7""#,
        r#""\u0073ub":"somebody""#,
        r#""aud":"elsewhere""#,
        r#""iss":"https://elsewhere.example""#,
        r#""exp":1"#,
        r#""x":{"roles":["a"],"roles":["b"]}"#,
        r#""x":[[{"a":{"b":1,"b":1}}]]"#,
    ] {
        assert!(!opens(&header, &with(&claims, member)), "{member}");
    }
    assert!(opens(&header, &with(&claims, r#""x":{"sub":1,"realm":{"sub":2}}"#)));
}

#[test]
fn a04_a_single_use_ticket_is_given_back_when_the_session_did_not_open() {
    given_back::row();
}

#[test]
fn a05_a_kill_says_what_becomes_of_the_token_and_that_can_be_undone() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "", "");
    let token = first.issuer().token("agent");
    let opens = |gateway: &Gateway| psql(&client_with(gateway, "orders", &token), "select 1").0;
    // Only the session: what opened it goes on to count.
    let session = OpenSession::open(&client_with(&first, "orders", &token));
    let id = open_session_id(&first);
    let (ok, said) = command(&second, "admin", &["session", "kill", &id, "--only-session"]);
    assert!(ok && said.contains("has ended") && !said.contains("refused"), "{said}");
    session.wait_for_end();
    assert!(opens(&first) && opens(&second));
    assert_eq!(command(&second, "auditor", &["token", "list"]), (true, String::new()));

    // With what opened it: that is said, listed, and undone.
    let session = OpenSession::open(&client_with(&first, "orders", &token));
    let id = open_session_id(&first);
    let path = format!("/sessions/{id}/kill");
    assert_eq!(ask(&second, "admin", "POST", &path, r#"{"only": true}"#).0, 400);
    let (status, killed) = ask(&second, "admin", "POST", &path, r#"{"reason": "case 7"}"#);
    assert_eq!(status, 200, "{killed}");
    session.wait_for_end();
    let withdrawn = &killed["withdrawn_token"];
    let name = withdrawn["id"].as_str().unwrap().to_owned();
    assert_eq!((&withdrawn["session"], &withdrawn["withdrawn_by"]), (&json!(id), &json!("admin")));
    wait_until("the token to be refused", || !opens(&second) && !opens(&first));
    wait_until("its owner in the list", || {
        let (_, listed) = ask(&first, "auditor", "GET", "/withdrawn-tokens", "");
        listed["items"][0]["id"] == name.as_str() && listed["items"][0]["username"] == "agent"
    });
    let (ok, listed) = command(&second, "auditor", &["token", "list"]);
    assert!(ok && listed.contains(&name) && listed.contains(&id), "{listed}");
    for (who, status) in [("agent", 403), ("auditor", 403), ("admin", 200), ("admin", 404)] {
        let path = format!("/withdrawn-tokens/{name}");
        assert_eq!(ask(&first, who, "DELETE", &path, "").0, status, "{who}");
    }
    wait_until("the token to count again", || opens(&first) && opens(&second));
    // The audit log: first that it was asked for, then that it is done.
    let (_, log) = ask(&second, "auditor", "GET", "/audit?text=session.kill", "");
    let outcomes = |log: &Value| -> Vec<String> {
        let items = log["items"].as_array().unwrap();
        let own = items.iter().filter(|item| item["object"] == id.as_str());
        own.map(|item| item["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(outcomes(&log), ["done", "asked"], "{log}");
    assert_eq!(log["items"][0]["detail"]["withdrawn_token"], name.as_str(), "{log}");
    // What somebody revoked is not lifted this way.
    let none = "0".repeat(64);
    assert_eq!(ask(&first, "admin", "DELETE", &format!("/withdrawn-tokens/{none}"), "").0, 404);
}

/// The page says the same beside its button.
#[test]
fn the_live_page_ends_only_the_session_when_that_is_chosen() {
    let database = Database::fresh();
    let gateway = pages::start(Setup::for_targets([database.target("orders")]));
    let token = gateway.issuer().token("agent");
    let session = OpenSession::open(&client_with(&gateway, "orders", &token));
    let mut admin = Browser::logged_in(&gateway, "ada");
    let mut page = String::new();
    wait_until("the session on the page", || {
        page = admin.get("/live").body;
        page.contains("End the session")
    });
    assert!(page.contains("is refused everywhere until it expires"), "{page}");
    assert!(page.contains("name=\"only_session\""), "{page}");
    let (_, rest) = page.split_once("action=\"/sessions/").unwrap();
    let id = rest.split('/').next().unwrap();
    let answer = admin.post(&format!("/sessions/{id}/end"), "reason=test&only_session=yes");
    assert_eq!(answer.status, 303, "{}", answer.body);
    session.wait_for_end();
    assert!(psql(&client_with(&gateway, "orders", &token), "select 1").0);
    let (_, listed) =
        ask_with(&gateway, &gateway.issuer().token("admin"), "GET", "/withdrawn-tokens", "");
    assert_eq!(listed["items"], json!([]));
}
