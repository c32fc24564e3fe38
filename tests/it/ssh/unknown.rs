//! Requests, channels, subsystems and operations on files that the gateway does not know.

use super::clients::python;
use crate::support::ssh::Site;

#[test]
fn requests_channels_and_operations_of_unknown_kind_are_refused() {
    let site = Site::new("");
    let said = python(&site, "paramiko_unknown.py");
    let expected = [
        "global made-up@example.com refused",
        "global hostkeys-prove-00@openssh.com refused",
        "channel made-up@example.com refused",
        "channel x11 refused",
        "channel forwarded-tcpip refused",
        "channel forwarded-streamlocal@openssh.com refused",
        "channel auth-agent@openssh.com refused",
        "channel tun@openssh.com refused",
        "request made-up@example.com refused",
        "request break refused",
        "request auth-agent-req@openssh.com refused",
        "request x11-req refused",
        "extension made-up@example.com OSError",
        "extension copy-file OSError",
        "stat found",
        "kind 77 ended",
        "kind 21 ended",
        "answer 105 ended",
        "after b'after\\n'",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert!(!site.gateway.daemon().log().contains("panic"));
    site.finish();
}

#[test]
fn a_subsystem_that_no_rule_names_is_refused_where_rules_allow() {
    let rules = "[[rule]]\nname = \"files\"\nactions = [\"ssh.subsystem\"]\n\
                 objects = [\"subsystem:sftp\"]\nverdict = \"allow\"\n";
    let site = Site::with(crate::support::ssh::Sshd::shared(), "default = \"block\"", rules);
    for name in ["made-up", "sftp ", "SFTP", "netconf"] {
        let mut ssh = site.ssh();
        let output = ssh.args(["-s", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{name}: {output:?}");
    }
    site.finish();
}
