//! The private server: made, stopped, found again, never two.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis::database::{PrivateServer, PrivateServerError};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Names the data directory in which the test `a_gateway_that_is_killed` runs as a gateway.
const AS_GATEWAY: &str = "PORTCULLIS_TEST_PRIVATE_SERVER";

fn postmaster(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}

fn alive(pid: Pid) -> bool {
    // A zombie has no working directory.
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

async fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn sql(server: &PrivateServer, sql: &'static str) -> Option<String> {
    let mut connection = server.connect_options().connect().await.unwrap();
    let row: Option<String> = match sql.starts_with("select") {
        true => sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap(),
        false => {
            connection.execute(sql).await.unwrap();
            None
        }
    };
    connection.close().await.unwrap();
    row
}

#[tokio::test]
async fn the_private_server_keeps_its_data_over_stops_and_kills() {
    let folder = TempDir::new().unwrap();
    let server = PrivateServer::start(folder.path()).await.unwrap();
    sql(&server, "create table kept (n int)").await;
    let user = sql(&server, "select current_user::text").await.unwrap();
    let superuser =
        sql(&server, "select rolsuper::text from pg_roles where rolname = current_user").await;
    assert_eq!((user.as_str(), superuser.as_deref()), ("portcullis", Some("false")));
    let first = postmaster(folder.path()).unwrap();
    server.stop().await;
    assert!(!alive(first));

    // Running: kept going by `run` when somebody kills it, stopped when cancelled.
    let server = PrivateServer::start(folder.path()).await.unwrap();
    let options = server.connect_options();
    let cancel = CancellationToken::new();
    let tracker = tokio_util::task::TaskTracker::new();
    let running = tracker.spawn(server.run(cancel.clone()));
    let second = postmaster(folder.path()).unwrap();
    kill_process(second, Signal::KILL).unwrap();
    wait("another server", || postmaster(folder.path()).is_some_and(|p| p != second && alive(p)))
        .await;
    let started = Instant::now();
    let mut connection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    connection.execute("insert into kept values (1)").await.unwrap();
    let third = postmaster(folder.path()).unwrap();
    cancel.cancel();
    running.await.unwrap();
    assert!(!alive(third) && postmaster(folder.path()).is_none());
}

#[tokio::test]
async fn a_stale_process_number_that_another_process_has_now_is_no_server() {
    let folder = TempDir::new().unwrap();
    PrivateServer::start(folder.path()).await.unwrap().stop().await;
    let mut other = Command::new("sleep");
    let data = folder.path().join("postgres/data");
    let owner = {
        use std::os::unix::fs::MetadataExt as _;
        data.metadata().unwrap().uid()
    };
    let mut other = other.arg("600").uid(owner).spawn().unwrap();
    fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", other.id(), data.display()))
        .unwrap();
    let server = PrivateServer::start(folder.path()).await.unwrap();
    assert_eq!(sql(&server, "select 'there'").await.as_deref(), Some("there"));
    assert!(other.try_wait().unwrap().is_none(), "the other process was harmed");
    other.kill().unwrap();
    other.wait().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn data_of_another_version_and_no_data_at_all_are_told_apart_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("postgres/data");
    fs::create_dir_all(&data).unwrap();
    let error = PrivateServer::start(folder.path()).await.unwrap_err();
    assert!(matches!(error, PrivateServerError::NotACluster { .. }), "{error}");
    fs::write(data.join("PG_VERSION"), "12\n").unwrap();
    let error = PrivateServer::start(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("is of PostgreSQL 12, and this machine has"), "{error}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
}

#[tokio::test]
async fn root_is_told_of_a_directory_that_the_server_cannot_pass() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let inner = folder.path().join("data");
    fs::create_dir(&inner).unwrap();
    let error = PrivateServer::start(&inner).await.unwrap_err();
    assert!(
        matches!(&error, PrivateServerError::NoWay { blocked, .. }
        if *blocked == folder.path().canonicalize().unwrap()),
        "{error}"
    );
}

/// `kill -9` at any time while the server is being made, started or used: the next gateway has
/// its server, and there is one.
#[tokio::test]
async fn a_gateway_that_is_killed_leaves_a_server_that_the_next_one_uses() {
    if let Some(data_dir) = std::env::var_os(AS_GATEWAY) {
        let server = PrivateServer::start(Path::new(&data_dir)).await.unwrap();
        println!("\nserver started");
        std::future::pending::<()>().await;
        drop(server);
    }
    let folder = TempDir::new().unwrap();
    let mut before = None;
    for pause in [50, 300, 700, 1200, 1800, u64::MAX, u64::MAX] {
        let name = "database::private_server::a_gateway_that_is_killed_leaves_a_server_that_the_next_one_uses";
        let mut gateway = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(AS_GATEWAY, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if pause == u64::MAX {
            let lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line == "server started"));
            let now = postmaster(folder.path()).unwrap();
            assert_eq!(*before.get_or_insert(now), now, "the server was not found again");
        } else {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
    let server = PrivateServer::start(folder.path()).await.unwrap();
    assert_eq!(postmaster(folder.path()), before);
    server.stop().await;
    // Nobody but init takes note of its end: its parent is dead.
    wait("the server to be gone", || !alive(before.unwrap())).await;
    let left: Vec<_> = fs::read_dir(folder.path().join("postgres"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("new-"))
        .collect();
    assert!(left.len() < 3, "{left:?}");
}
