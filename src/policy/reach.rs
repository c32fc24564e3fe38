//! What no caller can do, whoever it is: for rights at the target itself.

use super::Policy;
use super::command::Effect;
use super::decision::Verdict;
use super::facts::TargetFacts;
use super::rule::{Compiled, Mode};

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

impl Compiled {
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
