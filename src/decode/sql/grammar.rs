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

use super::lexer::{Kind, Lexer};
use super::{LexerSettings, Unparsed};

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

/// The statements of a text as raw trees.
pub(super) fn parse(sql: &str, settings: LexerSettings) -> Result<Vec<RawStmt>, Unparsed> {
    static ONE_LARGE: Mutex<()> = Mutex::new(());
    let tokens = within_bounds(sql, settings)?;
    let _alone = (tokens > MANY_TOKENS || sql.len() > LONG).then(|| ONE_LARGE.lock());
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
        Ok(Err(pg_query::Error::Decode(_))) => Err(Unparsed::TooDeep),
        Ok(Err(pg_query::Error::Parse(message)))
            if ["memory exhausted", "stack depth", "nested too deeply"]
                .iter()
                .any(|deep| message.contains(deep)) =>
        {
            Err(Unparsed::TooDeep)
        }
        Ok(Err(_)) => Err(Unparsed::Syntax),
        Err(_) => Err(Unparsed::Unknown),
    }
}

/// The number of tokens, where the grammar copes with the text in bounded time and memory.
fn within_bounds(sql: &str, settings: LexerSettings) -> Result<usize, Unparsed> {
    if sql.len() > LONGEST {
        return Err(Unparsed::TooLong);
    }
    let mut lexer = Lexer::new(sql, settings);
    let mut tokens = 0_usize;
    let mut copies = Copies::default();
    while let Some(token) = lexer.next() {
        tokens += usize::from(token.kind != Kind::Comment);
        copies.see(token.kind, sql.get(token.start..token.end).unwrap_or_default(), tokens);
        if tokens > MOST_TOKENS || lexer.work() > MOST_WORK {
            return Err(Unparsed::TooComplex);
        }
    }
    if copies.at_most(tokens) > MOST_COPIED {
        return Err(Unparsed::TooComplex);
    }
    Ok(tokens)
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
