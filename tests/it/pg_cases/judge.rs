//! What a row needs, and whether that came of it.

use crate::support::talk::{Talk, query};

use super::{Plan, Row, Stage, elsewhere, scripts};

/// What is masked or denied, as it stands in the schema.
pub const SENTINELS: &[&str] = &[
    "alice.secret",
    "bob.secret",
    "zoe.secret",
    "kid.secret",
    "078-05-1120",
    "219-09-9999",
    "457-55-5462",
    "111-22-3333",
    "4111111111111111",
    "5500005555555559",
    "340000000000009",
    "4000000000000002",
    "TOPSECRET",
];

/// How a row is held.
pub fn plan(row: &Row) -> Plan {
    if let Some(script) = scripts::of(row.id) {
        return script;
    }
    if let Some(tests) = elsewhere::of(row.id) {
        return tests;
    }
    match row.expected {
        expected if expected.starts_with("allow") => Plan::Passes,
        // Conditions that are always true.
        "documented limit; use row-count guard / approval for DELETE, not a `has WHERE` test"
        | "documented limit or approve" => Plan::Limit,
        "documented: row type only" | "documented: metadata allowed or blocked by policy" => {
            Plan::Refused
        }
        "block:masked-source-write"
        | "block: masked column as argument of a volatile function"
        | "block; NotificationResponse must pass the masker"
        | "block or mask: pg_stats/pg_statistic" => Plan::Masked { or_refused: true },
        "block" if row.class == "covert" => Plan::Masked { or_refused: true },
        expected if expected.starts_with("block") || expected.starts_with("approve") => {
            Plan::Refused
        }
        expected if expected.starts_with("mask or block") || expected.contains("or refuse") => {
            Plan::Masked { or_refused: true }
        }
        expected if expected.starts_with("mask") => Plan::Masked { or_refused: false },
        expected if expected.starts_with("strict") || expected.starts_with("refuse masked") => {
            Plan::Strict
        }
        other => panic!("{}: {other}", row.id),
    }
}

/// Refused, by one error; the session goes on and nothing has happened.
pub fn refused(stage: &Stage<'_>) {
    let mut talk = stage.talk();
    let mut said = talk.ask(&[query(&stage.row.sql)]);
    // Nobody approves.
    said.retain(|line| !line.starts_with("N[00000: the command waits for approval"));
    assert!(said.len() == 2 && said[0].starts_with("E[42501: ") && said[1] == "ZI", "{said:?}");
    assert_eq!(talk.ask(&[query("select 1")]), ["T(1)", "D[1]", "C[SELECT 1]", "ZI"]);
    stage.is_intact();
}

/// The same is said as without a gateway.
pub fn passes(stage: &Stage<'_>) {
    let (mut direct, database) = directly(stage);
    let expected = direct.ask(&[query(&stage.row.sql)]);
    let said = stage.talk().ask(&[query(&stage.row.sql)]);
    assert_eq!(said, expected, "{database}");
}

/// Nothing that is masked comes out, not even in another form: no value of the statement's results
/// is what it is without a gateway, but for what is not masked.
pub fn masked(stage: &Stage<'_>, or_refused: bool) {
    let (mut direct, _) = directly(stage);
    let expected = direct.ask(&[query(&stage.row.sql)]);
    let mut talk = stage.talk();
    let said = talk.ask(&[query(&stage.row.sql)]);
    let leaked = leaks(stage.row.class, &expected, &said, talk.received());
    assert!(leaked.is_empty(), "{leaked:?} shown: {said:?}");
    let refused = said.iter().any(|line| line.starts_with("E[42501"));
    assert!(or_refused || !refused, "{said:?}");
    let after = talk.ask(&[query("rollback; select 1")]);
    assert!(after.contains(&"D[1]".to_owned()), "{after:?}");
}

/// What of the masked and denied values comes out: as it stands in the schema, or as it comes out of
/// the statement without anything before it.
pub fn leaks(class: &str, expected: &[String], said: &[String], received: &[u8]) -> Vec<String> {
    let told = String::from_utf8_lossy(received).to_lowercase();
    let whole = SENTINELS.iter().filter(|sentinel| told.contains(&sentinel.to_lowercase()));
    let made = expected.iter().flat_map(|line| values(line)).filter(|value| {
        !is_open(value, class) && said.iter().any(|line| values(line).contains(value))
    });
    whole.map(|sentinel| (*sentinel).to_owned()).chain(made).collect()
}

/// The values of a row, as they are told.
fn values(line: &str) -> Vec<String> {
    let Some(row) = line.strip_prefix("D[").or_else(|| line.strip_prefix("d[")) else {
        return Vec::new();
    };
    let row = row.strip_suffix(']').unwrap_or(row);
    row.split(['|', '\t']).map(str::to_owned).collect()
}

/// Whether a value may be told: it is of a column that is not masked, or of no column.
fn is_open(value: &str, class: &str) -> bool {
    let expression = ["mask-expression", "mask-aggregate"].contains(&class);
    let number = value.len() <= 2 && value.bytes().all(|byte| byte.is_ascii_digit());
    // A line of names.
    value.starts_with("id,name,email")
        || ["", "NULL", "n/a", "x", "Alice", "Bob", "Zoe", "Kid", "t", "f"].contains(&value)
        || value.starts_with("+1555")
        || (number && !expression)
        // A small number in binary.
        || (value.len() == 4 && value.starts_with("\0\0\0") && !expression)
}

/// A session without a gateway, in a database of its own.
fn directly(stage: &Stage<'_>) -> (Talk, String) {
    let database = stage.row.database("direct");
    stage.site.make(&database);
    (stage.direct(&database), database)
}
