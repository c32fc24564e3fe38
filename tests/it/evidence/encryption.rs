//! Encrypted recordings: who can read them, and that everybody can verify them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis::config;
use portcullis::names::SessionId;
use portcullis::recording::{
    Against, Direction, Event, Keyring, ReadError, Reader, Recording, State, Store, recording_path,
    verify,
};
use serde_json::Value;

use super::set::{self, keyring, keyring_of};
use crate::api::exchange;
use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::talk::{self, Talk};

/// Stands in what is recorded, and may stand nowhere else.
const CANARY: &str = "canary-4b1f0c";

fn settings(data_dir: &Path) -> config::Recording {
    config::Recording { recipients: set::recipients(), ..set::settings(data_dir) }
}

fn events(path: &Path, keyring: &Keyring) -> Result<Vec<Event>, ReadError> {
    Reader::open_with(path, keyring)?.collect()
}

fn record(store: &Store) -> Recording {
    let recording = set::open(store);
    recording.append(|batch| batch.data(Direction::Up, None, CANARY.as_bytes())).unwrap();
    recording
}

fn holds_canary(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds_canary(&path);
        }
        if !path.is_file() {
            return false;
        }
        let bytes = fs::read(&path).unwrap();
        // Blocks are compressed, but so few bytes are stored as they are.
        bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    })
}

#[test]
fn nobody_reads_it_but_who_writes_it_and_its_recipients_and_everybody_proves_it() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let store = set::reopened(&data_dir, &settings(&data_dir));
    let recording = record(&store);
    let path = recording_path(&data_dir, &recording.session());
    let check = |whole: State| {
        assert!(!holds_canary(&data_dir));
        let read = events(&path, &keyring()).unwrap();
        assert!(read.iter().any(|event| event.payload == CANARY));
        for other in [Keyring::default(), keyring_of(set::OTHER_IDENTITY)] {
            assert!(matches!(events(&path, &other), Err(ReadError::NoKey(_))));
        }
        let report = verify(&path, &Against::default()).unwrap();
        assert_eq!((report.state, report.wrong), (whole, None));
        assert!(report.encrypted);
        read
    };
    // In the journal, in a block, and sealed.
    check(State::Open);
    let bulk = vec![b'x'; 100_000];
    recording.append(|batch| batch.data(Direction::Down, None, &bulk)).unwrap();
    let read = check(State::Open);
    assert_eq!(events(&path, &store.keyring()).unwrap(), read);
    set::close(&recording);
    check(State::Whole);
    // As long as the index wants it.
    assert!(events(&path, &store.keyring()).is_ok());
    store.keyring().release(&recording.session());
    assert!(matches!(events(&path, &store.keyring()), Err(ReadError::NoKey(_))));

    let unread = verify(&path, &Against::default()).unwrap();
    let looked = verify(&path, &Against { keyring: keyring(), ..Against::default() }).unwrap();
    assert_eq!((unread.unread_events, looked.unread_events), (unread.events, 0));
    assert_eq!((unread.events, unread.how), (looked.events, looked.how));
}

#[test]
fn the_wrapped_key_is_a_file_that_age_opens() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let recording = record(&set::reopened(&data_dir, &settings(&data_dir)));
    let path = recording_path(&data_dir, &recording.session());
    let start: Value = document(&fs::read(path).unwrap());
    assert_eq!(start["recipients"], serde_json::json!([set::RECIPIENT]));
    let (wrapped, identity) = (folder.path().join("key.age"), folder.path().join("identity"));
    fs::write(&wrapped, STANDARD.decode(start["key"].as_str().unwrap()).unwrap()).unwrap();
    fs::write(&identity, set::IDENTITY).unwrap();
    let output = Command::new("age").arg("-d").arg("-i").arg(identity).arg(wrapped).output();
    let output = output.expect("age, which scripts/prepare installs");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(output.stdout.len(), 32);
}

fn document(recording: &[u8]) -> Value {
    let length = u64::from_le_bytes(recording[56..64].try_into().unwrap());
    serde_json::from_slice(&recording[168..168 + usize::try_from(length).unwrap()]).unwrap()
}

#[test]
fn no_number_is_sealed_under_twice_and_no_key_is_used_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let (mut wrapped, mut numbers) = (HashSet::new(), 0);
    for _ in 0..3 {
        let store = set::reopened(&data_dir, &settings(&data_dir));
        let recording = record(&store);
        for _ in 0..200 {
            recording.append(|batch| batch.data(Direction::Up, None, &[7; 70_000])).unwrap();
            recording.append(|batch| batch.data(Direction::Up, None, &[7; 70])).unwrap();
        }
        let path = recording_path(&data_dir, &recording.session());
        set::close(&recording);
        let bytes = fs::read(&path).unwrap();
        assert!(wrapped.insert(document(&bytes)["key"].to_string()));
        let (mut at, mut seen) = (0, HashSet::new());
        while at < bytes.len() {
            let number = |from: usize| {
                u64::from_le_bytes(bytes[at + from..at + from + 8].try_into().unwrap())
            };
            if bytes[at + 13] == 1 {
                assert!(seen.insert(number(80)) && number(80) > 0);
            }
            at += 160 + usize::try_from(number(64)).unwrap();
        }
        numbers += seen.len();
    }
    assert!(numbers > 600, "{numbers}");
}

/// Blocks of recordings with the same sequences and lengths: the chain is put right, as somebody
/// could who has the signing key, and the cipher still refuses.
#[test]
fn a_block_of_another_recording_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let store = set::reopened(&data_dir, &settings(&data_dir));
    let paths: Vec<_> = (0..2)
        .map(|_| {
            let recording = record(&store);
            set::close(&recording);
            recording_path(&data_dir, &recording.session())
        })
        .collect();
    let (first, second) = (fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
    let block = |bytes: &[u8]| {
        let stored = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
        160 + usize::try_from(stored).unwrap()
    };
    let (start, other) = (block(&first), block(&second));
    let mut header = second[other..other + 160].to_vec();
    header[128..160].copy_from_slice(blake3::hash(&first[..160]).as_bytes());
    let stored = &second[other + 160..other + block(&second[other..])];
    let forged = [&first[..start], &header, stored].concat();
    let path = folder.path().join("forged.rec");
    fs::write(&path, forged).unwrap();
    let error = events(&path, &keyring()).unwrap_err();
    assert!(error.to_string().contains("it is not what its key sealed"), "{error}");
}

#[test]
fn keys_are_wrapped_for_others_without_touching_the_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let store = set::reopened(&data_dir, &settings(&data_dir));
    let recording = record(&store);
    set::close(&recording);
    store.checkpoint().unwrap();
    let path = recording_path(&data_dir, &recording.session());
    drop((recording, store));
    let before = fs::read(&path).unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    fs::write(&own, set::IDENTITY).unwrap();
    fs::write(&other, set::OTHER_IDENTITY).unwrap();
    let (own, other, file) =
        (own.to_str().unwrap(), other.to_str().unwrap(), path.to_str().unwrap());
    let replay = |identity: &str| portcullis(&["replay", file, "--json", "--identity", identity]);
    assert!(told(&replay(other)).contains("none of the identities given is one of theirs"));

    let refused = ["recording", "rewrap", file, "--recipient", set::OTHER_RECIPIENT];
    assert_eq!(portcullis(&[&refused[..], &["--identity", other]].concat()).status.code(), Some(1));
    let done = portcullis(&[&refused[..], &["--identity", own]].concat());
    assert!(told(&done).contains("1 wrapped anew"), "{}", told(&done));
    for identity in [own, other] {
        assert!(replay(identity).status.success(), "{}", told(&replay(identity)));
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    let folder = data_dir.to_str().unwrap();
    let all = portcullis(&["recording", "verify", "--all", "--data-dir", folder]);
    assert!(all.status.success(), "{}", told(&all));
    assert!(told(&all).contains("note: 1 are encrypted"), "{}", told(&all));
}

/// From a live session to one that a crash interrupted, and what a gateway can tell of each with and
/// without an identity.
#[test]
fn a_gateway_shows_what_it_writes_and_of_before_what_its_identity_opens() {
    let database = Database::fresh();
    let setup = Setup {
        recording: format!("recipients = [{:?}]", set::RECIPIENT),
        ..Setup::for_targets([database.target("orders")])
    };
    let mut gateway = Gateway::start(&setup);
    let client = gateway.client("orders");
    let said = client.psql().args(["-c", &format!("select '{CANARY}'")]).output().unwrap();
    assert!(said.status.success());
    let path = gateway.recordings().pop().unwrap();
    let closed: SessionId = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    wait_until("the index to have it", || of(&gateway, closed)["commands"] == 1);
    let listed = get(&gateway, &format!("/sessions/{closed}/commands"));
    assert_eq!(listed["items"][0]["text"], Value::Null, "{listed}");

    let token = gateway.issuer().token("agent");
    let mut open = Talk::opened(gateway.address(), "agent", "orders", &token);
    open.ask(&[talk::query("select 1")]);
    let recordings = gateway.recordings();
    let interrupted = recordings.iter().find(|other| **other != path).unwrap().clone();
    let session: SessionId = interrupted.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    wait_until("the index to have it", || of(&gateway, session)["commands"] == 1);
    open.ask(&[talk::query(&format!("select 'open-{CANARY}'"))]);
    let live = get(&gateway, &format!("/sessions/{session}/events"));
    assert!(live.to_string().contains(CANARY), "{live}");
    gateway.daemon().kill9();
    assert!(!holds_canary(gateway.data_dir()));
    gateway.restart();

    wait_until("the index to have the end", || of(&gateway, session)["ended"] == "interrupted");
    let problem = get(&gateway, &format!("/sessions/{session}/events"));
    assert_eq!(problem["title"], "the recording is encrypted, and this gateway cannot open it");
    assert!(gateway.stop().success());
    gateway.verify_all();

    let configuration = fs::read_to_string(gateway.configuration()).unwrap();
    let identity = gateway.configuration().with_file_name("identity.txt");
    fs::write(&identity, set::IDENTITY).unwrap();
    let with = format!("[recording]\nidentity = {{ file = {identity:?} }}\n");
    let configuration = configuration.replace("[recording]\n", &with);
    fs::write(gateway.configuration(), configuration).unwrap();
    gateway.restart();
    wait_until("the index to catch up", || of(&gateway, session)["commands"] == 2);
    let shown = get(&gateway, &format!("/sessions/{session}/events"));
    assert!(shown.to_string().contains(CANARY), "{shown}");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

fn of(gateway: &Gateway, session: SessionId) -> Value {
    get(gateway, &format!("/sessions/{session}"))
}

fn get(gateway: &Gateway, path: &str) -> Value {
    let stream = UnixStream::connect(gateway.data_dir().join("admin.sock")).unwrap();
    exchange(stream, &format!("/api/v1{path}"), None).2
}
