//! Servers that lie, stall and flood, and somebody in the middle.

use std::cell::Cell;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config::UpstreamTls;
use portcullis::protocol::postgres::upstream::{
    Authentication, ProtocolVersion, Upstream, UpstreamError,
};
use rcgen::date_time_ymd;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::scram::{self, Lie};
use super::{PASSWORD, connect, real, target};
use crate::support::certificates::{Authority, Issued, self_signed};

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const KEY: &[u8] = b"K\0\0\0\x0c\0\0\0\x01key!";
const READY: &[u8] = b"Z\0\0\0\x05I";
const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Connects to a server that does what the script says with each connection it gets.
async fn against(
    tls: UpstreamTls,
    script: impl AsyncFn(TcpStream),
) -> Result<Upstream, UpstreamError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap().port(), "svc", tls, None);
    beside(&listener, script, connect(&target)).await
}

/// Does something while a server does what the script says.
async fn beside<T>(
    listener: &TcpListener,
    script: impl AsyncFn(TcpStream),
    client: impl Future<Output = T>,
) -> T {
    let server = async {
        loop {
            script(listener.accept().await.unwrap().0).await;
        }
    };
    tokio::select! {
        result = client => result,
        () = server => unreachable!("a server has no end"),
    }
}

/// Reads the startup message.
async fn read_startup<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// Reads the body of a message that answers an authentication request; nothing at the end.
pub async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let tag = stream.read_u8().await.ok()?;
    assert_eq!(tag, b'p');
    Some(read_startup(stream).await)
}

pub async fn write<S: AsyncWrite + Unpin>(stream: &mut S, tag: u8, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    send(stream, &[&[tag][..], &length, body].concat()).await;
}

/// Sends, for as long as the client listens.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        drop(stream.flush().await);
    }
}

/// Takes the connection over to TLS as a server does.
async fn accept_tls(
    mut tcp: TcpStream,
    issued: &Issued,
) -> std::io::Result<server::TlsStream<TcpStream>> {
    assert_eq!(read_startup(&mut tcp).await, [0x04, 0xd2, 0x16, 0x2f]);
    tcp.write_all(b"S").await?;
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config)).accept(tcp).await
}

/// The refusal of a server that sends these bytes after the startup message.
async fn refusal_of(bytes: &[u8]) -> UpstreamError {
    let script = async |mut tcp: TcpStream| {
        read_startup(&mut tcp).await;
        send(&mut tcp, bytes).await;
    };
    against(UpstreamTls::Disable, script).await.expect_err("a refusal")
}

#[tokio::test]
async fn an_answer_to_the_tls_request_is_one_byte_and_known() {
    for (answer, text) in [
        (&b"SE\0\0\0\x10SFATAL\0Minjected"[..], "bytes behind"),
        (b"NR\0\0\0\x08\0\0\0\0", "bytes behind"),
        (b"E\0\0\0\x10SFATAL\0Minjected", "an error as answer"),
        (b"X", "an unknown answer"),
        (b"", "broke at the TLS request"),
        (b"N", "does not offer TLS"),
    ] {
        let script = async |mut tcp: TcpStream| {
            read_startup(&mut tcp).await;
            send(&mut tcp, answer).await;
        };
        let error = against(UpstreamTls::Require, script).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(!error.contains("injected"), "{error}");
    }
}

#[tokio::test]
async fn bytes_that_follow_the_answer_late_are_not_taken_for_the_servers() {
    let script = async |mut tcp: TcpStream| {
        read_startup(&mut tcp).await;
        send(&mut tcp, b"S").await;
        // The client's handshake has begun: it has read the answer.
        drop(tcp.read_u8().await);
        send(&mut tcp, &[OK, READY].concat()).await;
        pending::<()>().await;
    };
    let error = against(UpstreamTls::Require, script).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_told_apart_for_the_operator() {
    let authority = Authority::new();
    let expired = authority.issue_with(&["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let other_name = authority.issue(&["localhost", "127.0.0.2"]);
    let alone = self_signed(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);

    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, authority.pem()).unwrap();
    for (issued, text) in
        [(&expired, "renew"), (&other_name, "subjectAltName"), (&alone, "set the target's `ca`")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let verifying = target(port, "svc", UpstreamTls::VerifyFull, Some(ca.clone()));
        let script = async |tcp| {
            let tls = accept_tls(tcp, issued).await;
            assert!(tls.is_err(), "the client should have left");
        };
        let error = beside(&listener, script, connect(&verifying)).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn scram_is_bound_to_the_servers_certificate_where_both_can() {
    use aws_lc_rs::digest::{SHA256, SHA384, digest};
    let both = [PLUS, PLAIN];
    for (key, hash, offer, flag) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256, &both[..], "p=tls-server-end-point"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384, &[PLUS], "p=tls-server-end-point"),
        // "I could": lets a server that had offered it see that the offer was taken away.
        (&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256, &[PLAIN], "y"),
        // No binding is defined for these certificates.
        (&rcgen::PKCS_ED25519, &SHA256, &both, "n"),
    ] {
        let issued = self_signed(&["anything"], key);
        let hash = digest(hash, issued.certificate.der());
        let script = async |tcp| {
            let mut tls = accept_tls(tcp, &issued).await.unwrap();
            read_startup(&mut tls).await;
            let chosen = scram::serve(&mut tls, offer, hash.as_ref(), PASSWORD, Lie::Nothing).await;
            let mechanism = if flag.starts_with('p') { PLUS } else { PLAIN };
            assert_eq!(chosen, Some((mechanism.to_owned(), flag.to_owned())));
            send(&mut tls, &[OK, KEY, READY].concat()).await;
        };
        let upstream = against(UpstreamTls::Require, script).await.unwrap();
        assert_eq!(upstream.authentication == Authentication::ScramPlus, flag.starts_with('p'));
    }
    let script = async |mut tcp: TcpStream| {
        read_startup(&mut tcp).await;
        scram::serve(&mut tcp, &[PLUS], &[], PASSWORD, Lie::Nothing).await;
    };
    let error = against(UpstreamTls::Disable, script).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Method(_)), "{error}");
}

#[tokio::test]
async fn a_man_in_the_middle_is_caught_by_the_binding() {
    let middle = self_signed(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let script = async |tcp| {
        let mut client = accept_tls(tcp, &middle).await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", real().server.port())).await.unwrap();
        server.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'S');
        let mut roots = RootCertStore::empty();
        roots.add(real().authority.der()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut server = connector.connect(name, server).await.unwrap();
        drop(copy_bidirectional(&mut client, &mut server).await);
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    // Without SCRAM, `require` does not notice: the middle works.
    let careless = target(port, "by_password", UpstreamTls::Require, None);
    let upstream = beside(&listener, script, connect(&careless)).await.unwrap();
    assert_eq!(upstream.authentication, Authentication::Password);

    let bound = target(port, "by_scram", UpstreamTls::Require, None);
    let error = beside(&listener, script, connect(&bound)).await.unwrap_err();
    assert!(error.to_string().contains("channel binding"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    for (lie, text) in [
        (Lie::NoProof, "out of turn"),
        (Lie::WrongProof, "verification"),
        (Lie::OtherNonce, "nonce"),
        (Lie::Iterations(100_001), "iteration count"),
        (Lie::Iterations(u32::MAX), "iteration count"),
    ] {
        let script = async |mut tcp: TcpStream| {
            read_startup(&mut tcp).await;
            scram::serve(&mut tcp, &[PLAIN], &[], PASSWORD, lie).await;
            send(&mut tcp, &[OK, KEY, READY].concat()).await;
        };
        let error = against(UpstreamTls::Disable, script).await.unwrap_err().to_string();
        assert!(error.contains(text), "{lie:?}: {error}");
    }
    let sasl = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let error = refusal_of(&[sasl, OK, KEY, READY].concat()).await;
    assert!(error.to_string().contains("out of turn"), "{error}");
}

#[tokio::test]
async fn a_flood_is_refused() {
    let parameter = b"S\0\0\0\x08a\0b\0";
    for flood in [&parameter[..], b"N\0\0\0\x05\0"] {
        let error = refusal_of(&[OK, &flood.repeat(100_000)].concat()).await;
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error}");
    }
    for header in [&b"R\x7f\xff\xff\xff"[..], b"R\0\x01\0\0", b"R\0\0\0\x03", b"E\xff\xff\xff\xff"]
    {
        let error = refusal_of(header).await;
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_startup_cut_anywhere_is_an_error() {
    let whole = [OK, b"S\0\0\0\x08a\0b\0", KEY, READY].concat();
    for cut in 0..whole.len() {
        let error = refusal_of(&whole[..cut]).await;
        assert!(matches!(error, UpstreamError::Io { .. }), "{cut}: {error}");
    }
}

#[tokio::test]
async fn silence_ends_at_every_step() {
    let steps: [(UpstreamTls, &[u8], &str); 5] = [
        (UpstreamTls::Require, b"", "TLS"),
        (UpstreamTls::Require, b"S", "TLS"),
        (UpstreamTls::Disable, b"", "startup"),
        (UpstreamTls::Disable, OK, "startup"),
        (UpstreamTls::Disable, b"R\0\0", "startup"),
    ];
    for (tls, said, step) in steps {
        let script = async |mut tcp: TcpStream| {
            read_startup(&mut tcp).await;
            send(&mut tcp, said).await;
            time::pause();
            pending::<()>().await;
        };
        let error = against(tls, script).await.unwrap_err();
        time::resume();
        assert!(matches!(error, UpstreamError::Timeout { doing } if doing == step), "{error}");
    }
    let certificate = self_signed(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let script = async |tcp| {
        let mut tls = accept_tls(tcp, &certificate).await.unwrap();
        read_startup(&mut tls).await;
        time::pause();
        pending::<()>().await;
    };
    let error = against(UpstreamTls::Require, script).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { doing: "startup" }), "{error}");
}

#[tokio::test]
async fn one_message_a_second_does_not_outlast_the_deadline() {
    let script = async |mut tcp: TcpStream| {
        read_startup(&mut tcp).await;
        send(&mut tcp, OK).await;
        time::pause();
        loop {
            time::sleep(Duration::from_secs(1)).await;
            send(&mut tcp, b"S\0\0\0\x08a\0b\0").await;
        }
    };
    let error = against(UpstreamTls::Disable, script).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");
}

/// Lets a client in with a long key, or hears its cancel request.
async fn serve_or_cancel(mut stream: impl AsyncRead + AsyncWrite + Unpin, cancelled: &Cell<bool>) {
    let key: Vec<u8> = (0..=255).chain([1, 2, 3, 4]).collect();
    let first = read_startup(&mut stream).await;
    if first.starts_with(&[0x04, 0xd2, 0x16, 0x2e]) {
        assert_eq!(first[4..], key);
        cancelled.set(true);
        return;
    }
    send(&mut stream, OK).await;
    write(&mut stream, b'K', &key).await;
    send(&mut stream, READY).await;
}

#[tokio::test]
async fn a_cancel_request_carries_the_whole_key_the_way_the_connection_went() {
    let issued = self_signed(&["anything"], &rcgen::PKCS_ECDSA_P256_SHA256);
    for tls in [UpstreamTls::Disable, UpstreamTls::Require] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap().port(), "svc", tls, None);
        let cancelled = Cell::new(false);
        let script = async |tcp: TcpStream| match tls {
            UpstreamTls::Disable => serve_or_cancel(tcp, &cancelled).await,
            _ => serve_or_cancel(accept_tls(tcp, &issued).await.unwrap(), &cancelled).await,
        };
        let upstream = beside(&listener, script, connect(&target)).await.unwrap();
        assert_eq!(upstream.version, ProtocolVersion::V3_2);
        beside(&listener, script, upstream.cancel.cancel()).await.unwrap();
        assert!(cancelled.get());
    }
}

#[tokio::test]
async fn a_cancel_request_waits_for_the_servers_end_within_bounds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap().port(), "svc", UpstreamTls::Disable, None);
    let script = async |tcp| serve_or_cancel(tcp, &Cell::new(false)).await;
    let upstream = beside(&listener, script, connect(&target)).await.unwrap();
    let silent = async |tcp: TcpStream| {
        let _held = tcp;
        time::pause();
        pending::<()>().await;
    };
    let error = beside(&listener, silent, upstream.cancel.cancel()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { doing: "cancelling" }), "{error}");
}

#[tokio::test]
async fn without_a_key_there_is_no_cancel() {
    let script = async |mut tcp: TcpStream| {
        read_startup(&mut tcp).await;
        send(&mut tcp, &[OK, READY].concat()).await;
    };
    let upstream = against(UpstreamTls::Disable, script).await.unwrap();
    assert!(matches!(upstream.cancel.cancel().await, Err(UpstreamError::NoCancelKey)));
}
