//! PostgreSQL's regression SQL, against what the server says of each statement.
//!
//! `scripts/soak regression-sql` makes the file and runs this over it.

use std::collections::BTreeMap;

use portcullis::decode::sql::{LexerSettings, analyze};
use serde_json::Value;

/// Effects by which a statement is seen to write by itself.
const WRITES: &[&str] = &[
    "sql.alter",
    "sql.alter-system",
    "sql.analyze",
    "sql.checkpoint",
    "sql.cluster",
    "sql.comment",
    "sql.copy-from",
    "sql.create",
    "sql.delete",
    "sql.drop",
    "sql.grant",
    "sql.import",
    "sql.insert",
    "sql.large-object",
    "sql.load",
    "sql.lock",
    "sql.notify",
    "sql.listen",
    "sql.refresh",
    "sql.reindex",
    "sql.revoke",
    "sql.security-label",
    "sql.sequence",
    "sql.server",
    "sql.truncate",
    "sql.two-phase",
    "sql.unlisten",
    "sql.update",
    "sql.vacuum",
    "sql.file",
];

/// Effects of which only the server knows what they do.
const OPAQUE: &[&str] = &[
    "sql.call",
    "sql.do",
    "sql.dynamic",
    "sql.execute",
    "sql.fetch",
    "sql.function",
    "sql.set-constraints",
];

#[test]
fn what_the_server_executes_as_a_write_is_an_effect() {
    let Some(file) = std::env::var_os("PORTCULLIS_REGRESSION_SQL") else { return };
    let text = std::fs::read_to_string(file).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let sql = row["sql"].as_str().unwrap();
        let server = row["server"].as_str().unwrap();
        let settings = LexerSettings {
            standard_conforming_strings: row["standard_conforming_strings"].as_bool().unwrap(),
            ..LexerSettings::default()
        };
        *counts.entry("statements").or_default() += 1;
        let refused = !["write", "done"].contains(&server);
        let analysis = match analyze(sql, settings) {
            Ok(analysis) => analysis,
            Err(reason) => {
                let what = if refused { "unparsed, refused by the server" } else { "unparsed" };
                *counts.entry(what).or_default() += 1;
                if !refused {
                    println!("{reason}: {}", sql.chars().take(200).collect::<String>());
                }
                continue;
            }
        };
        *counts.entry("parsed").or_default() += 1;
        if server != "write" {
            continue;
        }
        let has =
            |of: &[&str]| analysis.effects().any(|effect| of.contains(&effect.action.as_ref()));
        let what = match (has(WRITES), has(OPAQUE)) {
            (true, _) => "writes, seen as such",
            (false, true) => "writes inside something opaque, seen as that",
            (false, false) => {
                wrong.push(sql.to_owned());
                "writes, missed"
            }
        };
        *counts.entry(what).or_default() += 1;
    }
    for (what, count) in &counts {
        println!("{count:8} {what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counts["statements"] >= 15_000);
}
