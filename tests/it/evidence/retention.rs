//! Retention and holds, by the real binary: what is over goes, with a tombstone; what is held stays,
//! whatever happens to the database.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::client::{Client, Database, transcript, venv};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::http::curl;
use crate::support::postgres::PostgresServer;

const WEB: &str =
    "web = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";
const SECOND: &str = "[[retention]]\ntargets = [\"*\"]\nkeep = \"1s\"\n";

fn setup(policy: &str, index: &str) -> Setup {
    Setup {
        listen: WEB.to_owned(),
        policy: policy.to_owned(),
        database: Some(format!("url = {index:?}")),
        ..Setup::for_targets([Database::fresh().target("orders")])
    }
}

fn select(client: &Client, statement: &str) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    assert!(transcript(psql).0);
}

/// Runs a command on the gateway.
fn ask(gateway: &Gateway, arguments: &[&str]) -> Output {
    let config = gateway.configuration();
    portcullis(&[arguments, &["--config", config.to_str().unwrap()]].concat())
}

fn asked(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = ask(gateway, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The sessions in the index; none as long as the database is not ready.
fn sessions(gateway: &Gateway) -> Vec<Value> {
    let output = ask(gateway, &["session", "list", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn wait_for_sessions(gateway: &Gateway, count: usize) -> Vec<String> {
    let closed = |session: &&Value| session["closed_at"].is_string();
    wait_until("the sessions in the index", || {
        sessions(gateway).iter().filter(closed).count() == count
    });
    sessions(gateway).iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

/// Deletes until so many are gone; what each run said, summed up.
fn prune_until(gateway: &Gateway, count: u64) -> u64 {
    let (mut deleted, mut held) = (0, 0);
    wait_until("retention", || {
        let pruned = asked(gateway, &["recording", "prune"]);
        deleted += pruned["deleted"].as_u64().unwrap();
        held = held.max(pruned["held"].as_u64().unwrap());
        deleted >= count
    });
    assert_eq!(deleted, count);
    held
}

fn verified(gateway: &Gateway) -> Value {
    let key = gateway.data_dir().join("seal_ed25519.pub");
    let arguments = ["recording", "verify", "--all", "--public-key", key.to_str().unwrap()];
    let said = asked(gateway, &arguments);
    assert_eq!(said["proved"], serde_json::json!(["whole", "signed", "complete"]), "{said}");
    let second = Command::new(venv().join("bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify_recordings.py"))
        .arg("--public-key")
        .args([&key, gateway.data_dir()])
        .output()
        .unwrap();
    assert!(second.status.success(), "{}", told(&second));
    let second: Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(
        (&second["deleted"], &second["recordings"]),
        (&said["deleted"], &said["recordings"])
    );
    said
}

fn holds_beside(gateway: &Gateway) -> Vec<PathBuf> {
    let ends = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "hold");
    gateway.stored_files().into_iter().filter(ends).collect()
}

#[test]
fn what_is_over_goes_with_a_tombstone_and_its_rows() {
    let index = PostgresServer::fresh_index();
    let gateway = Gateway::start(&setup("[[retention]]\nkeep = \"30d\"\n", &index));
    for n in 0..3 {
        select(&gateway.client("orders"), &format!("select {n}"));
    }
    wait_for_sessions(&gateway, 3);
    let looked = asked(&gateway, &["recording", "prune", "--dry-run"]);
    assert_eq!((&looked["due"], &looked["deleted"]), (&0.into(), &0.into()));
    assert_eq!(asked(&gateway, &["recording", "prune"])["deleted"], 0);
    let before = gateway.recordings();

    assert!(gateway.reload(|text| text.replace("\"30d\"", "\"1s\"")).status.success());
    wait_until("the time of three to be over", || {
        asked(&gateway, &["recording", "prune", "--dry-run"])["due"] == 3
    });
    assert_eq!(gateway.recordings().len(), before.len(), "a dry run deletes nothing");
    prune_until(&gateway, 3);
    assert_eq!(gateway.recordings(), [] as [PathBuf; 0]);
    assert_eq!(sessions(&gateway), [] as [Value; 0]);
    let rows = |table: &str| {
        let said = PostgresServer::psql_at(&index, &format!("select count(*) from {table}"));
        said.trim().to_owned()
    };
    assert_eq!(["commands", "recordings", "retained"].map(rows), ["0", "0", "0"]);

    // The audit log says who and what, and the ledger proves it.
    let ledger = fs::read_to_string(gateway.data_dir().join("ledger")).unwrap();
    assert_eq!(ledger.matches("\"type\":\"tombstone\"").count(), 3);
    assert!(ledger.contains("\"keep_seconds\":1,"), "{ledger}");
    assert!(gateway.stop().success());
    let said = verified(&gateway);
    assert_eq!((&said["recordings"], &said["deleted"]), (&0.into(), &3.into()));
    assert_eq!(said["deleted_missing"], 0);
    let audit = PostgresServer::psql_at(
        &index,
        "select jsonb_array_length(detail->'sessions') from audit_log \
         where action = 'recording.prune' and detail ? 'sessions'",
    );
    assert_eq!(audit.split_whitespace().map(|n| n.parse::<u32>().unwrap()).sum::<u32>(), 3);

    // A recording that is gone without a tombstone is missed as before.
    let without = ledger.lines().filter(|line| !line.contains("tombstone")).count();
    let cut: Vec<_> = ledger.lines().take(without).collect();
    fs::write(gateway.data_dir().join("ledger"), cut.join("\n") + "\n").unwrap();
    let said = ask(&gateway, &["recording", "verify", "--all"]);
    assert_eq!(said.status.code(), Some(1), "{}", told(&said));
}

#[test]
fn an_index_made_anew_has_what_is_left_and_nothing_of_what_is_gone() {
    let gateway = {
        let mut gateway = Gateway::start(&setup(SECOND, &PostgresServer::fresh_index()));
        select(&gateway.client("orders"), "select 'over'");
        wait_for_sessions(&gateway, 1);
        prune_until(&gateway, 1);
        let index = PostgresServer::fresh_index();
        let other = format!("url = {index:?}");
        assert!(gateway.stop().success());
        let text = fs::read_to_string(gateway.configuration()).unwrap();
        let text: Vec<_> = text
            .lines()
            .map(|line| if line.starts_with("url = \"postgres") { other.as_str() } else { line })
            .filter(|line| !line.starts_with("keep"))
            .map(|line| line.replace("[[retention]]", "[[retention]]\nkeep = \"9d\""))
            .collect();
        fs::write(gateway.configuration(), text.join("\n")).unwrap();
        gateway.restart();
        gateway
    };
    select(&gateway.client("orders"), "select 'new'");
    wait_for_sessions(&gateway, 1);
    assert!(!gateway.daemon().log().contains("the index has no more"), "it is missed");
    assert!(gateway.stop().success());
    let said = verified(&gateway);
    assert_eq!((&said["recordings"], &said["deleted"]), (&1.into(), &1.into()));
}

#[test]
fn a_hold_beats_retention_until_an_admin_lifts_it() {
    let gateway = Gateway::start(&setup(SECOND, &PostgresServer::fresh_index()));
    select(&gateway.client("orders"), "select 'before the hold'");
    wait_for_sessions(&gateway, 1);
    let url = format!("http://{}/api/v1/holds", gateway.web());
    let body = r#"{"reason": "case 4711", "filter": {"user": "agent"}}"#;
    let post = |who: &str, method: &str, url: &str, body: &str| {
        let token = format!("Authorization: Bearer {}", gateway.issuer().token(who));
        let json = "Content-Type: application/json";
        curl(&["-X", method, "-H", &token, "-H", json, "-d", body, url])
    };
    for who in ["agent", "auditor", "stranger"] {
        assert_eq!(post(who, "POST", &url, body).status, 403, "{who}");
    }
    for bad in [
        r#"{"reason": "x"}"#,
        r#"{"reason": "x", "filter": {}}"#,
        r#"{"reason": " ", "filter": {"user": "a"}}"#,
        r#"{"reason": "x", "filter": {"usr": "a"}}"#,
        r#"{"filter": {"user": "a"}}"#,
    ] {
        assert_eq!(post("admin", "POST", &url, bad).status, 400, "{bad}");
    }
    let set = post("admin", "POST", &url, body);
    assert_eq!(set.status, 201, "{}", set.text());
    let id = set.json()["id"].as_str().unwrap().to_owned();

    // What comes later is held as well.
    select(&gateway.client("orders"), "select 'after it'");
    wait_for_sessions(&gateway, 2);
    wait_until("both to be due", || {
        let pruned = asked(&gateway, &["recording", "prune"]);
        assert_eq!(pruned["deleted"], 0);
        asked(&gateway, &["recording", "prune", "--dry-run"])["held"] == 2
    });
    assert_eq!(gateway.recordings().len(), 2);
    wait_until("holds beside the recordings", || holds_beside(&gateway).len() == 2);
    let beside: Value =
        serde_json::from_slice(&fs::read(&holds_beside(&gateway)[0]).unwrap()).unwrap();
    assert_eq!(
        (&beside[0]["id"], &beside[0]["reason"]),
        (&id.as_str().into(), &"case 4711".into())
    );

    let one = format!("{url}/{id}");
    for who in ["agent", "auditor", "stranger"] {
        assert_eq!(post(who, "DELETE", &one, "").status, 403, "{who}");
    }
    let listed = asked(&gateway, &["hold", "list"]);
    assert_eq!((&listed[0]["set_by"], listed.as_array().unwrap().len()), (&"admin".into(), 1));
    let lifted = asked(&gateway, &["hold", "lift", &id, "--reason", "the case is closed"]);
    assert!(lifted["lifted_by"].as_str().unwrap().starts_with("os:"), "{lifted}");
    assert_eq!(post("admin", "DELETE", &one, "").status, 409);
    wait_until("the holds to go", || holds_beside(&gateway).is_empty());
    prune_until(&gateway, 2);
    assert!(gateway.stop().success());
    verified(&gateway);
}

#[test]
fn a_hold_outlives_the_database_that_knew_it() {
    let mut gateway = Gateway::start(&setup(SECOND, &PostgresServer::fresh_index()));
    for statement in ["select 'held'", "select 'not'"] {
        select(&gateway.client("orders"), statement);
    }
    let ids = wait_for_sessions(&gateway, 2);
    let reason = ["--session", &ids[0], "--reason", "case 4712"];
    let hold = asked(&gateway, &[&["hold", "set"], &reason[..]].concat());
    wait_until("the hold beside the recording", || holds_beside(&gateway).len() == 1);
    assert!(gateway.stop().success());

    // Another database, empty.
    let text = fs::read_to_string(gateway.configuration()).unwrap();
    let other = format!("url = {:?}", PostgresServer::fresh_index());
    let changed: Vec<_> = text
        .lines()
        .map(|line| if line.starts_with("url = \"postgres") { other.as_str() } else { line })
        .collect();
    fs::write(gateway.configuration(), changed.join("\n")).unwrap();
    gateway.restart();
    wait_until("the other to go", || {
        ask(&gateway, &["recording", "prune"]);
        gateway.recordings().len() == 1
    });
    assert!(gateway.recordings()[0].to_str().unwrap().contains(&ids[0]));
    wait_until("the hold in the new database", || {
        asked(&gateway, &["hold", "list"])[0]["id"] == hold["id"]
    });
    assert_eq!(asked(&gateway, &["recording", "prune"])["deleted"], 0);
    asked(&gateway, &["hold", "lift", hold["id"].as_str().unwrap()]);
    prune_until(&gateway, 1);
    assert!(gateway.stop().success());
    verified(&gateway);
}

/// A clock that jumps ahead makes nothing old: not while the gateway runs, nor over a restart.
#[test]
fn a_clock_that_jumped_ahead_deletes_nothing() {
    let index = PostgresServer::fresh_index();
    let mut gateway = Gateway::start(&setup("[[retention]]\nkeep = \"1d\"\n", &index));
    select(&gateway.client("orders"), "select 1");
    wait_for_sessions(&gateway, 1);
    // As if the gateway had last gone by a time two days ago, and the session had ended then: by
    // today's clock its day is over.
    for statement in [
        "update retained set ended_at = now() - interval '2 days'",
        "insert into retention_clocks select gateway, now() - interval '2 days' from retained \
         on conflict (gateway) do update set at = excluded.at",
    ] {
        PostgresServer::psql_at(&index, statement);
    }
    assert!(gateway.stop().success());
    gateway.restart();
    wait_for_sessions(&gateway, 1);
    assert_eq!(asked(&gateway, &["recording", "prune"])["deleted"], 0);
    gateway.daemon().wait_for_log("the clock jumped ahead");
    assert_eq!(gateway.recordings().len(), 1);
    PostgresServer::psql_at(&index, "delete from retention_clocks");
    assert!(gateway.stop().success());
    gateway.restart();
    wait_until("the daemon to delete by itself", || gateway.recordings().is_empty());
}
