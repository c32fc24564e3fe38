//! `[policy]`, `[[rule]]`, `[[test]]`: what commands may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access;
use super::model::{Config, NamedTest, Target};
use super::reader::{Field, Table};
use super::value;
use crate::decode::sql::rewrite::Given;
use crate::decode::{self, sql};
use crate::mask::{AppliedRows, CLOSED, LONGEST_VALUE, Masks, RowFilter, Viewer};
use crate::names::TargetName;
use crate::policy::{
    ActingRows, Caller, Command, Effect, Mode, Object, Opening, Policy, PolicySettings, PolicyTest,
    Rule, TargetFacts, TargetMasks, TargetSelector, Unparsed, Unprovable, Verdict, advise,
};

/// A command is held against every rule: this many still take less than a tenth of a millisecond.
const MAX_RULES: usize = 10_000;

const VERDICTS: &[(&str, Verdict)] =
    &[("allow", Verdict::Allow), ("block", Verdict::Block), ("approve", Verdict::Approve)];

type Targets = BTreeMap<TargetName, Arc<Target>>;

/// A rule as it is written, and where.
struct Written<'a> {
    rule: Rule,
    table: Table<'a>,
}

/// Compiles the rules. The policy has none when anything is wrong; then the findings say so.
pub(super) fn policy(top: &Table<'_>, targets: &Targets, hash: String) -> Policy {
    let settings = settings(top);
    let tables = top.tables("rule");
    if tables.len() > MAX_RULES {
        top.wrong(format!("there are more than {MAX_RULES} rules"), None);
        return Policy::new(hash);
    }
    let mut written = Vec::new();
    for table in tables {
        match rule(&table, targets) {
            Some(rule) => written.push(Written { rule, table }),
            None => table.finish(),
        }
    }
    let rules: Vec<Rule> = written.iter().map(|written| written.rule.clone()).collect();
    let compiled = Policy::compile(hash.clone(), settings, &rules);
    match &compiled {
        Ok(_) => {
            let facts: Vec<_> = targets.values().map(|target| target.facts()).collect();
            for advice in advise(&rules, &facts, &decode::vocabulary()) {
                if let Some(Written { table, .. }) = written.get(advice.index) {
                    table.warn_at(advice.field, advice.problem, advice.hint);
                }
            }
        }
        Err(mistakes) => {
            for mistake in mistakes {
                if let Some(Written { table, .. }) = written.get(mistake.index) {
                    table.wrong_at(mistake.field, &mistake.problem, mistake.hint);
                }
            }
        }
    }
    for Written { table, .. } in written {
        table.finish();
    }
    compiled.unwrap_or_else(|_| Policy::new(hash))
}

/// Warns of rules that open to everybody what masks and other rules cannot see through, and of
/// settings that masks overrule.
pub(super) fn warn_of_openings(top: &Table<'_>, policy: &Policy, masks: &Masks, targets: &Targets) {
    let filtered = |target: &Target| {
        masks.rows().iter().any(|filter| filter.names_target(target.name.as_str()))
    };
    let masked = |target: &Target| masks.mask_columns(target.name.as_str()) || filtered(target);
    let facts: Vec<_> = targets.values().map(|target| (target.facts(), masked(target))).collect();
    let by_action = sql::OPAQUE_ACTIONS.iter().map(|action| (*action, None));
    let on_code = sql::OPAQUE_ON_CODE.iter().map(|action| (*action, Some(sql::CODE)));
    let openings = policy.openings(&facts, &by_action.chain(on_code).collect::<Vec<_>>());
    let tables = if openings.is_empty() { Vec::new() } else { top.tables("rule") };
    for table in tables {
        let name = table.read("name", |field| field.text().map(str::to_owned));
        let of_rule = openings.iter().filter(|opening| Some(&*opening.rule) == name.as_deref());
        for Opening { action, target, guarded_by, .. } in of_rule {
            let guard = match guarded_by {
                Some(rule) => format!("the rule {rule} applies"),
                None => "columns are masked or rows filtered".to_owned(),
            };
            table.warn_at(
                "actions",
                format!(
                    "everybody may use {action} on {target}, where {guard}: it can bypass that, \
                     because what it leads to cannot be checked"
                ),
                "name in this rule who may: groups = [\"dba\"]",
            );
        }
    }
    if policy.settings().unparsed == Unparsed::Allow
        && let Some(target) = targets.values().find(|target| masked(target))
        && let Some(table) = top.table("policy")
    {
        table.warn_at(
            "unparsed",
            format!("on {} columns are masked: it refuses such commands anyway", target.name),
            "say \"block\", or see docs/policy.md",
        );
    }
}

fn settings(top: &Table<'_>) -> PolicySettings {
    let mut settings = PolicySettings::default();
    if let Some(table) = top.table("policy") {
        let unparsed = [("block", Unparsed::Block), ("allow", Unparsed::Allow)];
        table.set(&mut settings.unparsed, "unparsed", |field| field.word(&unparsed));
        let unprovable = [("mask", Unprovable::Mask), ("block", Unprovable::Block)];
        table.set(&mut settings.unprovable, "unprovable", |field| field.word(&unprovable));
        // They are read with the masks, whose defaults they are.
        for key in ["enforce", "on_unprovable"] {
            table.read(key, |_| None::<()>);
        }
        table.set(&mut settings.transaction_wait, "transaction_wait", value::duration);
        table.finish();
    }
    settings
}

fn rule(table: &Table<'_>, targets: &Targets) -> Option<Rule> {
    let owned = |field: Field<'_>| field.text().map(str::to_owned);
    let name = table.require("name", owned);
    let names = table.read("targets", |f| f.some(target_glob));
    let labels = table.read("labels", |field| access::labels(field, targets));
    if table.has("targets") && table.has("labels") {
        let hint = "give targets = [\"orders\", \"web-*\"] or labels = { env = \"prod\" }";
        table.wrong("[[rule]] takes targets or labels, not both", Some(hint));
    }
    let groups = table.read("groups", Field::texts);
    let unless_groups = table.read("unless_groups", Field::texts);
    let actions = table.read("actions", Field::texts);
    let objects = table.read("objects", Field::texts);
    let text = table.read("text", owned);
    let when = table.read("when", owned);
    let verdict = table.require("verdict", |field| field.word(VERDICTS));
    let approvers = table.read("approvers", Field::texts);
    let approvals = table.read("approvals", |f| f.count(value::MOST_APPROVALS));
    let timeout = table.read("timeout", value::span);
    let reason = table.read("reason", owned);
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let mode = table.read("mode", |field| field.word(&modes));
    Some(Rule {
        name: name?,
        targets: names.map(TargetSelector::Names).or(labels.map(TargetSelector::Labels)),
        groups,
        unless_groups: unless_groups.unwrap_or_default(),
        actions,
        objects,
        text,
        when,
        verdict: verdict?,
        approvers: approvers.unwrap_or_default(),
        approvals: approvals.and_then(|count| u32::try_from(count).ok()),
        timeout,
        reason,
        mode: mode.unwrap_or_default(),
    })
}

/// A glob over names; [`advise`] tells of one that meets no target.
fn target_glob(field: Field<'_>) -> Option<String> {
    value::target_glob(field).map(|glob| glob.glob().glob().to_owned())
}

/// What a test may name. Of rules, masks and row filters nothing is known where one of them is wrong.
pub(super) struct Known<'k> {
    pub(super) targets: &'k Targets,
    pub(super) rules: Option<&'k Policy>,
    pub(super) masks: Option<&'k Masks>,
    pub(super) filters: Option<&'k Masks>,
}

pub(super) fn tests(top: &Table<'_>, known: &Known<'_>) -> Vec<NamedTest> {
    top.tables("test").into_iter().filter_map(|table| test(table, known)).collect()
}

fn test(table: Table<'_>, known: &Known<'_>) -> Option<NamedTest> {
    let target = |field: Field<'_>| {
        let targets = known.targets.keys().map(TargetName::as_str);
        named(field, "target", Some(targets))
    };
    let rule = |field: Field<'_>| {
        let rules = known.rules.map(|policy| policy.written().iter().map(|rule| &*rule.name));
        named(field, "rule", rules)
    };
    let mask = |field: Field<'_>| {
        let masks = known.masks.map(|masks| masks.of_all().map(|mask| &*mask.name));
        named(field, "mask", masks)
    };
    let row_filter = |field: Field<'_>| {
        let filters = known.filters.map(|masks| masks.rows().iter().map(|filter| &*filter.name));
        named(field, "rows", filters)
    };
    let caller = table.require("identity", caller);
    let target = table.require("target", target);
    let command = table.require("command", |field| field.text().map(str::to_owned));
    let expect = table.require("expect", |field| field.word(VERDICTS));
    let rule = table.read("rule", rule);
    let masks = table.read("masks", |field| field.list(mask));
    let rows = table.read("rows", |field| field.list(row_filter));
    let place = table.findings().named(table.place());
    table.finish();
    let test = PolicyTest {
        caller: caller?,
        target: target?,
        command: command?,
        expect: expect?,
        rule,
        masks,
        rows,
    };
    Some(NamedTest { place, test })
}

/// The name of a table of this kind, where all of them are known.
fn named<'n>(
    field: Field<'_>,
    kind: &str,
    known: Option<impl Iterator<Item = &'n str> + Clone>,
) -> Option<String> {
    let name = field.text()?;
    let Some(known) = known else { return Some(name.to_owned()) };
    if known.clone().any(|known| known == name) {
        return Some(name.to_owned());
    }
    if known.clone().next().is_none() {
        let hint = format!("write a [[{kind}]] of that name");
        return field.wrong_with(format!("there is no [[{kind}]]"), hint);
    }
    field.not_one_of(name, known)
}

impl Config {
    /// What is masked and filtered on a target for a caller's command, as a [`PolicyTest`] wants it.
    pub fn target_masks(
        &self,
        target: &TargetFacts,
        caller: &Caller,
        command: &Command,
    ) -> TargetMasks {
        let (name, groups) = (target.name.as_str(), &caller.groups);
        let masks = self.masks.of(name, groups);
        let hiding = masks.iter().filter(|applied| !applied.lifted);
        let viewer = Viewer { username: &caller.username, groups, claims: &caller.claims };
        let rows = self.masks.rows_of(name, &viewer);
        let acting = rows.iter().filter(|applied| applied.acts);
        let filtering = acting.map(|applied| {
            let lacking = lacking(applied, caller);
            ActingRows {
                name: applied.filter.name.to_string(),
                refuses: refuses(&applied.filter, &lacking, command),
                lacking,
            }
        });
        TargetMasks {
            columns: self.masks.guard(name, groups),
            hiding: hiding.map(|applied| applied.mask.name.to_string()).collect(),
            filtering: filtering.collect(),
        }
    }
}

/// Why a row filter refuses a command, as far as the text of the command says that: what a name without
/// a schema could mean counts as meant, and what only the catalog says (views, columns) does not.
fn refuses(filter: &RowFilter, lacking: &[String], command: &Command) -> Option<String> {
    let on_table = |effect: &&Effect| {
        let object = effect.object.as_ref().filter(|object| of_table(object.kind()));
        let named = object.map(|object| {
            let parts = object.parts().take(2).map(|part| part.map(str::to_owned));
            Object::new("table", parts.collect::<Vec<_>>())
        });
        named.is_some_and(|table| table.could_match(&filter.named))
    };
    let mut touching = command.effects.iter().filter(on_table).peekable();
    touching.peek()?;
    let (name, table) = (&filter.name, &filter.table);
    if let [first, ..] = lacking {
        return Some(format!("the row filter {name} on {table} needs {first}"));
    }
    if command.effects.iter().any(|effect| effect.action == "sql.explain") {
        return Some(format!(
            "the row filter {name} on {table} lets nobody explain a statement there"
        ));
    }
    let of_rows =
        |effect: &Effect| effect.attributes.get("mode").is_some_and(|mode| mode == "rows");
    let closed = |effect: &&Effect| CLOSED.contains(&&*effect.action) && !of_rows(effect);
    let action = &touching.find(closed)?.action;
    Some(format!("the row filter {name} on {table} lets nobody do {action} there"))
}

/// Whether objects of a kind are tables, or belong to one, so that their names begin with the table's.
fn of_table(kind: &str) -> bool {
    ["table", "column", "constraint", "policy", "rule", "trigger"].contains(&kind)
}

/// What a row filter needs of a caller and does not get, in words.
fn lacking(applied: &AppliedRows, caller: &Caller) -> Vec<String> {
    let in_words = |given: &Given| match given {
        Given::User => "the user's name, which the identity lacks".to_owned(),
        Given::Groups => "a group, which the identity lacks".to_owned(),
        Given::Claim(name) if caller.claims.contains_key(name) => {
            format!(
                "the claim {name} as one text, number or boolean of 1 to {LONGEST_VALUE} bytes, or \
                 in an IN list as a list of such"
            )
        }
        Given::Claim(name) => format!("the claim {name}, which the identity lacks"),
    };
    applied.bound.as_ref().err().into_iter().flatten().map(in_words).collect()
}

/// `{ user = "crew-7", groups = ["support-agents"], claims = { … } }`
fn caller(field: Field<'_>) -> Option<Caller> {
    let table = field.table()?;
    let username = table.read("user", |field| field.text().map(str::to_owned));
    let groups = table.read("groups", |field| field.list(|f| f.text().map(str::to_owned)));
    let claims = table.read("claims", access::claims);
    table.finish();
    Some(Caller {
        username: username.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
        claims: claims.unwrap_or_default().into_iter().collect(),
        ..Caller::default()
    })
}
