//! The index follows the recordings, whatever happens to the database meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::config::{self, Durability, OnRecordingFailure};
use portcullis::database::{
    Database, DatabaseError, Filter, IndexSettings, Indexer, LagWatch, QueryError, SchemaError,
    Wanted,
};
use portcullis::names::{Protocol, SessionId};
use portcullis::policy::Verdict;
use portcullis::recording::{
    Closed, Direction, Keyring, Kind, Opened, RecordedIdentity, Recording, Sequence, Store, Told,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::postgres::{Options, PostgresServer};

/// A store whose recordings are indexed.
pub(super) struct Gateway {
    store: Store,
    lag: LagWatch,
    cancel: [CancellationToken; 2],
    tasks: TaskTracker,
}

const SETTINGS: IndexSettings = IndexSettings { index_text: true, private: false };

impl Gateway {
    pub(super) fn start(data_dir: &Path, database: &Database) -> Self {
        let settings = config::Recording {
            durability: Durability::Process,
            max_session: 1 << 30,
            max_local: 1 << 30,
            signing_key: data_dir.join("seal_ed25519"),
            mask_key: config::SecretRef::Env("UNUSED".to_owned()),
            recipients: Vec::new(),
            identity: None,
        };
        let store = Store::open(data_dir, &settings, &[7; 32]).unwrap();
        let indexer = Indexer::new(database.clone(), store.clone(), data_dir, SETTINGS);
        let (lag, tasks) = (indexer.lag(), TaskTracker::new());
        let cancel = [CancellationToken::new(), CancellationToken::new()];
        tasks.spawn(store.clone().run(cancel[0].clone()));
        tasks.spawn(indexer.run(cancel[1].clone()));
        Self { store, lag, cancel, tasks }
    }

    pub(super) async fn stop(self) {
        self.cancel.iter().for_each(CancellationToken::cancel);
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn open(&self, change: impl FnOnce(&mut Opened)) -> Recording {
        let mut opened = opened();
        change(&mut opened);
        self.store.create(&opened, OnRecordingFailure::Refuse).unwrap()
    }

    /// Waits until all that was recorded before is in the index.
    pub(super) async fn caught_up(&self) {
        // A block is written 150 ms after its events at the latest.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (lag, from) = (self.lag.clone(), Instant::now());
        wait("the index to catch up", move || {
            lag.get().behind.is_some_and(|behind| behind < from.elapsed())
        })
        .await;
    }
}

async fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn opened() -> Opened {
    Opened {
        session: SessionId::generate(),
        protocol: Protocol::Postgres,
        target: "orders".parse().unwrap(),
        database: Some("orders".to_owned()),
        client: "127.0.0.1:50000".to_owned(),
        identity: RecordedIdentity {
            issuer: "https://login.example.com".to_owned(),
            subject: "crew-7".to_owned(),
            username: "crew-7".to_owned(),
            groups: vec!["support-agents".to_owned()],
        },
        workflow: None,
        run: None,
        client_parameters: [("application_name".to_owned(), "psql".to_owned())].into(),
        policy: "00".repeat(16),
        gateway_version: "0.1.0".to_owned(),
    }
}

fn command(
    recording: &Recording,
    of: Option<Sequence>,
    form: &str,
    text: &str,
    attributes: &Value,
    decision: &Value,
) -> Sequence {
    let effects = if text.is_empty() { json!([]) } else { json!([{ "action": "sql.select" }]) };
    let command =
        json!({ "form": form, "text": text, "attributes": attributes, "effects": effects });
    let recorded = json!({ "command": command, "decision": decision });
    recording.append(|batch| batch.json(Kind::Command, Direction::Up, of, &recorded)).unwrap()
}

pub(super) fn query(recording: &Recording, text: &str) -> Sequence {
    command(recording, None, "query", text, &json!({}), &json!({ "verdict": "allow" }))
}

fn outcome(recording: &Recording, of: Sequence, outcome: &Value) {
    recording
        .append(|batch| batch.json(Kind::Outcome, Direction::Down, Some(of), outcome))
        .unwrap();
}

pub(super) fn done(recording: &Recording, of: Sequence) {
    outcome(recording, of, &json!({ "status": "SELECT 1", "rows": 1, "duration_us": 250 }));
}

fn close(recording: &Recording) {
    recording.close(&Closed { how: "client".into(), text: String::new() }).unwrap();
}

fn database(server: &PostgresServer, name: &str) -> Database {
    Database::from_url(&format!("postgres://postgres@127.0.0.1:{}/{name}", server.port())).unwrap()
}

/// A database of its own with our tables, on the server that tests share.
async fn migrated() -> Database {
    let server = &PostgresServer::shared().server;
    let database = database(server, &server.create_database());
    database.migrate().await.unwrap();
    database
}

fn texts(page: &portcullis::database::Page<portcullis::database::Command>) -> Vec<&str> {
    page.items.iter().map(|command| command.text.as_deref().unwrap_or("-")).collect()
}

async fn commands(database: &Database, filter: Filter) -> Vec<String> {
    let page = database.commands(&filter, &Wanted::default()).await.unwrap();
    texts(&page).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn one_row_is_one_thing_that_a_client_had_done() {
    let (folder, database) = (TempDir::new().unwrap(), migrated().await);
    let gateway = Gateway::start(folder.path(), &database);
    let recording = gateway.open(|_| {});
    let session = recording.session();
    let allow = json!({ "verdict": "allow" });
    let simple = query(&recording, "select 1 from t");
    done(&recording, simple);
    gateway.caught_up().await;
    let page = database.commands(&Filter::default(), &Wanted::default()).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].rows), (1, Some(1)), "an open session is indexed");

    // Prepared once, bound twice; the last execute runs on while the index goes past it.
    let parse = command(
        &recording,
        None,
        "parse",
        "select $1",
        &json!({ "statement": "s" }),
        &json!({ "verdict": "allow", "rules": ["all-reads"] }),
    );
    let values = json!({ "portal": "", "parameters": ["a\u{0}b", 7] });
    let bind = command(&recording, Some(parse), "bind", "", &values, &allow);
    let execute = command(&recording, Some(bind), "execute", "", &json!({ "max_rows": 5 }), &allow);
    done(&recording, execute);
    gateway.caught_up().await;
    let bind = command(&recording, Some(parse), "bind", "", &json!({}), &allow);
    let long = command(&recording, Some(bind), "execute", "", &json!({}), &allow);
    gateway.caught_up().await;
    // Prepared in vain, refused, and skipped.
    let bad = command(&recording, None, "parse", "selec 1", &json!({}), &allow);
    let error = json!({ "code": "42601", "message": "syntax error" });
    outcome(&recording, bad, &json!({ "error": error, "duration_us": 90 }));
    let skipped = command(&recording, Some(bad), "bind", "", &json!({}), &allow);
    outcome(&recording, skipped, &json!({ "status": "SKIPPED", "duration_us": 1 }));
    let refused = json!({ "verdict": "block", "rules": ["no-drop"], "reason": "Ask first." });
    command(&recording, None, "parse", "drop table t", &json!({}), &refused);
    done(&recording, long);
    gateway.caught_up().await;
    close(&recording);
    gateway.caught_up().await;

    let page =
        database.session_commands(session, &Filter::default(), &Wanted::default()).await.unwrap();
    assert_eq!(
        texts(&page),
        ["select 1 from t", "select $1", "select $1", "selec 1", "drop table t"]
    );
    let row = &page.items[1];
    assert_eq!(row.form, "execute");
    assert_eq!(row.attributes["parameters"], json!(["a\u{fffd}b", 7]));
    assert_eq!(
        (&row.attributes["statement"], &row.attributes["max_rows"]),
        (&json!("s"), &json!(5))
    );
    assert_eq!((row.effects.len(), row.rules.as_slice()), (1, &["all-reads".to_owned()][..]));
    assert_eq!(page.items[2].status.as_deref(), Some("SELECT 1"));
    assert_eq!(page.items[3].error_code.as_deref(), Some("42601"));
    assert_eq!(page.items[4].verdict, Verdict::Block);
    assert_eq!(page.items[4].reason.as_deref(), Some("Ask first."));

    let row = database.session(session).await.unwrap().unwrap();
    assert_eq!((row.commands, row.allowed, row.blocked, row.failed, row.rows), (5, 4, 1, 1, 3));
    assert_eq!(row.ended.as_deref(), Some("client"));
    gateway.stop().await;
    same_after_reindex(&database, folder.path()).await;
}

/// As of a crew whose run has its name from the target's answer.
#[tokio::test]
async fn a_run_that_is_named_later_is_named_in_the_index_too() {
    let server = &PostgresServer::shared().server;
    let (folder, database) = (TempDir::new().unwrap(), database(server, &server.create_database()));
    let gateway = Gateway::start(folder.path(), &database);
    let recording = gateway.open(|_| {});
    let first = query(&recording, "select 'before'");
    done(&recording, first);
    gateway.caught_up().await;
    let session = recording.session();
    assert_eq!(database.session(session).await.unwrap().unwrap().run, None);
    let note = json!({ "what": "run", "text": "run-7" });
    recording.append(|batch| batch.json(Kind::Note, Direction::None, None, &note)).unwrap();
    let second = query(&recording, "select 'after'");
    done(&recording, second);
    close(&recording);
    gateway.caught_up().await;
    let row = database.session(session).await.unwrap().unwrap();
    assert_eq!((row.run.as_deref(), row.run_proved), (Some("run-7"), Some(false)));
    gateway.stop().await;
    same_after_reindex(&database, folder.path()).await;
}

async fn same_after_reindex(database: &Database, data_dir: &Path) {
    let compared = database.compare_index(data_dir, true, &Keyring::default()).await.unwrap();
    assert!(compared.recordings > 0 && compared.behind == 0, "{compared:?}");
    assert_eq!(compared.differences, []);
    let before = database.index_digest().await.unwrap();
    let mut last = None;
    let done = database
        .reindex(data_dir, true, &Keyring::default(), |progress| last = Some(progress))
        .await
        .unwrap();
    let last = last.unwrap();
    assert_eq!((last.recordings, last.bytes), (last.of_recordings, last.of_bytes));
    assert!(done.damaged.is_empty() && done.removed == 0, "{done:?}");
    assert_eq!(database.index_digest().await.unwrap(), before);
}

#[tokio::test]
async fn an_outage_and_an_empty_database_lose_nothing() {
    let server = PostgresServer::start(&Options::default());
    server.superuser_psql("create database index");
    let (folder, database) = (TempDir::new().unwrap(), database(&server, "index"));
    let gateway = Gateway::start(folder.path(), &database);
    let running = gateway.open(|_| {});
    let mut open = Vec::new();
    for round in 0..6 {
        match round {
            1 => server.stop(),
            2 => server.restart(),
            3 => server.kill(),
            4 => {
                server.restart();
                server.superuser_psql("drop database index with (force)");
                server.superuser_psql("create database index");
            }
            _ => {}
        }
        for n in 0..20 {
            let recording = gateway.open(|_| {});
            let sequence = query(&recording, &format!("select {n} from round_{round}"));
            if n % 3 == 0 {
                open.push((recording, sequence));
            } else {
                done(&recording, sequence);
                close(&recording);
            }
            let sequence = query(&running, &format!("update running set n = {n}"));
            done(&running, sequence);
        }
        if round % 2 == 0 {
            gateway.caught_up().await;
        }
    }
    for (recording, sequence) in &open {
        done(recording, *sequence);
    }
    gateway.caught_up().await;
    let digest = database.index_digest().await.unwrap();
    assert_eq!((digest[0].0, digest[1].0), (121, 240));
    gateway.stop().await;
    drop((open, running));
    // Sealing them wrote more; the next gateway indexes it.
    let gateway = Gateway::start(folder.path(), &database);
    gateway.caught_up().await;
    gateway.stop().await;
    same_after_reindex(&database, folder.path()).await;
}

#[tokio::test]
async fn whoever_looks_while_migrations_are_applied_waits_for_the_rest() {
    let server = &PostgresServer::shared().server;
    for _ in 0..5 {
        let database = database(server, &server.create_database());
        let migrating = TaskTracker::new().spawn({
            let database = database.clone();
            async move { database.migrate().await.unwrap() }
        });
        while !migrating.is_finished() {
            let checked = database.check_version().await;
            let whole = matches!(checked, Ok(()) | Err(DatabaseError::Schema(SchemaError::Empty)));
            assert!(whole, "{checked:?}");
        }
        database.check_version().await.unwrap();
    }
}

#[tokio::test]
async fn migrations_apply_once_and_other_versions_are_told_apart() {
    let server = &PostgresServer::shared().server;
    let name = server.create_database();
    let database = database(server, &name);
    let said = async || database.check_version().await.unwrap_err().to_string();
    assert!(said().await.contains("run portcullis migrate"));
    let migrated = database.migrate().await.unwrap();
    assert!(migrated.applied.starts_with(&[1, 2, 3, 4]), "{migrated:?}");
    assert_eq!(migrated.applied.last(), Some(&migrated.version));
    assert_eq!(migrated.warning, None);
    assert!(database.migrate().await.unwrap().applied.is_empty());
    database.check_version().await.unwrap();

    let table = "portcullis_migrations";
    server.psql(&name, &format!("update {table} set success = false where version = 2"));
    assert!(said().await.contains("migration 2 was begun and not finished"));
    server.psql(&name, &format!("update {table} set success = true, checksum = 'x'"));
    assert!(said().await.contains("another wording"));
    server.psql(&name, &format!("delete from {table} where version = 1"));
    database.migrate().await.unwrap_err();
    server.psql(&name, &format!("insert into {table} values (99, '', now(), true, 'x', 1)"));
    assert!(said().await.contains("later version"), "{}", said().await);

    let name = server.create_database();
    server.psql(&name, &format!("alter database {name} set default_transaction_read_only = on"));
    let database = self::database(server, &name);
    let error = database.migrate().await.unwrap_err();
    assert!(matches!(error, DatabaseError::ReadOnly), "{error}");
}

#[tokio::test]
async fn filters_find_what_they_say_and_hostile_ones_find_nothing() {
    let (folder, database) = (TempDir::new().unwrap(), migrated().await);
    let gateway = Gateway::start(folder.path(), &database);
    let first = gateway.open(|opened| {
        opened.run = Some(Told { name: "run-1".to_owned(), proved: true });
    });
    let second = gateway.open(|opened| {
        opened.identity.username = "Robert'); drop table commands;--".to_owned();
        opened.identity.groups = vec!["dba".to_owned(), "a\"b".to_owned()];
        opened.target = "web-1".parse().unwrap();
    });
    for recording in [&first, &second] {
        let sequence = query(recording, "select email from public.customers where note like '50%'");
        done(recording, sequence);
    }
    let refused = json!({ "verdict": "block", "rules": ["no-drop"] });
    command(&second, None, "query", "DROP TABLE Orders", &json!({}), &refused);
    gateway.caught_up().await;

    let some = |text: &str| Some(text.to_owned());
    let all = Filter::default;
    for (filter, rows) in [
        (all(), 3),
        (Filter { user: some("crew-7"), ..all() }, 1),
        (Filter { user: some("Robert'); drop table commands;--"), ..all() }, 2),
        (Filter { group: some("a\"b"), ..all() }, 2),
        (Filter { target: some("web-1"), verdict: Some(Verdict::Block), ..all() }, 1),
        (Filter { verdict: Some(Verdict::Allow), ..all() }, 2),
        (Filter { run: some("run-1"), protocol: Some(Protocol::Postgres), ..all() }, 1),
        (Filter { protocol: Some(Protocol::Ssh), ..all() }, 0),
        (Filter { text: some("customers"), ..all() }, 2),
        (Filter { text: some("\"drop table\" -customers"), ..all() }, 1),
        (Filter { text: some("' | !( & :*"), ..all() }, 0),
        (Filter { contains: some("ORDERS"), ..all() }, 1),
        (Filter { contains: some("50%'"), ..all() }, 2),
        (Filter { contains: some("5_%"), ..all() }, 0),
        (Filter { contains: some("\\\\\\"), ..all() }, 0),
        (Filter { from: Some("2020-01-01T00:00:00Z".parse().unwrap()), ..all() }, 3),
        (Filter { to: Some("2020-01-01T00:00:00Z".parse().unwrap()), ..all() }, 0),
        (Filter { workflow: some("\u{1f4a3}"), ..all() }, 0),
    ] {
        assert_eq!(commands(&database, filter.clone()).await.len(), rows, "{filter:?}");
        let sessions = database.sessions(&filter, &Wanted::default()).await.unwrap().items;
        let expected = if rows == 3 { 2 } else { rows.min(sessions.len().max(1)) };
        assert_eq!(sessions.is_empty(), expected == 0, "{filter:?}");
    }
    for filter in [
        Filter { contains: some("ab"), ..all() },
        Filter { user: some("a\0b"), ..all() },
        Filter { text: some(&"x".repeat(2000)), ..all() },
    ] {
        let error = database.commands(&filter, &Wanted::default()).await.unwrap_err();
        assert!(matches!(error, QueryError::Bad(_)), "{error}");
    }
    for (limit, cursor) in [(Some(0), None), (Some(1001), None), (None, Some("../../x"))] {
        let wanted = Wanted { limit, cursor: cursor.map(str::to_owned) };
        for error in [
            database.commands(&all(), &wanted).await.map(drop).unwrap_err(),
            database.sessions(&all(), &wanted).await.map(drop).unwrap_err(),
            database.audit_log(&all(), &wanted).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, QueryError::Bad(_)), "{error}");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn pages_hold_every_row_once_while_more_come() {
    let (folder, database) = (TempDir::new().unwrap(), migrated().await);
    let gateway = Gateway::start(folder.path(), &database);
    let mut recordings = Vec::new();
    for n in 0..30 {
        let recording = gateway.open(|_| {});
        // In one batch: the same microsecond is likely.
        for m in 0..3 {
            query(&recording, &format!("select {n}.{m}"));
        }
        recordings.push(recording);
    }
    gateway.caught_up().await;
    let (mut cursor, mut seen, mut sessions) = (None, Vec::new(), 0);
    loop {
        let page = database
            .commands(&Filter::default(), &Wanted { limit: Some(7), cursor })
            .await
            .unwrap();
        seen.extend(page.items.iter().map(|c| (c.at, c.session, c.sequence)));
        query(&recordings[0], "select 'later'");
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 90);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "not in order");
    let mut cursor = None;
    loop {
        let wanted = Wanted { limit: Some(8), cursor };
        let page = database.sessions(&Filter::default(), &wanted).await.unwrap();
        sessions += page.items.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(sessions, 30);
    gateway.stop().await;
}

#[tokio::test]
async fn without_index_text_no_text_and_no_value_is_in_the_index() {
    let (folder, database) = (TempDir::new().unwrap(), migrated().await);
    let gateway = Gateway::start(folder.path(), &database);
    let recording = gateway.open(|_| {});
    let values = json!({ "parameters": ["sesame"] });
    let allow = json!({ "verdict": "allow" });
    let sequence = command(&recording, None, "query", "select 'sesame'", &values, &allow);
    let error = json!({ "code": "22P02", "message": "invalid: sesame" });
    outcome(&recording, sequence, &json!({ "error": error, "duration_us": 1 }));
    close(&recording);
    gateway.stop().await;
    database.reindex(folder.path(), false, &Keyring::default(), |_| {}).await.unwrap();
    let page = database.commands(&Filter::default(), &Wanted::default()).await.unwrap();
    let row = serde_json::to_string(&page.items).unwrap();
    assert!(
        !row.contains("sesame") && row.contains("22P02") && row.contains("sql.select"),
        "{row}"
    );
}

#[tokio::test]
async fn the_audit_log_gives_back_what_it_was_given() {
    let database = migrated().await;
    let entry = portcullis::database::AuditEntry {
        issuer: None,
        subject: None,
        username: "os:root".to_owned(),
        client: None,
        action: "session.show".to_owned(),
        object: Some("x\u{0}y".to_owned()),
        outcome: "done".to_owned(),
        detail: [("n".to_owned(), json!(1))].into(),
    };
    for _ in 0..3 {
        database.audit(&entry).await.unwrap();
    }
    let wanted = Wanted { limit: Some(2), cursor: None };
    let filter = Filter { text: Some("Session.".to_owned()), ..Filter::default() };
    let page = database.audit_log(&filter, &wanted).await.unwrap();
    assert_eq!(page.items[0].entry.object.as_deref(), Some("x\u{fffd}y"));
    let wanted = Wanted { cursor: page.next, ..wanted };
    let rest = database.audit_log(&filter, &wanted).await.unwrap();
    assert_eq!((page.items.len(), rest.items.len(), rest.next), (2, 1, None));
}
