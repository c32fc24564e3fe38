//! SQL understood by PostgreSQL's own grammar: text in, every effect of every statement out.
//!
//! [`Analyzer::read`] is what sessions and policy tools call. It parses, walks every node of
//! the tree (`tree` is held to that by the compiler), and remembers what it found. What a text
//! does not tell is said so, never guessed: a table without a schema is `table:?.orders`, a column
//! that several tables may own is told to all of them.
//!
//! Honest limits. The bodies of functions, procedures and DO blocks, and SQL that a function takes
//! as text, are opaque: running them is an effect of its own. A view's, rule's or trigger's doing
//! is not seen where it happens. Operators and casts call functions that are not named. A row type
//! named as a type (`RETURNS SETOF secrets`) is no effect. `c.name` where `c` has no column `name`
//! calls a function `name`; only PostgreSQL's own such functions are known. A tree of more than
//! 10,000 levels is not decoded: about 1,600 queries or 4,900 operators within each other.
//!
//! Analysis costs microseconds for common statements, but up to a second at the bounds of
//! `grammar`; it never blocks on I/O. `libpg_query` keeps memory for each thread that parses and
//! uses one of the process's 1,024 thread-local keys for it: parse on threads that stay.

mod actions;
mod alter;
mod cache;
mod change;
mod create;
mod deep;
mod functions;
mod grammar;
mod lexer;
mod literals;
mod object;
mod query;
mod reading;
pub mod rewrite;
mod session;
mod settings;
mod shape;
mod tree;
mod uses;
mod view;
mod walker;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::RawStmt;

pub use actions::{ACTIONS, ATTRIBUTES, Action, CODE, KINDS, OPAQUE_ACTIONS, OPAQUE_ON_CODE};
pub use functions::reads_unseen;
pub use literals::Belonging;
pub use reading::{CopyOut, Reading, Reference, Source, StatementKind};
pub use session::is_utf8;
pub use uses::{How, Use};
pub use view::{Withhold, view};

use crate::policy::Effect;
use cache::Cache;
use shape::Shapes;
use tree::Walk;
use walker::{Marks, Walked, Walker};

/// Settings of the server that change how a text is read. The encoding is always UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LexerSettings {
    /// `standard_conforming_strings`: a backslash in a plain string is a backslash.
    pub standard_conforming_strings: bool,
    /// `backslash_quote` is not `off`: `\'` is a quote where backslashes escape.
    pub backslash_quote: bool,
}

impl Default for LexerSettings {
    /// As a server has them that nobody changed.
    fn default() -> Self {
        Self { standard_conforming_strings: true, backslash_quote: true }
    }
}

/// Why a text is not understood. The text itself is not quoted: it may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unparsed {
    /// The server will most likely refuse it too.
    #[error("it is not PostgreSQL's SQL")]
    Syntax,
    /// More than 16 MiB.
    #[error("it is longer than 16 MiB")]
    TooLong,
    /// More tokens, or more work for the scanner, than the gateway affords.
    #[error("it has more than 150,000 tokens, or would become as many")]
    TooComplex,
    /// Parentheses, operators or queries within each other.
    #[error(
        "it is nested deeper than 10,000 levels of a parse tree, or than PostgreSQL's parser allows"
    )]
    TooDeep,
    /// The parser gave something that the gateway does not know.
    #[error("it was parsed into something unknown")]
    Unknown,
    /// What it means depends on settings that statements before it may be changing.
    #[error("how it is read depends on settings that may be changing")]
    Settings,
    /// It runs a prepared statement or cursor that the session did not make before the gateway's
    /// eyes.
    #[error("it runs a prepared statement or cursor that is not known")]
    UnknownName,
}

impl Unparsed {
    /// The one effect of a text that is not understood.
    pub fn effect(self) -> Effect {
        let reason = match self {
            Self::Syntax => "syntax",
            Self::TooLong => "too-long",
            Self::TooComplex => "too-complex",
            Self::TooDeep => "too-deep",
            Self::Unknown => "unknown",
            Self::Settings => "settings",
            Self::UnknownName => "unknown-name",
        };
        let mut effect = Effect::of(actions::UNPARSED);
        effect.attributes.insert(Cow::Borrowed("reason"), reason.into());
        effect
    }
}

/// What the parser says against a text that is no SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Its own words, for who wrote the text.
    pub message: String,
    /// The same without what may be a literal, to be stored.
    pub stored: String,
    /// The character at which it stumbles, from 1 on.
    pub position: Option<usize>,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Its bytes in the text, without the semicolon.
    pub range: Range<usize>,
    /// Everything it would do; at least one effect.
    pub effects: Vec<Effect>,
    /// What becomes of the columns that it reads; none of those whose value nobody looks at.
    pub uses: Vec<Use>,
    /// Of a query over plain tables: what each of its columns reads, in their order. `None` where
    /// that is not told, and for everything but queries, PREPARE, DECLARE and COPY TO, also of a
    /// table whose columns it lists.
    pub outputs: Option<Vec<Vec<Use>>>,
    /// Whether its literals are secret whatever the rules say: passwords, connection strings.
    pub secret: bool,
    /// Whether rows may come of it: not of INSERT and its like without RETURNING, nor of COPY FROM.
    pub returns: bool,
    /// What it is.
    pub kind: StatementKind,
    /// What it still reads where what goes to the server masks at the source.
    pub remaining: Option<Box<rewrite::Remaining>>,
    /// Whether it runs something by name.
    refers: bool,
    /// Whether it sets `client_encoding` to something else than UTF-8, as far as the text tells.
    leaves_utf8: bool,
    /// Whether its rows may hold a setting of an application's own, which may be a secret.
    pub reveals: bool,
    /// Whether what was found depends on the value of a string.
    looks_at_texts: bool,
}

/// A text taken apart: no statement for an empty one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Analysis {
    /// In the order in which they run.
    pub statements: Vec<Statement>,
}

impl Analysis {
    /// The effects of all statements.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.statements.iter().flat_map(|statement| &statement.effects)
    }
}

/// Analyses texts and remembers what it found.
#[derive(Debug)]
pub struct Analyzer {
    cache: Cache<Arc<Reading>>,
    shapes: Shapes,
}

impl Analyzer {
    /// An analyzer that remembers up to about so many bytes of texts and findings, and a fourth of
    /// that for shapes of texts.
    pub fn new(cache_bytes: usize) -> Self {
        Self { cache: Cache::new(cache_bytes), shapes: Shapes::new(cache_bytes / 4) }
    }

    /// What was found in a text that was seen before.
    pub fn known(&self, sql: &str, settings: LexerSettings) -> Option<Arc<Reading>> {
        self.cache.get(sql, settings)
    }

    /// Takes a text apart, or finds that it cannot.
    pub fn read(&self, sql: &str, settings: LexerSettings) -> Arc<Reading> {
        self.cache.get_or_make(sql, settings, || Arc::new(self.shapes.read(sql, settings)))
    }

    /// Takes a text apart that the server may be reading by other settings than those that it last
    /// told. A text that would do one thing or another is not understood.
    pub fn read_either_way(&self, sql: &str, told: LexerSettings) -> Arc<Reading> {
        let reading = self.read(sql, told);
        // Only a backslash in a string is read otherwise.
        if !sql.contains('\\') {
            return reading;
        }
        let other = LexerSettings {
            standard_conforming_strings: !told.standard_conforming_strings,
            ..told
        };
        if reading.is_understood() && *reading == *self.read(sql, other) && !reading.is_secret() {
            return reading;
        }
        Arc::new(Reading::new(sql, told, Err(Unparsed::Settings)))
    }
}

/// Whether a text nests so deeply that it is taken apart on another thread, which
/// [`Analyzer::read`] waits for.
pub fn is_deep(sql: &str, settings: LexerSettings) -> bool {
    grammar::size(sql, settings).is_ok_and(|size| size.is_deep)
}

/// Takes a text apart, remembering nothing.
pub fn analyze(sql: &str, settings: LexerSettings) -> Result<Analysis, Unparsed> {
    let size = grammar::size(sql, settings)?;
    if size.is_deep {
        let sql = sql.to_owned();
        let found = deep::run(move || take_apart(&sql, settings, size));
        return found.unwrap_or(Err(Unparsed::Unknown));
    }
    take_apart(sql, settings, size)
}

/// Which columns the literals and parameters of a text belong to, as far as it proves that.
fn belongings(sql: &str, settings: LexerSettings) -> Vec<Belonging> {
    let told = |size: grammar::Size| grammar::parse(sql, settings, size).ok();
    let shallow = grammar::size(sql, settings).ok().filter(|size| !size.is_deep);
    let statements = shallow.and_then(told).unwrap_or_default();
    let mut belongings = literals::of(&statements);
    for belonging in &mut belongings {
        // The grammar takes a sign for part of the number.
        let rest = sql.as_bytes().get(belonging.at..).unwrap_or_default();
        if let Some(number) = rest.strip_prefix(b"-") {
            belonging.at += 1 + number.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        }
    }
    belongings
}

fn take_apart(
    sql: &str,
    settings: LexerSettings,
    size: grammar::Size,
) -> Result<Analysis, Unparsed> {
    let statements = grammar::parse(sql, settings, size)?;
    let statements = statements.iter().map(|raw| statement(raw, sql.len()));
    Ok(Analysis { statements: statements.collect::<Result<_, _>>()? })
}

fn statement(raw: &RawStmt, length: usize) -> Result<Statement, Unparsed> {
    let mut walker = Walker::default();
    raw.stmt.walk(&mut walker);
    if let Some(NodeEnum::VariableSetStmt(set)) = raw.stmt.as_ref().and_then(|n| n.node.as_ref()) {
        let value = walker.constant(set.args.first());
        session::sets_now(&mut walker, Some(&set.name), value);
    }
    let Walked { mut effects, uses, outputs, marks } = walker.finish()?;
    let Marks { secret, leaves_utf8, reveals, looks_at_texts } = marks;
    if effects.is_empty() {
        // `SELECT 1` reads nothing; anything else has an effect of its own.
        match raw.stmt.as_ref().and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::SelectStmt(_)) => effects.push(Effect::of(actions::SELECT)),
            _ => return Err(Unparsed::Unknown),
        }
    }
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(length);
    // A length of nothing is all that follows.
    let end = match usize::try_from(raw.stmt_len) {
        Ok(0) | Err(_) => length,
        Ok(len) => start.saturating_add(len).min(length),
    };
    let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref());
    let (kind, returns) = (StatementKind::of(node), reading::returns(node));
    let refers = effects.iter().any(|effect| reading::reference(effect).is_some());
    let gives = matches!(
        kind,
        StatementKind::Select
            | StatementKind::CopyTo(_)
            | StatementKind::Prepare { .. }
            | StatementKind::Declare { .. }
    );
    let outputs = outputs.filter(|_| gives);
    Ok(Statement {
        range: start..end,
        effects,
        uses,
        outputs,
        secret,
        returns,
        kind,
        remaining: None,
        refers,
        leaves_utf8,
        reveals,
        looks_at_texts,
    })
}
