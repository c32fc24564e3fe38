//! What changes between the question and the answer.

use std::thread;
use std::time::Duration;

use std::time::Instant;

use serde_json::json;

use super::held::{RULES, decide, id, pears, pending, start_psql, started, state};
use super::{OpenSession, ask, client_with, command, psql, setup, wait_for_state};
use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::{Random, amount};
use crate::support::talk::{Talk, bind, close, execute, parse, query, sync};

#[test]
fn a_prepared_statement_that_is_bound_again_waits_again() {
    let (database, gateway) = started(RULES);
    let session = OpenSession::open(&gateway.client("orders"));
    let statement =
        session.runtime.block_on(session.client.prepare("update pears set n = n + $1")).unwrap();
    let run = |amount: i32| {
        session.runtime.block_on(session.client.execute(&statement, &[&amount])).map(drop)
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| run(1));
        let approved = pending(&gateway);
        assert_eq!(decide(&gateway, "anna", &approved, "approve").0, 200);
        first.join().unwrap().unwrap();
        assert_eq!(pears(&database), "1");
        // The same statement with another value, and with the same one, are other commands.
        for value in [1000, 1] {
            let second = scope.spawn(move || run(value));
            let request = pending(&gateway);
            assert_ne!(request["id"], approved["id"]);
            let shown = request["command"]["attributes"]["parameters"].to_string();
            assert!(shown.contains(&format!("{value:08x}")), "{shown}");
            assert_eq!(decide(&gateway, "anna", &request, "deny").0, 200);
            assert!(second.join().unwrap().is_err());
        }
    });
    assert_eq!(pears(&database), "1");
}

/// An approval and the end of the time come at once: it ran exactly when the approval was used.
#[test]
fn at_the_moment_of_expiry_it_runs_once_or_never() {
    let (database, gateway) = started(&RULES.replace("60s", "2s"));
    let mut random = Random::seeded();
    let mut ran = 0;
    for _ in 0..amount("PORTCULLIS_EXPIRY_ROUNDS", 4) {
        let waiting = start_psql(&gateway.client("orders"), &["update pears set n = n + 1"]);
        let request = pending(&gateway);
        thread::sleep(Duration::from_millis(1_700 + random.below(400) as u64));
        let (status, _) = decide(&gateway, "anna", &request, "approve");
        assert!([200, 409].contains(&status), "{status}");
        let (ok, said) = waiting.join().unwrap();
        wait_until("the request to end", || state(&gateway, &request)["state"] != "approved");
        let consumed = state(&gateway, &request)["state"] == "consumed";
        assert_eq!(ok, consumed, "{said}");
        ran += u32::from(consumed);
        assert_eq!(pears(&database), ran.to_string());
    }
    let (ok, listed) = command(&gateway, "anna", &["approval", "list"]);
    assert!(ok && !listed.contains("pears"), "nothing waits any more: {listed}");
}

/// What an approval would be worth that is for something else, is said twice, comes from who asked,
/// from somebody else, or too late: nothing, and each attempt is in the audit log.
#[test]
fn a_word_that_does_not_count_is_refused_and_audited() {
    let (database, gateway) = started(&RULES.replace("60s", "4s"));
    let token = gateway.issuer().token("bert");
    let waiting = start_psql(&client_with(&gateway, "orders", &token), &["delete from pears"]);
    let request = pending(&gateway);
    let path = format!("/approvals/{}", id(&request));
    let exact = request["exact"].as_str().unwrap();
    let other = json!({ "exact": exact.replace(|c: char| c != '0', "0") }).to_string();
    let same = json!({ "exact": exact }).to_string();
    let refusals = [
        ("anna", other.as_str(), 409, "the request is for other bytes than those of this hash"),
        ("bert", "", 403, "nobody decides a request of their own"),
        ("stranger", "", 404, "none of your groups may decide this request"),
        ("admin", "", 403, "none of your groups may decide this request"),
    ];
    for (who, body, status, _) in refusals {
        let (given, answer) = ask(&gateway, who, "POST", &format!("{path}/approve"), body);
        assert_eq!(given, status, "{who}: {answer}");
    }
    // A link that is followed, or fetched ahead by a mail program, decides nothing.
    for decision in ["approve", "deny"] {
        assert_eq!(ask(&gateway, "anna", "GET", &format!("{path}/{decision}"), "").0, 405);
    }
    assert_eq!(state(&gateway, &request)["state"], "pending");
    wait_until("its end", || state(&gateway, &request)["state"] == "expired");
    assert_eq!(ask(&gateway, "anna", "POST", &format!("{path}/approve"), &same).0, 409);
    assert!(!waiting.join().unwrap().0);
    assert_eq!(pears(&database), "0");

    let waiting = start_psql(&gateway.client("orders"), &["update pears set n = 2"]);
    let request = pending(&gateway);
    let said = json!({ "exact": request["exact"] }).to_string();
    let approve = format!("/approvals/{}/approve", id(&request));
    assert_eq!(ask(&gateway, "anna", "POST", &approve, &said).0, 200);
    assert!(waiting.join().unwrap().0);
    assert_eq!(ask(&gateway, "anna", "POST", &approve, &said).0, 409);
    assert_eq!(pears(&database), "2");

    let (_, log) = ask(&gateway, "auditor", "GET", "/audit?text=approval.approve&limit=100", "");
    let refused = |who: &str, why: &str| {
        log["items"].as_array().unwrap().iter().any(|entry| {
            entry["username"] == who
                && entry["outcome"] == "refused"
                && entry["detail"].to_string().contains(why)
        })
    };
    let late = [
        ("anna", "", 0, "the request is expired already"),
        ("anna", "", 0, "the request is consumed already"),
    ];
    for (who, _, _, why) in refusals.into_iter().chain(late) {
        assert!(refused(who, why), "{who}, {why}: {log}");
    }
}

/// What stands behind a command that waits is not looked at before, so it changes neither what the
/// approved name means nor where it looks.
#[test]
fn what_is_sent_behind_it_does_not_change_what_was_approved() {
    let (database, gateway) = started(RULES);
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            talk.ask(&[
                parse("s", "update pears set n = n + 1"),
                bind("p", "s", &[]),
                execute("p"),
                close(b'S', "s"),
                parse("s", "update pears set n = n + 1000"),
                bind("q", "s", &[]),
                sync(),
                query("set search_path to pg_temp"),
            ])
        });
        let request = pending(&gateway);
        let shown = request["visible_text"].as_str().unwrap();
        assert!(shown.contains("n + 1") && !shown.contains("1000"), "{shown}");
        assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
        let said = said.join().unwrap();
        assert!(said.iter().any(|line| line == "C[UPDATE 1]"), "{said:?}");
    });
    assert_eq!(pears(&database), "1");
}

#[test]
fn while_state_is_out_of_reach_nothing_is_asked_for_and_nothing_held_runs() {
    let database = Database::fresh();
    assert!(psql(&database.client(), "create table pears (n int); insert into pears values (0)").0);
    let kept = PostgresServer::start(&Options::default());
    let url = kept.url(&kept.create_database());
    let gateway = Gateway::start(&Setup {
        policy: RULES.replace("60s", "8s"),
        database: Some(format!("url = {url:?}")),
        ..setup(&database)
    });
    wait_for_state(&gateway);
    let client = gateway.client("orders");
    let waiting = start_psql(&client, &["update pears set n = 1"]);
    let request = pending(&gateway);
    kept.kill();
    gateway.daemon().wait_for_log("state cannot be read");
    let began = Instant::now();
    let (ok, said) = psql(&client, "update pears set n = 2");
    assert!(!ok && said.contains("approvals cannot be asked for now"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 503);
    let (ok, said) = waiting.join().unwrap();
    assert!(!ok && said.contains("nobody approved it in time"), "{said}");
    assert!(psql(&client, "select 1").0, "what nobody has to approve runs");
    kept.restart();
    wait_until("approvals to be asked for again", || {
        let (_, said) = psql(&client, "delete from pears");
        said.contains("nobody approved it in time")
    });
    assert_eq!(pears(&database), "0");
}
