//! What some upstream-bound bytes mean: each command is decided, and noted to be recorded, and what
//! may pass is noted to pass. Nothing has happened yet, and no lock is held.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::Gate;
use super::consequences::Consequences;
use super::pending::Pending;
use super::splice::Passing;
use crate::clock::{Moment, Now};
use crate::policy::{Command, CommandParts, Decision, SessionPolicy, Verdict};
use crate::recording::{Direction, Draft, Kind, NewCommand, Note, Renumbered, Sequence};

/// What is planned for some upstream-bound bytes, which were told piece by piece. What is not told
/// does not pass.
#[derive(Debug)]
pub struct Plan<'g> {
    pub(super) gate: &'g Gate,
    pub(super) now: Now,
    policy: Arc<SessionPolicy>,
    pub(super) draft: Draft,
    passing: Passing,
    consequences: Consequences,
}

/// What keeps sequences that a plan gave out: they become those that the events got.
pub trait Renumber {
    /// The plan is recorded.
    fn renumber(&mut self, renumbered: Renumbered);
}

impl Renumber for () {
    fn renumber(&mut self, _: Renumbered) {}
}

impl Renumber for Decision {
    fn renumber(&mut self, _: Renumbered) {}
}

impl Renumber for Sequence {
    fn renumber(&mut self, renumbered: Renumbered) {
        *self = renumbered.sequence(*self);
    }
}

impl Renumber for Ruling {
    fn renumber(&mut self, renumbered: Renumbered) {
        if let Self::Pending(held) = self {
            held.renumber(renumbered);
        }
    }
}

impl Renumber for Pending {
    fn renumber(&mut self, renumbered: Renumbered) {
        self.is_at(renumbered.sequence(self.sequence()));
    }
}

impl<T: Renumber> Renumber for Option<T> {
    fn renumber(&mut self, renumbered: Renumbered) {
        self.iter_mut().for_each(|inner| inner.renumber(renumbered));
    }
}

impl<A: Renumber, B: Renumber> Renumber for (A, B) {
    fn renumber(&mut self, renumbered: Renumbered) {
        self.0.renumber(renumbered);
        self.1.renumber(renumbered);
    }
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
    /// What passes in the place of its bytes, where that is something else.
    pub sent: Option<Sent>,
}

/// What passes in the place of a command's bytes: the same command with masks in it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The bytes.
    pub bytes: Bytes,
    /// Their request view, which is recorded beside the command's.
    pub view: String,
}

/// Masks that are against a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Against {
    /// Their names.
    pub masks: Vec<Arc<str>>,
    /// Why, for the client.
    pub reason: Cow<'static, str>,
}

/// What became of a command.
#[derive(Debug)]
pub enum Ruling {
    /// Its exact bytes pass.
    Passes,
    /// They do not; [`Plan::instead`] may put others in their place.
    Refused(Decision),
    /// People decide. Nothing behind it may be told to this plan any more: what is told
    /// passes now, ahead of it.
    Pending(Box<Pending>),
}

impl<'g> Plan<'g> {
    pub(super) fn new(gate: &'g Gate, now: Now, bytes: Bytes) -> Self {
        Self {
            gate,
            now,
            policy: gate.policy(),
            draft: gate.recording.draft(),
            passing: Passing::of(bytes),
            consequences: Consequences::default(),
        }
    }

    /// The bytes that pass, and what follows from what was decided.
    pub(super) fn finish(self) -> (Bytes, Consequences) {
        (self.passing.finish(), self.consequences)
    }

    /// Decides the command in `range` of the bytes, to be recorded, and lets them pass if they may.
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
        let asked = Asked {
            commands: &[view],
            view,
            withheld,
            prepares: false,
            of,
            against: None,
            sent: None,
        };
        self.ask(range, &asked)
    }

    /// The same for a command whose truth and view differ, or that may be one of several.
    pub fn ask(&mut self, range: Range<usize>, asked: &Asked<'_>) -> (Sequence, Ruling) {
        let decision = self.decide(asked);
        self.rule(range, asked, decision)
    }

    /// When this is: the clocks are read once for all that is told.
    pub fn now(&self) -> Moment {
        self.now.moment
    }

    /// Decides a command, and does nothing else.
    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        let mut decision = self.policy.decide_parts(asked.commands);
        if self.gate.is_over_at(self.now) {
            decision = decision.too_late();
        }
        if asked.prepares {
            decision = decision.of_preparing();
        }
        if let Some(Against { masks, reason }) = &asked.against {
            decision = decision.against(masks, reason);
        }
        decision
    }

    /// Has a command recorded as it was decided, and lets it pass if it may.
    pub fn rule(
        &mut self,
        range: Range<usize>,
        asked: &Asked<'_>,
        decision: Decision,
    ) -> (Sequence, Ruling) {
        let exact = self.passing.source.get(range.clone()).unwrap_or_default();
        let recorded = NewCommand {
            command: &asked.view,
            decision: &decision,
            exact: asked.withheld.then(|| self.gate.store.keyed_hash(exact)),
        };
        let sequence = self.draft.json(Kind::Command, Direction::Up, asked.of, &recorded);
        self.consequences.of(self.gate, sequence, &asked.view, &decision);
        if let (Some(sent), Verdict::Allow | Verdict::Approve) = (&asked.sent, decision.verdict()) {
            let note = Note { what: Cow::Borrowed("sent"), text: sent.view.clone() };
            self.draft.json(Kind::Note, Direction::None, Some(sequence), &note);
        }
        let ruling = match decision.verdict() {
            Verdict::Allow => {
                match &asked.sent {
                    Some(sent) => self.passing.push(&sent.bytes),
                    None => self.passing.pass(range),
                }
                Ruling::Passes
            }
            Verdict::Block => Ruling::Refused(decision),
            Verdict::Approve => {
                let exact = match &asked.sent {
                    Some(sent) => sent.bytes.clone(),
                    None => self.passing.exact(range),
                };
                let bytes = (self.passing.take_step(), exact);
                let truth = asked.commands.iter().map(CommandParts::to_command).collect();
                let view = asked.view.to_command();
                Ruling::Pending(Box::new(Pending::new(sequence, truth, view, decision, bytes)))
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
    /// later whether they would still be let pass: [`Plan::is_by`].
    pub fn lets_pass(&self, commands: &[CommandParts<'_>]) -> Option<Weak<SessionPolicy>> {
        let allows = self.policy.decide_parts(commands).verdict() == Verdict::Allow;
        allows.then(|| Arc::downgrade(&self.policy))
    }

    /// Whether rules are against a command, and not only a target's default; nothing is recorded.
    pub fn rules_refuse(&self, command: CommandParts<'_>) -> bool {
        let decision = self.policy.decide_parts(&[command]);
        decision.verdict() != Verdict::Allow && !decision.rules().is_empty()
    }

    /// Whether that policy is the one in force.
    pub fn is_by(&self, policy: &Weak<SessionPolicy>) -> bool {
        std::ptr::eq(policy.as_ptr(), Arc::as_ptr(&self.policy))
    }

    /// Records and passes bytes that belong to commands decided before.
    pub fn data(&mut self, range: Range<usize>, of: Option<Sequence>) {
        self.draft.data(Direction::Up, of, self.passing.exact(range.clone()));
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
        self.draft.data(Direction::Up, Some(of), Bytes::copy_from_slice(view));
    }

    /// Passes bytes that belong to commands decided before, and records them in another form: one
    /// that says more (which channel), or less (that something was typed, not what). Nothing is
    /// recorded of what masks hold back to be recorded with what follows.
    pub fn data_as(&mut self, range: Range<usize>, of: Option<Sequence>, recorded: &[u8]) {
        if !recorded.is_empty() {
            self.draft.data(Direction::Up, of, Bytes::copy_from_slice(recorded));
        }
        self.passing.pass(range);
    }

    /// Puts bytes of the gateway's own where refused ones would have passed. They must be such
    /// that the target does nothing but say no.
    pub fn instead(&mut self, harmless: &[u8]) {
        self.passing.push(harmless);
    }

    /// Takes back what was told since the last [step](Plan::step): it passes later, by another
    /// plan.
    pub fn take_back(&mut self) -> Bytes {
        self.passing.take_step()
    }

    /// Takes what another plan gave back, as if it had been told to this one first.
    pub fn resume(&mut self, taken_back: &[u8]) {
        self.passing.push(taken_back);
    }

    /// What would wait with a command passes now.
    pub fn ahead(&mut self, held: &mut Pending) {
        self.passing.push(&held.take_before());
    }

    /// For who cannot wait: what would wait with the command passes now, and `harmless` in the
    /// command's place.
    pub fn refuse(&mut self, held: Pending, harmless: &[u8]) -> Decision {
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
        self.draft.json(Kind::Note, Direction::None, None, &note);
    }
}
