//! What rules say to SSH commands, and what clients see of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::daemon::wait_until;
use crate::support::gateway::told;
use crate::support::ssh::{Site, Sshd, fed};

/// A closed list of what may run.
const ALLOW_LIST: &str = r#"
[[rule]]
name = "may-run"
actions = ["ssh.exec"]
objects = ["program:/usr/bin/id", "program:/bin/ls", "program:/usr/bin/true"]
when = 'effect.simple'
verdict = "allow"
"#;

#[test]
fn a_blocked_command_is_told_on_stderr_with_126_and_the_connection_lives() {
    let site = Site::with(Sshd::shared(), "default = \"block\"", ALLOW_LIST);
    let control = site.path("control");
    let control = format!("ControlPath={}", control.display());
    let ssh = || {
        let mut ssh = site.ssh();
        ssh.args(["-o", &control, "-o", "ControlMaster=auto", "-o", "ControlPersist=20"]);
        ssh
    };
    // The connection that stays must not keep this test's pipes open.
    let mut first = ssh();
    first.arg("/usr/bin/id").stdout(Stdio::null()).stderr(Stdio::null());
    assert!(first.status().unwrap().success());
    let marker = site.path("marker");
    for line in [
        format!("touch {}", marker.display()),
        format!("/usr/bin/id; touch {}", marker.display()),
        format!("/usr/bin/id > {}", marker.display()),
        format!("/usr/bin/id\ntouch {}", marker.display()),
        "LD_PRELOAD=/tmp/x.so /usr/bin/id".to_owned(),
        "id".to_owned(),
    ] {
        let output = ssh().arg(&line).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{line}: {}", told(&output));
        assert_eq!(output.stdout, b"");
        assert!(told(&output).contains("portcullis: No rule allows it"), "{}", told(&output));
        assert!(!marker.exists(), "{line} ran");
        let after = ssh().arg("/usr/bin/id").output().unwrap();
        assert!(after.status.success(), "after {line}: {:?} {}", after.status, told(&after));
    }
    let _gone = ssh().args(["-O", "exit"]).output().unwrap();
    assert_eq!(site.gateway.recordings().len(), 1, "it was one connection");
    let recorded = site.recorded("\"verdict\":\"block\"");
    assert!(recorded.contains("\"rules\":[\"may-run\"]"), "{recorded}");
    site.finish();
}

#[test]
fn a_program_that_runs_what_its_folder_says_is_allowed_as_a_whole_line_or_not() {
    let programs = "[[rule]]\nname = \"programs\"\nactions = [\"ssh.exec\"]\n\
                    objects = [\"program:/usr/bin/git\", \"program:/usr/bin/make\", \"program:/usr/bin/npm\"]\n\
                    when = 'effect.simple'\nverdict = \"allow\"\n";
    let line = "[[rule]]\nname = \"one-line\"\nactions = [\"ssh.exec\"]\n\
                text = '^/usr/bin/git --no-pager version --build-options$'\nverdict = \"allow\"\n";
    let site = Site::with(Sshd::shared(), "default = \"block\"", &format!("{programs}{line}"));
    let (folder, marker) = (site.path("in"), site.path("marker"));
    fs::create_dir(&folder).unwrap();
    let mut git = Command::new("git");
    assert!(git.args(["init", "-q"]).arg(&folder).status().unwrap().success());
    let monitor = format!("touch {}; false", marker.display());
    let mut git = Command::new("git");
    git.arg("-C").arg(&folder).args(["config", "core.fsmonitor", &monitor]);
    assert!(git.status().unwrap().success());
    fs::write(folder.join("Makefile"), format!("all:\n\ttouch {}\n", marker.display())).unwrap();
    // It would run.
    let mut git = Command::new("git");
    git.arg("-C").arg(&folder).arg("status").stdout(Stdio::null()).stderr(Stdio::null());
    assert!(git.status().unwrap().success() && marker.exists());
    fs::remove_file(&marker).unwrap();
    let folder = folder.display();
    for line in [
        format!("/usr/bin/git -C {folder} status"),
        format!("/usr/bin/git -C {folder} diff"),
        format!("/usr/bin/make -C {folder}"),
        "/usr/bin/make".to_owned(),
        format!("/usr/bin/npm --prefix {folder} test"),
    ] {
        let output = site.run(&line);
        assert_eq!(output.status.code(), Some(126), "{line}: {}", told(&output));
        assert!(!marker.exists(), "{line} ran what the folder says");
    }
    assert!(site.run("/usr/bin/git --version").status.success());
    assert!(site.run("/usr/bin/git --no-pager version --build-options").status.success());
    site.finish();
}

#[test]
fn each_channel_is_judged_by_itself() {
    let site = Site::with(Sshd::shared(), "default = \"block\"", ALLOW_LIST);
    assert!(site.run("/usr/bin/id -u").status.success());
    let shell = site.ssh().output().unwrap();
    assert_eq!(shell.status.code(), Some(126), "{}", told(&shell));
    let terminal = site.ssh().arg("-tt").output().unwrap();
    assert_eq!(terminal.status.code(), Some(126), "{}", told(&terminal));
    let mut sftp = site.program("sftp");
    sftp.args(site.proved()).args(["-P", &site.port().to_string(), "web-1@127.0.0.1"]);
    let sftp = sftp.output().unwrap();
    assert!(!sftp.status.success() && told(&sftp).contains("portcullis: "), "{}", told(&sftp));
    site.finish();
}

#[test]
fn a_rules_reason_is_told() {
    let rule = "[[rule]]\nname = \"no-shells\"\nactions = [\"ssh.shell\"]\nverdict = \"block\"\n\
                reason = \"Run commands one by one.\"\n";
    let site = Site::new(rule);
    let output = site.ssh().output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert!(told(&output).contains("Run commands one by one."), "{}", told(&output));
    assert_eq!(site.stdout("echo fine"), "fine\n");
}

#[test]
fn a_blocked_sftp_operation_is_permission_denied_and_the_connection_lives() {
    let site = Site::new(
        "[[rule]]\nname = \"keep-out\"\nactions = [\"sftp.*\"]\nobjects = [\"file:*/secret/*\"]\n\
         verdict = \"block\"\nreason = \"Not these.\"\n\
         [[rule]]\nname = \"read-only\"\nactions = [\"sftp.remove\"]\nverdict = \"block\"\n",
    );
    fs::create_dir_all(site.path("far/secret")).unwrap();
    site.write("far/secret/a", "hidden");
    site.write("far/b", "open");
    let far = site.path("far").display().to_string();
    let got = |name: &str| site.path(name).display().to_string();
    site.write(
        "batch",
        &format!(
            "-get {far}/secret/a {}\n-rename {far}/secret/a {far}/moved\n\
             -ln -s {far}/secret/a {far}/link\n-put {} {far}/secret/new\n-rm {far}/b\n\
             get {far}/b {}\n",
            got("stolen"),
            got("token"),
            got("b"),
        ),
    );
    let mut sftp = site.program("sftp");
    sftp.args(site.proved()).args(["-P", &site.port().to_string(), "-b"]);
    sftp.arg(site.path("batch")).arg("web-1@127.0.0.1");
    let output = sftp.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("Permission denied"), "{}", told(&output));
    assert_eq!(fs::read_to_string(got("b")).unwrap(), "open");
    for absent in ["stolen", "far/moved", "far/link", "far/secret/new"] {
        assert!(!site.path(absent).exists(), "{absent}");
    }
    assert!(site.path("far/secret/a").exists() && site.path("far/b").exists());
    let recorded = site.recorded("keep-out");
    assert!(!recorded.contains("hidden"));
    site.finish();
}

#[test]
fn nothing_is_forwarded_and_the_attempt_is_recorded() {
    let site = Site::new("");
    let beyond = TcpListener::bind("127.0.0.1:0").unwrap();
    beyond.set_nonblocking(true).unwrap();
    let there = beyond.local_addr().unwrap();
    // ssh -W: a connection through the target.
    let mut ssh = site.ssh();
    let output = ssh.args(["-W", &there.to_string()]).output().unwrap();
    assert!(!output.status.success(), "{}", told(&output));
    // -R: a port on the target.
    let mut ssh = site.ssh();
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-R", &format!("0:{there}"), "true"]);
    assert!(!ssh.output().unwrap().status.success());
    // A Unix socket each way, the agent, X11.
    let mut ssh = site.ssh();
    let socket = site.path("socket").display().to_string();
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-R", &format!("{socket}:{there}"), "true"]);
    assert!(!ssh.output().unwrap().status.success());
    assert!(!site.path("socket").exists());
    let agent = Agent::start(&site);
    let mut ssh = site.ssh();
    ssh.env("SSH_AUTH_SOCK", &agent.socket).args(["-A", "echo agent=$SSH_AUTH_SOCK"]);
    let output = ssh.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "agent=\n", "{}", told(&output));
    let recorded = site.recorded("forward:agent");
    assert!(recorded.contains(&format!("\"object\":\"forward:{there}\"")), "{recorded}");
    assert!(recorded.contains(&format!("forward:{socket}")), "{recorded}");
    assert!(beyond.accept().is_err(), "something came through");
    site.finish();
}

/// A running ssh-agent, for as long as this lives.
struct Agent {
    socket: String,
    child: std::process::Child,
}

impl Agent {
    fn start(site: &Site) -> Self {
        let socket = site.path("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the agent", || socket.exists());
        Self { socket: socket.display().to_string(), child }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[test]
fn policy_tests_and_explanations_read_command_lines() {
    let tests = r#"
[[test]]
identity = { user = "agent", groups = ["agents"] }
target = "web-1"
command = "/usr/bin/id -u"
expect = "allow"
rule = "may-run"

[[test]]
identity = { user = "agent", groups = ["agents"] }
target = "web-1"
command = "/usr/bin/id; reboot"
expect = "block"
"#;
    let site = Site::with(Sshd::shared(), "default = \"block\"", &format!("{ALLOW_LIST}{tests}"));
    let config = site.gateway.configuration();
    let config = config.to_str().unwrap();
    let passed = crate::support::gateway::portcullis(&["policy", "test", "--config", config]);
    assert!(passed.status.success(), "{}", told(&passed));
    let arguments = ["policy", "explain", "--config", config, "--target", "web-1", "rm -rf /"];
    let explained = crate::support::gateway::portcullis(&arguments);
    assert!(told(&explained).contains("ssh.exec on program:rm"), "{}", told(&explained));
}

/// A server on loopback that says this to whoever connects, and what the first of them sent.
fn greeter(words: &'static [u8]) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(words).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    (port, heard)
}

#[test]
fn a_connection_through_the_target_passes_where_a_rule_names_it_and_is_recorded() {
    let (port, heard) = greeter(b"from-the-service");
    let site = Site::new(&format!(
        "[[rule]]\nname = \"the-service\"\nactions = [\"ssh.forward\"]\n\
         objects = [\"forward:127.0.0.1:{port}\"]\nverdict = \"allow\"\n"
    ));
    let through = |there: &str| {
        let mut ssh = site.ssh();
        ssh.args(["-W", there]);
        ssh
    };
    let output = fed(through(&format!("127.0.0.1:{port}")), b"to-the-service");
    assert_eq!(output.stdout, b"from-the-service", "{}", told(&output));
    assert_eq!(heard.join().unwrap(), b"to-the-service");

    // Another name of the same place is another object, and another port is another place.
    for other in [format!("localhost:{port}"), "127.0.0.1:9".to_owned()] {
        let output = fed(through(&other), b"");
        assert!(!output.status.success() && output.stdout.is_empty(), "{}", told(&output));
    }
    // The service is not there any more.
    let output = fed(through(&format!("127.0.0.1:{port}")), b"");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", told(&output));
    assert_eq!(site.stdout("echo on"), "on\n");
    site.finish();
    let recorded = String::from_utf8_lossy(&site.gateway.all_contents()).into_owned();
    for part in ["from-the-service", "to-the-service", "\"the-service\"", "unreachable"] {
        assert!(recorded.contains(part), "{part}");
    }
}
