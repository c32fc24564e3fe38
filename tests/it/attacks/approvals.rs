//! Approvals that were counted or piled up wrongly, and holds that were set too late.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use super::identity::Scripted;
use crate::approval::elsewhere::{service_by, site};
use crate::approval::held::{id, pending, started, state};
use crate::approval::{ask, ask_with, client_with, gateways, psql, setup, wait_for_state};
use crate::identity::mint::{self, Key};
use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::Caller;
use crate::support::issuer::Issuer;
use crate::support::postgres::{PostgresServer, binary};
use crate::support::talk::{Talk, query};

#[test]
fn a01_two_accounts_of_one_verified_address_are_one_person() {
    let key = Key::es256("k1");
    let corp = Scripted::publishing("", &[&key]);
    let database = Database::fresh();
    let policy = format!(
        "{}[[rule]]\nname = \"two\"\nactions = [\"sql.update\"]\nverdict = \"approve\"\n\
         approvers = [\"dba\"]\napprovals = 2\ntimeout = \"60s\"\n",
        corp.section("corp")
    );
    let gateway = Gateway::start(&Setup { policy, ..setup(&database) });
    wait_for_state(&gateway);
    let account = |subject: &str, email: &str, verified: bool| {
        let claims = json!({
            "sub": subject, "groups": ["dba"], "email": email, "email_verified": verified,
        });
        key.token(&mint::claims(&corp.url, &claims))
    };
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    talk.ask(&[query("create table pears (n int)"), query("insert into pears values (0)")]);
    let vote = |request: &Value, token: &str| {
        let path = format!("/approvals/{}/approve", id(request));
        ask_with(&gateway, token, "POST", &path, "").0
    };
    talk.send(&query("update pears set n = 1"));
    let request = pending(&gateway);
    assert_eq!(vote(&request, &account("anna-1", "Anna@corp.example", true)), 200);
    // Another account, whatever its name and however the address is written.
    for email in ["anna@corp.example", "ANNA@CORP.EXAMPLE"] {
        assert_eq!(vote(&request, &account("anna-2", email, true)), 409, "{email}");
    }
    assert_eq!(state(&gateway, &request)["state"], "pending");
    // An address that nobody verified is nobody's: it makes two people of two accounts, not one.
    assert_eq!(vote(&request, &account("bert", "anna@corp.example", false)), 200);
    wait_until("its use", || state(&gateway, &request)["state"] == "consumed");
    assert!(talk.until_ready(1).iter().any(|line| line == "C[UPDATE 1]"));
    // The address is shown to nobody.
    let votes = state(&gateway, &request)["votes"].to_string();
    assert!(votes.contains("anna-1") && !votes.to_lowercase().contains("@corp"), "{votes}");
}

#[test]
fn a02_requests_of_one_identity_that_wait_are_bounded_with_a_clear_refusal() {
    let limits = "[approvals]\nper_identity = 5\nper_session = 4\nper_minute = 1000\n";
    let (_app, gateway) = service_by("60s", limits);
    let caller = Caller::of(&gateway);
    let ask_async = |token: &str, n: usize| {
        let caller = Caller { address: caller.address, token: token.to_owned() };
        let body = json!({ "n": n }).to_string();
        let arguments = ["-H", "Prefer: respond-async", "-H", "Content-Type: application/json"];
        caller.curl("/crew/refunds", &[&arguments[..], &["--data-binary", &body]].concat())
    };
    let told: Vec<_> = (0..12).map(|n| ask_async(&caller.token, n)).collect();
    let statuses: Vec<u16> = told.iter().map(|told| told.status).collect();
    // One session holds four; another one of the same identity gets to the fifth and no further.
    assert_eq!(statuses[..4], [202; 4], "{statuses:?}");
    assert!(statuses[4..].iter().all(|status| *status == 429), "{statuses:?}");
    let last = told.last().unwrap();
    assert!(last.text().contains("4 commands of this session wait for approval"), "{last:?}");
    assert!(last.header("retry-after").is_some(), "{last:?}");
    let run = |n: usize| {
        let body = json!({ "n": n }).to_string();
        let arguments = ["-H", "Prefer: respond-async", "-H", "X-Portcullis-Run: other"];
        let json = ["-H", "Content-Type: application/json", "--data-binary", &body];
        caller.curl("/crew/refunds", &[&arguments[..], &json[..]].concat())
    };
    assert_eq!([run(20).status, run(21).status], [202, 429]);
    assert!(run(22).text().contains("5 commands of yours wait for approval"));
    // Who asks again for the same is told how it stands, and others may ask.
    assert_eq!(ask_async(&caller.token, 0).status, 202);
    assert_eq!(ask_async(&gateway.issuer().token("bert"), 0).status, 202);
    let (_, page) = ask(&gateway, "anna", "GET", "/approvals?state=pending&limit=100", "");
    assert_eq!(page["items"].as_array().unwrap().len(), 6);
    // A decision makes room.
    let (_, page) = ask(&gateway, "anna", "GET", "/approvals?state=pending&limit=100", "");
    let of_agent =
        page["items"].as_array().unwrap().iter().rev().find(|one| one["username"] == "agent");
    let path = format!("/approvals/{}/deny", id(of_agent.unwrap()));
    assert_eq!(ask(&gateway, "anna", "POST", &path, "").0, 200);
    assert_eq!(ask_async(&caller.token, 99).status, 202);
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn over_postgres_and_ssh_the_limit_is_told_and_nothing_runs() {
    let limits = "[approvals]\nper_target = 1\n";
    let (database, gateway) = started(&format!("{}{limits}", crate::approval::held::RULES));
    let token = gateway.issuer().token("agent");
    let mut first = Talk::opened(gateway.address(), "agent", "orders", &token);
    first.send(&query("update pears set n = 1"));
    let request = pending(&gateway);
    let bert = gateway.issuer().token("bert");
    let mut second = Talk::opened(gateway.address(), "bert", "orders", &bert);
    let said = second.ask(&[query("update pears set n = 2")]).join("\n");
    assert!(
        said.contains("E[53400: nobody was asked to approve the command: 1 commands for this"),
        "{said}"
    );
    assert_eq!(second.ask(&[query("select 1")]).last().unwrap(), "ZI");
    assert_eq!(state(&gateway, &request)["state"], "pending");
    assert_eq!(crate::approval::held::pears(&database), "0");

    // Asked and given up again and again: people are not rung for each.
    let site = site("60s");
    let config = site.gateway.configuration();
    let output = site.gateway.reload(|text| text + "[approvals]\nper_minute = 2\n");
    assert!(output.status.success(), "{} {output:?}", config.display());
    for n in 0..3 {
        let mut ssh = site.ssh();
        let out = site.path("out");
        ssh.arg(format!("echo x >> {}", out.display())).stdout(Stdio::null());
        let mut ssh = ssh.stderr(Stdio::piped()).spawn().unwrap();
        if n < 2 {
            let request = pending(&site.gateway);
            ssh.kill().unwrap();
            ssh.wait().unwrap();
            wait_until("the request to end", || {
                state(&site.gateway, &request)["state"] == "expired"
            });
        } else {
            let output = ssh.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("2 approvals were asked for by you within a minute"), "{said}");
            assert!(!out.exists());
        }
    }
    site.finish();
}

/// A transaction of somebody else on the database of the state, open until it is told to commit.
pub struct Transaction(std::process::Child);

impl Transaction {
    pub fn begin(url: &str, statements: &str) -> Self {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = format!("begin; {statements}; select 'begun';\n");
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
        let mut read = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begun") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut read, &mut line).unwrap() > 0);
        }
        child.stdout = Some(read.into_inner());
        Self(child)
    }

    pub fn commit(mut self) {
        let mut stdin = self.0.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"commit;\n").unwrap();
        drop(stdin);
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn e04_a_hold_of_what_is_being_deleted_says_so_and_is_not_set() {
    let database = Database::fresh();
    let url = PostgresServer::fresh_index();
    let gateway = Gateway::start(&Setup {
        issuer: Some(Arc::new(Issuer::start(3600))),
        database: Some(format!("url = {url:?}")),
        ..setup(&database)
    });
    wait_for_state(&gateway);
    assert!(psql(&gateway.client("orders"), "select 1").0);
    let mut session = String::new();
    wait_until("the session in the index, with its time to stay", || {
        let (_, page) = ask(&gateway, "auditor", "GET", "/sessions", "");
        session = page["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        let sql = format!("select count(*) from retained where session::text = '{session}'");
        !session.is_empty() && PostgresServer::psql_at(&url, &sql).trim() == "1"
    });
    let hold = json!({ "reason": "case 7", "session": session }).to_string();
    let audited = |outcome: &str| {
        let (_, log) = ask(&gateway, "auditor", "GET", "/audit?text=hold.set", "");
        let items = log["items"].as_array().unwrap().clone();
        items.iter().filter(|item| item["outcome"] == outcome).count()
    };
    // What a deletion does: the lock, the files, the mark, the end.
    let deletion = Transaction::begin(
        &url,
        &format!(
            "lock table holds in share mode; \
             update retained set state = 'gone' where session = '{session}'"
        ),
    );
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&gateway, "admin", "POST", "/holds", &hold));
        wait_until("the hold to wait for the deletion", || {
            let waits = "select count(*) from pg_locks where not granted \
                         and relation = 'holds'::regclass";
            PostgresServer::psql_at(&url, waits).trim() == "1"
        });
        // Nothing is said to be done that is not.
        assert_eq!(audited("done"), 0);
        deletion.commit();
        asked.join().unwrap()
    });
    assert_eq!(answer.0, 409, "{answer:?}");
    assert!(answer.1["detail"].as_str().unwrap().contains("has been deleted"), "{answer:?}");
    assert_eq!((audited("done"), audited("refused")), (0, 1));
    let (_, holds) = ask(&gateway, "admin", "GET", "/holds?all=true", "");
    assert_eq!(holds["items"], json!([]));
}

/// Other changes: the audit log says that they are done when they are, and only then.
#[test]
fn what_is_not_there_to_be_revoked_or_restored_is_not_audited_as_done() {
    let database = Database::fresh();
    let [gateway] = gateways(&database, "", "");
    let none = "01890000-0000-7000-8000-000000000000";
    for (method, path, action) in [
        ("DELETE", format!("/tickets/{none}"), "ticket.revoke"),
        ("DELETE", format!("/grants/{none}"), "grant.revoke"),
        ("DELETE", "/revoked-users?issuer=dev&subject=nobody".to_owned(), "user.restore"),
        ("DELETE", format!("/withdrawn-tokens/{}", "a".repeat(64)), "token.lift"),
    ] {
        assert_eq!(ask(&gateway, "admin", method, &path, "").0, 404, "{path}");
        let (_, log) = ask(&gateway, "auditor", "GET", &format!("/audit?text={action}"), "");
        let outcomes: Vec<_> =
            log["items"].as_array().unwrap().iter().map(|item| item["outcome"].clone()).collect();
        assert_eq!(outcomes, ["refused"], "{action}: {log}");
    }
    let token = gateway.issuer().token("agent");
    assert!(psql(&client_with(&gateway, "orders", &token), "select 1").0);
}
