//! Any text as SQL, under any settings: an answer, a view that shows no literal, and the same answer
//! whatever was read before.

use std::sync::LazyLock;

use portcullis::decode::sql::{Analyzer, LexerSettings, Reading, Withhold, analyze, view};

static ANALYZER: LazyLock<Analyzer> = LazyLock::new(|| Analyzer::new(16 << 20));

/// Takes two bytes, of which one bit each is a setting, and a text.
pub fn run(data: &[u8]) {
    let [conforming, quote, text @ ..] = data else { return };
    let Ok(sql) = std::str::from_utf8(text) else { return };
    let (standard_conforming_strings, backslash_quote) = (conforming & 1 == 1, quote & 1 == 1);
    let settings = LexerSettings { standard_conforming_strings, backslash_quote };
    let found = analyze(sql, settings);
    if let Ok(analysis) = &found {
        for statement in &analysis.statements {
            assert!(!statement.effects.is_empty());
            assert!(sql.get(statement.range.clone()).is_some());
        }
    }
    for withhold in [Withhold::Secrets, Withhold::Literals] {
        let _ = view(sql, settings, found.as_ref().map_err(|reason| *reason), withhold);
    }
    let reading = Reading::new(sql, settings, found);
    assert_eq!(*ANALYZER.read(sql, settings), reading);
    let _ = reading.view_for(|belonging| belonging.at % 2 == 0);
    let _ = reading.clear_parameters(|belonging| !belonging.columns.is_empty());
    if let Some(error) = reading.syntax_error() {
        assert!(error.position.is_none_or(|at| (1..=sql.chars().count() + 1).contains(&at)));
    }
}
