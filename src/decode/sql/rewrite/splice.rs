//! Changes to a text, found by the places that the tree's nodes have in it.
//!
//! The client's text stays as it is around them. What comes of it is parsed again and held against
//! the tree that was meant, so a place that is found wrongly makes a refusal and no other statement.

use std::ops::Range;

use pg_query::protobuf as pg;

use super::super::lexer::{Kind, Lexer, Token};
use super::super::tree::{Edit, Editor};
use super::super::{LexerSettings, grammar};
use super::Refusal;
use super::relation::quoted;

const NOT_WRITTEN: Refusal =
    Refusal::of("masked columns are read by a statement that cannot be rewritten");

/// What stands around a table, or in its place.
pub(super) struct Around<'a> {
    pub(super) columns: &'a str,
    /// The schema that the table's name gets.
    pub(super) schema: Option<&'a str>,
    /// A query in the table's own place.
    pub(super) query: Option<&'a str>,
    pub(super) inner_alias: &'a str,
    pub(super) tail: &'a str,
    pub(super) outer_alias: &'a str,
}

/// A text and what is put into it.
pub(super) struct Splices<'s> {
    sql: &'s str,
    tokens: Vec<Token>,
    edits: Vec<(Range<usize>, String)>,
    /// A place was not found.
    lost: bool,
}

impl<'s> Splices<'s> {
    pub(super) fn new(sql: &'s str, settings: LexerSettings) -> Self {
        let tokens = Lexer::new(sql, settings).filter(|token| token.kind != Kind::Comment);
        Self { sql, tokens: tokens.collect(), edits: Vec::new(), lost: false }
    }

    /// A table in FROM, with a subquery around it.
    pub(super) fn around_table(&mut self, table: &pg::RangeVar, around: &Around<'_>) {
        let Some((first, mut last)) = self.name(table) else { return self.lose() };
        let mut start = first;
        if self.is_word(first.wrapping_sub(1), "only") {
            start = first - 1;
        } else if self.is_byte(first.wrapping_sub(1), b'(')
            && self.is_word(first.wrapping_sub(2), "only")
            && self.is_byte(last + 1, b')')
        {
            (start, last) = (first - 2, last + 1);
        } else if self.text(last + 1) == "*" {
            last += 1;
        }
        let whole = self.is_word(start.wrapping_sub(1), "table");
        let inner = match around.query {
            Some(query) => format!("({query})"),
            None => {
                let (before, name) = (self.before(start, first), self.slice(first, last));
                format!("{before}{}{name}", prefix(around.schema))
            }
        };
        let head = if whole { "SELECT * FROM " } else { "" };
        let from = if whole { start - 1 } else { start };
        let Around { columns, inner_alias, tail, outer_alias, .. } = around;
        let text = format!("{head}(SELECT {columns} FROM {inner}{inner_alias}{tail}){outer_alias}");
        self.put(from, last, text);
    }

    /// The condition of an UPDATE or DELETE of a table: `before` and `behind` around the client's,
    /// or `alone` where there is none.
    pub(super) fn around_condition(
        &mut self,
        table: &pg::RangeVar,
        [before, behind, alone]: [&str; 3],
    ) {
        let Some((first, mut last)) = self.name(table) else { return self.lose() };
        if self.is_byte(first.wrapping_sub(1), b'(') && self.is_byte(last + 1, b')') {
            last += 1;
        }
        let (mut depth, mut condition) = (0_usize, None);
        let mut at = last + 1;
        while let Some(token) = self.tokens.get(at) {
            match token.kind {
                Kind::Byte(b'(') => depth += 1,
                Kind::Byte(b')' | b';') if depth == 0 => break,
                Kind::Byte(b')') => depth -= 1,
                _ if depth == 0 && self.is_word(at, "returning") => break,
                _ if depth == 0 && condition.is_none() && self.is_word(at, "where") => {
                    condition = Some(at);
                }
                _ => {}
            }
            at += 1;
        }
        let end = |at: usize| self.tokens.get(at).map(|token| token.end);
        let Some(behind_all) = end(at - 1) else { return self.lose() };
        match condition.map(end) {
            Some(Some(keyword)) => {
                self.edits.push((keyword..keyword, before.to_owned()));
                self.edits.push((behind_all..behind_all, behind.to_owned()));
            }
            Some(None) => self.lose(),
            None => self.edits.push((behind_all..behind_all, alone.to_owned())),
        }
    }

    /// A table's name with its schema.
    pub(super) fn in_schema(&mut self, table: &pg::RangeVar, schema: &str) {
        let Some((first, _)) = self.name(table) else { return self.lose() };
        let Some(token) = self.tokens.get(first) else { return self.lose() };
        self.edits.push((token.start..token.start, prefix(Some(schema))));
    }

    /// Something else in the place of a parameter.
    pub(super) fn instead_of_parameter(&mut self, parameter: &pg::ParamRef, text: String) {
        match self.run(parameter.location, 1).filter(|(first, _)| {
            self.tokens.get(*first).is_some_and(|token| token.kind == Kind::Parameter)
        }) {
            Some((first, last)) => self.put(first, last, text),
            None => self.lose(),
        }
    }

    /// `COPY table (columns)`, by a query.
    pub(super) fn copied_table(
        &mut self,
        table: &pg::RangeVar,
        schema: Option<&str>,
        [columns, inner]: [&str; 2],
        listed: bool,
    ) {
        let Some((first, name_end)) = self.name(table) else { return self.lose() };
        let mut last = name_end;
        if listed {
            while !self.is_byte(last, b')') {
                last += 1;
                if last >= self.tokens.len() {
                    return self.lose();
                }
            }
        }
        let name = format!("{}{}", prefix(schema), self.slice(first, name_end));
        self.put(first, last, format!("(SELECT {columns} FROM ONLY {name}{inner})"));
    }

    /// Something else in the place of a column's name, which has so many parts.
    pub(super) fn instead_of_column(&mut self, column: &pg::ColumnRef, text: String) {
        match self.column(column) {
            Some((first, last)) => self.put(first, last, text),
            None => self.lose(),
        }
    }

    /// Something behind a column's name.
    pub(super) fn behind_column(&mut self, column: &pg::ColumnRef, text: &str) {
        match self.column(column) {
            Some((first, last)) => {
                let text = format!("{}{text}", self.slice(first, last));
                self.put(first, last, text);
            }
            None => self.lose(),
        }
    }

    /// A column's name without its first parts.
    pub(super) fn without_qualifiers(&mut self, column: &pg::ColumnRef, parts: usize) {
        match self.column(column) {
            Some((first, last)) => {
                let text = self.slice(first + 2 * parts, last).to_owned();
                self.put(first, last, text);
            }
            None => self.lose(),
        }
    }

    /// The text with everything that was put into it, and where its parts come from; proven to
    /// mean what the statements do.
    pub(super) fn finish(
        mut self,
        settings: LexerSettings,
        statements: Vec<pg::RawStmt>,
    ) -> Result<(String, Vec<(usize, usize)>), Refusal> {
        // A query can stand in the tree several times: `SET (a, b) = (SELECT …)`.
        self.edits.sort_by_key(|(range, _)| range.start);
        self.edits.dedup();
        let mut text = String::with_capacity(self.sql.len());
        let mut at = 0;
        for (range, instead) in &self.edits {
            let before = self.sql.get(at..range.start).filter(|_| !self.lost).ok_or(NOT_WRITTEN)?;
            text.push_str(before);
            text.push_str(instead);
            at = range.end;
        }
        text.push_str(self.sql.get(at..).ok_or(NOT_WRITTEN)?);
        let places = proven(&text, settings, statements)?;
        Ok((text, places))
    }

    fn lose(&mut self) {
        self.lost = true;
    }

    fn put(&mut self, first: usize, last: usize, text: String) {
        match (self.tokens.get(first), self.tokens.get(last)) {
            (Some(first), Some(last)) => self.edits.push((first.start..last.end, text)),
            _ => self.lost = true,
        }
    }

    /// The first and the last token of a table's name.
    fn name(&self, table: &pg::RangeVar) -> Option<(usize, usize)> {
        let qualifiers = [&table.catalogname, &table.schemaname];
        let parts = 1 + qualifiers.iter().filter(|part| !part.is_empty()).count();
        self.run(table.location, parts)
    }

    fn column(&self, column: &pg::ColumnRef) -> Option<(usize, usize)> {
        self.run(column.location, column.fields.len())
    }

    /// So many names with dots between.
    fn run(&self, location: i32, parts: usize) -> Option<(usize, usize)> {
        let start = usize::try_from(location).ok()?;
        let first = self.tokens.binary_search_by_key(&start, |token| token.start).ok()?;
        let last = first + 2 * parts.checked_sub(1)?;
        let dotted = (first + 1..last).step_by(2).all(|at| self.is_byte(at, b'.'));
        (dotted && last < self.tokens.len()).then_some((first, last))
    }

    fn text(&self, at: usize) -> &str {
        let token = self.tokens.get(at).copied();
        token.and_then(|token| self.sql.get(token.start..token.end)).unwrap_or_default()
    }

    fn slice(&self, first: usize, last: usize) -> &str {
        let range = self.tokens.get(first).zip(self.tokens.get(last));
        range.and_then(|(first, last)| self.sql.get(first.start..last.end)).unwrap_or_default()
    }

    /// The text from one token up to another.
    fn before(&self, first: usize, end: usize) -> &str {
        let range = self.tokens.get(first).zip(self.tokens.get(end));
        range.and_then(|(first, end)| self.sql.get(first.start..end.start)).unwrap_or_default()
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Word)
            && self.text(at).eq_ignore_ascii_case(word)
    }

    fn is_byte(&self, at: usize, byte: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Byte(byte))
    }
}

fn prefix(schema: Option<&str>) -> String {
    schema.map_or(String::new(), |schema| format!("{}.", quoted(schema)))
}

/// Whether a text means these statements: the places of their nodes in both texts.
fn proven(
    text: &str,
    settings: LexerSettings,
    statements: Vec<pg::RawStmt>,
) -> Result<Vec<(usize, usize)>, Refusal> {
    let parsed = grammar::parse_here(text, settings).map_err(|_| NOT_WRITTEN)?;
    if parsed.len() != statements.len() {
        return Err(NOT_WRITTEN);
    }
    let mut places = Vec::new();
    for (mut meant, mut written) in statements.into_iter().zip(parsed) {
        let (client, sent) = (take_places(&mut meant.stmt), take_places(&mut written.stmt));
        if meant.stmt != written.stmt || client.len() != sent.len() {
            return Err(NOT_WRITTEN);
        }
        let both = sent.into_iter().zip(client);
        places.extend(both.filter_map(|(sent, client)| {
            Some((usize::try_from(sent).ok()?, usize::try_from(client).ok()?))
        }));
    }
    places.sort_unstable();
    places.dedup_by_key(|(sent, _)| *sent);
    Ok(places)
}

/// Takes the places in the text out of a tree, in the order of its nodes.
fn take_places(tree: &mut impl Edit) -> Vec<i32> {
    #[derive(Default)]
    struct Places(Vec<i32>);
    impl Editor for Places {
        fn node(&mut self, _: &mut pg::Node) -> bool {
            true
        }

        fn location(&mut self, at: &mut i32) {
            self.0.push(std::mem::replace(at, 0));
        }
    }
    let mut places = Places::default();
    tree.edit("", &mut places);
    places.0
}

/// Makes a node one that is in no text.
pub(super) fn forget_places(node: &mut pg::Node) {
    struct Nowhere;
    impl Editor for Nowhere {
        fn node(&mut self, _: &mut pg::Node) -> bool {
            true
        }

        fn location(&mut self, at: &mut i32) {
            *at = -1;
        }
    }
    node.edit("", &mut Nowhere);
}
