//! What a decision costs: a command of one effect and one of ten, held against no rule, 20 and 100.
//!
//! Usage: `cargo bench --bench policy`. Prints nanoseconds for a decision, the best of several
//! rounds: other work on the machine only ever adds.

#![expect(clippy::unwrap_used, reason = "a benchmark says what it expects by failing")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis::names::Protocol;
use portcullis::policy::{
    Caller, Command, Effect, Object, Policy, PolicySettings, Rule, SessionFacts, SessionPolicy,
    TargetFacts, Verdict,
};

/// Short ones, and many: one of them runs undisturbed even on a busy machine.
const ROUNDS: usize = 2_000;
const DECISIONS: u32 = 200;

fn main() {
    println!("{:>24} {:>10} {:>10} {:>10}", "nanoseconds", "no rule", "20 rules", "100 rules");
    let one = command(1);
    let ten = command(10);
    for (name, command, kind) in [
        ("one effect", &one, Kind::Plain),
        ("ten effects", &ten, Kind::Plain),
        ("one effect, conditions", &one, Kind::Condition),
        ("one effect, text", &one, Kind::Text),
    ] {
        let times = [0, 20, 100].map(|count| time(&session(count, kind), command));
        println!("{name:>24} {:>10} {:>10} {:>10}", times[0], times[1], times[2]);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Condition,
    Text,
}

/// Rules of which none matches, so that every one is tried.
fn session(count: usize, kind: Kind) -> SessionPolicy {
    let rule = |at: usize| {
        let rule = Rule::new(format!("rule-{at}"), Verdict::Block);
        let actions = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        match kind {
            Kind::Plain if at.is_multiple_of(2) => {
                Rule { actions: actions(&["sql.drop", "sql.truncate"]), ..rule }
            }
            Kind::Plain => Rule {
                actions: actions(&["sql.*"]),
                objects: Some(vec![format!("table:public.secrets_{at}")]),
                ..rule
            },
            Kind::Condition => Rule {
                actions: actions(&["sql.select"]),
                when: Some("effect.has_where == false && 'dba' in identity.groups".to_owned()),
                ..rule
            },
            Kind::Text => Rule { text: Some(r"(?i)\bpg_sleep\s*\(".to_owned()), ..rule },
        }
    };
    let rules: Vec<Rule> = (0..count).map(rule).collect();
    let policy = Policy::compile(String::new(), PolicySettings::default(), &rules).unwrap();
    let caller = Caller { groups: vec!["agents".to_owned()], ..Caller::default() };
    let target = TargetFacts {
        name: "orders".parse().unwrap(),
        protocol: Protocol::Postgres,
        labels: Default::default(),
        default: Verdict::Allow,
    };
    policy.for_caller(&caller, &target, &SessionFacts::default())
}

fn command(effects: usize) -> Command {
    let effect = |at: usize| {
        let parts = [Some("public".to_owned()), Some(format!("orders_{at}"))];
        let mut effect = Effect::on("sql.select", Object::new("table", parts));
        effect.attributes.insert("has_where".into(), true.into());
        effect
    };
    Command {
        form: "query".into(),
        text: "SELECT id, status, total FROM public.orders_0 WHERE customer_id = 42".to_owned(),
        attributes: Default::default(),
        effects: (0..effects).map(effect).collect(),
    }
}

fn time(session: &SessionPolicy, command: &Command) -> u128 {
    let round = || {
        let start = Instant::now();
        for _ in 0..DECISIONS {
            black_box(session.decide(black_box(command)));
        }
        start.elapsed() / DECISIONS
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or(Duration::ZERO).as_nanos()
}
