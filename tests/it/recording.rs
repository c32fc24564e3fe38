//! The session store from outside: what is appended comes back, whatever is cut, killed, filled
//! or changed in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{self, Durability, OnRecordingFailure};
use portcullis::names::{Protocol, SessionId};
use portcullis::recording::{
    self, Closed, Direction, End, Event, Gap, Kind, Note, Opened, Reader, RecordedIdentity,
    Recording, RecordingFailure, RefusedCaller, State, Store, verify,
};
use proptest::prelude::*;

fn settings() -> config::Recording {
    config::Recording {
        durability: Durability::Process,
        max_session: 1 << 30,
        max_local: 1 << 30,
        mask_key: config::SecretRef::Env("UNUSED".to_owned()),
    }
}

fn store(data: &Path) -> Store {
    Store::open(data, &settings(), &[7; 32]).unwrap()
}

fn opened() -> Opened {
    Opened {
        session: SessionId::generate(),
        protocol: Protocol::Postgres,
        target: "orders".parse().unwrap(),
        database: Some("orders".to_owned()),
        client: "127.0.0.1:50000".to_owned(),
        identity: RecordedIdentity {
            issuer: "https://login.example.com".to_owned(),
            subject: "crew-7".to_owned(),
            username: "crew-7".to_owned(),
            groups: vec!["support-agents".to_owned()],
        },
        workflow: None,
        run: None,
        client_parameters: BTreeMap::new(),
        policy: "00".repeat(16),
        gateway_version: "0.1.0".to_owned(),
    }
}

fn open(store: &Store) -> Recording {
    store.create(&opened(), OnRecordingFailure::Refuse).unwrap()
}

fn closed(how: &'static str) -> Closed {
    Closed { how: how.into(), text: String::new() }
}

fn read(path: &Path) -> (Vec<Event>, End) {
    let mut reader = Reader::open(path).unwrap();
    let events: Vec<_> = reader.by_ref().collect::<Result<_, _>>().unwrap();
    (events, reader.end().unwrap())
}

fn payloads(events: &[Event]) -> Vec<&[u8]> {
    events.iter().filter(|e| e.kind == Kind::Data).map(|e| e.payload.as_ref()).collect()
}

fn path_of(data: &Path, recording: &Recording) -> PathBuf {
    recording::recording_path(data, &recording.session())
}

/// What a kill at this moment leaves, for another gateway to find.
fn killed(data: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    for entry in fs::read_dir(data).unwrap() {
        let entry = entry.unwrap();
        let to = into.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            killed(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn what_is_appended_is_read_back() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let recording = open(&store);
    let path = path_of(data.path(), &recording);
    let sequence = recording
        .append(|batch| {
            let of = batch.json(
                Kind::Note,
                Direction::Up,
                None,
                &Note { what: "x".into(), text: "y".to_owned() },
            );
            batch.data(Direction::Up, Some(of), b"SELECT 1")
        })
        .unwrap();
    assert_eq!(sequence, 2);
    let big = vec![b'r'; 1_000_000];
    recording.append(|batch| batch.data(Direction::Down, Some(1), &big)).unwrap();
    recording.append(|batch| batch.data(Direction::Down, None, b"last")).unwrap();

    let (events, end) = read(&path);
    assert!(matches!(end, End::Open { torn: 0, torn_journal: 0 }));
    assert_eq!(payloads(&events).concat().len(), 8 + big.len() + 4);
    assert_eq!(verify(&path, None).unwrap().state, State::Open);

    recording.close(&closed("client")).unwrap();
    assert!(matches!(recording.append(|_| ()), Err(RecordingFailure::Closed)));
    assert!(matches!(recording.close(&closed("client")), Err(RecordingFailure::Closed)));
    let (events, end) = read(&path);
    assert_eq!(events.first().unwrap().kind, Kind::Opened);
    assert_eq!(events.last().unwrap().kind, Kind::Closed);
    assert!(events.iter().enumerate().all(|(n, e)| e.sequence == n as u64));
    assert!(events.windows(2).all(|e| e[0].monotonic_us <= e[1].monotonic_us));
    assert!(matches!(end, End::Sealed(seal) if seal.how == "client" && !seal.interrupted));
    let report = verify(&path, None).unwrap();
    assert_eq!((report.state, report.ledger, report.wrong), (State::Whole, true, None));
    assert!(!path.with_extension("journal").exists());
}
