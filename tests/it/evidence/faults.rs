//! A gateway that has too few descriptors, and one whose store is swapped under it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Instant;

use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::PostgresServer;

fn run(client: &Client, statement: &str) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    transcript(psql)
}

/// Sets how many descriptors a process may have; those that it has stay open.
fn allow_descriptors(process: &str, most: u64) {
    let status = Command::new("prlimit")
        .args(["--pid", process, &format!("--nofile={most}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Processor time of a process, in clock ticks.
fn ticks(process: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_nobody_is_served_unrecorded_and_service_resumes_with_them() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let (client, server) = (gateway.client("orders"), &PostgresServer::shared().server);
    assert!(run(&client, "select 'descriptors_before'").0);
    let process = gateway.daemon().pid().as_raw_nonzero().to_string();
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open = open.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse::<u64>());
    let open: BTreeSet<_> = open.map(Result::unwrap).collect();
    let free = (0..).find(|descriptor| !open.contains(descriptor)).unwrap();

    // Room for a caller, but not for its way to the target and its recording.
    allow_descriptors(&process, free + 1);
    let (succeeded, said) = run(&client, "select 'descriptors_' || repeat('forbidden', 2)");
    assert!(!succeeded, "{said}");
    let waiting: Vec<_> = (0..24).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    let (began, before) = (Instant::now(), ticks(&process));
    let refused = || gateway.daemon().log().matches("cannot accept a connection").count();
    let first = refused();
    wait_until("a few tries to accept", || refused() >= first + 5);
    let used = (ticks(&process) - before) * 10; // milliseconds, of which a tick is ten
    let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(elapsed >= 300 && used < elapsed, "it spins: {used} of {elapsed} ms");
    assert!(gateway.daemon().is_alive());
    assert!(!server.log_text().contains("forbiddenforbidden"));

    drop(waiting);
    allow_descriptors(&process, 4096);
    wait_until("service", || run(&client, "select 'descriptors_after'").0);
    assert!(gateway.stop().success());
    gateway.verify_all();
    let recorded = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    assert!(recorded.contains("descriptors_after") && !recorded.contains("forbiddenforbidden"));
}

#[test]
fn a_store_that_is_swapped_for_a_link_is_not_followed() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let client = gateway.client("orders");
    assert!(run(&client, "select 'store_before'").0);

    let elsewhere = tempfile::TempDir::new().unwrap();
    let store = gateway.data_dir().join("recordings");
    let aside = gateway.data_dir().join("aside");
    fs::rename(&store, &aside).unwrap();
    symlink(elsewhere.path(), &store).unwrap();
    // The gateway holds the folder that it opened, whatever stands at its name.
    let ran = run(&client, "select 'store_' || repeat('swapped', 2)").0;
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "written through the link");

    fs::remove_file(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    assert!(run(&client, "select 'store_after'").0);
    assert!(gateway.stop().success());
    gateway.verify_all();
    let recorded = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    assert!(recorded.contains("store_after"));
    assert_eq!(ran, recorded.contains("store_swappedswapped"), "what ran is what is recorded");
}
