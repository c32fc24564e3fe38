//! Connections to targets: a real PostgreSQL here, hostile ones in [`hostile`].

mod hostile;
mod scram;

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use portcullis::config::{PostgresTarget, SecretRef, UpstreamTls};
use portcullis::protocol::postgres::upstream::{
    Authentication, Connector, ProtocolVersion, Upstream, UpstreamError,
};
use portcullis::secret::Secret;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::certificates::Authority;
use crate::support::postgres::{Options, PostgresServer, wait};

const PASSWORD: &str = "canary-Pa55-ß";

const SETUP: &str = "
    set password_encryption = 'scram-sha-256';
    create role by_scram login password 'canary-Pa55-ß';
    create role by_password login password 'canary-Pa55-ß';
    set password_encryption = 'md5';
    create role by_md5 login password 'canary-Pa55-ß';
    create role by_trust login;
    create role by_nothing login;";

/// A server with a user for each way to log in, and where its authority's certificate is.
struct Real {
    server: PostgresServer,
    authority: Authority,
    ca: PathBuf,
    _folder: TempDir,
}

fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let authority = Authority::new();
        let folder = TempDir::new().unwrap();
        let ca = folder.path().join("ca.crt");
        fs::write(&ca, authority.pem()).unwrap();
        let method = |user, method| format!("host all {user} 127.0.0.1/32 {method}");
        let server = PostgresServer::start(&Options {
            ssl: Some(authority.issue(&["localhost", "127.0.0.1"])),
            hba: vec![
                method("by_scram", "scram-sha-256"),
                method("by_password", "password"),
                method("by_md5", "md5"),
                method("by_trust", "trust"),
                method("by_nothing", "reject"),
            ],
            setup: SETUP.to_owned(),
            ..Options::default()
        });
        Real { server, authority, ca, _folder: folder }
    })
}

/// A target on this machine.
fn target(port: u16, user: &str, tls: UpstreamTls, ca: Option<PathBuf>) -> PostgresTarget {
    PostgresTarget {
        host: "127.0.0.1".to_owned(),
        port,
        database: "postgres".to_owned(),
        databases: Vec::new(),
        tls,
        ca,
        user: user.to_owned(),
        password: SecretRef::Env("UNUSED".to_owned()),
    }
}

fn real_target(user: &str, tls: UpstreamTls) -> PostgresTarget {
    let ca = (tls == UpstreamTls::VerifyFull).then(|| real().ca.clone());
    target(real().server.port(), user, tls, ca)
}

/// Connects; whatever comes of it does not show the password.
async fn connect_as(target: &PostgresTarget, password: &str) -> Result<Upstream, UpstreamError> {
    let connector = Connector::new(target)?;
    let parameters = [("application_name".to_owned(), "portcullis".to_owned())];
    let password = Secret::new(password.to_owned());
    let database = &target.database;
    let result = connector.connect(database, ProtocolVersion::V3_2, &parameters, &password).await;
    let shown = match &result {
        Ok(upstream) => format!("{upstream:?} {connector:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains("canary"), "{shown}");
    result
}

async fn connect(target: &PostgresTarget) -> Result<Upstream, UpstreamError> {
    connect_as(target, PASSWORD).await
}

async fn start_query(upstream: &mut Upstream, sql: &str) {
    let length = u32::try_from(4 + sql.len() + 1).unwrap().to_be_bytes();
    let query = [b"Q", &length[..], sql.as_bytes(), b"\0"].concat();
    upstream.stream.write_all(&query).await.unwrap();
    upstream.stream.flush().await.unwrap();
}

/// All messages up to `ReadyForQuery`, as text.
async fn finish_query(upstream: &mut Upstream) -> String {
    let mut all = upstream.buffered.split().to_vec();
    while !all.ends_with(b"Z\0\0\0\x05I") {
        assert_ne!(upstream.stream.read_buf(&mut all).await.unwrap(), 0, "the server hung up");
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn each_way_to_log_in_works_with_the_password_and_only_with_it() {
    use Authentication as A;
    for (tls, user, expected) in [
        (UpstreamTls::VerifyFull, "by_scram", A::ScramPlus),
        (UpstreamTls::VerifyFull, "by_password", A::Password),
        (UpstreamTls::VerifyFull, "by_md5", A::Md5),
        (UpstreamTls::VerifyFull, "by_trust", A::Trust),
        (UpstreamTls::Require, "by_scram", A::ScramPlus),
        (UpstreamTls::Disable, "by_scram", A::Scram),
        (UpstreamTls::Disable, "by_password", A::Password),
        (UpstreamTls::Disable, "by_md5", A::Md5),
        (UpstreamTls::Disable, "by_trust", A::Trust),
    ] {
        let target = real_target(user, tls);
        let mut upstream = connect(&target).await.unwrap();
        assert_eq!(upstream.authentication, expected, "{user} {tls:?}");
        assert_eq!(upstream.stream.is_tls(), tls != UpstreamTls::Disable);
        start_query(&mut upstream, "select current_user || ' on ' || current_database()").await;
        assert!(finish_query(&mut upstream).await.contains(&format!("{user} on postgres")));

        if expected != A::Trust {
            let error = connect_as(&target, "canary-wrong").await.unwrap_err();
            assert!(matches!(&error, UpstreamError::Server(e) if e.code == "28P01"), "{error}");
            assert_eq!(error.client_code(), "08001");
        }
    }
}

#[tokio::test]
async fn a_refused_user_and_a_missing_database_are_told_to_the_operator_alone() {
    let mut target = real_target("by_nothing", UpstreamTls::VerifyFull);
    let error = connect(&target).await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Server(e) if e.code == "28000"), "{error}");
    assert_eq!(error.client_code(), "08001");

    target = real_target("by_trust", UpstreamTls::VerifyFull);
    target.database = "nowhere".to_owned();
    let error = connect(&target).await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Server(e) if e.code == "3D000"), "{error}");
    assert_eq!(error.client_code(), "08001");
}

#[tokio::test]
async fn settings_go_both_ways_and_an_older_version_is_agreed_on() {
    let mut upstream = connect(&real_target("by_trust", UpstreamTls::VerifyFull)).await.unwrap();
    assert_eq!(upstream.version, ProtocolVersion::V3_0, "PostgreSQL 15 is older than 3.2");
    assert!(upstream.buffered.is_empty());
    assert!(upstream.notices.is_empty());
    let told = |name: &str| upstream.parameters.iter().find(|(n, _)| n == name).unwrap().1.clone();
    assert_eq!(told("application_name"), "portcullis");
    assert_eq!(told("session_authorization"), "by_trust");
    assert_eq!(told("server_encoding"), "UTF8");
    start_query(&mut upstream, "show application_name").await;
    assert!(finish_query(&mut upstream).await.contains("portcullis"));
}

#[tokio::test]
async fn verify_full_takes_the_names_of_the_certificate_and_no_other() {
    let mut target = real_target("by_trust", UpstreamTls::VerifyFull);
    target.host = "localhost".to_owned();
    connect(&target).await.unwrap();
    target.host = "not a name".to_owned();
    assert!(matches!(Connector::new(&target), Err(UpstreamError::Configuration(_))));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_passes_require_and_not_verify_full() {
    connect(&real_target("by_trust", UpstreamTls::Require)).await.unwrap();
    let mut target = real_target("by_trust", UpstreamTls::VerifyFull);
    let other = TempDir::new().unwrap();
    let ca = other.path().join("ca.crt");
    fs::write(&ca, Authority::new().pem()).unwrap();
    target.ca = Some(ca);
    let error = connect(&target).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("`ca`"), "{error}");
}

#[tokio::test]
async fn a_ca_that_is_missing_empty_or_without_use_is_a_mistake_of_the_configuration() {
    let mut target = real_target("by_trust", UpstreamTls::VerifyFull);
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.crt");
    target.ca = Some(ca.clone());
    assert!(matches!(Connector::new(&target), Err(UpstreamError::Configuration(_))));
    fs::write(&ca, "no certificate here").unwrap();
    assert!(matches!(Connector::new(&target), Err(UpstreamError::Configuration(_))));
    fs::copy(&real().ca, &ca).unwrap();
    assert!(Connector::new(&target).is_ok());
    target.tls = UpstreamTls::Require;
    assert!(matches!(Connector::new(&target), Err(UpstreamError::Configuration(_))));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_unless_tls_is_disabled() {
    let server = PostgresServer::start(&Options {
        hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        ..Options::default()
    });
    for tls in [UpstreamTls::Require, UpstreamTls::VerifyFull] {
        let ca = (tls == UpstreamTls::VerifyFull).then(|| real().ca.clone());
        let error = connect(&target(server.port(), "postgres", tls, ca)).await.unwrap_err();
        assert!(matches!(error, UpstreamError::TlsRefused), "{error}");
    }
    let plain = target(server.port(), "postgres", UpstreamTls::Disable, None);
    connect(&plain).await.unwrap();
    server.stop();
    let error = connect(&plain).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error}");
    assert_eq!(error.client_code(), "08001");
}

#[tokio::test]
async fn a_cancel_reaches_what_runs_with_tls_and_without() {
    for tls in [UpstreamTls::VerifyFull, UpstreamTls::Disable] {
        let mut upstream = connect(&real_target("by_trust", tls)).await.unwrap();
        let sql = format!("select pg_sleep(600), '{tls:?}'");
        start_query(&mut upstream, &sql).await;
        let running = format!(
            "select 1 from pg_stat_activity where state = 'active' and wait_event = 'PgSleep' \
             and query like '%{tls:?}%'"
        );
        wait("the query to run", || real().server.superuser_psql(&running) == "1");
        upstream.cancel.clone().cancel().await.unwrap();
        assert!(finish_query(&mut upstream).await.contains("57014"));

        start_query(&mut upstream, "select 'goes on'").await;
        assert!(finish_query(&mut upstream).await.contains("goes on"));
    }
}
