//! Ordinary clients, unchanged: each program runs once directly and once through the gateway, and
//! both times it must say the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::client::{Client, Database, clients_folder, root_file, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{PostgresServer, Shared};

/// A database, a gateway before it, and the root that proves both.
pub struct Site {
    pub database: Database,
    pub gateway: Gateway,
    root: PathBuf,
    _folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let Shared { authority, .. } = PostgresServer::shared();
        let folder = TempDir::new().unwrap();
        let database = Database::fresh();
        let gateway = Gateway::start(&Setup {
            tls: Some(authority.issue(&["localhost", "127.0.0.1"])),
            policy: twenty_rules(),
            ..Setup::for_targets([database.target("orders")])
        });
        let root = root_file(folder.path(), &authority.pem());
        Self { database, gateway, root, _folder: folder }
    }

    fn direct(&self) -> Client {
        self.database.client()
    }

    fn through(&self) -> Client {
        self.gateway.client("orders")
    }

    fn same_transcript(&self, program: impl Fn(&Client) -> Command) {
        self.same_transcript_of(&self.direct(), &self.through(), &program);
        self.same_transcript_of(
            &self.direct().over_tls(&self.root),
            &self.through().over_tls(&self.root),
            &program,
        );
        self.finish();
    }

    fn same_transcript_of(
        &self,
        direct: &Client,
        through: &Client,
        program: impl Fn(&Client) -> Command,
    ) {
        let (_, expected) = transcript(program(direct));
        let (_, found) = transcript(program(through));
        assert_same(&expected, &found);
    }

    /// The gateway stops in good order, and every recording is whole.
    pub fn finish(&self) {
        assert!(self.gateway.stop().success());
        self.gateway.verify_all();
    }
}

/// Rules that none of the programs should meet. What is no SQL, and what runs a statement that is
/// not there, is left to the server; ordinary traffic has nothing else that is not understood.
fn twenty_rules() -> String {
    let mut rules = r#"
[policy]
unparsed = "allow"

[[rule]]
name = "not-understood"
actions = ["sql.unparsed"]
when = "!(effect.reason in ['syntax', 'unknown-name'])"
verdict = "block"

[[rule]]
name = "no-programs"
actions = ["sql.copy-file", "sql.copy-program", "sql.load", "sql.alter-system", "sql.file", "sql.remote"]
verdict = "block"

[[rule]]
name = "no-values"
when = "has(command.parameters) && size(command.parameters) > 60000"
verdict = "block"

[[rule]]
name = "blocks-of-code"
groups = ["agents"]
actions = ["sql.do"]
verdict = "allow"

[[rule]]
name = "no-other-role"
actions = ["sql.set-role"]
objects = ["role:postgres"]
verdict = "block"
"#
    .to_owned();
    for at in 0..16 {
        let (kind, part) = if at % 2 == 0 { ("table", "") } else { ("column", ".ssn") };
        rules += &format!(
            "[[rule]]\nname = \"vault-{at}\"\nobjects = [\"{kind}:vault.secrets_{at}{part}\"]\n\
             verdict = \"block\"\n"
        );
    }
    rules
}

#[test]
fn psql_says_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| {
        let mut psql = client.postgres_program("psql");
        psql.arg("-X").arg("-f").arg(clients_folder().join("psql.sql"));
        psql
    });
}

#[test]
fn psycopg_says_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("psycopg_sync.py"));
}

#[test]
fn asynchronous_psycopg_says_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("psycopg_async.py"));
}

#[test]
fn pipelines_of_psycopg_say_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("psycopg_pipeline.py"));
}

#[test]
fn copies_of_psycopg_say_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("psycopg_copy.py"));
}

#[test]
fn asyncpg_says_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("asyncpg_client.py"));
}

#[test]
fn sqlalchemy_says_the_same_through_the_gateway() {
    Site::new().same_transcript(|client| client.python("sqlalchemy_client.py"));
}

#[test]
fn protocol_3_2_and_tls_from_the_first_byte_change_nothing() {
    let site = Site::new();
    let through = site
        .through()
        .over_tls(&site.root)
        .with("PGSSLNEGOTIATION", "direct")
        .with("PGMINPROTOCOLVERSION", "3.2");
    site.same_transcript_of(&site.direct(), &through, |client| client.python("psycopg_sync.py"));
    site.finish();
}

#[test]
fn pgbench_runs_in_all_its_modes() {
    let site = Site::new();
    for client in [site.through(), site.through().over_tls(&site.root)] {
        let pgbench = |arguments: &[&str]| {
            let mut command = client.postgres_program("pgbench");
            command.args(arguments);
            let (succeeded, said) = transcript(command);
            assert!(succeeded, "{said}");
            said
        };
        pgbench(&["-i", "-q", "-s", "1"]);
        for mode in ["simple", "extended", "prepared"] {
            for script in ["tpcb-like", "select-only", "simple-update"] {
                let said = pgbench(&["-n", "-b", script, "-M", mode, "-c", "4", "-t", "50"]);
                assert!(said.contains("actually processed: 200/200"), "{mode} {script}: {said}");
                assert!(said.contains("failed transactions: 0 "), "{mode} {script}: {said}");
            }
        }
        let pipeline = clients_folder().join("pipeline.pgbench");
        let said = pgbench(&["-n", "-f", pipeline.to_str().unwrap(), "-M", "prepared", "-t", "50"]);
        assert!(said.contains("actually processed: 50/50"), "{said}");
        let said = pgbench(&["-n", "-S", "-C", "-c", "2", "-t", "10"]);
        assert!(said.contains("actually processed: 20/20"), "{said}");
    }
    let sums = "select (select sum(abalance) from pgbench_accounts) = \
                (select coalesce(sum(delta), 0) from pgbench_history)";
    let mut psql = site.direct().psql();
    psql.args(["-c", sums]);
    // The simple update moves accounts as the history says it, too.
    assert_eq!(transcript(psql), (true, "t\n".to_owned()));
    site.finish();
}

#[test]
fn an_interrupted_psql_cancels_its_statement_and_goes_on() {
    let site = Site::new();
    for (number, client) in
        [site.through(), site.through().over_tls(&site.root)].into_iter().enumerate()
    {
        let marker = format!("interrupted {number}");
        let mut psql = client.with("PGAPPNAME", &marker).psql();
        psql.args(["-v", "ON_ERROR_STOP=0"]);
        psql.args(["-c", "select pg_sleep(60)", "-c", "select 'still usable'"]);
        let running = psql_with_output(psql);
        let server = &PostgresServer::shared().server;
        wait_until("the statement to run", || {
            let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            server.superuser_psql(&format!("{sleeping} and application_name = '{marker}'")) == "1"
        });
        kill_process(Pid::from_child(&running), Signal::INT).unwrap();
        let output = running.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.contains("canceling statement due to user request"), "{complaint}");
    }
    site.finish();
}

#[test]
fn the_function_call_message_is_refused_and_the_session_goes_on() {
    let site = Site::new();
    let mut psql = site.through().psql();
    psql.args(["-v", "ON_ERROR_STOP=0"]);
    psql.args(["-c", "\\lo_import /etc/hostname", "-c", "select 'still usable'"]);
    let (_, said) = transcript(psql);
    assert!(said.contains("ERROR"), "{said}");
    assert!(said.contains("still usable"), "{said}");
    site.finish();
}

fn psql_with_output(mut psql: Command) -> std::process::Child {
    psql.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

/// Panics with the first line that differs and what stands before it.
fn assert_same(expected: &str, found: &str) {
    static DIFFERS_BY_NATURE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"server process with PID \d+").unwrap());
    let plain = |text: &str| DIFFERS_BY_NATURE.replace_all(text, "server process").into_owned();
    let (expected, found) = (plain(expected), plain(found));
    if expected == found {
        return;
    }
    let same = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let excerpt = |text: &str| {
        let lines = text.lines().skip(same.saturating_sub(5)).take(15);
        lines.map(|line| line.chars().take(300).collect::<String>() + "\n").collect::<String>()
    };
    panic!(
        "from line {} on:\n── directly ──\n{}── through the gateway ──\n{}",
        same + 1,
        excerpt(&expected),
        excerpt(&found)
    );
}

/// Guards the tests above: they compare nothing when a program does not run.
#[test]
fn every_program_runs_to_its_end_directly() {
    let database = Database::fresh();
    for program in std::fs::read_dir(clients_folder()).unwrap() {
        let path: PathBuf = program.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let compared = ![
            "transcript.py",
            "load.py",
            "after_a_block.py",
            "browser.py",
            "typed_patterns.py",
            "targets_page.py",
            "websocket_messages.py",
        ]
        .contains(&name)
            && !["masked_", "http", "har_", "held", "paramiko", "asyncssh"]
                .iter()
                .any(|of| name.starts_with(of));
        if path.extension() == Some(Path::new("py").as_os_str()) && compared {
            let (succeeded, said) = transcript(database.client().python(name));
            assert!(succeeded && said.lines().count() > 10, "{name}: {said}");
        }
    }
}
