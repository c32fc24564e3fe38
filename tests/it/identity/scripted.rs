//! An issuer on loopback that answers as a test tells it to, and a verifier that asks it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use portcullis::config::{self, ClaimPath, TokenKind};
use portcullis::identity::{DiscoveryError, Identity, Refused, Verifier};
use portcullis::secret::Secret;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::mint::{Key, claims};

/// A scripted issuer; it stops with the test's runtime.
pub struct Issuer {
    pub url: String,
    pub script: Arc<Mutex<Script>>,
}

/// What the issuer answers next, and what it was asked.
pub struct Script {
    pub issuer: String,
    pub jwks_uri: String,
    pub keys: Vec<Value>,
    pub status: StatusCode,
    pub location: Option<String>,
    pub padding: usize,
    pub key_requests: usize,
}

impl Issuer {
    /// Serves plain HTTP on loopback.
    pub async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(listener, url, keys)
    }

    /// Serves TLS as `localhost` with this certificate and key.
    pub async fn start_tls(keys: &[&Key], certificate: Vec<u8>, key: Vec<u8>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate)],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        Self::serve(listener, url, keys)
    }

    fn serve<L>(listener: L, url: String, keys: &[&Key]) -> Self
    where
        L: axum::serve::Listener<Addr = SocketAddr>,
    {
        let script = Arc::new(Mutex::new(Script {
            issuer: url.clone(),
            jwks_uri: format!("{url}/keys"),
            keys: keys.iter().map(|key| key.jwk()).collect(),
            status: StatusCode::OK,
            location: None,
            padding: 0,
            key_requests: 0,
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(published))
            .with_state(script.clone());
        TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    /// From now on these keys are published, and no others.
    pub fn publishes(&self, keys: &[&Key]) {
        self.script.lock().keys = keys.iter().map(|key| key.jwk()).collect();
    }
}

/// An issuer's settings as the configuration would resolve them.
pub fn settings(url: &str) -> config::Issuer {
    config::Issuer {
        name: "corp".to_owned(),
        url: url.to_owned(),
        audiences: vec!["portcullis".to_owned()],
        accept: vec![TokenKind::Access],
        client_id: None,
        client_secret: None,
        authorized_parties: Vec::new(),
        jwks_hosts: Vec::new(),
        username_claim: ClaimPath::Name("email".to_owned()),
        groups_claim: Some(ClaimPath::Name("groups".to_owned())),
        workflow_claim: None,
        run_claim: None,
        max_lifetime: Duration::from_secs(3600),
        ca: None,
    }
}

/// A verifier with its refresh task.
pub struct Running {
    pub verifier: Arc<Verifier>,
    _stop: DropGuard,
}

impl Running {
    pub async fn start(issuers: &[config::Issuer]) -> Result<Self, DiscoveryError> {
        let verifier = Verifier::start(issuers).await?;
        let cancel = CancellationToken::new();
        TaskTracker::new().spawn(verifier.clone().run(cancel.clone()));
        Ok(Self { verifier, _stop: cancel.drop_guard() })
    }

    pub async fn verify(&self, token: &str) -> Result<Identity, Refused> {
        self.verifier.verify(&Secret::new(token.to_owned())).await.map(Arc::unwrap_or_clone)
    }
}

/// An issuer with one ES256 key, and a verifier that knows it.
pub struct Bench {
    pub issuer: Issuer,
    pub key: Key,
    pub running: Running,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings.
    pub async fn with(change: impl FnOnce(&mut config::Issuer)) -> Self {
        let key = Key::es256("k1");
        let issuer = Issuer::start(&[&key]).await;
        let mut settings = settings(&issuer.url);
        change(&mut settings);
        let running = Running::start(&[settings]).await.unwrap();
        Self { issuer, key, running }
    }

    pub fn claims(&self, changes: &Value) -> Value {
        claims(&self.issuer.url, changes)
    }

    /// Verifies a token of the issuer's own key with these claims changed.
    pub async fn check(&self, changes: &Value) -> Result<Identity, Refused> {
        self.running.verify(&self.key.token(&self.claims(changes))).await
    }

    /// Verifies a token of the issuer's own key with these header fields set.
    pub async fn check_header(&self, changes: &Value) -> Result<Identity, Refused> {
        let mut header = json!({ "alg": self.key.alg, "typ": "at+jwt", "kid": self.key.kid });
        for (name, value) in changes.as_object().unwrap() {
            header[name] = value.clone();
        }
        self.running.verify(&self.key.token_with(&header, &self.claims(&json!({})))).await
    }
}

async fn document(State(script): State<Arc<Mutex<Script>>>) -> Response {
    let script = script.lock();
    if let Some(location) = &script.location {
        return (StatusCode::FOUND, [(header::LOCATION, location.clone())]).into_response();
    }
    let document = json!({
        "issuer": script.issuer, "jwks_uri": script.jwks_uri, "padding": "x".repeat(script.padding),
    });
    (script.status, document.to_string()).into_response()
}

async fn published(State(script): State<Arc<Mutex<Script>>>) -> Response {
    let mut script = script.lock();
    script.key_requests += 1;
    (script.status, json!({ "keys": script.keys }).to_string()).into_response()
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            // A client that does not like our certificate hangs up here.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A certificate in DER with its key, and the CA to trust in a file.
pub struct Certificate {
    pub der: Vec<u8>,
    pub key: Vec<u8>,
    pub ca: PathBuf,
    _dir: tempfile::TempDir,
}

/// How a certificate is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    Expired,
    SelfSigned,
    WrongName,
    OtherCa,
}

impl Certificate {
    /// A certificate for `localhost`, with a flaw.
    pub fn new(flaw: Flaw) -> Self {
        let (ca, ca_pem) = certificate_authority();
        let signer = if flaw == Flaw::OtherCa { certificate_authority().0 } else { ca };
        let name = if flaw == Flaw::WrongName { "other.example" } else { "localhost" };
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if flaw == Flaw::Expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = match flaw {
            Flaw::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &signer),
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, ca_pem).unwrap();
        let der = certificate.unwrap().der().to_vec();
        Self { der, key: key.serialize_der(), ca, _dir: dir }
    }
}

fn certificate_authority() -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (rcgen::Issuer::new(params, key), pem)
}
