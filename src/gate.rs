//! The gate that everything passes: a command is decided and recorded before it goes upstream, a
//! response is masked and recorded before it goes downstream.
//!
//! [`Permitted`] and [`Released`] have private fields and are made here alone; the writers of
//! every protocol take nothing else. The gate knows no protocol.
//!
//! A command that people have to approve comes out of [`Gate::admit`] as a [`Held`]:
//! [`Gate::hold`] asks them, and [`Hold::wait`] gives its very bytes once they said yes.

mod hold;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::access::{Grant, NoAccess};
use crate::approval::Present;
use crate::catalog::{Catalog, Rules};
use crate::config::NotifyEvent;
use crate::identity::Identity;
use crate::mask::{HashKey, MaskPlan, Masked};
use crate::metrics::{self, SessionMetrics};
use crate::names::SessionId;
use crate::notify::News;
use crate::policy::{
    Command, CommandParts, Decision, SessionFacts, SessionPolicy, Unprovable, Verdict,
};
use crate::recording::{
    Batch, Closed, Direction, Kind, NewCommand, Note, Opened, Outcome, RecordedIdentity, Recording,
    RecordingFailure, Sequence, Store, Told,
};
use crate::telemetry::SessionSpans;

pub use hold::{Held, Hold, NotReleased, Settled};

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

/// One session's gate: who, where, under which rules, recorded where.
#[derive(Debug)]
pub struct Gate {
    grant: Grant,
    catalog: Arc<Catalog>,
    store: Store,
    recording: Recording,
    mask_key: HashKey,
    facts: SessionFacts,
    in_force: Mutex<InForce>,
    opened: Instant,
    metrics: SessionMetrics,
    spans: SessionSpans,
    /// Ends what waits for people, when the client asks to cancel.
    cancels: hold::Cancels,
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
        let groups = grant.identity().groups();
        let masks = of.masks().for_session(target.name.as_str(), groups, key);
        let policy = of.policy().for_session(grant.identity(), &target, facts);
        let policy = Arc::new(policy.masked(masks.masks_columns()));
        Self { of, policy, masks: Arc::new(masks) }
    }
}

/// What the key of the hashes that masks write is for.
const MASK_KEY: &str = "portcullis 2026-11 mask hashes";

impl Gate {
    /// Opens the session's recording: only now may the target be reached.
    pub fn open(
        grant: Grant,
        catalog: Arc<Catalog>,
        store: &Store,
        opened: &Opened,
    ) -> Result<Self, RecordingFailure> {
        let recording =
            store.create(opened, grant.target().on_recording_failure).inspect_err(|failure| {
                metrics::recording_failed();
                catalog.desk().notifier().tell(NotifyEvent::Recording, || News {
                    text: failure.to_string(),
                    ..news_of(&grant)
                });
            })?;
        let metrics = SessionMetrics::open(opened.protocol, &opened.target);
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
        let spans = SessionSpans::open(opened);
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
            metrics,
            spans,
            cancels: hold::Cancels::default(),
            _present: present,
        })
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

    /// Decides and records what `bytes` hold, as `describe` tells it piece by piece, and lets
    /// pass what may. With `durability = "disk"` this waits for the disk.
    ///
    /// Cancel safe: what was recorded stays recorded, and nothing passed.
    pub async fn admit<T>(
        &self,
        bytes: Bytes,
        describe: impl FnOnce(&mut Admission<'_, '_>) -> T,
    ) -> Result<(Permitted, T), RecordingFailure> {
        let began = Instant::now();
        let policy = self.policy();
        let appended = self.recording.append(|batch| {
            let mut admission = Admission {
                gate: self,
                policy: &policy,
                batch,
                passing: Passing::of(bytes),
                decided: false,
            };
            let described = describe(&mut admission);
            (described, admission.passing.finish(), admission.decided)
        });
        let (described, passed, decided) = appended.inspect_err(|failure| self.count(failure))?;
        if decided {
            self.recording.committed().await.inspect_err(|failure| self.count(failure))?;
        }
        self.metrics.passed_up(passed.len(), began.elapsed());
        Ok((Permitted(passed), described))
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
        response: Masked,
        describe: impl FnOnce(&mut Release<'_, '_>, &Bytes),
    ) -> Result<Released, RecordingFailure> {
        let appended = self
            .recording
            .append(|batch| describe(&mut Release { gate: self, batch }, response.stored()));
        appended.inspect_err(|failure| self.count(failure))?;
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
        let desk = self.catalog.desk();
        if let Some(by) = desk.is_killed(self.session()) {
            return Err(NoAccess::Killed(by));
        }
        self.grant.still_holds(&self.catalog.current(), desk.withdrawn())
    }

    /// Counts what could not be recorded, and tells of it.
    fn count(&self, failure: &RecordingFailure) {
        metrics::recording_failed();
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

    /// Ends the recording.
    pub fn close(&self, how: &'static str, text: String) {
        self.metrics.ended(how);
        self.spans.close(how);
        self.tell(NotifyEvent::SessionEnd, || News { text: text.clone(), ..News::default() });
        let closed = Closed { how: Cow::Borrowed(how), text };
        if let Err(failure) = self.recording.close(&closed) {
            tracing::error!(session = %self.recording.session(), %failure, "recording not sealed yet");
        }
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

/// Tells the gate, under one append, what some upstream-bound bytes hold. What is not told does
/// not pass.
#[derive(Debug)]
pub struct Admission<'g, 'b> {
    gate: &'g Gate,
    policy: &'g Arc<SessionPolicy>,
    batch: &'g mut Batch<'b>,
    passing: Passing,
    decided: bool,
}

/// A command that is to be decided and recorded.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What it is in truth, which nobody but policy sees; everything that it may be, where that is
    /// not certain: the strictest decision counts.
    pub commands: &'a [CommandParts<'a>],
    /// Its request view, which is recorded.
    pub view: CommandParts<'a>,
    /// Whether the view leaves something of the exact bytes out: their keyed hash is recorded.
    pub withheld: bool,
    /// Whether it only prepares what is decided again when it runs.
    pub prepares: bool,
    /// The recorded command that it builds on.
    pub of: Option<Sequence>,
    /// Masks that could not be applied if it ran.
    pub against: Option<Against>,
}

/// Masks that are against a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Against {
    /// Their names.
    pub masks: Vec<Arc<str>>,
    /// Why, for the client.
    pub reason: &'static str,
}

/// What became of a command.
#[derive(Debug)]
pub enum Ruling {
    /// Its exact bytes pass.
    Passes,
    /// They do not; [`Admission::instead`] may put others in their place.
    Refused(Decision),
    /// People decide. Nothing behind it may be told to this admission any more: what is told
    /// passes now, ahead of it.
    Held(Box<Held>),
}

impl Admission<'_, '_> {
    /// Decides and records the command in `range` of the bytes, and lets them pass if they may.
    /// `withheld` says that the command's view does not hold them all: their keyed hash is
    /// recorded. Gives the place of the command's event.
    pub fn command(
        &mut self,
        range: Range<usize>,
        command: &Command,
        of: Option<Sequence>,
        withheld: bool,
    ) -> (Sequence, Ruling) {
        let effects = [command.effects.as_slice()];
        let view = command.parts(&effects);
        let asked = Asked { commands: &[view], view, withheld, prepares: false, of, against: None };
        self.ask(range, &asked)
    }

    /// The same for a command whose truth and view differ, or that may be one of several.
    pub fn ask(&mut self, range: Range<usize>, asked: &Asked<'_>) -> (Sequence, Ruling) {
        let mut decision = self.policy.decide_parts(asked.commands);
        if asked.prepares {
            decision = decision.of_preparing();
        }
        if let Some(Against { masks, reason }) = &asked.against {
            decision = decision.against(masks, reason);
        }
        let exact = self.passing.source.get(range.clone()).unwrap_or_default();
        let recorded = NewCommand {
            command: &asked.view,
            decision: &decision,
            exact: asked.withheld.then(|| self.gate.store.keyed_hash(exact)),
        };
        let sequence = self.batch.json(Kind::Command, Direction::Up, asked.of, &recorded);
        self.decided = true;
        self.gate.metrics.decided(decision.verdict());
        self.gate.spans.command(sequence, &asked.view, &decision);
        let ruling = match decision.verdict() {
            Verdict::Allow => {
                self.passing.pass(range);
                Ruling::Passes
            }
            Verdict::Block => {
                self.gate.tell(NotifyEvent::Block, || News {
                    rules: decision.rules().iter().map(ToString::to_string).collect(),
                    reason: decision.reason().map(str::to_owned),
                    text: asked.view.text.to_owned(),
                    ..News::default()
                });
                Ruling::Refused(decision)
            }
            Verdict::Approve => {
                let bytes = (self.passing.take_step(), self.passing.exact(range));
                let truth = asked.commands.iter().map(CommandParts::to_command).collect();
                let view = asked.view.to_command();
                Ruling::Held(Box::new(Held::new(sequence, truth, view, decision, bytes)))
            }
        };
        (sequence, ruling)
    }

    /// Whether a rule may hold commands of this session for people.
    pub fn asks_people(&self) -> bool {
        self.policy.asks_people()
    }

    /// A keyed hash of some of the bytes.
    pub fn keyed_hash(&self, range: Range<usize>) -> String {
        self.gate.store.keyed_hash(self.passing.source.get(range).unwrap_or_default())
    }

    /// Whether a rule looks at this attribute of commands.
    pub fn looks_at(&self, attribute: &str) -> bool {
        self.policy.looks_at(attribute)
    }

    /// The policy by which nothing is against these commands, if so; nothing is recorded. It tells
    /// later whether they would still be let pass: [`Admission::is_by`].
    pub fn lets_pass(&self, commands: &[CommandParts<'_>]) -> Option<Weak<SessionPolicy>> {
        let allows = self.policy.decide_parts(commands).verdict() == Verdict::Allow;
        allows.then(|| Arc::downgrade(self.policy))
    }

    /// Whether that policy is the one in force.
    pub fn is_by(&self, policy: &Weak<SessionPolicy>) -> bool {
        std::ptr::eq(policy.as_ptr(), Arc::as_ptr(self.policy))
    }

    /// Records and passes bytes that belong to commands decided before.
    pub fn data(&mut self, range: Range<usize>, of: Option<Sequence>) {
        let bytes = self.passing.source.get(range.clone()).unwrap_or_default();
        self.batch.data(Direction::Up, of, bytes);
        self.passing.pass(range);
    }

    /// Passes bytes that belong to commands decided before and are not to be stored: their number
    /// and keyed hash are recorded.
    pub fn withheld(&mut self, range: Range<usize>, what: &'static str) {
        let bytes = self.passing.source.get(range.clone()).unwrap_or_default();
        let hash = self.gate.store.keyed_hash(bytes);
        let text = format!("{} bytes of {what}, keyed hash {hash}", bytes.len());
        self.note("withheld", text);
        self.passing.pass(range);
    }

    /// Asks the target something of the gateway's own that does nothing.
    pub fn beside(&mut self, question: &[u8]) {
        self.passing.push(question);
    }

    /// Records how a command's bytes may be seen, where they are not recorded as they are.
    pub fn view(&mut self, view: &[u8], of: Sequence) {
        self.batch.data(Direction::Up, Some(of), view);
    }

    /// Passes bytes that belong to commands decided before, and records them in another form: one
    /// that says more (which channel), or less (that something was typed, not what).
    pub fn data_as(&mut self, range: Range<usize>, of: Option<Sequence>, recorded: &[u8]) {
        self.batch.data(Direction::Up, of, recorded);
        self.passing.pass(range);
    }

    /// Puts bytes of the gateway's own where refused ones would have passed. They must be such
    /// that the target does nothing but say no.
    pub fn instead(&mut self, harmless: &[u8]) {
        self.passing.push(harmless);
    }

    /// For who cannot wait: what would wait with the command passes now, and `harmless` in the
    /// command's place.
    pub fn refuse(&mut self, held: Held, harmless: &[u8]) -> Decision {
        let (before, decision) = held.refuse();
        self.passing.push(&before);
        self.passing.push(harmless);
        decision
    }

    /// What was told so far makes the target do something: a command that is held behind it does
    /// not hold it back. What is told behind the last such step waits with the command.
    pub fn step(&mut self) {
        self.passing.step();
    }

    /// Records something worth knowing.
    pub fn note(&mut self, what: &'static str, text: String) {
        let note = Note { what: Cow::Borrowed(what), text };
        self.batch.json(Kind::Note, Direction::None, None, &note);
    }
}

/// The bytes that will pass: a piece of the source while that is enough, a copy when not.
#[derive(Debug)]
struct Passing {
    source: Bytes,
    piece: Range<usize>,
    copy: Option<BytesMut>,
    /// How much of it passes whatever is held behind it.
    step: usize,
}

impl Passing {
    fn of(source: Bytes) -> Self {
        Self { source, piece: 0..0, copy: None, step: 0 }
    }

    fn step(&mut self) {
        self.step = self.copy.as_ref().map_or(self.piece.len(), BytesMut::len);
    }

    /// Takes back what was told since the last step.
    fn take_step(&mut self) -> Bytes {
        match &mut self.copy {
            Some(copy) => copy.split_off(self.step.min(copy.len())).freeze(),
            None => {
                let at = self.piece.start + self.step.min(self.piece.len());
                let taken = self.source.slice(at..self.piece.end);
                self.piece.end = at;
                taken
            }
        }
    }

    /// The exact bytes of a command.
    fn exact(&self, range: Range<usize>) -> Bytes {
        let there = self.source.get(range.clone()).is_some();
        if there { self.source.slice(range) } else { Bytes::new() }
    }

    fn pass(&mut self, range: Range<usize>) {
        if self.copy.is_none() && (self.piece.is_empty() || self.piece.end == range.start) {
            let start = if self.piece.is_empty() { range.start } else { self.piece.start };
            self.piece = start..range.end;
        } else {
            let source = self.source.clone();
            self.push(source.get(range).unwrap_or_default());
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let piece = self.source.get(self.piece.clone()).unwrap_or_default();
        self.copy.get_or_insert_with(|| BytesMut::from(piece)).extend_from_slice(bytes);
    }

    fn finish(self) -> Bytes {
        match self.copy {
            Some(copy) => copy.freeze(),
            None if self.piece.len() == self.source.len() => self.source,
            None => self.source.slice(self.piece),
        }
    }
}

/// Tells the recording, under one append, what some downstream-bound bytes hold.
#[derive(Debug)]
pub struct Release<'g, 'b> {
    gate: &'g Gate,
    batch: &'g mut Batch<'b>,
}

impl Release<'_, '_> {
    /// Records bytes that answer a command, or none.
    pub fn data(&mut self, bytes: &[u8], of: Option<Sequence>) {
        self.batch.data(Direction::Down, of, bytes);
    }

    /// Records the end of a command.
    pub fn outcome(&mut self, of: Sequence, outcome: &Outcome) {
        self.batch.json(Kind::Outcome, Direction::Down, Some(of), outcome);
        let masked = outcome.masked.values().fold(0, |sum: u64, more| sum.saturating_add(*more));
        self.gate.metrics.masked(masked);
        self.gate.spans.outcome(of, outcome);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_piece_by_piece() {
        let source = Bytes::from_static(b"aabbcc");
        let mut whole = Passing::of(source.clone());
        whole.pass(0..2);
        whole.pass(2..6);
        assert_eq!(whole.finish().as_ptr(), source.as_ptr(), "nothing is copied");

        let mut refused = Passing::of(source.clone());
        refused.pass(0..2);
        refused.push(b"XX");
        refused.pass(4..6);
        assert_eq!(refused.finish(), "aaXXcc");

        let mut gap = Passing::of(source.clone());
        gap.pass(0..2);
        gap.pass(4..6);
        assert_eq!(gap.finish(), "aacc");
        assert_eq!(Passing::of(source).finish(), "", "what is not told does not pass");
    }

    #[test]
    fn what_is_told_behind_a_step_waits_with_the_command_that_is_held() {
        let source = Bytes::from_static(b"aabbcc");
        for copied in [false, true] {
            let mut passing = Passing::of(source.clone());
            passing.pass(0..2);
            if copied {
                passing.push(b"XX");
            }
            passing.step();
            passing.pass(2..4);
            assert_eq!(passing.take_step(), "bb");
            assert_eq!(passing.exact(4..6), "cc");
            assert_eq!(passing.finish(), if copied { "aaXX" } else { "aa" });
        }
        let mut all = Passing::of(source);
        all.pass(0..4);
        assert_eq!(all.take_step(), "aabb");
        assert_eq!(all.finish(), "");
    }
}
