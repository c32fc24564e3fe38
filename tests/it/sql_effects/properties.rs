//! What holds of any text.

use std::collections::BTreeSet;

use portcullis::decode::sql::{Analyzer, LexerSettings, Reading, Withhold, analyze, view};
use proptest::prelude::*;
use proptest::sample::Index;

use super::lines;
use crate::support::random::Random;

/// Statements to start from.
fn statements() -> Vec<&'static str> {
    include_str!("../../cases/sql_effects.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with([' ', '#', '|']))
        .collect()
}

fn any_statement() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(statements())
}

fn any_settings() -> impl Strategy<Value = LexerSettings> {
    (any::<bool>(), any::<bool>()).prop_map(|(strings, quote)| LexerSettings {
        standard_conforming_strings: strings,
        backslash_quote: quote,
    })
}

/// Bytes that mean something to a scanner, more often than not.
const TRICKY: &str = r#"[ '"$\\/*\-\n;(),.:=+@!<>&abeuxnEBUXN019_ä\[\]?]{0,40}"#;

fn check(sql: &str, settings: LexerSettings) {
    let found = analyze(sql, settings);
    for withhold in [Withhold::Secrets, Withhold::Literals] {
        let shown = view(sql, settings, found.as_ref().map_err(|reason| *reason), withhold);
        let again =
            view(&shown, settings, Err(portcullis::decode::sql::Unparsed::Syntax), withhold);
        if withhold == Withhold::Literals {
            // Nothing is left to withhold but our own marks.
            assert!(!again.contains('\'') || again.contains('"'), "{sql:?} {shown:?} {again:?}");
        }
    }
    let reading = Reading::new(sql, settings, found);
    assert_eq!(reading.view_for(|_| false), reading.view(Withhold::Literals), "{sql:?}");
    assert!(reading.clear_parameters(|_| false).is_empty());
    if let Some(error) = reading.syntax_error() {
        let places = 1..=sql.chars().count() + 1;
        assert!(error.position.is_none_or(|at| places.contains(&at)), "{sql:?} {error:?}");
        assert!(error.stored.len() <= error.message.len());
    }
}

/// Words, numbers and signs as tokens of their own, with what stood between them; strings and the
/// like are left whole.
fn respaced(sql: &str, between: &str, upper: bool) -> Option<String> {
    if sql.contains(['\'', '"', '$', '/', '-', '\\', '&']) {
        return None;
    }
    let spaced: Vec<String> = sql
        .split_whitespace()
        .map(|word| if upper { word.to_uppercase() } else { word.to_lowercase() })
        .collect();
    Some(spaced.join(between))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_gets_an_answer(sql in TRICKY, settings in any_settings()) {
        check(&sql, settings);
        check(&format!("SELECT {sql}"), settings);
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        check(&String::from_utf8_lossy(&bytes), LexerSettings::default());
    }

    #[test]
    fn a_statement_cut_or_changed_anywhere_gets_an_answer(
        sql in any_statement(), at in any::<Index>(), with in TRICKY, settings in any_settings(),
    ) {
        let mut places = sql.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
        places.push(sql.len());
        let (head, tail) = sql.split_at(places[at.index(places.len())]);
        check(head, settings);
        check(&format!("{head}{with}{tail}"), settings);
    }

    #[test]
    fn space_comments_and_case_do_not_change_the_effects(
        sql in any_statement(), upper in any::<bool>(),
        between in proptest::sample::select(vec![
            " ", "\n", "\t\r\n", "/**/", "/* ; /* DROP TABLE x */ ' */", " -- ' ; \" \n", "\u{c}",
        ]),
    ) {
        if let Some(changed) = respaced(sql, between, upper) {
            prop_assert_eq!(lines(sql), lines(&changed));
        }
    }

    #[test]
    fn statements_together_have_the_effects_of_each(
        first in any_statement(), second in any_statement(),
    ) {
        let together: Vec<String> = lines(&format!("{first};{second}"));
        let mut each = lines(first);
        each.extend(lines(second));
        prop_assert_eq!(together, each);
    }

    #[test]
    fn a_statement_within_another_keeps_its_tables(sql in any_statement()) {
        // Whatever can stand in PREPARE, COPY, EXPLAIN ANALYZE or a view shows all it does there.
        for (before, after) in [
            ("PREPARE p AS ", ""), ("COPY (", ") TO STDOUT"), ("EXPLAIN ANALYZE ", ""),
            ("CREATE VIEW v AS ", ""), ("CREATE RULE r AS ON INSERT TO t DO ALSO ", ""),
            ("WITH x AS (", ") SELECT 1"), ("DECLARE c CURSOR FOR ", ""),
        ] {
            let outer = format!("{before}{sql}{after}");
            let Ok(found) = analyze(&outer, LexerSettings::default()) else { continue };
            let found: BTreeSet<String> = found.effects().map(super::line).collect();
            for effect in lines(sql).into_iter().filter(|effect| effect != "sql.select") {
                prop_assert!(found.contains(&effect), "{}: {} is missing", outer, effect);
            }
        }
    }
}

/// The same text with other numbers and strings, as scripts and drivers without parameters send it.
fn with_other_literals(sql: &str, random: &mut Random) -> String {
    const TEXTS: &[&str] =
        &["", "x", "a b", "public.secrets", "2020-01-01", "; --", "client_encoding"];
    let mut other = String::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let string = rest.strip_prefix('\'').and_then(|inner| Some(inner.find('\'')? + 2));
        let taken = match string {
            _ if digits > 0 => {
                let bits = 1 + random.below(31);
                other += &random.below(1 << bits).to_string();
                digits
            }
            Some(length) => {
                other += &format!("'{}'", TEXTS[random.below(TEXTS.len())]);
                length
            }
            None => {
                other.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    other
}

/// What is remembered of texts that differ in literals alone is what each of them says.
/// `PORTCULLIS_REGRESSION_SQL` adds PostgreSQL's regression SQL, as `scripts/soak sql` makes it.
#[test]
fn a_text_is_read_the_same_whatever_was_read_before_it() {
    let mut all: BTreeSet<String> = statements().into_iter().map(str::to_owned).collect();
    for file in
        [include_str!("../../cases/inference.sql"), include_str!("../../cases/row_filters.sql")]
    {
        all.extend(file.lines().map(str::to_owned));
    }
    if let Some(file) = std::env::var_os("PORTCULLIS_REGRESSION_SQL") {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            all.insert(row["sql"].as_str().unwrap().to_owned());
        }
    }
    let settings = LexerSettings::default();
    let analyzer = Analyzer::new(16 << 20);
    let mut texts = 0;
    for (number, statement) in all.iter().enumerate() {
        let mut random = Random::numbered(1, number);
        for _ in 0..5 {
            let sql = with_other_literals(statement, &mut random);
            let read = analyzer.read(&sql, settings);
            let alone = Reading::new(&sql, settings, analyze(&sql, settings));
            assert_eq!(*read, alone, "{sql}");
            for withhold in [Withhold::Secrets, Withhold::Literals] {
                assert_eq!(read.view(withhold), alone.view(withhold), "{sql}");
            }
            assert_eq!(read.unparsed(), alone.unparsed(), "{sql}");
            assert_eq!(read.may_change_encoding(), alone.may_change_encoding(), "{sql}");
            texts += 1;
        }
    }
    println!("{texts} texts of {} statements are read as if they were alone", all.len());
    assert!(texts > 1_000);
}
