//! Bytes that no proper client or server sends, and proper ones in improper pieces.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, Target};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::{Random, amount};
use crate::support::wire::{Session, Wire, messages};

/// How many connections at once.
const WORKERS: usize = 8;
/// What thousands of hostile connections may leave or need at most.
const GROWTH_BOUND: u64 = 96 << 20;
/// Messages of the server that differ from session to session: `BackendKeyData`.
const KEY_DATA: u8 = b'K';

/// How many hostile connections from each side.
fn mutations() -> usize {
    amount("PORTCULLIS_MUTATIONS", 3_000)
}

/// A server without passwords, a gateway before it, and the session that is torn.
struct Site {
    server: PostgresServer,
    database: Database,
    gateway: Gateway,
    session: Session,
}

impl Site {
    fn new() -> Self {
        let hba = vec!["host all all 127.0.0.1/32 trust".to_owned()];
        let server = PostgresServer::start(&Options { hba, ..Options::default() });
        let database = Database::on(&server);
        let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
        let token = gateway.issuer().token("agent");
        let session = Session::of_many_messages("agent", "orders", &token);
        Self { server, database, gateway, session }
    }

    /// The gateway serves as before, nothing is left of the sessions, the recordings are whole.
    fn finish(&self, idle: u64) {
        let mut psql = self.gateway.client("orders").psql();
        psql.args(["-c", "select 'still there'"]);
        assert_eq!(transcript(psql), (true, "still there\n".to_owned()));
        wait_until("the upstream sessions to end", || {
            let left = "select count(*) from pg_stat_activity where usename";
            self.server.superuser_psql(&format!("{left} = '{}'", self.database.role)) == "0"
        });
        finish(&self.gateway, idle);
    }
}

fn finish(gateway: &Gateway, idle: u64) {
    let grown = gateway.daemon().peak_resident().saturating_sub(idle);
    println!("{} kB above idle", grown >> 10);
    assert!(grown < GROWTH_BOUND, "the gateway grew by {} kB", grown >> 10);
    assert!(gateway.stop().success());
    let log = gateway.daemon().log();
    assert!(!log.contains("panicked"), "{log}");
    gateway.verify_all();
}

/// A session from start to end, each part sent by `send`; what came, without what always differs.
fn converse(
    address: SocketAddr,
    session: &Session,
    mut send: impl FnMut(&mut Wire, &[u8]),
) -> Vec<u8> {
    let mut wire = Wire::connect(address);
    send(&mut wire, &session.startup);
    wire.read_to(b'R');
    send(&mut wire, &session.password);
    wire.read_to(b'Z');
    send(&mut wire, &session.script);
    wire.read_to_end();
    let (known, other): (Vec<_>, Vec<_>) =
        messages(&wire.received).partition(|message| message[0] == KEY_DATA);
    assert_eq!(known.len(), 1, "no session: {}", String::from_utf8_lossy(&wire.received));
    other.concat()
}

#[test]
fn a_session_in_pieces_of_one_byte_is_the_same_session() {
    let site = Site::new();
    let address = site.gateway.address();
    let idle = site.gateway.daemon().resident();
    let whole = converse(address, &site.session, Wire::send);
    let pieces = converse(address, &site.session, |wire, bytes| {
        for byte in bytes {
            wire.send(&[*byte]);
        }
    });
    assert!(whole == pieces, "{}", difference(&whole, &pieces));
    site.finish(idle);
}

#[test]
fn a_session_may_be_split_anywhere() {
    let site = Site::new();
    let address = site.gateway.address();
    let idle = site.gateway.daemon().resident();
    let whole = converse(address, &site.session, Wire::send);
    let parts = [&site.session.startup, &site.session.password, &site.session.script];
    let points = parts.iter().map(|part| part.len()).sum();
    in_parallel(points, |point| {
        let mut before = 0;
        let split = converse(address, &site.session, |wire, bytes| {
            let at = point.saturating_sub(before).min(bytes.len());
            before += bytes.len();
            wire.send(&bytes[..at]);
            if at > 0 && at < bytes.len() {
                // Nothing shows that the other side has read the first piece; most times it has.
                thread::sleep(Duration::from_millis(1));
            }
            wire.send(&bytes[at..]);
        });
        assert!(whole == split, "at {point}: {}", difference(&whole, &split));
    });
    site.finish(idle);
}

#[test]
fn mutated_bytes_of_clients_end_their_own_session_at_most() {
    let site = Site::new();
    let address = site.gateway.address();
    let idle = site.gateway.daemon().resident();
    let seed = Random::seeded().next();
    in_parallel(mutations(), |number| {
        let mut random = Random::numbered(seed, number);
        let mut session = site.session.clone();
        // Most of them in what comes behind the authentication.
        let part = [0, 1, 2, 2, 2, 2, 2, 2][random.below(8)];
        let parts = [&mut session.startup, &mut session.password, &mut session.script];
        let mutated = parts.into_iter().nth(part).unwrap();
        mutate(mutated, &mut random);
        // What stands before the mutation is sent as it should be, the rest at once.
        let mut wire = Wire::connect(address);
        wire.send(&session.startup);
        if part > 0 {
            wire.read_to(b'R');
        }
        wire.send(&session.password);
        if part > 1 {
            wire.read_to(b'Z');
        }
        wire.send(&session.script);
        wire.finish();
        wire.read_to_end();
    });
    site.finish(idle);
}

#[test]
fn mutated_bytes_of_servers_end_their_own_session_at_most() {
    let site = Site::new();
    let mut direct = Wire::connect(([127, 0, 0, 1], site.server.port()).into());
    let session = Session::of_many_messages(&site.database.role, &site.database.name, "");
    direct.send(&session.startup);
    direct.read_to(b'Z');
    let greeting = std::mem::take(&mut direct.received);
    direct.send(&session.script);
    direct.read_to_end();
    let hostile = HostileServer::start(&greeting, &direct.received);

    let gateway = Gateway::start(&Setup::for_targets([hostile.target("orders")]));
    let token = gateway.issuer().token("agent");
    let session = Session::of_many_messages("agent", "orders", &token);
    let idle = gateway.daemon().resident();
    converse(gateway.address(), &session, Wire::send);
    hostile.mutating.store(true, Ordering::Relaxed);
    in_parallel(mutations(), |_| {
        let mut wire = Wire::connect(gateway.address());
        wire.send(&session.startup);
        wire.read_to(b'R');
        wire.send(&session.password);
        wire.read_to(b'Z');
        wire.send(&session.script);
        wire.finish();
        wire.read_to_end();
    });
    finish(&gateway, idle);
}

#[test]
fn bytes_behind_an_ssl_request_are_never_taken() {
    let site = Site::new();
    let request = [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes()].concat();
    let mut wire = Wire::connect(site.gateway.address());
    wire.send(&[&request[..], &site.session.startup].concat());
    wire.read_to_end();
    assert!(!wire.received.contains(&b'R'), "the bytes behind the request were read");
    assert!(converse(site.gateway.address(), &site.session, Wire::send).len() > 100);
}

/// A server that answers every session with the same bytes, mutated.
struct HostileServer {
    port: u16,
    mutating: &'static AtomicBool,
}

impl HostileServer {
    /// Its threads end with the test process.
    fn start(greeting: &[u8], answers: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mutating: &'static AtomicBool = Box::leak(Box::default());
        let seed = Random::seeded().next();
        for worker in 0..2 * WORKERS {
            let listener = listener.try_clone().unwrap();
            let (greeting, answers) = (greeting.to_vec(), answers.to_vec());
            thread::spawn(move || {
                let mut random = Random::numbered(seed, worker);
                for socket in listener.incoming() {
                    let (mut greeting, mut answers) = (greeting.clone(), answers.clone());
                    if mutating.load(Ordering::Relaxed) {
                        let part = if random.below(4) == 0 { &mut greeting } else { &mut answers };
                        mutate(part, &mut random);
                    }
                    // The gateway may hang up at any time.
                    let _gone = answer(&socket.unwrap(), &greeting, &answers);
                }
            });
        }
        Self { port, mutating }
    }

    fn target(&self, name: &str) -> Target {
        Target {
            name: name.to_owned(),
            port: self.port,
            database: "hostile".to_owned(),
            user: "hostile".to_owned(),
            password: "hostile".to_owned(),
            lines: String::new(),
        }
    }
}

fn answer(mut socket: &TcpStream, greeting: &[u8], answers: &[u8]) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let _startup = socket.read(&mut buffer)?;
    socket.write_all(greeting)?;
    // The gateway may wait for the rest of a greeting that will never come: then it gets the
    // answers as that.
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let _late = socket.read(&mut buffer);
    socket.write_all(answers)?;
    socket.shutdown(std::net::Shutdown::Write)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    while socket.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Changes bytes in one to four places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const LENGTHS: [u32; 10] =
        [0, 1, 3, 4, 5, 0xffff, 64 << 20, 1 << 30, i32::MAX as u32, u32::MAX];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let some = at..(at + 1 + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(some)),
            4 => {
                let copied = bytes[some].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copied);
            }
            5 => {
                let noise: Vec<u8> = some.map(|_| random.byte()).collect();
                bytes.splice(at..at, noise);
            }
            _ => {
                let length = LENGTHS[random.below(LENGTHS.len())].to_be_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&length[..end - at]);
            }
        }
    }
}

/// Runs numbered jobs on several threads; a panic of one is a panic here.
fn in_parallel(count: usize, job: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    job(number);
                }
            });
        }
    });
}

fn difference(expected: &[u8], found: &[u8]) -> String {
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let excerpt = |bytes: &[u8]| {
        let bytes = &bytes[at.saturating_sub(20).min(bytes.len())..(at + 60).min(bytes.len())];
        String::from_utf8_lossy(bytes).into_owned()
    };
    format!("byte {at}: expected {:?}, found {:?}", excerpt(expected), excerpt(found))
}
