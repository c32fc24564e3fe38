//! Commands that wait for people.
//!
//! What every protocol does with a [`Pending`]:
//!
//! ```text
//! let hold = gate.ask_people(held, limit, harmless).await?;     // people are asked
//! tell the client hold.link() at each of hold.reminders()
//! let (permitted, why) = hold.wait(given_up, harmless).await; // dropped when the client goes
//! permitted goes up: the very bytes, once, or what stands in their place; the client is told why
//! ```
//!
//! A client that would rather ask again than wait is served by [`Gate::ask_again`].
//!
//! Before the bytes are let go the command is decided again, by the rules in force then, and the
//! approval is used up in the database. So nothing runs twice, and nothing runs that the rules of
//! that moment would not let run with what people said.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Gate, Permitted};
use crate::approval::{Asking, Outcome, Reminders, Waiting, told, visible};
use crate::clock::Moment;
use crate::database::{DatabaseError, Need, NewRequest, Vote, VoteVerdict};
use crate::names::RequestId;
use crate::policy::{Approval, Command, Decision, Verdict};
use crate::recording::{ApprovalStep, Direction, Kind, RecordedVote, RecordingFailure, Sequence};

/// How long after the database was asked to let an approval be used its command may go up: asking
/// takes ten seconds at most.
const USE_TIME: Duration = Duration::from_secs(15);
/// The largest view that people are asked about, in bytes: nobody approves what nobody can read.
const MAX_SHOWN: usize = 1 << 20;

/// A command that was decided, recorded and held: its bytes, and what has to pass together with
/// them. Dropped, it never runs.
#[derive(Debug)]
pub struct Pending {
    sequence: Sequence,
    /// What it is in truth: decided again before it is let go.
    truth: Vec<Command>,
    /// What people see of it.
    view: Command,
    decision: Decision,
    /// Bytes that pass with it, ahead of it.
    before: Bytes,
    exact: Bytes,
    basis: String,
    cautions: Vec<String>,
}

impl Pending {
    pub(super) fn new(
        sequence: Sequence,
        truth: Vec<Command>,
        view: Command,
        decision: Decision,
        (before, exact): (Bytes, Bytes),
    ) -> Self {
        let (basis, cautions) = (String::new(), Vec::new());
        Self { sequence, truth, view, decision, before, exact, basis, cautions }
    }

    pub(super) fn is_at(&mut self, sequence: Sequence) {
        self.sequence = sequence;
    }

    /// The place of the command's event.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What was decided.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// What people see of it: with the text that was prepared before, and its values.
    pub fn view_mut(&mut self) -> &mut Command {
        &mut self.view
    }

    /// Binds the approval to more than the command's own bytes: to those of what it runs, for
    /// example, where that came before.
    pub fn bind(&mut self, basis: &str) {
        self.basis.push_str(basis);
        self.basis.push('\n');
    }

    pub(super) fn basis(&self) -> &str {
        &self.basis
    }

    /// Tells people what is not part of what they approve.
    pub fn caution(&mut self, text: impl Into<String>) {
        self.cautions.push(text.into());
    }

    /// How long it may wait by its rules.
    pub(super) fn patience(&self) -> Duration {
        let times = self.decision.approvals().iter().map(|need| need.timeout());
        times.min().unwrap_or_default()
    }

    /// Whether people could not read all of it.
    pub(super) fn is_too_large(&self) -> bool {
        let json = |value| serde_json::to_vec(value).map_or(usize::MAX, |json| json.len());
        let attributes = self.view.attributes.values().map(json);
        attributes.fold(self.view.text.len(), usize::saturating_add) > MAX_SHOWN
    }

    /// What passes when it does.
    pub(super) fn permitted(self) -> Permitted {
        match self.before.is_empty() {
            true => Permitted(self.exact),
            false => Permitted([self.before, self.exact].concat().into()),
        }
    }

    pub(super) fn take_before(&mut self) -> Bytes {
        std::mem::take(&mut self.before)
    }

    pub(super) fn refuse(self) -> (Bytes, Decision) {
        (self.before, self.decision)
    }

    /// What passes when the command does not: `harmless` in its place.
    fn without(self, harmless: &[u8]) -> Permitted {
        if self.before.is_empty() {
            return Permitted(Bytes::copy_from_slice(harmless));
        }
        Permitted([&self.before, harmless].concat().into())
    }
}

/// Why a held command does not run. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub enum NotReleased {
    /// Somebody said no.
    #[error("denied by {0}")]
    Denied(String),
    /// Nobody decided in time.
    #[error("nobody approved it in time")]
    Expired,
    /// People could not be shown all of it.
    #[error("it is too large to be shown to those who approve")]
    TooLarge,
    /// Within a transaction it could wait no longer.
    #[error("it was not approved in the time that a transaction may wait")]
    TransactionWait,
    /// Its approval is not there to be used any more.
    #[error("its approval was used already, or its time is over")]
    Used,
    /// The rules have changed, or the access is gone.
    #[error("the rules changed while it waited")]
    Stricter,
    /// The client asked to cancel.
    #[error("cancelled while it waited for approval")]
    Cancelled,
    /// The session ends.
    #[error("the session ends")]
    Closing,
    /// State cannot be reached.
    #[error("approvals cannot be asked for now")]
    Unavailable,
    /// Too many wait: of this caller, in this session, or for this target.
    #[error("{0}")]
    TooMany(String),
    /// It could not be recorded; the session ends.
    #[error("it cannot be recorded")]
    NotRecorded(#[from] RecordingFailure),
}

impl NotReleased {
    /// The word in the recording.
    pub(super) fn step(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Expired | Self::TransactionWait => "expired",
            Self::Cancelled => "cancelled",
            Self::Closing => "given-up",
            Self::Used
            | Self::Stricter
            | Self::TooLarge
            | Self::Unavailable
            | Self::TooMany(_)
            | Self::NotRecorded(_) => "refused",
        }
    }

    /// What the request says that was not decided.
    pub(super) fn note(&self) -> &'static str {
        match self {
            Self::Denied(_) => "it was denied",
            Self::Expired => "nobody decided in time",
            Self::TooLarge => "it could not be shown",
            Self::TransactionWait => "a transaction could wait no longer",
            Self::Used => "its approval was used",
            Self::Stricter => "the rules changed",
            Self::Cancelled => "the client cancelled",
            Self::Closing => "the session ended",
            Self::Unavailable => "the database could not be asked",
            Self::TooMany(_) => "too many commands waited",
            Self::NotRecorded(_) => "it could not be recorded",
        }
    }
}

/// A command that people were asked about. When it is dropped it never runs.
#[derive(Debug)]
pub struct PendingApproval<'g> {
    gate: &'g Gate,
    held: Option<Pending>,
    waiting: Option<Waiting>,
    id: RequestId,
    link: String,
    deadline: Instant,
    in_transaction: bool,
    cancels: watch::Receiver<u64>,
}

/// Ends what waits in a session.
#[derive(Debug, Default)]
pub(super) struct Cancels(watch::Sender<u64>);

/// What becomes of a held command: what passes up, and why the command is not in it.
pub type Settled = (Permitted, Option<NotReleased>);

impl Gate {
    /// Asks people about a command. `limit` is how long a transaction lets it wait at most; with
    /// one of nothing it is not asked for at all.
    ///
    /// # Errors
    /// When nobody can be asked. `harmless` then passes in the command's place.
    pub async fn ask_people(
        &self,
        held: Pending,
        limit: Option<Duration>,
        harmless: &[u8],
    ) -> Result<PendingApproval<'_>, Settled> {
        let patience = held.patience();
        let in_transaction = limit.is_some_and(|limit| limit < patience);
        let patience = limit.map_or(patience, |limit| limit.min(patience));
        let cancels = self.cancels.0.subscribe();
        let bound = [held.basis.as_bytes(), &held.exact].concat();
        let asking = self.asking(&held, patience, &bound);
        let id = asking.request.id;
        let asked = if patience.is_zero() {
            Err(NotReleased::TransactionWait)
        } else if held.is_too_large() {
            Err(NotReleased::TooLarge)
        } else {
            self.catalog.desk().ask(asking).await.map_err(|error| self.nobody_asked(error))
        };
        let waiting = match asked {
            Ok(waiting) => waiting,
            Err(why) => {
                let step = self.step(&held, id, why.step(), &[], why.to_string());
                let why = step.err().unwrap_or(why);
                return Err((held.without(harmless), Some(why)));
            }
        };
        let (link, deadline) = (waiting.link(), waiting.deadline());
        let text = format!("people are asked: {link}");
        if let Err(why) = self.step(&held, id, "asked", &[], text) {
            return Err((held.without(harmless), Some(why)));
        }
        let (username, target) = (self.grant.identity().username(), &self.grant.target().name);
        tracing::info!(session = %self.session(), request = %id, username, %target, "command held");
        let (held, waiting) = (Some(held), Some(waiting));
        Ok(PendingApproval {
            gate: self,
            held,
            waiting,
            id,
            link,
            deadline,
            in_transaction,
            cancels,
        })
    }

    /// Why people cannot be asked, for the client; the log says more.
    pub(super) fn nobody_asked(&self, error: DatabaseError) -> NotReleased {
        tracing::warn!(session = %self.session(), %error, "nobody can be asked");
        match error {
            DatabaseError::Limit(text) => NotReleased::TooMany(text),
            _ => NotReleased::Unavailable,
        }
    }

    /// Ends what waits for people in this session; whether something did.
    pub fn cancel_holds(&self) -> bool {
        let waits = self.cancels.0.receiver_count() > 0;
        if waits {
            self.cancels.0.send_modify(|count| *count += 1);
        }
        waits
    }

    /// How long a command may wait inside a transaction that has done something.
    pub fn transaction_wait(&self) -> Duration {
        self.catalog.current().policy().settings().transaction_wait
    }

    /// What people are asked; a yes is bound to these bytes.
    pub(super) fn asking(&self, held: &Pending, patience: Duration, bound: &[u8]) -> Asking {
        let identity = self.grant.identity();
        let told = |told: Option<&str>, said: &Option<String>| {
            told.map(str::to_owned).or_else(|| said.clone())
        };
        let mut cautions = held.cautions.clone();
        cautions.extend(visible(&held.view.text).cautions);
        let needs = held.decision.approvals().iter().map(|need| Need::from(&**need)).collect();
        Asking {
            request: NewRequest {
                id: RequestId::generate(),
                issuer: identity.issuer().to_owned(),
                subject: identity.subject().to_owned(),
                username: identity.username().to_owned(),
                email: identity.email().map(str::to_owned),
                target: self.grant.target().name.to_string(),
                protocol: self.grant.target().protocol(),
                workflow: told(identity.workflow(), &self.facts.workflow),
                run: told(identity.run(), &self.facts.run),
                needs,
                cautions,
                reason: held.decision.reason().map(str::to_owned),
                comment: None,
            },
            session: self.session(),
            sequence: held.sequence,
            command: held.view.clone(),
            exact: self.store.keyed_hash(bound),
            patience,
            limits: self.catalog.current().approvals(),
        }
    }

    /// Records what became of a held command.
    pub(super) fn step(
        &self,
        held: &Pending,
        request: RequestId,
        step: &'static str,
        votes: &[Vote],
        text: String,
    ) -> Result<(), NotReleased> {
        let rules = held.decision.rules().iter().map(ToString::to_string).collect();
        let votes = votes.iter().map(recorded).collect();
        let event = ApprovalStep { request, step: Cow::Borrowed(step), rules, votes, text };
        let of = Some(held.sequence);
        let appended = self.recording.append(|batch| {
            batch.json(Kind::Approval, Direction::None, of, &event);
        });
        appended
            .inspect_err(|failure| self.count(failure))
            .map(|_| ())
            .map_err(NotReleased::NotRecorded)
    }

    /// Uses an approval with `using`, and records that the command runs.
    pub(super) async fn use_up(
        &self,
        held: &Pending,
        request: RequestId,
        votes: &[Vote],
        using: impl Future<Output = Result<bool, DatabaseError>>,
    ) -> Result<(), NotReleased> {
        let began = Moment::now();
        match using.await {
            Ok(true) => {}
            Ok(false) => return Err(NotReleased::Used),
            Err(error) => {
                tracing::warn!(%request, %error, "an approval cannot be used");
                return Err(NotReleased::Unavailable);
            }
        }
        // The rules may have changed while the database answered, the access may be gone, and an
        // approval that was used long ago, while this process stood still, is of no use.
        let right = self.right_now().await;
        if !right.is_ok_and(|now| !self.is_over_at(now)) || !self.still_may(held, votes) {
            return Err(NotReleased::Stricter);
        }
        if began.elapsed() > USE_TIME {
            return Err(NotReleased::Expired);
        }
        let text = format!("approved by {}", told(votes, VoteVerdict::Approve));
        self.step(held, request, ApprovalStep::RELEASED, votes, text)?;
        let committed = self.recording.committed().await;
        committed.inspect_err(|failure| self.count(failure))?;
        Ok(())
    }

    /// Whether the rules in force now let the command run with what people said.
    pub(super) fn still_may(&self, held: &Pending, votes: &[Vote]) -> bool {
        if self.still_granted().is_err() {
            return false;
        }
        let policy = self.policy();
        held.truth.iter().all(|command| {
            let decision = policy.decide(command);
            let met = |approval: &std::sync::Arc<Approval>| Need::from(&**approval).is_met(votes);
            match decision.verdict() {
                Verdict::Allow => true,
                Verdict::Approve => decision.approvals().iter().all(met),
                Verdict::Block => false,
            }
        })
    }
}

impl PendingApproval<'_> {
    /// The request's id.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Where people decide it.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// When the client is told that it waits, from now on.
    pub fn reminders(&self) -> Reminders {
        Reminders::until(self.deadline)
    }

    /// Waits for people, and for the client's wish to cancel. `given_up` ends the wait when it is
    /// ready, and says why. What comes back passes up: the very bytes that were decided, or `harmless` in their
    /// place with why.
    ///
    /// Cancel safe: dropped at any point, nothing passed and nothing will. An approval may be used
    /// up then.
    pub async fn wait(
        mut self,
        given_up: impl Future<Output = NotReleased>,
        harmless: &[u8],
    ) -> Settled {
        let decided = match &mut self.waiting {
            Some(waiting) => tokio::select! {
                outcome = waiting.decided() => self.outcome(outcome),
                _ = self.cancels.changed() => Err((NotReleased::Cancelled, Vec::new())),
                why = given_up => Err((why, Vec::new())),
            },
            None => Err((NotReleased::Expired, Vec::new())),
        };
        let released = match decided {
            Ok(votes) => self.release(votes).await,
            Err((why, votes)) => Err((why, votes)),
        };
        let Some(held) = self.held.take() else {
            return (Permitted(Bytes::copy_from_slice(harmless)), Some(NotReleased::Expired));
        };
        match released {
            Ok(()) => (held.permitted(), None),
            Err((why, votes)) => {
                if let Some(waiting) = self.waiting.take() {
                    waiting.give_up(why.note());
                }
                let (gate, id) = (self.gate, self.id);
                let recorded = gate.step(&held, id, why.step(), &votes, why.to_string());
                (held.without(harmless), Some(recorded.err().unwrap_or(why)))
            }
        }
    }

    fn outcome(&self, outcome: Outcome) -> Result<Vec<Vote>, (NotReleased, Vec<Vote>)> {
        match outcome {
            Outcome::Approved(votes) => Ok(votes),
            Outcome::Denied(votes) => {
                let by = told(&votes, VoteVerdict::Deny);
                Err((NotReleased::Denied(by), votes))
            }
            Outcome::Expired if self.in_transaction => {
                Err((NotReleased::TransactionWait, Vec::new()))
            }
            Outcome::Expired => Err((NotReleased::Expired, Vec::new())),
        }
    }

    /// Decides again, uses the approval, and records that it was.
    async fn release(&mut self, votes: Vec<Vote>) -> Result<(), (NotReleased, Vec<Vote>)> {
        let Some(held) = &self.held else { return Err((NotReleased::Expired, votes)) };
        if !self.gate.still_may(held, &votes) {
            return Err((NotReleased::Stricter, votes));
        }
        let Some(waiting) = self.waiting.take() else {
            return Err((NotReleased::Expired, votes));
        };
        let used = self.gate.use_up(held, self.id, &votes, waiting.consume()).await;
        used.map_err(|why| (why, votes))
    }
}

impl Drop for PendingApproval<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let why = NotReleased::Closing;
            let step = self.gate.step(&held, self.id, why.step(), &[], why.to_string());
            if let Err(failure) = step {
                tracing::debug!(request = %self.id, %failure, "a hold's end is not recorded");
            }
        }
    }
}

fn recorded(vote: &Vote) -> RecordedVote {
    RecordedVote {
        issuer: vote.issuer.clone(),
        subject: vote.subject.clone(),
        username: vote.username.clone(),
        verdict: Cow::Borrowed(match vote.verdict {
            VoteVerdict::Approve => "approve",
            VoteVerdict::Deny => "deny",
        }),
        comment: vote.comment.clone(),
    }
}
