use std::cell::OnceCell;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::policy::command::{Command, Effect};

fn map(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn holds(source: &str) -> Result<bool, Failure> {
    let identity = map(json!({
        "issuer": "https://login", "subject": "s-1", "username": "crew-7",
        "groups": ["agents", "dba"], "claims": { "azp": "crew-prod", "level": 3 },
        "workflow": null, "run": null,
    }));
    let target =
        map(json!({ "name": "orders", "protocol": "postgres", "labels": { "env": "prod" } }));
    let session = map(json!({ "id": null, "client": "10.0.0.1" }));
    let mut effect = Effect::on("sql.delete", "table:public.orders".parse().unwrap());
    for (name, value) in [
        ("has_where", json!(false)),
        ("rows", json!(12)),
        ("ratio", json!(0.5)),
        ("argv", json!(["rm", "-rf", "/"])),
        ("mixed", json!([1, "a", null])),
        ("nothing", json!(null)),
    ] {
        effect.attributes.insert(name.into(), value);
    }
    let command = Command {
        form: "query".into(),
        text: "DELETE FROM orders".to_owned(),
        attributes: [("statements".into(), json!(1))].into_iter().collect(),
        effects: vec![effect.clone()],
    };
    let facts = Facts {
        identity: &identity,
        target: &target,
        session: &session,
        command: command.parts(&[]),
        effect: &effect,
        object: OnceCell::new(),
    };
    Condition::new(source).unwrap_or_else(|mistake| panic!("{source}: {mistake}")).holds(&facts)
}

#[test]
fn a_condition_holds_or_does_not() {
    for (source, expected) in [
        ("effect.has_where == false", true),
        ("!effect.has_where", true),
        ("!!effect.has_where", false),
        ("effect.rows > 10 && effect.rows <= 12", true),
        ("effect.rows == 12.0 && effect.ratio < 1", true),
        ("effect.rows != -12", true),
        ("effect.action in ['sql.delete', 'sql.update']", true),
        ("'dba' in identity.groups", true),
        ("'x' in identity.groups || target.labels.env == \"prod\"", true),
        ("target.labels['env'] == 'prod'", true),
        ("'env' in target.labels", true),
        ("'has_where' in effect", true),
        ("identity.claims.level >= 3", true),
        ("has(effect.has_where)", true),
        ("has(effect.missing) && effect.missing > 1", false),
        ("!has(effect.missing)", true),
        ("has(effect.object)", true),
        ("effect.object == 'table:public.orders'", true),
        ("command.text.contains('orders') && command.text.startsWith('DELETE')", true),
        ("command.text.matches(r'(?i)^delete\\s')", true),
        ("command.text.endsWith('\\u006frders')", true),
        ("command.statements == 1", true),
        ("effect.argv.exists(a, a == '-rf')", true),
        ("effect.argv.all(a, a.size() < 4)", true),
        ("effect.argv.exists(a, identity.groups.exists(b, a == b))", false),
        ("['a', 'b'].exists(x, x == 'b')", true),
        ("size(effect.argv) == 3 && effect.argv[0] == 'rm'", true),
        ("size('é') == 1", true),
        ("effect.nothing == null && effect.rows != null", true),
        ("identity.workflow == null", true),
        ("identity.workflow == 'crew'", false),
        ("effect.has_where ? false : target.name == 'orders'", true),
        ("(true || false) && !(false)", true),
        ("1 in effect.mixed", true),
    ] {
        assert_eq!(holds(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_not_there_or_of_another_kind_is_an_error_not_false() {
    for source in [
        "effect.missing == 1",
        "effect.has_where == 'false'",
        "effect.rows == 'twelve'",
        "effect.rows < 'b'",
        "effect.argv[9] == 'x'",
        "effect.argv[-1] == 'x'",
        "effect.rows.size() == 2",
        "effect.rows.contains('1')",
        "effect.nothing > 1",
        "effect.rows in effect.argv",
        "identity.claims.missing == 'x'",
        "effect.rows",
        "effect.rows.field == 1",
    ] {
        assert!(holds(source).is_err(), "{source}: {:?}", holds(source));
    }
}

#[test]
fn one_side_that_decides_alone_hides_the_other_ones_error() {
    assert_eq!(holds("effect.missing == 1 || true"), Ok(true));
    assert_eq!(holds("effect.missing == 1 && false"), Ok(false));
    assert!(holds("effect.missing == 1 || false").is_err());
    assert!(holds("effect.missing == 1 && true").is_err());
    assert_eq!(holds("effect.mixed.exists(x, x == 'a')"), Ok(true));
    assert!(holds("effect.mixed.all(x, x != 'b')").is_err());
}

#[test]
fn mistakes_are_told_when_the_condition_is_read() {
    for (source, words) in [
        ("effct.has_where", "at character 1: nothing is called effct; is effect meant?"),
        ("identity.user == 'x'", "identity has no field user; there are issuer"),
        ("target.nam == 'x'", "target has no field nam; is name meant?"),
        ("identity.username", "a condition is true or false; this is a text"),
        ("effect.action == 5", "a text is never a number"),
        ("identity.groups == 'dba'", "a list is never a text"),
        ("effect.rows + 1 > 2", "no arithmetic"),
        ("effect.rows >", "it ends where a value should be"),
        ("(true", "it ends where ) should be"),
        ("true)", ") stands where an operator should be"),
        ("1 < 2 < 3", "do not chain"),
        ("command.text.matches('(')", "not a regular expression"),
        ("command.text.matches(effect.pattern)", "a regular expression in quotes"),
        ("command.text.lower() == 'x'", "there is no function lower; there are startsWith"),
        ("now() > 1", "there is no function now"),
        ("size() > 1", "where a value should be"),
        ("len('x') > 1", "there is no function len"),
        ("has(effect)", "has asks for a field"),
        ("'x", "the text does not end"),
        ("'\\q' == 'x'", "backslash"),
        ("1x == 1", "numbers are written"),
        ("99999999999999999999 == 1", "numbers are written"),
        ("effect.rows == {}", "{ stands where a value should be"),
        ("[effect.rows] == 1", "a list holds constants"),
        ("effect.x # y", "'#' has no meaning here"),
        ("effect.a.exists(effect, true)", "takes a name of its own"),
        ("effect.a.exists(x, x.exists(y, y.exists(z, z)))", "nests 2 deep"),
        ("", "it ends where a value should be"),
    ] {
        let mistake = Condition::new(source).expect_err(source).to_string();
        assert!(mistake.contains(words), "{source}: {mistake}");
    }
}

#[test]
fn nesting_length_and_cost_are_bounded() {
    for source in [
        format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
        format!("effect{}", ".a".repeat(2000)),
        format!("effect{}", "[0]".repeat(1000)),
        "true ? ".repeat(500),
        "[".repeat(4000),
        "true && ".repeat(1000),
        format!("true{}", " ? true : true".repeat(300)),
        "x".repeat(MAX_SOURCE + 1),
    ] {
        assert!(Condition::new(&source).is_err(), "{source:.40}");
    }
    assert_eq!(holds(&format!("{}true", "!".repeat(4000))), Ok(true));
    assert_eq!(holds(&format!("{}true", "true && ".repeat(500))), Ok(true));

    let effect = Effect {
        attributes: [("n".into(), json!(vec![0; 1000]))].into_iter().collect(),
        ..Effect::of("ssh.exec")
    };
    let command = Command {
        form: "exec".into(),
        text: String::new(),
        attributes: Default::default(),
        effects: vec![],
    };
    let none = Map::new();
    let facts = Facts {
        identity: &none,
        target: &none,
        session: &none,
        command: command.parts(&[]),
        effect: &effect,
        object: OnceCell::new(),
    };
    let square = Condition::new("effect.n.exists(x, effect.n.exists(y, x > y))").unwrap();
    assert_eq!(square.holds(&facts), Err(Failure::TooCostly));
}

#[test]
fn the_attributes_that_it_looks_at_are_known() {
    let condition =
        Condition::new("effect.has_where == false && has(command.params) && effect.action != 'x'")
            .unwrap();
    assert_eq!(condition.attributes(), ["effect.has_where", "command.params"]);
}

proptest! {
    #[test]
    fn no_text_panics(source in "\\PC{0,60}") {
        let _ = Condition::new(&source);
    }

    #[test]
    fn no_condition_of_the_languages_own_words_panics(
        words in proptest::collection::vec(prop_oneof![
            Just("effect"), Just("."), Just("rows"), Just("argv"), Just("("), Just(")"), Just("["),
            Just("]"), Just("=="), Just("&&"), Just("||"), Just("!"), Just("in"), Just("1"),
            Just("'a'"), Just("exists"), Just("x"), Just(","), Just("size"), Just("?"), Just(":"),
            Just("has"), Just("identity"), Just("matches"), Just("-"), Just("null"), Just("<"),
        ], 0..24),
    ) {
        if Condition::new(&words.join(" ")).is_ok() {
            let _ = holds(&words.join(" "));
        }
    }
}
