//! Retention from within: races with holds, deletions cut short, and what it costs beside what stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use portcullis::approval::Desk;
use portcullis::archive::{By, Pruned, Retention};
use portcullis::catalog::Catalog;
use portcullis::config;
use portcullis::database::{
    AuditEntry, Cutoff, Database, Filter, Hold, HoldFilter, OneSession, Timestamp,
};
use portcullis::names::{HoldId, SessionId};
use portcullis::notify::Notifier;
use portcullis::recording::{
    Against, Audit, Burial, Claim, Due, Keyring, Store, recording_path, recordings, verify_all,
};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;

use super::set;
use crate::support::postgres::PostgresServer;

/// A store, its index, and what deletes.
struct World {
    _folder: TempDir,
    data_dir: PathBuf,
    url: String,
    database: Database,
    pool: PgPool,
    store: Store,
    catalog: Arc<Catalog>,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data_dir = folder.path().join("data");
        let url = PostgresServer::fresh_index();
        let file = folder.path().join("portcullis.toml");
        let issuer =
            "[[issuer]]\nname = \"i\"\nurl = \"http://127.0.0.1:1\"\naudiences = [\"p\"]\n";
        fs::write(&file, format!("{issuer}[[retention]]\nkeep = \"30d\"\n")).unwrap();
        let config = Arc::new(config::load(&file).unwrap());
        let database = Database::from_url(&url).unwrap();
        database.migrate().await.unwrap();
        let store = set::store(&data_dir);
        let notifier = Notifier::new(&config.notify, store.gateway().to_owned(), Arc::default());
        let catalog = Arc::new(Catalog::new(config, Desk::new(database.clone(), notifier, None)));
        let pool = PgPool::connect(&url).await.unwrap();
        Self { _folder: folder, data_dir, url, database, pool, store, catalog }
    }

    /// Ends every connection, and gives how many pages of the database were touched until now.
    async fn pages(&mut self) -> i64 {
        self.pool.close().await;
        self.database.close().await;
        let pages = database_pages(&self.url).await;
        self.pool = PgPool::connect(&self.url).await.unwrap();
        self.database = Database::from_url(&self.url).unwrap();
        pages
    }

    /// Makes recordings and indexes them.
    async fn record(&self, count: usize) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            let recording = set::open(&self.store);
            set::close(&recording);
            sessions.push(recording.session());
        }
        self.database.reindex(&self.data_dir, true, &Keyring::default(), |_| {}).await.unwrap();
        sessions
    }

    /// Lets sessions have ended long ago.
    async fn age(&self, sessions: &[SessionId]) {
        let ids: Vec<_> = sessions.iter().map(SessionId::as_uuid).collect();
        let old =
            "update retained set ended_at = now() - interval '60 days' where session = any($1)";
        let done = sqlx::query(old).bind(ids).execute(&self.pool).await.unwrap();
        assert_eq!(done.rows_affected(), sessions.len() as u64);
    }

    fn retention(&self) -> Arc<Retention> {
        Retention::new(self.database.clone(), self.store.clone(), Arc::clone(&self.catalog), None)
    }

    fn is_there(&self, session: &SessionId) -> bool {
        recording_path(&self.data_dir, session).exists()
    }

    fn audit(&self) -> Audit {
        let audit = verify_all(&self.data_dir, &Against::default()).unwrap();
        assert!(audit.proved.contains(&Claim::Complete), "{audit:?}");
        audit
    }

    async fn rows(&self, table: &str) -> i64 {
        let count = format!("select count(*) from {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&self.pool).await.unwrap()
    }
}

fn by() -> By {
    By(AuditEntry {
        issuer: None,
        subject: None,
        username: "test".to_owned(),
        client: None,
        action: "recording.prune".to_owned(),
        object: None,
        outcome: "done".to_owned(),
        detail: BTreeMap::new(),
    })
}

fn hold(filter: HoldFilter) -> Hold {
    Hold {
        id: HoldId::generate(),
        reason: "case 4711".to_owned(),
        filter,
        set_at: Timestamp::from(std::time::SystemTime::now()),
        set_by: "test".to_owned(),
        lifted_at: None,
        lifted_by: None,
        lift_reason: None,
    }
}

/// Whatever is there when a hold was set is there ever after.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_was_set_is_never_too_late_for_what_is_still_there() {
    let rounds = std::env::var("PORTCULLIS_HOLD_RACES").map_or(20, |text| text.parse().unwrap());
    let world = World::new().await;
    let retention = world.retention();
    let mut met = [0, 0, 0];
    for round in 0..rounds {
        let sessions = world.record(70).await;
        world.age(&sessions).await;
        let filter = match round % 2 {
            0 => HoldFilter::Query(Box::new(Filter {
                user: Some("crew-7".to_owned()),
                ..Filter::default()
            })),
            _ => HoldFilter::Session(OneSession { session: sessions[69] }),
        };
        let covers = |session: &&SessionId| round % 2 == 0 || **session == sessions[69];
        let hold = hold(filter);
        let setting = async {
            // At another moment of the deletion each time.
            tokio::time::sleep(std::time::Duration::from_millis(8 * (round % 20))).await;
            world.database.set_hold(&hold).await.unwrap();
            let covered = sessions.iter().filter(covers);
            covered.filter(|session| world.is_there(session)).collect::<Vec<_>>()
        };
        let first = by();
        let (pruned, there) = tokio::join!(retention.prune(&first), setting);
        pruned.unwrap();
        retention.prune(&by()).await.unwrap();
        for session in &there {
            assert!(world.is_there(session), "round {round}: {session} was held and is gone");
        }
        let covered = sessions.iter().filter(covers).count();
        met[usize::from(there.len() < covered) + usize::from(there.is_empty())] += 1;
        world.database.lift_hold(hold.id, "test", None).await.unwrap();
        retention.prune(&by()).await.unwrap();
        assert!(!sessions.iter().any(|session| world.is_there(session)), "round {round}");
    }
    let [all, some, none] = met;
    println!(
        "{rounds} rounds: the hold came in time for all in {all}, for some in {some}, for none in {none}"
    );
    assert_eq!(world.audit().deleted, 70 * rounds);
    assert_eq!((world.rows("sessions").await, world.rows("retained").await), (0, 0));
}

/// Wherever a deletion was cut short, the next one does the rest, and nothing looks stolen.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_cut_short_anywhere_is_done_to_its_end() {
    let world = World::new().await;
    let sessions = world.record(4).await;
    world.age(&sessions).await;
    let due = |session: &SessionId| Due {
        session: *session,
        burial: Burial { ended_at: "2020-01-01T00:00:00Z".to_owned(), keep_seconds: 1 },
        missing: false,
    };
    // Killed behind the tombstone; behind the file; behind the transaction.
    world.store.entomb(&sessions[..3].iter().map(due).collect::<Vec<_>>()).unwrap();
    world.store.take_away(&sessions[1..3]).unwrap();
    let mut pruning = world.database.begin_pruning().await.unwrap();
    assert!(pruning.held(&sessions).await.unwrap().is_empty());
    pruning.finish(&sessions[2..3], &Default::default(), None).await.unwrap();
    let audit = world.audit();
    assert_eq!((audit.deleted, audit.recordings), (2, 2));

    // A hold that comes now keeps what is still there.
    let kept = hold(HoldFilter::Session(OneSession { session: sessions[0] }));
    world.database.set_hold(&kept).await.unwrap();
    let retention = world.retention();
    let pruned = retention.prune(&by()).await.unwrap();
    assert_eq!((pruned.deleted, pruned.held), (2, 1));
    assert!(world.is_there(&sessions[0]));
    assert_eq!(world.rows("sessions").await, 1);
    world.database.lift_hold(kept.id, "test", None).await.unwrap();
    assert_eq!(retention.prune(&by()).await.unwrap().deleted, 1);
    let audit = world.audit();
    assert_eq!((audit.deleted, audit.deleted_missing, audit.recordings), (4, 0, 0));
    for table in ["sessions", "commands", "recordings", "retained"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
    assert_eq!(retention.prune(&by()).await.unwrap(), Pruned::default());
}

/// A recording that somebody took away before its time does not become a lawful deletion.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_gone_before_is_told_apart() {
    let world = World::new().await;
    let sessions = world.record(2).await;
    fs::remove_file(recording_path(&world.data_dir, &sessions[0])).unwrap();
    let audit = verify_all(&world.data_dir, &Against::default()).unwrap();
    assert_eq!(audit.wrong.len(), 1);
    world.age(&sessions).await;
    assert_eq!(world.retention().prune(&by()).await.unwrap().deleted, 2);
    let audit = world.audit();
    assert_eq!((audit.deleted, audit.deleted_missing), (2, 1));
}

/// `PORTCULLIS_RETENTION=1000,10000,100000` prints what it costs to delete among so many.
#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_never_looked_at() {
    let sizes = std::env::var("PORTCULLIS_RETENTION").unwrap_or_else(|_| "200,1000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
    let mut world = World::new().await;
    let (mut there, mut costs) = (0, Vec::new());
    println!(
        "{:>9} {:>12} {:>10} {:>11} {:>11} {:>9}",
        "sessions", "nothing due", "find 64", "delete 128", "calls", "pages"
    );
    for size in sizes {
        world.record(size - there).await;
        world.pool.execute("vacuum analyze").await.unwrap();
        let began = Instant::now();
        assert_eq!(world.retention().prune(&by()).await.unwrap().deleted, 0);
        let nothing = began.elapsed();
        let all = recordings(&world.data_dir).unwrap();
        // From everywhere among those that stay.
        let old: Vec<_> =
            all.iter().step_by(all.len() / 128).take(128).map(|(id, ..)| *id).collect();
        world.age(&old).await;
        let class: i64 = sqlx::query_scalar("select id from retention_classes")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        let before =
            Timestamp::from(std::time::SystemTime::now() - std::time::Duration::from_secs(86_400));
        let cutoffs = [Cutoff { class, before }];
        let gateway = world.store.gateway();
        let plan = world.database.explain_due(gateway, &cutoffs, 64).await.unwrap();
        assert!(!plan.contains("Seq Scan"), "{plan}");
        let found = pages_of(&plan);
        let (pages, retention) = (world.pages().await, world.retention());
        let (calls, began) = (system_calls(), Instant::now());
        assert_eq!(retention.prune(&by()).await.unwrap().deleted, 128);
        let deleted = began.elapsed();
        let calls = system_calls() - calls;
        let pages = world.pages().await - pages;
        let ms = |time: std::time::Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        println!(
            "{size:>9} {:>12} {found:>4} pages {:>11} {calls:>11} {pages:>9}",
            ms(nothing),
            ms(deleted)
        );
        there = size - 128;
        costs.push(found);
    }
    // A tree is a level deeper at most; what is due lies among other rows.
    assert!(costs[costs.len() - 1] <= costs[0] * 2 + 70, "it grows with what stays: {costs:?}");
}

/// The pages that a plan says it touched.
fn pages_of(plan: &str) -> u64 {
    let buffers = plan.lines().find(|line| line.trim_start().starts_with("Buffers: shared"));
    let numbers = buffers.unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse::<u64>().ok()).sum()
}

fn system_calls() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let of = |name: &str| {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    of("syscr:") + of("syscw:")
}

/// The pages that were touched by connections that are closed now. A connection's server tells of
/// what it did when it ends.
async fn database_pages(url: &str) -> i64 {
    let options = PgConnectOptions::from_str(url).unwrap();
    let mut own = PgConnection::connect_with(&options).await.unwrap();
    let others = "select count(*) from pg_stat_activity where datname = current_database() \
        and pid <> pg_backend_pid()";
    loop {
        let open: i64 = sqlx::query_scalar(others).fetch_one(&mut own).await.unwrap();
        if open == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let query =
        "select blks_hit + blks_read from pg_stat_database where datname = current_database()";
    let pages = sqlx::query_scalar(query).fetch_one(&mut own).await.unwrap();
    own.close().await.unwrap();
    pages
}
