//! The rules that concern a caller on a target, whatever the command is.

use super::decision::Verdict;
use super::facts::{Caller, TargetFacts};
use super::{Glob, Pattern, Policy};

/// A rule in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveRule {
    /// Its name.
    pub name: String,
    /// What it says of the effects that it matches.
    pub verdict: Verdict,
    /// Whether it acts, or is only observed.
    pub enforced: bool,
    /// The actions that it names; none names all.
    pub actions: Vec<String>,
    /// The objects that it names; none names all.
    pub objects: Vec<String>,
    /// The expression that the command's text holds a match of.
    pub text: Option<String>,
    /// Its condition.
    pub when: Option<String>,
    /// Why, as the client is told.
    pub reason: Option<String>,
    /// The groups whose members approve, and how many of them must.
    pub approvers: Option<(Vec<String>, u32)>,
}

impl Policy {
    /// The rules that name this target and one of the caller's groups, and do not spare the
    /// caller, in the order of their names.
    pub fn effective(&self, caller: &Caller, target: &TargetFacts) -> Vec<EffectiveRule> {
        let concerns = self.rules.iter().filter(|rule| {
            rule.names_target(target)
                && rule.names_groups(&caller.groups)
                && !rule.spares_groups(&caller.groups)
        });
        let text = |text: &str| text.to_owned();
        concerns
            .map(|rule| EffectiveRule {
                name: text(&rule.name),
                verdict: rule.verdict,
                enforced: rule.enforced(),
                actions: rule.actions.iter().flatten().map(Glob::as_str).map(text).collect(),
                objects: rule.objects.iter().flatten().map(Pattern::as_str).map(text).collect(),
                text: rule.text.as_ref().map(|expression| text(expression.as_str())),
                when: rule.when.as_ref().map(|condition| text(condition.as_str())),
                reason: rule.reason.as_deref().map(text),
                approvers: rule
                    .approval
                    .as_ref()
                    .map(|approval| (approval.approvers.clone(), approval.approvals)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PolicySettings, Rule, TargetSelector};
    use super::*;
    use crate::names::Protocol;

    #[test]
    fn the_rules_that_concern_somebody_are_those_that_could_match() {
        let rule = |name: &str, change: fn(&mut Rule)| {
            let mut rule = Rule::new(name, Verdict::Block);
            change(&mut rule);
            rule
        };
        let rules = [
            rule("of all", |rule| rule.actions = Some(vec!["sql.drop".to_owned()])),
            rule("of others", |rule| rule.groups = Some(vec!["dba".to_owned()])),
            rule("spares", |rule| rule.unless_groups = vec!["agents".to_owned()]),
            rule("elsewhere", |rule| {
                rule.targets = Some(TargetSelector::Names(vec!["web-*".to_owned()]));
            }),
        ];
        let policy = Policy::compile(String::new(), PolicySettings::default(), &rules).unwrap();
        let caller = Caller { groups: vec!["agents".to_owned()], ..Caller::default() };
        let target = TargetFacts {
            name: "orders".parse().unwrap(),
            protocol: Protocol::Postgres,
            labels: Default::default(),
            default: Verdict::Allow,
        };
        let found = policy.effective(&caller, &target);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].name.as_str(), &found[0].actions[..]),
            ("of all", &["sql.drop".to_owned()][..])
        );
    }
}
