//! What no caller can do, whoever it is: for rights at the target itself.

use std::sync::Arc;

use super::Policy;
use super::command::Effect;
use super::decision::Verdict;
use super::facts::TargetFacts;
use super::object::Pattern;
use super::rule::{Compiled, Mode};
use crate::names::TargetName;

impl Policy {
    /// Whether a command with this effect could pass on a target: for somebody, under some
    /// condition, or once people approved it. `false` is certain as far as `effect` is, `true`
    /// proves nothing.
    pub fn could_pass(&self, target: &TargetFacts, effect: &Effect) -> bool {
        let about = || {
            self.rules.iter().filter(|rule| {
                rule.mode == Mode::Enforce
                    && rule.names_target(target)
                    && rule.names_action(&effect.action)
                    && rule.names_object(effect)
            })
        };
        let closed = about().any(|rule| rule.verdict == Verdict::Block && rule.spares_nobody());
        !closed
            && (target.default == Verdict::Allow
                || about().any(|rule| rule.verdict != Verdict::Block))
    }
}

/// A rule that lets everybody do what rules and masks cannot see through, on a target where some
/// apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The rule's name.
    pub rule: String,
    /// The action that it names.
    pub action: String,
    /// The target.
    pub target: TargetName,
    /// A rule that could be bypassed; `None` where only masks could.
    pub guarded_by: Option<String>,
}

impl Policy {
    /// What rules name on a target by objects: each pattern with its rule's name.
    pub fn objects(&self, target: &TargetFacts) -> impl Iterator<Item = (&str, &Pattern)> {
        let rules = self.rules.iter().filter(|rule| rule.names_target(target));
        rules.flat_map(|rule| rule.objects.iter().flatten().map(|pattern| (&*rule.name, pattern)))
    }

    /// The rules that open one of these opaque actions to everybody on a target where columns are
    /// masked (which is said with each) or other rules apply. Of actions that are opaque on some
    /// kinds of objects alone, the kinds are said.
    pub fn openings(
        &self,
        targets: &[(TargetFacts, bool)],
        opaque: &[(&str, Option<&[&str]>)],
    ) -> Vec<Opening> {
        let mut openings = Vec::new();
        let opens = |rule: &&Arc<Compiled>| {
            let everybody = rule.groups.as_ref().is_none_or(|all| all.iter().any(|one| one == "*"));
            rule.verdict == Verdict::Allow && rule.enforced() && rule.when.is_none() && everybody
        };
        for rule in self.rules.iter().filter(opens) {
            for (action, _) in opaque.iter().filter(|(action, kinds)| rule.opens(action, *kinds)) {
                for (target, masked) in targets.iter().filter(|(t, _)| rule.names_target(t)) {
                    let guard = self.rules.iter().find(|guard| {
                        guard.verdict != Verdict::Allow
                            && guard.enforced()
                            && guard.names_target(target)
                            && guard.names_protocol_of(action)
                    });
                    if *masked || guard.is_some() {
                        openings.push(Opening {
                            rule: rule.name.as_ref().to_owned(),
                            action: (*action).to_owned(),
                            target: target.name.clone(),
                            guarded_by: guard.map(|guard| guard.name.as_ref().to_owned()),
                        });
                    }
                }
            }
        }
        openings
    }
}

impl Compiled {
    /// Whether it names an opaque action, on a kind of objects of which the action is opaque.
    fn opens(&self, action: &str, kinds: Option<&[&str]>) -> bool {
        let of_kind = |kinds: &[&str]| {
            let kind = |pattern: &Pattern| pattern.kind().is_some_and(|kind| kinds.contains(&kind));
            self.objects.iter().flatten().any(kind)
        };
        self.spells_action(action) && kinds.is_none_or(of_kind)
    }

    /// Whether it says the same to every caller, of every text.
    fn spares_nobody(&self) -> bool {
        let everybody = |groups: &Vec<String>| groups.iter().any(|group| group == "*");
        self.groups.as_ref().is_none_or(everybody)
            && self.unless_groups.is_empty()
            && self.text.is_none()
            && self.when.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::rule::{Rule, TargetSelector};
    use super::super::{PolicySettings, Verdict};
    use super::*;
    use crate::names::Protocol;

    fn target(default: Verdict) -> TargetFacts {
        let name = "orders".parse().unwrap();
        TargetFacts { name, protocol: Protocol::Postgres, labels: BTreeMap::new(), default }
    }

    fn could(rules: &[Rule], default: Verdict, action: &'static str, columns: &[&str]) -> bool {
        let policy = Policy::compile(String::new(), PolicySettings::default(), rules).unwrap();
        let mut effect = Effect::on(action, "table:public.orders".parse().unwrap());
        effect.columns = columns.iter().map(|column| (*column).into()).collect();
        policy.could_pass(&target(default), &effect)
    }

    fn rule(name: &str, verdict: Verdict, change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::new(name, verdict);
        change(&mut rule);
        rule
    }

    #[test]
    fn a_block_that_spares_nobody_closes() {
        let orders = || Some(vec!["table:public.orders".to_owned()]);
        let closing = rule("r", Verdict::Block, |r| r.objects = orders());
        assert!(!could(&[closing], Verdict::Allow, "sql.select", &[]));
        let changes: [fn(&mut Rule); 7] = [
            |r| r.groups = Some(vec!["agents".to_owned()]),
            |r| r.unless_groups = vec!["dba".to_owned()],
            |r| r.when = Some("effect.has_where == false".to_owned()),
            |r| r.text = Some("drop".to_owned()),
            |r| r.mode = Mode::Observe,
            |r| r.actions = Some(vec!["sql.drop".to_owned()]),
            |r| r.targets = Some(TargetSelector::Names(vec!["others".to_owned()])),
        ];
        for change in changes {
            let open = rule("r", Verdict::Block, |r| {
                r.objects = orders();
                change(r);
            });
            assert!(could(&[open], Verdict::Allow, "sql.select", &[]));
        }
    }

    #[test]
    fn a_default_of_block_opens_by_what_allows_or_asks() {
        for (verdict, open) in
            [(Verdict::Allow, true), (Verdict::Approve, true), (Verdict::Block, false)]
        {
            let rule = rule("r", verdict, |r| {
                r.actions = Some(vec!["sql.select".to_owned()]);
                if verdict == Verdict::Approve {
                    r.approvers = vec!["dba".to_owned()];
                }
            });
            assert_eq!(could(&[rule], Verdict::Block, "sql.select", &[]), open, "{verdict}");
        }
        assert!(!could(&[], Verdict::Block, "sql.select", &[]));
    }

    #[test]
    fn columns_close_one_by_one() {
        let closing = rule("r", Verdict::Block, |r| {
            r.objects = Some(vec!["column:public.orders.note".to_owned()]);
        });
        let rules = [closing];
        assert!(!could(&rules, Verdict::Allow, "sql.select", &["note"]));
        assert!(could(&rules, Verdict::Allow, "sql.select", &["id"]));
    }
}
