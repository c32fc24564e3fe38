//! The way to a target: one connection for every channel, so that no channel waits for another.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Msg};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Disconnect};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::algorithms;
use super::stream::buffered;
use crate::config::{SecretError, SshCredential, SshTarget};
use crate::gate::Gate;

/// From the first packet to an open channel.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// What a connection that stands gets of that; then it counts as lost.
const AGAIN_TIME: Duration = Duration::from_secs(3);
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// An open channel on a connection of its own.
pub(super) struct Upstream {
    handle: client::Handle<Verify>,
    /// The channel, for whoever takes it.
    pub(super) channel: Channel<Msg>,
}

/// Why a target was not reached; for operators, and in the recording.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    #[error("the credential is no private key in OpenSSH's format without a passphrase")]
    NotAKey,
    #[error("no connection to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("it shows another host key than the target's host_key: {0}")]
    HostKey(String),
    #[error("it does not let the user {0:?} of the target's credential in")]
    Denied(String),
    #[error(
        "it closed the connection before any login: its sshd may be full (MaxStartups) or penalise \
         the gateway's address for refused logins (PerSourcePenalties); name that address in \
         PerSourcePenaltyExemptList there"
    )]
    Dropped,
    #[error("{1}; it is tried again in {seconds} s", seconds = .0.as_secs() + 1)]
    Resting(Duration, &'static str),
    #[error("the connection failed: {0}")]
    Protocol(#[from] russh::Error),
    #[error("no channel within {} seconds", CONNECT_TIME.as_secs())]
    Slow,
}

impl UpstreamError {
    /// The word for it in the index.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::HostKey(_) => "host-key",
            Self::Credential(_) | Self::NotAKey | Self::Denied(_) => "credential",
            Self::Connect(..)
            | Self::Protocol(_)
            | Self::Slow
            | Self::Dropped
            | Self::Resting(..) => "unreachable",
        }
    }

    /// The word for it in log and metric.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::HostKey(_) => "host-key",
            Self::Credential(_) | Self::NotAKey => "credential",
            Self::Denied(_) => "refused",
            Self::Dropped => "dropped",
            Self::Resting(..) => "resting",
            Self::Connect(..) => "connect",
            Self::Slow => "slow",
            Self::Protocol(_) => "protocol",
        }
    }
}

/// What is opened at a target.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// A session, to run something.
    Session,
    /// A connection from the target to a host and port.
    To(String, u32),
}

/// Runs something more on a connection that stands. Cancel safe.
pub(super) async fn again(
    _open: &Gate,
    Connection(handle): Connection,
) -> Result<Upstream, UpstreamError> {
    let opened = timeout(AGAIN_TIME, handle.channel_open_session()).await;
    let channel = opened.map_err(|_| UpstreamError::Slow)??;
    Ok(Upstream { handle, channel })
}

/// Connects to a target with the gateway's own credential. An open gate is the proof that the
/// caller may, and that the session is being recorded. Cancel safe.
pub(super) async fn connect(
    _open: &Gate,
    target: &SshTarget,
    way: &Way,
) -> Result<Upstream, UpstreamError> {
    timeout(CONNECT_TIME, connecting(target, way)).await.unwrap_or(Err(UpstreamError::Slow))
}

/// Logs in and leaves. Cancel safe.
pub(super) async fn probe(target: &SshTarget) -> Result<(), UpstreamError> {
    let entered = timeout(CONNECT_TIME, entering(target)).await;
    Connection(entered.unwrap_or(Err(UpstreamError::Slow))?).end().await;
    Ok(())
}

async fn connecting(target: &SshTarget, way: &Way) -> Result<Upstream, UpstreamError> {
    let handle = entering(target).await?;
    let channel = match way {
        Way::Session => handle.channel_open_session().await?,
        // Where the client is, is none of the target's business.
        Way::To(host, port) => {
            handle.channel_open_direct_tcpip(host.as_str(), *port, "127.0.0.1", 0).await?
        }
    };
    Ok(Upstream { handle, channel })
}

async fn entering(target: &SshTarget) -> Result<client::Handle<Verify>, UpstreamError> {
    let unreached =
        |error| UpstreamError::Connect(format!("{}:{}", target.host, target.port), error);
    let stream =
        TcpStream::connect((target.host.as_str(), target.port)).await.map_err(unreached)?;
    stream.set_nodelay(true).map_err(unreached)?;
    let seen = Arc::new(parking_lot::Mutex::new(None));
    let verify = Verify { wanted: target.host_key.clone(), seen: Arc::clone(&seen) };
    let config = Arc::new(algorithms::upstream(&target.host_key));
    let mut handle = match client::connect_stream(config, buffered(stream), verify).await {
        Ok(handle) => handle,
        Err(error) => {
            let other = seen.lock().take();
            return Err(match other {
                Some(other) => UpstreamError::HostKey(other),
                None if is_dropped(&error) => UpstreamError::Dropped,
                None => UpstreamError::Protocol(error),
            });
        }
    };
    if !log_in(&mut handle, target).await? {
        return Err(UpstreamError::Denied(target.user.clone()));
    }
    Ok(handle)
}

/// Whether the other side just closed.
fn is_dropped(error: &russh::Error) -> bool {
    match error {
        russh::Error::HUP | russh::Error::Disconnect => true,
        russh::Error::IO(error) => matches!(
            error.kind(),
            std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

async fn log_in(
    handle: &mut client::Handle<Verify>,
    target: &SshTarget,
) -> Result<bool, UpstreamError> {
    let answer = match &target.credential {
        SshCredential::Password(password) => {
            let password = password.read().await?;
            handle.authenticate_password(&target.user, password.expose()).await?
        }
        SshCredential::PrivateKey(key) => {
            let key = key.read().await?;
            let key = PrivateKey::from_openssh(key.expose()).map_err(|_| UpstreamError::NotAKey)?;
            if key.is_encrypted() {
                return Err(UpstreamError::NotAKey);
            }
            let hash = match key.algorithm().is_rsa() {
                // One that knows no SHA-2 is not logged in to with SHA-1.
                true => handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha512)),
                false => None,
            };
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
            handle.authenticate_publickey(&target.user, key).await?
        }
    };
    Ok(answer.success())
}

impl Upstream {
    /// The channel, and what keeps its connection.
    pub(super) fn split(self) -> (Channel<Msg>, Connection) {
        (self.channel, Connection(self.handle))
    }
}

/// The connection under a channel.
pub(super) struct Connection(client::Handle<Verify>);

impl Connection {
    /// Whether it is not known to be lost.
    pub(super) fn stands(&self) -> bool {
        !self.0.is_closed()
    }

    /// Ends it.
    pub(super) async fn end(self) {
        let goodbye = self.0.disconnect(Disconnect::ByApplication, "", "");
        // It is dropped in any case.
        let _gone = timeout(GOODBYE, goodbye).await;
    }
}

/// Holds the target's key against the catalog's.
pub(super) struct Verify {
    wanted: PublicKey,
    /// The fingerprint of another key, when one was shown.
    seen: Arc<parking_lot::Mutex<Option<String>>>,
}

impl client::Handler for Verify {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let same = key.key_data() == self.wanted.key_data();
        if !same {
            *self.seen.lock() = Some(key.fingerprint(HashAlg::Sha256).to_string());
        }
        Ok(same)
    }
}
