//! What people decide while the gateway runs: tickets, kills, approvals, access for a time; on one
//! gateway and on two that share a database.

mod access;
mod again;
mod balanced;
pub mod elsewhere;
pub mod held;
mod kills;
mod moments;
mod notify;
mod table;
mod tickets;
mod users;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::{PATIENCE, PORTCULLIS, wait_until};
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::PostgresServer;

/// The API, and who may do what there.
const WEB: &str =
    "web = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";

/// A gateway with its API on.
pub fn setup(database: &Database) -> Setup {
    Setup { listen: WEB.to_owned(), ..Setup::for_targets([database.target("orders")]) }
}

/// Gateways that share an issuer and the database of their state; these rules for each.
pub fn gateways<const N: usize>(database: &Database, access: &str, policy: &str) -> [Gateway; N] {
    let issuer = Arc::new(Issuer::start(3600));
    let state = format!("url = {:?}", PostgresServer::fresh_index());
    let gateways = [(); N].map(|()| {
        Gateway::start(&Setup {
            issuer: Some(Arc::clone(&issuer)),
            database: Some(state.clone()),
            access: access.to_owned(),
            policy: policy.to_owned(),
            ..setup(database)
        })
    });
    gateways.iter().for_each(wait_for_state);
    gateways
}

/// Waits until the gateway has read state.
pub fn wait_for_state(gateway: &Gateway) {
    gateway.daemon().wait_for_log("state is read");
}

/// Asks the API as somebody; gives status and JSON.
pub fn ask(gateway: &Gateway, who: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    ask_with(gateway, &gateway.issuer().token(who), method, path, body)
}

/// The same with a token at hand.
pub fn ask_with(
    gateway: &Gateway,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(gateway.web()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Makes a ticket for the agent; gives its id and its secret.
pub fn ticket(gateway: &Gateway, body: &str) -> (String, String) {
    let (status, made) = ask(gateway, "agent", "POST", "/tickets", body);
    assert_eq!(status, 201, "{made}");
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

/// A client that presents something to a gateway.
pub fn client_with(gateway: &Gateway, target: &str, secret: &str) -> Client {
    Client::new(gateway.address().port(), target, "agent", secret)
}

/// Whether psql could run a statement, and what it said.
pub fn psql(client: &Client, statement: &str) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    transcript(psql)
}

/// What one of the binary's commands said, run as somebody against a gateway's API.
pub fn command(gateway: &Gateway, who: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(PORTCULLIS);
    command.args(arguments).args(["--server", &format!("http://{}", gateway.web())]);
    command.env("PORTCULLIS_TOKEN", gateway.issuer().token(who));
    transcript(command)
}

/// A session that stays open, and tells when it has ended.
pub struct OpenSession {
    runtime: tokio::runtime::Runtime,
    client: Arc<tokio_postgres::Client>,
    ended: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl OpenSession {
    pub fn open(client: &Client) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = client.tokio_postgres();
        let (client, connection) = runtime.block_on(config.connect(tokio_postgres::NoTls)).unwrap();
        let ended = runtime.spawn(connection);
        Self { runtime, client: Arc::new(client), ended }
    }

    pub fn query(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.simple_query(sql)).map(drop)
    }

    /// Runs a statement that nobody waits for.
    pub fn start(&self, sql: &'static str) {
        let client = Arc::clone(&self.client);
        drop(self.runtime.spawn(async move { client.simple_query(sql).await.map(drop) }));
    }

    /// Waits for its end; says how long that took and what the gateway said.
    pub fn wait_for_end(self) -> (Duration, String) {
        let began = Instant::now();
        let ended =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.ended).await });
        let said = match ended.expect("the session's end").unwrap() {
            Ok(()) => String::new(),
            Err(error) => error.as_db_error().map_or(error.to_string(), |e| e.message().to_owned()),
        };
        (began.elapsed(), said)
    }
}

/// The id of the one session of a user that is open, once the index has it.
pub fn open_session_id(gateway: &Gateway) -> String {
    let mut id = String::new();
    wait_until("the open session in the index", || {
        let (_, page) = ask(gateway, "auditor", "GET", "/sessions", "");
        let items = page["items"].as_array().cloned().unwrap_or_default();
        // The index may not know yet that an earlier one has ended.
        let log = gateway.daemon().log();
        let latest = log.lines().rev().find(|line| line.contains("\"session opened\""));
        let latest = latest.and_then(|line| serde_json::from_str::<Value>(line).ok());
        let latest = latest.map(|line| line["session"].clone()).unwrap_or_default();
        let meant = |row: &Value| latest.is_null() || row["id"] == latest;
        let open = items.iter().find(|row| row["closed_at"].is_null() && meant(row));
        id = open.and_then(|session| session["id"].as_str()).unwrap_or_default().to_owned();
        !id.is_empty()
    });
    id
}
