//! PostgreSQL's own grammar, behind bounds on what a text may cost it.
//!
//! `libpg_query` is the parser of PostgreSQL 18. Older servers have fewer keywords and number
//! forms; what they read otherwise than 18 is an error there or means the same, but for a
//! function of one's own that bears a name which has become syntax since (`json_value`): it is
//! called without an effect of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;
use pg_query::ParserOptions;
use pg_query::protobuf::RawStmt;

use super::deep::Nesting;
use super::lexer::{Kind, Lexer};
use super::{LexerSettings, SyntaxError, Unparsed};

/// The longest text. What is longer is hardly a statement that somebody reads before approving.
const LONGEST: usize = 16 << 20;
/// Tokens in a text, most: room for 65,535 parameters with their commas. The tree takes about
/// 1 KiB and 5 µs a token.
const MOST_TOKENS: usize = 150_000;
/// Tokens and bytes from which on texts are parsed one after the other, so that memory for their
/// trees is needed once and not for each session.
const MANY_TOKENS: usize = 10_000;
const LONG: usize = 1 << 20;
/// What the grammar's scanner looks at more than once, at about 7 ns each.
const MOST_WORK: u64 = 16 << 20;
/// `SET (a, b) = (SELECT …)` puts a copy of the query into the tree for each column: tokens that
/// copies may add.
const MOST_COPIED: usize = 300_000;
/// The longest text in which a mistake is looked for, in bytes: it is parsed some ten times then.
const LONGEST_MISTAKE: usize = 16 << 10;

/// Without DEBUG `libpg_query` puts a pipe in place of the process's standard error during each
/// parse, and two threads that do so at once lose standard error for good.
const _: () = assert!(
    matches!(option_env!("CFLAGS"), Some(flags) if holds(flags.as_bytes(), b"-DDEBUG")),
    "libpg_query must be compiled with CFLAGS=-DDEBUG, as .cargo/config.toml sets it"
);

const fn holds(mut text: &[u8], wanted: &[u8]) -> bool {
    loop {
        match text {
            _ if begins(text, wanted) => return true,
            [_, rest @ ..] => text = rest,
            [] => return false,
        }
    }
}

const fn begins(mut text: &[u8], mut wanted: &[u8]) -> bool {
    loop {
        match (text, wanted) {
            (_, []) => return true,
            ([have, text_rest @ ..], [want, wanted_rest @ ..]) if *have == *want => {
                (text, wanted) = (text_rest, wanted_rest);
            }
            _ => return false,
        }
    }
}

/// What a text would cost the grammar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    tokens: usize,
    /// Its tree may be too deep for any thread.
    pub(super) is_deep: bool,
}

/// Why the grammar gives no tree.
enum Refused {
    /// The parser's own words: what stands there is no SQL.
    Syntax(String),
    Other(Unparsed),
}

/// The statements of a text as raw trees. What is deep needs the stack of [`super::deep`].
pub(super) fn parse(
    sql: &str,
    settings: LexerSettings,
    size: Size,
) -> Result<Vec<RawStmt>, Unparsed> {
    static ONE_LARGE: Mutex<()> = Mutex::new(());
    let _alone = (size.tokens > MANY_TOKENS || sql.len() > LONG).then(|| ONE_LARGE.lock());
    trees(sql, settings).map_err(|refused| match refused {
        Refused::Syntax(_) => Unparsed::Syntax,
        Refused::Other(reason) => reason,
    })
}

/// The same, for who has the stack for a text of any depth, or bounds it otherwise.
pub(super) fn parse_here(sql: &str, settings: LexerSettings) -> Result<Vec<RawStmt>, Unparsed> {
    parse(sql, settings, size(sql, settings)?)
}

fn trees(sql: &str, settings: LexerSettings) -> Result<Vec<RawStmt>, Refused> {
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if !settings.standard_conforming_strings {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    if !settings.backslash_quote {
        options |= ParserOptions::DISABLE_BACKSLASH_QUOTE;
    }
    // The library sorts names out of the tree too, and panics where it finds other than it thinks.
    let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(sql, options)));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed.protobuf.stmts),
        Ok(Err(pg_query::Error::Decode(_))) => Err(Refused::Other(Unparsed::TooDeep)),
        Ok(Err(pg_query::Error::Parse(message)))
            if ["memory exhausted", "stack depth", "nested too deeply"]
                .iter()
                .any(|deep| message.contains(deep)) =>
        {
            Err(Refused::Other(Unparsed::TooDeep))
        }
        Ok(Err(pg_query::Error::Parse(message))) => Err(Refused::Syntax(message)),
        Ok(Err(_)) => Err(Refused::Syntax("syntax error".to_owned())),
        Err(_) => Err(Refused::Other(Unparsed::Unknown)),
    }
}

/// What the grammar costs, where it copes with the text in bounded time and memory.
pub(super) fn size(sql: &str, settings: LexerSettings) -> Result<Size, Unparsed> {
    if sql.len() > LONGEST {
        return Err(Unparsed::TooLong);
    }
    let mut lexer = Lexer::new(sql, settings);
    let mut tokens = 0_usize;
    let mut copies = Copies::default();
    let mut nesting = Nesting::default();
    while let Some(token) = lexer.next() {
        let text = sql.get(token.start..token.end).unwrap_or_default();
        tokens += usize::from(token.kind != Kind::Comment);
        copies.see(token.kind, text, tokens);
        nesting.see(token.kind, text);
        if tokens > MOST_TOKENS || lexer.work() > MOST_WORK {
            return Err(Unparsed::TooComplex);
        }
    }
    if copies.at_most(tokens) > MOST_COPIED {
        return Err(Unparsed::TooComplex);
    }
    Ok(Size { tokens, is_deep: nesting.is_deep() })
}

/// What the parser says against a text that is no SQL, in its own words; `None` when it is SQL, or
/// when finding out would take long.
pub(super) fn mistake(sql: &str, settings: LexerSettings) -> Option<SyntaxError> {
    if sql.len() > LONGEST_MISTAKE || size(sql, settings).ok()?.is_deep {
        return None;
    }
    let Err(Refused::Syntax(message)) = trees(sql, settings) else { return None };
    let token = near(&message);
    let position = match token {
        Some(token) => place(sql, settings, token),
        None => message.ends_with("at end of input").then_some(sql.len()),
    };
    let named = token.is_some_and(|token| is_name(token, settings));
    let stored = match message.find('"') {
        Some(quote) if !named => format!("{}?", message.get(..quote).unwrap_or_default()),
        _ => message.clone(),
    };
    let before = position.and_then(|at| sql.get(..at));
    Some(SyntaxError { message, stored, position: before.map(|text| text.chars().count() + 1) })
}

/// The token that a message of the parser names.
fn near(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" at or near \"")?;
    rest.strip_suffix('"')
}

/// Whether a token is a name, a keyword or a sign: not a literal, nor what may hold one.
fn is_name(token: &str, settings: LexerSettings) -> bool {
    let kinds: Vec<Kind> = Lexer::new(token, settings).map(|token| token.kind).collect();
    matches!(kinds.as_slice(), [Kind::Word | Kind::QuotedName | Kind::Operator | Kind::Byte(_)])
}

/// Where the token stands that the parser stumbles over. The message does not tell, and the token
/// may stand in several places: a text that is cut behind a token in order lacks only its end.
fn place(sql: &str, settings: LexerSettings, token: &str) -> Option<usize> {
    let same = |at: usize| sql.get(at..).is_some_and(|rest| rest.starts_with(token));
    let places: Vec<(usize, usize)> = Lexer::new(sql, settings)
        .filter(|found| found.kind != Kind::Comment && same(found.start))
        .map(|found| (found.start, found.end.max(found.start + token.len())))
        .collect();
    let in_order = |(_, end): &(usize, usize)| {
        let cut = sql.get(..*end).map(|cut| trees(cut, settings));
        match cut {
            Some(Err(Refused::Syntax(message))) => message.ends_with("at end of input"),
            Some(Ok(_)) => true,
            _ => false,
        }
    };
    // With one candidate there is nothing to find out.
    let first = match places.len() {
        1 => 0,
        _ => places.partition_point(in_order),
    };
    places.get(first).map(|(start, _)| *start)
}

/// Finds lists of columns that something is assigned to: `SET (a, b) =` and `, (a, b) =`.
#[derive(Debug, Default)]
struct Copies {
    /// Commas in each open parenthesis, when the parenthesis may open such a list.
    open: Vec<Option<usize>>,
    /// Commas of the list that has just been closed.
    closed: Option<usize>,
    may_open: bool,
    columns: usize,
    /// Columns times the place of their list.
    weighed: usize,
}

impl Copies {
    fn see(&mut self, kind: Kind, text: &str, place: usize) {
        if kind == Kind::Comment {
            return;
        }
        let closed = self.closed.take();
        let may_open = std::mem::take(&mut self.may_open);
        match kind {
            Kind::Byte(b'(') => self.open.push(may_open.then_some(0)),
            Kind::Byte(b')') => self.closed = self.open.pop().flatten(),
            Kind::Byte(b',') => {
                if let Some(Some(commas)) = self.open.last_mut() {
                    *commas += 1;
                }
                self.may_open = true;
            }
            Kind::Word => self.may_open = text.eq_ignore_ascii_case("set"),
            Kind::Operator if text.starts_with('=') => {
                if let Some(commas) = closed {
                    self.columns += commas + 1;
                    self.weighed += (commas + 1).saturating_mul(place);
                }
            }
            _ => {}
        }
    }

    /// Tokens that copies can add to a text of so many: each list's columns times what follows it.
    fn at_most(&self, tokens: usize) -> usize {
        self.columns.saturating_mul(tokens).saturating_sub(self.weighed)
    }
}
