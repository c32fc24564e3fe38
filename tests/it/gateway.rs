//! The gateway as its operators and clients meet it: who gets in, what they are told, what is
//! stored, how it stops.

use std::fs;
use std::process::{Output, Stdio};

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::support::client::{Client, Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};

fn select(client: &Client, statement: &str) -> (bool, String) {
    let mut psql = client.psql();
    psql.args(["-c", statement]);
    transcript(psql)
}

#[test]
fn rows_come_through_and_replay_shows_statements_and_rows() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let client = gateway.client("orders");
    assert_eq!(select(&client, "select 'seen ' || 'once'"), (true, "seen once\n".to_owned()));
    assert!(gateway.stop().success());
    gateway.verify_all();
    let recordings = gateway.recordings();
    let replays: Vec<Output> =
        recordings.iter().map(|path| portcullis(&["replay", path.to_str().unwrap()])).collect();
    let shows = |text: &str| replays.iter().any(|replay| told(replay).contains(text));
    assert!(replays.iter().all(|replay| replay.status.success()));
    assert!(shows("select 'seen ' || 'once'"), "the statement is not shown");
    assert!(shows("seen once"), "the row is not shown");
}

#[tokio::test]
async fn whoever_is_refused_is_told_one_and_the_same_and_nothing_opens_upstream() {
    let server = PostgresServer::start(&Options::default());
    let database = Database::on(&server);
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let issuer = gateway.issuer();
    let good = issuer.token("agent");
    let mut broken = good.clone();
    // The tenth character from the end belongs to the signature whole.
    let at = broken.len() - 10;
    broken.replace_range(at..=at, if broken[at..].starts_with('A') { "B" } else { "A" });
    let connections = || server.log_text().matches("connection received").count();
    let before = connections();

    let client = |target: &str, token: &str| {
        Client::new(gateway.address().port(), target, "agent", token).tokio_postgres()
    };
    let cases = [
        ("a password that is no token", client("orders", "secret")),
        ("a token whose signature was changed", client("orders", &broken)),
        ("a token for another audience", client("orders", &issuer.token_for("agent", "elsewhere"))),
        ("somebody whom no access names", client("orders", &issuer.token("stranger"))),
        ("a target that there is not", client("nowhere", &good)),
        ("a target's name that cannot be", client("../orders", &good)),
        ("a database that is not offered", client("orders/postgres", &good)),
        ("a token far too long", client("orders", &"x".repeat(60_000))),
    ];
    let mut first = None;
    for (what, config) in cases {
        let Err(error) = config.connect(NoTls).await else { panic!("{what} gets in") };
        let told = error.as_db_error().unwrap_or_else(|| panic!("{what}: {error:?}")).clone();
        assert_eq!((told.severity(), told.code().code()), ("FATAL", "28P01"), "{what}");
        assert_eq!(&told, first.get_or_insert(told.clone()), "{what} is told something else");
    }
    assert_eq!(connections(), before, "an upstream connection was opened for somebody refused");
    assert!(client("orders", &good).connect(NoTls).await.is_ok(), "the good token gets in");
}

#[test]
fn no_canary_of_credential_or_token_is_stored_logged_or_told() {
    const CREDENTIAL: &str = "canary-Xq7vT2mK9cR4-credential";
    // The server asks for the password in the clear, so that it really passes the gateway.
    let server = PostgresServer::start(&Options {
        hba: vec!["host all all 127.0.0.1/32 password".to_owned()],
        ..Options::default()
    });
    let mut database = Database::on(&server);
    let role = &database.role;
    server.superuser_psql(&format!("alter role {role} password '{CREDENTIAL}'"));
    database.password = CREDENTIAL.to_owned();
    let mut misconfigured = database.target("misconfigured");
    misconfigured.password = format!("{CREDENTIAL}-wrong");
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders"), misconfigured]));

    let (mut told, mut tokens) = (String::new(), Vec::new());
    for target in ["orders", "misconfigured", "nowhere"] {
        for client in ["agent", "stranger"] {
            let token = gateway.issuer().token(client);
            let port = gateway.address().port();
            let client = Client::new(port, target, client, &token);
            told += &select(&client, "select count(*) from pg_stat_activity; select 1 / 0").1;
            tokens.push(token);
        }
    }
    let command_line = format!("/proc/{}/cmdline", gateway.daemon().pid().as_raw_nonzero());
    let command_line = fs::read(command_line).unwrap();
    assert!(gateway.stop().success());

    let mut places = vec![
        ("what clients were told".to_owned(), told.into_bytes()),
        ("the log".to_owned(), gateway.daemon().log().into_bytes()),
        ("the command line".to_owned(), command_line),
        ("the recordings' contents".to_owned(), gateway.all_contents()),
    ];
    for file in gateway.stored_files() {
        places.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    assert!(places.len() > 6, "hardly anything was stored: {}", places.len());
    // Of a token, the signature alone is a secret; header and claims may be told apart.
    let signatures = tokens.iter().map(|token| token.rsplit('.').next().unwrap());
    for canary in signatures.chain([CREDENTIAL]) {
        assert!(canary.len() > 20, "{canary}");
        for (place, bytes) in &places {
            let found = bytes.windows(20).any(|window| window == &canary.as_bytes()[..20]);
            assert!(!found, "{canary} stands in {place}");
        }
    }
}

#[test]
fn a_target_that_is_down_is_named_and_nothing_more() {
    let server = PostgresServer::start(&Options::default());
    let database = Database::on(&server);
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let client = gateway.client("orders");
    server.stop();
    let (succeeded, said) = select(&client, "select 1");
    assert!(!succeeded);
    let (_, said) = said.split_once("failed: ").unwrap();
    assert!(said.contains("orders"), "{said}");
    assert!(!said.contains(&server.port().to_string()), "{said}");
    assert!(!said.contains("127.0.0.1"), "{said}");
    server.restart();
    assert!(select(&client, "select 1").0, "it works again once the target is back");
}

#[test]
fn a_session_ends_with_its_token() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        token_seconds: Some(3),
        server: "expiry_grace = \"1s\"".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let client = gateway.client("orders");
    let (succeeded, said) = select(&client, "select pg_sleep(60)");
    assert!(!succeeded, "{said}");
    assert!(!said.contains("server closed the connection unexpectedly"), "untold: {said}");
    let (succeeded, said) = select(&client, "select 'after its end'");
    assert!(!succeeded, "{said}");
    let server = &PostgresServer::shared().server;
    wait_until("the statement to be cancelled", || {
        let left = "select count(*) from pg_stat_activity where usename";
        server.superuser_psql(&format!("{left} = '{}'", database.role)) == "0"
    });
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[tokio::test]
async fn a_stop_tells_open_sessions_and_seals_their_recordings() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        server: "drain_timeout = \"1s\"".to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let client = gateway.client("orders");
    let (_idle, connection) = client.tokio_postgres().connect(NoTls).await.unwrap();
    let mut psql = client.psql();
    psql.args(["-c", "select pg_sleep(60)"]).stderr(Stdio::piped());
    let busy = psql.spawn().unwrap();
    let server = &PostgresServer::shared().server;
    wait_until("the statement to run", || {
        let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        server.superuser_psql(&format!("{sleeping} and usename = '{}'", database.role)) == "1"
    });
    assert!(gateway.stop().success());
    let told = connection.await.unwrap_err();
    assert_eq!(told.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{told:?}");
    let output = busy.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("canceling statement"), "{complaint}");
    gateway.verify_all();
}

#[test]
fn a_credential_that_does_not_work_is_the_operators_to_mend() {
    let database = Database::fresh();
    let unset = "[[target]]\nname = \"unset\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:9\"\n\
                 database = \"x\"\ntls = \"disable\"\n\
                 credential = { user = \"x\", password = { env = \"PORTCULLIS_NO_SUCH\" } }\n";
    let mut wrong = database.target("wrong");
    wrong.password = "not-the-password".to_owned();
    let gateway =
        Gateway::start(&Setup { listen: unset.to_owned(), ..Setup::for_targets([wrong]) });
    let log = gateway.daemon().wait_for_log("sessions there fail until it can be read");
    assert!(log.contains("target unset: the environment variable PORTCULLIS_NO_SUCH is not set"));
    for target in ["unset", "wrong"] {
        let mut psql = gateway.client(target).psql();
        psql.args(["-c", "select 1"]);
        let (succeeded, said) = transcript(psql);
        assert!(!succeeded && said.contains("cannot be reached"), "{said}");
        assert!(said.contains("The gateway's operator finds why in its log."), "{said}");
    }
    assert!(gateway.stop().success());
    let log = gateway.daemon().log();
    assert_eq!(log.matches("\"fault\":\"operator\"").count(), 2, "{log}");
}

#[test]
fn a_check_online_names_what_cannot_be_reached() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let file = gateway.configuration();
    let check = || portcullis(&["check", "--online", "--config", file.to_str().unwrap()]);
    let fine = check();
    assert!(fine.status.success(), "{}", told(&fine));

    // Port 9 of loopback: nobody is there.
    let right = fs::read_to_string(&file).unwrap();
    let target = database.target("orders");
    let wrong = right
        .replace(&format!("127.0.0.1:{}\"", target.port), "127.0.0.1:9\"")
        .replace(&gateway.issuer().url(), "http://127.0.0.1:9");
    fs::write(&file, wrong).unwrap();
    let (unreached, words) = (check(), told(&check()));
    assert_eq!(unreached.status.code(), Some(1), "{words}");
    for named in ["target orders: database ", "issuer dev: "] {
        assert!(words.contains(named), "{named} is not in {words}");
    }

    let password = fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "password"))
        .unwrap();
    fs::write(password, "not-the-password").unwrap();
    fs::write(&file, right).unwrap();
    let words = told(&check());
    assert!(words.contains("target orders: database "), "{words}");
    assert!(!words.contains("not-the-password"), "{words}");
}
