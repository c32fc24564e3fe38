//! Checkpoints with a witness: what the owner of disk, key and database does to the history shows.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis::recording::rotate_key;
use serde_json::Value;

use super::set;
use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::{PORTCULLIS, wait_until};
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::http::{App, curl};

fn select(client: &Client, statement: &str) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    assert!(transcript(psql).0);
}

fn verify(data_dir: &Path, witness: &str, environment: &[(String, String)]) -> Output {
    Command::new(PORTCULLIS)
        .args(["recording", "verify", "--all", "--json", "--data-dir"])
        .arg(data_dir)
        .args(["--witness", witness])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn proved(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", told(output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["proved"].as_array().unwrap().clone()
}

/// Two sessions, each with a checkpoint behind it; what was there after the first is kept aside.
fn history(witness: &str, environment: &[(String, String)], mut check: impl FnMut(&Path, &Path)) {
    let mut gateway = Gateway::start(&Setup {
        recording: format!("witness = {witness:?}"),
        environment: environment.to_vec(),
        ..Setup::for_targets([Database::fresh().target("orders")])
    });
    select(&gateway.client("orders"), "select 'first'");
    assert!(gateway.stop().success());
    let aside = tempfile::tempdir().unwrap();
    let before = aside.path().join("before");
    copy(gateway.data_dir(), &before);
    gateway.restart();
    select(&gateway.client("orders"), "select 'second'");
    assert!(gateway.stop().success());
    check(gateway.data_dir(), &before);
}

fn copy(from: &Path, to: &Path) {
    // The admin socket is gone with the gateway.
    set::copy(from, to);
}

#[test]
fn a_webhook_knows_a_tail_that_was_cut_and_a_history_that_was_made_anew() {
    let kept = App::run("witness.py", &[]);
    let witness = format!("http://127.0.0.1:{}/portcullis", kept.port);
    history(&witness, &[], |data_dir, before| {
        let checkpoints = curl(&[&witness]).text();
        let lines: Vec<Value> =
            checkpoints.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() >= 2, "{checkpoints}");
        let last = lines.last().unwrap();
        // What it has is the ledger's own signed line.
        let ledger = fs::read_to_string(data_dir.join("ledger")).unwrap();
        assert_eq!(ledger.lines().last(), last["line"].as_str());
        let said = proved(&verify(data_dir, &witness, &[]));
        assert!(said.contains(&"anchored".into()), "{said:?}");

        // As a file of what the webhook got.
        let file = data_dir.with_file_name("checkpoints.jsonl");
        fs::write(&file, &checkpoints).unwrap();
        assert!(
            proved(&verify(data_dir, file.to_str().unwrap(), &[])).contains(&"anchored".into())
        );

        // Yesterday's copy is whole and complete by itself, and not what the witness knows.
        let output = verify(before, &witness, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains("its end was cut, or an older copy was put back"));

        // With the key, a new history can be written behind an old one: it is as long, and another.
        let key = before.join("seal_ed25519");
        for _ in 0..20 {
            rotate_key(before, &key, false).unwrap();
        }
        let output = verify(before, &witness, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains("its history was written anew"), "{}", told(&output));

        // A witness that knows nothing of this ledger proves nothing.
        fs::write(&file, "").unwrap();
        let output = verify(data_dir, file.to_str().unwrap(), &[]);
        assert!(told(&output).contains("has no checkpoint"), "{}", told(&output));
    });
}

#[test]
fn a_bucket_is_a_witness_as_well() {
    let bucket = App::run("s3.py", &[]);
    let environment: Vec<_> = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", bucket.port)),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let witness = "s3://recordings/witness";
    history(witness, &environment, |data_dir, before| {
        let said = proved(&verify(data_dir, witness, &environment));
        assert!(said.contains(&"anchored".into()), "{said:?}");
        let output = verify(before, witness, &environment);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    });
}

/// A witness that is away delays nothing, and gets the last checkpoint when it is back.
#[test]
fn a_witness_that_is_away_is_told_later() {
    let kept = App::run("witness.py", &[]);
    let proxy = crate::support::faults::Proxy::to(kept.port);
    proxy.fail(crate::support::faults::Fault::Refuse);
    let witness = format!("http://{}/portcullis", proxy.address);
    let gateway = Gateway::start(&Setup {
        recording: format!("witness = {witness:?}"),
        ..Setup::for_targets([Database::fresh().target("orders")])
    });
    select(&gateway.client("orders"), "select 'while it is away'");
    gateway.daemon().wait_for_log("checkpoints wait for the witness");
    proxy.fail(crate::support::faults::Fault::None);
    wait_until("the checkpoint", || !curl(&[&witness]).text().is_empty());
    assert!(gateway.stop().success());
    assert!(proved(&verify(gateway.data_dir(), &witness, &[])).contains(&"anchored".into()));
}
