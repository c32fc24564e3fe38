//! Sessions recorded and played: what a person sees.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::postgres::tests::{data_row, message, row_description};
use super::{Options, Pace, play};
use crate::names::{Protocol, SessionId};
use crate::recording::{
    Closed, Direction, Kind, Opened, Outcome, Reader, RecordedIdentity, Recording, Sequence,
    recording_path, tests::recorded,
};

pub(super) struct Session {
    _folder: tempfile::TempDir,
    path: PathBuf,
    recording: Recording,
}

impl Session {
    pub(super) fn open(username: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let opened = Opened {
            session: SessionId::generate(),
            protocol: Protocol::Postgres,
            target: "orders".parse().unwrap(),
            database: Some("orders".to_owned()),
            client: "127.0.0.1:5".to_owned(),
            identity: RecordedIdentity {
                issuer: "https://login.example.com".to_owned(),
                subject: "s".to_owned(),
                username: username.to_owned(),
                groups: vec!["support-agents".to_owned()],
            },
            workflow: None,
            run: None,
            client_parameters: std::collections::BTreeMap::new(),
            policy: "0".repeat(32),
            gateway_version: "0.1.0".to_owned(),
        };
        let recording = recorded(folder.path(), &opened);
        let path = recording_path(folder.path(), &opened.session);
        Self { _folder: folder, path, recording }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(super) fn command(
        &self,
        of: Option<Sequence>,
        form: &str,
        text: &str,
        attributes: &serde_json::Value,
    ) -> Sequence {
        let command = json!({
            "command": { "form": form, "text": text, "attributes": attributes },
            "decision": { "verdict": "allow" },
        });
        self.recording
            .append(|batch| batch.json(Kind::Command, Direction::Up, of, &command))
            .unwrap()
    }

    pub(super) fn down(&self, of: Option<Sequence>, bytes: &[u8]) {
        self.recording.append(|batch| batch.data(Direction::Down, of, bytes)).unwrap();
    }

    pub(super) fn outcome(&self, of: Sequence, status: &str, rows: u64) {
        let outcome = Outcome {
            status: Some(status.to_owned()),
            rows: Some(rows),
            duration_us: 1500,
            masked: Default::default(),
            ..Outcome::default()
        };
        self.recording
            .append(|batch| batch.json(Kind::Outcome, Direction::Down, Some(of), &outcome))
            .unwrap();
    }

    fn shown(self, rows: usize, pace: &mut dyn Pace) -> String {
        self.recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
        let mut out = Vec::new();
        let options = Options { colour: false, rows, width: None, live: false };
        play(Reader::open(&self.path).unwrap(), &mut out, &options, pace).unwrap();
        String::from_utf8(out).unwrap()
    }
}

/// Goes on at once for so many commands.
struct Steps(usize);

impl Pace for Steps {
    fn passed(&mut self, _recorded: Duration) -> io::Result<()> {
        Ok(())
    }

    fn step(&mut self) -> io::Result<bool> {
        let go = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        Ok(go)
    }
}

fn in_order(shown: &str, parts: &[&str]) {
    let mut rest = shown;
    for part in parts {
        let split = rest.split_once(part);
        rest = split.unwrap_or_else(|| panic!("{part:?} is not next in:\n{shown}")).1;
    }
}

#[test]
fn a_query_is_shown_with_its_rows_and_its_end() {
    let session = Session::open("crew-7");
    let query = session.command(None, "query", "select id, note\nfrom notes", &json!({}));
    let answer = [
        row_description(&[("id", 23, 0), ("note", 25, 0)]),
        data_row(&[Some(b"1"), Some(b"first")]),
        data_row(&[Some(b"2"), None]),
        data_row(&[Some(b"3"), Some(b"third")]),
        message(b'C', b"SELECT 3\0"),
    ]
    .concat();
    // Pieces that end within a message.
    for piece in answer.chunks(7) {
        session.down(Some(query), piece);
    }
    session.outcome(query, "SELECT 3", 3);
    let shown = session.shown(2, &mut Steps(9));
    in_order(
        &shown,
        &[
            "postgres orders/orders",
            "crew-7",
            "support-agents",
            "#1 ",
            "allow query",
            "  select id, note",
            "  from notes",
            "id",
            "note",
            "first",
            "NULL",
            "1 more row",
            "#1 SELECT 3, 3 rows, 1.5 ms",
            "closed (client)",
        ],
    );
    assert!(!shown.contains("third"));
}

#[test]
fn a_prepared_statement_shows_text_parameters_and_binary_rows() {
    let session = Session::open("crew-7");
    let parse = session.command(
        None,
        "parse",
        "select n from t where id = $1",
        &json!({"statement": "s1"}),
    );
    session.down(Some(parse), &message(b'1', b""));
    session.down(None, &row_description(&[("n", 20, 0)]));
    for n in [7u64, 300] {
        let parameters =
            json!({"statement": "s1", "portal": "", "parameters": ["x", null, {"hex": "0a"}]});
        let bind = session.command(Some(parse), "bind", "", &parameters);
        let execute = session.command(Some(bind), "execute", "", &json!({"portal": ""}));
        session.down(Some(execute), &data_row(&[Some(&n.to_be_bytes())]));
        session.down(Some(execute), &message(b'C', b"SELECT 1\0"));
    }
    let shown = session.shown(50, &mut Steps(99));
    in_order(
        &shown,
        &[
            "parse statement s1",
            "$1 = 'x', $2 = NULL, $3 = \\x0a",
            "execute",
            "select n from t",
            " n ",
            " 7 ",
            "execute",
            " n ",
            " 300 ",
        ],
    );
}

#[test]
fn nothing_recorded_acts_on_the_terminal() {
    let evil = "\x1b]0;owned\x07\x1b[2J\u{202e}\r\u{9b}31m\u{7f}";
    let session = Session::open(evil);
    let query =
        session.command(None, evil, evil, &json!({"statement": evil, "parameters": [evil]}));
    let name = evil.replace('\0', "");
    let error = format!("S{evil}\0C{evil}\0M{evil}\0D{evil}\0H{evil}\0\0");
    let answer = [
        row_description(&[(&name, 25, 0)]),
        data_row(&[Some(evil.as_bytes())]),
        message(b'N', error.as_bytes()),
        message(b'E', error.as_bytes()),
    ]
    .concat();
    session.down(Some(query), &answer);
    session.outcome(query, evil, 1);
    session.down(None, b"\x1b[31m no message at all");
    let note = json!({"what": evil, "text": evil});
    session.recording.append(|b| b.json(Kind::Note, Direction::None, None, &note)).unwrap();
    let shown = session.shown(50, &mut Steps(99));
    let acting: Vec<_> =
        shown.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
    assert!(acting.is_empty(), "{acting:?} in {shown}");
    assert!(shown.contains("\\x1b]0;owned\\x07"));
}

#[test]
fn stepping_stops_before_the_command_that_was_not_asked_for() {
    let session = Session::open("crew-7");
    session.command(None, "query", "select 1", &json!({}));
    session.command(None, "query", "select 2", &json!({}));
    let shown = session.shown(50, &mut Steps(1));
    assert!(shown.contains("select 1") && !shown.contains("select 2"), "{shown}");
}

#[test]
fn a_damaged_recording_is_shown_up_to_the_damage() {
    let session = Session::open("crew-7");
    session.command(None, "query", "select 'before'", &json!({}));
    let path = session.path.clone();
    session.down(None, &message(b'Z', &vec![b'x'; 100_000]));
    session.command(None, "query", "select 'behind'", &json!({}));
    session.recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let zstd = 0xFD2F_B528u32.to_le_bytes();
    let last = bytes.windows(4).rposition(|window| window == zstd).unwrap();
    bytes[last + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut out = Vec::new();
    let options = Options { colour: true, rows: 1, width: Some(80), live: false };
    let played = play(Reader::open(&path).unwrap(), &mut out, &options, &mut Steps(99));
    let error = played.unwrap_err().to_string();
    assert!(error.starts_with("block 2 at byte "), "{error}");
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("select 'before'") && !shown.contains("select 'behind'"), "{shown}");
}
