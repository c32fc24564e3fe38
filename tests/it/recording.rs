//! The session store from outside: what is appended comes back, whatever is cut, killed, filled
//! or changed in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use portcullis::config::{self, Durability, OnRecordingFailure};
use portcullis::names::{Protocol, SessionId};
use portcullis::recording::{
    self, Against, Closed, Direction, End, Event, Gap, Keyring, Kind, Note, Opened, Reader,
    RecordedIdentity, Recording, RecordingFailure, RefusedCaller, State, Store, verify,
};
use proptest::prelude::*;

use crate::evidence::set::{keyring, recipients, reopened};

/// One key for all stores, whose files are copied to and fro.
static SIGNING_KEY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recording_seal_ed25519");
    Store::open(folder.path(), &settings_with(kept.clone()), &[7; 32]).unwrap();
    kept
});

fn settings() -> config::Recording {
    settings_with(SIGNING_KEY.clone())
}

fn settings_with(signing_key: PathBuf) -> config::Recording {
    config::Recording {
        durability: Durability::Process,
        max_session: 1 << 30,
        max_local: 1 << 30,
        signing_key,
        mask_key: config::SecretRef::Env("UNUSED".to_owned()),
        recipients: Vec::new(),
        identity: None,
    }
}

/// Recordings as they are, and as they are with recipients.
fn plain_and_encrypted() -> [config::Recording; 2] {
    [settings(), config::Recording { recipients: recipients(), ..settings() }]
}

fn store(data: &Path) -> Store {
    reopened(data, &settings())
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
    let mut reader = Reader::open_with(path, &keyring()).unwrap();
    let events: Vec<_> = reader.by_ref().collect::<Result<_, _>>().unwrap();
    (events, reader.end().unwrap())
}

/// Bytes that do not compress.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
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
    assert_eq!(verify(&path, &Against::default()).unwrap().state, State::Open);

    recording.close(&closed("client")).unwrap();
    assert!(matches!(recording.append(|_| ()), Err(RecordingFailure::Closed)));
    assert!(matches!(recording.close(&closed("client")), Err(RecordingFailure::Closed)));
    let (events, end) = read(&path);
    assert_eq!(events.first().unwrap().kind, Kind::Opened);
    assert_eq!(events.last().unwrap().kind, Kind::Closed);
    assert!(events.iter().enumerate().all(|(n, e)| e.sequence == n as u64));
    assert!(events.windows(2).all(|e| e[0].monotonic_us <= e[1].monotonic_us));
    assert!(matches!(end, End::Sealed(seal) if seal.how == "client" && !seal.interrupted));
    let report = verify(&path, &Against::default()).unwrap();
    assert_eq!((report.state, report.ledger, report.wrong), (State::Whole, true, None));
    assert!(!path.with_extension("journal").exists());
}

#[test]
fn a_kill_at_any_byte_of_a_block_loses_no_journaled_event() {
    plain_and_encrypted().iter().for_each(a_kill_at_any_byte_of_a_block);
}

fn a_kill_at_any_byte_of_a_block(settings: &config::Recording) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = reopened(&data, settings);
    let recording = open(&store);
    let path = path_of(&data, &recording);
    for n in 0..3u8 {
        recording.append(|batch| batch.data(Direction::Up, None, &[n; 10])).unwrap();
    }
    let before = fs::read(&path).unwrap();
    let journal = fs::read(path.with_extension("journal")).unwrap();
    // Large enough to become a block at once; what does not compress makes many cuts.
    let bulk: Vec<u8> = (0..70_000u32).map(|n| (n % 7) as u8).collect();
    recording.append(|batch| batch.data(Direction::Down, None, &bulk)).unwrap();
    let after = fs::read(&path).unwrap();
    recording.close(&closed("client")).unwrap();
    let sealed = fs::read(&path).unwrap();
    drop((recording, store));

    let name = path.strip_prefix(&data).unwrap().to_owned();
    let ledger = fs::read_to_string(data.join("ledger")).unwrap();
    let ledger: String = ledger.lines().take(2).map(|line| format!("{line}\n")).collect();
    let state = |cut: usize, rec: &[u8], journal: &[u8]| {
        let data = folder.path().join(format!("cut-{cut}"));
        let path = data.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &rec[..cut]).unwrap();
        fs::write(path.with_extension("journal"), journal).unwrap();
        fs::write(data.join("ledger"), &ledger).unwrap();
        (data, path)
    };
    let seals = |path: &Path, data: &Path, least: usize, cut: usize| {
        for round in 0..2 {
            drop(reopened(data, settings));
            for keyring in [Keyring::default(), keyring()] {
                let report = verify(path, &Against { keyring, ..Against::default() }).unwrap();
                let wrong = report.wrong;
                assert_eq!(report.state, State::Whole, "cut {cut}, round {round}: {wrong:?}");
                assert!(report.ledger);
            }
        }
        let (events, _) = read(path);
        let payloads = payloads(&events);
        assert!(payloads.len() >= least, "cut {cut}: {}", payloads.len());
        assert!(
            payloads
                .iter()
                .take(3)
                .enumerate()
                .all(|(n, p)| p.iter().all(|b| usize::from(*b) == n))
        );
        assert_eq!(events.iter().filter(|e| e.kind == Kind::Closed).count(), 1);
        assert!(!path.with_extension("journal").exists());
        fs::remove_dir_all(data).unwrap();
    };
    let step = |from: usize, to: usize| (from..to).step_by(1 + (to - from) / 200).chain([to]);
    for cut in step(before.len(), after.len()) {
        let (data, path) = state(cut, &after, &journal);
        seals(&path, &data, if cut == after.len() { 5 } else { 3 }, cut);
    }
    // Nothing needs the journal by now; the last event and the seal are under way.
    for cut in after.len()..=sealed.len() {
        let (data, path) = state(cut, &sealed, if cut % 2 == 0 { &journal } else { b"" });
        seals(&path, &data, 5, cut);
    }
    // The journal is being written; what came back from `append` ends where the record does, and
    // behind it is room.
    let end = match settings.recipients.is_empty() {
        true => journal.iter().rposition(|byte| *byte != 0).unwrap() + 1,
        false => journal.len(),
    };
    for cut in 0..=end {
        let (data, path) = state(before.len(), &before, &journal[..cut]);
        drop(reopened(&data, settings));
        if cut == end {
            seals(&path, &data, 3, cut);
        } else if let Ok(mut reader) = Reader::open_with(&path, &keyring()) {
            assert!(reader.by_ref().all(|event| event.is_ok()));
            let _gone = fs::remove_dir_all(&data);
        }
    }
}

#[test]
fn a_kill_while_the_files_are_made_leaves_no_half_recording() {
    plain_and_encrypted().iter().for_each(a_kill_while_the_files_are_made);
}

fn a_kill_while_the_files_are_made(settings: &config::Recording) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = reopened(&data, settings);
    let empty = fs::read(data.join("ledger")).unwrap();
    let recording = open(&store);
    let path = path_of(&data, &recording);
    let rec = fs::read(&path).unwrap();
    let journal = fs::read(path.with_extension("journal")).unwrap();
    let name = path.strip_prefix(&data).unwrap().to_owned();
    for cut in 0..=rec.len() {
        let data = folder.path().join(format!("cut-{cut}"));
        let path = data.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &rec[..cut]).unwrap();
        // Its first record is not yet there, or not whole.
        fs::write(path.with_extension("journal"), &journal[..cut.min(100)]).unwrap();
        fs::write(data.join("ledger"), &empty).unwrap();
        drop(reopened(&data, settings));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "cut {cut}");
        assert_eq!(fs::read(data.join("ledger")).unwrap(), empty);
    }
    // With the first event journaled and the ledger not yet written, it is a session.
    let data = folder.path().join("late");
    killed(&folder.path().join("data"), &data);
    fs::write(data.join("ledger"), &empty).unwrap();
    drop(reopened(&data, settings));
    assert_eq!(verify(&data.join(&name), &Against::default()).unwrap().state, State::Whole);
}

#[test]
fn a_crash_loop_seals_once_and_the_same() {
    plain_and_encrypted().iter().for_each(a_crash_loop);
}

fn a_crash_loop(settings: &config::Recording) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("0");
    let store = reopened(&data, settings);
    let recordings: Vec<_> = (0..5).map(|_| open(&store)).collect();
    for (n, recording) in recordings.iter().enumerate() {
        recording.append(|b| b.data(Direction::Up, None, &vec![b'q'; 40_000 * n])).unwrap();
    }
    let left = folder.path().join("1");
    killed(&data, &left);
    // Each start finds the last one's files at a moment of its repair: before, and after it
    // sealed one of them.
    let before = folder.path().join("2");
    killed(&left, &before);
    drop(reopened(&left, settings));
    for (n, recording) in recordings.iter().enumerate() {
        let mixed = folder.path().join(format!("mixed-{n}"));
        killed(&before, &mixed);
        // Sealed, but the ledger not yet written and the journal not yet removed.
        fs::copy(path_of(&left, recording), path_of(&mixed, recording)).unwrap();
        drop(reopened(&mixed, settings));
        for recording in &recordings {
            let report = verify(&path_of(&mixed, recording), &Against::default()).unwrap();
            assert_eq!(report.state, State::Whole, "{:?}", report.wrong);
            assert!(report.interrupted);
        }
        let ledger = fs::read_to_string(mixed.join("ledger")).unwrap();
        assert_eq!(ledger.matches("\"type\":\"sealed\"").count(), 5);
        assert_eq!(ledger.matches("\"type\":\"opened\"").count(), 5);
    }
}

#[test]
fn a_kill_at_any_byte_of_a_repair_is_repaired() {
    plain_and_encrypted().iter().for_each(a_kill_at_any_byte_of_a_repair);
}

fn a_kill_at_any_byte_of_a_repair(settings: &config::Recording) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = reopened(&data, settings);
    let recording = open(&store);
    recording.append(|b| b.data(Direction::Up, None, b"SELECT 1")).unwrap();
    let (left, repaired) = (folder.path().join("left"), folder.path().join("repaired"));
    killed(&data, &left);
    let path = path_of(&left, &recording);
    let before = fs::read(&path).unwrap();
    killed(&left, &repaired);
    drop(reopened(&repaired, settings));
    let after = fs::read(path_of(&repaired, &recording)).unwrap();
    let mut noted = 0;
    for cut in before.len()..=after.len() {
        let data = folder.path().join(format!("cut-{cut}"));
        killed(&left, &data);
        let path = path_of(&data, &recording);
        fs::write(&path, &after[..cut]).unwrap();
        drop(reopened(&data, settings));
        let report = verify(&path, &Against::default()).unwrap();
        assert_eq!(report.state, State::Whole, "cut {cut}: {:?}", report.wrong);
        assert!(report.interrupted && report.ledger);
        let (events, _) = read(&path);
        let mut kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        // A block that is not whole is cut, and noted.
        if kinds.len() == 4 {
            assert_eq!(kinds.remove(2), Kind::Note, "cut {cut}");
            noted += 1;
        }
        assert_eq!(kinds, [Kind::Opened, Kind::Data, Kind::Closed], "cut {cut}");
    }
    assert!(noted > 100, "{noted}");
}

#[test]
fn a_damaged_recording_is_left_as_it_is_and_the_others_are_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = store(&data);
    let (bad, good) = (open(&store), open(&store));
    for recording in [&bad, &good] {
        for _ in 0..3 {
            recording.append(|b| b.data(Direction::Up, None, &[b'x'; 70_000])).unwrap();
        }
    }
    let left = folder.path().join("left");
    killed(&data, &left);
    let path = path_of(&left, &bad);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for _ in 0..2 {
        drop(self::store(&left));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let wrong = verify(&path, &Against::default()).unwrap().wrong.unwrap();
        assert!(wrong.block.is_some() && wrong.offset.is_some(), "{wrong}");
        assert_eq!(
            verify(&path_of(&left, &good), &Against::default()).unwrap().state,
            State::Whole
        );
    }
    let ledger = fs::read_to_string(left.join("ledger")).unwrap();
    assert_eq!(ledger.matches("\"type\":\"damaged\"").count(), 1);
}

#[test]
fn a_recording_dropped_without_an_end_is_sealed_as_interrupted() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let recording = open(&store);
    let path = path_of(data.path(), &recording);
    drop(recording);
    let report = verify(&path, &Against::default()).unwrap();
    assert_eq!((report.state, report.interrupted), (State::Whole, true));
}

#[test]
fn two_gateways_do_not_share_a_directory() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let refused = Store::open(data.path(), &settings(), &[7; 32]).unwrap_err();
    assert!(format!("{refused:#}").contains(&std::process::id().to_string()), "{refused:#}");
    drop(store);
    self::store(data.path());
}

#[test]
fn a_session_that_reaches_its_bound_ends_with_its_end_recorded() {
    let data = tempfile::tempdir().unwrap();
    let settings = config::Recording { max_session: 10_000, ..settings() };
    let store = Store::open(data.path(), &settings, &[7; 32]).unwrap();
    let recording = store.create(&opened(), OnRecordingFailure::Continue).unwrap();
    let mut taken = 0;
    let failure = loop {
        match recording.append(|b| b.data(Direction::Up, None, &[0; 1000])) {
            Ok(_) => taken += 1,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, RecordingFailure::TooLarge));
    assert!((7..10).contains(&taken), "{taken}");
    recording.close(&closed("limit")).unwrap();
    let path = path_of(data.path(), &recording);
    assert_eq!(verify(&path, &Against::default()).unwrap().state, State::Whole);
    assert_eq!(payloads(&read(&path).0).len(), taken);
}

#[test]
fn a_full_store_takes_no_more_until_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let settings = config::Recording { max_local: 20_000, ..settings() };
    let store = Store::open(data.path(), &settings, &[7; 32]).unwrap();
    let recording = open(&store);
    let noise = noise(0, 30_000);
    let mut written = 0;
    for piece in noise.chunks(3_000) {
        match recording.append(|b| b.data(Direction::Up, None, piece)) {
            Ok(_) => written += 1,
            Err(failure) => assert!(matches!(failure, RecordingFailure::StoreFull)),
        }
    }
    assert!((4..7).contains(&written), "{written}");
    recording.close(&closed("recording")).unwrap();
    let path = path_of(data.path(), &recording);
    assert_eq!(verify(&path, &Against::default()).unwrap().state, State::Whole);
    drop((recording, store));
    let bytes = fs::metadata(&path).unwrap().len();
    let settings = config::Recording { max_local: bytes, ..settings };
    let store = Store::open(data.path(), &settings, &[7; 32]).unwrap();
    let refused = store.create(&opened(), OnRecordingFailure::Continue).unwrap_err();
    assert!(matches!(refused, RecordingFailure::StoreFull));
}

#[tokio::test]
async fn waiting_events_are_framed_and_idle_sessions_hold_no_buffer() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio_util::task::TaskTracker::new();
    running.spawn(store.clone().run(cancel.clone()));
    let recording = open(&store);
    let path = path_of(data.path(), &recording);
    recording.append(|b| b.data(Direction::Up, None, b"SELECT 1")).unwrap();
    let journal = path.with_extension("journal");
    let begun = fs::metadata(&path).unwrap().len();
    while fs::metadata(&path).unwrap().len() == begun {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(verify(&path, &Against::default()).unwrap().events, 2);
    recording.append(|b| b.data(Direction::Up, None, b"SELECT 2")).unwrap();
    cancel.cancel();
    running.close();
    running.wait().await;
    assert_eq!(
        verify(&path, &Against::default()).unwrap().events,
        3,
        "what was left is framed at the end"
    );
    assert!(fs::metadata(&journal).unwrap().len() <= 4096, "what an idle session keeps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_to_the_disk_is_whole_for_many_sessions() {
    let data = tempfile::tempdir().unwrap();
    let settings = config::Recording { durability: Durability::Disk, ..settings() };
    let store = Store::open(data.path(), &settings, &[7; 32]).unwrap();
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio_util::task::TaskTracker::new();
    running.spawn(store.clone().run(cancel.clone()));
    let sessions = tokio_util::task::TaskTracker::new();
    let mut paths = Vec::new();
    for n in 0..8usize {
        let recording = open(&store);
        paths.push(path_of(data.path(), &recording));
        sessions.spawn(async move {
            recording.committed().await.unwrap();
            for m in 0..20 {
                let row = vec![b'x'; n * m * 1000];
                recording.append(|b| b.data(Direction::Up, None, b"SELECT 1")).unwrap();
                recording.append(|b| b.data(Direction::Down, None, &row)).unwrap();
                recording.committed().await.unwrap();
            }
            recording.close(&closed("client")).unwrap();
        });
    }
    sessions.close();
    sessions.wait().await;
    cancel.cancel();
    running.close();
    running.wait().await;
    for path in paths {
        let report = verify(&path, &Against::default()).unwrap();
        assert_eq!((report.state, report.ledger), (State::Whole, true), "{:?}", report.wrong);
        assert!(!path.with_extension("journal").exists());
    }
}

#[test]
fn refused_callers_are_noted_but_cannot_fill_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let caller = RefusedCaller {
        protocol: Protocol::Postgres,
        client: "192.0.2.1:1".to_owned(),
        target: "orders".to_owned(),
        identity: None,
        reason: "the token's signature is wrong".to_owned(),
    };
    for _ in 0..5_000 {
        store.refused(&caller);
    }
    drop(store);
    let day = fs::read_dir(data.path().join("recordings")).unwrap().next().unwrap().unwrap();
    let files: Vec<_> = fs::read_dir(day.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(verify(&files[0], &Against::default()).unwrap().state, State::Whole);
    let (events, _) = read(&files[0]);
    assert_eq!(events[0].kind, Kind::Gateway);
    let noted = events.iter().filter(|e| e.kind == Kind::Refused).count();
    assert!((200..1_000).contains(&noted), "{noted}");
}

/// A filesystem of this size, unmounted when dropped; none where that is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            Some(Self(folder))
        } else {
            eprintln!("SKIPPED: mounting a small filesystem needs root");
            None
        }
    }

    /// Fills the disk to the last byte; removing the file makes room again.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.path().join("filling");
        let mut file = fs::File::create(&path).unwrap();
        for piece in [4096, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _status = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_half_recorded_and_service_resumes() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let data = disk.0.path().join("data");
    let store = store(&data);
    let recording = open(&store);
    let path = path_of(&data, &recording);
    let filling = disk.fill();
    let mut taken = 1;
    let (mut journaled, mut framed) = (0, 0);
    for n in 0..20u32 {
        // Through the journal, and directly as a block.
        let noise = noise(n, if n % 2 == 0 { 5_000 } else { 80_000 });
        let before = recording.append(|b| b.data(Direction::Up, None, b""));
        assert_eq!(before.unwrap(), taken, "the sequence is as before");
        match recording.append(|b| b.data(Direction::Up, None, &noise)) {
            Ok(_) => taken += noise.len().div_ceil(65_536) as u64,
            Err(RecordingFailure::Io(_)) if n % 2 == 0 => journaled += 1,
            Err(RecordingFailure::Io(_)) => framed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(journaled > 5 && framed > 5, "{journaled} {framed}");
    let listed = || fs::read_dir(path.parent().unwrap()).unwrap().count();
    let files = listed();
    for _ in 0..10 {
        assert!(matches!(
            store.create(&opened(), OnRecordingFailure::Refuse),
            Err(RecordingFailure::Io(_))
        ));
    }
    assert_eq!(listed(), files, "a recording that did not start left files");
    let (events, _) = read(&path);
    assert_eq!(events.len() as u64, taken);

    fs::remove_file(filling).unwrap();
    recording.append(|b| b.data(Direction::Up, None, b"goes on")).unwrap();
    recording.close(&closed("client")).unwrap();
    assert_eq!(verify(&path, &Against::default()).unwrap().state, State::Whole);
    drop(open(&store));
}

#[tokio::test]
async fn what_cannot_be_sealed_on_a_full_disk_is_sealed_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let data = disk.0.path().join("data");
    let store = store(&data);
    let recording = open(&store);
    let path = path_of(&data, &recording);
    // What does not compress needs pages that the disk does not have.
    for n in 0..20 {
        recording.append(|b| b.data(Direction::Up, None, &noise(n, 3_000))).unwrap();
    }
    let filling = disk.fill();
    let failed = recording.close(&closed("client"));
    assert!(matches!(failed, Err(RecordingFailure::Io(_))), "{failed:?}");
    assert_eq!(verify(&path, &Against::default()).unwrap().state, State::Open);
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio_util::task::TaskTracker::new();
    running.spawn(store.clone().run(cancel.clone()));
    fs::remove_file(filling).unwrap();
    while verify(&path, &Against::default()).unwrap().state != State::Whole {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let report = verify(&path, &Against::default()).unwrap();
    assert_eq!((report.how.as_deref(), report.interrupted), (Some("client"), false));
    cancel.cancel();
    running.close();
    running.wait().await;
}

#[test]
fn a_session_that_goes_on_unrecorded_says_so_afterwards() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let data = disk.0.path().join("data");
    let store = store(&data);
    let recording = store.create(&opened(), OnRecordingFailure::Continue).unwrap();
    let path = path_of(&data, &recording);
    recording.append(|b| b.data(Direction::Up, None, b"before")).unwrap();
    let filling = disk.fill();
    let mut last = 0;
    for _ in 0..300 {
        last = recording.append(|b| b.data(Direction::Up, None, &[b'x'; 100])).unwrap();
    }
    assert_eq!(last, 301, "sequences go on while nothing is stored");
    fs::remove_file(filling).unwrap();
    // The first tries may still fall within the pause between tries.
    let after = loop {
        let sequence = recording.append(|b| b.data(Direction::Up, None, b"after")).unwrap();
        if read(&path).0.last().unwrap().sequence == sequence {
            break sequence;
        }
    };
    recording.close(&closed("client")).unwrap();
    let report = verify(&path, &Against::default()).unwrap();
    assert_eq!(report.state, State::Whole, "{:?}", report.wrong);
    assert!(report.missing_events > 100);
    let (events, _) = read(&path);
    let gap = events.iter().find(|e| e.kind == Kind::Gap).unwrap();
    let told: Gap = serde_json::from_slice(&gap.payload).unwrap();
    assert_eq!(gap.sequence + told.events, after);
    assert!(told.bytes >= 100 * 100);
}

#[test]
fn the_zstd_tool_tests_and_prints_a_recording() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let recording = open(&store);
    let path = path_of(data.path(), &recording);
    recording.append(|b| b.data(Direction::Up, None, b"SELECT 'plainly there'")).unwrap();
    recording.append(|b| b.data(Direction::Down, None, &[b'r'; 300_000])).unwrap();
    recording.close(&closed("client")).unwrap();
    let run = |flag: &str| std::process::Command::new("zstd").arg(flag).arg(&path).output();
    let Ok(tested) = run("-t") else {
        eprintln!("SKIPPED: the zstd tool is not installed");
        return;
    };
    assert!(tested.status.success(), "{tested:?}");
    let printed = run("-dc").unwrap().stdout;
    let text = String::from_utf8(printed).unwrap();
    assert!(text.starts_with("{\"seq\":0,"), "{}", &text[..100]);
    assert!(text.contains("\nSELECT 'plainly there'\n"));
    assert_eq!(text.matches("\"kind\":").count(), 2 + 5 + 1);
}

#[test]
fn seeking_gives_the_events_from_there_on() {
    let data = tempfile::tempdir().unwrap();
    let store = store(data.path());
    let recording = open(&store);
    let path = path_of(data.path(), &recording);
    for n in 0..40u8 {
        recording.append(|b| b.data(Direction::Down, None, &vec![n; 20_000])).unwrap();
    }
    let all = read(&path).0;
    let mut reader = Reader::open(&path).unwrap();
    assert!(reader.walked().0 < 2);
    for from in [0, 1, 13, 39, 40, 41, 1000] {
        reader.seek_sequence(from).unwrap();
        let seen: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(seen, all.iter().filter(|e| e.sequence >= from).cloned().collect::<Vec<_>>());
    }
    let wanted = all[30].wall_us;
    reader.seek_time(wanted).unwrap();
    let first = reader.next().unwrap().unwrap();
    assert!(first.sequence > 0 && first.wall_us <= wanted);
}

/// A sealed recording and one still open with its journal, both small.
fn samples() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = store(&data);
    let (sealed, live) = (open(&store), open(&store));
    for recording in [&sealed, &live] {
        recording.append(|b| b.data(Direction::Up, None, b"SELECT 1")).unwrap();
        recording.append(|b| b.data(Direction::Down, Some(1), &[b'r'; 70_000])).unwrap();
        recording.append(|b| b.data(Direction::Up, None, b"SELECT 2")).unwrap();
    }
    sealed.close(&closed("client")).unwrap();
    let paths = (path_of(&data, &sealed), path_of(&data, &live));
    let live_path = folder.path().join("live.rec");
    let sealed_path = folder.path().join("sealed.rec");
    fs::copy(paths.0, &sealed_path).unwrap();
    fs::copy(&paths.1, &live_path).unwrap();
    fs::copy(paths.1.with_extension("journal"), live_path.with_extension("journal")).unwrap();
    (folder, sealed_path, live_path)
}

#[test]
fn no_single_changed_bit_passes() {
    let (folder, sealed, _) = samples();
    assert_eq!(verify(&sealed, &Against::default()).unwrap().state, State::Whole);
    let good = fs::read(&sealed).unwrap();
    let path = folder.path().join("changed.rec");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let report = verify(&path, &Against::default()).unwrap();
        assert_ne!(report.state, State::Whole, "byte {at}");
    }
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        assert_ne!(verify(&path, &Against::default()).unwrap().state, State::Whole, "cut at {cut}");
    }
    for more in [&b"\0"[..], &good[..], &good[good.len() - 400..]] {
        fs::write(&path, [&good[..], more].concat()).unwrap();
        assert_eq!(
            verify(&path, &Against::default()).unwrap().state,
            State::Wrong,
            "bytes behind the seal"
        );
    }
}

#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Copy(usize, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..100_000usize;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, b)| Change::Set(at, b)),
        (at.clone(), 1..500usize).prop_map(|(at, n)| Change::Cut(at, n)),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..50))
            .prop_map(|(a, b)| Change::Insert(a, b)),
        (at.clone(), at, 1..500usize).prop_map(|(a, b, n)| Change::Copy(a, b, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let within = |at: usize, len: usize| at % (len + 1);
    match change {
        Change::Set(at, byte) if !bytes.is_empty() => {
            let at = at % bytes.len();
            bytes[at] = *byte;
        }
        Change::Set(..) => {}
        Change::Cut(at, n) => {
            let at = within(*at, bytes.len());
            let end = (at + n).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Insert(at, more) => {
            let at = within(*at, bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Copy(from, to, n) => {
            let from = within(*from, bytes.len());
            let piece = bytes[from..(from + n).min(bytes.len())].to_vec();
            let to = within(*to, bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

#[test]
fn whatever_is_done_to_the_files_the_reader_returns_and_verify_does_not_pass() {
    let (folder, sealed, live) = samples();
    let good = fs::read(&sealed).unwrap();
    let (rec, journal) =
        (fs::read(&live).unwrap(), fs::read(live.with_extension("journal")).unwrap());
    let path = folder.path().join("changed.rec");
    proptest!(ProptestConfig::with_cases(300), |(changes in prop::collection::vec(change(), 1..4))| {
        let mut bytes = good.clone();
        changes.iter().for_each(|c| apply(&mut bytes, c));
        fs::write(&path, &bytes).unwrap();
        let _gone = fs::remove_file(path.with_extension("journal"));
        let report = verify(&path, &Against::default()).unwrap();
        prop_assert_eq!(report.state == State::Whole, bytes == good);

        let (mut rec, mut journal) = (rec.clone(), journal.clone());
        changes.iter().for_each(|c| apply(&mut rec, c));
        changes.iter().for_each(|c| apply(&mut journal, c));
        for (rec, journal) in [(&rec, &journal), (&fs::read(&live).unwrap(), &journal)] {
            fs::write(&path, rec).unwrap();
            fs::write(path.with_extension("journal"), journal).unwrap();
            if let Ok(reader) = Reader::open(&path) {
                for (n, event) in reader.map_while(Result::ok).enumerate() {
                    prop_assert_eq!(event.sequence, n as u64);
                }
            }
        }
    });
}

#[test]
fn random_events_come_back_whatever_the_batches() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let event = (
        0..3u8,
        prop::option::of(0..5u64),
        prop::collection::vec(any::<u8>(), 1..400),
        1..400usize,
    );
    let batches = prop::collection::vec(prop::collection::vec(event, 0..5), 0..12);
    proptest!(ProptestConfig::with_cases(60), |(batches in batches, kill in any::<bool>())| {
        let recording = open(&store);
        let path = path_of(folder.path(), &recording);
        let mut expected: Vec<(Direction, Option<u64>, Vec<u8>)> = Vec::new();
        for batch in &batches {
            recording.append(|out| for (direction, of, bytes, times) in batch {
                let direction = [Direction::Up, Direction::Down, Direction::None][*direction as usize];
                let payload = bytes.repeat(*times);
                out.data(direction, *of, &payload);
                expected.extend(payload.chunks(65_536).map(|p| (direction, *of, p.to_vec())));
            }).unwrap();
        }
        if !kill {
            recording.close(&closed("client")).unwrap();
        }
        let (events, _) = read(&path);
        let got: Vec<_> = events.iter().filter(|e| e.kind == Kind::Data)
            .map(|e| (e.direction, e.of, e.payload.to_vec())).collect();
        prop_assert_eq!(got, expected);
    });
}
