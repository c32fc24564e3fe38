//! What earlier versions wrote, and this one still reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::PORTCULLIS;
use crate::support::gateway::told;

/// Session, and its commands with their verdicts, where they have a text.
type Session = (&'static str, &'static [(&'static str, &'static str)]);

const OF_0_1_0: &[Session] = &[
    (
        "01a1fefb-6ba2-77eb-ac86-4613108c3be5",
        &[
            ("select name, email, ssn from customers order by id limit $1", "allow"),
            ("drop table customers", "block"),
            ("update orders set status = 'paid' where id = 4", "approve"),
        ],
    ),
    ("01a1fefb-6e76-715c-901a-db7e58181869", &[("echo out; echo err >&2; exit 3", "allow")]),
    ("01a1fefb-70f7-718c-a3cb-24d55bb417fc", &[("GET /inputs", "allow")]),
];

/// A copy, because whoever verifies may want to lock or write.
fn copied(version: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version);
    let to = TempDir::new().unwrap();
    copy_folder(&from, to.path());
    to
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

fn recording(data: &Path, session: &str) -> PathBuf {
    data.join("recordings/2026-11-21").join(format!("{session}.rec"))
}

#[test]
fn recordings_of_0_1_0_are_verified_and_replayed() {
    let data = copied("data-0.1.0");
    for (session, commands) in OF_0_1_0 {
        let file = recording(data.path(), session);
        let run = |arguments: &[&str]| {
            let output = Command::new(PORTCULLIS).args(arguments).arg(&file).output().unwrap();
            assert!(output.status.success(), "{session}: {}", told(&output));
            output
        };
        run(&["recording", "verify"]);
        let replayed = String::from_utf8(run(&["replay", "--json"]).stdout).unwrap();
        let events: Vec<Value> =
            replayed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events[0]["kind"], "opened", "{session}");
        assert_eq!(events[0]["payload"]["gateway_version"], "0.1.0", "{session}");
        let seen: Vec<_> = events
            .iter()
            .filter(|event| event["kind"] == "command")
            .filter_map(|event| {
                let text = event["payload"]["command"]["text"].as_str()?;
                Some((text, event["payload"]["decision"]["verdict"].as_str().unwrap()))
            })
            .collect();
        assert_eq!(seen, *commands, "{session}");
        // For people, too: every line that it shows comes out of what was stored then.
        let shown = told(&run(&["replay", "--no-color"]));
        assert!(shown.contains(commands[0].0), "{session}: {shown}");
    }
}

#[test]
fn a_changed_byte_of_an_old_recording_shows() {
    let data = copied("data-0.1.0");
    let file = recording(data.path(), OF_0_1_0[0].0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output =
        Command::new(PORTCULLIS).args(["recording", "verify"]).arg(&file).output().unwrap();
    assert!(!output.status.success(), "{}", told(&output));
}
