//! The request view of a text: the SQL without what must not be stored or shown.
//!
//! Literals (strings of every kind, numbers, code in dollar quotes) become `?`, comments `/*?*/`.
//! Names stay, quoted ones too: they are what rules and readers look for.

use std::borrow::Cow;
use std::ops::Range;

use super::lexer::{Kind, Lexer};
use super::{Analysis, LexerSettings, Unparsed};

/// What a view leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withhold {
    /// Comments, and literals that are secret whatever the rules say.
    Secrets,
    /// Comments and every literal.
    Literals,
}

/// The request view of a text that was analysed to `found`; borrowed when it is the text itself.
///
/// A text that is not understood is shown without its literals, whatever `withhold` says.
pub fn view<'a>(
    sql: &'a str,
    settings: LexerSettings,
    found: Result<&Analysis, Unparsed>,
    withhold: Withhold,
) -> Cow<'a, str> {
    match (found, withhold) {
        (Ok(found), Withhold::Secrets) => view_with(sql, settings, |range| {
            let at =
                found.statements.partition_point(|statement| statement.range.end <= range.start);
            found.statements.get(at).is_some_and(|statement| statement.secret)
        }),
        _ => view_with(sql, settings, |_| true),
    }
}

/// Whether what is called so is a password, a key or a token.
pub(super) fn names_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["pass", "secret", "token", "key"].iter().any(|word| lower.contains(word))
}

/// The text without comments, and without the literals that `withheld` names by their bytes.
pub(super) fn view_with(
    sql: &str,
    settings: LexerSettings,
    mut withheld: impl FnMut(Range<usize>) -> bool,
) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut copied = 0;
    // The token before is a name of what must not be shown: PASSWORD, OPTIONS (api_key …).
    let mut is_named = false;
    for token in Lexer::new(sql, settings) {
        let after_name = std::mem::take(&mut is_named);
        let instead = match token.kind {
            Kind::Comment => {
                is_named = after_name;
                "/*?*/"
            }
            // Where it ends is not known, so neither what it is.
            Kind::Unterminated => "?",
            Kind::String | Kind::UnicodeString
                if after_name || withheld(token.start..token.end) =>
            {
                "?"
            }
            Kind::Number if withheld(token.start..token.end) => "?",
            Kind::Word | Kind::QuotedName | Kind::UnicodeName => {
                is_named = names_secret(sql.get(token.start..token.end).unwrap_or_default());
                continue;
            }
            _ => continue,
        };
        shown.push_str(sql.get(copied..token.start).unwrap_or_default());
        shown.push_str(instead);
        copied = token.end;
    }
    if copied == 0 {
        return Cow::Borrowed(sql);
    }
    shown.push_str(sql.get(copied..).unwrap_or_default());
    Cow::Owned(shown)
}
