//! What changes between the question and the answer.

use std::thread;
use std::time::Duration;

use super::held::{RULES, decide, pears, pending, start_psql, started, state};
use super::{OpenSession, command};
use crate::support::daemon::wait_until;
use crate::support::random::{Random, amount};

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
