//! PostgreSQL's own regression tests through the gateway, beside the same directly.
//!
//! `scripts/soak regress` fetches PostgreSQL's source and runs this. Each script of the schedule runs
//! in psql against two servers, one of them behind the gateway, and what psql prints has to be the
//! same. In the second test tables that the scripts ask most have one more column, which is masked at the
//! source: directly it holds in every row what the mask shows, behind the gateway a sentinel, which must
//! come through nowhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, Target};
use crate::support::postgres::{Options, PostgresServer};

/// Scripts whose output differs without masks, and why.
const DIFFERENT: &[(&str, &str)] =
    &[("largeobject", "psql's \\lo_ commands use the function call message, which is not relayed")];

/// Tables that get one more column.
const TABLES: &[&str] =
    &["tenk1", "onek", "int8_tbl", "int4_tbl", "text_tbl", "float8_tbl", "person"];

/// Code is opaque to masks; the scripts make much of it.
const CODE: &str = r#"
[policy]
unparsed = "allow"

[[rule]]
name = "code-runs"
actions = ["sql.do", "sql.call", "sql.dynamic", "sql.load", "sql.import", "sql.copy-program", "sql.grant"]
verdict = "allow"

[[rule]]
name = "code-is-made"
actions = ["sql.create", "sql.alter"]
objects = [
    "function:*", "procedure:*", "aggregate:*", "trigger:*", "rule:*", "policy:*", "operator:*",
    "operator-class:*", "operator-family:*", "cast:*", "language:*", "extension:*", "type:*",
    "server:*", "publication:*", "subscription:*", "role:*", "database:*", "table:*", "column:*", "index:*", "view:*",
]
verdict = "allow"

"#;

const SENTINEL: &str = "sentinel-7Hq2";

/// The script that makes a function which copies a masked table, and runs it: the rules above let it.
/// That many rows of the copy are shown.
const COPIED: (&str, usize) = ("select_into", 5);

#[test]
fn psql_prints_the_same_through_the_gateway() {
    let Some(source) = source() else { return };
    let found = compare(&source, "plain", "", None);
    found.is_what_is_known(DIFFERENT);
}

#[test]
fn masked_columns_that_hold_what_the_mask_shows_tell_no_more() {
    let Some(source) = source() else { return };
    let columns: Vec<String> =
        TABLES.iter().map(|table| format!("\"public.{table}.secret\"")).collect();
    let policy = format!("{CODE}[[mask]]\nname = \"secret\"\ncolumns = [{}]\n", columns.join(", "));
    let found = compare(&source, "masked", &policy, Some("[masked]"));
    let shown = found.seen.iter().filter(|(_, printed)| printed.contains(SENTINEL));
    let shown: Vec<_> =
        shown.map(|(script, printed)| (&**script, printed.matches(SENTINEL).count())).collect();
    assert_eq!(shown, [COPIED], "the sentinel came through");
    // What is refused or withheld differs, and plans name other tables: people look at it.
    println!("{} scripts print the same", found.same);
    for (script, lines) in &found.different {
        println!("{script}: {lines} lines");
    }
}

/// Where PostgreSQL's source is unpacked.
fn source() -> Option<PathBuf> {
    std::env::var_os("PORTCULLIS_REGRESS_SOURCE")
        .map(|path| Path::new(&path).canonicalize().unwrap().join("src/test/regress"))
}

/// What came of the scripts.
struct Found {
    same: usize,
    /// Lines that differ, of each script that has some.
    different: BTreeMap<String, usize>,
    /// What came through the gateway, by script.
    seen: BTreeMap<String, String>,
}

impl Found {
    fn is_what_is_known(&self, known: &[(&str, &str)]) {
        let scripts = self.same + self.different.len();
        println!("{} of {scripts} scripts print the same", self.same);
        let mut wrong = Vec::new();
        for (script, lines) in &self.different {
            match known.iter().find(|(name, _)| name == script) {
                Some((_, why)) => println!("{script}: {lines} lines: {why}"),
                None => wrong.push(format!("{script}: {lines} lines")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(scripts > 190, "only {scripts} scripts were run");
    }
}

fn compare(source: &Path, what: &str, policy: &str, shown: Option<&str>) -> Found {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/regress").join(what);
    fs::create_dir_all(&results).unwrap();
    let servers = [(); 2].map(|()| PostgresServer::start(&server()));
    for server in &servers {
        server.superuser_psql("create database regression template template0");
        for setting in
            ["lc_messages = 'C'", "lc_monetary = 'C'", "lc_numeric = 'C'", "lc_time = 'C'"]
        {
            server.superuser_psql(&format!("alter database regression set {setting}"));
        }
        server.superuser_psql("alter database regression set timezone_abbreviations = 'Default'");
    }
    let target = Target {
        name: "regression".to_owned(),
        port: servers[1].port(),
        database: "regression".to_owned(),
        user: "postgres".to_owned(),
        password: "unused".to_owned(),
        lines: "tls = \"disable\"\n".to_owned(),
    };
    let gateway =
        Gateway::start(&Setup { policy: policy.to_owned(), ..Setup::for_targets([target]) });
    let direct = Client::new(servers[0].port(), "regression", "postgres", "unused");
    let mut found = Found { same: 0, different: BTreeMap::new(), seen: BTreeMap::new() };
    let (mut times, mut differences) = ([0.0; 2], 0);
    for script in scripts(source) {
        let clients = [&direct, &gateway.client("regression").with("PGUSER", "postgres")];
        let mut printed = clients.into_iter().zip(["direct", "gateway"]).zip(&mut times).map(
            |((client, side), time)| {
                let folder = results.join(side);
                fs::create_dir_all(&folder).unwrap();
                let begun = Instant::now();
                let printed = run(client, source, &folder, &script);
                *time += begun.elapsed().as_secs_f64();
                printed
            },
        );
        let (direct, through) = (printed.next().unwrap(), printed.next().unwrap());
        drop(printed);
        let lines = different(&results, &script, [&direct, &through]);
        if lines == 0 {
            found.same += 1;
        } else {
            found.different.insert(script.clone(), lines);
            differences += lines;
        }
        found.seen.insert(script.clone(), through);
        if let (Some(shown), "test_setup") = (shown, script.as_str()) {
            for (server, value) in servers.iter().zip([shown, SENTINEL]) {
                for table in TABLES {
                    // What stands by default in new rows is in the catalog, for everybody to see.
                    for change in [
                        format!("add secret text not null default '{value}'"),
                        "alter secret set default '[masked]'".to_owned(),
                    ] {
                        server.psql("regression", &format!("alter table {table} {change}"));
                    }
                }
            }
        }
    }
    println!(
        "{what}: {:.1} s directly, {:.1} s through the gateway, {differences} lines differ",
        times[0], times[1]
    );
    assert!(gateway.stop().success());
    gateway.verify_all();
    if shown.is_some() {
        let stored = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
        assert_eq!(stored.matches(SENTINEL).count(), COPIED.1, "the sentinel is stored");
    }
    found
}

fn server() -> Options {
    let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Options {
        hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        settings: [("max_prepared_transactions", "4"), ("wal_level", "logical")]
            .map(setting)
            .to_vec(),
        ..Options::default()
    }
}

/// The scripts in the order of the schedule; `infinite_recurse` only exhausts the server's stack.
fn scripts(source: &Path) -> Vec<String> {
    let schedule = fs::read_to_string(source.join("parallel_schedule")).unwrap();
    schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .filter(|name| *name != "infinite_recurse")
        .map(str::to_owned)
        .collect()
}

/// Runs a script as PostgreSQL's own runner does, and gives what psql printed.
fn run(client: &Client, source: &Path, folder: &Path, script: &str) -> String {
    let file = folder.join(format!("{script}.out"));
    let out = File::create(&file).unwrap();
    let mut psql: Command = client.postgres_program("psql");
    psql.args(["-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"])
        .env("PGTZ", "PST8PDT")
        .env("PGDATESTYLE", "Postgres, MDY")
        .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
        .env("PG_ABS_SRCDIR", source)
        // Both write to the same place, one after the other.
        .env("PG_ABS_BUILDDIR", folder.parent().unwrap())
        .env("PG_LIBDIR", "/nowhere")
        .env("PG_DLSUFFIX", ".so")
        .stdin(File::open(source.join("sql").join(format!("{script}.sql"))).unwrap())
        .stdout(Stdio::from(out.try_clone().unwrap()))
        .stderr(Stdio::from(out));
    psql.status().unwrap();
    String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned()
}

/// How many lines differ by `diff`, which is kept; what names a session is left out.
fn different(results: &Path, script: &str, sides: [&str; 2]) -> usize {
    let files = ["direct", "gateway"].map(|side| results.join(format!("{script}.{side}")));
    for (file, text) in files.iter().zip(sides) {
        let plain = |line: &str| line.split(" (Session ").next().unwrap().to_owned() + "\n";
        let lines = text.lines().filter(|line| !line.starts_with("HINT:  Session "));
        fs::write(file, lines.map(plain).collect::<String>()).unwrap();
    }
    let diff = Command::new("diff").arg("-U3").args(&files).output().unwrap().stdout;
    let diff = String::from_utf8_lossy(&diff).into_owned();
    fs::write(results.join(format!("{script}.diff")), &diff).unwrap();
    let counts = |line: &&str| {
        line.starts_with(['+', '-']) && !line.starts_with("+++ ") && !line.starts_with("--- ")
    };
    diff.lines().filter(counts).count()
}
