//! The rows of `tests/cases/pg_cases.tsv` that are statements, under the policy that they assume,
//! written here as predicates over effects. What masking must do later rests on the effects too:
//! a row that leaks must be seen to touch what is protected.

use std::collections::BTreeMap;

use portcullis::decode::sql::{LexerSettings, analyze};
use portcullis::policy::{Effect, Object, Pattern};

/// The file as it was when these expectations were written.
const HASH: &str = "83d82542ded034612bba73d555ce5f7c8378c1b112e249cb82d4f869e455dbc7";
const CASES: &str = include_str!("../../cases/pg_cases.tsv");

/// Rows about the protocol, not about what one text does.
const OTHER_CLASSES: &[&str] = &[
    "async",
    "cancel",
    "extended",
    "extended-approval",
    "fidelity",
    "framing",
    "identity",
    "lifecycle",
    "mask-scope",
    "mask-type",
    "overflow",
    "record",
    "regex-dos",
    "replication",
    "scs",
    "startup",
    "tls-injection",
    "encoding",
    "parser-dos",
];

/// Tables, views and columns that the policy protects from eyes.
const MASKED: &[&str] = &[
    "column:public.customers.email",
    "column:public.customers.ssn",
    "column:public.customers.card_number",
    "column:public.cust_child.*",
    "column:public.mv_customers.contact",
    "column:public.people.email",
    "column:public.people_p1.email",
    "column:public.v_customers.contact",
    "column:public.v_same.*",
    "function:public.cur_contacts",
    "function:public.get_contact",
    "function:public.list_contacts",
];

/// `secrets` under both its names, and catalogs that show contents.
const DENIED: &[&str] = &[
    "table:public.secrets",
    "table:public.aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123",
    "table:pg_catalog.pg_authid",
    "table:pg_catalog.pg_shadow",
    "table:pg_catalog.pg_statistic*",
    "table:pg_catalog.pg_stats*",
];

fn could_be_any(effect: &Effect, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| could_be(effect, &pattern.parse().unwrap()))
}

/// Whether the effect's object, or a column of it that the effect names, may be meant.
fn could_be(effect: &Effect, pattern: &Pattern) -> bool {
    let Some(object) = &effect.object else { return false };
    let column = |name: &String| {
        let table = object.parts().map(|part| part.map(str::to_owned));
        Object::new("column", table.chain([(name != "*").then(|| name.clone())]))
    };
    object.could_match(pattern)
        || (object.kind() == "table"
            && effect.columns.iter().any(|name| column(name).could_match(pattern)))
}

/// Whether the rule of that name meets the effect.
fn meets(rule: &str, effect: &Effect) -> bool {
    let action = effect.action.strip_prefix("sql.").unwrap();
    let object = effect.object.as_ref();
    let on = |kind: &str| object.is_some_and(|object| object.kind() == kind);
    match rule {
        "deny-drop" => action == "drop",
        "deny-truncate" => action == "truncate",
        "no-where" => {
            ["update", "delete"].contains(&action)
                && effect.attributes["where_names_column"] == false
        }
        "deny-table" => could_be_any(effect, DENIED),
        "deny-func" => [
            "alter-system",
            "copy-file",
            "copy-program",
            "dynamic",
            "file",
            "inspect",
            "load",
            "remote",
            "server",
            "sleep",
        ]
        .contains(&action),
        "deny-session" => {
            action == "set-role"
                || action == "set"
                    && could_be_any(
                        effect,
                        &["setting:session_replication_role", "setting:*transaction_read_only"],
                    )
        }
        "ddl" => ["create", "alter", "drop", "comment", "security-label"].contains(&action),
        "grant" => {
            ["grant", "revoke"].contains(&action)
                || on("role") && ["create", "alter"].contains(&action)
        }
        "dynamic" => ["do", "call"].contains(&action) || action == "create" && on("function"),
        "lock" => action == "lock",
        "set" => action == "set",
        "mask" => could_be_any(effect, MASKED),
        "lookup" => action == "lookup",
        "unparsed" => action == "unparsed",
        _ => panic!("no rule {rule}"),
    }
}

/// The rules of which one at least must meet a statement with that expectation; none, when it must
/// pass.
fn required(id: &str, expected: &str) -> &'static [&'static str] {
    match expected {
        _ if expected.starts_with("allow") => &[],
        // Said to be limits: a condition that is always true.
        "documented limit; use row-count guard / approval for DELETE, not a `has WHERE` test"
        | "documented limit or approve" => &[],
        "documented: row type only" => &["ddl"],
        "documented: metadata allowed or blocked by policy" => &["lookup"],
        _ if expected.contains("deny-drop") => &["deny-drop"],
        _ if expected.contains("deny-truncate") => &["deny-truncate"],
        _ if expected.contains("no-where") => &["no-where"],
        _ if expected.contains("deny-table") => &["deny-table"],
        _ if expected.contains("deny-func") => &["deny-func"],
        _ if expected.contains("deny-session") => &["deny-session"],
        _ if expected.contains("approve:grant") => &["grant"],
        _ if expected.contains("approve:ddl") => &["ddl"],
        _ if expected.contains("dynamic") || expected.contains("(DO)") => &["dynamic"],
        _ if expected.contains("unparsable") => &["unparsed"],
        _ if expected.contains("pg_stats") => &["deny-table"],
        _ if expected.contains("names the table") => &["deny-table"],
        _ if expected.contains("structure only") => &["deny-table"],
        _ if expected.contains("protected GUC") => &["deny-session"],
        _ if expected.contains("lock released") => &["lock"],
        // An upsert of rows that nothing limits; the rest of ALTER SYSTEM and LOAD.
        "block or approve" => &["no-where"],
        "block" if id == "F17" || id == "F19" => &["deny-func"],
        // Masked, or refused because it would have to be: seen to touch the protected, either way.
        _ => &["mask"],
    }
}

#[test]
fn every_hostile_statement_has_an_effect_that_its_rule_meets() {
    assert_eq!(blake3::hash(CASES.as_bytes()).to_hex().as_str(), HASH, "the file has changed");
    let (mut checked, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for row in CASES.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        let (id, class, expected) = (fields[0], fields[1], fields[4]);
        if OTHER_CLASSES.contains(&class) || has_protocol_notation(fields[2]) {
            continue;
        }
        let sql = unescape(fields[2]);
        let effects: Vec<Effect> = match analyze(&sql, LexerSettings::default()) {
            Ok(analysis) => analysis.effects().cloned().collect(),
            Err(reason) => vec![reason.effect()],
        };
        let found: Vec<String> = effects.iter().map(super::line).collect();
        let rules = required(id, expected);
        let all = [
            "deny-drop",
            "deny-truncate",
            "no-where",
            "deny-table",
            "deny-func",
            "deny-session",
            "ddl",
            "grant",
            "dynamic",
            "mask",
            "unparsed",
        ];
        let met = |rule: &&str| effects.iter().any(|effect| meets(rule, effect));
        let right = match rules {
            [] => !all.iter().any(&met),
            rules => rules.iter().any(met),
        };
        *checked.entry(rules.first().copied().unwrap_or("pass")).or_default() += 1;
        if !right {
            wrong.push(format!("{id} {expected}: {sql}\n    {}", found.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rows: usize = checked.values().sum();
    println!("{rows} rows: {checked:?}");
    assert!(rows >= 175, "only {rows} rows were checked");
}

fn has_protocol_notation(sql: &str) -> bool {
    sql.starts_with("startup ")
        || sql.starts_with("F (")
        || sql.contains(" | Q:")
        || sql.starts_with("Q:")
        || sql.starts_with("one segment")
        || sql.starts_with("cell of")
        || sql.starts_with("column value")
        || sql.starts_with("session A")
        || sql.starts_with("COPY customers TO STDOUT while")
        || sql.starts_with("LISTEN ch in A")
        || sql.starts_with("10,000")
        || sql.starts_with("every byte")
        || sql.starts_with("token expires")
}

/// Undoes the file's backslash escapes.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let (c, length) = match after.as_bytes().first() {
            Some(b't') => ('\t', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b'f') => ('\x0c', 1),
            Some(b'v') => ('\x0b', 1),
            Some(b'0') => ('\0', 1),
            Some(b'u') => {
                let code = u32::from_str_radix(&after[1..5], 16).unwrap();
                (char::from_u32(code).unwrap(), 5)
            }
            _ => ('\\', 1),
        };
        text.push(c);
        rest = &after[length..];
    }
    text + rest
}
