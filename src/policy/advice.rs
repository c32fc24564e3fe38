//! What in a set of rules looks wrong, though it can be loaded: rules that never match or change
//! nothing.
//!
//! An advice is certain as far as it goes; that none is given proves nothing.

use std::fmt;

use super::condition::Condition;
use super::decision::Verdict;
use super::facts::TargetFacts;
use super::glob::Glob;
use super::object::Pattern;
use super::rule::{Compiled, Mode, Rule, Targets};

/// The words that decoders use, which rules had better use too. An empty list means that the words
/// are not known, and nothing is said about them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vocabulary<'a> {
    /// Every action.
    pub actions: &'a [&'a str],
    /// Every kind of object.
    pub kinds: &'a [&'a str],
    /// Every attribute, as `effect.has_where` or `command.statements`.
    pub attributes: &'a [&'a str],
    /// What the actions of protocols begin with whose actions and attributes are not among them:
    /// `ssh.`.
    pub open: &'a [&'a str],
    /// The actions that only a rule lets pass, always or where other rules or masks apply.
    pub only_by_rule: &'a [&'a str],
}

/// Something about a rule that its author should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The rule's name.
    pub rule: String,
    /// Its place among the rules given, from 0.
    pub index: usize,
    /// The field in question.
    pub field: &'static str,
    /// What is odd.
    pub problem: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}: {} ({})", self.rule, self.field, self.problem, self.hint)
    }
}

/// Looks at rules that compile for what they can never do.
pub fn advise(rules: &[Rule], targets: &[TargetFacts], vocabulary: &Vocabulary<'_>) -> Vec<Advice> {
    let compiled: Vec<Compiled> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| Compiled::new(rule, index, &mut Vec::new()))
        .collect();
    let mut advice = Vec::new();
    for (index, (rule, ready)) in rules.iter().zip(&compiled).enumerate() {
        let mut tell = |field, problem: String, hint| {
            let rule = rule.name.clone();
            advice.push(Advice { rule, index, field, problem, hint });
        };
        empty_selectors(rule, &mut tell);
        unknown_targets(ready, targets, &mut tell);
        unknown_words(ready, vocabulary, &mut tell);
        no_effect(ready, targets, vocabulary, &mut tell);
        opens_folders(ready, &mut tell);
        let others = compiled.iter().enumerate().filter(|(at, _)| *at != index);
        if let Some((_, other)) = others
            .into_iter()
            .find(|(at, other)| shadows(other, ready) && (!shadows(ready, other) || *at < index))
        {
            let problem = format!(
                "all that it matches, {} matches too and says {}",
                other.name, other.verdict
            );
            tell("verdict", problem, "the strictest rule wins: narrow the one or drop the other");
        }
    }
    advice
}

type Tell<'t> = dyn FnMut(&'static str, String, &'static str) + 't;

fn empty_selectors(rule: &Rule, tell: &mut Tell<'_>) {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
    for (field, is_empty) in [
        ("groups", empty(&rule.groups)),
        ("actions", empty(&rule.actions)),
        ("objects", empty(&rule.objects)),
    ] {
        if is_empty {
            let problem = "the list is empty, so the rule never matches".to_owned();
            tell(field, problem, "leave it out to match everything");
        }
    }
    if rule.unless_groups.iter().any(|group| group == "*") {
        let problem = "* spares everybody, so the rule never matches".to_owned();
        tell("unless_groups", problem, "name the groups to spare");
    }
}

/// Some of the programs in a folder run others, and more come with packages.
fn opens_folders(rule: &Compiled, tell: &mut Tell<'_>) {
    let is_folder =
        |pattern: &&Pattern| pattern.kind() == Some("program") && pattern.as_str().contains('*');
    let allows = rule.verdict == Verdict::Allow && rule.mode == Mode::Enforce;
    for pattern in rule.objects.iter().flatten().filter(is_folder).filter(|_| allows) {
        let problem = format!(
            "{} allows every program of such a path, also one that runs others",
            pattern.as_str()
        );
        tell("objects", problem, "name each program that may run");
    }
}

fn unknown_targets(rule: &Compiled, targets: &[TargetFacts], tell: &mut Tell<'_>) {
    let hint = "name a [[target]] of the configuration, or a pattern with *";
    match &rule.targets {
        Some(Targets::Names(globs)) => {
            let meets = |glob: &Glob| targets.iter().any(|t| glob.matches(t.name.as_str()));
            for glob in globs.iter().filter(|glob| !meets(glob)) {
                tell("targets", format!("there is no target {}", glob.as_str()), hint);
            }
            if globs.is_empty() {
                tell("targets", "the list is empty, so the rule never matches".to_owned(), hint);
            }
        }
        Some(Targets::Labels(_)) if !targets.iter().any(|target| rule.names_target(target)) => {
            tell("targets", "no target has these labels".to_owned(), hint);
        }
        _ => {}
    }
}

fn unknown_words(rule: &Compiled, vocabulary: &Vocabulary<'_>, tell: &mut Tell<'_>) {
    let Vocabulary { actions, kinds, attributes, open, .. } = vocabulary;
    let hint = "docs/effects.md lists what there is";
    let is_open = |glob: &Glob| open.iter().any(|start| glob.matches_some_with_prefix(start));
    for glob in rule.actions.iter().flatten().filter(|_| !actions.is_empty()) {
        if !is_open(glob) && !actions.iter().any(|action| glob.matches(action)) {
            tell("actions", format!("no command has the action {}", glob.as_str()), hint);
        }
    }
    for pattern in rule.objects.iter().flatten().filter(|_| !kinds.is_empty()) {
        if pattern.kind().is_some_and(|kind| !kinds.contains(&kind)) {
            tell("objects", format!("no effect has an object {}", pattern.as_str()), hint);
        }
    }
    // A condition about other protocols may look at what is not listed.
    let all_known = match &rule.actions {
        Some(globs) => !globs.iter().any(is_open),
        None => open.is_empty(),
    };
    let looked_at = rule.when.iter().flat_map(Condition::attributes);
    for name in looked_at.filter(|_| all_known && !attributes.is_empty()) {
        if !attributes.contains(&name.as_str()) {
            tell("when", format!("nothing sets {name}"), hint);
        }
    }
}

/// An allow rule only matters where the default is to block.
fn no_effect(
    rule: &Compiled,
    targets: &[TargetFacts],
    vocabulary: &Vocabulary<'_>,
    tell: &mut Tell<'_>,
) {
    let by_rule = |action: &&str| rule.actions.is_some() && rule.names_action(action);
    if vocabulary.only_by_rule.iter().any(by_rule) {
        return;
    }
    let mut named = targets.iter().filter(|target| rule.names_target(target)).peekable();
    if rule.verdict == Verdict::Allow
        && named.peek().is_some()
        && named.all(|target| target.default == Verdict::Allow)
    {
        let problem = "its targets allow by default, so it changes nothing".to_owned();
        tell("verdict", problem, "an exception stands in the rule it excepts: unless_groups, when");
    }
}

/// Whether `wide` acts on all that `narrow` matches, and is as strict.
fn shadows(wide: &Compiled, narrow: &Compiled) -> bool {
    wide.mode == Mode::Enforce
        && narrow.mode == Mode::Enforce
        && wide.verdict > Verdict::Allow
        && wide.verdict >= narrow.verdict
        && (wide.verdict > narrow.verdict || wide.approval.is_none())
        && wide.text.is_none()
        && wide.when.is_none()
        && wide.unless_groups.iter().all(|group| narrow.unless_groups.contains(group))
        && covers(&wide.groups, &narrow.groups, |w: &String, n| w == "*" || w == n)
        && covers(&wide.actions, &narrow.actions, Glob::covers)
        && covers(&wide.objects, &narrow.objects, Pattern::covers)
        && match (&wide.targets, &narrow.targets) {
            (None, _) => true,
            (Some(Targets::Names(w)), Some(Targets::Names(n))) => {
                n.iter().all(|n| w.iter().any(|w| w.covers(n)))
            }
            (Some(Targets::Labels(w)), Some(Targets::Labels(n))) => {
                w.iter().all(|(key, value)| n.get(key) == Some(value))
            }
            _ => false,
        }
}

/// Whether one list of patterns takes in all that another does; `None` takes in everything.
fn covers<T>(
    wide: &Option<Vec<T>>,
    narrow: &Option<Vec<T>>,
    takes_in: impl Fn(&T, &T) -> bool,
) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|n| wide.iter().any(|w| takes_in(w, n))),
    }
}
