//! How rules combine: the policy engine over made-up rules, callers and commands.

use std::collections::BTreeMap;

use portcullis::decode::postgres::command::of_text;
use portcullis::names::Protocol;
use portcullis::policy::{
    Caller, Command, Decision, Effect, Mode, Object, Policy, PolicySettings, Rule, SessionFacts,
    TargetFacts, TargetSelector, Unparsed, Verdict, Vocabulary, advise,
};
use proptest::prelude::*;
use serde_json::json;

fn rule(name: &str, verdict: Verdict) -> Rule {
    let approvers = if verdict == Verdict::Approve { vec!["dba".to_owned()] } else { Vec::new() };
    Rule { approvers, ..Rule::new(name, verdict) }
}

fn on(actions: &[&str], objects: &[&str], rule: Rule) -> Rule {
    let list = |names: &[&str]| {
        (!names.is_empty()).then(|| names.iter().map(|name| (*name).to_owned()).collect())
    };
    Rule { actions: list(actions), objects: list(objects), ..rule }
}

fn caller(groups: &[&str]) -> Caller {
    Caller {
        username: "crew-7".to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Caller::default()
    }
}

fn target(default: Verdict) -> TargetFacts {
    TargetFacts {
        name: "orders".parse().unwrap(),
        protocol: Protocol::Postgres,
        labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
        default,
    }
}

fn effect(action: &'static str, object: &str) -> Effect {
    Effect::on(action, object.parse::<Object>().unwrap())
}

fn command(text: &str, effects: Vec<Effect>) -> Command {
    Command { form: "query".into(), text: text.to_owned(), attributes: Default::default(), effects }
}

fn compile(rules: &[Rule]) -> Policy {
    Policy::compile("0".repeat(32), PolicySettings::default(), rules).unwrap()
}

fn decide(rules: &[Rule], groups: &[&str], default: Verdict, command: &Command) -> Decision {
    let session = SessionFacts::default();
    compile(rules).for_caller(&caller(groups), &target(default), &session).decide(command)
}

fn verdict(rules: &[Rule], effects: Vec<Effect>) -> Verdict {
    decide(rules, &[], Verdict::Allow, &command("", effects)).verdict()
}

#[test]
fn the_strictest_rule_of_the_strictest_effect_decides() {
    let rules = [
        on(&["sql.*"], &[], rule("let-pass", Verdict::Allow)),
        on(&["sql.update"], &[], rule("ask", Verdict::Approve)),
        on(
            &["sql.drop"],
            &["table:public.*"],
            Rule {
                reason: Some("Through a migration.".to_owned()),
                ..rule("no-drop", Verdict::Block)
            },
        ),
    ];
    let select = effect("sql.select", "table:public.orders");
    let update = effect("sql.update", "table:public.orders");
    let drop = effect("sql.drop", "table:public.orders");
    assert_eq!(verdict(&rules, vec![select.clone()]), Verdict::Allow);
    assert_eq!(verdict(&rules, vec![select.clone(), update.clone()]), Verdict::Approve);

    let all = command("", vec![drop, select.clone(), update.clone()]);
    let decision = decide(&rules, &[], Verdict::Allow, &all);
    assert_eq!(decision.verdict(), Verdict::Block);
    assert_eq!(*decision.rules(), ["no-drop".into()]);
    assert_eq!(decision.reason(), Some("Through a migration."));
    assert!(decision.approvals().is_empty());

    let asked = decide(&rules, &[], Verdict::Allow, &command("", vec![select, update]));
    assert_eq!(asked.approvals()[0].approvers, ["dba"]);
    assert_eq!(asked.approvals()[0].timeout().as_secs(), 600);
}

#[test]
fn an_allow_rule_covers_only_the_effects_that_it_names() {
    let rules = [on(&["sql.select"], &["table:public.orders"], rule("read", Verdict::Allow))];
    let decide = |effects| decide(&rules, &[], Verdict::Block, &command("", effects)).verdict();
    let read = effect("sql.select", "table:public.orders");
    assert_eq!(decide(vec![read.clone()]), Verdict::Allow);
    assert_eq!(decide(vec![read, effect("sql.select", "table:public.other")]), Verdict::Block);
    assert_eq!(decide(vec![effect("sql.select", "table:orders")]), Verdict::Block);
    assert_eq!(decide(vec![Effect::of("sql.select")]), Verdict::Block);
    assert_eq!(decide(vec![]), Verdict::Allow, "what has no effect only prepares");
}

#[test]
fn a_name_without_its_schema_is_blocked_where_it_could_be_the_protected_one() {
    let rules = [on(&[], &["table:public.secrets"], rule("no-secrets", Verdict::Block))];
    for (object, expected) in [
        ("table:public.secrets", Verdict::Block),
        ("table:secrets", Verdict::Block),
        ("table:other.secrets", Verdict::Allow),
        ("table:public.Secrets", Verdict::Allow),
        ("column:public.secrets.value", Verdict::Allow),
    ] {
        assert_eq!(verdict(&rules, vec![effect("sql.select", object)]), expected, "{object}");
    }
}

#[test]
fn rules_speak_of_every_protocol_alike() {
    let rules = [
        on(&["ssh.exec"], &["program:*/rm"], rule("no-rm", Verdict::Block)),
        on(&["http.*"], &["path:/v1/refunds*"], rule("refunds", Verdict::Approve)),
        on(&["ssh.forward"], &["forward:10.*:80"], rule("no-web", Verdict::Block)),
    ];
    for (action, object, expected) in [
        ("ssh.exec", "program:/bin/rm", Verdict::Block),
        ("ssh.exec", "program:/bin/ls", Verdict::Allow),
        ("http.post", "path:/v1/refunds/7", Verdict::Approve),
        ("http.post", "path:/v1/orders", Verdict::Allow),
        ("ssh.forward", "forward:10.0.0.5:80", Verdict::Block),
        ("ssh.forward", "forward:10.0.0.5:5432", Verdict::Allow),
    ] {
        assert_eq!(verdict(&rules, vec![effect(action, object)]), expected, "{action} {object}");
    }
}

#[test]
fn targets_are_named_by_glob_or_label_and_callers_by_group() {
    let labels = |value: &str| BTreeMap::from([("env".to_owned(), value.to_owned())]);
    let names = |name: &str| TargetSelector::Names(vec![name.to_owned()]);
    for (selector, expected) in [
        (TargetSelector::Labels(labels("prod")), Verdict::Block),
        (TargetSelector::Labels(labels("test")), Verdict::Allow),
        (names("ord*"), Verdict::Block),
        (names("web-*"), Verdict::Allow),
    ] {
        let one = Rule { targets: Some(selector.clone()), ..rule("r", Verdict::Block) };
        assert_eq!(verdict(&[one], vec![Effect::of("sql.select")]), expected, "{selector:?}");
    }
    for (groups, expected) in [
        (vec!["agents"], Verdict::Block),
        (vec!["*"], Verdict::Block),
        (vec!["Agents"], Verdict::Allow),
        (vec![], Verdict::Allow),
    ] {
        let groups = groups.into_iter().map(str::to_owned).collect();
        let one = Rule { groups: Some(groups), ..rule("r", Verdict::Block) };
        let any = command("", vec![Effect::of("sql.select")]);
        assert_eq!(decide(&[one], &["agents"], Verdict::Allow, &any).verdict(), expected);
    }
}

#[test]
fn an_exemption_and_an_observed_rule_are_told_in_the_decision() {
    let spare = Rule { unless_groups: vec!["dba".to_owned()], ..rule("no-drop", Verdict::Block) };
    let watch = Rule { mode: Mode::Observe, ..rule("watch", Verdict::Approve) };
    let any = command("", vec![Effect::of("sql.drop")]);

    let spared = decide(std::slice::from_ref(&spare), &["dba"], Verdict::Allow, &any);
    assert_eq!(spared.verdict(), Verdict::Allow);
    assert_eq!(*spared.exempted(), ["no-drop".into()]);
    assert!(spared.is_overridden() && spared.rules().is_empty());

    let observed = decide(std::slice::from_ref(&watch), &[], Verdict::Allow, &any);
    assert_eq!(observed.verdict(), Verdict::Allow);
    assert_eq!(observed.observed()[0].verdict, Verdict::Approve);
    assert!(observed.is_overridden());

    let blocked = decide(&[spare, watch], &[], Verdict::Allow, &any);
    assert_eq!(blocked.verdict(), Verdict::Block);
    assert!(!blocked.is_overridden() && blocked.observed().len() == 1);
}

#[test]
fn a_condition_that_cannot_be_evaluated_blocks_and_does_not_allow() {
    let when =
        |verdict| Rule { when: Some("effect.has_where == false".into()), ..rule("r", verdict) };
    let without = Effect::of("sql.delete");
    let with = |value: serde_json::Value| {
        let mut effect = Effect::of("sql.delete");
        effect.attributes.insert("has_where".into(), value);
        effect
    };
    for (effect, blocks, allows) in [
        (with(json!(false)), Verdict::Block, Verdict::Allow),
        (with(json!(true)), Verdict::Allow, Verdict::Block),
        (with(json!("false")), Verdict::Block, Verdict::Block),
        (without, Verdict::Block, Verdict::Block),
    ] {
        let one = command("", vec![effect]);
        assert_eq!(decide(&[when(Verdict::Block)], &[], Verdict::Allow, &one).verdict(), blocks);
        assert_eq!(decide(&[when(Verdict::Allow)], &[], Verdict::Block, &one).verdict(), allows);
    }
}

#[test]
fn what_cannot_be_understood_is_blocked_where_a_rule_might_concern_it() {
    let unparsed = |text: &str| command(text, vec![Effect::of("sql.unparsed")]);
    let one = |one: Rule| decide(&[one], &["agents"], Verdict::Allow, &unparsed("DRP x")).verdict();

    assert_eq!(verdict(&[], vec![Effect::of("sql.unparsed")]), Verdict::Allow);
    assert_eq!(one(on(&["sql.drop"], &[], rule("r", Verdict::Block))), Verdict::Block);
    assert_eq!(one(on(&["sql.drop"], &[], rule("r", Verdict::Approve))), Verdict::Block);
    assert_eq!(one(on(&[], &["table:a.b"], rule("r", Verdict::Block))), Verdict::Block);

    assert_eq!(one(on(&["ssh.*"], &[], rule("r", Verdict::Block))), Verdict::Allow);
    assert_eq!(one(rule("r", Verdict::Allow)), Verdict::Allow);
    let observed = Rule { mode: Mode::Observe, ..rule("r", Verdict::Block) };
    assert_eq!(one(observed), Verdict::Allow);
    let elsewhere = TargetSelector::Names(vec!["web-*".to_owned()]);
    assert_eq!(one(Rule { targets: Some(elsewhere), ..rule("r", Verdict::Block) }), Verdict::Allow);
    let spared = Rule { unless_groups: vec!["agents".to_owned()], ..rule("r", Verdict::Block) };
    assert_eq!(one(spared), Verdict::Allow);
    let other_text = Rule { text: Some("truncate".to_owned()), ..rule("r", Verdict::Block) };
    assert_eq!(one(other_text), Verdict::Allow);

    let blocked = decide(
        &[on(&["sql.drop"], &[], rule("no-drop", Verdict::Block))],
        &[],
        Verdict::Allow,
        &unparsed("DRP x"),
    );
    assert_eq!(*blocked.rules(), ["no-drop".into()]);
    assert!(blocked.reason().unwrap().contains("could not be understood"));

    let spelled = on(&["sql.unparsed"], &[], rule("ask", Verdict::Approve));
    let other = on(&["sql.drop"], &[], rule("no-drop", Verdict::Block));
    let asked = decide(&[spelled, other.clone()], &[], Verdict::Allow, &unparsed("DRP x"));
    assert_eq!(asked.verdict(), Verdict::Approve);

    let settings = PolicySettings { unparsed: Unparsed::Allow, ..PolicySettings::default() };
    let lenient = Policy::compile(String::new(), settings, &[other]).unwrap();
    let session =
        lenient.for_caller(&caller(&[]), &target(Verdict::Allow), &SessionFacts::default());
    assert_eq!(session.decide(&unparsed("DRP x")).verdict(), Verdict::Allow);

    let masked = compile(&[])
        .for_caller(&caller(&[]), &target(Verdict::Allow), &SessionFacts::default())
        .masked(true);
    assert_eq!(masked.decide(&unparsed("DRP x")).verdict(), Verdict::Block);
}

#[test]
fn one_mistake_and_no_rule_loads() {
    let mistaken = [
        (Rule { when: Some("effct.x".into()), ..rule("r", Verdict::Block) }, "when"),
        (Rule { text: Some("(".into()), ..rule("r", Verdict::Block) }, "text"),
        (Rule { text: Some("\\w{1000}{1000}".into()), ..rule("r", Verdict::Block) }, "text"),
        (on(&[], &["orders"], rule("r", Verdict::Block)), "objects"),
        (Rule { approvers: vec![], ..rule("r", Verdict::Approve) }, "approvers"),
        (Rule { approvals: Some(0), ..rule("r", Verdict::Approve) }, "approvals"),
        (Rule { approvals: Some(1), ..rule("r", Verdict::Block) }, "approvals"),
        (Rule { groups: Some(vec!["a-*".into()]), ..rule("r", Verdict::Block) }, "groups"),
        (rule("", Verdict::Block), "name"),
        (rule("good", Verdict::Block), "name"),
    ];
    for (bad, field) in mistaken {
        let rules = [rule("good", Verdict::Block), bad];
        let mistakes =
            Policy::compile(String::new(), PolicySettings::default(), &rules).unwrap_err();
        assert_eq!(mistakes.iter().map(|m| (m.index, m.field)).collect::<Vec<_>>(), [(1, field)]);
    }
}

#[test]
fn a_decision_survives_its_recording() {
    let watch = Rule { mode: Mode::Observe, ..rule("watch", Verdict::Block) };
    let rules = [watch, rule("ask", Verdict::Approve)];
    let decision = decide(&rules, &[], Verdict::Allow, &command("", vec![Effect::of("sql.drop")]));
    let stored = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&stored).unwrap(), decision);
    let plain = decide(&[], &[], Verdict::Allow, &command("", vec![]));
    assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"verdict":"allow"}"#);
}

#[test]
fn advice_names_the_words_that_no_decoder_uses_and_the_rules_that_another_covers() {
    let vocabulary = Vocabulary {
        actions: &["sql.select", "sql.drop"],
        kinds: &["table"],
        attributes: &["effect.has_where"],
        open: &["ssh."],
        only_by_rule: &["ssh.forward"],
    };
    let when = |when: &str| Rule { when: Some(when.to_owned()), ..rule("r", Verdict::Block) };
    let observing = Rule { mode: Mode::Observe, ..rule("all", Verdict::Block) };
    let spared = Rule { unless_groups: vec!["dba".into()], ..rule("all", Verdict::Block) };
    let drops = on(&["sql.drop"], &[], rule("r", Verdict::Approve));
    let advice = |rules: &[Rule]| -> Vec<_> {
        let targets = [target(Verdict::Allow)];
        advise(rules, &targets, &vocabulary).into_iter().map(|a| (a.rule, a.field)).collect()
    };
    for (rules, expected) in [
        (vec![on(&["sql.*"], &["table:a.*"], rule("r", Verdict::Block))], None),
        (vec![on(&["sql.drpo"], &[], rule("r", Verdict::Block))], Some("actions")),
        (vec![on(&[], &["tabel:a"], rule("r", Verdict::Block))], Some("objects")),
        (vec![on(&["sql.*"], &[], when("effect.has_where"))], None),
        (vec![on(&["sql.*"], &[], when("effect.has_were"))], Some("when")),
        (vec![on(&["ssh.*"], &[], when("effect.argv"))], None),
        (vec![rule("r", Verdict::Allow)], Some("verdict")),
        (vec![rule("all", Verdict::Block), drops.clone()], Some("verdict")),
        (vec![on(&["sql.d*"], &[], rule("all", Verdict::Block)), drops.clone()], Some("verdict")),
        (vec![spared, drops.clone()], None),
        (vec![observing, drops.clone()], None),
        (vec![rule("all", Verdict::Approve), drops], None),
    ] {
        let found = advice(&rules);
        let expected: Vec<_> = expected.map(|field| ("r".to_owned(), field)).into_iter().collect();
        assert_eq!(found, expected, "{rules:?}");
    }
}

#[test]
fn advice_names_rules_that_allow_a_folder_of_programs() {
    for (program, verdict, advised) in [
        ("program:/usr/bin/*", Verdict::Allow, true),
        ("program:*/rsync", Verdict::Allow, true),
        ("program:/usr/bin/id", Verdict::Allow, false),
        ("program:*/rm", Verdict::Block, false),
    ] {
        let rules = [on(&["ssh.exec"], &[program], rule("r", verdict))];
        let found = advise(&rules, &[target(Verdict::Block)], &Vocabulary::default());
        let folders =
            found.iter().filter(|advice| advice.problem.contains("every program")).count();
        assert_eq!(folders, usize::from(advised), "{program}: {found:?}");
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Approve), Just(Verdict::Block)];
    let groups = || proptest::sample::subsequence(vec!["a", "b", "*"], 0..=2);
    let actions = proptest::sample::subsequence(
        vec!["sql.select", "sql.drop", "sql.*", "*", "ssh.exec", "sql.unparsed"],
        0..3,
    );
    let objects = proptest::sample::subsequence(
        vec!["table:public.*", "table:orders", "column:*.ssn", "*", "table:x.orders"],
        0..3,
    );
    let text = proptest::option::of(prop_oneof![Just("drop"), Just("(?i)SELECT")]);
    let when = proptest::option::of(prop_oneof![
        Just("effect.has_where == false"),
        Just("'a' in identity.groups"),
        Just("command.text.contains('x')"),
        Just("has(effect.object) && effect.object != 'table:orders'"),
    ]);
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Observe)];
    (verdict, groups(), groups(), actions, objects, text, when, mode).prop_map(
        |(verdict, groups, unless, actions, objects, text, when, mode)| {
            let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
            Rule {
                groups: (!groups.is_empty()).then(|| owned(groups)),
                unless_groups: owned(unless),
                text: text.map(str::to_owned),
                when: when.map(str::to_owned),
                mode,
                ..on(&actions, &objects, rule("", verdict))
            }
        },
    )
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(any_rule(), 0..6).prop_map(|rules| {
        let named = |(at, rule): (usize, Rule)| Rule { name: format!("r{at}"), ..rule };
        rules.into_iter().enumerate().map(named).collect()
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let action =
        prop_oneof![Just("sql.select"), Just("sql.drop"), Just("sql.unparsed"), Just("ssh.exec"),];
    let object = proptest::option::of(prop_oneof![
        Just("table:public.orders"),
        Just("table:orders"),
        Just("column:public.p.ssn"),
        Just("table:?"),
    ]);
    let has_where = proptest::option::of(any::<bool>());
    let effect = (action, object, has_where).prop_map(|(action, object, has_where)| {
        let object = object.map(|object| object.parse().unwrap());
        let mut effect = Effect { object, ..Effect::of(action) };
        effect.attributes.extend(has_where.map(|has| ("has_where".into(), json!(has))));
        effect
    });
    let text = prop_oneof![Just("select x"), Just("drop"), Just("")];
    (text, proptest::collection::vec(effect, 0..4))
        .prop_map(|(text, effects)| command(text, effects))
}

fn any_groups() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3)
}

fn any_default() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Allow), Just(Verdict::Block)]
}

proptest! {
    #[test]
    fn adding_a_block_rule_never_lets_more_through(
        rules in any_rules(), added in any_rule(), groups in any_groups(),
        default in any_default(), command in any_command(),
    ) {
        let before = decide(&rules, &groups, default, &command).verdict();
        let mut more = rules;
        more.push(Rule { name: "added".into(), approvers: vec![], verdict: Verdict::Block, ..added });
        prop_assert!(decide(&more, &groups, default, &command).verdict() >= before);
    }

    #[test]
    fn the_order_of_rules_does_not_matter(
        rules in any_rules(), seed in any::<prop::sample::Index>(), groups in any_groups(),
        default in any_default(), command in any_command(),
    ) {
        let mut other = rules.clone();
        other.reverse();
        if !other.is_empty() {
            let by = seed.index(other.len());
            other.rotate_left(by);
        }
        prop_assert_eq!(
            decide(&rules, &groups, default, &command),
            decide(&other, &groups, default, &command)
        );
    }

    #[test]
    fn a_rule_that_observes_never_changes_the_verdict(
        rules in any_rules(), added in any_rule(), groups in any_groups(),
        default in any_default(), command in any_command(),
    ) {
        let before = decide(&rules, &groups, default, &command);
        let mut more = rules;
        more.push(Rule { name: "added".into(), mode: Mode::Observe, ..added });
        let after = decide(&more, &groups, default, &command);
        prop_assert_eq!(before.verdict(), after.verdict());
        prop_assert_eq!(before.rules(), after.rules());
        prop_assert_eq!(before.exempted(), after.exempted());
    }

    #[test]
    fn one_effect_more_never_lets_more_through(
        rules in any_rules(), groups in any_groups(), default in any_default(),
        command in any_command(), other in any_command(),
    ) {
        let one = decide(&rules, &groups, default, &command).verdict();
        let mut both = command;
        both.effects.extend(other.effects);
        prop_assert!(decide(&rules, &groups, default, &both).verdict() >= one);
    }

    #[test]
    fn the_explanation_says_what_the_decision_says(
        rules in any_rules(), groups in any_groups(), default in any_default(),
        command in any_command(),
    ) {
        let caller = caller(&groups);
        let facts = (target(default), SessionFacts::default());
        let policy = compile(&rules);
        let told = policy.explain(&caller, &facts.0, &facts.1, false, &command);
        let strictest = told.effects.iter().map(|effect| effect.verdict).max();
        prop_assert_eq!(told.decision.verdict(), strictest.unwrap_or(Verdict::Allow));
        for effect in &told.effects {
            let acting = effect.rules.iter().filter(|rule| rule.matches() && rule.enforced);
            if let Some(strictest) = acting.map(|rule| rule.verdict).max() {
                prop_assert!(effect.verdict >= strictest);
            }
        }
    }
}

/// Rules over what SQL does.
fn sql_rule() -> impl Strategy<Value = Rule> {
    let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Approve), Just(Verdict::Block)];
    let actions = proptest::sample::subsequence(
        vec!["sql.select", "sql.d*", "sql.update", "sql.function", "sql.set*", "sql.unparsed"],
        0..3,
    );
    let objects = proptest::sample::subsequence(
        vec![
            "table:public.secrets",
            "table:*.orders",
            "column:customers.email",
            "column:public.customers.*",
            "function:pg_catalog.*",
            "setting:role",
        ],
        0..3,
    );
    let when = proptest::option::of(prop_oneof![
        Just("effect.where_names_column == false"),
        Just("command.statements > 1"),
        Just("command.text.contains('secrets')"),
    ]);
    (verdict, actions, objects, when).prop_map(|(verdict, actions, objects, when)| Rule {
        when: when.map(str::to_owned),
        ..on(&actions, &objects, rule("", verdict))
    })
}

proptest! {
    #[test]
    fn adding_a_block_rule_lets_no_statement_through(
        rules in proptest::collection::vec(sql_rule(), 0..5), added in sql_rule(),
        default in any_default(), at in any::<prop::sample::Index>(),
    ) {
        let cases = include_str!("../cases/pg_cases.tsv");
        let lines: Vec<&str> = cases.lines().skip(1).collect();
        let command = of_text(lines[at.index(lines.len())].split('\t').nth(2).unwrap());
        let named = |(at, rule): (usize, Rule)| Rule { name: format!("r{at}"), ..rule };
        let mut rules: Vec<Rule> = rules.into_iter().enumerate().map(named).collect();
        let before = decide(&rules, &[], default, &command).verdict();
        let block = Rule { approvers: vec![], verdict: Verdict::Block, ..added };
        rules.push(Rule { name: "added".into(), ..block });
        prop_assert!(decide(&rules, &[], default, &command).verdict() >= before);
    }
}

#[test]
fn the_examples_of_the_documents_decide_what_they_say() {
    let documents = [include_str!("../../docs/policy.md"), include_str!("../../docs/masks.md")];
    let mut count = 0;
    for document in documents {
        let blocks = document.split("```toml\n").skip(1);
        let blocks: Vec<&str> = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
        let issuer = "[[issuer]]\nname = \"dev\"\nurl = \"http://127.0.0.1:9100\"\naudiences = [\"portcullis\"]\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, format!("{issuer}{}", blocks.join("\n"))).unwrap();
        let config = portcullis::config::load(&path).unwrap();
        let targets: Vec<TargetFacts> =
            config.targets.values().map(|target| target.facts()).collect();
        for named in &config.tests {
            let done = named.test.run(
                &config.policy,
                &targets,
                |target, caller, command| config.target_masks(target, caller, command),
                |_, sql| Ok(of_text(sql)),
            );
            if let Err(failure) = done {
                panic!("{}: {failure}", named.test.command);
            }
            count += 1;
        }
    }
    assert!(count >= 10, "{count} tests");
}
