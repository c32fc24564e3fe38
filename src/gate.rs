//! The gate that everything passes: a command is decided and recorded before it goes upstream, a
//! response is masked and recorded before it goes downstream.
//!
//! [`Permitted`] and [`Released`] have private fields and are made here alone; the writers of
//! every protocol take nothing else. The gate knows no protocol.
//!
//! What goes up goes three steps: a [`Plan`] is made of it, in which policy and masks decide, and no
//! lock is held; the plan is recorded ([`Plan::append`]), and only then do metrics, spans and news
//! hear of it; what may passes ([`Appended::pass`]). [`Gate::admit`] is all three.
//!
//! Nothing passes up on a right that was looked at too long ago: [`Gate::admit`] asks how old the
//! gateway's knowledge of withdrawals is, and looks at the session's end by a clock, for a process
//! that was stopped hears of neither. Where the right is gone it gives [`NotAdmitted::Lapsed`], and
//! the protocol's own watcher ends the session.
//!
//! A command that people have to approve comes out of [`Gate::admit`] as a [`Pending`]:
//! [`Gate::ask_people`] asks them, and [`PendingApproval::wait`] gives its very bytes once they said yes.

mod consequences;
mod end;
mod pending;
mod plan;
mod resubmit;
mod splice;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::access::{Grant, NoAccess};
use crate::approval::Present;
pub use crate::approval::Status;
use crate::catalog::{Catalog, Rules};
use crate::clock::{Moment, Now};
use crate::config::NotifyEvent;
use crate::identity::Identity;
use crate::mask::{HashKey, MaskPlan, Masked, Viewer};
use crate::metrics::SessionMetrics;
use crate::names::SessionId;
use crate::notify::News;
use crate::policy::{Caller, SessionFacts, SessionPolicy, Unprovable};
use crate::recording::{
    Batch, Closed, Direction, Kind, Note, Opened, Outcome, RecordedIdentity, Recording,
    RecordingFailure, Renumbered, Sequence, Store, Told,
};
use crate::telemetry::{CommandSpanEnd, SessionSpans};

pub use end::{Fault, How, SessionEnd};
pub use pending::{NotReleased, Pending, PendingApproval, Settled};
pub use plan::{Against, Asked, Plan, Renumber, Ruling, Sent};
pub use resubmit::Again;

/// The exact bytes that were decided and recorded; what may go upstream.
#[derive(Debug)]
pub struct Permitted(Bytes);

impl Permitted {
    /// Gives the bytes up to the writer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Masked bytes that were recorded; what may go downstream.
#[derive(Debug)]
pub struct Released(Bytes);

impl Released {
    /// Gives the bytes up to the writer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// A plan that was recorded.
#[derive(Debug)]
#[must_use = "it passes with Appended::pass alone"]
pub struct Appended<'g> {
    gate: &'g Gate,
    bytes: Bytes,
    /// What became of the sequences that the plan gave out.
    pub renumbered: Renumbered,
    /// When it was planned.
    began: Moment,
    /// Commands are in it.
    decided: bool,
}

impl<'g> Plan<'g> {
    /// Records what was planned: all of it, or nothing, and then nothing follows from it.
    pub fn append(self) -> Result<Appended<'g>, RecordingFailure> {
        let (gate, now) = (self.gate, self.now);
        let appended = gate.recording.append_draft(now, &self.draft);
        let renumbered = appended.inspect_err(|failure| gate.count(failure))?;
        let (bytes, consequences) = self.finish();
        let decided = !consequences.is_empty();
        consequences.happen(gate, renumbered);
        Ok(Appended { gate, bytes, renumbered, began: now.moment, decided })
    }
}

impl Appended<'_> {
    /// Lets pass what may. With `durability = "disk"` this waits for the disk. Cancel safe.
    pub async fn pass(self) -> Result<Permitted, NotAdmitted> {
        self.committed().await?;
        // The process may have been stopped meanwhile, or the disk slow.
        let now = self.gate.right_now().await?;
        self.gate.metrics.passed_up(self.bytes.len(), now.moment.since(self.began));
        Ok(Permitted(self.bytes))
    }

    async fn committed(&self) -> Result<(), RecordingFailure> {
        if self.decided {
            let committed = self.gate.recording.committed().await;
            committed.inspect_err(|failure| self.gate.count(failure))?;
        }
        Ok(())
    }
}

/// Why nothing passes up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotAdmitted {
    /// It cannot be recorded.
    #[error("not recorded: {0}")]
    NotRecorded(#[from] RecordingFailure),
    /// The right that the session has is gone; the session ends.
    #[error("{0}")]
    Lapsed(NoAccess),
}

/// One session's gate: who, where, under which rules, recorded where.
#[derive(Debug)]
pub struct Gate {
    grant: Arc<Grant>,
    catalog: Arc<Catalog>,
    store: Store,
    recording: Recording,
    mask_key: HashKey,
    facts: SessionFacts,
    in_force: Mutex<InForce>,
    opened: Instant,
    /// The same moment, by the clock that goes on while the process is stopped.
    since: Moment,
    /// How long what runs may go on when the session's time is over.
    grace: Duration,
    /// The state of rules and withdrawals under which the right was found to hold.
    checked: AtomicU64,
    metrics: SessionMetrics,
    spans: SessionSpans,
    /// Ends what waits for people, when the client asks to cancel.
    cancels: pending::Cancels,
    _present: Present,
}

/// The rules that were last in force, narrowed to the session.
#[derive(Debug)]
struct InForce {
    of: Arc<Rules>,
    policy: Arc<SessionPolicy>,
    masks: Arc<MaskPlan>,
}

impl InForce {
    fn new(of: Arc<Rules>, grant: &Grant, facts: &SessionFacts, key: &HashKey) -> Self {
        // A target that a reload took away ends the session; until then it stays what it was.
        let target = of.target(&grant.target().name).unwrap_or_else(|| grant.target()).facts();
        let identity = grant.identity();
        let (username, groups) = (identity.username(), identity.groups());
        let viewer = Viewer { username, groups, claims: identity.claims() };
        let rows = of.masks().rows_of(target.name.as_str(), &viewer);
        for (applied, lacking) in rows.iter().filter_map(|rows| Some((rows, rows.lacking()?))) {
            tracing::warn!(
                session = facts.id.map(tracing::field::display),
                target = %target.name,
                user = username,
                filter = &*applied.filter.name,
                lacking,
                "the token lacks what a row filter needs: statements on its table are refused"
            );
        }
        let masks = of.masks().for_session(target.name.as_str(), groups, key).with_rows(rows);
        let policy = of.policy().for_caller(&Caller::from(&**identity), &target, facts);
        let policy = Arc::new(policy.masked(masks.masks_columns()));
        Self { of, policy, masks: Arc::new(masks) }
    }
}

/// No state of rules and withdrawals: they are counted from 0.
const UNCHECKED: u64 = u64::MAX;
/// What the key of the hashes that masks write is for.
const MASK_KEY: &str = "portcullis 2026-11 mask hashes";

impl Gate {
    /// Opens the session's recording: only now may the target be reached.
    pub fn open(
        grant: Arc<Grant>,
        catalog: Arc<Catalog>,
        store: &Store,
        opened: &Opened,
    ) -> Result<Self, RecordingFailure> {
        let recording =
            store.create(opened, grant.target().on_recording_failure).inspect_err(|failure| {
                catalog.desk().metrics().recording_failed();
                catalog.desk().notifier().tell(NotifyEvent::Recording, || News {
                    text: failure.to_string(),
                    ..news_of(&grant)
                });
            })?;
        let metrics = catalog.desk().metrics().session(opened.protocol, &opened.target);
        let store = store.clone();
        let mask_key = HashKey::new(*store.derived_key(MASK_KEY));
        let name = |told: &Option<Told>| told.as_ref().map(|told| told.name.clone());
        let facts = SessionFacts {
            id: Some(opened.session),
            client: Some(opened.client.clone()),
            database: opened.database.clone(),
            workflow: name(&opened.workflow),
            run: name(&opened.run),
        };
        let in_force = InForce::new(catalog.current(), &grant, &facts, &mask_key);
        let spans = catalog.tracer().session(opened);
        let present = catalog.desk().enter(opened.session, grant.identity());
        catalog.desk().notifier().tell(NotifyEvent::SessionStart, || News {
            session: Some(opened.session),
            text: format!("from {}", opened.client),
            ..news_of(&grant)
        });
        Ok(Self {
            grant,
            catalog,
            store,
            recording,
            mask_key,
            facts,
            in_force: Mutex::new(in_force),
            opened: Instant::now(),
            since: Moment::now(),
            grace: Duration::ZERO,
            checked: AtomicU64::new(UNCHECKED),
            metrics,
            spans,
            cancels: pending::Cancels::default(),
            _present: present,
        })
    }

    /// The same gate of a session in which what runs may go on for so long when its time is over.
    #[must_use]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// The right that the session stands on.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What is counted of the session.
    pub fn metrics(&self) -> &SessionMetrics {
        &self.metrics
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.recording.session()
    }

    /// When the session opened, by the clock that never goes back.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Plans, records and lets pass what `bytes` hold, as `describe` tells it piece by piece.
    ///
    /// Cancel safe: what was recorded stays recorded, and nothing passed.
    pub async fn admit<T: Renumber>(
        &self,
        bytes: Bytes,
        describe: impl FnOnce(&mut Plan<'_>) -> T,
    ) -> Result<(Permitted, T), NotAdmitted> {
        let mut plan = self.plan(bytes).await?;
        let mut described = describe(&mut plan);
        let appended = plan.append()?;
        described.renumber(appended.renumbered);
        Ok((appended.pass().await?, described))
    }

    /// Records what came up, as `describe` tells it, and lets nothing pass: also when the right that
    /// the session has is gone. Cancel safe.
    pub async fn record(
        &self,
        describe: impl FnOnce(&mut Plan<'_>),
    ) -> Result<(), RecordingFailure> {
        let mut plan = Plan::new(self, Now::read(), Bytes::new());
        describe(&mut plan);
        plan.append()?.committed().await
    }

    /// Begins to plan what becomes of some bytes, which a caller tells piece by piece. First this
    /// makes sure that the right still holds, which may wait for the database when it was looked at
    /// too long ago. Cancel safe.
    pub async fn plan(&self, bytes: Bytes) -> Result<Plan<'_>, NotAdmitted> {
        Ok(Plan::new(self, self.right_now().await?, bytes))
    }

    /// The rules in force now for this session: a reload counts from the next command on.
    fn policy(&self) -> Arc<SessionPolicy> {
        self.in_force(|in_force| Arc::clone(&in_force.policy))
    }

    /// The masks in force now for this session: ask for them whenever an answer begins, for a
    /// reload counts from the next command on.
    pub fn masks(&self) -> Arc<MaskPlan> {
        self.in_force(|in_force| Arc::clone(&in_force.masks))
    }

    /// Masks a whole text of a response.
    pub fn mask(&self, response: Bytes) -> Masked {
        let masks = self.masks();
        if masks.has_patterns() {
            masks.text(&response)
        } else {
            Masked::by_value(response.clone(), response)
        }
    }

    /// What happens to outputs that may carry masked data.
    pub fn unprovable(&self) -> Unprovable {
        self.in_force(|in_force| in_force.of.policy().settings().unprovable)
    }

    fn in_force<T>(&self, of: impl FnOnce(&InForce) -> T) -> T {
        let current = self.catalog.current();
        let mut in_force = self.in_force.lock();
        if !Arc::ptr_eq(&in_force.of, &current) {
            *in_force = InForce::new(current, &self.grant, &self.facts, &self.mask_key);
        }
        of(&in_force)
    }

    /// Records a masked response, as `describe` tells it by the bytes that are stored, and lets
    /// pass what the client may see.
    pub fn release(
        &self,
        now: Now,
        response: Masked,
        describe: impl FnOnce(&mut Release<'_, '_>, &Bytes),
    ) -> Result<Released, RecordingFailure> {
        let appended = self.recording.append_at(now, |batch| {
            let mut release = Release { gate: self, batch, masked: 0, ended: Vec::new() };
            describe(&mut release, response.stored());
            (release.masked, release.ended)
        });
        let (masked, ended) = appended.inspect_err(|failure| self.count(failure))?;
        self.metrics.masked(masked);
        ended.into_iter().for_each(|end| self.spans.end(end));
        self.metrics.passed_down(response.shown().len());
        Ok(Released(response.into_shown()))
    }

    /// Records words of the gateway's own to the client.
    pub fn announce(&self, words: &[u8]) -> Result<(), RecordingFailure> {
        self.recording.append(|batch| batch.data(Direction::None, None, words)).map(|_| ())
    }

    /// Records something worth knowing; a failure shows with the next command.
    pub fn note(&self, what: &'static str, text: String) {
        let note = Note { what: Cow::Borrowed(what), text };
        if let Err(failure) =
            self.recording.append(|batch| batch.json(Kind::Note, Direction::None, None, &note))
        {
            tracing::warn!(session = %self.recording.session(), %failure, what, "note not recorded");
        }
    }

    /// Whether the rules in force now still give the access that the session stands on, and
    /// nobody has withdrawn it or ended the session.
    pub fn still_granted(&self) -> Result<(), NoAccess> {
        still_granted(&self.grant, self.session(), &self.catalog)
    }

    /// Makes sure that the right holds, by knowledge that is not older than the promise, and gives the
    /// moment at which it does: clocks are read behind any wait. Cancel safe.
    async fn right_now(&self) -> Result<Now, NotAdmitted> {
        let desk = self.catalog.desk();
        let mut now = Now::read();
        if !desk.withdrawn().is_current(now.moment) {
            desk.withdrawn().current().await;
            now = Now::read();
        }
        // Told of before the look counts, so what is new is never missed.
        let generation = desk.generation();
        if self.checked.load(Ordering::Relaxed) != generation {
            self.still_granted().map_err(NotAdmitted::Lapsed)?;
            self.checked.store(generation, Ordering::Relaxed);
        }
        match self.grant.ends().overdue(self.since, now) {
            Some(over) if over >= self.grace => Err(NotAdmitted::Lapsed(NoAccess::Over)),
            _ => Ok(now),
        }
    }

    /// Whether the session's time is over: what runs may go on for a while, and nothing new starts.
    pub fn is_over(&self) -> bool {
        self.is_over_at(Now::read())
    }

    fn is_over_at(&self, now: Now) -> bool {
        self.grant.ends().overdue(self.since, now).is_some()
    }

    /// How much longer what runs may go on when the session's time is over.
    pub fn grace_left(&self) -> Duration {
        let over = self.grant.ends().overdue(self.since, Now::read()).unwrap_or_default();
        self.grace.saturating_sub(over)
    }

    /// How the session must end because of that, if it must.
    pub fn lost(&self) -> Option<SessionEnd> {
        self.still_granted().err().map(|why| SessionEnd::lost(&why))
    }

    /// The target was not reached: the session ends, and what opens one session only is given back.
    pub async fn not_reached(&self, fault: Fault, why: &impl fmt::Display) {
        tracing::warn!(target = %self.grant.target().name, error = %why, "target not reached");
        self.metrics.not_connected();
        self.close(&SessionEnd::new(How::Target, fault, why.to_string()));
        self.grant.give_back().await;
    }

    /// Counts what could not be recorded, and tells of it.
    fn count(&self, failure: &RecordingFailure) {
        self.catalog.desk().metrics().recording_failed();
        self.tell(NotifyEvent::Recording, || News { text: failure.to_string(), ..News::default() });
    }

    /// Tells those who want to be told, of something in this session.
    fn tell(&self, event: NotifyEvent, news: impl FnOnce() -> News) {
        self.catalog.desk().notifier().tell(event, || {
            let of = news_of(&self.grant);
            let session = Some(self.session());
            News { username: of.username, target: of.target, session, ..news() }
        });
    }

    /// Logs the end and ends the recording with it.
    pub fn close(&self, end: &SessionEnd) {
        let (how, text) = (end.how().word(), end.text().to_owned());
        tracing::info!(
            session = %self.session(),
            target = %self.grant.target().name,
            how,
            fault = %end.fault(),
            by = end.by(),
            reason = text,
            "session ended"
        );
        self.metrics.ended(how);
        self.spans.close(how);
        self.tell(NotifyEvent::SessionEnd, || News { text: text.clone(), ..News::default() });
        let closed = Closed { how: Cow::Borrowed(how), text };
        if let Err(failure) = self.recording.close(&closed) {
            tracing::error!(session = %self.recording.session(), %failure, "recording not sealed yet");
        }
    }
}

/// Whether the rules in force now still give a session's right, and nobody has withdrawn it or ended
/// the session.
pub fn still_granted(grant: &Grant, session: SessionId, catalog: &Catalog) -> Result<(), NoAccess> {
    let desk = catalog.desk();
    match desk.is_killed(session) {
        Some(by) => Err(NoAccess::Killed(by)),
        None => grant.still_holds(&catalog.current(), desk.withdrawn().last_known()),
    }
}

/// Who, where.
fn news_of(grant: &Grant) -> News {
    News {
        username: grant.identity().username().to_owned(),
        target: grant.target().name.to_string(),
        ..News::default()
    }
}

/// Tells the recording, under one append, what some downstream-bound bytes hold.
#[derive(Debug)]
pub struct Release<'g, 'b> {
    gate: &'g Gate,
    batch: &'g mut Batch<'b>,
    /// Values that were masked.
    masked: u64,
    ended: Vec<CommandSpanEnd>,
}

impl Release<'_, '_> {
    /// Records bytes that answer a command, or none.
    pub fn data(&mut self, bytes: &[u8], of: Option<Sequence>) {
        self.batch.data(Direction::Down, of, bytes);
    }

    /// Records something worth knowing of a command.
    pub fn note(&mut self, of: Sequence, what: &'static str, text: String) {
        let note = Note { what: Cow::Borrowed(what), text };
        self.batch.json(Kind::Note, Direction::None, Some(of), &note);
    }

    /// Records the end of a command.
    pub fn outcome(&mut self, of: Sequence, outcome: &Outcome) {
        self.batch.json(Kind::Outcome, Direction::Down, Some(of), outcome);
        let masked = outcome.masked.values();
        self.masked = masked.fold(self.masked, |sum, more| sum.saturating_add(*more));
        self.ended.extend(self.gate.spans.outcome(of, outcome));
    }
}

/// The public part of an identity, for recordings.
pub fn recorded_identity(identity: &Identity) -> RecordedIdentity {
    RecordedIdentity {
        issuer: identity.issuer().to_owned(),
        subject: identity.subject().to_owned(),
        username: identity.username().to_owned(),
        groups: identity.groups().to_vec(),
    }
}
