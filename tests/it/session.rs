//! How long a session may live, and what a reload does to it.

use std::io::{Read, Write};
use std::net::TcpStream;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::support::client::Database;
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, told};
use crate::support::wire::messages;

/// An open session, and the error that its connection ends with.
struct Open {
    client: Client,
    ended: tokio::task::JoinHandle<Option<tokio_postgres::Error>>,
}

async fn open(gateway: &Gateway, target: &str) -> Open {
    let (client, connection) =
        gateway.client(target).tokio_postgres().connect(NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own client, not the gateway's")]
    let ended = tokio::spawn(async move { connection.await.err() });
    Open { client, ended }
}

impl Open {
    /// The code and words that the session ended with.
    async fn end(self) -> (String, String) {
        let error = self.ended.await.unwrap().expect("the session ends with an error");
        let told = error.as_db_error().unwrap_or_else(|| panic!("untold: {error:?}"));
        assert_eq!(told.severity(), "FATAL");
        (told.code().code().to_owned(), told.message().to_owned())
    }
}

#[tokio::test]
async fn a_reload_that_takes_the_access_away_ends_the_session() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([
        database.target("orders"),
        database.target("reports"),
    ]));
    let (lost, kept) = (open(&gateway, "orders").await, open(&gateway, "reports").await);
    let reloaded =
        gateway.reload(|text| text.replace("targets = [\"*\"]", "targets = [\"reports\"]"));
    assert!(reloaded.status.success(), "{}", told(&reloaded));
    let (code, message) = lost.end().await;
    assert_eq!(code, "28000");
    assert!(message.contains("withdrawn"), "{message}");
    assert!(kept.client.simple_query("select 1").await.is_ok());
    let refused = gateway.client("orders").tokio_postgres().connect(NoTls).await.err().unwrap();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let before = open(&gateway, "orders").await;
    let refused = gateway.reload(|text| text.replace("targets = [\"*\"]", "tragets = []"));
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("did you mean \"targets\""), "{}", told(&refused));
    assert!(before.client.simple_query("select 1").await.is_ok());
    let after = open(&gateway, "orders").await;
    assert!(after.client.simple_query("select 1").await.is_ok());
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[tokio::test]
async fn a_session_lives_no_longer_than_its_access_says() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        access: "max_session = \"1s\"".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let session = open(&gateway, "orders").await;
    session.client.batch_execute("begin; create table never_committed (id int)").await.unwrap();
    let (code, message) = session.end().await;
    assert_eq!(code, "28000");
    assert!(message.contains("time is over"), "{message}");
    let again = open(&gateway, "orders").await;
    assert!(again.client.simple_query("select from never_committed").await.is_err());
    assert!(gateway.stop().success());
    gateway.verify_all();
}

/// Row A45: a token that expires in the middle. Nothing new starts after its end; what runs gets
/// its grace, and its result arrives.
#[tokio::test]
async fn what_runs_when_the_token_ends_may_finish_within_the_grace() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        token_seconds: Some(2),
        server: "expiry_grace = \"20s\"".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let session = open(&gateway, "orders").await;
    let rows = session.client.simple_query("select pg_sleep(3), 'finished'").await.unwrap();
    assert!(format!("{rows:?}").contains("finished"));
    let (code, _) = session.end().await;
    assert_eq!(code, "28000");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[tokio::test]
async fn a_session_may_outlive_its_token_where_access_says_so() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        token_seconds: Some(3),
        access: "outlive_token = true".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let session = open(&gateway, "orders").await;
    assert!(session.client.simple_query("select pg_sleep(4)").await.is_ok());
    assert!(session.client.simple_query("select 1").await.is_ok());
    assert!(gateway.stop().success());
    gateway.verify_all();
}

/// Row A48: tokens anywhere but in the password message get nobody in, and are not stored.
#[test]
fn a_token_outside_of_the_password_is_refused_and_not_kept() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let token = gateway.issuer().token("agent");
    let options = format!("-c application_name={token}");
    for parameters in [
        vec![("user", token.as_str()), ("database", "orders")],
        vec![("user", "agent"), ("database", token.as_str())],
        vec![("user", "agent"), ("database", "orders"), ("application_name", token.as_str())],
        vec![("user", "agent"), ("database", "orders"), ("options", options.as_str())],
    ] {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.write_all(&startup(&parameters)).unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).unwrap();
        let first = messages(&received).next().unwrap();
        assert_eq!(first[0], b'E', "no password is asked for: {parameters:?}");
        assert!(String::from_utf8_lossy(first).contains("C28P01"), "{parameters:?}");
    }
    assert!(gateway.stop().success());
    let signature = token.rsplit('.').next().unwrap();
    assert!(!gateway.daemon().log().contains(signature));
    let stored = gateway.all_contents();
    assert!(!stored.windows(signature.len()).any(|window| window == signature.as_bytes()));
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [length.to_be_bytes().as_slice(), &body].concat()
}

#[test]
fn a_signal_reloads_too() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let file = gateway.configuration();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("targets = [\"*\"]", "targets = [\"orders\"]")).unwrap();
    rustix::process::kill_process(gateway.daemon().pid(), rustix::process::Signal::HUP).unwrap();
    wait_until("the reload", || gateway.daemon().log().contains("configuration reloaded"));
    assert!(gateway.stop().success());
}
