//! What a command may do: a pure function of identity, target and command.
//!
//! Policy knows no protocol and does no I/O. A command has [`Effect`]s: actions on [`Object`]s.
//! Rules select effects; each effect takes the strictest verdict among the rules that match it,
//! else its target's default, and the command takes its strictest effect. So order does not
//! matter, an allow rule covers only the effects that it names, and an exception stands in the
//! rule that it excepts.
//!
//! A [`Policy`] is compiled once a load, narrowed once a session ([`SessionPolicy`]), and asked
//! once a command ([`SessionPolicy::decide`]). [`Policy::explain`] tells why, [`advise`] what in
//! the rules looks wrong, [`PolicyTest`] holds them to what they are meant to do.

mod advice;
mod command;
mod condition;
mod decision;
mod effective;
mod explain;
mod facts;
mod glob;
mod object;
mod reach;
mod rule;
mod session;
mod test;

use std::sync::Arc;
use std::time::Duration;

pub use advice::{Advice, Vocabulary, advise};
pub use command::{Attributes, Command, CommandParts, Effect, Opaque};
pub use decision::{Approval, Besides, Decision, Observed, Verdict};
pub use effective::EffectiveRule;
pub use explain::{EffectExplanation, Explanation, Missed, RuleExplanation, Selector};
pub use facts::{Caller, SessionFacts, TargetFacts, claims};
pub use glob::Glob;
pub use object::{NotAnObject, Object, Pattern};
pub use reach::Opening;
pub use rule::{DEFAULT_TIMEOUT, Mode, Rule, RuleMistake, TargetSelector};
pub use session::{NotRecorded, SessionPolicy};
pub use test::{ActingRows, PolicyTest, TargetMasks, TestFailure};

use self::rule::Compiled;

/// The rules in force, compiled once per load.
#[derive(Debug)]
pub struct Policy {
    hash: String,
    settings: PolicySettings,
    /// By name: so nothing that is said depends on the order in which they are written.
    rules: Vec<Arc<Compiled>>,
    /// As they are written.
    written: Vec<Rule>,
}

/// `[policy]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySettings {
    /// What happens to a command that cannot be understood while a rule might concern it.
    pub unparsed: Unparsed,
    /// What happens to outputs that may carry masked data.
    pub unprovable: Unprovable,
    /// The longest that a command is held inside a transaction that has done something.
    pub transaction_wait: Duration,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            unparsed: Unparsed::Block,
            unprovable: Unprovable::Mask,
            transaction_wait: Duration::from_secs(30),
        }
    }
}

/// `unparsed`: a command that a rule might concern but that cannot be understood. A rule whose
/// actions spell `sql.unparsed` out decides instead where it matches. Where columns are masked the
/// command is refused whatever this and `allow` rules say: no mask can follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// It is blocked.
    Block,
    /// It takes what the rules on its own action and the target's default say.
    Allow,
}

/// `unprovable`: outputs that may carry masked data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unprovable {
    /// They are masked entirely.
    Mask,
    /// The command is blocked; so are masked columns in predicates.
    Block,
}

impl Policy {
    /// Compiles rules. `hash` names the configuration they came from. One mistake anywhere and
    /// there is no policy: rules never load in part.
    pub fn compile(
        hash: String,
        settings: PolicySettings,
        rules: &[Rule],
    ) -> Result<Self, Vec<RuleMistake>> {
        let mut mistakes = Vec::new();
        let mut compiled: Vec<Arc<Compiled>> = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if compiled.iter().any(|other| *other.name == *rule.name) {
                mistakes.push(RuleMistake {
                    rule: rule.name.clone(),
                    index,
                    field: "name",
                    problem: "another rule has this name".to_owned(),
                    hint: "decisions name their rules: give each a name of its own",
                });
            }
            compiled.push(Arc::new(Compiled::new(rule, index, &mut mistakes)));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        compiled.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { hash, settings, rules: compiled, written: rules.to_vec() })
    }

    /// A policy without rules.
    pub fn new(hash: String) -> Self {
        Self { hash, settings: PolicySettings::default(), rules: Vec::new(), written: Vec::new() }
    }

    /// The rules as they are written.
    pub fn written(&self) -> &[Rule] {
        &self.written
    }

    /// The hash that every command's event names the policy by: 32 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// `[policy]`
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// Narrows the policy to a session of this caller on this target.
    pub fn for_caller(
        &self,
        caller: &Caller,
        target: &TargetFacts,
        session: &SessionFacts,
    ) -> SessionPolicy {
        SessionPolicy::new(self, caller, target, session)
    }
}
