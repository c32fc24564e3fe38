//! Two gateways behind a balancer that knows nothing but TCP: what is decided at one counts at the
//! other, and one that is killed under load takes its own sessions along and nothing else.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{OpenSession, ask, command, gateways, psql};
use crate::support::client::{Client, Database};
use crate::support::daemon::wait_until;
use crate::support::gateway::{portcullis, told};

/// Sessions before the kill; the balancer gives each gateway half of them.
const SESSIONS: usize = 8;
/// What every session has done before the kill, and each that is left after it.
const ENOUGH: usize = 20;

/// Gives connections to the gateways in turn, and past one that does not answer.
struct Balancer(SocketAddr);

impl Balancer {
    /// It ends with the test's process.
    fn start(behind: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (turn, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let (before, from) = behind.split_at(turn % behind.len());
                let gateway = from.iter().chain(before).find_map(|to| TcpStream::connect(to).ok());
                let Some(gateway) = gateway else { continue };
                pass(client.try_clone().unwrap(), gateway.try_clone().unwrap());
                pass(gateway, client);
            }
        });
        Self(address)
    }

    fn client(&self, token: &str) -> Client {
        Client::new(self.0.port(), "orders", "agent", token)
    }
}

/// Copies one way until its end, and ends the other side's reading then.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _broken = std::io::copy(&mut from, &mut to);
        let _gone = to.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn of_two_gateways_one_is_killed_under_load_and_the_other_goes_on() {
    let database = Database::fresh();
    database.client().psql().args(["-c", "create table load (n int8)"]).status().unwrap();
    let [mut lost, kept] = gateways(&database, "", "");
    let balancer = Balancer::start(vec![lost.address(), kept.address()]);
    let client = balancer.client(&kept.issuer().token("agent"));
    let sessions: Vec<_> = (0..SESSIONS).map(|_| OpenSession::open(&client)).collect();

    let done: Vec<_> = sessions.iter().map(|_| AtomicUsize::new(0)).collect();
    let stop = AtomicBool::new(false);
    let survivors = thread::scope(|scope| {
        let running: Vec<_> = sessions
            .iter()
            .zip(&done)
            .map(|(session, done)| {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if session.query("insert into load values (1)").is_err() {
                            return false;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    true
                })
            })
            .collect();
        let counts = || done.iter().map(|n| n.load(Ordering::Relaxed)).collect::<Vec<_>>();
        wait_until("load in every session", || counts().iter().all(|n| *n >= ENOUGH));
        lost.daemon().kill9();

        let slowest = (0..SESSIONS)
            .map(|_| {
                let began = Instant::now();
                let (connected, said) = psql(&client, "select 1");
                assert!(connected, "a new connection: {said}");
                began.elapsed()
            })
            .max();
        let killed = counts();
        wait_until("more from those that are left", || {
            let gained = counts().iter().zip(&killed).filter(|(n, m)| **n >= **m + ENOUGH).count();
            gained >= SESSIONS / 2
        });
        stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = running.into_iter().map(|one| one.join().unwrap()).collect();
        let survivors = ended.into_iter().filter(|survived| *survived).count();
        println!(
            "one of two killed under {SESSIONS} sessions: {survivors} of them went on; the slowest \
             of {SESSIONS} new connections, with psql's start: {:?}",
            slowest.unwrap_or_default(),
        );
        survivors
    });
    assert_eq!(survivors, SESSIONS / 2, "sessions of the gateway that was not killed");

    // It returns, seals what the kill left, and the other knows of it.
    lost.restart();
    let recordings = lost.recordings();
    assert!(recordings.len() >= SESSIONS / 2);
    for recording in &recordings {
        let output = portcullis(&["recording", "verify", recording.to_str().unwrap()]);
        assert!(output.status.success(), "{}", told(&output));
    }
    wait_until("interrupted sessions in the index", || {
        let (_, page) = ask(&kept, "auditor", "GET", "/sessions?limit=100", "");
        let rows = page["items"].as_array().cloned().unwrap_or_default();
        rows.iter().filter(|row| row["ended"] == "interrupted").count() == SESSIONS / 2
    });
    drop(sessions);
    assert!(kept.stop().success());
    assert!(lost.stop().success());
}

#[test]
fn whichever_gateway_the_balancer_chose_a_session_is_seen_and_ended_at_both() {
    let database = Database::fresh();
    let [first, second] = gateways(&database, "", "");
    let balancer = Balancer::start(vec![first.address(), second.address()]);
    for ended_at in [&second, &first] {
        // Withdrawn with the session is what opened it, so each has a token of its own.
        let client = balancer.client(&first.issuer().token("agent"));
        let session = OpenSession::open(&client);
        session.query("select 1").unwrap();
        let mut id = String::new();
        wait_until("the open session at the other gateway", || {
            let (_, page) = ask(ended_at, "auditor", "GET", "/sessions", "");
            let rows = page["items"].as_array().cloned().unwrap_or_default();
            let open = rows.iter().find(|row| row["closed_at"].is_null());
            id = open.and_then(|row| row["id"].as_str()).unwrap_or_default().to_owned();
            !id.is_empty()
        });
        let (killed, said) = command(ended_at, "admin", &["session", "kill", &id]);
        assert!(killed, "{said}");
        let (took, _) = session.wait_for_end();
        assert!(took < Duration::from_secs(10), "{took:?}");
        wait_until("its end in the index", || {
            let (_, page) = ask(ended_at, "auditor", "GET", &format!("/sessions/{id}"), "");
            !page["closed_at"].is_null()
        });
    }
}
