//! What stands in recordings of SSH sessions.

use portcullis::decode::ssh::message::Message;
use portcullis::recording::{Direction, Kind, Reader};

use crate::support::daemon::wait_until;
use crate::support::gateway::{portcullis, told};
use crate::support::ssh::{Conversation, Site, Sshd, fed};

fn messages(site: &Site) -> Vec<(Direction, Message)> {
    let recording = site.gateway.recordings().pop().unwrap();
    let events = Reader::open(&recording).unwrap().map(Result::unwrap);
    events
        .filter(|event| event.kind == Kind::Data)
        .map(|event| (event.direction, Message::read(&event.payload).expect("a message")))
        .collect()
}

#[test]
fn what_is_typed_is_stored_as_its_length_and_its_echo_as_output() {
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("stty -echo; echo ready; read line; echo got");
    let output = fed(ssh, b"hunter2-typed\n");
    assert!(output.status.success(), "{}", told(&output));
    site.finish();
    let messages = messages(&site);
    let typed: u32 = messages
        .iter()
        .filter_map(|(direction, message)| match message {
            Message::Withheld { length, .. } if *direction == Direction::Up => Some(*length),
            _ => None,
        })
        .sum();
    assert_eq!(typed, 14);
    assert!(messages.iter().any(|(_, message)| matches!(message, Message::Pty { .. })));
    let up = |(direction, message): &(Direction, Message)| {
        *direction == Direction::Up && matches!(message, Message::Data { .. })
    };
    assert!(!messages.iter().any(up), "input is stored");
    assert!(String::from_utf8_lossy(&site.gateway.all_contents()).contains("got"));
}

#[test]
fn input_is_stored_where_the_target_says_so() {
    let site = Site::with(Sshd::shared(), "record_input = \"full\"", "");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("read line; echo got");
    let output = fed(ssh, b"typed-in-full\n");
    assert!(output.status.success(), "{}", told(&output));
    site.finish();
    let typed = |(direction, message): &(Direction, Message)| {
        *direction == Direction::Up
            && matches!(message, Message::Data { bytes, .. } if bytes.starts_with(b"typed-in-full"))
    };
    assert!(messages(&site).iter().any(typed));
}

#[test]
fn sessions_and_commands_are_in_the_index() {
    let site = Site::new("");
    site.run("echo indexed; exit 4");
    let config = site.gateway.configuration();
    let config = config.to_str().unwrap();
    let mut session = serde_json::Value::Null;
    wait_until("the session in the index", || {
        let listed = portcullis(&["session", "list", "--json", "--config", config]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        session = listed[0].clone();
        session["closed_at"].is_string()
    });
    assert_eq!((&session["protocol"], &session["target"]), (&"ssh".into(), &"web-1".into()));
    assert_eq!(session["commands"], 1);
    let id = session["id"].as_str().unwrap();
    let shown = portcullis(&["session", "show", id, "--json", "--config", config]);
    let shown = told(&shown);
    assert!(shown.contains("echo indexed; exit 4") && shown.contains("exit 4"), "{shown}");
}

#[test]
fn a_killed_gateway_leaves_every_command_that_ran_in_its_recording() {
    let sshd = Sshd::start();
    let mut site = Site::with(&sshd, "", "");
    let marks = site.path("marks");
    let key = site.key();
    assert!(key.exists());
    let line = format!("echo mark >> {}; sleep 30", marks.display());
    let mut child = site.ssh().arg(&line).spawn().unwrap();
    wait_until("the command to run", || marks.exists());
    site.gateway.daemon().kill9();
    child.wait().unwrap();
    site.gateway.restart();
    let recorded = site.recorded("echo mark");
    assert!(recorded.contains("interrupted"), "{recorded}");
    site.finish();
}

#[test]
fn a_session_is_replayed_and_its_terminal_exported_without_what_would_act() {
    let site = Site::new("");
    site.run("echo plain; echo error >&2");
    let mut ssh = site.ssh();
    ssh.arg("-tt")
        .arg("printf '\\033[31mred\\033[0m \\033]52;c;cm0gLXJm\\007\\033]0;title\\007end\\n'");
    assert!(ssh.output().unwrap().status.success());
    site.finish();
    let recordings = site.gateway.recordings();
    let [plain, terminal] = recordings.as_slice() else { panic!("{recordings:?}") };
    let replayed = portcullis(&["replay", plain.to_str().unwrap()]);
    let replayed = told(&replayed);
    for shown in ["ssh web-1", "echo plain; echo error >&2", "  plain\n", "  error\n", "exit 0"] {
        assert!(replayed.contains(shown), "{shown}: {replayed}");
    }
    let shown = told(&portcullis(&["replay", terminal.to_str().unwrap()]));
    assert!(!shown.contains('\x1b') && shown.contains("\\x1b]52"), "{shown}");

    let export = |path: &std::path::Path| {
        portcullis(&["recording", "export", path.to_str().unwrap(), "--format", "asciicast"])
    };
    let cast = export(terminal);
    assert!(cast.status.success(), "{}", told(&cast));
    let lines: Vec<serde_json::Value> = String::from_utf8(cast.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((&lines[0]["version"], &lines[0]["title"]), (&2.into(), &"agent on web-1".into()));
    let output: String = lines[1..].iter().filter_map(|line| line[2].as_str()).collect();
    assert!(output.contains("\x1b[31mred\x1b[0m end"), "{output:?}");
    assert!(!output.contains("52;c") && !output.contains("title"), "{output:?}");
    let none = export(plain);
    assert!(!none.status.success() && told(&none).contains("no terminal"), "{}", told(&none));
}

#[test]
fn lines_typed_into_a_shell_are_found_and_passwords_are_not() {
    let site = Site::new("[[mask]]\nname = \"pii\"\npatterns = [\"email\"]\n");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("PS1='ready-\\#> ' bash --norc --noprofile -i");
    let mut shell = Conversation::start(ssh);
    let mut says = |typed: &str, wanted: &str| {
        shell.wait_for(wanted);
        shell.types(typed);
    };
    says("echo needle-ax\x7f\x7fz $((40 + 2)) a@example.com\n", "ready-1> ");
    says("read -s -p 'Word: ' word\n", "ready-2> ");
    says("hunter2\n", "Word: ");
    says("echo over-$((40 + 3))\n", "ready-3> ");
    says("exit\n", "ready-4> ");
    let (code, seen) = shell.end();
    assert_eq!(code, Some(0), "{seen}");
    let recorded = site.recorded("\"what\":\"typed\"");
    assert!(!recorded.contains("hunter2") && !recorded.contains("a@example"), "{recorded}");
    let config = site.gateway.configuration();
    let config = config.to_str().unwrap();
    let id = site.gateway.recordings()[0].file_stem().unwrap().to_str().unwrap().to_owned();
    let mut shown = String::new();
    wait_until("the lines in the index", || {
        shown = told(&portcullis(&["session", "show", &id, "--json", "--config", config]));
        shown.contains("over-")
    });
    let wanted = "-i\\necho needle-z $((40 + 2)) [email]\\nread -s -p 'Word: ' word\\n\
                  echo over-$((40 + 3))\\nexit\"";
    assert!(shown.contains(wanted), "{shown}");
    site.finish();
}
