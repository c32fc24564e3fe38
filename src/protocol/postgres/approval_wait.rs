//! A command that waits for people, within a session: the client is told, may cancel or go away,
//! and nothing that it sent behind the command is looked at before.

use std::pin::pin;

use bytes::Bytes;
use tokio::io::ReadHalf;

use crate::clock::{Moment, Now};
use crate::decode::postgres::frontend::Message;
use crate::decode::sql::StatementKind;
use crate::gate::{NotReleased, Pending};
use crate::mask::Masked;
use crate::recording::{Outcome, Sequence};

use super::end::End;
use super::messages::to_target;
use super::planner::Stop;
use super::refusal::{self, Objection, Words};
use super::rehearsal::Unit;
use super::relay::{Incoming, Outgoing, Relay};
use super::replies::{Entered, Replies};
use super::stream::Stream;

/// How much of what the client sends behind a command that waits is read, in bytes, to notice
/// that it leaves. Beyond that its end shows only when the wait is over.
pub(super) const MOST_AHEAD: usize = 1 << 20;

/// Why people are not asked about a command that would be held.
enum Pointless {
    /// The server skips it: a message before it failed.
    Skipped,
    /// The server would refuse it; what the client is told.
    Fails(Words),
}

impl Relay {
    /// Waits for people and forwards what comes of it. Gives whether the client left meanwhile:
    /// then nothing was forwarded.
    ///
    /// Cancel safe but for the target's connection: a message may be half written.
    pub(super) async fn until_decided(
        &self,
        stop: Stop,
        (message, bytes): (&Message<'_>, &Bytes),
        incoming: &mut Incoming,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<bool, End> {
        let Stop { mut held, harmless, probes, mut entered, weighed, unit, .. } = stop;
        let ends = entered.ends_transaction();
        let own = (unit, bytes, ends);
        let said = self.before_asking(&mut held, own, incoming, client, target).await?;
        match said {
            Some(Pointless::Skipped) => {
                self.skipped(entered.of)?;
                return Ok(false);
            }
            Some(Pointless::Fails(words)) => {
                entered.refused = Some(words);
                let refused = self.gate.admit(Bytes::new(), |plan| {
                    plan.refuse(*held, &harmless);
                });
                let (permitted, ()) = refused.await?;
                let entered = self.replies.with(|replies| {
                    if let Some(portal) = &probes {
                        replies.expect_probe(portal);
                    }
                    replies.expect(message, Moment::now(), entered)
                });
                entered.map_err(End::ClientMalformed)?;
                target.permit(permitted).await.map_err(End::TargetBroken)?;
                return Ok(false);
            }
            None => {}
        }
        let reason = held.decision().reason().map(str::to_owned);
        let held_up = self.replies.with(|replies| replies.holds_others_up());
        let limit = held_up.then(|| self.gate.transaction_wait());
        let (permitted, not_released) = match self.gate.ask_people(*held, limit, &harmless).await {
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
            let too_many = matches!(why, NotReleased::TooMany(_));
            let why = match why {
                NotReleased::NotRecorded(failure) => return Err(failure.into()),
                why => why.to_string(),
            };
            let session = self.gate.session();
            let refused = Objection::NotReleased { why, cancelled, too_many, reason, session };
            entered.refused = Some(refused.to_words());
        }
        weighed.passes(&self.masking, entered.refused.as_ref());
        let entered = self.replies.with(|replies| {
            if let (Some(portal), true) = (&probes, entered.refused.is_some()) {
                replies.expect_probe(portal);
            }
            replies.expect(message, Moment::now(), entered)
        });
        entered.map_err(End::ClientMalformed)?;
        target.permit(permitted).await.map_err(End::TargetBroken)?;
        Ok(false)
    }

    /// What the server must have said before people are asked: that everything before the command
    /// went well, and that what prepares it would.
    async fn before_asking(
        &self,
        held: &mut Pending,
        (unit, bytes, ends): (Option<Unit>, &Bytes, bool),
        incoming: &mut Incoming,
        client: &mut ReadHalf<Stream>,
        target: &mut Outgoing,
    ) -> Result<Option<Pointless>, End> {
        if self.replies.with(|replies| replies.skips()) {
            return Ok(Some(Pointless::Skipped));
        }
        let failed = self.replies.with(|replies| {
            // A step may have ended the transaction, and did not say so yet.
            let within = unit.as_ref().map_or(replies.step_has_run(), Unit::is_within_step);
            replies.transaction_failed() && !within
        });
        if failed && !ends {
            return Ok(Some(Pointless::Fails(Objection::TransactionAborted.to_words())));
        }
        let Some(unit) = unit.filter(|_| !failed) else { return Ok(None) };
        if unit.is_within_step() {
            // The transaction holds what it has locked: nothing is gained by waiting.
            if self.replies.with(|replies| replies.holds_others_up()) {
                let ahead = self.gate.admit(Bytes::new(), |plan| plan.ahead(held)).await?;
                target.permit(ahead.0).await.map_err(End::TargetBroken)?;
                self.send_own(&to_target::flush(), target).await?;
                self.settled(Replies::is_idle, incoming, client).await?;
                if self.replies.with(|replies| replies.skips()) {
                    return Ok(Some(Pointless::Skipped));
                }
            }
            return Ok(None);
        }
        let in_transaction = self.replies.with(|replies| replies.in_transaction());
        let unprepared = || Pointless::Fails(Objection::NotPrepared.to_words());
        let Ok((rehearsal, readies)) = unit.rehearsal(bytes, in_transaction) else {
            return Ok(Some(unprepared()));
        };
        self.replies.with(|replies| replies.expect_rehearsal(readies));
        self.send_own(&rehearsal, target).await?;
        self.settled(|replies| replies.rehearsed().is_some(), incoming, client).await?;
        let went_well = self.replies.with(|replies| replies.rehearsed()) == Some(true);
        Ok((!went_well).then(unprepared))
    }

    /// A command that waits is skipped by the server.
    fn skipped(&self, of: Sequence) -> Result<(), End> {
        let outcome = Outcome { status: Some("SKIPPED".to_owned()), ..Outcome::default() };
        let nothing = Masked::by_value(Bytes::new(), Bytes::new());
        self.gate.release(Now::read(), nothing, |release, _| release.outcome(of, &outcome))?;
        Ok(())
    }
}

impl Entered {
    /// Whether it may end a transaction, or go back to a savepoint: what runs in one that failed.
    fn ends_transaction(&self) -> bool {
        let ends = |kind: &StatementKind| {
            use StatementKind::{EndTransaction, NotUnderstood, RollbackToSavepoint};
            matches!(kind, EndTransaction | RollbackToSavepoint | NotUnderstood)
        };
        self.candidates.unknown
            || self.reading.iter().flat_map(|reading| reading.statements()).any(|s| ends(&s.kind))
            || self.candidates.iter().any(|c| c.source.statement().is_none_or(|s| ends(&s.kind)))
    }
}
