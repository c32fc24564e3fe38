//! Hostile inputs, row by row: `tests/cases/ssh_cases.tsv`. What a row is about and what must come
//! of it stand there; here it is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::daemon::wait_until;
use crate::support::gateway::told;
use crate::support::ssh::{Site, Sshd, fed};

/// A row: its class, and its input with the escapes undone.
struct Case {
    class: String,
    input: String,
}

fn cases() -> BTreeMap<String, Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ssh_cases.tsv");
    let text = fs::read_to_string(file).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let input = fields[2]
            .replace("\\\\", "\u{1}")
            .replace("\\n", "\n")
            .replace("\\t", "\t")
            .replace("\\r", "\r")
            .replace('\u{1}', "\\");
        (fields[0].to_owned(), Case { class: fields[1].to_owned(), input })
    });
    rows.collect()
}

/// Where each row is held that is not done in this file.
const ELSEWHERE: &[(&str, &str)] = &[
    ("S01", "login::whoever_may_not_gets_one_and_the_same_refusal_and_reaches_nothing"),
    ("S03", "login::the_methods_are_told_and_none_alone_is_not_enough"),
    ("S11", "login::a_target_that_shows_another_host_key_is_not_trusted"),
    ("S13", "clients::asyncssh_works_through_the_gateway"),
    ("S15", "policy::each_channel_is_judged_by_itself"),
    ("S17", "channels::a_flood_of_channels_is_refused_and_the_connection_lives"),
    ("S21", "exec::output_errors_and_exit_codes_come_through_as_they_are"),
    ("S23", "exec::input_passes_whole_and_its_end_is_not_the_channels_end"),
    ("S27", "clients::paramiko_works_through_the_gateway; break is not relayed"),
    ("S31", "policy::nothing_is_forwarded_and_the_attempt_is_recorded"),
    ("S33", "policy::nothing_is_forwarded_and_the_attempt_is_recorded"),
    ("S37", "transfer::scp_copies_both_ways_in_both_protocols; decode::shell's tests"),
    ("S39", "exec::only_harmless_environment_passes_and_the_run_is_taken"),
    ("K01", "recording::what_is_typed_is_stored_as_its_length_and_its_echo_as_output"),
    ("K03", "replay's own tests"),
    ("S05", "device::answers_to_no_question_are_refused"),
    ("S07", "clients::odd_windows_and_sizes_and_changing_users_stall_nobody"),
    ("S09", "login::halves_of_proofs_open_nothing_on_this_connection_or_the_next"),
    ("S19", "clients::odd_windows_and_sizes_and_changing_users_stall_nobody"),
];

#[test]
fn every_row_is_held_somewhere() {
    let here = ["exec-filter", "pty-line-editing"];
    let rest = ["S25", "S28", "S30", "S35", "K05", "K06", "K08"];
    for (id, case) in cases() {
        let held = here.contains(&case.class.as_str())
            || rest.contains(&id.as_str())
            || ELSEWHERE.iter().any(|(other, _)| *other == id);
        assert!(held, "{id} ({}) is held by no test", case.class);
    }
}

/// Only these may run, and only as they are.
const ALLOW_LIST: &str = r#"
[[rule]]
name = "may-run"
actions = ["ssh.exec"]
objects = ["program:/bin/ls", "program:/usr/bin/id"]
when = 'effect.simple'
verdict = "allow"
"#;

#[test]
fn no_way_to_write_rm_gets_past_a_closed_list() {
    let site = Site::with(Sshd::shared(), "default = \"block\"", ALLOW_LIST);
    let victim = site.path("victim");
    let mut tried = 0;
    for (id, case) in cases().iter().filter(|(_, case)| case.class == "exec-filter") {
        fs::write(&victim, "content").unwrap();
        let line = case.input.replace("VICTIM", victim.to_str().unwrap());
        let output = site.run(&line);
        assert_eq!(output.status.code(), Some(126), "{id} {line:?}: {}", told(&output));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "content", "{id} {line:?}");
        tried += 1;
    }
    assert!(tried >= 18, "{tried}");
    // K06: the closed grammar itself.
    let folder = site.folder.path().display().to_string();
    assert!(site.run(&format!("/bin/ls -la {folder}")).status.success());
    for bad in [
        "/bin/ls -la /tmp;id",
        "/bin/ls *",
        "/bin/ls ~",
        "/bin/ls $HOME",
        "/bin/ls \"$HOME\"",
        "/bin/ls > x",
        "ls -la",
        "/bin/sh",
    ] {
        assert_eq!(site.run(bad).status.code(), Some(126), "{bad}");
    }
    site.finish();
}

#[test]
fn what_outlives_its_command_is_in_no_recording_and_a_closed_list_lets_nothing_out() {
    // K05: where anything may run, the command line is all that is known of it.
    let site = Site::new("");
    let (go, late) = (site.path("go"), site.path("late"));
    let (go, late) = (go.display().to_string(), late.display().to_string());
    let waits = format!("sh -c 'until test -e {go}; do sleep 0.05; done; echo out >>{late}'");
    let escapes = [
        format!("nohup {waits} >/dev/null 2>&1 &"),
        format!("setsid {waits} >/dev/null 2>&1 </dev/null &"),
        format!("({waits} &) >/dev/null 2>&1 </dev/null"),
    ];
    for line in &escapes {
        assert!(site.run(line).status.success(), "{line}");
    }
    site.finish();
    let recorded = String::from_utf8_lossy(&site.gateway.all_contents()).into_owned();
    assert!(recorded.contains("nohup sh -c") && recorded.contains("exit 0"), "{recorded}");
    assert!(!site.path("late").exists());
    // All recordings are sealed, and they act only now.
    site.write("go", "");
    let acted = || fs::read_to_string(site.path("late")).unwrap_or_default();
    wait_until("what was left behind", || acted() == "out\n".repeat(escapes.len()));
    // With a closed list none of them starts, nor what starts others at another time.
    let site = Site::with(Sshd::shared(), "default = \"block\"", ALLOW_LIST);
    let at = ["at now", "batch", "crontab -", "systemd-run --user true", "nohup /usr/bin/id"];
    let others = at.map(str::to_owned).into_iter().chain([
        "/usr/bin/id &".to_owned(),
        "nohup /usr/bin/id &".to_owned(),
        "/usr/bin/nohup /usr/bin/id".to_owned(),
    ]);
    for line in escapes.into_iter().chain(others) {
        assert_eq!(site.run(&line).status.code(), Some(126), "{line}");
    }
    site.finish();
}

#[test]
fn an_interpreters_input_is_more_commands_and_a_closed_list_has_no_interpreters() {
    // K08.
    let site = Site::with(Sshd::shared(), "default = \"block\"", ALLOW_LIST);
    let marker = site.path("marker");
    let input = format!("touch {}\n", marker.display());
    let interpreters =
        ["sh", "bash -s", "/bin/bash -s", "/bin/sh", "psql", "python3 -", "/usr/bin/python3 -"];
    for line in interpreters {
        let mut ssh = site.ssh();
        ssh.arg(line);
        assert_eq!(fed(ssh, input.as_bytes()).status.code(), Some(126), "{line}");
    }
    // A program that reads no commands takes none from its input.
    let mut ssh = site.ssh();
    ssh.arg("/usr/bin/id");
    assert!(fed(ssh, input.as_bytes()).status.success());
    assert!(!marker.exists());
    site.finish();
    // Whoever allows one allows what it reads: that is recorded, and not decided.
    let shell = "[[rule]]\nname = \"a-shell\"\nactions = [\"ssh.exec\"]\n\
                 objects = [\"program:/bin/sh\"]\nwhen = 'effect.simple'\nverdict = \"allow\"\n";
    let site = Site::with(Sshd::shared(), "default = \"block\"", shell);
    let mut ssh = site.ssh();
    ssh.arg("/bin/sh");
    assert!(fed(ssh, input.as_bytes()).status.success());
    assert!(marker.exists());
    assert!(site.recorded(&input).contains("\"rules\":[\"a-shell\"]"));
    site.finish();
}

#[test]
fn a_comment_is_no_command() {
    // E35: nothing forbids it, it runs, and the comment does nothing.
    let site = Site::new("");
    let victim = site.path("victim");
    fs::write(&victim, "content").unwrap();
    let line = cases()["E35"].input.replace("VICTIM", victim.to_str().unwrap());
    assert!(site.run(&line).status.success());
    assert!(victim.exists());
}

#[test]
fn what_is_typed_into_a_shell_is_recorded_and_only_the_shell_is_decided() {
    // The L rows: none of these could be found by looking at what is typed.
    let site = Site::new("");
    let victim = site.path("victim");
    fs::write(&victim, "content").unwrap();
    let mut ssh = site.ssh();
    ssh.arg("-tt");
    let typed = format!("r\\\nm {}\nexit\n", victim.display());
    assert!(fed(ssh, typed.as_bytes()).status.success());
    assert!(!victim.exists());
    site.finish();
    let no_shells = "[[rule]]\nname = \"no-shells\"\nactions = [\"ssh.shell\"]\n\
                     verdict = \"block\"\n";
    let site = Site::new(no_shells);
    fs::write(&victim, "content").unwrap();
    let mut ssh = site.ssh();
    ssh.arg("-tt");
    assert_eq!(fed(ssh, typed.as_bytes()).status.code(), Some(126));
    assert!(victim.exists());
    site.finish();
}

#[test]
fn keys_are_exchanged_again_under_load() {
    // S25.
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.args(["-o", "RekeyLimit=1M", "cat"]);
    let bytes = crate::support::random::bytes(30_000_000);
    let output = fed(ssh, &bytes);
    assert!(output.status.success() && output.stdout == bytes, "{}", output.stdout.len());
    site.finish();
}

/// Connects as bare TCP, and reads the gateway's greeting.
fn bare(site: &Site) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", site.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

#[test]
fn only_sound_algorithms_are_offered() {
    // S28.
    let site = Site::new("");
    let mut socket = bare(&site);
    socket.write_all(b"SSH-2.0-test\r\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("kex-strict-s-v00@openssh.com") {
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    let offered = String::from_utf8_lossy(&seen).into_owned();
    for absent in ["sha1,", "sha1-", "chacha20", "cbc", "ssh-rsa", "ssh-dss", "md5"] {
        assert!(!offered.contains(absent), "{absent}: {offered}");
    }
    assert!(offered.contains("aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr"));
}

#[test]
fn endless_and_wrong_greetings_are_dropped_and_others_are_served() {
    // S30.
    let site = Site::new("");
    for greeting in [
        vec![b'x'; 1_000_000],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-1.5-old\r\n".to_vec(),
        [b"SSH-2.0-".to_vec(), vec![b'a'; 100_000]].concat(),
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14".to_vec(),
    ] {
        let mut socket = bare(&site);
        // It may be dropped while this is sent.
        let _dropped = socket.write_all(&greeting);
        let _dropped = socket.shutdown(std::net::Shutdown::Write);
        let began = Instant::now();
        let _dropped = socket.read_to_end(&mut Vec::new());
        assert!(began.elapsed() < Duration::from_secs(40), "{greeting:?} is held");
    }
    // One that says nothing stands beside.
    let _silent = bare(&site);
    assert_eq!(site.stdout("echo served"), "served\n");
    assert!(site.gateway.daemon().is_alive());
    site.finish();
}

#[test]
fn tunnels_are_refused() {
    // S35.
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.args(["-o", "Tunnel=point-to-point", "-o", "ExitOnForwardFailure=yes", "-w", "any:any"]);
    assert!(!ssh.arg("true").output().unwrap().status.success());
    site.finish();
}
