//! Why a command was decided as it was: rule by rule, selector by selector.

use std::cell::OnceCell;
use std::fmt;

use serde::Serialize;

use super::command::Command;
use super::condition::Facts;
use super::decision::{Decision, Verdict};
use super::facts::{Caller, SessionFacts, TargetFacts, fields};
use super::rule::Compiled;
use super::{Object, Policy};

/// What a policy says to a command, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What it says.
    pub decision: Decision,
    /// Effect by effect.
    pub effects: Vec<EffectExplanation>,
}

/// What every rule makes of one effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EffectExplanation {
    /// The effect's action.
    pub action: String,
    /// The effect's object.
    pub object: Option<Object>,
    /// Whether what follows from it cannot be told: only a rule that names it may allow it where
    /// rules or masks apply.
    pub opaque: bool,
    /// What the effect takes by itself.
    pub verdict: Verdict,
    /// Rules that it might bypass or break unseen, for what it does is not known: they block it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub might_concern: Vec<String>,
    /// All rules of the policy, in the order of their names.
    pub rules: Vec<RuleExplanation>,
}

/// What one rule makes of one effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleExplanation {
    /// The rule's name.
    pub rule: String,
    /// What it says of effects that it matches.
    pub verdict: Verdict,
    /// Whether it acts on what it matches.
    pub enforced: bool,
    /// The selectors that do not hold; none when the rule matches.
    pub missed: Vec<Missed>,
    /// What an evaluation of the condition failed with; the rule then matches unless it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_failed: Option<String>,
}

impl RuleExplanation {
    /// Whether the rule matches the effect.
    pub fn matches(&self) -> bool {
        self.missed.is_empty()
    }

    /// Whether only one selector keeps the rule from matching.
    pub fn almost(&self) -> bool {
        self.missed.len() == 1
    }
}

/// A selector that does not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Missed {
    /// Which.
    pub selector: Selector,
    /// What it wants, and what is there.
    pub because: String,
}

/// What a rule selects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// `targets`
    Targets,
    /// `groups`
    Groups,
    /// `unless_groups`
    UnlessGroups,
    /// `actions`
    Actions,
    /// `objects`
    Objects,
    /// `text`
    Text,
    /// `when`
    When,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Targets => "targets",
            Self::Groups => "groups",
            Self::UnlessGroups => "unless_groups",
            Self::Actions => "actions",
            Self::Objects => "objects",
            Self::Text => "text",
            Self::When => "when",
        })
    }
}

impl Policy {
    /// Tells why a command is decided as it is, where columns of the target are `masked` or not.
    pub fn explain(
        &self,
        caller: &Caller,
        target: &TargetFacts,
        session: &SessionFacts,
        masked: bool,
        command: &Command,
    ) -> Explanation {
        let rules = self.for_caller(caller, target, session).masked(masked);
        let known = (fields(caller), fields(target), fields(session));
        let effects = command.effects.iter().map(|effect| {
            let alone = [std::slice::from_ref(effect)];
            let alone = command.parts(&alone);
            let facts = Facts {
                identity: &known.0,
                target: &known.1,
                session: &known.2,
                command: alone,
                effect,
                object: OnceCell::new(),
            };
            let by = rules.decide_parts(&[alone]);
            let explained: Vec<RuleExplanation> =
                self.rules.iter().map(|rule| explained(rule, caller, target, &facts)).collect();
            let matches =
                |name: &str| explained.iter().any(|rule| rule.rule == name && rule.matches());
            let might_concern = by.rules().iter().filter(|name| !matches(name));
            EffectExplanation {
                action: effect.action.clone().into_owned(),
                object: effect.object.clone(),
                opaque: effect.opaque.is_some(),
                verdict: by.verdict(),
                might_concern: might_concern.map(ToString::to_string).collect(),
                rules: explained,
            }
        });
        Explanation { effects: effects.collect(), decision: rules.decide(command) }
    }
}

fn explained(
    rule: &Compiled,
    caller: &Caller,
    target: &TargetFacts,
    facts: &Facts<'_>,
) -> RuleExplanation {
    let effect = facts.effect;
    let mut missed = Vec::new();
    let mut miss = |holds: bool, selector, because: &dyn Fn() -> String| {
        if !holds {
            missed.push(Missed { selector, because: because() });
        }
    };
    miss(rule.names_target(target), Selector::Targets, &|| {
        format!("the target {} is not one that it names", target.name)
    });
    let groups = || match caller.groups.as_slice() {
        [] => "the caller is in no group".to_owned(),
        groups => format!("the caller is in {}", groups.join(", ")),
    };
    miss(rule.names_groups(&caller.groups), Selector::Groups, &groups);
    miss(!rule.spares_groups(&caller.groups), Selector::UnlessGroups, &groups);
    miss(rule.names_action(&effect.action), Selector::Actions, &|| {
        format!("the action is {}", effect.action)
    });
    miss(rule.names_object(effect), Selector::Objects, &|| match &effect.object {
        None => "the effect has no object".to_owned(),
        Some(object) if rule.verdict == Verdict::Allow => {
            format!("the object {object} is not certain to be one that it names")
        }
        Some(object) => format!("the object {object} is not one that it names"),
    });
    miss(rule.names_text(facts.command.text), Selector::Text, &|| {
        "the text holds no match of the expression".to_owned()
    });
    let failure = rule.when.as_ref().and_then(|when| when.holds(facts).err());
    miss(rule.condition_holds(facts), Selector::When, &|| {
        let source = rule.when.as_ref().map_or("", |when| when.as_str());
        match &failure {
            Some(failure) => format!("{source}: {failure}, and so it does not allow"),
            None => format!("{source} is false"),
        }
    });
    RuleExplanation {
        rule: rule.name.as_ref().to_owned(),
        verdict: rule.verdict,
        enforced: rule.enforced(),
        missed,
        condition_failed: failure.map(|failure| failure.to_string()),
    }
}
