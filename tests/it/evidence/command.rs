//! `portcullis recording verify` and `rotate-key`, by the real binary and a real gateway.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::slice;

use portcullis::recording::{Against, Claim, PublicKey, Store, rotate_key, verify, verify_all};
use serde_json::Value;

use super::set::{self, Set};
use crate::support::client::{Database, venv};
use crate::support::daemon::PORTCULLIS;
use crate::support::gateway::{Gateway, Setup, portcullis, told};

fn verify_command(arguments: &[&str]) -> Output {
    portcullis(&[&["recording", "verify"], arguments].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn verify_says_which_claim_it_proved() {
    let set = Set::make();
    let (recording, folder) = (text(&set.recordings[1]), text(&set.data_dir));
    let key_file = set.key_file();
    let key = text(&key_file);

    let one = told(&verify_command(&[recording]));
    assert!(one.contains("proved: the ledger has the same seal"), "{one}");
    assert!(one.contains("not proved: that no other recording is missing"), "{one}");
    assert!(one.contains(", which signed it, is the gateway's"), "{one}");
    let one = told(&verify_command(&[recording, "--public-key", key]));
    assert!(one.contains("proved: it was signed by whoever has the key given"), "{one}");

    let all = verify_command(&["--all", "--data-dir", folder, "--public-key", key, "--json"]);
    assert!(all.status.success(), "{}", told(&all));
    let said: Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(said["proved"], serde_json::json!(["whole", "signed", "complete"]));
    assert_eq!((&said["recordings"], &said["whole"]), (&4.into(), &4.into()));
    let head = format!("{}:{}", said["head"]["lines"], said["head"]["hash"].as_str().unwrap());
    let all = told(&verify_command(&["--all", "--data-dir", folder, "--head", &head]));
    assert!(all.contains("proved: the ledger has the history that was noted elsewhere"), "{all}");

    // Away from its ledger a recording proves itself, and whose signature it has.
    let alone = tempfile::tempdir().unwrap();
    let path = alone.path().join("any-name.rec");
    fs::copy(recording, &path).unwrap();
    let said = verify_command(&[text(&path), "--public-key", key]);
    assert!(said.status.success(), "{}", told(&said));
    assert!(told(&said).contains("not proved: that the ledger knows it"));
    let other = Set::make();
    let said = verify_command(&[text(&path), "--public-key", text(&other.key_file())]);
    assert_eq!(said.status.code(), Some(1));
    assert!(told(&said).contains("which is none of the keys given"), "{}", told(&said));
}

/// Runs a program with a terminal of its own, and prints what that showed.
const IN_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

#[test]
fn a_terminal_shows_how_far_a_command_is_and_nothing_else_does() {
    let set = Set::make();
    let arguments = ["recording", "verify", "--all", "--data-dir", text(&set.data_dir)];
    let piped = portcullis(&arguments);
    assert!(piped.status.success() && piped.stderr.is_empty(), "{}", told(&piped));
    let mut python = Command::new(venv().join("bin/python"));
    let python = python.args(["-c", IN_A_TERMINAL, PORTCULLIS]).args(arguments);
    let shown = python.env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
    assert!(shown.status.success(), "{}", told(&shown));
    let shown = told(&shown);
    let (line, result) = shown.split_once("4 recordings: 4 whole").unwrap();
    assert!(line.contains("0 of 4 recordings") && line.contains('\u{1b}'), "{shown:?}");
    assert!(!result.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn verify_names_what_is_wrong_and_where_and_still_looks_at_the_others() {
    let set = Set::make();
    let bad = &set.recordings[2];
    let mut bytes = fs::read(bad).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(bad, bytes).unwrap();
    let said = verify_command(&["--all", "--data-dir", text(&set.data_dir)]);
    assert_eq!(said.status.code(), Some(1));
    let said = told(&said);
    assert!(said.contains(&format!("wrong: {}: block 2 at byte ", bad.display())), "{said}");
    assert!(said.contains("4 recordings: 3 whole"), "{said}");
    assert!(!said.contains("proved: every"), "{said}");
}

#[test]
fn a_rotated_key_proves_what_the_old_one_signed() {
    let set = Set::make();
    let key_file = set::settings(&set.data_dir).signing_key;
    let old = set.against();
    let rotated = rotate_key(&set.data_dir, &key_file, false).unwrap();
    assert!(rotated.handed_over && [rotated.old] == old.keys[..]);
    assert_eq!(PublicKey::read(&set.key_file()).unwrap(), [rotated.new]);
    let store = set::store(&set.data_dir);
    let recording = set::open(&store);
    set::close(&recording);
    drop((recording, store));
    for keys in [vec![rotated.old], vec![rotated.new]] {
        let against = Against { keys, ..old.clone() };
        let audit = verify_all(&set.data_dir, &against).unwrap();
        assert!(audit.proved.contains(&Claim::Signed), "{audit:?}");
        assert_eq!(audit.keys, [rotated.old, rotated.new]);
        for path in &set.recordings {
            assert_eq!(verify(path, &against).unwrap().wrong, None);
        }
    }
    let second = set.second_opinions(slice::from_ref(&set.data_dir)).remove(0);
    assert_eq!(second["wrong"], serde_json::json!([]));

    // A lost key: nobody signed for the next one, so only the next one stands for it.
    fs::remove_file(&key_file).unwrap();
    let refused = Store::open(&set.data_dir, &set::settings(&set.data_dir), &[7; 32]).unwrap_err();
    assert!(format!("{refused:#}").contains("rotate-key --lost"), "{refused:#}");
    assert!(!key_file.exists(), "no other key is made");
    assert!(rotate_key(&set.data_dir, &key_file, false).is_err());
    let lost = rotate_key(&set.data_dir, &key_file, true).unwrap();
    drop(set::store(&set.data_dir));
    let by = |key| Against { keys: vec![key], ..Against::default() };
    let audit = verify_all(&set.data_dir, &by(rotated.new)).unwrap();
    assert!(!audit.wrong.is_empty(), "{audit:?}");
    let audit = verify_all(&set.data_dir, &by(lost.new)).unwrap();
    assert_eq!(audit.wrong.len(), 0, "{audit:?}");
}

#[test]
fn a_rotation_cut_short_goes_on_with_the_key_that_the_ledger_names() {
    let set = Set::make();
    let key_file = set::settings(&set.data_dir).signing_key;
    let (before, ledger) = (fs::read(&key_file).unwrap(), fs::read(set.data_dir.join("ledger")));
    let rotated = rotate_key(&set.data_dir, &key_file, false).unwrap();
    let after = fs::read(&key_file).unwrap();
    let next = key_file.with_extension("key.next");
    // Before the ledger named the new key, and after that.
    let named = fs::read(set.data_dir.join("ledger")).unwrap();
    for (ledger, key) in [(ledger.unwrap(), rotated.old), (named, rotated.new)] {
        fs::write(&key_file, &before).unwrap();
        fs::write(&next, &after).unwrap();
        fs::write(set.data_dir.join("ledger"), ledger).unwrap();
        drop(set::store(&set.data_dir));
        let audit = verify_all(&set.data_dir, &Against::default()).unwrap();
        assert_eq!((audit.wrong.len(), audit.keys.last()), (0, Some(&key)));
    }
}

#[test]
fn a_ledger_of_a_version_that_did_not_sign_goes_on_signed() {
    let mut set = Set::make();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-0.1.0");
    set.data_dir = set.data_dir.with_file_name("old");
    set::copy(&fixture, &set.data_dir);
    let audit = verify_all(&set.data_dir, &Against::default()).unwrap();
    assert_eq!(
        (audit.proved.as_slice(), audit.keys.len()),
        (&[Claim::Whole, Claim::Complete][..], 0)
    );

    let store = set::store(&set.data_dir);
    let recording = set::open(&store);
    set::close(&recording);
    set.head = store.checkpoint().unwrap();
    drop((recording, store));
    let audit = set.audit(&set.data_dir);
    assert!(audit.proved.contains(&Claim::Signed), "{audit:?}");
    assert_eq!((audit.whole, audit.keys.len()), (4, 1));
    let second = set.second_opinions(slice::from_ref(&set.data_dir)).remove(0);
    assert_eq!(second["wrong"], serde_json::json!([]));

    // With the key, an unsigned ledger is none.
    fs::copy(fixture.join("ledger"), set.data_dir.join("ledger")).unwrap();
    let against = Against { heads: Vec::new(), ..set.against() };
    let wrong = verify_all(&set.data_dir, &against).unwrap().wrong;
    assert!(wrong[0].wrong.what.contains("the ledger is not signed"), "{wrong:?}");
}

#[test]
fn a_repair_takes_no_seal_of_another_key() {
    let (set, other) = (Set::make(), Set::make());
    let store = set::store(&set.data_dir);
    let recording = set::open(&store);
    let path = portcullis::recording::recording_path(&set.data_dir, &recording.session());
    let left = set.copy("left");
    let path = left.join(path.strip_prefix(&set.data_dir).unwrap());
    // The same session, sealed by somebody else.
    let forged = set::store(&other.data_dir);
    let opened = portcullis::recording::Opened { session: recording.session(), ..set::opened() };
    let theirs = forged.create(&opened, portcullis::config::OnRecordingFailure::Refuse).unwrap();
    set::close(&theirs);
    let sealed = portcullis::recording::recording_path(&other.data_dir, &recording.session());
    fs::copy(sealed, &path).unwrap();
    let settings = set::settings(&set.data_dir);
    drop(Store::open(&left, &settings, &[7; 32]).unwrap());
    let audit = verify_all(&left, &Against::default()).unwrap();
    assert_eq!(audit.wrong.len(), 1, "{audit:?}");
    assert_eq!(audit.wrong[0].session, Some(recording.session()));
}

#[test]
fn an_older_copy_of_everything_on_the_disk_is_found() {
    let database = Database::fresh();
    let mut gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let select = |gateway: &Gateway| {
        let client = gateway.client("orders");
        assert!(client.psql().args(["-c", "select 1"]).status().unwrap().success());
    };
    select(&gateway);
    assert!(gateway.stop().success());
    let yesterday = tempfile::tempdir().unwrap();
    set::copy(&gateway.data_dir().join("recordings"), &yesterday.path().join("recordings"));
    fs::copy(gateway.data_dir().join("ledger"), yesterday.path().join("ledger")).unwrap();
    gateway.restart();
    select(&gateway);
    assert!(gateway.stop().success());

    fs::remove_dir_all(gateway.data_dir().join("recordings")).unwrap();
    set::copy(yesterday.path(), gateway.data_dir());
    let configuration = gateway.configuration();
    let said = verify_command(&["--all", "--database", "--config", text(&configuration)]);
    assert_eq!(said.status.code(), Some(1));
    assert!(told(&said).contains("an older copy was put back"), "{}", told(&said));
    gateway.restart();
    assert!(gateway.stop().success());
    gateway.daemon().wait_for_log("the ledger is not the one that the database knows");
}

#[test]
fn the_database_knows_a_ledger_whose_end_was_cut() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let select = || {
        let client = gateway.client("orders");
        assert!(client.psql().args(["-c", "select 1"]).status().unwrap().success());
    };
    select();
    let older = gateway.recordings();
    select();
    assert!(gateway.stop().success());
    let configuration = gateway.configuration();
    let all = || verify_command(&["--all", "--database", "--config", text(&configuration)]);
    let said = all();
    assert!(said.status.success(), "{}", told(&said));
    assert!(told(&said).contains("proved: the ledger has the history that was noted elsewhere"));

    // The newest recording goes, and with it all that the ledger says of it and after it.
    let newest = gateway.recordings().into_iter().find(|one| !older.contains(one)).unwrap();
    let session = newest.file_stem().unwrap().to_str().unwrap();
    let ledger = gateway.data_dir().join("ledger");
    let lines = fs::read_to_string(&ledger).unwrap();
    let cut = lines[..lines.find(session).unwrap()].rfind('\n').unwrap();
    fs::write(&ledger, &lines[..=cut]).unwrap();
    fs::remove_file(&newest).unwrap();
    let said = all();
    assert_eq!(said.status.code(), Some(1));
    assert!(told(&said).contains("its end was cut"), "{}", told(&said));
}
