//! What holds of any statement that is masked at the source, whatever is masked in it.
//!
//! Each table that a statement reads is masked in turn: a column that the statement names, and one
//! that it does not. `PORTCULLIS_REGRESSION_SQL` adds PostgreSQL's regression SQL, as `scripts/soak
//! sql` makes it: one JSON object a line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis::decode::sql::rewrite::{
    MaskedRelation, Refusal, Relations, Resolved, Rewritten, Shown, rewrite,
};
use portcullis::decode::sql::{How, LexerSettings, Statement, Use, analyze};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{column, known};

/// Statements to start from, one a line.
const FILES: [&str; 2] =
    [include_str!("../../../cases/sql_effects.txt"), include_str!("../../../cases/inference.sql")];

/// What stands in the place of masked columns.
const MASK: &str = "'stands for it'::pg_catalog.text";

/// A column that no statement names.
const UNNAMED: &str = "a column that no statement names";

/// One table with masked columns.
struct One<'a> {
    schema: Option<&'a str>,
    name: &'a str,
    relation: Arc<MaskedRelation>,
}

impl Relations for One<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Resolved {
        // Without a schema either table could be meant.
        let other = matches!((self.schema, schema), (Some(own), Some(named)) if own != named);
        match name == self.name && !other {
            true => Resolved::Masked(Arc::clone(&self.relation)),
            false => Resolved::Clear,
        }
    }

    fn is_opaque(&self, _: Option<&str>, _: &str) -> bool {
        false
    }
}

/// PostgreSQL's answer to a statement that names a table or an alias that is not there.
const NO_SUCH_TABLE: &str = "42P01";

/// Each statement once, with what PostgreSQL answered whenever it ran, where that is known.
fn statements() -> BTreeMap<String, BTreeSet<String>> {
    let lines = FILES.iter().flat_map(|file| file.lines());
    let is_one = |line: &&str| !line.is_empty() && !line.starts_with([' ', '#', '|']);
    let mut statements: BTreeMap<_, BTreeSet<String>> =
        lines.filter(is_one).map(|line| (line.to_owned(), BTreeSet::new())).collect();
    if let Some(file) = std::env::var_os("PORTCULLIS_REGRESSION_SQL") {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            statements.entry(text("sql")).or_default().insert(text("server"));
        }
    }
    statements
}

/// A table with the columns that statements name, of which one is masked, and an unnamed one that is.
fn relation(named: &BTreeSet<&str>, masked: Option<&str>) -> Arc<MaskedRelation> {
    let shown = |name: &str| match masked == Some(name) || name == UNNAMED {
        true => Shown::Masked(MASK.to_owned()),
        false => Shown::Clear,
    };
    let names = named.iter().copied().chain([UNNAMED]);
    let columns: Vec<_> = names.map(|name| column(name, shown(name))).collect();
    Arc::new(MaskedRelation::new(&columns, true).unwrap())
}

/// Whether a column's value may come out, be computed with or pick rows.
fn looks(used: &Use) -> bool {
    [How::OUTPUT, How::COMPUTED, How::FILTER].iter().any(|how| used.how.has(*how))
}

/// Places of tables in FROM, of this name.
fn read_at(sql: &str, name: &str) -> Vec<usize> {
    let tree =
        format!("{:?}", pg_query::parse(sql, pg_query::ParserOptions::default()).unwrap().protobuf);
    let field = |table: &str, field: &str| {
        let from = table.find(field).unwrap() + field.len();
        table[from..].split([',', ' ']).next().unwrap().to_owned()
    };
    let tables = tree.split("RangeVar(RangeVar { ").skip(1);
    let named = format!("{name:?}");
    // A common table expression of this name is another.
    if tree.contains(&format!("ctename: {named}")) {
        return Vec::new();
    }
    let of_name = tables.filter(|table| field(table, "relname: ") == named);
    of_name.map(|table| field(table, " location: ").parse().unwrap()).collect()
}

/// What is wrong with a text that was rewritten so that nothing of this table's columns is read.
fn wrong(sql: &str, sent: &Rewritten, one: &One<'_>, masked: Option<&str>) -> Option<&'static str> {
    let Ok(again) = analyze(&sent.text, LexerSettings::default()) else {
        return Some("it does not parse");
    };
    if again.statements.len() != sent.statements.len() {
        return Some("it has another number of statements");
    }
    let reads = |used: &Use| {
        let of = used.table.name() == Some(one.name);
        of && looks(used) && (masked == Some(&*used.column) || *used.column == *UNNAMED)
    };
    for (statement, remaining) in again.statements.iter().zip(&sent.statements) {
        if remaining.is_some() && statement.uses.iter().any(reads) {
            return Some("it reads what is masked");
        }
        if remaining.iter().flat_map(|remaining| &remaining.uses).any(reads) {
            return Some("it is said to read what is masked");
        }
    }
    let names_masked = |list: &str| {
        let hidden = masked.into_iter().chain([UNNAMED]);
        let names = hidden.map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
        names.into_iter().any(|name| list.replace(&format!("{MASK} AS {name}"), "").contains(&name))
    };
    for at in read_at(&sent.text, one.name) {
        let before = &sent.text[..at];
        let list = before.rfind("SELECT ").map_or("", |from| &before[from..]);
        // COPY of some columns names no others.
        let some = sql.to_lowercase().contains("copy") && list.starts_with("SELECT \"");
        if !(list.contains(MASK) || some) || names_masked(list) {
            return Some("the table stands in it by itself");
        }
    }
    let split = |(byte, client): &(usize, usize)| {
        !(sent.text.is_char_boundary(*byte) && sql.is_char_boundary(*client))
    };
    sent.places.iter().any(split).then_some("its places are within characters")
}

/// Tables that a statement reads, each with its columns that are named.
fn tables(statements: &[Statement]) -> BTreeMap<(Option<&str>, &str), BTreeSet<&str>> {
    let mut tables: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for used in statements.iter().flat_map(|statement| &statement.uses) {
        let mut parts = used.table.parts();
        if let (Some(schema), Some(Some(name))) = (parts.next(), parts.next()) {
            let named = tables.entry((schema, name)).or_default();
            named.extend(Some(&*used.column).filter(|column| *column != "*"));
        }
    }
    tables
}

#[test]
fn any_table_of_any_statement_can_be_masked_or_is_refused() {
    let settings = LexerSettings::default();
    let nothing = One { schema: None, name: "no such table", relation: relation(&[].into(), None) };
    let mut failed = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: &str| *counts.entry(what.to_owned()).or_default() += 1;
    for (sql, answers) in statements() {
        let Ok(analysis) = analyze(&sql, settings) else {
            count("not understood");
            continue;
        };
        count("statements");
        match rewrite(&sql, settings, &nothing) {
            Ok(None) => count("name no masked table: unchanged"),
            Ok(Some(sent)) => panic!("{sql}\n{}", sent.text),
            Err(Refusal(reason)) => count(&format!("name no masked table: {reason}")),
        }
        for ((schema, name), named) in tables(&analysis.statements) {
            let choices = [named.first().copied(), named.last().copied(), None];
            let choices: BTreeSet<Option<&str>> = choices.into();
            for masked in choices {
                let one = One { schema, name, relation: relation(&named, masked) };
                match rewrite(&sql, settings, &one) {
                    Ok(Some(sent)) => {
                        if let Some(what) = wrong(&sql, &sent, &one, masked) {
                            failed.push(format!("{what}: {sql}\n{}\n{name} {masked:?}", sent.text));
                        }
                        count("read a masked table: rewritten");
                    }
                    Ok(None) => {
                        let reads = analysis.statements.iter().flat_map(|s| &s.uses).any(|used| {
                            let column = Some(&*used.column);
                            used.table.name() == Some(name) && looks(used) && column == masked
                        });
                        // An index, a statistics object: nothing comes of it but errors.
                        let defines = analysis
                            .effects()
                            .any(|effect| ["sql.create", "sql.alter"].contains(&&*effect.action));
                        // `UPDATE t AS a SET … WHERE t.x > 1`: the alias hides the table, which the
                        // analyzer counts as read all the same.
                        let fails = answers.iter().eq([NO_SUCH_TABLE]);
                        match (reads, defines) {
                            (true, false) if fails => {
                                count("name no table there is, says the server: unchanged");
                            }
                            (true, false) => failed
                                .push(format!("it is sent as it is: {sql}\n{name} {masked:?}")),
                            (true, true) => count("define with a masked table: unchanged"),
                            (false, _) => count("write a masked table: nothing masked in it"),
                        }
                    }
                    Err(Refusal(reason)) => count(&format!("read a masked table: {reason}")),
                }
            }
        }
    }
    for (what, count) in &counts {
        println!("{count:8} {what}");
    }
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n\n"));
    assert!(counts["read a masked table: rewritten"] > 300);
    let excused = counts.get("name no table there is, says the server: unchanged");
    assert!(excused.is_none_or(|excused| excused * 5_000 < counts["statements"]), "{counts:?}");
}

fn any_statement() -> impl Strategy<Value = String> {
    proptest::sample::select(statements().into_keys().collect::<Vec<_>>())
}

/// Bytes that mean something to a scanner, or to what puts a query in the place of a table.
const TRICKY: &str =
    r#"[ '"$\\/*\-\n;(),.:=abuUE&019_ä]{0,12}|customers|hashed c|ONLY \(customers\)|"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_statement_cut_or_changed_anywhere_is_rewritten_or_refused(
        sql in any_statement(), at in any::<Index>(), with in TRICKY,
        strings in any::<bool>(), quote in any::<bool>(),
    ) {
        let settings =
            LexerSettings { standard_conforming_strings: strings, backslash_quote: quote };
        let mut places = sql.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
        places.push(sql.len());
        let (head, tail) = sql.split_at(places[at.index(places.len())]);
        for text in [head.to_owned(), format!("{head}{with}{tail}")] {
            let Ok(Some(sent)) = rewrite(&text, settings, &known()) else { continue };
            let again = analyze(&sent.text, settings);
            prop_assert!(again.is_ok(), "{}\n{}", text, sent.text);
            let hidden = |used: &Use| used.table.name() == Some("customers") && &*used.column == "ssn";
            for (statement, remaining) in again.unwrap().statements.iter().zip(&sent.statements) {
                let reads = statement.uses.iter().any(|used| hidden(used) && looks(used));
                prop_assert!(remaining.is_none() || !reads, "{}\n{}", text, sent.text);
            }
        }
    }
}
