//! Commands, shells and terminals of ordinary ssh.

use crate::support::gateway::told;
use crate::support::ssh::{Site, Sshd, fed};

#[test]
fn output_errors_and_exit_codes_come_through_as_they_are() {
    let site = Site::new("");
    let output = site.run("echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    for code in [0, 1, 126, 255] {
        assert_eq!(site.run(&format!("exit {code}")).status.code(), Some(code));
    }
    // A signal has no exit code; ssh says 255 for it, here as directly.
    let direct = Sshd::shared().ssh().arg("kill -9 $$").output().unwrap();
    let through = site.run("kill -9 $$");
    assert_eq!(through.status.code(), direct.status.code());
    let recorded = site.recorded("\"status\":\"exit 7\"");
    assert!(recorded.contains("\"status\":\"signal KILL\""), "{recorded}");
    site.finish();
}

#[test]
fn input_passes_whole_and_its_end_is_not_the_channels_end() {
    let site = Site::new("");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut ssh = site.ssh();
    ssh.arg("cat | wc -c; sleep 0.2; echo after");
    let output = fed(ssh, &bytes);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1000000\nafter\n", "{}", told(&output));
    let mut ssh = site.ssh();
    ssh.arg("cat");
    assert!(fed(ssh, &bytes).stdout == bytes, "bytes were changed");
    site.finish();
}

#[test]
fn a_large_output_is_the_same_and_a_client_that_leaves_ends_it() {
    let site = Site::new("");
    let output = site.run("head -c 50000000 /dev/zero | tr '\\0' x");
    assert_eq!(output.stdout.len(), 50_000_000);
    assert!(output.stdout.iter().all(|byte| *byte == b'x'));
    let mut ssh = site.ssh();
    ssh.arg("yes").stdout(std::process::Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut some = [0; 1000];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    site.finish();
}

#[test]
fn a_terminal_has_its_kind_and_what_is_typed_reaches_the_shell() {
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("tty; echo $TERM; stty size").env("TERM", "xterm-256color");
    let output = ssh.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/dev/pts/") && text.contains("xterm-256color"), "{}", told(&output));

    let mut ssh = site.ssh();
    ssh.arg("-tt");
    let output = fed(ssh, b"echo typed-$((40 + 2))\nexit 5\n");
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("typed-42"));
    site.finish();
}

#[test]
fn a_shell_without_a_terminal_reads_its_input() {
    let site = Site::new("");
    let output = fed(site.ssh(), b"echo from-the-shell\nexit 3\n");
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(output.stdout.ends_with(b"from-the-shell\n"));
    site.finish();
}

#[test]
fn only_harmless_environment_passes_and_the_run_is_taken() {
    let site = Site::new("");
    let mut ssh = site.ssh();
    ssh.env("LC_TIME", "C.UTF-8")
        .env("LD_PRELOAD_X", "x")
        .env("BASH_ENV", "/tmp/evil")
        .env("LC_ALL", "$(id)")
        .env("PORTCULLIS_WORKFLOW", "billing")
        .env("PORTCULLIS_RUN", "run-7")
        .args(["-o", "SendEnv=LC_* BASH_ENV PORTCULLIS_*"])
        .arg("env");
    let output = ssh.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("LC_TIME=C.UTF-8"), "{}", told(&output));
    for absent in ["BASH_ENV", "LC_ALL", "PORTCULLIS_"] {
        assert!(!text.contains(absent), "{absent} passed: {text}");
    }
    let recorded = site.recorded("\"workflow\":{\"name\":\"billing\",\"proved\":false}");
    assert!(recorded.contains("\"run\":{\"name\":\"run-7\",\"proved\":false}"), "{recorded}");
    site.finish();
}

#[test]
fn a_target_that_cannot_be_reached_is_said_on_standard_error() {
    let sshd = Sshd::start();
    let target = sshd.target("web-1", "");
    drop(sshd);
    let site = Site::set_up(&target, crate::support::gateway::Setup::default());
    let output = site.run("id");
    assert_eq!(output.status.code(), Some(255));
    assert!(told(&output).contains("target \"web-1\" cannot be reached"), "{}", told(&output));
    site.recorded("unreachable");
    site.finish();
}
