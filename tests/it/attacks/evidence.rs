//! Evidence that named the wrong thing.

use std::fs;
use std::path::Path;

use portcullis::recording::{Kind, Reader};
use serde_json::Value;

use crate::evidence::set::Set;
use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::http::{App, Caller, curl, sessions};
use crate::support::ssh::{Conversation, Site, Sshd};

const OTHER: &str = "another session's recording";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn e01_a_recording_is_of_the_session_that_its_name_says() {
    let set = Set::make();
    let (victim, other) = (&set.recordings[0], &set.recordings[1]);
    fs::copy(other, victim).unwrap();
    for arguments in [
        &["recording", "verify", text(victim)][..],
        &["recording", "verify", "--all", "--data-dir", text(&set.data_dir)],
        &["recording", "export", text(victim), "--format", "jsonl"],
        &["recording", "export", text(victim), "--format", "csv"],
        &["replay", text(victim), "--json"],
    ] {
        let output = portcullis(arguments);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(OTHER), "{arguments:?}: {said}");
        assert!(!said.contains("select 1"), "{arguments:?} shows it: {said}");
    }
    let page = portcullis(&["recording", "export", text(victim), "--format", "html"]);
    assert!(told(&page).contains(OTHER), "{}", told(&page));
    // Away from its ledger too, and for the second verifier.
    let alone = tempfile::tempdir().unwrap();
    let copy = alone.path().join(victim.file_name().unwrap());
    fs::copy(other, &copy).unwrap();
    let said = portcullis(&["recording", "verify", text(&copy)]);
    assert!(told(&said).contains(OTHER), "{}", told(&said));
    for opinion in set.second_opinions(&[copy, victim.clone(), set.data_dir.clone()]) {
        assert!(opinion["wrong"].to_string().contains(OTHER), "{opinion}");
    }
    // Under no session's name it is what it is, also by a link.
    let named = alone.path().join("evidence.rec");
    fs::copy(other, &named).unwrap();
    assert!(portcullis(&["recording", "verify", text(&named)]).status.success());
    let link = alone.path().join(set.recordings[2].file_name().unwrap());
    std::os::unix::fs::symlink(&named, &link).unwrap();
    assert!(told(&portcullis(&["recording", "verify", text(&link)])).contains(OTHER));
}

#[test]
fn a_gateway_gives_nobody_another_sessions_recording() {
    for archive in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let place = format!("archive = \"file://{}\"\n", folder.path().display());
        let gateway = Gateway::start(&Setup {
            listen: "web = \"127.0.0.1:0\"".to_owned(),
            recording: if archive { place } else { String::new() },
            ..Setup::for_targets([Database::fresh().target("orders")])
        });
        for statement in ["select 'first-of-two'", "select 'second-of-two'"] {
            let mut psql = gateway.client("orders").psql();
            psql.args(["-c", statement]);
            assert!(transcript(psql).0);
        }
        let listed = sessions(&gateway, 2);
        let ids = [1, 0].map(|at| listed[at]["id"].as_str().unwrap().to_owned());
        let mut files = Vec::new();
        wait_until("both recordings sealed where they stay", || {
            files.clear();
            if archive {
                recordings(folder.path(), &mut files);
            } else {
                files = gateway.recordings();
            }
            files.retain(|path| ids.iter().any(|id| text(path).contains(id)));
            files.sort();
            files.len() == 2
                && (!archive || gateway.recordings().is_empty())
                && gateway.journals().is_empty()
        });
        fs::copy(&files[1], &files[0]).unwrap();
        let socket = gateway.data_dir().join("admin.sock");
        let get = |path: &str| {
            let url = format!("http://gateway/api/v1/sessions/{}/{path}", ids[0]);
            curl(&["--unix-socket", text(&socket), &url])
        };
        for path in ["recording", "events", "export?format=jsonl"] {
            let answer = get(path);
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                answer.status == 409 && said.contains(OTHER),
                "{path}: {} {said}",
                answer.status
            );
            assert!(!said.contains("second-of-two"), "{path}: {said}");
        }
        let config = gateway.configuration();
        for command in [&["recording", "verify", &ids[0]][..], &["replay", &ids[0], "--json"]] {
            let output = portcullis(&[command, &["--config", text(&config)]].concat());
            assert!(!output.status.success(), "{command:?}: {}", told(&output));
            let said = told(&output).replace("\\'", "'");
            assert!(said.contains(OTHER), "{command:?}: {said}");
        }
    }
}

fn recordings(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            recordings(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rec") {
            found.push(path);
        }
    }
}

#[test]
fn e02_a_killed_session_says_so_and_by_whom_on_every_protocol() {
    let app = App::start();
    let sections = format!("{}{}", Sshd::shared().target("web-1", ""), app.target("crew", ""));
    let site = Site::set_up(
        &sections,
        Setup {
            listen: "http = \"127.0.0.1:0\"".to_owned(),
            ..Setup::for_targets([Database::fresh().target("orders")])
        },
    );
    let gateway = &site.gateway;
    let (mark, agent) = (site.path("mark"), gateway.issuer().token("agent"));
    site.key();
    let line = format!("echo x > {}; sleep 600", mark.display());
    let mut ssh = site.ssh().arg(line).spawn().unwrap();
    let mut psql = gateway.client("orders").psql();
    let mut psql = psql.args(["-c", "select pg_sleep(600)"]).spawn().unwrap();
    let caller = Caller { address: gateway.daemon().address_of("http"), token: agent };
    assert_eq!(caller.get("/crew/x").status, 200);
    let config = gateway.configuration();
    let list = || -> Vec<Value> {
        let arguments = ["session", "list", "--json", "--config", text(&config)];
        serde_json::from_slice(&portcullis(&arguments).stdout).unwrap_or_default()
    };
    wait_until("three sessions", || mark.exists() && list().len() == 3);
    for session in list() {
        let id = session["id"].as_str().unwrap();
        let killed = portcullis(&["session", "kill", id, "--config", text(&config)]);
        assert!(killed.status.success(), "{}", told(&killed));
    }
    ssh.wait().unwrap();
    psql.wait().unwrap();
    wait_until("their ends", || list().iter().all(|session| session["closed_at"].is_string()));
    for session in list() {
        let protocol = &session["protocol"];
        assert_eq!(session["ended"], "killed", "{protocol}: {session}");
        let by = session["ended_text"].as_str().unwrap();
        assert!(by.starts_with("ended by os:"), "{protocol}: {by}");
    }
    let log = gateway.daemon().log();
    let ends = log.lines().filter(|line| line.contains("session ended"));
    let killed = ends.filter(|line| {
        line.contains("\"how\":\"killed\"")
            && line.contains("\"fault\":\"operator\"")
            && line.contains("\"by\":\"os:")
    });
    assert_eq!(killed.count(), 3, "{log}");
    site.finish();
}

/// The lines that the last recording lists as typed.
fn typed(site: &Site) -> Vec<String> {
    let recording = site.gateway.recordings().pop().unwrap();
    let events = Reader::open(&recording).unwrap().map(Result::unwrap);
    let notes = events.filter(|event| event.kind == Kind::Note);
    let notes = notes.map(|event| serde_json::from_slice::<Value>(&event.payload).unwrap());
    let typed = notes.filter(|note| note["what"] == "typed");
    typed.map(|note| note["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn e03_a_line_is_listed_as_typed_when_it_was() {
    // Ahead of the prompt, all at once, between what the host says of itself.
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("echo 'Last login: Mon'; read -t 0.1 nothing; exec sh -i");
    let mut conversation = Conversation::start(ssh);
    conversation.types("echo 2\necho $((40 + 2))\nexit\n");
    let (_, seen) = conversation.end();
    assert!(seen.contains("42"), "{seen}");
    site.finish();
    for line in typed(&site) {
        assert!(
            ["echo 2", "echo $((40 + 2))", "exit"].contains(&line.as_str()),
            "{line:?}: {seen}"
        );
    }
    assert!(typed(&site).contains(&"echo $((40 + 2))".to_owned()), "{:?}: {seen}", typed(&site));
    // A password, and what is said after it.
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("stty -echo; echo Password:; read p; stty echo; echo welcome; exec sh -i");
    let mut conversation = Conversation::start(ssh);
    conversation.wait_for("Password:");
    conversation.types("hunter2\n");
    conversation.wait_for("welcome");
    conversation.types("exit\n");
    conversation.end();
    site.finish();
    assert_eq!(typed(&site), ["exit"]);
    for page in ["ssh.md", "recording-format.md"] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
        assert!(fs::read_to_string(&page).unwrap().contains("a guess"), "{}", page.display());
    }
}
