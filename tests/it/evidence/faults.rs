//! A gateway that has too few descriptors, and one whose store is swapped under it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{self, App};

fn run(client: &Client, statement: &str) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    transcript(psql)
}

/// Sets how many descriptors a process may have, and says how many it might before. Those that it
/// has stay open.
fn allow_descriptors(process: Pid, most: u64) -> u64 {
    let limit = Rlimit { current: Some(most), ..getrlimit(Resource::Nofile) };
    prlimit(Some(process), Resource::Nofile, limit).unwrap().current.unwrap()
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
    let client = gateway.client("orders").with("PGCONNECT_TIMEOUT", "2");
    assert!(run(&client, "create table served (room int)").0);
    let insert = |room: u64| run(&client, &format!("insert into served values ({room})")).0;
    let daemon = gateway.daemon();
    let process = daemon.pid().as_raw_nonzero().to_string();

    // None but the three that it never closes.
    let usual = allow_descriptors(daemon.pid(), 3);
    let waiting: Vec<_> = (0..24).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    let (began, before) = (Instant::now(), ticks(&process));
    let refused = || daemon.log().matches("cannot accept a connection").count();
    let first = refused();
    wait_until("a few tries to accept", || refused() >= first + 5);
    let used = (ticks(&process) - before) * 10; // milliseconds, of which a tick is ten
    let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(elapsed >= 300 && used < elapsed, "it spins: {used} of {elapsed} ms");
    drop(waiting);
    assert!(!insert(0), "served without a descriptor");

    // Then one more each time: first none for the caller, then none for its way to the target or
    // its recording. How many that takes depends on what else the gateway has open at the moment.
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open = open.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse::<u64>());
    let open: BTreeSet<_> = open.map(Result::unwrap).collect();
    let full = (0..).find(|descriptor| !open.contains(descriptor)).unwrap();
    let served = (1..32).find(|room| {
        allow_descriptors(daemon.pid(), full + room);
        insert(*room)
    });
    assert!(served.is_some(), "31 descriptors are not enough for a session");
    assert!(daemon.is_alive());

    allow_descriptors(daemon.pid(), usual);
    wait_until("service", || insert(99));
    assert!(gateway.stop().success());
    gateway.verify_all();
    let recorded = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    let (succeeded, rooms) = run(&database.client(), "select room from served");
    assert!(succeeded && rooms.lines().any(|room| room == "99"), "{rooms}");
    for room in rooms.lines() {
        assert!(recorded.contains(&format!("values ({room})")), "{room} ran unrecorded");
    }
}

#[test]
fn connections_that_prove_nothing_leave_descriptors_for_sessions() {
    const DESCRIPTORS: usize = 256;
    let (database, app) = (Database::fresh(), App::start());
    let setup = Setup {
        targets: vec![database.target("orders")],
        descriptors: Some(DESCRIPTORS as u64),
        ..http::setup(&app.target("crew", ""))
    };
    let gateway = Gateway::start(&setup);
    let daemon = gateway.daemon();
    let caller = http::Caller::of(&gateway);
    assert_eq!(caller.get("/crew/x").status, 200);
    daemon.wait_for_log("limit of open files");
    daemon.wait_for_log("there is room for ");

    // Requests whose heads do not end, and idle connections after a request without a token.
    let greeting = ["", "GET /crew/x HTTP/1.1\r\nHost: x\r\nX-Slow: "];
    let refused = "GET /crew/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for number in 0..DESCRIPTORS + 44 {
        let mut stream = caller.connect();
        let sent = [greeting[0], greeting[1], refused][number % 3];
        // It may have made way already.
        let _sent = stream.write_all(sent.as_bytes());
        open.push(stream);
    }
    let used =
        || fs::read_dir(format!("/proc/{}/fd", daemon.pid().as_raw_nonzero())).unwrap().count();
    wait_until("most to make way", || used() < DESCRIPTORS / 2);
    assert!(!daemon.log().contains("cannot accept a connection"), "{}", daemon.log());
    assert!(run(&gateway.client("orders"), "select 1").0, "a session finds room");
    assert_eq!(caller.get("/crew/y").status, 200, "and so does another");

    // A connection that brought a token stays, whoever comes.
    let mut kept = caller.connect();
    let request = caller.with_token("GET /crew/kept HTTP/1.1\r\nHost: x\r\n{auth}\r\n");
    let mut ask = || {
        kept.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 15];
        kept.read_exact(&mut answer).map(|()| answer == *b"HTTP/1.1 200 OK")
    };
    assert!(ask().unwrap());
    for _ in 0..DESCRIPTORS {
        open.push(caller.connect());
    }
    assert!(ask().is_ok(), "it made way");
    drop(open);
    assert!(gateway.stop().success());
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
