//! Every client and everything that may become of its command: held, approved, denied, expired,
//! cancelled. A client is one function; what must come of a command is in one place.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::elsewhere::{groups, service_by};
use super::held::{RULES, decide, pears, pending, started, state};
use super::wait_for_state;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::http::{App, Caller};
use crate::support::ssh::{Site, Sshd};

/// What becomes of a command that is held; that it is held is looked at before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Approved,
    Denied,
    Expired,
    Cancelled,
}

const ALL: [Outcome; 4] =
    [Outcome::Approved, Outcome::Denied, Outcome::Expired, Outcome::Cancelled];

/// What a command's text holds that waits for a second alone.
const SOON: &str = "soon";

/// A rule that shortens the wait for that.
fn soon(actions: &str) -> String {
    format!(
        "[[rule]]\nname = \"soon\"\nactions = [{actions}]\ntext = '{SOON}'\n\
         verdict = \"approve\"\napprovers = [\"dba\"]\ntimeout = \"1s\"\n"
    )
}

/// Plays all of it with one client: `command` is the client with a command that is held, marked
/// with a word; `ran` says how often one ran; `exit` is how the client ends when it ran and when it
/// was refused.
fn every_outcome(
    gateway: &Gateway,
    command: impl Fn(&str) -> Command,
    ran: impl Fn() -> usize,
    exit: (i32, i32),
) {
    let mut times = ran();
    for outcome in ALL {
        let word = if outcome == Outcome::Expired { SOON } else { "later" };
        let mut command = command(word);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let request = pending(gateway);
        assert_eq!(ran(), times, "{outcome:?}: it ran before anybody decided");
        if outcome != Outcome::Expired {
            assert!(child.try_wait().unwrap().is_none(), "{outcome:?}: the client waits");
        }
        settle(gateway, &child, &request, outcome);
        let output = child.wait_with_output().unwrap();
        let said = told(&output);
        let ended = || state(gateway, &request)["state"].clone();
        wait_until("the request to end", || !["pending", "approved"].contains(&&*text(&ended())));
        let (state, code, words) = match outcome {
            Outcome::Approved => ("consumed", Some(exit.0), ""),
            Outcome::Denied => ("denied", Some(exit.1), "denied by anna"),
            Outcome::Expired => ("expired", Some(exit.1), "nobody approved it in time"),
            Outcome::Cancelled => ("expired", None, ""),
        };
        assert_eq!(text(&ended()), state, "{outcome:?}: {said}");
        assert!(code.is_none_or(|code| output.status.code() == Some(code)), "{outcome:?}: {said}");
        assert!(said.contains(words), "{outcome:?}: {said}");
        times += usize::from(outcome == Outcome::Approved);
        assert_eq!(ran(), times, "{outcome:?}: {said}");
        assert_eq!(decide(gateway, "bert", &request, "approve").0, 409, "{outcome:?}");
        assert_eq!(ran(), times, "{outcome:?}: a late yes let it run");
    }
}

fn settle(gateway: &Gateway, client: &Child, request: &Value, outcome: Outcome) {
    match outcome {
        Outcome::Approved => assert_eq!(decide(gateway, "anna", request, "approve").0, 200),
        Outcome::Denied => assert_eq!(decide(gateway, "anna", request, "deny").0, 200),
        Outcome::Expired => {}
        // As Ctrl-C does.
        Outcome::Cancelled => kill_process(Pid::from_child(client), Signal::INT).unwrap(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A client of PostgreSQL, whose command adds one to the pears.
fn of_postgres(exit: (i32, i32), command: impl Fn(&Gateway, &str) -> Command) {
    let rules = format!("{RULES}{}", soon("\"sql.update\""));
    let (database, gateway) = started(&rules);
    let ran = || pears(&database).parse().unwrap();
    every_outcome(&gateway, |word| command(&gateway, word), ran, exit);
    assert!(gateway.stop().success());
    gateway.verify_all();
}

fn python(gateway: &Gateway, driver: &str, word: &str) -> Command {
    let mut program = gateway.client("orders").python("held.py");
    program.args([driver, word]);
    program
}

#[test]
fn psql() {
    of_postgres((0, 1), |gateway, word| {
        let mut psql = gateway.client("orders").psql();
        psql.args(["-c", &format!("update pears set n = n + 1 /* {word} */")]);
        psql
    });
}

/// Within the transaction that it begins by itself.
#[test]
fn psycopg() {
    of_postgres((0, 0), |gateway, word| python(gateway, "psycopg", word));
}

#[test]
fn sqlalchemy() {
    of_postgres((0, 0), |gateway, word| python(gateway, "sqlalchemy", word));
}

#[test]
fn a_pipeline_of_the_extended_protocol() {
    of_postgres((0, 0), |gateway, word| python(gateway, "pipeline", word));
}

#[test]
fn ssh_exec() {
    let policy = format!(
        "[[rule]]\nname = \"writes-need-a-human\"\nactions = [\"ssh.exec\"]\ntext = '>>'\n\
         verdict = \"approve\"\napprovers = [\"dba\"]\ntimeout = \"60s\"\n{}",
        soon("\"ssh.exec\"")
    );
    let sections = format!("{}\n{}", Sshd::shared().target("web-1", ""), groups());
    let site = Site::set_up(&sections, Setup { policy, ..Setup::default() });
    wait_for_state(&site.gateway);
    let out = site.path("out");
    let command = |word: &str| {
        let mut ssh = site.ssh();
        ssh.arg(format!("echo {word} >> {}", out.display()));
        ssh
    };
    let ran = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    every_outcome(&site.gateway, command, ran, (0, 126));
    site.finish();
}

#[test]
fn curl() {
    let (app, gateway): (App, Gateway) = service_by("60s", &soon("\"http.post\""));
    let caller = Caller::of(&gateway);
    let command = |word: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--max-time", "60", "--data-binary", "{}"]);
        curl.args(["-H", &format!("Authorization: Bearer {}", caller.token)]);
        curl.arg(caller.url(&format!("/crew/{word}")));
        curl
    };
    every_outcome(&gateway, command, || app.paths().len(), (0, 22));
    assert!(gateway.stop().success());
    gateway.verify_all();
}
