//! What secrets look like in text: expressions that find candidates, and checks that tell them from
//! what only looks alike.
//!
//! Patterns find what stands in one piece. What is spelled backwards, encoded, or cut into two
//! values is not found: that is what masks of columns are for.

use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::growing::Growing;
use super::numbers;

/// A kind of secret. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub(super) name: Arc<str>,
    pub(super) regex: Regex,
    pub(super) growing: Growing,
    /// The most bytes that the expression matches.
    pub(super) longest: usize,
    /// The bytes that a match begins with, and those that it is made of.
    pub(super) first: fn(u8) -> bool,
    pub(super) inner: fn(u8) -> bool,
    pub(super) check: Check,
    /// The bytes that go on with the secret after the match, however many.
    pub(super) tail: Option<fn(u8) -> bool>,
    pub(super) partial: Partial,
}

/// Looks at a candidate between its neighbours, and gives the part of it that is secret.
type Check = fn(Option<u8>, &[u8], Option<u8>) -> Option<Range<usize>>;

/// What `partial` leaves to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial {
    Nothing,
    /// The last four digits, and separators.
    LastFour,
    /// The first and the last four.
    Ends,
    /// The first character and the domain.
    Domain,
}

/// A pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternMistake {
    /// There is none of that name.
    #[error("there is no pattern of that name; there are {}", Pattern::names().collect::<Vec<_>>().join(", "))]
    Unknown,
    /// Its expression is wrong.
    #[error("not a regular expression: {0}")]
    Expression(String),
    /// Its matches may be as long as they like, so they could not be found across chunks.
    #[error(
        "its matches may be longer than {MAX_OWN} bytes: say how long, with {{1,64}} instead of + or *"
    )]
    Unbounded,
    /// It matches the empty text.
    #[error("it matches nothing at all, the empty text")]
    Empty,
}

/// The most bytes that a pattern of one's own may match.
const MAX_OWN: usize = 1024;
/// The memory that one expression may take.
const MAX_COMPILED: usize = 4 << 20;

struct BuiltIn {
    name: &'static str,
    regex: &'static str,
    longest: usize,
    first: fn(u8) -> bool,
    inner: fn(u8) -> bool,
    check: Check,
    tail: Option<fn(u8) -> bool>,
    partial: Partial,
}

const TOKEN: BuiltIn = BuiltIn {
    name: "",
    regex: "",
    longest: 0,
    first: |byte| byte.is_ascii_alphabetic(),
    inner: word,
    check: begins_word,
    tail: None,
    partial: Partial::Nothing,
};

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "credit-card",
        regex: r"[0-9](?:[ -]?[0-9]){12,18}",
        longest: 37,
        first: |byte| byte.is_ascii_digit(),
        inner: |byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-'),
        check: numbers::credit_card,
        partial: Partial::LastFour,
        ..TOKEN
    },
    BuiltIn {
        name: "iban",
        regex: r"(?i)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}",
        longest: 64,
        inner: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-'),
        check: numbers::iban,
        partial: Partial::Ends,
        ..TOKEN
    },
    BuiltIn {
        name: "us-ssn",
        regex: r"[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}",
        longest: 11,
        first: |byte| byte.is_ascii_digit(),
        inner: |byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-'),
        check: numbers::us_ssn,
        partial: Partial::LastFour,
        ..TOKEN
    },
    BuiltIn {
        name: "phone",
        regex: r"\+[0-9](?:[ ().-]{0,2}[0-9]){6,14}|\(?[2-9][0-9]{2}\)?[ .-]{1,2}[2-9][0-9]{2}[ .-][0-9]{4}",
        longest: 48,
        first: |byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'('),
        inner: |byte| byte.is_ascii_digit() || b"+(). -".contains(&byte),
        check: numbers::phone,
        partial: Partial::LastFour,
        ..TOKEN
    },
    BuiltIn {
        name: "email",
        regex: r"[A-Za-z0-9._%+'\x80-\xff-]{1,128}@(?:[A-Za-z0-9\x80-\xff-]{1,63}\.){1,8}[A-Za-z\x80-\xff]{2,24}",
        longest: 128 + 1 + 8 * 64 + 24,
        first: |byte| byte.is_ascii_alphanumeric() || byte > 0x7f || b"._%+'-".contains(&byte),
        inner: |byte| byte.is_ascii_alphanumeric() || byte > 0x7f || b"@._%+'-".contains(&byte),
        check: |_, found, _| Some(0..found.len()),
        partial: Partial::Domain,
        ..TOKEN
    },
    BuiltIn {
        name: "jwt",
        regex: r"eyJ[A-Za-z0-9_-]{10,2000}\.",
        longest: 2004,
        tail: Some(|byte| word(byte) || byte == b'.'),
        inner: |byte| word(byte) || byte == b'.',
        check: |before, found, _| (!before.is_some_and(word)).then_some(0..found.len()),
        first: |byte| byte == b'e',
        ..TOKEN
    },
    BuiltIn {
        name: "private-key",
        // What stands before the key's own letters in old encrypted ones comes with the start.
        regex: r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:[ \t\r\n]|\\[nr]){1,4}(?:Proc-Type|DEK-Info): ?[A-Z0-9a-z,-]{1,80}){0,2}",
        longest: 300,
        first: |byte| byte == b'-',
        inner: |byte| {
            byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"-:,\\".contains(&byte)
        },
        tail: Some(|byte| {
            byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=\\:".contains(&byte)
        }),
        check: |_, found, _| Some(0..found.len()),
        ..TOKEN
    },
    BuiltIn {
        name: "url-password",
        regex: r#"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@'"<>]{0,128}:[^\s/@'"<>]{1,256}@"#,
        longest: 21 + 3 + 128 + 1 + 256 + 1,
        inner: |byte| !byte.is_ascii_whitespace() && !b"'\"<>".contains(&byte),
        check: |_, found, _| url_password(found),
        ..TOKEN
    },
    BuiltIn {
        name: "aws-access-key",
        regex: r"(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z2-7]{16}",
        longest: 20,
        first: |byte| byte == b'A',
        ..TOKEN
    },
    BuiltIn {
        name: "google-api-key",
        regex: r"AIza[0-9A-Za-z_-]{35}",
        longest: 39,
        first: |byte| byte == b'A',
        ..TOKEN
    },
    BuiltIn {
        name: "github-token",
        regex: r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{22,255}",
        longest: 266,
        first: |byte| byte == b'g',
        ..TOKEN
    },
    BuiltIn {
        name: "gitlab-token",
        regex: r"glpat-[A-Za-z0-9_-]{20,64}",
        longest: 70,
        first: |byte| byte == b'g',
        ..TOKEN
    },
    BuiltIn {
        name: "slack-token",
        regex: r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
        longest: 255,
        first: |byte| byte == b'x',
        ..TOKEN
    },
    BuiltIn {
        name: "stripe-key",
        regex: r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{16,128}",
        longest: 136,
        first: |byte| matches!(byte, b's' | b'r'),
        ..TOKEN
    },
    BuiltIn {
        name: "ai-api-key",
        regex: r"sk-[A-Za-z0-9_-]{20,200}",
        longest: 203,
        first: |byte| byte == b's',
        ..TOKEN
    },
];

impl Pattern {
    /// The names of the built-in patterns.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|built_in| built_in.name)
    }

    /// A built-in pattern.
    pub fn built_in(name: &str) -> Result<Self, PatternMistake> {
        let found = BUILT_IN.iter().find(|built_in| built_in.name == name);
        let built_in = found.ok_or(PatternMistake::Unknown)?;
        Ok(Self {
            name: built_in.name.into(),
            regex: compiled(built_in.regex, false)?,
            growing: Growing::new(built_in.regex, false, MAX_COMPILED),
            longest: built_in.longest,
            first: built_in.first,
            inner: built_in.inner,
            check: built_in.check,
            tail: built_in.tail,
            partial: built_in.partial,
        })
    }

    /// A pattern of the operator's own: all that matches is secret. Its matches must be bounded,
    /// or they could not be found in a stream.
    pub fn own(name: &str, expression: &str) -> Result<Self, PatternMistake> {
        let regex = compiled(expression, true)?;
        let parsed = regex_syntax::ParserBuilder::new().utf8(false).build().parse(expression);
        let parsed =
            parsed.map_err(|error| PatternMistake::Expression(in_short(&error.to_string())))?;
        let properties = parsed.properties();
        let longest = properties.maximum_len().filter(|longest| *longest <= MAX_OWN);
        if properties.minimum_len().is_none_or(|shortest| shortest == 0) {
            return Err(PatternMistake::Empty);
        }
        Ok(Self {
            name: name.into(),
            regex,
            growing: Growing::new(expression, true, MAX_COMPILED),
            longest: longest.ok_or(PatternMistake::Unbounded)?,
            first: |_| true,
            inner: |_| true,
            check: |_, found, _| Some(0..found.len()),
            tail: None,
            partial: Partial::Nothing,
        })
    }

    /// The pattern's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn compiled(expression: &str, unicode: bool) -> Result<Regex, PatternMistake> {
    RegexBuilder::new(expression)
        .unicode(unicode)
        .size_limit(MAX_COMPILED)
        .build()
        .map_err(|error| PatternMistake::Expression(in_short(&error.to_string())))
}

/// Without the picture of the expression that comes before.
fn in_short(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// A token that does not begin within a word.
fn begins_word(before: Option<u8>, found: &[u8], _after: Option<u8>) -> Option<Range<usize>> {
    let inside = before.is_some_and(|byte| byte.is_ascii_alphanumeric());
    (!inside).then_some(0..found.len())
}

/// The password of `scheme://user:password@`, unless it is masked.
fn url_password(found: &[u8]) -> Option<Range<usize>> {
    let authority = found.windows(3).position(|three| three == b"://")? + 3;
    let user = found.get(authority..)?.iter().position(|byte| *byte == b':')?;
    let password = authority + user + 1..found.len().checked_sub(1)?;
    let masked = super::scanner::is_mask(found.get(password.clone())?);
    (!masked).then_some(password)
}
