//! Commands that wait for people, with the clients that people use.

use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    OpenSession, ask, ask_with, client_with, command, gateways, psql, setup, wait_for_state,
};
use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::{Random, amount};

/// UPDATE and DELETE wait.
pub const RULES: &str = r#"
[[rule]]
name = "writes-need-a-human"
actions = ["sql.update", "sql.delete"]
verdict = "approve"
approvers = ["dba"]
timeout = "60s"
reason = "Writes are looked at."
"#;

/// A database with a table, and a gateway that holds its writes.
pub fn started(rules: &str) -> (Database, Gateway) {
    let database = with_pears();
    let gateway = Gateway::start(&Setup { policy: rules.to_owned(), ..setup(&database) });
    wait_for_state(&gateway);
    (database, gateway)
}

fn with_pears() -> Database {
    let database = Database::fresh();
    let (ok, said) =
        psql(&database.client(), "create table pears (n int); insert into pears values (0)");
    assert!(ok, "{said}");
    database
}

/// What the table holds, asked past the gateway.
pub fn pears(database: &Database) -> String {
    psql(&database.client(), "select n from pears").1.trim().to_owned()
}

/// Starts a program, which will wait.
pub fn start(command: Command) -> JoinHandle<(bool, String)> {
    thread::spawn(move || transcript(command))
}

pub fn start_psql(client: &Client, statements: &[&str]) -> JoinHandle<(bool, String)> {
    let mut psql = client.psql();
    for statement in statements {
        psql.args(["-c", statement]);
    }
    start(psql)
}

/// The one request that waits, once there is one.
pub fn pending(gateway: &Gateway) -> Value {
    let mut found = Value::Null;
    let token = gateway.issuer().token("anna");
    wait_until("a request", || {
        let (status, page) = ask_with(gateway, &token, "GET", "/approvals?state=pending", "");
        assert_eq!(status, 200, "{page}");
        found = page["items"][0].clone();
        !found.is_null()
    });
    found
}

pub fn id(request: &Value) -> String {
    request["id"].as_str().unwrap().to_owned()
}

pub fn decide(gateway: &Gateway, who: &str, request: &Value, word: &str) -> (u16, Value) {
    let body = r#"{"comment": "I looked"}"#;
    ask(gateway, who, "POST", &format!("/approvals/{}/{word}", id(request)), body)
}

pub fn state(gateway: &Gateway, request: &Value) -> Value {
    ask(gateway, "anna", "GET", &format!("/approvals/{}", id(request)), "").1
}

#[test]
fn psql_waits_is_told_where_and_the_command_runs_once() {
    let (database, gateway) = started(RULES);
    let client = gateway.client("orders");
    let waiting = start_psql(&client, &["update pears set n = n + 1 where n < 100", "select 'on'"]);
    let request = pending(&gateway);
    assert_eq!(request["command"]["text"], "update pears set n = n + 1 where n < 100");
    assert_eq!(request["visible_text"], request["command"]["text"]);
    assert_eq!((&request["username"], &request["target"]), (&"agent".into(), &"orders".into()));
    assert_eq!(request["needs"][0]["approvers"][0], "dba");
    assert_eq!(request["yours_to_decide"], true);
    assert_eq!(pears(&database), "0", "it ran before anybody decided");

    let (status, decided) = decide(&gateway, "anna", &request, "approve");
    assert_eq!((status, &decided["state"]), (200, &"approved".into()), "{decided}");
    let (ok, said) = waiting.join().unwrap();
    assert!(ok && said.ends_with("on\n"), "{said}");
    assert!(said.contains("NOTICE:  the command waits for approval"), "{said}");
    assert!(said.contains(&format!("request {}", id(&request))), "{said}");
    assert_eq!(pears(&database), "1");
    assert_eq!(state(&gateway, &request)["state"], "consumed");
    // Neither a second word nor a GET makes it run again.
    assert_eq!(decide(&gateway, "bert", &request, "approve").0, 409);
    assert_eq!(pears(&database), "1");

    wait_until("the command in the index", || {
        let (_, page) = ask(&gateway, "auditor", "GET", "/commands?verdict=approve", "");
        let row = &page["items"][0];
        row["overridden"] == "approval"
            && row["overridden_rules"][0] == "writes-need-a-human"
            && row["status"] == "UPDATE 1"
    });
    let (_, log) = ask(&gateway, "auditor", "GET", "/audit?text=approval.", "");
    let log = log["items"].as_array().unwrap().clone();
    let line = |user: &str, action: &str, outcome: &str| {
        log.iter().any(|entry| {
            entry["username"] == user && entry["action"] == action && entry["outcome"] == outcome
        })
    };
    assert!(
        line("anna", "approval.approve", "done") && line("bert", "approval.approve", "refused")
    );
    assert!(gateway.stop().success());
    gateway.verify_all();
    let recorded = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    for step in [r#""step":"asked""#, r#""step":"released""#, r#""username":"anna""#, "I looked"] {
        assert!(recorded.contains(step), "{step}");
    }
}

#[test]
fn what_is_denied_does_not_run_and_the_session_goes_on() {
    let (database, gateway) = started(RULES);
    let client = gateway.client("orders");
    let waiting = start_psql(
        &client,
        &["begin", "\\set ON_ERROR_STOP off", "delete from pears", "rollback", "select 'on'"],
    );
    let request = pending(&gateway);
    assert_eq!(decide(&gateway, "anna", &request, "deny").1["state"], "denied");
    let (_, said) = waiting.join().unwrap();
    assert!(
        said.contains("the command was not approved: denied by anna: I looked. Writes are"),
        "{said}"
    );
    assert!(said.ends_with("on\n"), "{said}");
    assert_eq!(pears(&database), "0");
    assert_eq!(decide(&gateway, "bert", &request, "approve").0, 409);
}

#[test]
fn a_word_counts_once_from_the_groups_named_and_never_from_who_asked() {
    let rules = RULES.replace("approvers", "approvals = 2\napprovers");
    let (database, gateway) = started(&rules);
    // Bert is in the groups of both sides.
    let token = gateway.issuer().token("bert");
    let own = start_psql(&client_with(&gateway, "orders", &token), &["delete from pears"]);
    let request = pending(&gateway);
    for (who, word, status) in [
        ("bert", "approve", 403),
        ("bert", "deny", 403),
        ("agent", "approve", 404),
        ("stranger", "approve", 404),
        ("auditor", "approve", 403),
        ("admin", "approve", 403),
        ("anna", "approve", 200),
        ("anna", "approve", 409),
    ] {
        let (given, answer) = decide(&gateway, who, &request, word);
        assert_eq!(given, status, "{who} {word}: {answer}");
    }
    assert_eq!(state(&gateway, &request)["state"], "pending", "one of two is not enough");
    assert_eq!(
        ask(&gateway, "stranger", "GET", "/approvals", "").1["items"],
        serde_json::json!([])
    );
    // Who asked may look at it; the approver who has spoken has nothing left to decide.
    let (_, seen) = ask(&gateway, "bert", "GET", &format!("/approvals/{}", id(&request)), "");
    assert_eq!(seen["yours_to_decide"], false);
    assert_eq!(state(&gateway, &request)["yours_to_decide"], false);
    assert_eq!(decide(&gateway, "anna", &serde_json::json!({"id": "0"}), "approve").0, 404);
    drop(own);

    let by_agent = start_psql(&gateway.client("orders"), &["update pears set n = 7"]);
    let mut second = Value::Null;
    wait_until("the second request", || {
        second = pending(&gateway);
        second["username"] == "agent"
    });
    // Both at once.
    thread::scope(|scope| {
        for who in ["anna", "bert"] {
            let (gateway, second) = (&gateway, &second);
            scope.spawn(move || assert_eq!(decide(gateway, who, second, "approve").0, 200));
        }
    });
    assert!(by_agent.join().unwrap().0);
    assert_eq!(pears(&database), "7");
}

/// One person under the same name of two issuers is one person.
#[test]
fn another_account_of_the_same_person_does_not_decide() {
    let database = with_pears();
    let other = Issuer::start(3600);
    let issuer = format!(
        "[[issuer]]\nname = \"other\"\nurl = {:?}\naudiences = [\"portcullis\"]\n",
        other.url()
    );
    let rules = RULES.replace("approvers", "approvals = 2\napprovers");
    let gateway = Gateway::start(&Setup { policy: format!("{issuer}{rules}"), ..setup(&database) });
    wait_for_state(&gateway);
    let token = gateway.issuer().token("bert");
    let asked =
        start_psql(&client_with(&gateway, "orders", &token), &["update pears set n = n + 1"]);
    let request = pending(&gateway);
    let path = format!("/approvals/{}/approve", id(&request));
    let say = |token: &str| ask_with(&gateway, token, "POST", &path, "").0;
    assert_eq!(say(&gateway.issuer().token("bert")), 403, "another token of who asked");
    assert_eq!(say(&other.token("bert")), 403, "who asked, by another issuer");
    assert_eq!(say(&other.token("anna")), 200);
    assert_eq!(say(&gateway.issuer().token("anna")), 409, "who has spoken, by another issuer");
    assert_eq!(pears(&database), "0");
    assert_eq!(decide(&gateway, "anna", &request, "deny").0, 409, "nor does she take it back");
    drop(gateway);
    assert!(!asked.join().unwrap().0);
}

#[test]
fn a_request_ends_with_its_time_and_with_its_client() {
    let (database, gateway) = started(&RULES.replace("60s", "2s"));
    let (ok, said) = psql(&gateway.client("orders"), "delete from pears");
    assert!(!ok && said.contains("nobody approved it in time"), "{said}");

    let mut program = gateway.client("orders").psql();
    program.args(["-c", "delete from pears"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut gone = program.spawn().unwrap();
    let request = pending(&gateway);
    gone.kill().unwrap();
    gone.wait().unwrap();
    wait_until("the request to end", || state(&gateway, &request)["state"] == "expired");
    assert_eq!(state(&gateway, &request)["note"], "the session ended");
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 409);
    assert_eq!(pears(&database), "0");
}

#[test]
fn a_cancel_ends_the_wait_and_the_session_goes_on() {
    let (database, gateway) = started(RULES);
    let mut program = gateway.client("orders").psql();
    program.args(["-v", "VERBOSITY=verbose", "-c", "delete from pears"]);
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let psql = program.spawn().unwrap();
    let request = pending(&gateway);
    // As Ctrl-C does.
    kill_process(Pid::from_child(&psql), Signal::INT).unwrap();
    let output = psql.wait_with_output().unwrap();
    let said = crate::support::gateway::told(&output);
    assert!(said.contains("57014") && said.contains("canceling statement"), "{said}");
    wait_until("the request to end", || {
        state(&gateway, &request)["note"] == "the client cancelled"
    });
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 409);
    let session = OpenSession::open(&gateway.client("orders"));
    let cancel = session.client.cancel_token();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| session.query("delete from pears"));
        pending(&gateway);
        session.runtime.block_on(cancel.cancel_query(tokio_postgres::NoTls)).unwrap();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("57014"));
    });
    session.query("select 'on'").unwrap();
    assert_eq!(pears(&database), "0");
}

#[test]
fn python_drivers_wait_with_their_values_shown_and_go_on_after_a_no() {
    let (database, gateway) = started(RULES);
    for driver in ["psycopg", "sqlalchemy"] {
        for word in ["approve", "deny"] {
            let mut program = gateway.client("orders").python("held.py");
            program.arg(driver);
            let waiting = start(program);
            let request = pending(&gateway);
            let text = request["visible_text"].as_str().unwrap();
            assert!(text.starts_with("update pears set n = n + $1"), "{text}");
            let values = request["command"]["attributes"]["parameters"].to_string();
            assert!(
                values.contains('1') && values.contains("100") || values.contains("64"),
                "{values}"
            );
            let effects = request["command"]["effects"].as_array().unwrap();
            assert!(effects.iter().any(|effect| effect["action"] == "sql.update"), "{request}");
            assert_eq!(decide(&gateway, "anna", &request, word).0, 200);
            let (ok, said) = waiting.join().unwrap();
            let came = if word == "approve" {
                "changed 1\n"
            } else {
                "refused 42501 the command was not approved: denied by anna"
            };
            assert!(ok && said.contains(came) && said.ends_with("then 7\n"), "{driver}: {said}");
        }
    }
    assert_eq!(pears(&database), "2");
}

#[test]
fn a_pipeline_keeps_its_order_and_a_no_skips_to_its_sync() {
    let (database, gateway) = started(RULES);
    let server = &PostgresServer::shared().server;
    for (word, came) in [
        ("approve", "changed 1\nselected 5\n"),
        ("deny", "refused 42501 the command was not approved: denied by anna"),
    ] {
        let marker = format!("behind_{word}_{}", database.name);
        let mut program = gateway.client("orders").python("held.py");
        program.args(["pipeline", &marker]);
        let waiting = start(program);
        let request = pending(&gateway);
        assert!(!server.log_text().contains(&marker), "what is behind ran before it was decided");
        assert_eq!(decide(&gateway, "anna", &request, word).0, 200);
        let (ok, said) = waiting.join().unwrap();
        assert!(ok && said.contains(came) && said.ends_with("then 7\n"), "{said}");
        assert_eq!(
            server.log_text().contains(&format!("execute <unnamed>: /* {marker}")),
            word == "approve"
        );
    }
    assert_eq!(pears(&database), "1");
}

#[test]
fn in_a_transaction_that_has_done_something_the_wait_is_short() {
    let rules = format!("[policy]\ntransaction_wait = \"1s\"\n{RULES}");
    let (database, gateway) = started(&rules);
    let client = gateway.client("orders");
    let began = Instant::now();
    let (ok, said) = psql(&client, "begin");
    assert!(ok, "{said}");
    let held =
        ["begin", "set local work_mem = '1MB'", "select n from pears", "update pears set n = 5"];
    let mut program = client.psql();
    program.args(held.iter().flat_map(|statement| ["-c", *statement]));
    let (ok, said) = transcript(program);
    assert!(!ok && said.contains("in the time that a transaction may wait"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20));

    // Behind BEGIN and SET alone nothing is held up.
    let waiting = start_psql(
        &client,
        &["begin", "set local work_mem = '1MB'", "update pears set n = 5", "commit"],
    );
    let request = pending(&gateway);
    // Longer than `transaction_wait`: that nothing happens is what is waited for.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
    let (ok, said) = waiting.join().unwrap();
    assert!(ok, "{said}");
    assert_eq!(pears(&database), "5");
}

#[test]
fn what_one_gateway_holds_another_lets_go_within_two_seconds() {
    let database = with_pears();
    let [first, second] = gateways(&database, "", RULES);
    let waiting = start_psql(&first.client("orders"), &["update pears set n = 3"]);
    let request = pending(&second);
    assert_eq!(decide(&second, "anna", &request, "approve").0, 200);
    let decided = Instant::now();
    let (ok, said) = waiting.join().unwrap();
    assert!(ok && decided.elapsed() < Duration::from_secs(2), "{:?} {said}", decided.elapsed());
    assert_eq!(pears(&database), "3");
}

#[test]
fn rules_that_got_stricter_while_it_waited_stop_it() {
    let (database, gateway) = started(RULES);
    let changes = [
        RULES
            .replace("\"approve\"", "\"block\"")
            .lines()
            .filter(|line| !line.starts_with("approvers") && !line.starts_with("timeout"))
            .collect::<Vec<_>>()
            .join("\n"),
        RULES.replace("approvers", "approvals = 2\napprovers"),
        RULES.replace("[\"dba\"]", "[\"others\"]"),
    ];
    for changed in changes {
        let waiting = start_psql(&gateway.client("orders"), &["update pears set n = 9"]);
        let request = pending(&gateway);
        let reloaded = gateway.reload(|text| text.replace(RULES, &changed));
        assert!(reloaded.status.success(), "{}", crate::support::gateway::told(&reloaded));
        assert_eq!(decide(&gateway, "anna", &request, "approve").0, 200);
        let (ok, said) = waiting.join().unwrap();
        assert!(!ok && said.contains("the rules changed while it waited"), "{said}");
        wait_until("the request to end", || state(&gateway, &request)["state"] == "expired");
        assert!(gateway.reload(|text| text.replace(&changed, RULES)).status.success());
    }
    assert_eq!(pears(&database), "0");
}

#[test]
fn a_gateway_that_was_killed_has_given_up_what_it_held() {
    let (database, mut gateway) = started(RULES);
    let waiting = start_psql(&gateway.client("orders"), &["delete from pears"]);
    let request = pending(&gateway);
    gateway.daemon().kill9();
    assert!(!waiting.join().unwrap().0);
    gateway.restart();
    wait_for_state(&gateway);
    assert_eq!(state(&gateway, &request)["note"], "the gateway was restarted");
    assert_eq!(decide(&gateway, "anna", &request, "approve").0, 409);
    assert_eq!(pears(&database), "0");
}

#[test]
fn who_decides_sees_what_a_text_would_hide() {
    let (_database, gateway) = started(RULES);
    let flood = "\u{300}".repeat(6);
    let hidden = format!(
        "update pears set n = 1 where 'a\u{202e}0 = n\u{200b} p\u{430}y\rroll \
         a{flood}\u{e0041}' <> ''"
    );
    let waiting = start_psql(&gateway.client("orders"), &[&hidden]);
    let request = pending(&gateway);
    let text = request["visible_text"].as_str().unwrap();
    let (few, many) = ("\u{300}".repeat(4), "\\u{300}".repeat(2));
    assert_eq!(
        text,
        format!(
            "update pears set n = 1 where 'a\\u{{202e}}0 = n\\u{{200b}} p\\u{{430}}y\\u{{d}}roll \
             a{few}{many}\\u{{e0041}}' <> ''"
        )
    );
    let cautions = request["cautions"].to_string();
    for what in ["3 invisible", "3 letters of other alphabets", "1 control"] {
        assert!(cautions.contains(what), "{cautions}");
    }
    // Beside the text stand what it does, as it was read, and the hash of the very bytes.
    let effects = request["command"]["effects"].to_string();
    assert!(effects.contains("sql.update") && effects.contains("table:?.pears"), "{effects}");
    assert_eq!(request["exact"].as_str().unwrap().len(), 64);
    let (ok, shown) = command(&gateway, "anna", &["approval", "show", &id(&request)]);
    assert!(ok && shown.contains("\\u{202e}") && !shown.contains('\u{202e}'), "{shown}");
    assert!(shown.contains("1 of dba (rule writes-need-a-human)"), "{shown}");
    let (ok, list) = command(&gateway, "anna", &["approval", "list"]);
    assert!(ok && list.contains(&id(&request)) && list.contains("\\u{202e}"), "{list}");
    let arguments = ["approval", "deny", &id(&request), "--comment", "what is this?"];
    let (ok, said) = command(&gateway, "anna", &arguments);
    assert!(ok && said.contains("is denied"), "{said}");
    let (_, said) = waiting.join().unwrap();
    assert!(said.contains("denied by anna: what is this?"), "{said}");
}

/// Whenever either gateway dies, a command that waits runs at most once, and never unapproved.
#[test]
fn kills_at_random_moments_let_nothing_run_twice_or_unapproved() {
    let database = with_pears();
    let [mut first, mut second] = gateways(&database, "", RULES);
    let mut random = Random::seeded();
    for round in 1..=amount("PORTCULLIS_HOLD_KILL_ROUNDS", 8) {
        let row = round.to_string();
        psql(&database.client(), &format!("insert into pears values ({row}000)"));
        let update = format!("update pears set n = n + 1 where n / 1000 = {row}");
        let waiting = start_psql(&first.client("orders"), &[&update]);
        let request = pending(&second);
        let token = second.issuer().token("anna");
        let path = format!("/approvals/{}/approve", id(&request));
        let approves = random.below(4) > 0;
        thread::scope(|scope| {
            if approves {
                let second = &second;
                scope.spawn(move || try_ask(second, &token, &path));
            }
            thread::sleep(Duration::from_micros(random.below(40_000) as u64));
            if random.below(2) == 0 { &first } else { &second }.daemon().kill9();
        });
        for gateway in [&mut first, &mut second] {
            if !gateway.daemon().is_alive() {
                gateway.restart();
                wait_for_state(gateway);
            }
        }
        // The one that was not killed may still hold it.
        let stands = || state(&second, &request)["state"].clone();
        if stands() == "pending" {
            decide(&second, "anna", &request, "deny");
        }
        waiting.join().unwrap();
        wait_until("the request to end", || {
            ["consumed", "denied", "expired"].contains(&stands().as_str().unwrap())
        });
        let ran =
            psql(&database.client(), &format!("select n % 1000 from pears where n / 1000 = {row}"))
                .1;
        match ran.trim() {
            "0" => {}
            "1" => assert!(approves && stands() == "consumed", "round {round}: {}", stands()),
            other => panic!("round {round}: it ran {other} times"),
        }
    }
}

/// Asks a gateway that may die meanwhile.
fn try_ask(gateway: &Gateway, token: &str, path: &str) {
    let _gone = std::panic::catch_unwind(|| ask_with(gateway, token, "POST", path, ""));
}

/// Run by hand: `cargo test --release many_commands_wait_at_once -- --ignored --nocapture`.
#[test]
#[ignore = "measures; needs a thousand server processes"]
fn many_commands_wait_at_once() {
    let count = amount("PORTCULLIS_HELD", 1000);
    let server = PostgresServer::start(&Options {
        settings: vec![("max_connections".to_owned(), (count + 50).to_string())],
        ..Options::default()
    });
    let database = Database::on(&server);
    assert!(psql(&database.client(), "create table pears (n int); insert into pears values (0)").0);
    let gateway =
        Gateway::start(&Setup { policy: RULES.replace("60s", "30m"), ..setup(&database) });
    wait_for_state(&gateway);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = gateway.client("orders").tokio_postgres();
    let connect = async || {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        runtime.spawn(connection);
        client
    };
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(runtime.block_on(connect()));
    }
    let before = gateway.daemon().resident();
    let runs: Vec<_> = clients
        .into_iter()
        .map(|client| {
            runtime.spawn(
                async move { client.simple_query("update pears set n = n + 1").await.is_ok() },
            )
        })
        .collect();
    let admin = gateway.issuer().token("anna");
    let mut ids = Vec::new();
    wait_until("all to wait", || {
        ids.clear();
        let mut cursor = String::new();
        loop {
            let path = format!("/approvals?state=pending&limit=1000{cursor}");
            let (_, page) = ask_with(&gateway, &admin, "GET", &path, "");
            ids.extend(page["items"].as_array().unwrap().iter().map(id));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        ids.len() == count
    });
    let each = (gateway.daemon().resident().saturating_sub(before)) / count as u64;
    let began = Instant::now();
    for id in &ids {
        let path = format!("/approvals/{id}/approve");
        assert_eq!(ask_with(&gateway, &admin, "POST", &path, "").0, 200);
    }
    for run in runs {
        assert!(runtime.block_on(run).unwrap());
    }
    assert_eq!(pears(&database), count.to_string());
    println!(
        "{count} commands held: {each} bytes each beside their sessions ({} MiB resident); \
         {:?} a decision",
        before >> 20,
        began.elapsed() / u32::try_from(count).unwrap()
    );
}
