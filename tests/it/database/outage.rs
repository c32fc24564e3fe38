//! What clients and the index of a whole gateway go through while the database comes and goes.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use portcullis::database::Database;
use tokio_util::task::TaskTracker;

use crate::support::client;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::amount;

/// pgbench until it is ended; what it complains of is kept.
fn load(gateway: &Gateway, more: &[&str]) -> Child {
    let mut pgbench = gateway.client("orders").postgres_program("pgbench");
    let script = client::clients_folder().join("load.pgbench");
    pgbench.args(["-n", "-T", "3600", "-c", "2", "-f"]).arg(script).args(more);
    pgbench.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Ends it; panics when any of its sessions failed.
fn end(mut load: Child) {
    assert!(load.try_wait().unwrap().is_none(), "the load ended by itself");
    load.kill().unwrap();
    let output = load.wait_with_output().unwrap();
    assert_eq!(told(&output), "", "a session failed");
}

fn stored(gateway: &Gateway) -> u64 {
    let sizes = gateway.recordings().into_iter().map(|path| path.metadata().map_or(0, |m| m.len()));
    sizes.sum()
}

/// Waits until the recordings have grown by that much, so that each state sees some load.
fn grown(gateway: &Gateway) {
    const ENOUGH: u64 = 100 << 10;
    let before = stored(gateway);
    wait_until("more recordings", || stored(gateway) > before + ENOUGH);
}

/// Panics unless the index is what one made anew from the recordings would be.
async fn equals_a_fresh_one(database: &Database, configuration: &Path) {
    let before = database.index_digest().await.unwrap();
    let config = configuration.to_str().unwrap();
    let made = portcullis(&["recording", "reindex", "--config", config]);
    assert!(made.status.success(), "{}", told(&made));
    assert_eq!(database.index_digest().await.unwrap(), before);
    assert!(before.iter().all(|(rows, _)| *rows > 0), "{before:?}");
}

#[tokio::test]
async fn under_load_no_session_fails_and_the_index_is_whole_afterwards() {
    let index = PostgresServer::start(&Options::default());
    index.superuser_psql("create database index");
    let orders = client::Database::fresh();
    orders.client().psql().args(["-c", "create table load (n int8)"]).status().unwrap();
    let url = index.url("index");
    let mut gateway = Gateway::start(&Setup {
        database: Some(format!("url = {url:?}")),
        ..Setup::for_targets([orders.target("orders")])
    });
    // Sessions that stay, and sessions that come and go.
    let loads = [load(&gateway, &["-M", "extended"]), load(&gateway, &["-C"])];
    grown(&gateway);
    index.stop();
    grown(&gateway);
    index.restart();
    grown(&gateway);
    index.kill();
    grown(&gateway);
    index.restart();
    index.superuser_psql("drop database index with (force)");
    index.superuser_psql("create database index");
    grown(&gateway);
    loads.into_iter().for_each(end);
    assert!(gateway.stop().success());
    // What a stop left for later, the next start indexes.
    let database = Database::from_url(&url).unwrap();
    let recordings = gateway.recordings().len();
    gateway.restart();
    wait_until("tables in the new database", || {
        index.psql("index", "select to_regclass('recordings')") == "recordings"
    });
    wait_until("all recordings in the index", || {
        let indexed = index.psql("index", "select count(*) from recordings where sealed");
        indexed.parse::<usize>().is_ok_and(|indexed| indexed >= recordings)
    });
    assert!(gateway.stop().success());
    equals_a_fresh_one(&database, &gateway.configuration()).await;
}

#[tokio::test]
async fn a_stop_waits_only_so_long_for_a_database_that_is_locked() {
    let url = PostgresServer::fresh_index();
    let orders = client::Database::fresh();
    let gateway = Gateway::start(&Setup {
        database: Some(format!("url = {url:?}")),
        ..Setup::for_targets([orders.target("orders")])
    });
    gateway.daemon().wait_for_log("database migrated");
    let (locker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    TaskTracker::new().spawn(connection);
    locker.batch_execute("begin; lock table commands in access exclusive mode").await.unwrap();
    let select = gateway.client("orders").psql().args(["-c", "select 1"]).output().unwrap();
    assert!(select.status.success());
    let waits = "select exists (select from pg_locks where not granted
        and relation = 'commands'::regclass and database =
        (select oid from pg_database where datname = current_database()))";
    while !locker.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    assert!(gateway.stop().success());
    // Of a minute that the index itself would wait.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// How often the gateway with its private server is killed.
fn rounds() -> usize {
    amount("PORTCULLIS_PRIVATE_KILL_ROUNDS", 4)
}

#[test]
fn killed_with_its_private_server_running_the_next_start_recovers_both() {
    let orders = client::Database::fresh();
    orders.client().psql().args(["-c", "create table load (n int8)"]).status().unwrap();
    let mut gateway = Gateway::start(&Setup {
        database: Some(String::new()),
        ..Setup::for_targets([orders.target("orders")])
    });
    for round in 0..rounds() {
        let mut pgbench = load(&gateway, &[]);
        grown(&gateway);
        gateway.daemon().kill9();
        pgbench.wait().unwrap();
        gateway.restart();
        let marker = format!("select 'after kill {round}'");
        let mut psql = gateway.client("orders").psql();
        assert!(psql.args(["-c", &marker]).output().unwrap().status.success(), "round {round}");
    }
    let config = gateway.configuration();
    let config = config.to_str().unwrap();
    let sessions = || {
        let listed =
            portcullis(&["session", "list", "--json", "--limit", "1000", "--config", config]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        listed.as_array().map_or(0, Vec::len)
    };
    let recorded = gateway.recordings().len();
    assert!(recorded >= 3 * rounds(), "of each round two sessions of the load and one of psql");
    wait_until("all sessions in the index", || sessions() == recorded);
    assert!(gateway.stop().success());
    let made = portcullis(&["recording", "reindex", "--config", config]);
    assert!(made.status.success(), "{}", told(&made));
    gateway.verify_all();
}
