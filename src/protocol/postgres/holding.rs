//! A command that waits for people, within a session: the client is told, may cancel or go away,
//! and nothing that it sent behind the command is looked at before.

use std::pin::pin;
use std::time::Instant;

use tokio::io::ReadHalf;

use crate::decode::postgres::frontend::Message;
use crate::gate::NotReleased;

use super::end::End;
use super::entering::Stop;
use super::refusal::{self, Objection};
use super::relay::{Incoming, Outgoing, Relay};
use super::stream::Stream;

/// How much of what the client sends behind a command that waits is read, in bytes, to notice
/// that it leaves. Beyond that its end shows only when the wait is over.
const MOST_AHEAD: usize = 1 << 20;

impl Relay {
    /// Waits for people and forwards what comes of it. Gives whether the client left meanwhile:
    /// then nothing was forwarded.
    ///
    /// Cancel safe but for the target's connection: a message may be half written.
    pub(super) async fn until_decided(
        &self,
        stop: Stop,
        message: &Message<'_>,
        incoming: &mut Incoming,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<bool, End> {
        let Stop { held, harmless, probes, mut entered, weighed, .. } = stop;
        let reason = held.decision().reason().map(str::to_owned);
        let held_up = self.replies.lock().holds_others_up();
        let limit = held_up.then(|| self.gate.transaction_wait());
        let (permitted, not_released) = match self.gate.hold(*held, limit, &harmless).await {
            Err(settled) => settled,
            Ok(hold) => {
                let (id, link) = (hold.id().to_string(), hold.link().to_owned());
                let mut reminders = hold.reminders();
                let mut closing = self.no_holds.subscribe();
                let closing = async move {
                    // The sender is the relay's own.
                    let _ended = closing.wait_for(|ended| *ended).await;
                    NotReleased::Closing
                };
                let mut waited = pin!(hold.wait(closing, &harmless));
                loop {
                    let room = incoming.buffer.len() < MOST_AHEAD;
                    tokio::select! {
                        settled = &mut waited => break settled,
                        left = reminders.next() => {
                            self.tell(refusal::waits_for_approval(&id, &link, left));
                        }
                        read = incoming.read(client), if room => {
                            if read.map_err(End::ClientBroken)? == 0 {
                                return Ok(true);
                            }
                        }
                    }
                }
            }
        };
        if let Some(why) = not_released {
            let cancelled = matches!(why, NotReleased::Cancelled);
            let why = match why {
                NotReleased::NotRecorded(failure) => return Err(failure.into()),
                why => why.to_string(),
            };
            let session = self.gate.session();
            let refused = Objection::NotReleased { why, cancelled, reason, session };
            entered.refused = Some(refused.to_words());
        }
        {
            let mut replies = self.replies.lock();
            weighed.passes(&self.masking, entered.refused.as_ref());
            if let (Some(portal), true) = (&probes, entered.refused.is_some()) {
                replies.expect_probe(portal);
            }
            replies.expect(message, Instant::now(), entered).map_err(End::ClientMalformed)?;
        }
        target.permit(permitted).await.map_err(End::TargetBroken)?;
        Ok(false)
    }
}
