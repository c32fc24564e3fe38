//! `tests/cases/sql_effects.txt`: a statement a line, its effects indented below it.

use std::collections::BTreeSet;
use std::fs;

use portcullis::decode::sql::{ACTIONS, LexerSettings, Unparsed, Withhold, analyze, view};

use super::lines;

const STATEMENTS: &str = include_str!("../../cases/sql_effects.txt");

/// The statements with the effects that they should have. A statement may go on over lines that
/// begin with a bar.
fn statements() -> Vec<(String, Vec<&'static str>)> {
    let mut statements: Vec<(String, Vec<&str>)> = Vec::new();
    for line in STATEMENTS.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        match (line.strip_prefix("    "), line.strip_prefix('|'), statements.last_mut()) {
            (Some(effect), _, Some((_, effects))) => effects.push(effect),
            (None, Some(more), Some((sql, _))) => {
                sql.push('\n');
                sql.push_str(more);
            }
            _ => statements.push((line.to_owned(), Vec::new())),
        }
    }
    statements
}

#[test]
fn every_statement_has_its_effects() {
    let mut wrong = String::new();
    for (sql, expected) in statements() {
        let found = lines(&sql);
        if found != expected {
            wrong += &format!("{sql}\n    {}\n", found.join("\n    "));
        }
    }
    // With this, the file can be written anew and looked at as a difference.
    if std::env::var_os("PORTCULLIS_WRITE_EFFECTS").is_some() {
        let text: String = statements()
            .iter()
            .map(|(sql, _)| {
                format!("{}\n    {}\n", sql.replace('\n', "\n|"), lines(sql).join("\n    "))
            })
            .collect();
        fs::write("tests/cases/sql_effects.txt", text).unwrap();
    }
    assert!(wrong.is_empty(), "found otherwise:\n{wrong}");
}

#[test]
fn every_action_is_documented_and_shown_by_a_statement() {
    let documentation = include_str!("../../../docs/effects.md");
    let shown: BTreeSet<String> = statements()
        .iter()
        .flat_map(|(sql, _)| super::analysed(sql).statements)
        .flat_map(|statement| statement.effects)
        .map(|effect| effect.action.into_owned())
        .collect();
    for (action, meaning) in ACTIONS {
        assert!(documentation.contains(&format!("| `{action}` | {meaning}")), "{action}");
        assert!(shown.contains(*action) || *action == "sql.unparsed", "{action} is never shown");
    }
    let known: BTreeSet<&str> = ACTIONS.iter().map(|(action, _)| *action).collect();
    assert!(shown.iter().all(|action| known.contains(action.as_str())));
}

#[test]
fn a_text_is_read_as_the_servers_settings_read_it() {
    let off = LexerSettings { standard_conforming_strings: false, ..LexerSettings::default() };
    let sql = r"SELECT '\'; DROP TABLE orders; --'";
    assert_eq!(lines(sql), ["sql.select", r#"sql.drop table:?.orders type="table""#]);
    let found = analyze(sql, off).unwrap();
    assert_eq!(found.effects().map(super::line).collect::<Vec<_>>(), ["sql.select"]);

    let sql = r"SELECT E'a\'b'";
    assert!(analyze(sql, LexerSettings::default()).is_ok());
    let off = LexerSettings { backslash_quote: false, ..LexerSettings::default() };
    assert_eq!(analyze(sql, off), Err(Unparsed::Syntax));
    assert_eq!(analyze("DROP\u{a0}TABLE orders", LexerSettings::default()), Err(Unparsed::Syntax));
    assert_eq!(
        analyze("SELECT 1\0; DROP TABLE x", LexerSettings::default()),
        Err(Unparsed::Syntax)
    );
    let effect = Unparsed::Syntax.effect();
    assert_eq!(super::line(&effect), r#"sql.unparsed reason="syntax""#);
}

#[test]
fn statements_keep_their_places_in_the_text() {
    let sql = " ; SELECT 1 ; /* ä */ DROP TABLE \"ö\" -- end\n;";
    let found = super::analysed(sql);
    let texts: Vec<&str> = found.statements.iter().map(|s| sql[s.range.clone()].trim()).collect();
    assert_eq!(texts, ["SELECT 1", "DROP TABLE \"ö\" -- end"]);
    assert!(super::analysed(" ; ; ").statements.is_empty());
    assert!(super::analysed("-- DROP TABLE orders").statements.is_empty());
}

fn shown(sql: &str, withhold: Withhold) -> String {
    let settings = LexerSettings::default();
    let found = analyze(sql, settings);
    view(sql, settings, found.as_ref().map_err(|reason| *reason), withhold).into_owned()
}

#[test]
fn a_view_without_literals_keeps_only_names_and_words() {
    let sql = r#"SELECT "a'b", 'x', E'\'', $t$ y $t$, U&'z', 1.5e-7, B'01', 'a'
        'b' -- ghp_token
        FROM t WHERE id = $1 /* c /* d */ */ AND x'f' = 7"#;
    let view = shown(sql, Withhold::Literals);
    let view: Vec<&str> = view.split_whitespace().collect();
    assert_eq!(
        view.join(" "),
        r#"SELECT "a'b", ?, ?, ?, ?, ?, ?, ? /*?*/ FROM t WHERE id = $1 /*?*/ AND ? = ?"#
    );
}

#[test]
fn secrets_are_withheld_whatever_the_rules_say() {
    for (sql, view) in [
        ("SELECT 'x' FROM t WHERE a = 1", "SELECT 'x' FROM t WHERE a = 1"),
        ("SELECT 'x' -- c", "SELECT 'x' /*?*/"),
        ("CREATE USER u PASSWORD 'p'; SELECT 'x'", "CREATE USER u PASSWORD ?; SELECT 'x'"),
        ("SELECT 'x'; ALTER ROLE u PASSWORD $$p$$", "SELECT 'x'; ALTER ROLE u PASSWORD ?"),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'host=h password=p' PUBLICATION q",
            "CREATE SUBSCRIPTION s CONNECTION ? PUBLICATION q",
        ),
        (
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'p')",
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (password ?)",
        ),
        ("SET myapp.jwt = 'x'; SET work_mem = '1'", "SET myapp.jwt = ?; SET work_mem = '1'"),
        ("SELECT set_config(x, 'y', true) FROM t", "SELECT set_config(x, ?, true) FROM t"),
        (
            "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'h', api_key 'k')",
            "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host ?, api_key ?)",
        ),
        ("SELECT dblink_connect('password=p')", "SELECT dblink_connect(?)"),
        ("SELECT crypt('p', gen_salt('bf'))", "SELECT crypt(?, gen_salt(?))"),
        ("COPY t FROM PROGRAM 'curl -u a:p x'", "COPY t FROM PROGRAM ?"),
        ("DO $$BEGIN ALTER ROLE u PASSWORD 'p'; END$$", "DO ?"),
        ("DO $$BEGIN DELETE FROM t; END$$", "DO $$BEGIN DELETE FROM t; END$$"),
        ("ALTER USR u PASSWORD 'p'", "ALTER USR u PASSWORD ?"),
        ("SELECT 'it''s', 'open", "SELECT ?, ?"),
    ] {
        assert_eq!(shown(sql, Withhold::Secrets), view);
    }
}
