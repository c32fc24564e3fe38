//! A directory of sealed recordings, and what verifiers say of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::age::{Identity, Recipient};
use portcullis::config::{self, Durability, OnRecordingFailure};
use portcullis::names::{Protocol, SessionId};
use portcullis::recording::{
    Against, Audit, Closed, Direction, Head, Keyring, Kind, Note, Opened, PublicKey,
    RecordedIdentity, Recording, Store, recording_path, verify_all,
};
use serde_json::Value;

use crate::support::client::venv;

/// Made by `age-keygen`.
pub const RECIPIENT: &str = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
pub const IDENTITY: &str =
    "AGE-SECRET-KEY-16LF9S4EWD2SDR9V8SUG5WU0L940WADGWS3QLZR8XXMNKWAL3FWHQQ2WL4R";
/// Another pair.
pub const OTHER_RECIPIENT: &str = "age1d4ctc6nxj97jtwuqt29x9rkzwayse0pwqlqnnfvn6kw5xpms2p7sk3gf2w";
pub const OTHER_IDENTITY: &str =
    "AGE-SECRET-KEY-1NQXVG9SE0TCCFD4P79UMP339EVJC464M5RYV37MMDZ4P8GCRAF8Q8GLQYM";

pub fn recipients() -> Vec<Recipient> {
    vec![RECIPIENT.parse().unwrap()]
}

/// What the identity opens.
pub fn keyring() -> Keyring {
    keyring_of(IDENTITY)
}

pub fn keyring_of(identity: &str) -> Keyring {
    Keyring::of(Identity::read_all(identity).unwrap())
}

pub fn settings(data_dir: &Path) -> config::Recording {
    config::Recording {
        durability: Durability::Process,
        max_session: 1 << 30,
        max_local: 1 << 30,
        signing_key: data_dir.with_extension("key"),
        mask_key: config::SecretRef::Env("UNUSED".to_owned()),
        recipients: Vec::new(),
        identity: None,
    }
}

pub fn store(data_dir: &Path) -> Store {
    reopened(data_dir, &settings(data_dir))
}

/// Opens a store that was open in this process before. A child that another test starts just now
/// holds the old lock until it is another program.
pub fn reopened(data_dir: &Path, settings: &config::Recording) -> Store {
    let pid = format!("(process {})", std::process::id());
    let mut opened = Store::open(data_dir, settings, &[7; 32]);
    for _ in 0..100_000 {
        match opened {
            Err(error) if format!("{error:#}").contains(&pid) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
        opened = Store::open(data_dir, settings, &[7; 32]);
    }
    opened.unwrap()
}

pub fn opened() -> Opened {
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

pub fn open(store: &Store) -> Recording {
    store.create(&opened(), OnRecordingFailure::Refuse).unwrap()
}

pub fn close(recording: &Recording) {
    recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
}

/// Recordings of several shapes in a `data_dir` whose gateway has stopped.
pub struct Set {
    _folder: tempfile::TempDir,
    pub data_dir: PathBuf,
    pub recordings: Vec<PathBuf>,
    pub head: Head,
    recipients: Vec<Recipient>,
}

impl Set {
    /// Two small ones, one of some blocks, one of a gateway that died.
    pub fn make() -> Self {
        Self::with(Vec::new())
    }

    /// The same, encrypted, and one more that a repair sealed without its key.
    pub fn encrypted() -> Self {
        let mut set = Self::with(recipients());
        let recording = open(&reopened(&set.data_dir, &set.settings()));
        for _ in 0..3 {
            recording.append(|batch| batch.data(Direction::Up, None, b"select 1")).unwrap();
        }
        set.recordings.push(recording_path(&set.data_dir, &recording.session()));
        let left = set.copy("left");
        drop(recording);
        fs::remove_dir_all(&set.data_dir).unwrap();
        fs::rename(left, &set.data_dir).unwrap();
        let store = reopened(&set.data_dir, &set.settings());
        set.head = store.checkpoint().unwrap();
        set
    }

    fn with(recipients: Vec<Recipient>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let settings = config::Recording { recipients: recipients.clone(), ..settings(&data_dir) };
        let store = reopened(&data_dir, &settings);
        let note = Note { what: "x".into(), text: "y".to_owned() };
        let mut recordings = Vec::new();
        for bytes in [10, 300, 200_000, 30] {
            let recording = open(&store);
            let text = b"select 1 from orders; ".repeat(bytes / 20 + 1);
            recording
                .append(|batch| {
                    let of = batch.json(Kind::Note, Direction::Up, None, &note);
                    batch.data(Direction::Up, Some(of), &text);
                })
                .unwrap();
            if bytes > 1000 {
                recording.append(|batch| batch.data(Direction::Down, None, &text)).unwrap();
            }
            if bytes != 30 {
                close(&recording);
            }
            recordings.push(recording_path(&data_dir, &recording.session()));
        }
        let head = store.checkpoint().unwrap();
        Self { _folder: folder, data_dir, recordings, head, recipients }
    }

    pub fn settings(&self) -> config::Recording {
        config::Recording { recipients: self.recipients.clone(), ..settings(&self.data_dir) }
    }

    pub fn key_file(&self) -> PathBuf {
        let mut name = settings(&self.data_dir).signing_key.into_os_string();
        name.push(".pub");
        name.into()
    }

    /// What everything is held against: the key, and the head that was noted.
    pub fn against(&self) -> Against {
        let keys = PublicKey::read(&self.key_file()).unwrap();
        Against { keys, heads: vec![self.head.clone()], ..Against::default() }
    }

    /// What our own verifier says of a copy.
    pub fn audit(&self, copy: &Path) -> Audit {
        verify_all(copy, &self.against()).unwrap()
    }

    /// What the second verifier says of copies, in their order; it has no key.
    pub fn second_opinions(&self, copies: &[PathBuf]) -> Vec<Value> {
        self.second_opinions_by(None, copies)
    }

    /// What it says with an identity.
    pub fn second_opinions_by(&self, identity: Option<&str>, copies: &[PathBuf]) -> Vec<Value> {
        let head = format!("{}:{}", self.head.lines, self.head.hash);
        let output = Command::new(venv().join("bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/verify_recordings.py"))
            .args(["--head", &head, "--public-key"])
            .arg(self.key_file())
            .args(identity.map(|identity| {
                let file = self.data_dir.with_file_name("identity.txt");
                fs::write(&file, identity).unwrap();
                format!("--identity={}", file.display())
            }))
            .args(copies)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let reports: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(reports.len(), copies.len(), "{complaint}");
        reports
    }

    /// A copy of the directory, beside it.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.data_dir.with_file_name(name);
        copy(&self.data_dir, &to);
        to
    }

    /// A recording's file in a copy.
    pub fn recording_in(&self, copy: &Path, number: usize) -> PathBuf {
        copy.join(self.recordings[number].strip_prefix(&self.data_dir).unwrap())
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
