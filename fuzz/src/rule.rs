//! A rule from any text, held against a command: nothing panics, and the text forms of objects
//! read back as what they were.

use portcullis::names::Protocol;
use portcullis::policy::{
    Caller, Command, Effect, Object, Policy, PolicySettings, Rule, SessionFacts, TargetFacts,
    Verdict,
};

/// Takes four lines: a condition, a regular expression, a pattern of objects, an object.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let (when, pattern, objects, object) = (line(), line(), line(), line());
    let object = object.and_then(|text| text.parse::<Object>().ok());
    if let Some(object) = &object {
        assert_eq!(object.to_string().parse::<Object>().as_ref(), Ok(object));
    }
    let rule = Rule {
        when,
        text: pattern,
        objects: objects.map(|pattern| vec![pattern]),
        ..Rule::new("rule", Verdict::Block)
    };
    let settings = PolicySettings::default();
    let Ok(policy) = Policy::compile(String::new(), settings, std::slice::from_ref(&rule)) else {
        return;
    };
    let target = TargetFacts {
        name: "orders".parse().expect("a good name"),
        protocol: Protocol::Postgres,
        labels: Default::default(),
        default: Verdict::Allow,
    };
    let attributes = [("has_where".into(), false.into()), ("argv".into(), vec!["a", "b"].into())];
    let effect =
        Effect { object, attributes: attributes.into_iter().collect(), ..Effect::of("sql.delete") };
    let command = Command {
        form: "query".into(),
        text: "DELETE FROM orders".to_owned(),
        attributes: Default::default(),
        effects: vec![effect],
    };
    let session = SessionFacts::default();
    let told = policy.explain(&Caller::default(), &target, &session, true, &command);
    assert_eq!(told.effects[0].verdict, told.decision.verdict());
}
