//! Rules: as they are written, and compiled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::command::{Effect, Opaque};
use super::condition::{self, Condition};
use super::decision::{Approval, Verdict};
use super::facts::TargetFacts;
use super::glob::Glob;
use super::object::{Object, Pattern};

/// One `[[rule]]` as it is written. All selectors must hold; one that is `None` holds for
/// everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What decisions, recordings and people call it.
    pub name: String,
    /// The targets it is about.
    pub targets: Option<TargetSelector>,
    /// The groups it is about; `*` is everybody. Compared byte for byte.
    pub groups: Option<Vec<String>>,
    /// The groups it spares; `*` is everybody.
    pub unless_groups: Vec<String>,
    /// Actions, `*` for any run of characters: `sql.*`.
    pub actions: Option<Vec<String>>,
    /// Objects, as [`Pattern`] reads them: `table:public.*`.
    pub objects: Option<Vec<String>>,
    /// A regular expression that the command's text holds a match of.
    pub text: Option<String>,
    /// A condition over identity, target, session, command and effect.
    pub when: Option<String>,
    /// What it says of the effects that it matches.
    pub verdict: Verdict,
    /// Who may approve; for the verdict approve only, like the next two.
    pub approvers: Vec<String>,
    /// How many of them must: 1 when left out.
    pub approvals: Option<u32>,
    /// How long their answer is waited for: [`DEFAULT_TIMEOUT`] when left out.
    pub timeout: Option<Duration>,
    /// What the client is told.
    pub reason: Option<String>,
    /// Whether it acts.
    pub mode: Mode,
}

impl Rule {
    /// A rule that matches everything.
    pub fn new(name: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            targets: None,
            groups: None,
            unless_groups: Vec::new(),
            actions: None,
            objects: None,
            text: None,
            when: None,
            verdict,
            approvers: Vec::new(),
            approvals: None,
            timeout: None,
            reason: None,
            mode: Mode::Enforce,
        }
    }
}

/// How long an approval is waited for unless the rule says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Which targets a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSelector {
    /// Names, with `*` for any run of characters.
    Names(Vec<String>),
    /// Labels that must all be there.
    Labels(BTreeMap<String, String>),
}

/// Whether a rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// What it would have decided is recorded.
    Observe,
}

/// Something that is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {field}: {problem}")]
pub struct RuleMistake {
    /// The rule's name.
    pub rule: String,
    /// Its place among the rules given, from 0.
    pub index: usize,
    /// The field that is wrong.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub hint: &'static str,
}

/// A rule that is ready to be matched.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) name: Arc<str>,
    pub(super) verdict: Verdict,
    pub(super) mode: Mode,
    pub(super) reason: Option<Arc<str>>,
    pub(super) approval: Option<Arc<Approval>>,
    pub(super) targets: Option<Targets>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) unless_groups: Vec<String>,
    pub(super) actions: Option<Vec<Glob>>,
    pub(super) objects: Option<Vec<Pattern>>,
    pub(super) text: Option<Regex>,
    pub(super) when: Option<Condition>,
}

#[derive(Debug)]
pub(super) enum Targets {
    Names(Vec<Glob>),
    Labels(BTreeMap<String, String>),
}

impl Compiled {
    /// Compiles a rule; what is wrong goes to `mistakes`.
    pub(super) fn new(rule: &Rule, index: usize, mistakes: &mut Vec<RuleMistake>) -> Self {
        let mut report = |field, problem: String, hint| {
            let rule = rule.name.clone();
            mistakes.push(RuleMistake { rule, index, field, problem, hint });
        };
        if rule.name.is_empty() {
            report("name", "it is empty".to_owned(), "decisions name their rules: give it one");
        }
        for group in rule.groups.iter().flatten().chain(&rule.unless_groups) {
            if group != "*" && group.contains('*') {
                let problem = format!("{group} is not a group");
                report("groups", problem, "name groups in full, or * for everybody");
            }
        }
        let approval = approval(rule, &mut report);
        let objects = rule.objects.as_ref().map(|patterns| {
            let parsed = patterns.iter().filter_map(|text| match text.parse() {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    let hint = "write kind:name, for example table:public.orders or path:/v1/*";
                    report("objects", format!("{text}: {error}"), hint);
                    None
                }
            });
            parsed.collect()
        });
        let text = rule.text.as_ref().and_then(|pattern| {
            condition::regex(pattern)
                .map_err(|problem| report("text", problem, "a shorter or simpler expression"))
                .ok()
        });
        let when = rule.when.as_ref().and_then(|source| {
            Condition::new(source)
                .map_err(|error| {
                    report("when", error.to_string(), "docs/policy.md tells the language");
                })
                .ok()
        });
        Self {
            name: rule.name.as_str().into(),
            verdict: rule.verdict,
            mode: rule.mode,
            reason: rule.reason.as_deref().map(Into::into),
            approval,
            targets: rule.targets.as_ref().map(Targets::new),
            groups: rule.groups.clone(),
            unless_groups: rule.unless_groups.clone(),
            actions: rule.actions.as_ref().map(|all| all.iter().map(|a| Glob::new(a)).collect()),
            objects,
            text,
            when,
        }
    }

    pub(super) fn enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    pub(super) fn names_target(&self, target: &TargetFacts) -> bool {
        match &self.targets {
            None => true,
            Some(Targets::Names(globs)) => globs.iter().any(|g| g.matches(target.name.as_str())),
            Some(Targets::Labels(labels)) => {
                labels.iter().all(|(key, value)| target.labels.get(key) == Some(value))
            }
        }
    }

    pub(super) fn names_groups(&self, groups: &[String]) -> bool {
        self.groups.as_ref().is_none_or(|named| one_of(named, groups))
    }

    pub(super) fn spares_groups(&self, groups: &[String]) -> bool {
        one_of(&self.unless_groups, groups)
    }

    pub(super) fn names_action(&self, action: &str) -> bool {
        self.actions.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(action)))
    }

    /// Whether the rule's actions hold this one in so many words.
    pub(super) fn spells_action(&self, action: &str) -> bool {
        self.actions.as_ref().is_some_and(|globs| globs.iter().any(|glob| glob.as_str() == action))
    }

    /// Whether the rule names an opaque effect: its action in so many words and, where the action
    /// alone does not tell that it is opaque, the kind of its object.
    pub(super) fn names_opaque(&self, effect: &Effect) -> bool {
        let kind = match effect.opaque {
            Some(Opaque::Object) => effect.object.as_ref().map(Object::kind),
            Some(Opaque::Action) | None => None,
        };
        let names_kind =
            |kind| self.objects.iter().flatten().any(|pattern| pattern.kind() == Some(kind));
        self.spells_action(&effect.action) && kind.is_none_or(names_kind)
    }

    /// Whether the rule could be about an action of the same protocol as this one.
    pub(super) fn names_protocol_of(&self, action: &str) -> bool {
        let protocol = action.split_inclusive('.').next().unwrap_or(action);
        self.actions
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches_some_with_prefix(protocol)))
    }

    /// An allow rule wants to be certain; to the others a possibility is enough. An effect without
    /// an object is none that a rule names.
    ///
    /// Patterns of columns name an effect on a table by its columns: one of them is enough, but an
    /// allow rule must name every one.
    pub(super) fn names_object(&self, effect: &Effect) -> bool {
        let Some(patterns) = &self.objects else { return true };
        let Some(object) = &effect.object else { return false };
        let named = |named: &dyn Fn(&Pattern) -> bool| patterns.iter().any(named);
        match self.verdict {
            Verdict::Allow => {
                named(&|pattern| object.certainly_matches(pattern))
                    || (!effect.columns.is_empty()
                        && effect.columns.iter().all(|column| {
                            named(&|pattern| object.column_certainly_matches(column, pattern))
                        }))
            }
            Verdict::Approve | Verdict::Block => {
                named(&|pattern| object.could_match(pattern))
                    || effect
                        .below()
                        .is_some_and(|other| named(&|pattern| object.loses_below(other, pattern)))
                    || effect
                        .columns
                        .iter()
                        .any(|column| named(&|pattern| object.column_could_match(column, pattern)))
            }
        }
    }

    pub(super) fn names_text(&self, text: &str) -> bool {
        self.text.as_ref().is_none_or(|wanted| wanted.is_match(text))
    }

    /// Whether the condition holds. One that cannot be evaluated holds, but for an allow rule.
    pub(super) fn condition_holds(&self, facts: &condition::Facts<'_>) -> bool {
        let holds = self.when.as_ref().map_or(Ok(true), |when| when.holds(facts));
        holds.unwrap_or(self.verdict != Verdict::Allow)
    }
}

impl Targets {
    fn new(selector: &TargetSelector) -> Self {
        match selector {
            TargetSelector::Names(names) => {
                Self::Names(names.iter().map(|name| Glob::new(name)).collect())
            }
            TargetSelector::Labels(labels) => Self::Labels(labels.clone()),
        }
    }
}

fn one_of(named: &[String], groups: &[String]) -> bool {
    named.iter().any(|name| name == "*" || groups.contains(name))
}

fn approval(
    rule: &Rule,
    report: &mut impl FnMut(&'static str, String, &'static str),
) -> Option<Arc<Approval>> {
    if rule.verdict != Verdict::Approve {
        let given = [
            ("approvers", !rule.approvers.is_empty()),
            ("approvals", rule.approvals.is_some()),
            ("timeout", rule.timeout.is_some()),
        ];
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            let problem = "nobody is asked by this rule".to_owned();
            report(field, problem, "say verdict = \"approve\", or leave it out");
        }
        return None;
    }
    if rule.approvers.is_empty() {
        let problem = "a rule with verdict = \"approve\" says who may".to_owned();
        report("approvers", problem, "name groups, for example approvers = [\"dba\"]");
    }
    if rule.approvals == Some(0) {
        report("approvals", "0 approvals are none".to_owned(), "say 1 or more");
    }
    if rule.timeout == Some(Duration::ZERO) {
        report("timeout", "nobody answers at once".to_owned(), "say how long, for example \"10m\"");
    }
    Some(Arc::new(Approval {
        rule: rule.name.as_str().into(),
        approvers: rule.approvers.clone(),
        approvals: rule.approvals.unwrap_or(1),
        timeout_seconds: rule.timeout.unwrap_or(DEFAULT_TIMEOUT).as_secs().max(1),
    }))
}
