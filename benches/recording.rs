//! What recording costs: `cargo bench --bench recording [-- DIRECTORY]`.
//!
//! Prints nanoseconds an append, megabytes a second, and stored bytes for each byte recorded. The
//! framer runs beside, as it does in the gateway.
#![allow(clippy::unwrap_used, clippy::string_slice, reason = "a bench may stop")]

mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::config::{self, Durability, OnRecordingFailure, SecretRef};
use portcullis::names::{Protocol, SessionId};
use portcullis::recording::{
    Against, Closed, Direction, Kind, Opened, Outcome, Reader, RecordedIdentity, Recording, Store,
    recording_path, verify,
};
use rows::rows;

const EVENTS: u32 = 200_000;
const BULK: usize = 1 << 30;

fn main() {
    let base = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let base = base.unwrap_or_else(|| std::env::temp_dir().display().to_string());
    for durability in [Durability::Process, Durability::Disk] {
        let folder = tempfile::tempdir_in(&base).unwrap();
        let settings = config::Recording {
            durability,
            max_session: u64::MAX,
            max_local: u64::MAX,
            signing_key: folder.path().join("seal_ed25519"),
            mask_key: SecretRef::Env("UNUSED".to_owned()),
            recipients: Vec::new(),
            identity: None,
        };
        let store = Store::open(folder.path(), &settings, &[0; 32]).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        let framer = runtime.handle().clone();
        let tracker = tokio_util::task::TaskTracker::new();
        tracker.spawn_on(store.clone().run(cancel.clone()), &framer);
        println!("durability {durability:?}");
        if durability == Durability::Process {
            small_events(&store);
            one_command_a_frame(&store);
            for chunk in [8 << 10, 32 << 10, 64 << 10, 128 << 10] {
                bulk(&store, folder.path(), chunk);
            }
        }
        runtime.block_on(commits(&store));
        cancel.cancel();
        tracker.close();
        runtime.block_on(tracker.wait());
    }
}

/// A command and its answer of about 200 bytes each, as a `pgbench -S` transaction makes them.
fn small_events(store: &Store) {
    let recording = open(store);
    let text = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;".repeat(3);
    let outcome =
        Outcome { status: Some("SELECT 1".to_owned()), rows: Some(1), ..Outcome::default() };
    let start = Instant::now();
    for _ in 0..EVENTS {
        recording.append(|b| b.data(Direction::Up, None, text.as_bytes())).unwrap();
    }
    let one = start.elapsed() / EVENTS;
    let start = Instant::now();
    for _ in 0..EVENTS {
        recording
            .append(|b| {
                b.data(Direction::Down, Some(1), text.as_bytes());
                b.json(Kind::Outcome, Direction::Down, Some(1), &outcome)
            })
            .unwrap();
    }
    println!("  append of a 165-byte event {one:?}, of two events {:?}", start.elapsed() / EVENTS);
    close(&recording);
}

/// What a slow session costs on the disk: each command is framed by itself.
fn one_command_a_frame(store: &Store) {
    let recording = open(store);
    for n in 0..20 {
        let text = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {n};").repeat(3);
        recording.append(|b| b.data(Direction::Up, None, text.as_bytes())).unwrap();
        std::thread::sleep(Duration::from_millis(160));
    }
    close(&recording);
}

fn bulk(store: &Store, data: &Path, chunk: usize) {
    let rows = rows(4 << 20);
    let recording = open(store);
    let start = Instant::now();
    let mut written = 0;
    for piece in rows.chunks(chunk).cycle() {
        if written >= BULK {
            break;
        }
        recording.append(|b| b.data(Direction::Down, Some(1), piece)).unwrap();
        written += piece.len();
    }
    let speed = written as f64 / start.elapsed().as_secs_f64() / 1e6;
    let start = Instant::now();
    close(&recording);
    let closing = start.elapsed();
    let path = recording_path(data, &recording.session());
    let stored = path.metadata().unwrap().len() as f64 / written as f64;
    let start = Instant::now();
    assert!(Reader::open(&path).unwrap().all(|event| event.is_ok()));
    let reading = written as f64 / start.elapsed().as_secs_f64() / 1e6;
    assert!(verify(&path, &Against::default()).unwrap().wrong.is_none());
    println!(
        "  bulk in {:3} KiB: {speed:.0} MB/s, {stored:.3} stored for each byte, close {closing:?}, \
         read back {reading:.0} MB/s",
        chunk >> 10
    );
    std::fs::remove_file(path).unwrap();
}

/// Sessions that each wait for every command to be committed.
async fn commits(store: &Store) {
    for sessions in [1u32, 4, 16, 64] {
        let recordings: Vec<_> = (0..sessions).map(|_| open(store)).collect();
        let tracker = tokio_util::task::TaskTracker::new();
        let start = Instant::now();
        let each = 2_000 / sessions.max(8);
        for recording in &recordings {
            let recording = recording.clone();
            tracker.spawn(async move {
                for _ in 0..each {
                    recording.append(|b| b.data(Direction::Up, None, &[b'q'; 165])).unwrap();
                    recording.committed().await.unwrap();
                }
            });
        }
        tracker.close();
        tracker.wait().await;
        let all = start.elapsed();
        println!(
            "  {sessions:3} sessions: {:?} a commit for each, {:.0} commits a second",
            all / each,
            f64::from(each * sessions) / all.as_secs_f64()
        );
        recordings.iter().for_each(close);
    }
}

fn open(store: &Store) -> Recording {
    let opened = Opened {
        session: SessionId::generate(),
        protocol: Protocol::Postgres,
        target: "orders".parse().unwrap(),
        database: None,
        client: "127.0.0.1:5".to_owned(),
        identity: RecordedIdentity {
            issuer: "https://login.example.com".to_owned(),
            subject: "crew-7".to_owned(),
            username: "crew-7".to_owned(),
            groups: vec![],
        },
        workflow: None,
        run: None,
        client_parameters: BTreeMap::new(),
        policy: String::new(),
        gateway_version: String::new(),
    };
    store.create(&opened, OnRecordingFailure::Refuse).unwrap()
}

fn close(recording: &Recording) {
    recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
}
