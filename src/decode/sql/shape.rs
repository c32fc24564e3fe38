//! Texts that differ in literals alone: what one of them means is found once for all.
//!
//! The shape of a text is the text without its whole numbers and plain strings. What was found for
//! a shape counts for each text of it, by construction:
//!
//! - Every literal that is left out is a constant of PostgreSQL's own tree, at that place. So the
//!   grammar's scanner saw what ours saw, and sees the same tokens in every text of the shape.
//! - What is kept was found in a tree in which those constants are blanked.
//! - Another text of the shape was parsed, too, and gave the same blanked tree: no value went
//!   anywhere else.
//! - The walk over the tree looked at no string, and it finds the same where nothing is blanked.
//!
//! A shape of which that is not so is remembered as one that tells nothing.

use std::ops::Range;
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{self as pg, RawStmt};

use super::cache::{Cache, Cached};
use super::grammar;
use super::lexer::{Kind, Lexer};
use super::reading::StatementKind;
use super::tree::{Edit as _, Editor};
use super::{LexerSettings, Reading, Statement, analyze, statement};

/// The longest text and the most literals: what is larger is a load of data, not a question that
/// comes again and again.
const LONGEST: usize = 8 << 10;
const MOST_LITERALS: usize = 256;
/// Digits of a number that is an integer to the grammar whatever they are.
const MOST_DIGITS: usize = 9;

/// What was found for the shapes of texts.
#[derive(Debug)]
pub(super) struct Shapes(Cache<Arc<Shaped>>);

/// A shape, and what is known of it.
#[derive(Debug)]
struct Shaped {
    key: String,
    known: Known,
}

#[derive(Debug)]
enum Known {
    /// It was seen. Most shapes never come again, so nothing is found out yet.
    Seen,
    /// What one text of it means tells nothing of the others.
    Nothing,
    Found(Found),
}

/// The one statement of each text of a shape.
#[derive(Debug)]
struct Found {
    statement: Statement,
    /// Bytes behind it.
    behind: usize,
}

impl Cached for Arc<Shaped> {
    fn text(&self) -> &str {
        &self.key
    }

    fn statements(&self) -> &[Statement] {
        match &self.known {
            Known::Found(found) => std::slice::from_ref(&found.statement),
            Known::Seen | Known::Nothing => &[],
        }
    }
}

impl Shapes {
    /// What remembers up to about so many bytes of shapes and findings.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Cache::new(bytes))
    }

    /// Takes a text apart, or finds that it cannot.
    pub(super) fn read(&self, sql: &str, settings: LexerSettings) -> Reading {
        let slowly = || Reading::new(sql, settings, analyze(sql, settings));
        let Some(Shape { key, literals }) = Shape::of(sql, settings) else { return slowly() };
        let shaped = self.0.get(&key, settings);
        let (reading, known) = match shaped.as_ref().map(|shaped| &shaped.known) {
            Some(Known::Found(found)) => return found.reading(sql, settings),
            Some(Known::Nothing) => return slowly(),
            None => (slowly(), Known::Seen),
            Some(Known::Seen) => {
                let reading = slowly();
                let found = Found::of(&reading, &literals);
                (reading, found.map_or(Known::Nothing, Known::Found))
            }
        };
        self.0.put(Arc::new(Shaped { key, known }), settings);
        reading
    }
}

/// A text without its literals.
struct Shape {
    key: String,
    literals: Vec<Literal>,
}

/// A literal that is left out.
struct Literal {
    range: Range<usize>,
    is_number: bool,
}

impl Shape {
    /// The shape of a text; none of one without literals, or of one that is too large.
    fn of(sql: &str, settings: LexerSettings) -> Option<Self> {
        if sql.len() > LONGEST || sql.contains('\0') {
            return None;
        }
        let mut literals = Vec::new();
        let (mut key, mut copied) = (String::with_capacity(sql.len()), 0);
        for token in Lexer::new(sql, settings) {
            if token.kind == Kind::Unterminated {
                return None;
            }
            let range = token.start..token.end;
            let is_number = token.kind == Kind::Number;
            let stands_alone =
                !is_of_word(sql, range.start.checked_sub(1)) && !is_of_word(sql, Some(range.end));
            let text = sql.get(range.clone())?;
            let is_plain = match token.kind {
                Kind::Number => {
                    text.len() <= MOST_DIGITS && text.bytes().all(|b| b.is_ascii_digit())
                }
                Kind::String => is_plain_string(text),
                _ => false,
            };
            if !is_plain || !stands_alone {
                continue;
            }
            key.push_str(sql.get(copied..range.start)?);
            // No text holds this byte, and none that does has a shape.
            key.push_str(if is_number { "\0n" } else { "\0s" });
            copied = range.end;
            literals.push(Literal { range, is_number });
        }
        if literals.is_empty() || literals.len() > MOST_LITERALS {
            return None;
        }
        key.push_str(sql.get(copied..)?);
        Some(Self { key, literals })
    }
}

/// Whether the byte there could belong to a word, a number or a quoted thing.
fn is_of_word(sql: &str, at: Option<usize>) -> bool {
    let byte = at.and_then(|at| sql.as_bytes().get(at));
    byte.is_some_and(|byte| {
        byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_$.'\"&\\".contains(byte)
    })
}

/// Whether a string has one quote at each end, and nothing in between that any setting reads
/// otherwise than as it stands.
fn is_plain_string(text: &str) -> bool {
    let within = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    within.is_some_and(|within| !within.contains(['\'', '\\']))
}

impl Found {
    /// What a text tells of its shape, if it tells anything.
    fn of(reading: &Reading, literals: &[Literal]) -> Option<Self> {
        let (sql, settings) = (reading.text(), reading.settings());
        let [read] = reading.statements() else { return None };
        let (first, last) = (literals.first()?, literals.last()?);
        let fits = reading.is_understood()
            && reading.shows_its_text()
            && matches!(read.kind, StatementKind::Select | StatementKind::Write)
            && read.range.start <= first.range.start
            && last.range.end <= read.range.end;
        if !fits {
            return None;
        }
        let blanked = blanked(sql, settings, literals)?;
        let other = blanked_other(sql, settings, literals)?;
        let [raw] = blanked.as_slice() else { return None };
        let found = statement(raw, sql.len()).ok()?;
        let same = blanked == other && found == *read && !found.looks_at_texts;
        same.then(|| Self { behind: sql.len() - found.range.end, statement: found })
    }

    fn reading(&self, sql: &str, settings: LexerSettings) -> Reading {
        let mut statement = self.statement.clone();
        statement.range.end = sql.len().saturating_sub(self.behind);
        Reading::of_one(sql, settings, statement)
    }
}

/// The tree of a text whose literals have other values of the same lengths, blanked.
fn blanked_other(sql: &str, settings: LexerSettings, literals: &[Literal]) -> Option<Vec<RawStmt>> {
    let mut other = String::with_capacity(sql.len());
    let mut copied = 0;
    for literal in literals {
        other.push_str(sql.get(copied..literal.range.start)?);
        let next = |c: char| match c {
            '9' => '0',
            'z' => 'a',
            'Z' => 'A',
            c if c.is_ascii_alphanumeric() => char::from(c as u8 + 1),
            c => c,
        };
        other.extend(sql.get(literal.range.clone())?.chars().map(next));
        copied = literal.range.end;
    }
    other.push_str(sql.get(copied..)?);
    blanked(&other, settings, literals)
}

/// The tree of a text with these literals blanked; none where one of them is no constant.
fn blanked(sql: &str, settings: LexerSettings, literals: &[Literal]) -> Option<Vec<RawStmt>> {
    let size = grammar::size(sql, settings).ok().filter(|size| !size.is_deep)?;
    let mut trees = grammar::parse(sql, settings, size).ok()?;
    let mut blank = Blank { sql, literals, blanked: vec![false; literals.len()] };
    for tree in &mut trees {
        tree.stmt.edit("stmt", &mut blank);
    }
    blank.blanked.iter().all(|blanked| *blanked).then_some(trees)
}

struct Blank<'s> {
    sql: &'s str,
    literals: &'s [Literal],
    blanked: Vec<bool>,
}

impl Blank<'_> {
    /// The literal that the constant at this place is. The grammar takes a sign for part of a
    /// number.
    fn literal(&self, location: i32) -> Option<usize> {
        let at = usize::try_from(location).ok()?;
        let text = self.sql.as_bytes().get(at..)?;
        let signed = text
            .strip_prefix(b"-")
            .map(|rest| at + 1 + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
        let start = signed.unwrap_or(at);
        self.literals.binary_search_by_key(&start, |literal| literal.range.start).ok()
    }
}

impl Editor for Blank<'_> {
    fn node(&mut self, node: &mut pg::Node) -> bool {
        let Some(NodeEnum::AConst(constant)) = &mut node.node else { return true };
        let Some(at) = self.literal(constant.location) else { return false };
        let is_number = self.literals.get(at).is_some_and(|literal| literal.is_number);
        let blank = match &mut constant.val {
            Some(Val::Ival(number)) if is_number => {
                number.ival = 0;
                true
            }
            Some(Val::Sval(text)) if !is_number => {
                text.sval.clear();
                true
            }
            _ => false,
        };
        if let Some(blanked) = self.blanked.get_mut(at) {
            *blanked |= blank;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: LexerSettings =
        LexerSettings { standard_conforming_strings: true, backslash_quote: true };

    /// What is known of a shape when three of its texts were read.
    fn learned(texts: [&str; 3]) -> bool {
        let shapes = Shapes::new(1 << 20);
        for text in texts {
            let read = shapes.read(text, SETTINGS);
            assert_eq!(read, Reading::new(text, SETTINGS, analyze(text, SETTINGS)), "{text}");
            assert_eq!(read.statements()[0].range.end, text.trim_end_matches(';').len());
        }
        let key = Shape::of(texts[0], SETTINGS).unwrap().key;
        assert_eq!(key, Shape::of(texts[2], SETTINGS).unwrap().key);
        let shaped = shapes.0.get(&key, SETTINGS).unwrap();
        matches!(shaped.known, Known::Found(_))
    }

    #[test]
    fn what_differs_in_literals_alone_is_read_once() {
        for texts in [
            [
                "SELECT a FROM t WHERE id = 1",
                "SELECT a FROM t WHERE id = 22",
                "SELECT a FROM t WHERE id = 333333333",
            ],
            [
                "SELECT a FROM t WHERE n = 'x';",
                "SELECT a FROM t WHERE n = '';",
                "SELECT a FROM t WHERE n = 'DROP TABLE t; --';",
            ],
            [
                "UPDATE t SET a = a + -5 WHERE id = 1",
                "UPDATE t SET a = a + -6 WHERE id = 2",
                "UPDATE t SET a = a + -777 WHERE id = 3",
            ],
            [
                "INSERT INTO t VALUES (1, 'a')",
                "INSERT INTO t VALUES (2, 'bc')",
                "INSERT INTO t VALUES (34, 'ü')",
            ],
            [
                "SELECT a FROM t LIMIT 5 OFFSET 1",
                "SELECT a FROM t LIMIT 6 OFFSET 0",
                "SELECT a FROM t LIMIT 66 OFFSET 2",
            ],
            [
                "DELETE FROM t WHERE a IN (1, 2)",
                "DELETE FROM t WHERE a IN (3, 4)",
                "DELETE FROM t WHERE a IN (55, 6)",
            ],
        ] {
            assert!(learned(texts), "{texts:?}");
        }
    }

    #[test]
    fn where_a_literal_means_something_each_text_is_read() {
        for texts in [
            // A name in a string.
            ["SELECT nextval('a')", "SELECT nextval('b')", "SELECT nextval('secret_seq')"],
            [
                "SELECT set_config('a.b', 'x', true)",
                "SELECT set_config('c.d', 'x', true)",
                "SELECT set_config('client_encoding', 'latin1', true)",
            ],
            [
                "SELECT 'a'::regclass FROM t",
                "SELECT 'b'::regclass FROM t",
                "SELECT 'secrets'::regclass FROM t",
            ],
            [
                "UPDATE pg_settings SET setting = 'x' WHERE name = 'a'",
                "UPDATE pg_settings SET setting = 'y' WHERE name = 'b'",
                "UPDATE pg_settings SET setting = 'z' WHERE name = 'client_encoding'",
            ],
            // A type by its number.
            [
                "SELECT a::float(1) FROM t",
                "SELECT a::float(2) FROM t",
                "SELECT a::float(53) FROM t",
            ],
            // Code, and what is shown without its literals.
            ["DO 'a'", "DO 'b'", "DO 'DROP TABLE t'"],
            [
                "CREATE USER u PASSWORD 'a'",
                "CREATE USER u PASSWORD 'b'",
                "CREATE USER u PASSWORD 'c'",
            ],
            ["SELECT 1 /* a */", "SELECT 2 /* a */", "SELECT 3 /* a */"],
            ["COPY t TO 'a'", "COPY t TO 'b'", "COPY t TO '/etc/passwd'"],
            ["SET a.b = 1", "SET a.b = 2", "SET a.b = 3"],
            // Not one statement.
            ["SELECT 1; SELECT 2", "SELECT 3; SELECT 4", "SELECT 5; SELECT 6"],
        ] {
            let shapes = Shapes::new(1 << 20);
            for text in texts.iter().chain(&texts) {
                let read = shapes.read(text, SETTINGS);
                assert_eq!(read, Reading::new(text, SETTINGS, analyze(text, SETTINGS)), "{text}");
            }
            let key = Shape::of(texts[0], SETTINGS).unwrap().key;
            assert!(
                matches!(shapes.0.get(&key, SETTINGS).unwrap().known, Known::Nothing),
                "{texts:?}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_literal_stays_in_the_shape() {
        for sql in [
            "SELECT a1 FROM t",
            "SELECT $1",
            "SELECT 1.5",
            "SELECT 0x1F",
            "SELECT 1_000",
            "SELECT 1234567890",
            "SELECT E'a'",
            "SELECT U&'a'",
            "SELECT B'1'",
            "SELECT 'it''s'",
            "SELECT 'a'\n'b'",
            r"SELECT 'a\'",
            "SELECT $$1$$",
            "SELECT N'a'",
            "SELECT \"1 'a'\"",
            "SELECT 1e5",
            "SELECT 1 'a",
            "SELECT '\0'",
            "SELECT a",
        ] {
            assert!(Shape::of(sql, SETTINGS).is_none(), "{sql}");
        }
        let mixed = Shape::of("SELECT '1', 1.5, 7 /* 8 '9' */ FROM \"2\"", SETTINGS).unwrap();
        assert_eq!(mixed.key, "SELECT \0s, 1.5, \0n /* 8 '9' */ FROM \"2\"");
    }

    /// Pieces from which texts are made that strain where tokens begin and end.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{1,10}",
            "'[a-z0-9 ;-]{0,6}'",
            prop::sample::select(vec![
                "SELECT ",
                "a",
                " FROM t",
                " WHERE ",
                " = ",
                " AND ",
                "(",
                ")",
                ",",
                "::",
                "-",
                "+",
                " ",
                "--",
                "\n",
                "/*",
                "*/",
                "'",
                "\"",
                "$1",
                "$$",
                "E",
                "U&",
                "e",
                ".",
                "_",
                "||",
                "LIMIT ",
                "nextval(",
                "regclass",
                "float(",
                "IN (",
                "ORDER BY ",
                "interval ",
                "INSERT INTO t VALUES (",
                "UPDATE t SET a = ",
                "DELETE FROM t",
                ";",
                "\\",
                "::regclass",
                "BETWEEN ",
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_if_it_were_the_first(
            pieces in prop::collection::vec(piece(), 1..12),
            numbers in prop::collection::vec(0_u32..2_000_000_000, 4),
            texts in prop::collection::vec("[a-z;'-]{0,5}", 4),
        ) {
            let shapes = Shapes::new(1 << 20);
            for round in 0..4 {
                let of = |piece: &String| match piece.as_bytes() {
                    [b'0'..=b'9', ..] => numbers[round].to_string(),
                    [b'\'', .., b'\''] => format!("'{}'", texts[round]),
                    _ => piece.clone(),
                };
                let sql: String = pieces.iter().map(of).collect();
                let read = shapes.read(&sql, SETTINGS);
                let first = Reading::new(&sql, SETTINGS, analyze(&sql, SETTINGS));
                prop_assert_eq!(&read, &first, "{}", sql);
                prop_assert_eq!(read.view(super::super::Withhold::Secrets), first.view(super::super::Withhold::Secrets));
                prop_assert_eq!(read.may_change_encoding(), first.may_change_encoding());
            }
        }
    }
}
