//! Logging in with a browser: ssh shows an address and a code, and waits.

use std::process::Command;
use std::sync::Arc;

use crate::support::client::{clients_folder, venv};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Setup, told};
use crate::support::issuer::Issuer;
use crate::support::ssh::{Conversation, Site, Sshd};

/// A gateway whose issuer knows people, and lets them log in with codes.
fn before(sshd: &Sshd) -> Site {
    let setup = Setup {
        issuer: Some(Arc::new(Issuer::for_pages("http://127.0.0.1:1"))),
        issuer_lines: "client_id = \"portcullis\"".to_owned(),
        ..Setup::default()
    };
    Site::set_up(&sshd.target("web-1", ""), setup)
}

/// ssh that logs in with a browser or not at all.
fn ssh(site: &Site, methods: &str) -> Command {
    let mut ssh = site.program("ssh");
    // What is shown is information to ssh, not an error.
    let options = site.options().into_iter();
    ssh.args(options.map(|option| option.replace("LogLevel=ERROR", "LogLevel=INFO")));
    ssh.args(["-o", &format!("PreferredAuthentications={methods}")]);
    ssh.args(["-p", &site.port().to_string(), "web-1@127.0.0.1"]);
    ssh
}

/// What is shown: where to go, and the code.
fn shown(conversation: &Conversation) -> (String, String) {
    conversation.wait_for("This waits until that is done.");
    let seen = conversation.seen();
    let between = |before: &str, after: &str| {
        let rest = seen.split_once(before).unwrap().1;
        rest.split_once(after).unwrap().0.trim().to_owned()
    };
    (between("open ", "\n"), between("the code ", "."))
}

#[test]
fn who_logs_in_with_the_code_gets_in() {
    let site = before(Sshd::shared());
    let mut command = ssh(&site, "keyboard-interactive");
    command.arg("-tt").arg("echo in; read line; echo got $line");
    let mut conversation = Conversation::start(command);
    let (address, code) = shown(&conversation);
    assert_eq!(address, format!("{}/device", site.gateway.issuer().url()));
    site.gateway.issuer().approve(&code, "sam");
    conversation.wait_for("in\r\n");
    conversation.types("typed\n");
    let (status, seen) = conversation.end();
    assert_eq!(status, Some(0), "{seen}");
    assert!(seen.contains("got typed"), "{seen}");
    let recorded = site.recorded("echo in");
    assert!(recorded.contains("\"username\":\"sam\""), "{recorded}");
    assert!(!recorded.contains(&code), "the code is recorded");
    site.finish();
}

#[test]
fn who_has_no_access_or_is_denied_is_told_what_everybody_is() {
    let sshd = Sshd::start();
    let site = before(&sshd);
    for (user, reason) in [(Some("audrey"), "no access rule names"), (None, "denied at the issuer")]
    {
        let mut command = ssh(&site, "keyboard-interactive");
        command.arg("id");
        let conversation = Conversation::start(command);
        let (_, code) = shown(&conversation);
        match user {
            Some(user) => site.gateway.issuer().approve(&code, user),
            None => site.gateway.issuer().deny(&code),
        }
        let (status, seen) = conversation.end();
        assert_eq!(status, Some(255), "{seen}");
        assert!(
            seen.contains("Permission denied (publickey,password,keyboard-interactive)"),
            "{seen}"
        );
        let log = site.gateway.daemon().wait_for_log(reason);
        assert!(log.contains("access denied"), "{log}");
    }
    assert!(!sshd.log().contains("Connection from"), "{}", sshd.log());
    site.finish();
}

#[test]
fn a_client_that_leaves_is_waited_for_no_longer() {
    let site = before(Sshd::shared());
    let open = || {
        let pid = site.gateway.daemon().pid().as_raw_nonzero();
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let before = open();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut command = ssh(&site, "keyboard-interactive");
            command.arg("id");
            Conversation::start(command)
        })
        .collect();
    waiting.iter().for_each(|conversation| {
        shown(conversation);
    });
    assert!(open() >= before + 8);
    waiting.into_iter().for_each(Conversation::kill);
    wait_until("the gateway to notice", || open() < before + 8);
    // A token goes in beside.
    let output = site.ssh_with_password("web-1", &site.path("token")).arg("echo in").output();
    assert_eq!(output.unwrap().stdout, b"in\n");
    site.finish();
}

#[test]
fn answers_to_no_question_are_refused() {
    let site = before(Sshd::shared());
    let mut python = site.program(venv().join("bin/python").to_str().unwrap());
    python.arg("-B").arg(clients_folder().join("paramiko_interactive.py"));
    let output = python.args(["127.0.0.1", &site.port().to_string(), "web-1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "refused 1 True\n".repeat(3), "{}", told(&output));
    site.finish();
}
