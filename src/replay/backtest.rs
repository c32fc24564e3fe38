//! What another policy would have said to commands that ran.
//!
//! Decided anew is what was recorded: the effects, attributes and request view of each command.
//! Nothing is decoded again, and nothing is run. What the record does not hold (claims of callers,
//! texts and values where some were withheld) makes a command undecidable when a rule looks at it.
//! Whether masks and row filters can be applied to a statement only the target's catalog tells, so
//! a command that they refused counts as refused again while the target has any. What they do is
//! counted beside that when somebody can be asked ([`Backtest::with_masks`]).

mod masks;
mod undecidable;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::names::{Protocol, SessionId, TargetName};
use crate::policy::{
    Attributes, Besides, Caller, Command, CommandParts, Decision, Effect, Policy, SessionFacts,
    SessionPolicy, TargetFacts, Verdict,
};
use crate::recording::{
    Event, Keyring, Kind, Opened, ReadError, Reader, RecordedCommand, Sequence, Told,
};
use masks::Counted;
pub use masks::{
    Catalogs, Instead, MaskReport, Masked, Refused, Statement, Unreachable, databases,
};
pub use undecidable::Undecidable;
use undecidable::{Reasons, Undecided};

/// Commands that only prepare of which a session's last are remembered: an Execute builds on a
/// Bind, which builds on a Parse.
const MOST_PREPARED: usize = 20_000;
/// Characters of an example.
const EXAMPLE: usize = 120;
/// Why nobody can tell what masks and row filters do with a statement.
const WITHHELD: &str = "something of the text was withheld from the recording: a comment, or a literal on a masked column";

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Sessions that were read.
    pub sessions: u64,
    /// Commands that were decided anew; those that only prepare others are not counted.
    pub commands: u64,
    /// Those that end as before.
    pub unchanged: u64,
    /// A rule looks at what the record does not hold, or masks refused it that are gone.
    pub undecidable: u64,
    /// The same by reason, the most frequent first.
    pub undecidable_by_reason: Vec<Undecidable>,
    /// The configuration has no such target.
    pub no_target: u64,
    /// Commands that would end otherwise, the most frequent kind of change first.
    pub changed: Vec<Change>,
    /// What masks and row filters would do, where somebody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<MaskReport>,
}

/// Commands that would end otherwise in the same way.
#[derive(Debug, Serialize)]
pub struct Change {
    /// How they ended.
    pub from: Verdict,
    /// How they would end.
    pub to: Verdict,
    /// The rules that say so; none when it is the target's default.
    pub rules: Vec<String>,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub example: Example,
}

/// A command that would end otherwise.
#[derive(Debug, Serialize)]
pub struct Example {
    /// Its session.
    pub session: SessionId,
    /// Its place there.
    pub sequence: Sequence,
    /// The beginning of its text.
    pub text: String,
}

/// A target of the other policy's.
#[derive(Debug)]
pub struct Target {
    /// What rules see of it.
    pub facts: TargetFacts,
    /// Whether columns of it are masked.
    pub masked: bool,
    /// Whether anything of it is masked or filtered, for anybody.
    pub hides: bool,
}

type Changes = BTreeMap<(Verdict, Verdict, Vec<String>), (u64, Example)>;

/// Decides recordings anew, one after the other.
pub struct Backtest<'p> {
    policy: &'p Policy,
    targets: &'p dyn Fn(&TargetName) -> Option<Target>,
    report: Report,
    changes: Changes,
    undecided: Reasons,
    masks: Option<(&'p mut Masks<'p>, Counted)>,
}

/// Says what masks and row filters do with a statement.
pub type Masks<'p> = dyn FnMut(&Statement<'_>) -> Masked + 'p;

impl<'p> Backtest<'p> {
    /// By this policy, for these targets.
    pub fn new(policy: &'p Policy, targets: &'p dyn Fn(&TargetName) -> Option<Target>) -> Self {
        let (report, changes) = (Report::default(), Changes::new());
        Self { policy, targets, report, changes, undecided: Reasons::default(), masks: None }
    }

    /// Also counts what masks and row filters do with statements of Postgres targets that have any.
    #[must_use]
    pub fn with_masks(self, masks: &'p mut Masks<'p>) -> Self {
        Self { masks: Some((masks, Counted::default())), ..self }
    }

    /// How many commands were decided so far.
    pub fn commands(&self) -> u64 {
        self.report.commands
    }

    /// Decides the commands of a recording, as long as `goes_on` says so of the time of each event;
    /// whether it was read to its end.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged; what was read of it counts.
    pub fn read(
        &mut self,
        (path, keyring): (&Path, &Keyring),
        mut goes_on: impl FnMut(u64, i64) -> bool,
    ) -> Result<bool, ReadError> {
        let (policy, targets) = (self.policy, self.targets);
        let (report, changes, undecided) =
            (&mut self.report, &mut self.changes, &mut self.undecided);
        let masks = self.masks.as_mut().map(|(masks, counted)| (&mut **masks, counted));
        let mut session = Session { policy, targets, report, changes, undecided, masks, at: None };
        for event in Reader::open_with(path, keyring)? {
            let event = event?;
            if !goes_on(session.report.commands, event.wall_us) {
                return Ok(false);
            }
            session.take(&event);
        }
        Ok(true)
    }

    /// What came of it.
    pub fn finish(self) -> Report {
        let changed = self.changes.into_iter();
        let mut changed: Vec<_> = changed
            .map(|((from, to, rules), (count, example))| Change { from, to, rules, count, example })
            .collect();
        changed.sort_by_key(|changed| std::cmp::Reverse(changed.count));
        let masks = self.masks.map(|(_, counted)| counted.finish());
        let undecidable_by_reason = self.undecided.finish();
        Report { changed, undecidable_by_reason, masks, ..self.report }
    }
}

/// One recording on its way through.
struct Session<'r, 'p> {
    policy: &'r Policy,
    targets: &'r dyn Fn(&TargetName) -> Option<Target>,
    report: &'r mut Report,
    changes: &'r mut Changes,
    undecided: &'r mut Reasons,
    masks: Option<(&'r mut Masks<'p>, &'r mut Counted)>,
    at: Option<Known>,
}

/// What is known once a session has opened.
struct Known {
    id: SessionId,
    caller: Caller,
    target: TargetName,
    database: Option<String>,
    /// `None` when the configuration has no such target.
    policy: Option<SessionPolicy>,
    /// Whether masks or row filters of the target may refuse commands.
    hides: bool,
    postgres: bool,
    /// Statements that were prepared, which serve for long.
    parsed: BTreeMap<Sequence, Prepared>,
    /// What was bound, which is run soon.
    bound: BTreeMap<Sequence, Prepared>,
}

/// A command that others build on.
struct Prepared {
    recorded: RecordedCommand<'static>,
    of: Option<Sequence>,
}

impl Session<'_, '_> {
    fn take(&mut self, event: &Event) {
        match event.kind {
            Kind::Opened => {
                if let Ok(opened) = serde_json::from_slice::<Opened>(&event.payload) {
                    self.report.sessions += 1;
                    self.at = Some(self.known(&opened));
                }
            }
            Kind::Command => {
                if let Ok(recorded) = serde_json::from_slice(&event.payload) {
                    self.command(event, recorded);
                }
            }
            _ => {}
        }
    }

    fn known(&self, opened: &Opened) -> Known {
        let name = |told: &Option<Told>| told.as_ref().map(|told| told.name.clone());
        let proved = |told: &Option<Told>| name(&told.clone().filter(|told| told.proved));
        let caller = Caller {
            issuer: opened.identity.issuer.clone(),
            subject: opened.identity.subject.clone(),
            username: opened.identity.username.clone(),
            groups: opened.identity.groups.clone(),
            workflow: proved(&opened.workflow),
            run: proved(&opened.run),
            ..Caller::default()
        };
        let facts = SessionFacts {
            id: Some(opened.session),
            client: Some(opened.client.clone()),
            database: opened.database.clone(),
            workflow: name(&opened.workflow),
            run: name(&opened.run),
        };
        let target = (self.targets)(&opened.target);
        let hides = target.as_ref().is_some_and(|target| target.hides);
        let is_postgres = |target: &Target| target.facts.protocol == Protocol::Postgres;
        let postgres = target.as_ref().is_some_and(is_postgres);
        let policy = target.map(|target| {
            self.policy.for_caller(&caller, &target.facts, &facts).masked(target.masked)
        });
        Known {
            id: opened.session,
            caller,
            target: opened.target.clone(),
            database: opened.database.clone(),
            policy,
            hides,
            postgres,
            parsed: BTreeMap::new(),
            bound: BTreeMap::new(),
        }
    }

    fn command(&mut self, event: &Event, recorded: RecordedCommand<'static>) {
        let Some(known) = &mut self.at else { return };
        let before = recorded.decision.verdict();
        let prepares = matches!(&*recorded.command.form, "parse" | "bind");
        if !prepares || before != Verdict::Allow {
            self.report.commands += 1;
            let built = known.built(&recorded, event.of);
            let decided = known.decide(&recorded, built.as_ref());
            if let (Some((masks, counted)), Ok(built)) = (&mut self.masks, &built)
                && known.is_masked(&recorded, &decided)
                && !built.text.is_empty()
            {
                let before = recorded.decision.besides() == Some(Besides::Masks);
                let example = || known.example(event.sequence, built.text);
                counted.count(known.masked(built, masks), before, example);
            }
            match decided {
                Err(Undecided::NoTarget) => self.report.no_target += 1,
                Err(Undecided::AsBefore) => self.report.unchanged += 1,
                Err(undecided) => {
                    self.report.undecidable += 1;
                    let text = built.as_ref().map_or(&*recorded.command.text, |built| built.text);
                    let example = || known.example(event.sequence, text);
                    self.undecided.count(undecided.to_string(), example);
                }
                Ok(after) if after.verdict() == before => self.report.unchanged += 1,
                Ok(after) => {
                    let rules = after.rules().iter().map(ToString::to_string).collect();
                    let text = built.map(|built| built.text).unwrap_or_default();
                    let example = || known.example(event.sequence, text);
                    let key = (before, after.verdict(), rules);
                    self.changes.entry(key).or_insert_with(|| (0, example())).0 += 1;
                }
            }
        }
        if prepares {
            let kept = match &*recorded.command.form {
                "parse" => &mut known.parsed,
                _ => &mut known.bound,
            };
            if kept.len() >= MOST_PREPARED {
                kept.pop_first();
            }
            kept.insert(event.sequence, Prepared { recorded, of: event.of });
        }
    }
}

/// A command with what it builds on.
struct Built<'r> {
    text: &'r str,
    /// Whether something of the text was withheld.
    text_withheld: bool,
    /// Whether something of all of it was.
    withheld: bool,
    effects: &'r [Effect],
    attributes: Attributes,
}

impl Known {
    /// A command with the commands that it runs; an error where one of them is not there.
    fn built<'r>(
        &'r self,
        recorded: &'r RecordedCommand<'_>,
        mut of: Option<Sequence>,
    ) -> Result<Built<'r>, Undecided> {
        let command: &Command = &recorded.command;
        let mut built = Built {
            text: command.text.as_str(),
            text_withheld: recorded.exact.is_some(),
            withheld: recorded.exact.is_some(),
            effects: command.effects.as_slice(),
            attributes: command.attributes.clone(),
        };
        while let Some(sequence) = of {
            let base = self.bound.get(&sequence).or_else(|| self.parsed.get(&sequence));
            let base = base.ok_or(Undecided::NotPrepared)?;
            let below: &Command = &base.recorded.command;
            built.withheld |= base.recorded.exact.is_some();
            if built.text.is_empty() {
                built.text = &below.text;
                built.text_withheld = base.recorded.exact.is_some();
            }
            if built.effects.is_empty() {
                built.effects = &below.effects;
            }
            for (name, value) in &below.attributes {
                built.attributes.entry(name.clone()).or_insert_with(|| value.clone());
            }
            of = base.of;
        }
        Ok(built)
    }

    fn decide(
        &self,
        recorded: &RecordedCommand<'_>,
        built: Result<&Built<'_>, &Undecided>,
    ) -> Result<Decision, Undecided> {
        let policy = self.policy.as_ref().ok_or(Undecided::NoTarget)?;
        match recorded.decision.besides() {
            Some(Besides::Session) => return Err(Undecided::AsBefore),
            Some(Besides::Masks) if self.hides => return Err(Undecided::AsBefore),
            Some(Besides::Masks) => return Err(Undecided::Unmasked),
            None => {}
        }
        let built = built.map_err(Undecided::clone)?;
        if let Some((rule, what)) = policy.needs_more_than_recorded(built.withheld) {
            return Err(Undecided::NotRecorded(rule.to_owned(), what));
        }
        let command: &Command = &recorded.command;
        let Built { text, effects, ref attributes, .. } = *built;
        let runs: [&[Effect]; 1] = [effects];
        let parts = CommandParts { form: &command.form, text, attributes, effects: &runs };
        let decision = policy.decide_parts(&[parts]);
        let prepares = command.form == "parse";
        Ok(if prepares { decision.of_preparing() } else { decision })
    }

    /// Whether masks and row filters look at a command: the target has any, and neither the rules nor
    /// the session's state keep it from the server.
    fn is_masked(
        &self,
        recorded: &RecordedCommand<'_>,
        decided: &Result<Decision, Undecided>,
    ) -> bool {
        let blocked = decided.as_ref().is_ok_and(|after| after.verdict() == Verdict::Block);
        let by_session = recorded.decision.besides() == Some(Besides::Session);
        self.postgres && self.hides && !blocked && !by_session
    }

    fn masked(&self, built: &Built<'_>, masks: &mut Masks<'_>) -> Masked {
        if built.text_withheld {
            return Masked::Undecidable(WITHHELD.to_owned());
        }
        masks(&Statement {
            target: &self.target,
            database: self.database.as_deref(),
            caller: &self.caller,
            text: built.text,
        })
    }

    fn example(&self, sequence: Sequence, text: &str) -> Example {
        Example { session: self.id, sequence, text: shortened(text) }
    }
}

/// The beginning of a text.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(EXAMPLE).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
