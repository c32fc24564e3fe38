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
    recorded_on(&Database::fresh(), session)
}

fn recorded_on(database: &Database, session: impl FnOnce(&mut Talk)) -> Gateway {
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
    report_with(file, &[])
}

fn report_with(file: &Path, more: &[&str]) -> Value {
    serde_json::from_slice(&backtest(file, &[&["--json"], more].concat()).stdout).unwrap()
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
    let [reason] = &undecidable["undecidable_by_reason"].as_array().unwrap()[..] else {
        panic!("{undecidable}")
    };
    let why = "the rule text looks at the text, of which something was withheld from the recording";
    assert_eq!((&reason["reason"], &reason["count"]), (&json!(why), &json!(1)));
    assert!(reason["example"]["text"].as_str().unwrap().starts_with("select 1"), "{reason}");
    let claims = "\n[[rule]]\nname = \"crew\"\nwhen = \"identity.claims.azp == 'crew'\"\nverdict = \"block\"\n";
    assert_eq!(report(&with_rules(&gateway, claims))["undecidable"], 6);
    let said = told(&backtest(&with_rules(&gateway, claims), &[]));
    let (_, reason) = said.split_once("\nundecidable: 6, first in ").unwrap();
    let (first, reason) = reason.split_once('\n').unwrap();
    assert!(first.ends_with(": create table t (i int, note text)"), "{said}");
    let why = "  the rule crew looks at claims of the caller, which recordings do not hold";
    assert!(reason.starts_with(why), "{said}");

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
    let online = report_with(&gateway.configuration(), &["--online"]);
    assert_eq!(
        (&online["unchanged"], &online["masks"]["instead"]["count"]),
        (&json!(3), &json!(1))
    );
    let refused = online["masks"]["refused"].as_array().unwrap();
    let counts = |key: &str| refused.iter().map(|kind| kind[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((counts("count"), counts("before")), (2, 2), "{online}");
    let text = fs::read_to_string(gateway.configuration()).unwrap();
    let bare = gateway.configuration().with_file_name("bare.toml");
    fs::write(&bare, text.replace(MASK, "").replace(ROWS, "")).unwrap();
    let bare = report(&bare);
    assert_eq!((&bare["undecidable"], &bare["unchanged"]), (&json!(2), &json!(1)), "{bare}");
    let reason = &bare["undecidable_by_reason"][0];
    let why = "masks or row filters refused it, and the target has none in this configuration";
    assert_eq!((&reason["reason"], &reason["count"]), (&json!(why), &json!(2)), "{bare}");
}

const DRAFT: &str = r#"
[[mask]]
name = "mails"
columns = ["public.t.email"]
unless_groups = ["dba"]

[[rows]]
name = "own-tenant"
table = "public.u"
where = "tenant = {claim.tenant}"

[[rule]]
name = "whole-table"
actions = ["sql.delete"]
when = "effect.has_where == false"
verdict = "block"
"#;

/// What the catalog says counts for what was recorded when nothing was masked.
#[test]
fn the_catalog_says_what_masks_of_a_draft_would_do() {
    let database = Database::fresh();
    let tables = "create table t (i int, email text); create table u (tenant text)";
    assert!(run(&database.client(), tables).0);
    let gateway = recorded_on(&database, |talk| {
        talk.ask(&[query("select 1")]);
        talk.ask(&[query("insert into t values (1, 'a@example.com')")]);
        talk.ask(&[query("select count(*) from t where email like 'a%'")]);
        talk.ask(&[parse("s", "select email from t where i = $1")]);
        let run = |value: &str| [bind("", "s", &[value]), execute("")].concat();
        talk.ask(&[run("1"), run("2"), sync()]);
        talk.ask(&[query("create view v as select email from t")]);
        talk.ask(&[query("create view w as select email from t")]);
        talk.ask(&[query("select email /* of whom? */ from t")]);
        talk.ask(&[query("select tenant from u")]);
        talk.ask(&[query("truncate u")]);
        talk.ask(&[query("delete from t")]);
        talk.ask(&[query("select email frm t")]);
    });
    let draft = with_rules(&gateway, DRAFT);
    let (without, online) = (report(&draft), report_with(&draft, &["--online"]));
    assert_eq!(without.get("masks"), None, "{without}");
    for key in ["commands", "unchanged", "undecidable", "changed"] {
        assert_eq!(without[key], online[key], "{key}");
    }
    let masks = &online["masks"];
    assert_eq!(masks["instead"]["count"], 3, "{masks}");
    let example = &masks["instead"]["example"]["text"];
    assert_eq!(example, "select count(*) from t where email like 'a%'");
    assert!(masks["instead"]["sent"].as_str().unwrap().contains("[masked]"), "{masks}");
    // A comment was withheld, and claims are not recorded.
    assert_eq!((&masks["undecidable"], &masks["same"]), (&json!(3), &json!(2)), "{masks}");
    let [claim, comment] = &masks["undecidable_by_reason"].as_array().unwrap()[..] else {
        panic!("{masks}")
    };
    assert_eq!((&claim["count"], &comment["count"]), (&json!(2), &json!(1)), "{masks}");
    assert_eq!(claim["example"]["text"], "select tenant from u");
    let why = "the row filter own-tenant needs the claim \"tenant\", which recordings do not hold";
    assert!(claim["reason"].as_str().unwrap().starts_with(why), "{masks}");
    assert!(comment["reason"].as_str().unwrap().contains("was withheld"), "{masks}");
    let [refused] = &masks["refused"].as_array().unwrap()[..] else { panic!("{masks}") };
    assert_eq!((&refused["by"], &refused["count"]), (&json!(["mails"]), &json!(2)), "{masks}");
    assert_eq!(refused["example"]["text"], "create view v as select email from t");
    assert_eq!(online["unreachable"], json!([]));

    // With the claim that every caller has.
    let masks = &report_with(&draft, &["--online", "--claim", "tenant=acme"])["masks"];
    let by_rows = masks["refused"].as_array().unwrap().iter().find(|kind| kind["count"] == 1);
    let truncate = &by_rows.unwrap()["example"]["text"];
    assert_eq!(truncate, "truncate u", "{masks}");
    assert_eq!((&masks["instead"]["count"], &masks["undecidable"]), (&json!(4), &json!(1)));

    let said = told(&backtest(&draft, &["--online"]));
    for words in [
        "masks and row filters: 2 sent as they are, 3 answered otherwise, 2 refused, 3 undecidable",
        "answered otherwise, masked or filtered before the server computes: 3, first in ",
        "refused by mails: 2, first in ",
        "\nundecidable for masks and row filters: 2, first in ",
        ": select tenant from u\n  the row filter own-tenant needs the claim \"tenant\"",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }

    // A target that cannot be asked leaves its statements undecidable, and the rules count as before.
    let text = fs::read_to_string(&draft).unwrap();
    let (before, after) = text.split_once("address = \"").unwrap();
    let gone = draft.with_file_name("gone.toml");
    let rest = after.split_once('"').unwrap().1;
    fs::write(&gone, format!("{before}address = \"127.0.0.1:1\"{rest}")).unwrap();
    let online = report_with(&gone, &["--online"]);
    assert_eq!(online["unchanged"], without["unchanged"]);
    assert_eq!(online["unreachable"][0]["target"], "orders", "{online}");
    assert_eq!(online["masks"]["undecidable"], 10, "{online}");
    let reason = online["masks"]["undecidable_by_reason"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the catalog of orders, database "), "{online}");
    let said = told(&backtest(&gone, &["--online"]));
    assert!(
        said.contains("target orders, database ") && said.contains("cannot be asked"),
        "{said}"
    );
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
