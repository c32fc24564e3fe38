//! Connections that a target makes for a client (`ssh -L`, `ssh -W`), where a rule allows them.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use russh::ChannelOpenFailure;
use russh::server::ChannelOpenHandle;

use super::channel::{Broken, Channel};
use super::relay::Relay;
use super::session::Running;
use super::upstream::Way;
use crate::gate::Permitted;
use crate::recording::CommandError;

/// The bytes that a wish for a connection is decided by.
pub(super) fn exact(host: &str, port: u32) -> Bytes {
    format!("{host}:{port}").into()
}

/// Where to, as it was decided; none for what [`exact`] did not make.
fn way(permitted: Permitted) -> Option<Way> {
    let bytes = permitted.into_bytes();
    let (host, port) = std::str::from_utf8(&bytes).ok()?.rsplit_once(':')?;
    Some(Way::To(host.to_owned(), port.parse().ok()?))
}

impl Channel {
    /// Opens the connection at the target, tells the client whether it stands, and carries it to
    /// its end.
    pub(super) async fn forward(
        self,
        permitted: Permitted,
        reply: ChannelOpenHandle,
        _running: Running,
    ) {
        let began = Instant::now();
        let connected = tokio::select! {
            connected = self.reach(permitted) => connected,
            () = self.session.ended() => Err(Broken::Session),
        };
        let (channel, connection) = match connected {
            Ok(connected) => connected,
            Err(broken) => {
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                // There is no place to say why.
                let _unsaid = self.over(broken, began).await;
                return self.inbox.close();
            }
        };
        reply.accept().await;
        let relay = Relay::new(&self, channel, false, began);
        let carried = {
            let mut carry = pin!(relay.carry_bytes());
            tokio::select! {
                carried = &mut carry => carried,
                () = self.session.ended() => Err(Broken::Session),
                () = self.inbox.closed() => Err(Broken::Client),
            }
        };
        connection.end().await;
        if let Err(broken) = carried {
            // The channel carries its bytes alone.
            let _unsaid = self.over(broken, began).await;
        }
        let _gone = self.close().await;
        self.inbox.close();
    }

    async fn reach(
        &self,
        permitted: Permitted,
    ) -> Result<(russh::Channel<russh::client::Msg>, super::upstream::Connection), Broken> {
        let (Some(target), Some(way)) = (self.session.target(), way(permitted)) else {
            return Err(Broken::Session);
        };
        self.enter(target, &way).await
    }
}

/// What is recorded of a wish that people would have to approve: a client waits for its channel
/// without a place to be told why.
pub(super) fn not_held() -> CommandError {
    let message = "connections through a target do not wait for approval".to_owned();
    CommandError { code: "not-approved".to_owned(), message }
}
