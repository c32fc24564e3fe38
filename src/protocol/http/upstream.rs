//! The target's side of a session: a client with connections of the session's own, so that
//! nothing that a connection proves (NTLM, say) serves another caller.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio_util::task::TaskTracker;

use super::body::{Body, BodyError};
use super::literal::{Literals, SHORTEST};
use crate::config::{HttpTarget, SecretError};
use crate::decode::http::head::Head;
use crate::gate::Permitted;
use crate::names::TargetName;
use crate::trust;

/// All addresses of a target together have this long.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a connection waits for the next request.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Connections that wait for the next request; a caller with more requests at once opens more.
const MAX_IDLE: usize = 64;
/// A target that vanished without a word is noticed after a minute and a half.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The largest list of header fields that a target may send over HTTP/2, in bytes.
const MAX_HEAD: u32 = 64 << 10;

/// Spawns hyper's tasks where a stop waits for them.
#[derive(Debug, Clone)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// TLS settings, read once for a state of the catalog.
#[derive(Debug, Default)]
pub(super) struct TlsCache(Mutex<HashMap<TargetName, (HttpTarget, Arc<ClientConfig>)>>);

impl TlsCache {
    fn get(&self, name: &TargetName, target: &HttpTarget) -> Result<ClientConfig, NotReached> {
        let mut known = self.0.lock();
        if let Some((of, tls)) = known.get(name)
            && of == target
        {
            return Ok(ClientConfig::clone(tls));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| NotReached::Tls(error.to_string()))?
            .with_root_certificates(trust::roots(target.ca.as_deref()).map_err(NotReached::Tls)?)
            .with_no_client_auth();
        known.insert(name.clone(), (target.clone(), Arc::new(tls.clone())));
        Ok(tls)
    }
}

/// Why there is no way to a target; for operators alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReached {
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    #[error("the credential has a character that no header takes")]
    NotAHeader,
    #[error(
        "the credential has less than {SHORTEST} bytes, so it could not be told from other text where \
         the target repeats it: use a longer one"
    )]
    TooShort,
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error("it is no HTTP service")]
    Other,
}

type Clients = Client<HttpsConnector<HttpConnector>, Body>;

/// One session's way to its target.
#[derive(Debug)]
pub(super) struct Upstream {
    client: Clients,
    /// Speaks HTTP/1 alone: what else could go over to WebSocket.
    upgrades: Clients,
    https: bool,
    authority: String,
    credential: Option<(HeaderName, HeaderValue)>,
    /// The credential in all its forms.
    pub(super) literals: Arc<Literals>,
}

impl Upstream {
    /// Reads what is needed to speak to the target; connections come with the requests.
    pub(super) async fn open(
        name: &TargetName,
        target: &HttpTarget,
        tls: &TlsCache,
        tasks: &TaskTracker,
    ) -> Result<Self, NotReached> {
        let (credential, literals) = credential(target).await?;
        // A target without TLS needs no roots, and a machine may have none.
        let tls = if target.https { Some(tls.get(name, target)?) } else { None };
        let build = |http2: bool| -> Result<Clients, NotReached> {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(CONNECT_TIME));
            tcp.set_keepalive(Some(KEEPALIVE));
            let builder = HttpsConnectorBuilder::new();
            let builder = match &tls {
                Some(tls) => builder.with_tls_config(tls.clone()).https_only(),
                None => builder.with_tls_config(no_tls()?).https_or_http(),
            };
            let connector = if http2 {
                builder.enable_all_versions().wrap_connector(tcp)
            } else {
                builder.enable_http1().wrap_connector(tcp)
            };
            Ok(Client::builder(Tracked(tasks.clone()))
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIME)
                .pool_max_idle_per_host(MAX_IDLE)
                .http1_max_buf_size(super::HTTP1_BUFFER)
                .http2_initial_stream_window_size(super::STREAM_WINDOW)
                .http2_initial_connection_window_size(super::CONNECTION_WINDOW)
                .http2_max_send_buf_size(super::SEND_BUFFER)
                .http2_max_header_list_size(MAX_HEAD)
                .build(connector))
        };
        Ok(Self {
            client: build(true)?,
            upgrades: build(false)?,
            https: target.https,
            authority: target.authority.clone(),
            credential,
            literals,
        })
    }

    /// Whether answers may hold the credential, so that they must be readable.
    pub(super) fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Sends a request whose head was permitted, and gives the target's answer. The body begins
    /// with what stands behind the head. Cancel safe: the request is given up.
    pub(super) async fn send(
        &self,
        permitted: Permitted,
        body: impl FnOnce(Bytes) -> Body,
        upgrade: bool,
    ) -> Result<Response<Incoming>, SendError> {
        let bytes = permitted.into_bytes();
        let request = self.request(&bytes, body).ok_or(SendError::Unwritable)?;
        let client = if upgrade { &self.upgrades } else { &self.client };
        client.request(request).await.map_err(SendError::from)
    }

    /// Asks for the head of `/`, which changes nothing.
    pub(super) async fn probe(&self) -> Result<StatusCode, SendError> {
        let head = Bytes::from_static(b"HEAD / HTTP/1.1\r\n\r\n");
        let request = self.request(&head, super::body::full).ok_or(SendError::Unwritable)?;
        let answer = tokio::time::timeout(CONNECT_TIME, self.client.request(request)).await;
        match answer {
            Ok(answer) => Ok(answer?.status()),
            Err(_) => Err(SendError::Answer("it took too long".to_owned())),
        }
    }

    /// The request as it was permitted, to the authority of the catalog, with the credential.
    fn request(&self, bytes: &Bytes, body: impl FnOnce(Bytes) -> Body) -> Option<Request<Body>> {
        let head = Head::parse(bytes)?;
        let (method, target) = head.request()?;
        let uri = Uri::builder()
            .scheme(if self.https { "https" } else { "http" })
            .authority(self.authority.as_str())
            .path_and_query(target)
            .build()
            .ok()?;
        // What was decided is what goes up.
        if uri.path_and_query().map(PathAndQuery::as_str) != Some(target) {
            return None;
        }
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in &head.fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body(bytes.slice(head.length..))).ok()?;
        if let Some((name, value)) = &self.credential {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Some(request)
    }
}

/// The credential as a header, and in all the forms in which it may come back.
async fn credential(
    target: &HttpTarget,
) -> Result<(Option<(HeaderName, HeaderValue)>, Arc<Literals>), NotReached> {
    let Some(credential) = &target.credential else { return Ok((None, Arc::default())) };
    let secret = credential.value.read().await?;
    if secret.expose().len() < SHORTEST {
        return Err(NotReached::TooShort);
    }
    let name = HeaderName::from_bytes(credential.header.as_bytes());
    let text = zeroize::Zeroizing::new(format!("{}{}", credential.prefix, secret.expose()));
    let value = HeaderValue::from_str(&text);
    let (Ok(name), Ok(mut value)) = (name, value) else { return Err(NotReached::NotAHeader) };
    value.set_sensitive(true);
    Ok((Some((name, value)), Arc::new(Literals::every_form(secret.expose()))))
}

/// For a connector that never uses it.
fn no_tls() -> Result<ClientConfig, NotReached> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| NotReached::Tls(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The head that was permitted is none that can be sent.
    #[error("the request cannot be written")]
    Unwritable,
    /// The client's body ended early.
    #[error("the body broke off: {0}")]
    Body(BodyError),
    /// The target was not reached.
    #[error("no connection: {0}")]
    Connect(String),
    /// The target did not answer as it should.
    #[error("no answer: {0}")]
    Answer(String),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        let causes: Vec<_> =
            std::iter::successors(error.source(), |&cause| cause.source()).collect();
        if let Some(body) = causes.iter().find_map(|cause| cause.downcast_ref::<BodyError>()) {
            return Self::Body(body.clone());
        }
        let text = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        if error.is_connect() { Self::Connect(text) } else { Self::Answer(text) }
    }
}
