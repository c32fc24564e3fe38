//! What secrets look like in text: expressions that find candidates, and checks that tell them from
//! what only looks alike.
//!
//! Patterns find what stands in one piece. What is spelled backwards, encoded, or cut into two
//! values is not found: that is what masks of columns are for.

use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::growing::Growing;
use built_in::BUILT_IN;

mod built_in;

/// A kind of secret. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub(super) name: Arc<str>,
    pub(super) regex: Regex,
    pub(super) growing: Growing,
    /// The most bytes that the expression matches, with what the check looks at after them.
    pub(super) longest: usize,
    /// How far the check looks at what is before a match, in bytes.
    pub(super) behind: usize,
    /// The bytes that a match begins with, and those that it is made of.
    pub(super) first: fn(u8) -> bool,
    pub(super) inner: fn(u8) -> bool,
    pub(super) check: Check,
    /// The bytes that go on with the secret after the match, however many.
    pub(super) tail: Option<fn(u8) -> bool>,
    pub(super) partial: Partial,
    /// A match is digits, at least so many, and what separates them; none begins behind a digit.
    pub(super) digits: Option<usize>,
    /// It is the operator's.
    pub(super) own: bool,
}

/// Looks at a candidate and its neighbours, and gives the part of it that is secret.
type Check = fn(&Candidate<'_>) -> Option<Range<usize>>;

/// What an expression matched, and the text around it.
#[derive(Debug)]
pub(super) struct Candidate<'t> {
    /// At most [`BEHIND`] bytes.
    pub(super) before: &'t [u8],
    pub(super) found: &'t [u8],
    /// At most [`AHEAD`] bytes.
    pub(super) after: &'t [u8],
    /// What was found, and what is after it.
    rest: &'t [u8],
}

/// How much of the text before a match a check sees.
pub(super) const BEHIND: usize = 64;
/// How much of the text after it.
pub(super) const AHEAD: usize = 64;

impl<'t> Candidate<'t> {
    pub(super) fn of(text: &'t [u8], found: Range<usize>) -> Self {
        let before = found.start.saturating_sub(BEHIND)..found.start;
        let end = text.len().min(found.end + AHEAD);
        let (after, rest) = (found.end..end, found.start..end);
        Self {
            before: text.get(before).unwrap_or_default(),
            found: text.get(found).unwrap_or_default(),
            after: text.get(after).unwrap_or_default(),
            rest: text.get(rest).unwrap_or_default(),
        }
    }

    /// Whether one of these words announces it, in any case: `ssn: `, `"phone_number": "`. They are
    /// in lower case.
    pub(super) fn is_announced(&self, words: &[&str]) -> bool {
        const SEPARATORS: usize = 8;
        const BETWEEN: &[&[u8]] = &[b"number", b"nummer", b"num", b"no", b"nr", b"is"];
        // What a mask is called announces nothing.
        let separates = |byte: &&u8| !byte.is_ascii_alphanumeric() && !b"\n]".contains(byte);
        let strip = |text: &'t [u8], most| {
            let length = text.iter().rev().take(most).take_while(separates).count();
            text.split_at_checked(text.len() - length).unwrap_or_default().0
        };
        let mut text = strip(self.before, SEPARATORS);
        for _ in 0..2 {
            let between = BETWEEN.iter().find_map(|word| strip_word(text, word));
            text = between.map_or(text, |text| strip(text, 2));
        }
        words.iter().any(|word| strip_word(text, word.as_bytes()).is_some())
    }

    /// All of it is secret.
    fn all(&self) -> Range<usize> {
        0..self.found.len()
    }

    /// What follows a place in what was found.
    pub(super) fn behind(&self, end: usize) -> &'t [u8] {
        self.rest.get(end..).unwrap_or_default()
    }

    /// Whether it is the first of a line, as numbers in listings are.
    pub(super) fn begins_line(&self) -> bool {
        let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t');
        self.before.iter().rev().find(|byte| !blank(byte)).is_none_or(|byte| *byte == b'\n')
    }

    /// Whether it begins within a word. The letter of an escape (`\n`) ends one.
    #[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
    pub(super) fn begins_in_word(&self) -> bool {
        match self.before {
            [.., b'\\', b'n' | b'r' | b't'] => false,
            [.., byte] => byte.is_ascii_alphanumeric(),
            [] => false,
        }
    }
}

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
            growing: Growing::new(&built_in.growing(), false, MAX_COMPILED),
            longest: built_in.longest,
            behind: built_in.behind,
            first: built_in.first,
            inner: built_in.inner,
            check: built_in.check,
            tail: built_in.tail,
            partial: built_in.partial,
            digits: built_in.digits,
            own: false,
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
            behind: 0,
            first: |_| true,
            inner: |_| true,
            check: |candidate| Some(candidate.all()),
            tail: None,
            partial: Partial::Nothing,
            digits: None,
            own: true,
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

/// A text without the word that it ends with: one of its own, or the last of `camelCase`. After
/// `number` and `nr` another may be joined (`Telefonnummer`).
fn strip_word<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let (rest, end) = text.split_at_checked(text.len().checked_sub(word.len())?)?;
    let camel = end.first().is_some_and(u8::is_ascii_uppercase)
        && rest.last().is_some_and(u8::is_ascii_lowercase);
    let joined = matches!(word, b"number" | b"nummer");
    let own = joined || camel || !rest.last().is_some_and(u8::is_ascii_alphanumeric);
    (own && end.eq_ignore_ascii_case(word)).then_some(rest)
}
