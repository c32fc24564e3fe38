//! The rows of `tests/cases/pg_cases.tsv`, executed through a real gateway against a real server
//! under the one policy that they assume.
//!
//! A row is a statement and what must come of it, or a conversation, which is written out in
//! `scripts`. Each runs in a database of its own made from `pg_schema.sql`; what is to be blocked
//! runs in one that is looked at after each row. Rows that other tests hold name them, and it is
//! looked that they are there. Rows that speak of a stricter policy play before a second gateway, which
//! has one.

mod elsewhere;
mod hardened;
mod judge;
mod scripts;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::gateway::{Gateway, Setup, Target};
use crate::support::issuer::Issuer;
use crate::support::postgres::{Options, PostgresServer};
use crate::support::sources::test_is_there;
use crate::support::talk::{Talk, query};

/// The file as it was when these expectations were written.
const HASH: &str = "83d82542ded034612bba73d555ce5f7c8378c1b112e249cb82d4f869e455dbc7";
const CASES: &str = include_str!("../cases/pg_cases.tsv");
const SCHEMA: &str = include_str!("../cases/pg_schema.sql");

/// The policy that the rows assume.
const POLICY: &str = r#"
[policy]
transaction_wait = "1s"

[[rule]]
name = "deny-drop"
actions = ["sql.drop"]
verdict = "block"

[[rule]]
name = "deny-truncate"
actions = ["sql.truncate"]
verdict = "block"

[[rule]]
name = "no-where"
actions = ["sql.update", "sql.delete"]
when = "effect.where_names_column == false"
verdict = "block"

[[rule]]
name = "deny-table"
objects = [
    "table:public.secrets",
    "table:public.aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123",
    "table:pg_catalog.pg_authid",
    "table:pg_catalog.pg_shadow",
    "table:pg_catalog.pg_statistic*",
    "table:pg_catalog.pg_stats*",
]
verdict = "block"

[[rule]]
name = "deny-func"
actions = [
    "sql.alter-system",
    "sql.copy-file",
    "sql.copy-program",
    "sql.dynamic",
    "sql.file",
    "sql.inspect",
    "sql.load",
    "sql.remote",
    "sql.server",
    "sql.sleep",
]
verdict = "block"

[[rule]]
name = "deny-session"
actions = ["sql.set-role"]
verdict = "block"

[[rule]]
name = "deny-settings"
actions = ["sql.set"]
objects = ["setting:session_replication_role", "setting:*transaction_read_only"]
verdict = "block"

[[rule]]
name = "lock"
actions = ["sql.lock"]
when = "effect.mode != 'rows'"
verdict = "block"

[[rule]]
name = "ddl"
actions = ["sql.create", "sql.alter", "sql.comment", "sql.security-label"]
verdict = "approve"
approvers = ["dba"]
timeout = "1s"

[[rule]]
name = "grant"
actions = ["sql.grant", "sql.revoke"]
verdict = "approve"
approvers = ["dba"]
timeout = "1s"

[[rule]]
name = "dynamic"
actions = ["sql.do", "sql.call"]
verdict = "approve"
approvers = ["dba"]
timeout = "1s"
"#;

const MASKS: &str = r#"
[[mask]]
name = "customers"
columns = [
    "public.customers.email",
    "public.customers.ssn",
    "public.customers.card_number",
    "public.people.email",
]
with = "redact"
"#;

/// What the stricter policy adds.
const STRICTER: &str = r#"
[[rule]]
name = "deletes-are-asked-for"
actions = ["sql.delete"]
verdict = "approve"
approvers = ["dba"]
timeout = "1s"

[[mask]]
name = "found"
patterns = ["email", "credit-card"]
"#;

/// One row, its escapes undone.
struct Row {
    id: &'static str,
    class: &'static str,
    sql: String,
    expected: &'static str,
    role: &'static str,
    channel: &'static str,
}

/// How a row is held.
enum Plan {
    /// It is refused with 42501, and nothing happened.
    Refused,
    /// It does exactly what it does without a gateway.
    Passes,
    /// What it shows of what is masked is something else; or it is refused, where that is allowed.
    Masked { or_refused: bool },
    /// The policy lets it through, by a limit that is documented; the stricter one refuses it.
    Limit,
    /// What it shows is masked; the stricter policy refuses it.
    Strict,
    /// A conversation.
    Script(fn(&Stage<'_>)),
    /// A conversation before the stricter gateway.
    StrictScript(fn(&Stage<'_>)),
    /// Another test holds it: file and function.
    Elsewhere(&'static [(&'static str, &'static str)]),
}

/// A server with the schema, before it a gateway with the policy and one with a stricter one.
struct Site {
    server: PostgresServer,
    gateway: Gateway,
    strict: Gateway,
    token: String,
}

/// Where one row plays.
struct Stage<'s> {
    site: &'s Site,
    gateway: &'s Gateway,
    row: &'s Row,
    database: String,
}

#[test]
fn every_row_ends_as_it_must() {
    assert_eq!(blake3::hash(CASES.as_bytes()).to_hex().as_str(), HASH, "the file has changed");
    let rows: Vec<Row> = CASES.lines().skip(1).map(Row::read).collect();
    let site = Site::start(&rows);
    let mut held: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in &rows {
        let plan = judge::plan(row);
        let word = if matches!(plan, Plan::Elsewhere(_)) { "another test" } else { "executed" };
        held.entry(word).or_default().push(row.id);
        if word == "executed" {
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                site.play(row, &plan);
            }));
            if let Err(failure) = played {
                let said = failure.downcast_ref::<String>().cloned();
                wrong.push(format!("{} {}: {}", row.id, row.expected, said.unwrap_or_default()));
            }
        } else if let Plan::Elsewhere(tests) = plan {
            for (file, test) in tests {
                let there = test_is_there(&format!("{file}.rs"), test);
                assert_eq!(there, Ok(()), "{}", row.id);
            }
        }
    }
    assert!(site.gateway.stop().success() && site.strict.stop().success());
    site.check_store();
    for (word, ids) in &held {
        let named = if *word == "executed" { String::new() } else { format!(": {ids:?}") };
        println!("{} rows {word}{named}", ids.len());
    }
    let count: usize = held.values().map(Vec::len).sum();
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 262);
}

impl Row {
    fn read(line: &'static str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        Self {
            id: fields[0],
            class: fields[1],
            sql: unescape(fields[2]),
            expected: fields[4],
            role: if fields[5] == "postgres" { "postgres" } else { "app" },
            channel: fields[8],
        }
    }

    /// The name of its own database.
    fn database(&self, kind: &str) -> String {
        format!("c_{}_{kind}", self.id.to_lowercase())
    }
}

impl Site {
    fn start(rows: &[Row]) -> Self {
        let server = PostgresServer::start(&Options {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            setup: "create role app login".to_owned(),
            ..Options::default()
        });
        server.superuser_psql("create database schema_of_cases owner app");
        server.psql("schema_of_cases", SCHEMA);
        server.superuser_psql("create database c_shared template schema_of_cases owner app");
        let databases: Vec<String> = rows.iter().map(|row| row.database("own")).collect();
        let target = |name: &str, user: &str| Target {
            name: name.to_owned(),
            port: server.port(),
            database: "c_shared".to_owned(),
            user: user.to_owned(),
            password: "unused".to_owned(),
            lines: format!("tls = \"disable\"\ndatabases = {databases:?}\n"),
        };
        let issuer = Arc::new(Issuer::start(3600));
        let before = |policy: String| {
            let targets = [target("app", "app"), target("postgres", "postgres")];
            let issuer = Some(Arc::clone(&issuer));
            Gateway::start(&Setup { policy, issuer, ..Setup::for_targets(targets) })
        };
        let gateway = before(format!("{POLICY}{MASKS}"));
        let strict = POLICY.replace("[policy]", "[policy]\nunprovable = \"block\"");
        let strict = before(format!("{strict}{MASKS}{STRICTER}"));
        Self { server, gateway, strict, token: issuer.token("agent") }
    }

    fn play(&self, row: &Row, plan: &Plan) {
        let shared = |gateway| Stage { site: self, gateway, row, database: "c_shared".to_owned() };
        let own = |gateway| {
            let database = row.database("own");
            self.make(&database);
            Stage { site: self, gateway, row, database }
        };
        match plan {
            Plan::Refused => judge::refused(&shared(&self.gateway)),
            Plan::Passes => judge::passes(&own(&self.gateway)),
            Plan::Limit => {
                judge::refused(&shared(&self.strict));
                judge::passes(&own(&self.gateway));
            }
            Plan::Strict => {
                judge::refused(&shared(&self.strict));
                judge::masked(&own(&self.gateway), false);
            }
            Plan::Masked { or_refused } => judge::masked(&own(&self.gateway), *or_refused),
            Plan::Script(script) => script(&own(&self.gateway)),
            Plan::StrictScript(script) => script(&own(&self.strict)),
            Plan::Elsewhere(_) => {}
        }
        // Hundreds of databases are gigabytes.
        for kind in ["own", "direct"] {
            let name = row.database(kind);
            self.server.superuser_psql(&format!("drop database if exists {name} with (force)"));
        }
    }

    /// Makes a database of the schema.
    fn make(&self, name: &str) {
        self.server
            .superuser_psql(&format!("create database {name} template schema_of_cases owner app"));
    }

    /// What must be in no store, and what must.
    fn check_store(&self) {
        let contents = [self.gateway.all_contents(), self.strict.all_contents()].concat();
        let stored = String::from_utf8_lossy(&contents);
        for secret in ["hunter2pass", "ghp_abcdEFGH"] {
            assert!(!stored.contains(secret), "{secret} is stored");
        }
        assert!(stored.contains("CREATE USER evil PASSWORD ?"), "its view is not");
        for values in [r#""parameters":["1"]"#, r#""parameters":["2"]"#, r#""parameters":["3"]"#] {
            assert!(stored.contains(values), "{values}, of X71");
        }
        for sentinel in judge::SENTINELS {
            assert!(!stored.contains(sentinel), "{sentinel} is stored");
        }
    }
}

impl Stage<'_> {
    /// A session through the gateway.
    fn talk(&self) -> Talk {
        let database = format!("{}/{}", self.row.role, self.database);
        Talk::opened(self.gateway.address(), "agent", &database, &self.site.token)
    }

    /// A session that may not come to be, with startup parameters.
    fn start(&self, more: &[(&str, &str)]) -> Talk {
        let database = format!("{}/{}", self.row.role, self.database);
        let (gateway, token) = (self.gateway.address(), &self.site.token);
        Talk::open(gateway, "agent", &database, token, more)
    }

    /// A session of the row's role without a gateway.
    fn direct(&self, database: &str) -> Talk {
        Talk::trusted(self.address(), self.row.role, database)
    }

    /// What a superuser sees of the database.
    fn sees(&self, sql: &str) -> String {
        let mut talk = Talk::trusted(self.address(), "postgres", &self.database);
        let said = talk.ask(&[query(sql)]);
        let row = said.iter().find_map(|line| line.strip_prefix("D["));
        row.unwrap_or_else(|| panic!("{said:?}")).trim_end_matches(']').to_owned()
    }

    /// Nothing that the rows would do has happened.
    fn is_intact(&self) {
        let seen = self.sees(
            "select (select count(*) from orders), (select sum(total) from orders), \
             (select count(*) from customers), (select count(*) from secrets), \
             (select count(*) from vendors), (select count(*) from pg_class), \
             (select count(*) from pg_proc), \
             (select count(*) from pg_roles), current_setting('log_statement')",
        );
        let before = {
            let database = "schema_of_cases".to_owned();
            Stage { database, ..*self }
        };
        let expected = before.sees(
            "select 10, 550, 4, 2, 1, (select count(*) from pg_class), \
             (select count(*) from pg_proc), (select count(*) from pg_roles), 'none'",
        );
        assert_eq!(seen, expected, "{}", self.row.sql);
    }

    fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.site.server.port()).into()
    }
}

/// Undoes the file's backslash escapes.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let (c, length) = match after.as_bytes().first() {
            Some(b't') => ('\t', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b'f') => ('\x0c', 1),
            Some(b'v') => ('\x0b', 1),
            Some(b'0') => ('\0', 1),
            Some(b'u') => {
                let code = u32::from_str_radix(&after[1..5], 16).unwrap();
                (char::from_u32(code).unwrap(), 5)
            }
            _ => ('\\', 1),
        };
        text.push(c);
        rest = &after[length..];
    }
    text + rest
}
