//! A session from the client's welcome to its goodbye.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::admission::Admitted;
use crate::gate::{Gate, How};
use crate::names::TargetName;
use crate::protocol::own_waker::with_own_waker;

use super::end::End;
use super::masking::Masking;
use super::refusal;
use super::relay::{Outgoing, Relay};
use super::stream::Stream;
use super::upstream::CancelHandle;
use super::{Context, GOODBYE, OpenSession};

/// How long a cancelled command gets to tell the client so.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// How long a client may go on sending a message that was refused for its size.
const LINGER: Duration = Duration::from_secs(10);

/// A session whose client has not been told yet that it is open.
pub(super) struct Session {
    stream: Stream,
    opened: OpenSession,
    context: Arc<Context>,
}

impl Session {
    pub(super) fn new(stream: Stream, opened: OpenSession, context: Arc<Context>) -> Self {
        Self { stream, opened, context }
    }

    /// Runs the session to its end, and says and records how it ended.
    pub(super) async fn run(self) {
        let Self { stream, opened, context } = self;
        let OpenSession { gate, upstream, tables, search_path, cancel_key, admitted } = opened;
        let target = gate.grant().target().name.clone();

        let (mut from_client, to_client) = tokio::io::split(stream);
        let (mut from_target, to_target) = tokio::io::split(upstream.stream);
        let (mut to_client, mut to_target) = (Outgoing::new(to_client), Outgoing::new(to_target));
        let reader = Arc::clone(&context.sessions.reader);
        let masking = Masking::new(Arc::clone(&gate), tables, search_path);
        let relay = Relay::new(Arc::clone(&gate), reader, masking, &upstream.parameters);
        let words = |key: &[u8]| {
            let id = cancel_key.process_id;
            refusal::welcome(&upstream.parameters, &upstream.notices, id, key)
        };
        let end = match gate.announce(words(&[0; 4]).as_bytes()) {
            Err(failure) => failure.into(),
            Ok(()) => {
                let welcome = words(cancel_key.key());
                let down = pin!(async {
                    to_client.say(&welcome).await.map_err(End::ClientBroken)?;
                    relay.down(&mut from_target, &mut to_client, upstream.buffered).await
                });
                let up = pin!(relay.up(&mut from_client, &mut to_target));
                let watch = pin!(watch(&context, &admitted, &gate, &relay, &upstream.cancel));
                tokio::select! {
                    Err(end) = with_own_waker(up) => end,
                    Err(end) = with_own_waker(down) => end,
                    end = with_own_waker(watch) => end,
                }
            }
        };

        // What the gateway cut is not said to have been the client's leaving.
        let end = match end {
            End::Client | End::ClientBroken(_) => gate.lost().map_or(end, End::Cut),
            end => end,
        };
        let _gone = timeout(GOODBYE, say_goodbye(&relay, &mut to_client, &end, &target)).await;
        if !relay.is_idle() && !matches!(end, End::Target | End::TargetBroken(_)) {
            // Nobody waits for it any more, and the server would not look before its end.
            gate.note("cancel", "what ran was cancelled: its client is gone".to_owned());
            let _too_late = timeout(GOODBYE, upstream.cancel.cancel()).await;
        }
        let _gone = timeout(GOODBYE, to_target.shutdown()).await;
        // A client that is closed upon while it sends does not read what it was told.
        let _gone = timeout(LINGER, read_out(&mut from_client, relay.client_owes())).await;
        let _gone = timeout(GOODBYE, to_client.shutdown()).await;
        gate.close(&end.of_session());
        drop(admitted);
    }
}

/// Reads so much of what a client still sends, and throws it away.
async fn read_out(client: &mut (impl AsyncRead + Unpin), mut owed: usize) {
    let mut rest = vec![0; owed.min(64 << 10)];
    while owed > 0 {
        match client.read(&mut rest).await {
            Ok(0) | Err(_) => return,
            Ok(read) => owed = owed.saturating_sub(read),
        }
    }
}

/// Finishes what was being written, then says why the session ends, where that can be said.
async fn say_goodbye(relay: &Relay, client: &mut Outgoing, end: &End, target: &TargetName) {
    if client.finish().await.is_err() {
        return;
    }
    let (gate, said) = (&relay.gate, relay.target_said_its_last());
    if let Some(refusal) = end.refusal(target, said).filter(|_| client.at_boundary()) {
        let words = refusal.to_words();
        // That nothing can be recorded must still be said.
        if let Err(failure) = gate.announce(words.as_bytes()) {
            tracing::debug!(session = %gate.session(), %failure, "last words not recorded");
        }
        // One that is gone is told nothing.
        let _gone = client.say(&words).await;
    }
}

/// Waits for whatever ends a session from outside: its time, a reload, the gateway's stop.
async fn watch(
    context: &Context,
    admitted: &Admitted,
    gate: &Gate,
    relay: &Relay,
    cancel: &CancelHandle,
) -> End {
    let rest = || {
        relay.end_holds();
        relay.at_rest()
    };
    let end = admitted.ended(&context.gateway, gate.opened(), rest).await;
    relay.begin_closing();
    let grace = match end.how() {
        How::Expired => gate.grace_left(),
        _ => Duration::ZERO,
    };
    if timeout(grace, relay.idle()).await.is_err() {
        gate.note("cancel", format!("what ran was cancelled: {end}"));
        if let Err(error) = cancel.cancel().await {
            tracing::warn!(session = %gate.session(), %error, "running command not cancelled");
        }
        let _still_running = timeout(CANCEL_GRACE, relay.idle()).await;
    }
    End::Cut(end)
}
