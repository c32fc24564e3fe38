//! The rules that concern one caller on one target, and what they say to its commands.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::command::{Command, CommandParts, Effect, Opaque};
use super::condition::{Condition, Facts};
use super::decision::{Decision, Observed, Verdict};
use super::facts::{Caller, SessionFacts, TargetFacts, fields};
use super::rule::Compiled;
use super::{Policy, Unparsed};

/// What ends the action of an effect that the decoder could not understand: `sql.unparsed`.
const UNPARSED: &str = ".unparsed";
const UNPARSED_REASON: &str =
    "It could not be understood, and rules apply here that it might concern.";

/// A policy narrowed to one caller on one target: made when a session opens and when the policy
/// is reloaded, so that a command is held against few rules.
#[derive(Debug)]
pub struct SessionPolicy {
    rules: Vec<Applicable>,
    default: Verdict,
    unparsed: Unparsed,
    masked: bool,
    identity: Map<String, Value>,
    target: Map<String, Value>,
    session: Map<String, Value>,
}

/// What a rule looks at that the record of a command does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRecorded {
    /// The caller's claims.
    Claims,
    /// The text, of which something was withheld.
    Text,
    /// Bound values; something of them, or of the text, was withheld.
    Values,
}

/// A rule whose targets and groups hold.
#[derive(Debug)]
struct Applicable {
    rule: Arc<Compiled>,
    /// The rule spares one of the caller's groups.
    spared: bool,
}

impl SessionPolicy {
    pub(super) fn new(
        policy: &Policy,
        caller: &Caller,
        target: &TargetFacts,
        session: &SessionFacts,
    ) -> Self {
        let concern =
            |rule: &&Arc<Compiled>| rule.names_target(target) && rule.names_groups(&caller.groups);
        let applicable = |rule: &Arc<Compiled>| Applicable {
            rule: Arc::clone(rule),
            spared: rule.spares_groups(&caller.groups),
        };
        // Of the rules that spare the caller only those matter that would have acted against it.
        let matters = |found: &Applicable| {
            !found.spared || (found.rule.enforced() && found.rule.verdict != Verdict::Allow)
        };
        let rules: Vec<Applicable> =
            policy.rules.iter().filter(concern).map(applicable).filter(matters).collect();
        let conditions = rules.iter().any(|found| found.rule.when.is_some());
        let looked_at = |facts: Map<String, Value>| if conditions { facts } else { Map::new() };
        Self {
            rules,
            default: target.default,
            unparsed: policy.settings.unparsed,
            masked: false,
            identity: looked_at(fields(caller)),
            target: looked_at(fields(target)),
            session: looked_at(fields(session)),
        }
    }

    /// Says whether masks apply in the session: they are rules that a command which cannot be
    /// understood might concern.
    #[must_use]
    pub fn masked(self, masked: bool) -> Self {
        Self { masked, ..self }
    }

    /// Whether a rule may hold a command for people.
    pub fn asks_people(&self) -> bool {
        let asks = |found: &Applicable| !found.spared && found.rule.verdict == Verdict::Approve;
        self.rules.iter().any(asks)
    }

    /// Whether a condition may look at this attribute of commands.
    pub fn looks_at(&self, attribute: &str) -> bool {
        let looks = |applicable: &Applicable| {
            applicable.rule.when.as_ref().is_some_and(|when| when.may_look_at(attribute))
        };
        self.rules.iter().any(looks)
    }

    /// The first rule that looks at what the record of a command does not hold, and at what: claims in
    /// any case, texts and values where some of them were `withheld`.
    pub fn needs_more_than_recorded(&self, withheld: bool) -> Option<(&str, NotRecorded)> {
        let needs = |rule: &Compiled| {
            let when = rule.when.as_ref();
            let looks_at = |what| withheld && when.is_some_and(|when| when.may_look_at(what));
            if when.is_some_and(Condition::may_look_at_claims) {
                Some(NotRecorded::Claims)
            } else if withheld && rule.text.is_some() || looks_at("text") {
                Some(NotRecorded::Text)
            } else {
                looks_at("parameters").then_some(NotRecorded::Values)
            }
        };
        self.rules.iter().find_map(|found| Some((found.rule.name.as_ref(), needs(&found.rule)?)))
    }

    /// Decides one command: each effect takes the strictest verdict among the rules that match it,
    /// else the target's default (or a refusal, where only a rule lets it pass), and the command
    /// takes its strictest effect. An effect of which nobody can tell what it does is refused where
    /// masks or rules apply that it could go around, unless a rule names it. A command without
    /// effects is allowed: it only prepares or continues what was decided.
    pub fn decide(&self, command: &Command) -> Decision {
        self.decide_parts(&[command.parts(&[command.effects.as_slice()])])
    }

    /// Decides what stands in several places as one command: everything that a prepared statement
    /// may be, for example. The strictest counts.
    pub fn decide_parts(&self, commands: &[CommandParts<'_>]) -> Decision {
        let mut found = Found::default();
        for command in commands {
            let mut texts = Texts::default();
            for effect in command.effects.iter().copied().flatten() {
                self.decide_effect(*command, effect, &mut texts, &mut found);
            }
        }
        self.decision(found)
    }

    fn decide_effect(
        &self,
        command: CommandParts<'_>,
        effect: &Effect,
        texts: &mut Texts,
        found: &mut Found,
    ) {
        let facts = self.facts(command, effect);
        let mut verdict: Option<Verdict> = None;
        let (mut spelled, mut named) = (false, false);
        let matched = found.rules.len();
        for (at, applicable) in self.rules.iter().enumerate() {
            let rule = &*applicable.rule;
            let matches = rule.names_action(&effect.action)
                && rule.names_object(effect)
                && texts.hold(at, rule, command.text)
                && rule.condition_holds(&facts);
            if !matches {
                continue;
            }
            if !rule.enforced() {
                found.observed.push(at);
            } else if applicable.spared {
                found.spared.push(at);
            } else {
                if verdict < Some(rule.verdict) {
                    found.rules.truncate(matched);
                    verdict = Some(rule.verdict);
                }
                if verdict == Some(rule.verdict) {
                    found.rules.push(at);
                }
                spelled |= rule.spells_action(&effect.action);
                named |= rule.names_opaque(effect);
            }
        }
        let default = match effect {
            effect if effect.only_by_rule => Verdict::Block,
            effect if effect.below().is_some() => Verdict::Allow,
            _ => self.default,
        };
        let mut verdict = verdict.unwrap_or(default);
        if let Some(unseen) = self.unseen(effect, verdict, spelled, named) {
            let concerned: Vec<usize> = self.concerned(command, effect, texts).collect();
            if self.masked || !concerned.is_empty() {
                found.rules.truncate(matched);
                found.rules.extend(concerned);
                found.unseen = found.unseen.take().or(Some(unseen));
                verdict = Verdict::Block;
            }
        }
        found.take(verdict, matched);
    }

    /// Why nobody can tell what an effect does that would pass by this verdict; `None` where that
    /// is told, or was decided by a rule that names the effect.
    fn unseen(
        &self,
        effect: &Effect,
        verdict: Verdict,
        spelled: bool,
        named: bool,
    ) -> Option<Unseen> {
        if effect.action.ends_with(UNPARSED) {
            let asked = verdict == Verdict::Approve && spelled;
            let unless_named = !spelled && self.unparsed == Unparsed::Block;
            // What runs by a name that nobody prepared gives nothing, or what is masked whole.
            let by_name = effect.attributes.get("reason").is_some_and(|why| why == "unknown-name");
            let masked = self.masked && !by_name;
            let refused = verdict < Verdict::Block && !asked && (unless_named || masked);
            return refused.then_some(Unseen::NotUnderstood);
        }
        let opaque = effect.opaque.filter(|_| verdict == Verdict::Allow && !named)?;
        let kind = effect.object.as_ref().filter(|_| opaque == Opaque::Object);
        Some(Unseen::Opaque {
            action: effect.action.as_ref().into(),
            kind: kind.map(|object| object.kind().into()),
        })
    }

    /// The rules that might concern what is not seen: all that is known of it is the command's text
    /// and its protocol.
    fn concerned<'s>(
        &'s self,
        command: CommandParts<'s>,
        effect: &'s Effect,
        texts: &'s mut Texts,
    ) -> impl Iterator<Item = usize> + 's {
        self.rules.iter().enumerate().filter_map(move |(at, applicable)| {
            let rule = &*applicable.rule;
            let concerned = rule.enforced()
                && !applicable.spared
                && rule.verdict != Verdict::Allow
                && rule.names_protocol_of(&effect.action)
                && texts.hold(at, rule, command.text);
            concerned.then_some(at)
        })
    }

    fn facts<'a>(&'a self, command: CommandParts<'a>, effect: &'a Effect) -> Facts<'a> {
        Facts {
            identity: &self.identity,
            target: &self.target,
            session: &self.session,
            command,
            effect,
            object: OnceCell::new(),
        }
    }

    fn decision(&self, found: Found) -> Decision {
        let mut decision = Decision::allowed();
        decision.verdict = found.verdict;
        let by = self.named(found.rules);
        decision.reason = match &found.unseen {
            Some(unseen) => Some(unseen.to_string().into()),
            None => by.iter().find_map(|rule| rule.reason.clone()),
        };
        if found.verdict == Verdict::Approve {
            decision.approvals = by.iter().filter_map(|rule| rule.approval.clone()).collect();
        }
        decision.rules = by.iter().map(|rule| Arc::clone(&rule.name)).collect();
        decision.observed = self
            .named(found.observed)
            .iter()
            .map(|rule| Observed { rule: Arc::clone(&rule.name), verdict: rule.verdict })
            .collect();
        let mut exempted = self.named(found.spared);
        exempted.retain(|rule| rule.verdict > found.verdict);
        decision.exempted = exempted.iter().map(|rule| Arc::clone(&rule.name)).collect();
        decision
    }

    /// The rules at these places, each once, in the order of the policy.
    fn named(&self, mut places: Vec<usize>) -> Vec<&Compiled> {
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|at| self.rules.get(at)).map(|a| &*a.rule).collect()
    }
}

/// What was found so far; rules by their places.
#[derive(Debug)]
struct Found {
    verdict: Verdict,
    /// Those that gave the verdict.
    rules: Vec<usize>,
    observed: Vec<usize>,
    spared: Vec<usize>,
    /// The verdict came from an effect of which nobody can tell what it does.
    unseen: Option<Unseen>,
}

/// Why nobody can tell what an effect does.
#[derive(Debug)]
enum Unseen {
    NotUnderstood,
    /// It is code, or gives data another name; a rule names it by these.
    Opaque {
        action: Box<str>,
        kind: Option<Box<str>>,
    },
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood => f.write_str(UNPARSED_REASON),
            Self::Opaque { action, kind } => {
                write!(
                    f,
                    "What it leads to cannot be checked, and rules or masks apply here that it \
                     could bypass. A rule can allow it by name: actions = [\"{action}\"]"
                )?;
                kind.iter().try_for_each(|kind| write!(f, ", objects = [\"{kind}:*\"]"))?;
                f.write_str(".")
            }
        }
    }
}

impl Default for Found {
    fn default() -> Self {
        Self {
            verdict: Verdict::Allow,
            rules: Vec::new(),
            observed: Vec::new(),
            spared: Vec::new(),
            unseen: None,
        }
    }
}

impl Found {
    /// Takes in an effect's verdict, whose rules stand from `matched` on.
    fn take(&mut self, verdict: Verdict, matched: usize) {
        if verdict > self.verdict {
            self.rules.drain(..matched);
            self.verdict = verdict;
        } else if verdict < self.verdict {
            self.rules.truncate(matched);
        }
    }
}

/// Which rules' regular expressions hold for the command: each is tried once a command, not once
/// an effect.
#[derive(Debug, Default)]
struct Texts(Vec<Option<bool>>);

impl Texts {
    fn hold(&mut self, at: usize, rule: &Compiled, text: &str) -> bool {
        if rule.text.is_none() {
            return true;
        }
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        let Some(known) = self.0.get_mut(at) else { return rule.names_text(text) };
        *known.get_or_insert_with(|| rule.names_text(text))
    }
}
