//! Programs that bring an SSH implementation of their own, unchanged.

use std::fs;
use std::process::Command;

use crate::support::client::{clients_folder, venv};
use crate::support::gateway::told;
use crate::support::ssh::{Site, Sshd};

pub fn python(site: &Site, program: &str) -> String {
    let mut python = site.program(venv().join("bin/python").to_str().unwrap());
    python
        .arg("-B")
        .arg(clients_folder().join(program))
        .args(["127.0.0.1", &site.port().to_string(), "web-1"])
        .arg(site.path("known_hosts"))
        .arg(site.key())
        .arg(site.folder.path());
    let output = python.output().expect("scripts/prepare installs what tests need");
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn paramiko_works_through_the_gateway() {
    let site = Site::new("");
    let said = python(&site, "paramiko_client.py");
    let answers: Vec<String> = (0..8).map(|n| format!("({n}, b'{n}\\n', b'')")).collect();
    let expected = [
        "(3, b'out\\n', b'err\\n')",
        "(0, b'300000\\n', b'')",
        &format!("[{}]", answers.join(", ")),
        "same True",
        "700000 True",
        "gone 2",
        "b'40 100\\r\\n50 120\\r\\n' 0",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    site.finish();
}

#[test]
fn asyncssh_works_through_the_gateway() {
    let site = Site::new("");
    let said = python(&site, "asyncssh_client.py");
    let numbers: Vec<String> = (0..10).map(|n| format!("('{n}\\n', {n})")).collect();
    assert!(said.starts_with(&format!("[{}]\n", numbers.join(", "))), "{said}");
    // sshd that runs its sessions as root passes no signals on, and says so.
    let root = rustix::process::geteuid().is_root();
    assert!(root || said.contains("signal ('TERM', "), "{said}");
    assert!(said.contains("killed ('KILL', "), "{said}");
    assert!(said.ends_with("exists False\nsame True\n"), "{said}");
    site.recorded("\"status\":\"signal KILL\"");
    assert!(!root || Sshd::shared().log().contains("session signalling requires"), "no signal");
    site.finish();
}

#[test]
fn ansible_pings_and_copies() {
    let site = Site::new("");
    let options = site.proved().join(" ");
    site.write(
        "inventory",
        &format!(
            "far ansible_host=127.0.0.1 ansible_port={} ansible_user=web-1 \
             ansible_python_interpreter={}\n\
             [all:vars]\nansible_ssh_common_args='{options} -o ControlMaster=auto \
             -o ControlPersist=5 -o ControlPath={}/cm-%%h'\n",
            site.port(),
            venv().join("bin/python").display(),
            site.folder.path().display(),
        ),
    );
    site.write("playbook_file", "content");
    let ansible = |arguments: &[&str]| {
        let mut ansible = Command::new(venv().join("bin/python"));
        let output = ansible
            .args(["-m", "ansible", "adhoc", "far", "-i"])
            .arg(site.path("inventory"))
            .args(arguments)
            .env("HOME", site.folder.path())
            .env("ANSIBLE_LOCAL_TEMP", site.path("ansible"))
            .env("ANSIBLE_REMOTE_TEMP", site.path("ansible-far"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", told(&output));
        told(&output)
    };
    assert!(ansible(&["-m", "ping"]).contains("pong"));
    let (from, to) = (site.path("playbook_file"), site.path("copied"));
    let arguments = format!("src={} dest={}", from.display(), to.display());
    ansible(&["-m", "copy", "-a", &arguments]);
    assert_eq!(fs::read_to_string(to).unwrap(), "content");
    site.finish();
}

#[test]
fn odd_windows_and_sizes_and_changing_users_stall_nobody() {
    let site = Site::new("");
    let said = python(&site, "paramiko_hostile.py");
    println!("{said}");
    for row in ["window ", "size 0 ", "size 1 ", "size 4294967295 ", "unopened "] {
        assert!(said.contains(row), "{row}: {said}");
    }
    // Who was refused under one name may try the right one, or is disconnected.
    assert!(said.contains("other False\nown ") && !said.contains("in\n"), "{said}");
    assert_eq!(site.stdout("echo served"), "served\n");
    assert!(site.gateway.daemon().is_alive());
    assert!(!site.gateway.daemon().log().contains("panic"), "{}", site.gateway.daemon().log());
    site.finish();
}
