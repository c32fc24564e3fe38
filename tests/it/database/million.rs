//! How long a search takes among many commands, on the private server as it is shipped.
//!
//! `PORTCULLIS_MILLION=1000000 cargo test --test it million -- --nocapture` prints the 95th
//! percentile and the plan of each. Without the variable a small number is enough to see that
//! every question is answered.

use std::time::{Duration, Instant};

use portcullis::database::{Database, Filter, PrivateServer, Wanted};
use portcullis::names::Protocol;
use portcullis::policy::Verdict;

use super::index::{Gateway, done, query};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

/// Each question is asked so often.
const ASKED: usize = 40;
/// Commands of one session.
const A_SESSION: u64 = 100;

const GENERATE: &str = include_str!("million.sql");

#[tokio::test]
async fn a_million_commands_are_searched_by_anything() {
    let wanted = std::env::var("PORTCULLIS_MILLION").ok();
    let commands: u64 = wanted.as_ref().map_or(20_000, |text| text.parse().unwrap());
    let folder = tempfile::TempDir::new().unwrap();
    let server = PrivateServer::start(folder.path()).await.unwrap();
    let database = Database::new(server.connect_options());
    database.migrate().await.unwrap();
    let mut connection = server.connect_options().connect().await.unwrap();
    let sessions = (commands / A_SESSION).to_string();
    let sql = GENERATE.replace(":sessions", &sessions).replace(":a_session", "100");
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.execute("vacuum analyze").await.unwrap();
    connection.close().await.unwrap();

    println!("{commands} commands, {sessions} sessions");
    println!("{:24} {:>10} {:>10} {:>6}", "p95 in ms", "commands", "sessions", "rows");
    for (name, filter) in questions() {
        let ask = async || database.commands(&filter, &Wanted::default()).await.unwrap();
        let (commands, page) = p95(ask).await;
        let ask = async || database.sessions(&filter, &Wanted::default()).await.unwrap();
        let (sessions, _) = p95(ask).await;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let rows = page.items.len();
        println!("{name:24} {:10.1} {:10.1} {rows:6}", ms(commands), ms(sessions));
        assert_eq!(rows == 0, name.ends_with("none"), "{name}");
        counted(&database, name, &filter).await;
    }
    if wanted.is_some() {
        for (name, filter) in questions() {
            println!("\n{name}\n{}", database.explain_commands(&filter).await.unwrap());
        }
    }
    database.close().await;
    server.stop().await;
}

/// A histogram has every session that is found, in no more columns than people can look at.
async fn counted(database: &Database, name: &str, filter: &Filter) {
    let histogram = database.histogram(filter).await.unwrap();
    let all = database.sessions(filter, &Wanted { limit: Some(1000), cursor: None }).await.unwrap();
    let (found, sums) = (i64::try_from(all.items.len()).unwrap(), histogram.sums);
    assert!(sums.sessions == found || all.next.is_some(), "{name}: {found} {sums:?}");
    let columns = &histogram.columns;
    let counted: i64 = columns.iter().map(|column| column.counts.sessions).sum();
    assert_eq!(counted, sums.sessions, "{name}");
    assert!(columns.len() <= 61, "{name}: {} columns", columns.len());
    let mut ends = columns.windows(2);
    assert!(ends.all(|two| two[1].from.0 - two[0].from.0 == histogram.step_us), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_indexed_in_batches() {
    let wanted = std::env::var("PORTCULLIS_MILLION").ok();
    let commands: u64 = wanted.map_or(2_000, |text| text.parse::<u64>().unwrap() / 10);
    let folder = tempfile::TempDir::new().unwrap();
    let server = PrivateServer::start(folder.path()).await.unwrap();
    let database = Database::new(server.connect_options());
    database.migrate().await.unwrap();
    let gateway = Gateway::start(folder.path(), &database);
    let began = Instant::now();
    let recordings: Vec<_> = (0..16).map(|_| gateway.open(|_| {})).collect();
    for n in 0..commands {
        let recording = &recordings[usize::try_from(n % 16).unwrap()];
        let text = format!("UPDATE pgbench_accounts SET abalance = abalance + {n} WHERE aid = {n}");
        done(recording, query(recording, &text));
    }
    let recorded = began.elapsed();
    gateway.caught_up().await;
    let indexed = began.elapsed().as_secs_f64();
    let rows = database.index_digest().await.unwrap()[1].0;
    println!("{commands} commands recorded in {recorded:.1?}, indexed in {indexed:.1} s");
    println!("{:.0} rows a second", f64::from(u32::try_from(rows).unwrap()) / indexed);
    assert_eq!(u64::try_from(rows).unwrap(), commands);
    gateway.stop().await;
    database.close().await;
    server.stop().await;
}

/// The 95th percentile, and the answer.
async fn p95<T>(mut ask: impl AsyncFnMut() -> T) -> (Duration, T) {
    let answer = ask().await;
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let began = Instant::now();
        ask().await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    (times[ASKED * 95 / 100], answer)
}

fn questions() -> Vec<(&'static str, Filter)> {
    let some = |text: &str| Some(text.to_owned());
    let time = |text: &str| Some(text.parse().unwrap());
    let block = Some(Verdict::Block);
    let all = Filter::default;
    vec![
        ("everything", all()),
        ("user, frequent", Filter { user: some("user-1"), ..all() }),
        ("user, rare", Filter { user: some("user-199"), ..all() }),
        ("user, none", Filter { user: some("nobody"), ..all() }),
        ("group, frequent", Filter { group: some("group-3"), ..all() }),
        ("group, none", Filter { group: some("nobody"), ..all() }),
        ("target", Filter { target: some("target-3"), ..all() }),
        ("workflow", Filter { workflow: some("workflow-7"), ..all() }),
        ("run", Filter { run: some("run-7"), ..all() }),
        ("verdict", Filter { verdict: block, ..all() }),
        ("verdict and target", Filter { verdict: block, target: some("target-3"), ..all() }),
        ("protocol, none", Filter { protocol: Some(Protocol::Ssh), ..all() }),
        (
            "a day",
            Filter {
                from: time("2026-02-10T00:00:00Z"),
                to: time("2026-02-11T00:00:00Z"),
                ..all()
            },
        ),
        ("words, frequent", Filter { text: some("customers"), ..all() }),
        ("words, rare", Filter { text: some("needle"), ..all() }),
        ("words, none", Filter { text: some("nosuchword"), ..all() }),
        ("words, phrase", Filter { text: some("\"delete from carts\""), ..all() }),
        ("words and target", Filter { text: some("orders"), target: some("target-3"), ..all() }),
        ("part, frequent", Filter { contains: some("customer"), ..all() }),
        ("part, rare", Filter { contains: some("eedl"), ..all() }),
        ("part, some", Filter { contains: some("tok_ab"), ..all() }),
        ("part, none", Filter { contains: some("zzqqzz"), ..all() }),
        ("part and target", Filter { contains: some("carts"), target: some("target-7"), ..all() }),
    ]
}
