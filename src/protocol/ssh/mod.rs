//! SSH 2: a connection from its first byte to its last.
//!
//! [`serve`] tells a connection's life. The user name is the target's name, the password a token,
//! or the key one with a certificate of the gateway's own. Each of its channels is a command
//! (exec, shell, subsystem; over sftp every operation), decided by itself and carried to the
//! target on a connection of its own.
//!
//! Connections that the target makes pass where a rule allows them. Not relayed, whatever the rules
//! say: ports of the target, sockets, agents and X11 (each attempt is decided and recorded, and
//! refused), `break`, and extensions that the library does not know.

mod algorithms;
mod backoff;
mod channel;
mod connection_pool;
mod deadline;
mod device;
mod end;
mod flow_control;
mod forward;
mod handler;
mod inbox;
mod login;
mod masking;
mod messages;
mod outbox;
mod relay;
mod requests;
mod session;
mod sftp;
mod stream;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admission::Gateway;
use crate::config::SshTarget;
use crate::identity::Authority;
use crate::identity::login::Logins;
use crate::listener::{Accepted, HANDSHAKE_DEADLINE};

use backoff::Backoff;
use deadline::Deadline;
use device::Browsers;
use handler::Connection;
use session::Session;
use stream::Cuttable;

/// How long a client may take to read the gateway's last words.
const GOODBYE: Duration = Duration::from_secs(2);

/// What every SSH session needs of the gateway.
#[derive(Debug)]
pub struct Context {
    /// What all protocols share.
    pub gateway: Arc<Gateway>,
    /// Proves certificates.
    pub authority: Arc<Authority>,
    browsers: Browsers,
    backoff: Backoff,
    server: Arc<russh::server::Config>,
}

impl Context {
    /// What a gateway's SSH listener needs; `host_key` is what it shows to clients.
    pub fn new(
        gateway: Arc<Gateway>,
        authority: Arc<Authority>,
        logins: Logins,
        host_key: PrivateKey,
    ) -> Self {
        let browsers = Browsers::new(logins);
        let server = Arc::new(algorithms::downstream(host_key, browsers.any()));
        Self { gateway, authority, browsers, backoff: Backoff::default(), server }
    }
}

/// Tries a target with the gateway's credential, and tells what keeps it from being used.
pub async fn probe(target: &SshTarget) -> Vec<String> {
    upstream::probe(target).await.err().map(|error| error.to_string()).into_iter().collect()
}

/// Serves one connection from its first byte to its last.
pub async fn serve(accepted: Accepted, context: Arc<Context>) {
    let Accepted { stream, client, handshake } = accepted;
    let deadline = Arc::new(Deadline::new(Instant::now() + HANDSHAKE_DEADLINE));
    let cut = CancellationToken::new();
    // The connection's own loop is another task; it ends with this.
    let _cut = cut.clone().drop_guard();
    let (open, opened) = oneshot::channel::<Arc<Session>>();
    let connection = Connection::new(Arc::clone(&context), client, open, Arc::clone(&deadline));
    let stream = Cuttable::new(stream, cut.clone());
    let config = Arc::clone(&context.server);
    let starting = russh::server::run_stream(config, stream, connection);
    let mut running = match timeout_at(deadline.at(), starting).await {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "connection dropped");
            return;
        }
        Err(_) => {
            tracing::debug!(%client, "connection dropped: no greeting within the deadline");
            return;
        }
    };
    // Dropped without a session when the connection ends before anybody proved anything.
    let session = tokio::select! {
        opened = opened => opened.ok(),
        () = deadline.over() => None,
        () = context.gateway.shutdown.cutting() => None,
    };
    drop(handshake);
    let Some(session) = session else {
        cut.cancel();
        let reason = match timeout(GOODBYE, &mut running).await {
            Ok(Ok(())) => "the client left".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no login within the deadline".to_owned(),
        };
        tracing::debug!(%client, reason, "connection dropped");
        return;
    };
    session.run(running, cut).await;
}
