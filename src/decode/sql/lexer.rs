//! Where tokens begin and end, by the rules of PostgreSQL's `scan.l`, in one pass over the bytes.
//!
//! The grammar has a scanner of its own, and what a statement means is taken from the grammar
//! alone. This one exists because it is linear on any input, and can so say beforehand what a text
//! would cost the grammar, and because it finds literals also where the grammar finds a mistake.
//! Tests hold its strings and comments to the grammar's scanner, token by token.

use super::LexerSettings;

/// What a token is, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// A name in double quotes.
    QuotedName,
    /// `U&"…"`.
    UnicodeName,
    /// A string in single quotes, of whatever prefix, or in dollar quotes.
    String,
    /// `U&'…'`.
    UnicodeString,
    Number,
    /// `$1`.
    Parameter,
    Operator,
    Comment,
    /// A string, quoted name or comment that never ends.
    Unterminated,
    /// A parenthesis, a comma, and anything else of one byte.
    Byte(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn is_parameter(&self) -> bool {
        self.kind == Kind::Parameter
    }
}

/// Tokens of a text, comments included, white space left out.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    settings: LexerSettings,
    /// The end of the run of operator characters that `at` was last in.
    run_end: usize,
    signs: Signs,
    work: u64,
}

/// Operator characters up to the next comment or the end of their run.
#[derive(Debug, Default)]
struct Signs {
    end: usize,
    /// The end without the plus and minus signs there.
    trimmed: usize,
    /// The last character that SQL's own operators do not have.
    last_special: Option<usize>,
}

impl Signs {
    fn of(bytes: &[u8], start: usize, run_end: usize) -> Self {
        let run = bytes.get(start..run_end).unwrap_or_default();
        let comment = run.windows(2).position(|pair| pair == b"/*" || pair == b"--");
        let signs = run.get(..comment.unwrap_or(run.len())).unwrap_or_default();
        let last = |is: fn(u8) -> bool| signs.iter().rposition(|b| is(*b)).map(|at| start + at);
        Self {
            end: start + signs.len(),
            trimmed: last(|b| !matches!(b, b'+' | b'-')).map_or(start, |at| at + 1),
            last_special: last(|b| b"~!@#^&|`?%".contains(&b)),
        }
    }
}

/// How a string in single quotes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, settings: LexerSettings) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            settings,
            run_end: 0,
            signs: Signs::default(),
            work: 0,
        }
    }

    /// Bytes that the grammar's scanner looks at more than once so far: it reads a whole run of
    /// operator characters for each operator and comment in the run, and the whole rest of the
    /// text (fast) for each token with Unicode escapes.
    pub(super) fn work(&self) -> u64 {
        self.work
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at.saturating_add(ahead)).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        self.at = self.after(self.at, is_space);
    }

    /// The first position from `from` whose byte is none of `of`.
    fn after(&self, from: usize, of: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        from + rest.iter().position(|b| !of(*b)).unwrap_or(rest.len())
    }

    /// The kind of the token at `at`, which moves behind it.
    fn token(&mut self) -> Kind {
        match (self.byte(0), self.byte(1)) {
            (b'-', b'-') => {
                self.at = self.after(self.at, |b| !is_newline(b));
                Kind::Comment
            }
            (b'/', b'*') => self.block_comment(),
            (b'\'', _) => {
                let plain = self.settings.standard_conforming_strings;
                self.string(1, if plain { Escapes::None } else { Escapes::Backslash })
            }
            (b'"', _) => self.quoted_name(1, Kind::QuotedName),
            (b'$', _) => self.dollar(),
            (b'.', b'0'..=b'9') | (b'0'..=b'9', _) => self.number(),
            (b'e' | b'E', b'\'') => self.string(2, Escapes::Backslash),
            // A national string is the word NCHAR and a string.
            (b'b' | b'B' | b'x' | b'X', b'\'') => self.string(2, Escapes::None),
            (b'u' | b'U', b'&') => self.unicode(),
            (first, _) if is_name_start(first) => self.word(),
            (first, _) if is_operator(first) => self.operator(),
            (first, _) => {
                self.at += 1;
                Kind::Byte(first)
            }
        }
    }

    fn word(&mut self) -> Kind {
        self.at = self.after(self.at, |b| is_name_start(b) || b.is_ascii_digit() || b == b'$');
        Kind::Word
    }

    fn unicode(&mut self) -> Kind {
        // Sixteen bytes at once is what finding a text's length manages.
        let rest = self.bytes.len().saturating_sub(self.at) / 16;
        match self.byte(2) {
            b'\'' => {
                self.work += rest as u64;
                match self.string(3, Escapes::None) {
                    Kind::String => Kind::UnicodeString,
                    other => other,
                }
            }
            b'"' => {
                self.work += rest as u64;
                self.quoted_name(3, Kind::UnicodeName)
            }
            _ => self.word(),
        }
    }

    /// Unicode names and plain ones end alike.
    fn quoted_name(&mut self, prefix: usize, kind: Kind) -> Kind {
        self.at += prefix;
        loop {
            self.at = self.after(self.at, |b| b != b'"');
            match (self.byte(0), self.byte(1)) {
                (b'"', b'"') => self.at += 2,
                (b'"', _) => {
                    self.at += 1;
                    return kind;
                }
                _ => return Kind::Unterminated,
            }
        }
    }

    fn string(&mut self, prefix: usize, escapes: Escapes) -> Kind {
        self.at += prefix;
        loop {
            self.at = self
                .after(self.at, |b| b != b'\'' && !(b == b'\\' && escapes == Escapes::Backslash));
            match (self.byte(0), self.byte(1)) {
                _ if self.at >= self.bytes.len() => return Kind::Unterminated,
                (b'\\', _) => self.at = self.bytes.len().min(self.at + 2),
                (_, b'\'') => self.at += 2,
                _ => {
                    self.at += 1;
                    match self.continuation() {
                        Some(opened) => self.at = opened,
                        None => return Kind::String,
                    }
                }
            }
        }
    }

    /// A string goes on after a closing quote when only white space with a newline in it, line
    /// comments included, comes before the next quote: the position behind that quote.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut newline = false;
        loop {
            match (self.bytes.get(at)?, self.bytes.get(at + 1)) {
                (b'\'', _) if newline => return Some(at + 1),
                (b'-', Some(b'-')) => at = self.after(at, |b| !is_newline(b)),
                (byte, _) if is_space(*byte) => {
                    newline |= is_newline(*byte);
                    at += 1;
                }
                _ => return None,
            }
        }
    }

    fn dollar(&mut self) -> Kind {
        let tag = self.at + 1;
        if self.byte(1).is_ascii_digit() {
            self.at = self.after(tag, |b| b.is_ascii_digit());
            return Kind::Parameter;
        }
        let close = match self.byte(1) {
            first if is_name_start(first) => {
                self.after(tag, |b| is_name_start(b) || b.is_ascii_digit())
            }
            _ => tag,
        };
        if self.bytes.get(close) != Some(&b'$') {
            self.at = tag;
            return Kind::Byte(b'$');
        }
        let opening = self.bytes.get(self.at..=close).unwrap_or_default();
        let mut from = close + 1;
        loop {
            from = self.after(from, |b| b != b'$');
            let Some(rest) = self.bytes.get(from..).filter(|rest| !rest.is_empty()) else {
                self.at = self.bytes.len();
                return Kind::Unterminated;
            };
            if rest.starts_with(opening) {
                self.at = from + opening.len();
                return Kind::String;
            }
            from += 1;
        }
    }

    /// Digits with all that may stand in a number of any base; where a number ends and a mistake
    /// begins does not matter here.
    fn number(&mut self) -> Kind {
        loop {
            match (self.byte(0), self.byte(1)) {
                (b'.', b'.') => break,
                (b'e' | b'E', b'+' | b'-') if self.byte(2).is_ascii_digit() => self.at += 3,
                (b'.' | b'_', _) => self.at += 1,
                (byte, _) if byte.is_ascii_alphanumeric() => self.at += 1,
                _ => break,
            }
        }
        Kind::Number
    }

    /// Counts what the scanner looks at for one operator or comment: the run that it begins.
    fn look_at_run(&mut self) {
        if self.at >= self.run_end {
            self.run_end = self.after(self.at, is_operator);
        }
        self.work += (self.run_end - self.at) as u64;
    }

    /// An operator goes on to the next comment or the run's end; but plus and minus at its end are
    /// operators of their own, unless a character that SQL's operators do not have is in it.
    fn operator(&mut self) -> Kind {
        self.look_at_run();
        if self.at >= self.signs.end {
            self.signs = Signs::of(self.bytes, self.at, self.run_end);
        }
        let whole = self.signs.last_special.is_some_and(|special| special >= self.at);
        let end = if whole { self.signs.end } else { self.signs.trimmed };
        self.at = end.max(self.at + 1);
        Kind::Operator
    }

    fn block_comment(&mut self) -> Kind {
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'*') => {
                    self.look_at_run();
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return Kind::Comment;
                    }
                }
                _ => self.at += 1,
            }
        }
        Kind::Unterminated
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_space();
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let kind = self.token();
        Some(Token { kind, start, end: self.at })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Every byte of a character beyond ASCII counts as a letter.
fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use pg_query::protobuf::Token as Scanned;
    use proptest::prelude::*;

    use super::*;

    /// Strings and comments by the grammar's own scanner, or `None` where it finds a mistake.
    fn scanned(text: &str) -> Option<Vec<(usize, usize)>> {
        let scanned = pg_query::scan(text).ok()?;
        let place = |at: i32| usize::try_from(at).unwrap();
        let marked = scanned.tokens.iter().filter(|token| {
            use Scanned::{Bconst, CComment, Sconst, SqlComment, Uident, Usconst, Xconst};
            [Bconst, CComment, Sconst, SqlComment, Uident, Usconst, Xconst].contains(&token.token())
        });
        Some(marked.map(|token| (place(token.start), place(token.end))).collect())
    }

    fn lexed(text: &str) -> Vec<(usize, usize)> {
        Lexer::new(text, LexerSettings::default())
            .filter(|token| {
                use Kind::{Comment, String, UnicodeName, UnicodeString, Unterminated};
                [Comment, String, UnicodeName, UnicodeString, Unterminated].contains(&token.kind)
            })
            .map(|token| (token.start, token.end))
            .collect()
    }

    fn agrees(text: &str) {
        if let Some(scanned) = scanned(text) {
            assert_eq!(lexed(text), scanned, "{text:?}");
        }
    }

    #[test]
    fn strings_and_comments_are_those_of_the_grammars_scanner() {
        for text in [
            "a'b'c",
            "e'a\\'b' 'c'",
            "'a' -- x\n 'b'",
            "'a' /* */ 'b'",
            "'a'\n-- c\n'b'",
            "'a'--c",
            "n'x' b'1'\n'0' x'f'",
            "U&'a' U&\"b\" u&c",
            "$a$ $b$ $a$x$a$",
            "$1 $1$ $$",
            "a$b$c$b$",
            "+/*/**/*/-",
            "*/*c*/+",
            "@--c\n+-",
            "/*/*/ */ */ 'x'",
            "1.5e-7'a'",
            "1..2'a'",
            "'a''b'",
            "\"a'b\" 'c\"d'",
            "$ä$'$ä$",
            "-- a\r'b'",
            "<>-'a'",
            "\u{b}'a'",
            "'a'\u{b}\n'b'",
            "1e'a'",
        ] {
            agrees(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn so_they_are_in_any_text(text in r#"[ '"$\\/*\-\n\r+@<=.abeEuU&nx01_äß;]{0,30}"#) {
            agrees(&text);
        }
    }

    #[test]
    fn tokens_cover_a_text_in_order_and_in_linear_time() {
        for shape in ["+", "/*", "+-", "@-", "'a' ", "$a", "U&'", "--", "1.", "e'\\", "(,"] {
            let text = shape.repeat(200_000);
            let mut end = 0;
            for token in Lexer::new(&text, LexerSettings::default()) {
                assert!(end <= token.start && token.start < token.end, "{shape}");
                end = token.end;
            }
            assert!(end <= text.len());
        }
    }
}
