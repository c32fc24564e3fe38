//! Masks of patterns on what SSH carries.

use std::fs;
use std::process::{Command, Output};

use crate::support::gateway::told;
use crate::support::ssh::{Conversation, Site, Sshd, fed};

const MASK: &str = r#"
[[mask]]
name = "pii"
patterns = ["email", "credit-card"]
"#;

/// Lifted for the agents that the tests are.
const LIFTED: &str = r#"
[[mask]]
name = "pii"
patterns = ["email", "credit-card"]
unless_groups = ["agents"]
"#;

const EMAIL: &str = "alice.secret@example.com";
const CARD: &str = "4111 1111 1111 1111";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends it, and makes sure that no secret is in a recording. What they hold.
fn finished(site: &Site) -> String {
    site.finish();
    let recorded = text(&site.gateway.all_contents());
    for secret in [EMAIL, "alice.secret", CARD] {
        assert!(!recorded.contains(secret), "{secret} is recorded: {recorded}");
    }
    let log = site.gateway.daemon().log();
    assert!(!log.contains("alice.secret"), "{log}");
    recorded
}

#[test]
fn secrets_in_output_are_masked_however_they_are_cut() {
    let site = Site::new(MASK);
    let line = "printf 'to alice.sec'; sleep 0.4; printf 'ret@exam'; sleep 0.4; \
                printf 'ple.com\\n'; printf '4111 1111 ' >&2; sleep 0.4; \
                printf '1111 1111' >&2; exit 3";
    let output = site.run(line);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert_eq!(text(&output.stdout), "to [email]\n");
    assert_eq!(text(&output.stderr), "[credit-card]");
    // Much of it, and no secret at all.
    let output = site.run("seq 1 200000 | tr '\\n' 'x'");
    let numbers: String = (1..=200_000).map(|n| format!("{n}x")).collect();
    assert!(text(&output.stdout) == numbers, "{} bytes", output.stdout.len());
    let line = format!("yes '{EMAIL} said nothing' | head -n 20000");
    let output = site.run(&line);
    assert!(text(&output.stdout) == "[email] said nothing\n".repeat(20_000));
    let recorded = finished(&site);
    assert!(recorded.contains("\"masked\":{\"patterns\":2}"), "{recorded}");
    assert!(recorded.contains("\"masked\":{\"patterns\":20000}"));
    assert!(recorded.contains("[email] said nothing'"), "the command's view");
}

#[test]
fn a_lifted_mask_is_lifted_for_the_client_and_never_for_the_recording() {
    let site = Site::new(LIFTED);
    let line = format!("echo {EMAIL}; printf '{CARD}' >&2");
    let output = site.run(&line);
    assert_eq!(text(&output.stdout), format!("{EMAIL}\n"));
    assert_eq!(text(&output.stderr), CARD);
    let recorded = finished(&site);
    assert!(recorded.contains("[email]") && recorded.contains("[credit-card]"), "{recorded}");
}

#[test]
fn what_is_asked_runs_as_it_is_and_is_recorded_as_it_may_be_seen() {
    let site = Site::new(MASK);
    assert_eq!(site.stdout(&format!("printf {EMAIL} | wc -c")), "24\n");
    let mut ssh = site.ssh();
    ssh.arg("wc -c");
    let output = fed(ssh, format!("first {EMAIL}\n{CARD}").as_bytes());
    assert_eq!(text(&output.stdout), "50\n", "{}", told(&output));
    let recorded = finished(&site);
    assert!(recorded.contains("\"exact\":\""), "a keyed hash binds what ran: {recorded}");
    assert!(recorded.contains("first [email]\n"), "{recorded}");
    assert!(recorded.contains("[credit-card]"), "the input's last bytes: {recorded}");
}

#[test]
fn a_prompt_is_never_held_back_and_a_secret_on_a_terminal_is_masked() {
    let site = Site::new(MASK);
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg(
        "printf 'name: '; read name; printf word; read other; \
         printf 'ali\\033[31mce.secret@exam\\033[0mple.com\\n'; echo $name $other",
    );
    let mut terminal = Conversation::start(ssh);
    terminal.wait_for("name: ");
    terminal.types("bob\n");
    // It could be the beginning of an address: it comes all the same.
    terminal.wait_for("word");
    terminal.types("carol\n");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("\x1b[31m\x1b[0m[email]\r\n"), "{seen:?}");
    assert!(seen.contains("bob carol\r\n"), "{seen:?}");
    let recorded = finished(&site);
    assert!(recorded.contains("\x1b[31m\x1b[0m[email]\r\n"), "{recorded:?}");
}

#[test]
fn what_is_typed_letter_by_letter_is_seen_at_once_and_recorded_masked() {
    let site = Site::new(MASK);
    let mut ssh = site.ssh();
    ssh.arg("-tt").arg("stty -echoctl; printf '> '; cat > /dev/null; echo over");
    let mut terminal = Conversation::start(ssh);
    terminal.wait_for("> ");
    for end in 1..=EMAIL.len() {
        terminal.types(&EMAIL[end - 1..end]);
        terminal.wait_for(&EMAIL[..end]);
    }
    terminal.types("\n\x04");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    let recorded = finished(&site);
    assert!(recorded.contains("[email]\r\n"), "{recorded:?}");
}

fn copied(site: &Site, program: &str, arguments: &[&str]) -> Output {
    let mut copy = site.program(program);
    copy.args(site.proved()).args(["-P", &site.port().to_string()]).args(arguments);
    copy.output().unwrap()
}

fn rsync(site: &Site, from: &str, to: &str) -> Output {
    let shell = format!("ssh -p {} {}", site.port(), site.proved().join(" "));
    site.program("rsync").args(["-a", "-e", &shell, from, to]).output().unwrap()
}

fn clone(site: &Site, repository: &str, into: &str) -> Output {
    let ssh = format!("ssh -p {} {}", site.port(), site.proved().join(" "));
    let url = format!("web-1@127.0.0.1:{repository}");
    let mut git = site.program("git");
    git.env("GIT_SSH_COMMAND", ssh).args(["clone", "-q", &url, into]).output().unwrap()
}

/// A folder of the target's with a file that holds secrets, and a repository with it.
fn far(site: &Site) -> String {
    let far = site.path("far").display().to_string();
    fs::create_dir(&far).unwrap();
    fs::write(format!("{far}/customers"), format!("{EMAIL}\n")).unwrap();
    let git = |arguments: &[&str]| {
        let mut git: Command = site.program("git");
        git.args(["-C", &far, "-c", "user.name=t", "-c", "user.email=t@t"]).args(arguments);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
    };
    git(&["init", "-q"]);
    git(&["add", "customers"]);
    git(&["commit", "-q", "-m", "one"]);
    far
}

#[test]
fn files_are_not_read_where_masks_are_in_force_and_may_be_written() {
    let site = Site::new(MASK);
    let far = far(&site);
    let (file, got) = (format!("web-1@127.0.0.1:{far}/customers"), site.path("got"));
    let near = got.to_str().unwrap();
    for output in [
        copied(&site, "scp", &[&file, near]),
        copied(&site, "scp", &["-O", &file, near]),
        rsync(&site, &file, near),
        clone(&site, &far, near),
    ] {
        let told = told(&output);
        assert!(!output.status.success(), "{told}");
        let said = told.contains("Files are masked here") || told.contains("Permission denied");
        assert!(said && !got.exists(), "{told}");
    }
    site.write("mine", "content");
    let mine = site.path("mine");
    let output =
        copied(&site, "scp", &[mine.to_str().unwrap(), &format!("web-1@127.0.0.1:{far}/mine")]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(fs::read_to_string(format!("{far}/mine")).unwrap(), "content");

    // A folder is listed, as long as no name in it is a secret.
    fs::create_dir(format!("{far}/people")).unwrap();
    fs::write(format!("{far}/people/{EMAIL}"), "").unwrap();
    site.write("batch", &format!("-ls {far}\n-ls {far}/people\n"));
    let batch = site.path("batch").display().to_string();
    let output = copied(&site, "sftp", &["-b", &batch, "web-1@127.0.0.1"]);
    assert!(output.status.success(), "{}", told(&output));
    let seen = told(&output);
    assert!(seen.contains("/customers") && !seen.contains("alice"), "{seen}");
    assert_eq!(site.stdout(&format!("cat {far}/customers")), "[email]\n");
    let recorded = finished(&site);
    assert!(recorded.contains("\"rules\":[\"pii\"]"), "{recorded}");
}

#[test]
fn where_the_mask_is_lifted_files_pass_and_only_their_lengths_are_recorded() {
    let site = Site::new(LIFTED);
    let far = far(&site);
    let file = format!("web-1@127.0.0.1:{far}/customers");
    let near = |name: &str| site.path(name).display().to_string();
    for output in [
        copied(&site, "scp", &[&file, &near("one")]),
        copied(&site, "scp", &["-O", &file, &near("two")]),
        rsync(&site, &file, &near("three")),
        clone(&site, &far, &near("four")),
        copied(&site, "scp", &[&near("one"), &format!("{file}.again")]),
    ] {
        assert!(output.status.success(), "{}", told(&output));
    }
    for name in ["one", "two", "three", "four/customers", "far/customers.again"] {
        assert_eq!(fs::read_to_string(site.path(name)).unwrap(), format!("{EMAIL}\n"), "{name}");
    }
    finished(&site);
}

#[test]
fn no_connection_is_forwarded_where_masks_are_in_force() {
    let allowed = "[[rule]]\nname = \"any\"\nactions = [\"ssh.forward\"]\nverdict = \"allow\"\n";
    let site = Site::new(&[MASK, allowed].concat());
    let mut ssh = site.ssh();
    ssh.args(["-W", &Sshd::shared().address()]);
    let output = fed(ssh, b"");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", told(&output));
    finished(&site);
    let site = Site::new(&[LIFTED, allowed].concat());
    let mut ssh = site.ssh();
    ssh.args(["-W", &Sshd::shared().address()]);
    let output = fed(ssh, b"");
    assert!(output.stdout.starts_with(b"SSH-2.0-"), "{}", told(&output));
    let greeting = text(&output.stdout);
    assert!(!finished(&site).contains(&*greeting), "what was forwarded is recorded");
}
