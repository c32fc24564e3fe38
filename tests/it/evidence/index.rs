//! `recording verify --all --index`: whatever somebody does to the index, the recordings show it.

use std::fs;
use std::process::Output;

use portcullis::names::SessionId;
use portcullis::recording::{Direction, Keyring, Kind, Store};
use serde_json::{Value, json};

use super::set;
use crate::support::client::{Client, Database};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::PostgresServer;
use crate::support::random::{Random, amount};
use crate::support::talk::{self, Talk};

/// A gateway, and the database of its index.
struct World {
    gateway: Gateway,
    url: String,
}

const RULES: &str =
    "[[rule]]\nname = \"no-drops\"\nactions = [\"sql.drop\"]\nverdict = \"block\"\n";

impl World {
    fn new(recording: &str) -> Self {
        let url = PostgresServer::fresh_index();
        let gateway = Gateway::start(&Setup {
            recording: recording.to_owned(),
            policy: RULES.to_owned(),
            database: Some(format!("url = {url:?}\nindex_text = true")),
            ..Setup::for_targets([Database::fresh().target("orders")])
        });
        Self { gateway, url }
    }

    /// A session whose commands are indexed.
    fn session(&self, statements: &[&str]) -> SessionId {
        let before = self.gateway.recordings();
        psql(&self.gateway.client("orders"), statements);
        let new = self.gateway.recordings().into_iter().find(|path| !before.contains(path));
        let session = new.unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
        let sealed = format!("select sealed from recordings where session = '{session}'");
        wait_until("the index's tables", || {
            self.sql("select to_regclass('recordings') is not null") == "t"
        });
        wait_until("the index to have it", || self.sql(&sealed) == "t");
        session.parse().unwrap()
    }

    fn sql(&self, statements: &str) -> String {
        PostgresServer::psql_at(&self.url, statements)
    }

    fn verify(&self, more: &[&str]) -> Output {
        let configuration = self.gateway.configuration();
        let config = ["--config", configuration.to_str().unwrap()];
        portcullis(&[&["recording", "verify", "--all", "--index"], &config[..], more].concat())
    }

    fn proved(&self, more: &[&str]) {
        let output = self.verify(more);
        let said = told(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("proved: the index has the rows that these recordings make"),
            "{said}"
        );
    }
}

fn psql(client: &Client, statements: &[&str]) {
    let mut psql = client.psql();
    for statement in statements {
        psql.args(["-c", statement]);
    }
    // A blocked statement fails, and psql with it.
    psql.output().unwrap();
}

#[test]
fn whatever_is_changed_added_or_removed_in_the_index_is_named() {
    let world = World::new("");
    let first = world.session(&["select 1", "drop table orders", "select 'one\ttwo\\'"]);
    let second = world.session(&["select 2"]);
    assert!(world.gateway.stop().success());
    world.proved(&[]);
    let said: Value = serde_json::from_slice(&world.verify(&["--json"]).stdout).unwrap();
    assert_eq!(said["proved"], json!(["whole", "complete"]));
    let counts = ["differing", "behind", "locked", "damaged"].map(|of| &said["index"][of]);
    assert_eq!(counts, [&json!(0); 4]);
    assert!(said["index"]["recordings"].as_u64() >= Some(2), "{said}");

    let blocked = format!("session = '{first}' and verdict = 'block'");
    let cases = [
        (
            format!("update sessions set username = 'somebody' where id = '{first}'"),
            first,
            "the session: username is \"somebody\" in the index and \"agent\" in the recording",
        ),
        (
            format!("update sessions set groups = '{{admins}}' where id = '{first}'"),
            first,
            "the session: groups is [\"admins\"] in the index",
        ),
        (
            format!("update sessions set gateway = 'another' where id = '{first}'"),
            first,
            "the session: gateway is \"another\" in the index",
        ),
        (
            format!("update commands set verdict = 'allow' where {blocked}"),
            first,
            ": verdict is \"allow\" in the index and \"block\" in the recording",
        ),
        (
            format!("update commands set at = at - interval '1 day' where session = '{second}'"),
            second,
            ": at is \"",
        ),
        (
            format!("update commands set text = 'select 3' where session = '{second}'"),
            second,
            ": text is \"select 3\" in the index and \"select 2\" in the recording",
        ),
        (
            format!("delete from commands where {blocked}"),
            first,
            "the index has no row of command ",
        ),
        (
            format!("delete from sessions where id = '{second}'"),
            second,
            "the index has no row of the session",
        ),
        (
            format!(
                "delete from sessions where id = '{second}'; \
                 delete from commands where session = '{second}'; \
                 delete from recordings where session = '{second}'"
            ),
            second,
            "the index has no row of the session",
        ),
        (
            format!(
                "create temp table more as select * from commands where session = '{second}'; \
                 update more set sequence = 4711, text = 'drop table orders'; \
                 insert into commands select * from more"
            ),
            second,
            "the index has a row of command 4711, and the recording has none",
        ),
    ];
    world.sql("create table kept_sessions as table sessions");
    world.sql("create table kept_commands as table commands");
    world.sql("create table kept_recordings as table recordings");
    let restore = || {
        for table in ["commands", "sessions", "recordings"] {
            let back = format!("delete from {table}; insert into {table} table kept_{table}");
            world.sql(&back);
        }
    };
    for (change, session, expected) in cases {
        world.sql(&change);
        let output = world.verify(&[]);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(1), "{change}: {said}");
        assert!(said.contains(&format!("wrong: the index, {session}: ")), "{change}: {said}");
        assert!(said.contains(expected), "{change}: {said}");
        assert!(said.contains("1 sessions differ"), "{change}: {said}");
        assert!(!said.contains("proved: the index"), "{change}: {said}");
        assert!(said.contains("proved: every recording is what was written"), "{change}: {said}");
        restore();
    }
    world.proved(&[]);

    // Sessions that never were, with an id of ours and with any other.
    for id in [SessionId::generate().to_string(), "00000000-0000-4000-8000-000000000000".to_owned()]
    {
        world.sql(&format!(
            "create temp table more as select * from sessions where id = '{first}'; \
             update more set id = '{id}'; insert into sessions select * from more"
        ));
        let said = told(&world.verify(&[]));
        let wrong = format!("wrong: the index, {id}: the index has rows of it, and there is no");
        assert!(said.contains(&wrong), "{said}");
        restore();
    }

    // What is shown is not what a terminal acts on.
    world.sql(&format!("update sessions set username = e'\\x1b]0;x\\x07' where id = '{first}'"));
    assert!(!world.verify(&[]).stdout.contains(&0x1b));

    // Made anew, it is as it was.
    let configuration = world.gateway.configuration();
    let config = ["--config", configuration.to_str().unwrap()];
    assert!(portcullis(&[&["recording", "reindex"][..], &config].concat()).status.success());
    world.proved(&[]);
}

/// As many as a tenth of `PORTCULLIS_ALTERATIONS`; `scripts/soak alterations` makes 1,000.
#[tokio::test(flavor = "multi_thread")]
async fn random_alterations_of_rows_are_found() {
    let alterations = amount("PORTCULLIS_ALTERATIONS", 300) / 10;
    let mut random = Random::seeded();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let url = PostgresServer::fresh_index();
    let database = portcullis::database::Database::from_url(&url).unwrap();
    database.migrate().await.unwrap();
    record(&set::store(&data_dir));
    let keyring = Keyring::default();
    database.reindex(&data_dir, true, &keyring, |_| {}).await.unwrap();
    let sql = |statements: String| PostgresServer::psql_at(&url, &statements);
    let columns = |table: &str, but: &str| -> Vec<(String, String)> {
        let listed = sql(format!(
            "select attname, format_type(atttypid, null) from pg_attribute \
             where attrelid = '{table}'::regclass and attnum > 0 and attname not in ({but})"
        ));
        let columns = listed.lines().map(|line| line.split_once('|').unwrap());
        columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    };
    let [of_sessions, of_commands] =
        [columns("sessions", "'id'"), columns("commands", "'session', 'sequence'")];
    for table in ["sessions", "commands"] {
        sql(format!("create table kept_{table} as table {table}"));
    }
    let mut kinds = std::collections::BTreeMap::<_, usize>::new();
    for _ in 0..alterations {
        let (table, columns) = match random.below(3) {
            0 => ("sessions", &of_sessions),
            _ => ("commands", &of_commands),
        };
        let row = format!(
            "(select ctid from {table} order by md5(ctid::text || '{}') limit 1)",
            random.below(1 << 20)
        );
        let (kind, change) = match random.below(4) {
            0 => ("a row gone", format!("delete from {table} where ctid = {row}")),
            1 => {
                let key = match table {
                    "sessions" => format!("id = '{}'", SessionId::generate()),
                    _ => "sequence = sequence + 1000".to_owned(),
                };
                let more = format!(
                    "create temp table more as select * from {table} where ctid = {row}; \
                     update more set {key}; insert into {table} select * from more"
                );
                ("a row put in", more)
            }
            _ => {
                let (column, kind) = &columns[random.below(columns.len())];
                let value = match kind.as_str() {
                    "bigint" => format!("coalesce({column}, 0) + {}", 1 + random.below(1000)),
                    "boolean" => format!("not coalesce({column}, false)"),
                    "timestamp with time zone" => {
                        format!("coalesce({column}, now()) + interval '1 microsecond'")
                    }
                    "jsonb" => "'{\"other\": 1}'".to_owned(),
                    "text[]" => format!("{column} || 'other'::text"),
                    _ => format!("coalesce({column}, '') || ' '"),
                };
                let change = format!("update {table} set {column} = {value} where ctid = {row}");
                ("a value changed", change)
            }
        };
        *kinds.entry(kind).or_default() += 1;
        sql(change.clone());
        let compared = database.compare_index(&data_dir, true, &keyring).await.unwrap();
        assert_eq!(compared.differing, 1, "{change}: {compared:?}");
        for table in ["commands", "sessions"] {
            sql(format!("delete from {table}; insert into {table} table kept_{table}"));
        }
    }
    let compared = database.compare_index(&data_dir, true, &keyring).await.unwrap();
    assert_eq!((compared.differing, compared.recordings), (0, 8), "{compared:?}");
    println!("{alterations} alterations of rows, all found: {kinds:?}");
}

/// Some sessions with commands of every kind of end.
fn record(store: &Store) {
    for session in 0..8 {
        let recording = set::open(store);
        for number in 0..6 {
            let text = format!("select {number} from t_{session}");
            let decision = match number {
                4 => json!({ "verdict": "block", "rules": ["no"], "reason": "Not so." }),
                _ => json!({ "verdict": "allow" }),
            };
            let effects = json!([{ "action": "sql.select", "object": "table:public.t" }]);
            let command = json!({
                "command": { "form": "query", "text": text, "effects": effects },
                "decision": decision,
            });
            let append = |kind, direction, of, json: &Value| {
                recording.append(|batch| batch.json(kind, direction, of, json)).unwrap()
            };
            let of = append(Kind::Command, Direction::Up, None, &command);
            if number != 4 {
                let error = json!({ "code": "42601", "message": "syntax error" });
                let outcome = match number {
                    3 => json!({ "error": error, "duration_us": 3 }),
                    _ => json!({ "status": "SELECT 1", "rows": 1, "duration_us": 5 }),
                };
                append(Kind::Outcome, Direction::Down, Some(of), &outcome);
            }
        }
        set::close(&recording);
    }
}

#[test]
fn a_running_gateway_and_one_that_is_behind_are_no_alarm() {
    let mut world = World::new("");
    let done = world.session(&["select 1"]);
    let token = world.gateway.issuer().token("agent");
    let mut open = Talk::opened(world.gateway.address(), "agent", "orders", &token);
    open.ask(&[talk::query("select 'open'")]);
    let said = told(&world.verify(&[]));
    assert!(said.contains("is in use, or its gateway died"), "{said}");
    world.proved(&["--allow-open"]);
    drop(open);
    assert!(world.gateway.stop().success());

    // As a gateway leaves it that was killed before the index had read it.
    world.sql(&format!(
        "delete from commands where session = '{done}'; delete from sessions where id = '{done}'; \
         update recordings set sealed = false, file_offset = 0 where session = '{done}'"
    ));
    let output = world.verify(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("the index has not read 1 recordings yet"), "{}", told(&output));
    assert!(world.verify(&["--allow-open"]).status.success());

    // Another gateway's sessions are counted, and not judged.
    let other = "insert into sessions select (json_populate_record(s, json_build_object('id', \
         '00000000-0000-7000-8000-000000000000', 'gateway', 'another'))).* from sessions s limit 1";
    world.gateway.restart();
    world.session(&["select 2"]);
    assert!(world.gateway.stop().success());
    world.sql(other);
    let said = told(&world.verify(&["--allow-open"]));
    assert!(said.contains("note: 1 sessions in the index are of gateway another"), "{said}");
}

#[test]
fn of_encrypted_recordings_the_index_is_compared_by_who_opens_them() {
    let world = World::new(&format!("recipients = [{:?}]", set::RECIPIENT));
    let session = world.session(&["select 'sealed'"]);
    assert!(world.gateway.stop().success());
    let output = world.verify(&[]);
    assert!(output.status.success(), "{}", told(&output));
    let said = told(&output);
    assert!(said.contains("are encrypted; the index was not held against them"), "{said}");
    assert!(!said.contains("proved: the index"), "{said}");

    let identity = world.gateway.configuration().with_file_name("identity.txt");
    fs::write(&identity, set::IDENTITY).unwrap();
    let identity = ["--identity", identity.to_str().unwrap()];
    world.proved(&identity);
    world.sql(&format!("update commands set text = 'other' where session = '{session}'"));
    let said = told(&world.verify(&identity));
    assert!(said.contains("text is \"other\" in the index and \"select 'sealed'\""), "{said}");
}
