//! Memory does not grow with the traffic, and an idle session costs little.

use std::process::Stdio;

use crate::support::client::{Database, transcript};
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::amount;

/// What a transfer may add to an idle gateway's resident memory.
const TRANSFER_BOUND: u64 = 64 << 20;
/// What an idle session may cost.
const SESSION_BOUND: u64 = 150 << 10;

/// How much is sent each way.
fn megabytes() -> usize {
    amount("PORTCULLIS_BULK_MEGABYTES", 300)
}

#[test]
fn a_large_result_does_not_grow_the_gateway() {
    let rows = megabytes() * 1000;
    bulk(&format!(
        "copy (select repeat(md5(g::text), 31) from generate_series(1, {rows}) g) to stdout"
    ));
}

#[test]
fn a_large_select_does_not_grow_the_gateway() {
    let rows = megabytes() * 1000;
    // psql would keep the whole result itself without FETCH_COUNT; one value of 100 MB is kept.
    bulk(&format!(
        "\\set FETCH_COUNT 1000\nselect repeat(md5(g::text), 31) from generate_series(1, {rows}) g;\n\\unset FETCH_COUNT\nselect repeat('x', 100000000);"
    ));
}

#[test]
fn a_large_copy_in_does_not_grow_the_gateway() {
    let bytes = megabytes() * 1_000_000;
    let line = "0123456789abcdef".repeat(62);
    bulk(&format!(
        "create unlogged table sink (t text);\n\
         create function skip() returns trigger language plpgsql as 'begin return null; end';\n\
         create trigger skip before insert on sink for each row execute function skip();\n\
         \\copy sink from program 'yes {line} | head -c {bytes} | sed \"$ d\"'"
    ));
}

fn bulk(script: &str) {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let client = gateway.client("orders");
    let mut psql = client.psql();
    assert!(
        transcript({
            psql.args(["-c", "select 1"]);
            psql
        })
        .0
    );
    let idle = gateway.daemon().resident();

    let mut psql = client.psql();
    let mut running = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(running.wait().unwrap().success());

    let grown = gateway.daemon().peak_resident().saturating_sub(idle);
    println!("{} MB: {} kB above idle ({} kB)", megabytes(), grown >> 10, idle >> 10);
    assert!(grown < TRANSFER_BOUND, "the gateway grew by {} kB", grown >> 10);
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[tokio::test]
async fn an_idle_session_costs_little() {
    let count = amount("PORTCULLIS_IDLE_SESSIONS", 200);
    let connections = ("max_connections".to_owned(), (count + 50).to_string());
    let server =
        PostgresServer::start(&Options { settings: vec![connections], ..Options::default() });
    let database = Database::on(&server);
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let config = gateway.client("orders").tokio_postgres();
    let mut sessions = Vec::new();
    let mut before = 0;
    // The first few pay for what all share.
    for number in 0..count + 20 {
        if number == 20 {
            before = gateway.daemon().resident();
        }
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with its client")]
        let connection = tokio::spawn(connection);
        client.simple_query("select 'it did something'").await.unwrap();
        sessions.push((client, connection));
    }
    let each = gateway.daemon().resident().saturating_sub(before) / count as u64;
    println!("{count} idle sessions: {each} bytes each");
    assert!(each < SESSION_BOUND, "an idle session costs {each} bytes");
    drop(sessions);
    assert!(gateway.stop().success());
}
