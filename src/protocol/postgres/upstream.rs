//! Opening a connection to a PostgreSQL target with the gateway's own credential.
//!
//! A [`Connector`] is built once for a target, since reading certificates is slow, and opens each
//! connection in this order: address, TCP, TLS, startup message, authentication, settings, ready.
//!
//! What a server may ask for: nothing (`trust`), the password itself, md5, SCRAM-SHA-256, and
//! SCRAM-SHA-256-PLUS, which binds the proof to the TLS connection and is taken whenever it is
//! offered. A server that breaks off SCRAM before it has proved that it knows the password too is
//! refused.
//!
//! Limits:
//! - Without TLS, or with `tls = "require"`, nothing tells the target from somebody in its place,
//!   and a server that asks for the password itself gets it. `verify-full` is the default.
//! - A server whose very certificate stands in the target's `ca` is taken whatever that certificate
//!   says of names and dates.
//! - A TLS connection is never tried first and then given up for a plain one.
//! - The copies of the password that `postgres-protocol` and TLS make while they compute are
//!   freed, not wiped.

mod authentication;
mod channel_binding;
mod error;
mod frames;
mod pinned;
mod query;
mod startup;
mod tcp;
mod tls;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::messages::to_target;
use super::stream::Stream;
use crate::config::PostgresTarget;
use crate::secret::Secret;

use authentication::Login;

pub use error::{ServerError, UpstreamError};
pub use query::{Questions, Row};

/// A target has this long from the first packet to being ready for a query; its client waits.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// A cancel request has this long; nobody waits for it, and the next one must not pile up behind.
const CANCEL_TIME: Duration = Duration::from_secs(10);

/// Opens connections to one target.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Endpoint>);

/// Where the target is, and who the gateway is there.
#[derive(Debug)]
struct Endpoint {
    host: String,
    port: u16,
    user: String,
    tls: Option<tls::Tls>,
}

/// Versions of the frontend/backend protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolVersion {
    /// What every server since 7.4 speaks; cancel keys have 4 bytes.
    V3_0,
    /// Since PostgreSQL 18; cancel keys have up to 256 bytes.
    V3_2,
}

/// How the gateway proved itself to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// The server asked for nothing.
    Trust,
    /// The password itself.
    Password,
    /// The password hashed with MD5 and a salt.
    Md5,
    /// SCRAM-SHA-256: both sides proved to know the password.
    Scram,
    /// SCRAM-SHA-256-PLUS: and that they are the two ends of one TLS connection.
    ScramPlus,
}

/// A connection that is ready for its first query. Dropping it closes it.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: Stream,
    /// What was read behind `ReadyForQuery`; nothing, with a server that keeps the protocol.
    pub buffered: BytesMut,
    /// Cancels what runs on this connection.
    pub cancel: CancelHandle,
    /// Each `ParameterStatus`, as it came.
    pub parameters: Vec<(String, String)>,
    /// Each `NoticeResponse` of the startup, whole frames; 256 KiB at most with all else.
    pub notices: Vec<Bytes>,
    /// The version both sides keep to: the one asked for, or an older one.
    pub version: ProtocolVersion,
    /// How the gateway proved itself.
    pub authentication: Authentication,
}

impl Connector {
    /// Makes ready to connect; reads the target's `ca`, or the system's certificates (once).
    pub fn new(target: &PostgresTarget) -> Result<Self, UpstreamError> {
        Ok(Self(Arc::new(Endpoint {
            host: target.host.clone(),
            port: target.port,
            user: target.user.clone(),
            tls: tls::Tls::new(target)?,
        })))
    }

    /// Opens a connection, in 15 seconds at most. `parameters` go into the startup message behind
    /// user and database. May be dropped at any point, which closes what was opened.
    pub async fn connect(
        &self,
        database: &str,
        version: ProtocolVersion,
        parameters: &[(String, String)],
        password: &Secret,
    ) -> Result<Upstream, UpstreamError> {
        let deadline = Instant::now() + CONNECT_TIME;
        let endpoint = &*self.0;
        let hello = startup::message(version, &endpoint.user, database, parameters)?;

        let tcp = tcp::connect(&endpoint.host, endpoint.port, deadline).await?;
        let address = tcp.peer_addr().map_err(|e| UpstreamError::io("connecting", e))?;
        let mut stream = within(deadline, "TLS", endpoint.secure(tcp)).await?;
        let binding = channel_binding::of(&stream);
        let login = Login { user: &endpoint.user, password, binding };
        let startup = startup::run(&mut stream, version, &hello, login);
        let ready = within(deadline, "startup", startup).await?;

        let target = CancelTarget { connector: self.clone(), address, key: ready.key };
        Ok(Upstream {
            stream,
            buffered: ready.buffered,
            cancel: CancelHandle(Arc::new(target)),
            parameters: ready.parameters,
            notices: ready.notices,
            version: ready.version,
            authentication: ready.authentication,
        })
    }
}

impl Endpoint {
    async fn secure(&self, tcp: tokio::net::TcpStream) -> Result<Stream, UpstreamError> {
        match &self.tls {
            Some(tls) => tls.negotiate(tcp).await,
            None => Ok(tcp.into()),
        }
    }
}

/// Cancels what runs on one upstream connection. Cheap to clone; shows nothing of its key.
#[derive(Clone)]
pub struct CancelHandle(Arc<CancelTarget>);

struct CancelTarget {
    connector: Connector,
    /// The very address of the connection: behind one name may stand several servers.
    address: SocketAddr,
    /// Process id and secret key as `BackendKeyData` had them.
    key: Option<Zeroizing<Vec<u8>>>,
}

impl CancelHandle {
    /// The process that serves the connection, when the server named one.
    pub fn process_id(&self) -> Option<u32> {
        let key = self.0.key.as_ref()?;
        key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Asks the server to cancel, over a connection of its own with the same TLS, in 10 seconds
    /// at most. Whether anything was cancelled shows only on the connection it ran on. Dropped
    /// halfway, the server may or may not have heard it.
    pub async fn cancel(&self) -> Result<(), UpstreamError> {
        let key = self.0.key.as_ref().ok_or(UpstreamError::NoCancelKey)?;
        let deadline = Instant::now() + CANCEL_TIME;
        let tcp = tcp::connect_to(self.0.address, deadline).await?;
        let mut stream = within(deadline, "TLS", self.0.connector.0.secure(tcp)).await?;

        let request = to_target::cancel_request(key)?;
        within(deadline, "cancelling", async {
            let sent = async {
                stream.write_all(&request).await?;
                stream.flush().await
            };
            sent.await.map_err(|e| UpstreamError::io("cancelling", e))?;
            // The server answers by closing, one way or another, once the signal is on its way.
            match stream.read(&mut [0; 1]).await {
                Ok(1..) => Err(UpstreamError::Protocol("an answer to a cancel request".into())),
                Ok(0) | Err(_) => Ok(()),
            }
        })
        .await
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("address", &self.0.address).finish_non_exhaustive()
    }
}

async fn within<T>(
    deadline: Instant,
    doing: &'static str,
    step: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    timeout_at(deadline, step).await.map_err(|_| UpstreamError::Timeout { doing })?
}
