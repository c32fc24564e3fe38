//! The gateway is killed at random moments under load; whatever the server received by then is in
//! the recordings.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use regex::bytes::Regex;

use crate::support::client::{Client, Database, clients_folder};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::{Random, amount};

/// How often the gateway is killed.
fn rounds() -> usize {
    amount("PORTCULLIS_KILL_ROUNDS", 12)
}

#[test]
fn whenever_the_gateway_is_killed_every_statement_the_server_received_is_recorded() {
    killed_under_load("");
}

#[test]
fn the_same_holds_when_recordings_wait_for_the_disk() {
    killed_under_load("durability = \"disk\"");
}

fn killed_under_load(recording: &str) {
    let server = PostgresServer::start(&Options { log_statements: true, ..Options::default() });
    let database = Database::on(&server);
    database.client().psql().args(["-c", "create table load (n int8)"]).status().unwrap();
    let mut gateway = Gateway::start(&Setup {
        recording: recording.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let mut random = Random::seeded();
    let mut log = ServerLog::of(&server);
    let (mut seen, mut total) = (BTreeSet::new(), 0);
    for round in 0..rounds() {
        let load = Load::start(&gateway.client("orders"), round);
        load.wait_for_answers(random.below(400) + 1);
        // So that the kill falls anywhere in a statement's life, not only behind an answer.
        thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        gateway.daemon().kill9();
        load.wait_for_end();
        // What the gateway sent may still be on its way into the server.
        wait_until("the server's sessions to end", || {
            let left = "select count(*) from pg_stat_activity where usename";
            server.superuser_psql(&format!("{left} = '{}'", database.role)) == "0"
        });

        gateway.restart();
        assert_eq!(gateway.journals(), [] as [PathBuf; 0], "the next start seals what was open");
        let mut recorded = BTreeSet::new();
        for recording in gateway.recordings() {
            if seen.insert(recording.clone()) {
                let path = recording.to_str().unwrap();
                let output = portcullis(&["recording", "verify", path]);
                assert!(output.status.success(), "round {round}: {path}: {}", told(&output));
                recorded.extend(numbers(&gateway.contents(&recording)));
            }
        }
        let mut received = log.numbers();
        let rows = server.psql(&database.name, "delete from load returning n");
        received.extend(numbers(rows.as_bytes()));
        let missing: Vec<_> = received.difference(&recorded).collect();
        assert!(missing.is_empty(), "round {round}: not recorded: {missing:?}");
        total += received.len();
    }
    println!("{total} statements and rows in {} rounds", rounds());
    assert!(total > rounds() * 20, "there was hardly any load: {total}");
    assert!(gateway.stop().success());
}

/// The numbers of 15 digits, beginning with 7, that the load's statements carry.
pub fn numbers(text: &[u8]) -> BTreeSet<u64> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?-u:\b)7\d{14}\b").unwrap());
    let number = |found: &[u8]| std::str::from_utf8(found).unwrap().parse().unwrap();
    NUMBER.find_iter(text).map(|found| number(found.as_bytes())).collect()
}

/// The server's log from where it was read last.
struct ServerLog(File);

impl ServerLog {
    fn of(server: &PostgresServer) -> Self {
        let mut file = File::open(server.data_directory().with_file_name("log")).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    fn numbers(&mut self) -> BTreeSet<u64> {
        let mut text = Vec::new();
        self.0.read_to_end(&mut text).unwrap();
        numbers(&text)
    }
}

/// Clients that send numbered statements until their connections end.
struct Load {
    clients: Vec<Child>,
    answers: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client, round: usize) -> Self {
        let answers = Arc::default();
        let mut load = Self { clients: Vec::new(), answers, threads: Vec::new() };
        // Rounds and clients do not share numbers: 10 million for each client.
        let first = move |number: usize| 700_000_000_000_000 + (round * 10 + number) * 10_000_000;
        for number in 0..2 {
            let mut psql = client.psql();
            let (stdin, stdout) = load.launch(psql.stdin(Stdio::piped()));
            load.threads.push(thread::spawn(move || write_statements(stdin, first(number))));
            load.count_lines(stdout);
        }
        for number in 2..4 {
            let mut python = client.python("load.py");
            let (_, stdout) = load.launch(python.arg(first(number).to_string()));
            load.count_lines(stdout);
        }
        for mode in ["simple", "extended", "prepared"] {
            let mut pgbench = client.postgres_program("pgbench");
            pgbench.args(["-n", "-T", "3600", "-c", "1", "-M", mode, "-f"]);
            let (_, stdout) = load.launch(pgbench.arg(clients_folder().join("load.pgbench")));
            load.count_lines(stdout);
        }
        load
    }

    fn launch(&mut self, command: &mut Command) -> (Option<ChildStdin>, Option<ChildStdout>) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let pipes = (child.stdin.take(), child.stdout.take());
        self.clients.push(child);
        pipes
    }

    fn count_lines(&mut self, output: Option<ChildStdout>) {
        let (lines, answers) = (BufReader::new(output.unwrap()).lines(), Arc::clone(&self.answers));
        self.threads.push(thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    fn wait_for_answers(&self, count: usize) {
        let answers = || self.answers.load(Ordering::Relaxed);
        wait_until("answers", || answers() >= count);
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

/// Statements for psql, until it reads no more.
fn write_statements(stdin: Option<ChildStdin>, first: usize) {
    let mut stdin = stdin.unwrap();
    for number in first.. {
        if writeln!(stdin, "select {number};").is_err() {
            break;
        }
    }
}
