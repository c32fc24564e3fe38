//! Much of everything: bytes, commands, and kills while they run.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::kills::numbers;
use crate::support::client::{clients_folder, venv};
use crate::support::daemon::wait_until;
use crate::support::gateway::{portcullis, told};
use crate::support::random::{Random, amount};
use crate::support::ssh::{Site, Sshd};

/// What much of anything may add to an idle gateway's resident memory.
const BOUND: u64 = 64 << 20;

/// Numbers line by line, so many bytes.
fn much(megabytes: usize) -> String {
    format!("seq 1 400000000 | head -c {megabytes}000000")
}

fn hash_of(command: &str) -> String {
    let output = Command::new("sh").args(["-c", &format!("{command} | sha256sum")]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Runs this, in which SSH stands for ssh to the target.
fn script(site: &Site, line: &str) -> String {
    let ssh = format!("ssh {} -p {} web-1@127.0.0.1", site.proved().join(" "), site.port());
    let mut shell = site.program("sh");
    let output = shell.args(["-c", &line.replace("SSH", &ssh)]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn much_passes_both_ways_unchanged_and_does_not_grow_the_gateway() {
    let megabytes = amount("PORTCULLIS_SSH_BULK_MEGABYTES", 100);
    let site = Site::new("");
    assert_eq!(site.stdout("echo warm"), "warm\n");
    let idle = site.gateway.daemon().resident();
    let much = much(megabytes);
    let wanted = hash_of(&much);
    assert_eq!(script(&site, &format!("SSH '{much}' | sha256sum")), wanted, "out");
    assert_eq!(script(&site, &format!("{much} | SSH sha256sum")), wanted, "in");
    let far = site.path("far").display().to_string();
    script(&site, &format!("{much} | SSH 'cat > {far}'; SSH 'cat {far}' | cmp - {far}"));
    let grown = site.gateway.daemon().peak_resident().saturating_sub(idle);
    println!("{megabytes} MB four ways: {grown} bytes above idle");
    site.finish();
    assert!(grown < BOUND, "it took {grown} bytes");
}

fn load(site: &Site, command: &str, first: usize, count: usize, wide: usize) -> Command {
    let mut python = site.program(venv().join("bin/python").to_str().unwrap());
    python.arg("-B").arg(clients_folder().join("asyncssh_load.py"));
    python.args(["127.0.0.1", &site.port().to_string(), "web-1"]);
    python.arg(site.path("known_hosts")).arg(site.key()).arg(command);
    python.args([first, count, wide].map(|number| number.to_string()));
    python
}

#[test]
fn each_of_many_short_commands_has_its_own_answer_and_is_recorded() {
    let count = amount("PORTCULLIS_SSH_COMMANDS", 300);
    let site = Site::new("");
    assert_eq!(site.stdout("echo warm"), "warm\n");
    let idle = site.gateway.daemon().resident();
    let first = 700_000_000_000_000;
    let output = load(&site, "echo", first, count, 4).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let answered = numbers(&output.stdout);
    assert_eq!(answered.len(), count);
    let grown = site.gateway.daemon().peak_resident().saturating_sub(idle);
    println!("{count} commands: {grown} bytes above idle");
    site.finish();
    let recorded = String::from_utf8_lossy(&site.gateway.all_contents()).into_owned();
    assert!(answered.is_subset(&numbers(recorded.as_bytes())));
    for status in (0..200.min(count)).map(|status| format!("\"status\":\"exit {status}\"")) {
        assert!(recorded.contains(&status), "{status}");
    }
    let ended = recorded.matches("\"status\":\"exit ").count();
    assert_eq!(ended, count + 1, "each has its end");
    assert!(grown < BOUND, "it took {grown} bytes");
}

#[test]
fn whenever_the_gateway_is_killed_every_command_that_ran_is_recorded() {
    let sshd = Sshd::start();
    let mut site = Site::with(&sshd, "", "");
    let marks = site.path("marks");
    fs::write(&marks, "").unwrap();
    let mark = format!("sh -c 'echo $0 | tee -a {}'", marks.display());
    let (mut random, mut recorded, mut seen) = (Random::seeded(), BTreeSet::new(), BTreeSet::new());
    let rounds = amount("PORTCULLIS_SSH_KILL_ROUNDS", 5);
    for round in 0..rounds {
        let first = 700_000_000_000_000 + round * 1_000_000_000;
        let load = Load::start(&site, &mark, first);
        load.wait_for_answers(random.below(60) + 5);
        // So that the kill falls anywhere in a command's life.
        thread::sleep(Duration::from_micros(random.below(50_000) as u64));
        site.gateway.daemon().kill9();
        load.wait_for_end();
        site.gateway.restart();
        site.write_known_hosts();
        assert_eq!(
            site.gateway.journals(),
            [] as [PathBuf; 0],
            "the next start seals what was open"
        );
        for recording in site.gateway.recordings() {
            if seen.insert(recording.clone()) {
                let path = recording.to_str().unwrap();
                let output = portcullis(&["recording", "verify", path]);
                assert!(output.status.success(), "round {round}: {path}: {}", told(&output));
                recorded.extend(numbers(&site.gateway.contents(&recording)));
            }
        }
        let ran = numbers(&fs::read(&marks).unwrap());
        let missing: Vec<_> = ran.difference(&recorded).collect();
        assert!(missing.is_empty(), "round {round}: not recorded: {missing:?}");
    }
    // What was on its way at a kill may have run only later.
    let ran = numbers(&fs::read(&marks).unwrap());
    println!("{} commands ran in {rounds} rounds", ran.len());
    assert!(ran.is_subset(&recorded) && ran.len() >= rounds * 5, "{} ran", ran.len());
    assert!(site.gateway.stop().success());
}

/// Clients that run numbered commands until their connections end.
struct Load {
    clients: Vec<Child>,
    answers: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(site: &Site, mark: &str, first: usize) -> Self {
        let mut load = Self { clients: Vec::new(), answers: Arc::default(), threads: Vec::new() };
        // Commands on connections of several programs.
        let commands = self::load(site, mark, first, 0, 3);
        load.launch(commands);
        // Lines for one shell, as its input.
        let mut shell = site.ssh();
        shell.arg("bash");
        let mut stdin = load.launch(shell);
        let mark = mark.to_owned();
        load.threads.push(thread::spawn(move || {
            for number in first + 500_000_000.. {
                if writeln!(stdin, "{mark} {number}").is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
        }));
        load
    }

    fn launch(&mut self, mut command: Command) -> std::process::ChildStdin {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let answers = Arc::clone(&self.answers);
        self.clients.push(child);
        self.threads.push(thread::spawn(move || {
            for _ in BufReader::new(stdout).lines().map_while(Result::ok) {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }));
        stdin
    }

    fn wait_for_answers(&self, count: usize) {
        wait_until("answers", || self.answers.load(Ordering::Relaxed) >= count);
    }

    fn wait_for_end(self) {
        for mut client in self.clients {
            client.wait().unwrap();
        }
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}
