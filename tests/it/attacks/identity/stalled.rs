//! A gateway that stood still, as a stopped process, a paused machine or a laptop's lid does it:
//! what was promised in seconds holds when it goes on.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::approval::elsewhere::{service, site};
use crate::approval::held::{decide, id, pending};
use crate::approval::{ask, gateways, setup, wait_for_state};
use crate::attacks::approvals::Transaction;
use crate::support::client::Database;
use crate::support::daemon::{PATIENCE, wait_until};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::Caller;
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, query};

/// Within what a revocation counts on every gateway, and a little more.
const PROMISE: Duration = Duration::from_millis(2_100);

/// Waits until what a gateway that stands still knew is older than the promise.
fn promise_is_over(since: Instant) {
    wait_until("the promise's time to be over", || since.elapsed() > PROMISE);
}

/// Twenty statements that show whether they ran.
fn statements() -> Vec<u8> {
    (0..20).flat_map(|n| query(&format!("insert into ran values ({n})"))).collect()
}

fn ran(database: &Database) -> String {
    let mut psql = database.client().psql();
    let output = psql.args(["-c", "select count(*) from ran"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn revoke(gateway: &Gateway, subject: &str) {
    let body = json!({ "issuer": "dev", "subject": subject }).to_string();
    let (status, answer) = ask(gateway, "admin", "POST", "/revoked-users", &body);
    assert_eq!(status, 200, "{answer}");
}

/// Row A08.
pub fn row() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "", "");
    let token = first.issuer().token("agent");
    let mut talk = Talk::opened(second.address(), "agent", "orders", &token);
    assert_eq!(talk.ask(&[query("create table ran (n int)")]).last().unwrap(), "ZI");
    second.daemon().stall();
    let since = Instant::now();
    revoke(&first, "agent");
    promise_is_over(since);
    talk.send(&statements());
    second.daemon().go_on();
    let said = talk.until_end().join("\n");
    assert!(said.contains("the access to this target was withdrawn"), "{said}");
    assert_eq!(ran(&database), "0", "{said}");
    // Who was not revoked goes on: the gateway only looks first.
    let token = first.issuer().token("bert");
    let mut talk = Talk::opened(second.address(), "bert", "orders", &token);
    second.daemon().stall();
    promise_is_over(Instant::now());
    talk.send(&statements());
    second.daemon().go_on();
    assert_eq!(talk.until_ready(20).last().unwrap(), "ZI");
    assert_eq!(ran(&database), "20");
}

/// A look that was under way when the gateway stopped had its time run out meanwhile: that is no
/// outage of the database.
#[test]
fn a_gateway_that_stood_still_in_the_middle_of_a_look_looks_again() {
    let database = Database::fresh();
    let gateway = Gateway::start(&setup(&database));
    wait_for_state(&gateway);
    let url = gateway.state_url();
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    assert_eq!(talk.ask(&[query("create table ran (n int)")]).last().unwrap(), "ZI");
    let user = format!("{} agent", gateway.issuer().url());
    let locked = Transaction::begin(
        &url,
        &format!(
            "lock table withdrawals in access exclusive mode; \
             insert into withdrawals (kind, key, until, username) \
             values ('user', '{user}', now() + interval '1 hour', 'admin')"
        ),
    );
    wait_until("a look to be under way", || {
        let waits = "select count(*) from pg_locks where not granted \
                     and relation = 'withdrawals'::regclass";
        PostgresServer::psql_at(&url, waits).trim() != "0"
    });
    gateway.daemon().stall();
    let since = Instant::now();
    locked.commit();
    wait_until("the look's time to run out", || since.elapsed() > Duration::from_secs(5));
    talk.send(&statements());
    gateway.daemon().go_on();
    let said = talk.until_end().join("\n");
    assert_eq!(ran(&database), "0", "{said}");
}

#[test]
fn a_token_that_ended_while_the_gateway_stood_still_runs_nothing() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        token_seconds: Some(5),
        server: "expiry_grace = \"1s\"\n".to_owned(),
        ..setup(&database)
    });
    wait_for_state(&gateway);
    let token = gateway.issuer().token("agent");
    let began = Instant::now();
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    assert_eq!(talk.ask(&[query("create table ran (n int)")]).last().unwrap(), "ZI");
    // What runs when its token ends has a second: none of it is left when the gateway goes on.
    assert_eq!(talk.ask(&[query("create table copied (n int)")]).last().unwrap(), "ZI");
    talk.send(&query("copy copied from stdin"));
    assert_eq!(talk.until_tag(b'G'), ["G"]);
    gateway.daemon().stall();
    wait_until("the token to end", || began.elapsed() > Duration::from_secs(8));
    talk.send(&crate::support::wire::message(b'd', b"1\n"));
    talk.send(&crate::support::wire::message(b'c', b""));
    talk.send(&statements());
    gateway.daemon().go_on();
    let said = talk.until_end().join("\n");
    assert_eq!(ran(&database), "0", "{said}");
    let mut psql = database.client().psql();
    let output = psql.args(["-c", "select count(*) from copied"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "0", "{said}");
}

#[test]
fn a_session_that_reached_its_length_while_the_gateway_stood_still_runs_nothing() {
    let database = Database::fresh();
    let gateway =
        Gateway::start(&Setup { access: "max_session = \"4s\"\n".to_owned(), ..setup(&database) });
    wait_for_state(&gateway);
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    let began = Instant::now();
    assert_eq!(talk.ask(&[query("create table ran (n int)")]).last().unwrap(), "ZI");
    gateway.daemon().stall();
    wait_until("the session's time to be over", || began.elapsed() > Duration::from_secs(5));
    talk.send(&statements());
    gateway.daemon().go_on();
    let said = talk.until_end().join("\n");
    assert_eq!(ran(&database), "0", "{said}");
}

#[test]
fn an_approval_that_ran_out_while_the_gateway_stood_still_is_not_used() {
    let database = Database::fresh();
    let policy = "[[rule]]\nname = \"inserts\"\nactions = [\"sql.insert\"]\nverdict = \"approve\"\n\
                  approvers = [\"dba\"]\ntimeout = \"4s\"\n";
    let [first, second] = gateways(&database, "", policy);
    let token = first.issuer().token("agent");
    let mut talk = Talk::opened(second.address(), "agent", "orders", &token);
    assert_eq!(talk.ask(&[query("create table ran (n int)")]).last().unwrap(), "ZI");
    talk.send(&query("insert into ran values (1)"));
    let request = pending(&first);
    let began = Instant::now();
    second.daemon().stall();
    assert_eq!(decide(&first, "anna", &request, "approve").0, 200, "{}", id(&request));
    wait_until("the approval's time to be over", || began.elapsed() > Duration::from_secs(5));
    second.daemon().go_on();
    let said = talk.until_ready(1).join("\n");
    assert!(said.contains("E["), "{said}");
    assert_eq!(ran(&database), "0", "{said}");
}

#[test]
fn a_request_and_an_approver_of_a_gateway_that_stood_still_are_looked_at_first() {
    let (app, gateway) = service("60s");
    let caller = Caller::of(&gateway);
    assert_eq!(caller.get("/crew/before").status, 200);
    let waits = std::thread::spawn({
        let caller = Caller { address: caller.address, token: caller.token.clone() };
        move || caller.post("/crew/refunds", "{}")
    });
    let request = pending(&gateway);
    let anna = gateway.issuer().token("anna");
    let mut open = caller.connect();
    let state = gateway.state_url();
    gateway.daemon().stall();
    let since = Instant::now();
    for who in ["agent", "anna"] {
        let user = format!("{} {who}", gateway.issuer().url());
        PostgresServer::psql_at(
            &state,
            &format!(
                "insert into withdrawals (kind, key, until, username) \
                 values ('user', '{user}', now() + interval '1 hour', 'admin')"
            ),
        );
    }
    promise_is_over(since);
    let ask = "GET /crew/after HTTP/1.1\r\nHost: gateway\r\n{auth}Connection: close\r\n\r\n";
    open.write_all(caller.with_token(ask).as_bytes()).unwrap();
    let approve = format!(
        "POST /api/v1/approvals/{}/approve HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Authorization: Bearer {anna}\r\nContent-Length: 0\r\n\r\n",
        id(&request)
    );
    let mut web = std::net::TcpStream::connect(gateway.web()).unwrap();
    web.set_read_timeout(Some(PATIENCE)).unwrap();
    web.write_all(approve.as_bytes()).unwrap();
    gateway.daemon().go_on();
    for (stream, place) in [(&mut open, "service"), (&mut web, "API")] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{place}: {answer}");
    }
    assert_ne!(waits.join().unwrap().status, 200);
    assert_eq!(app.paths(), ["/before"]);
}

#[test]
fn what_was_typed_into_a_gateway_that_stood_still_is_not_passed_on() {
    let site = site("60s");
    let out = site.path("typed");
    let mut ssh = site.ssh();
    let mut ssh = ssh
        .arg(format!("echo ready; cat > {}", out.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    ssh.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    site.gateway.daemon().stall();
    let since = Instant::now();
    let user = format!("{} agent", site.gateway.issuer().url());
    PostgresServer::psql_at(
        &site.gateway.state_url(),
        &format!(
            "insert into withdrawals (kind, key, until, username) \
             values ('user', '{user}', now() + interval '1 hour', 'admin')"
        ),
    );
    ssh.stdin.as_mut().unwrap().write_all(b"rm everything\n").unwrap();
    promise_is_over(since);
    site.gateway.daemon().go_on();
    assert!(!ssh.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "");
    site.finish();
}
