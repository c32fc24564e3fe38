//! `portcullis policy backtest`: recorded commands, decided anew by another configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::masking::run;
use crate::support::client::Database;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::random::amount;
use crate::support::talk::{Talk, bind, execute, parse, query, sync};

/// A gateway without rules, and what a session did there.
fn recorded(session: impl FnOnce(&mut Talk)) -> Gateway {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup::for_targets([database.target("orders")]));
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    session(&mut talk);
    drop(talk);
    assert!(gateway.stop().success());
    gateway
}

/// The gateway's configuration with these rules behind it, in another file.
fn with_rules(gateway: &Gateway, rules: &str) -> PathBuf {
    let file = gateway.configuration().with_file_name("new.toml");
    let text = fs::read_to_string(gateway.configuration()).unwrap();
    fs::write(&file, text + rules).unwrap();
    file
}

fn backtest(file: &Path, more: &[&str]) -> Output {
    let command = ["policy", "backtest", "--config", file.to_str().unwrap()];
    let arguments = [&command[..], more].concat();
    let output = portcullis(&arguments);
    assert!(output.status.success(), "{}", told(&output));
    output
}

fn report(file: &Path) -> Value {
    serde_json::from_slice(&backtest(file, &["--json"]).stdout).unwrap()
}

#[test]
fn recorded_commands_are_decided_anew_by_other_rules() {
    let gateway = recorded(|talk| {
        talk.ask(&[query("create table t (i int, note text)")]);
        talk.ask(&[query("insert into t values (1, 'a'); select * from t")]);
        talk.ask(&[query("delete from t")]);
        let delete = parse("s", "delete from t where i = $1");
        talk.ask(&[delete, bind("", "s", &["1"]), execute(""), bind("", "s", &["2"])]);
        talk.ask(&[execute(""), sync()]);
        talk.ask(&[query("select 1 /* a comment */")]);
    });
    let same = report(&gateway.configuration());
    assert_eq!((&same["sessions"], &same["commands"]), (&json!(1), &json!(6)));
    assert_eq!((&same["unchanged"], &same["changed"]), (&json!(6), &json!([])));

    let rules = r#"
[[rule]]
name = "whole-table"
actions = ["sql.delete"]
when = "effect.has_where == false"
verdict = "block"

[[rule]]
name = "second-row"
actions = ["sql.delete"]
when = "has(command.parameters) && command.parameters[0] == '2'"
verdict = "block"
"#;
    let changed = report(&with_rules(&gateway, rules));
    // What a comment said is not recorded, and a rule looks at more than effects.
    assert_eq!((&changed["unchanged"], &changed["undecidable"]), (&json!(3), &json!(1)));
    let changed = changed["changed"].as_array().unwrap();
    let by = |rule: &str| changed.iter().find(|change| change["rules"] == json!([rule])).unwrap();
    assert_eq!(by("whole-table")["count"], 1);
    assert_eq!(by("whole-table")["example"]["text"], "delete from t");
    assert_eq!(
        (&by("second-row")["from"], &by("second-row")["to"]),
        (&json!("allow"), &json!("block"))
    );
    assert_eq!(by("second-row")["example"]["text"], "delete from t where i = $1");

    // What the recording does not hold cannot be decided.
    let by_text = "\n[[rule]]\nname = \"text\"\ntext = \"comment\"\nverdict = \"block\"\n";
    let undecidable = report(&with_rules(&gateway, by_text));
    assert_eq!((&undecidable["undecidable"], &undecidable["unchanged"]), (&json!(1), &json!(5)));
    let claims = "\n[[rule]]\nname = \"crew\"\nwhen = \"identity.claims.azp == 'crew'\"\nverdict = \"block\"\n";
    assert_eq!(report(&with_rules(&gateway, claims))["undecidable"], 6);

    // A target that is gone, and words for people.
    let text = fs::read_to_string(gateway.configuration()).unwrap();
    let gone = gateway.configuration().with_file_name("gone.toml");
    fs::write(&gone, text.replace("name = \"orders\"", "name = \"others\"")).unwrap();
    assert_eq!(report(&gone)["no_target"], 6);
    let said = told(&backtest(&with_rules(&gateway, rules), &[]));
    assert!(said.starts_with("6 commands of 1 sessions: 3 as before, 2 otherwise"), "{said}");
    assert!(said.contains("allow -> block by whole-table: 1, first in "), "{said}");
}

/// Whether a mask can be applied only the catalog tells: what masks refused is not opened by a draft.
#[test]
fn what_masks_refused_counts_as_refused_again() {
    const MASK: &str = "\n[[mask]]\nname = \"mails\"\ncolumns = [\"public.t.email\"]\n";
    const ROWS: &str = "\n[[rows]]\nname = \"own\"\ntable = \"public.t\"\nwhere = \"i = 1\"\n";
    let database = Database::fresh();
    assert!(run(&database.client(), "create table t (i int, email text)").0);
    let gateway = Gateway::start(&Setup {
        policy: format!("{MASK}{ROWS}"),
        ..Setup::for_targets([database.target("orders")])
    });
    let token = gateway.issuer().token("agent");
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &token);
    for refused in ["create view v as select email from t", "truncate t"] {
        let said = talk.ask(&[query(refused)]).join(" ");
        assert!(said.contains("E[42501"), "{said}");
    }
    assert!(talk.ask(&[query("select email from t")]).join(" ").contains("C[SELECT 0]"));
    drop(talk);
    assert!(gateway.stop().success());

    let same = report(&gateway.configuration());
    assert_eq!((&same["commands"], &same["unchanged"]), (&json!(3), &json!(3)), "{same}");
    let text = fs::read_to_string(gateway.configuration()).unwrap();
    let bare = gateway.configuration().with_file_name("bare.toml");
    fs::write(&bare, text.replace(MASK, "").replace(ROWS, "")).unwrap();
    let bare = report(&bare);
    assert_eq!((&bare["undecidable"], &bare["unchanged"]), (&json!(2), &json!(1)), "{bare}");
}

#[test]
fn many_commands_take_less_than_a_minute() {
    const A_STEP: usize = 2_000;
    let steps = amount("PORTCULLIS_BACKTEST_STEPS", 5);
    let gateway = recorded(|talk| {
        talk.ask(&[parse("s", "select i from generate_series(1, $1) i where i % 7 = 0"), sync()]);
        let step = [bind("", "s", &["0"]), execute("")].concat().repeat(A_STEP);
        for _ in 0..steps {
            talk.ask(&[step.clone(), sync()]);
        }
    });
    let mut rules = String::new();
    for at in 0..20 {
        rules += &format!(
            "[[rule]]\nname = \"rule-{at}\"\nactions = [\"sql.*\"]\n\
             objects = [\"table:public.t_{at}\"]\nverdict = \"block\"\n"
        );
    }
    let file = with_rules(&gateway, &rules);
    let begun = Instant::now();
    let report = report(&file);
    let took = begun.elapsed();
    assert_eq!(report["unchanged"], steps * A_STEP, "{report}");
    println!("{} commands in {took:?}", report["commands"]);
    assert!(took < Duration::from_secs(60), "{took:?}");
}
