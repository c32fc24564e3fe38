//! JSON texts, masked as they pass: fields by their path, and patterns in every string, key and
//! number, whatever escapes they are written with.
//!
//! The grammar is RFC 8259's, and several documents may follow each other (JSON Lines). Strings are
//! put in the place of strings; what else a mask names becomes null. What is not masked passes as
//! it was written. However the text is cut, the same comes out.

mod number;

use std::sync::Arc;

use bytes::Bytes;

use number::{is_number, plain};

use super::action::Action;
use super::counts::{Counts, PATTERNS, count};
use super::plain_text::plain_text;
use super::plan::{MaskPlan, Masked};
use super::scanner::{HashKey, Masker};
use super::value::whole_value;

/// The largest string or number, in bytes: it is looked at whole.
const MAX_VALUE: usize = 1 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 128;
/// The longest path of keys, in bytes together.
const MAX_PATH: usize = 64 << 10;

/// Why a text cannot be masked: then it must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMasked {
    /// It is not written as it says.
    #[error("{}", self.words())]
    Malformed,
    /// A value is larger than what is held.
    #[error("{}", self.words())]
    TooLarge,
    /// It nests too deep.
    #[error("{}", self.words())]
    TooDeep,
    /// It is no text.
    #[error("{}", self.words())]
    Binary,
    /// It holds the name of a masked field, in a grammar that is not read.
    #[error("{}", self.words())]
    NamesField,
    /// A pattern matches behind escapes.
    #[error("{}", self.words())]
    Escaped,
}

impl NotMasked {
    /// The reason, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Malformed => "it is not in the format that its content type names",
            Self::TooLarge => "a value in it is too large to be masked",
            Self::TooDeep => "it nests too deep to be masked",
            Self::Binary => "it is no text, so nothing in it can be masked",
            Self::NamesField => {
                "it holds the name of a masked field in a format in which fields cannot be masked"
            }
            Self::Escaped => {
                "it holds a value to be masked in escapes, in a format that is not read"
            }
        }
    }
}

/// Masks JSON that comes in chunks.
#[derive(Debug)]
pub struct Documents {
    plan: Arc<MaskPlan>,
    expected: Expected,
    levels: Vec<Level>,
    /// The keys that lead to where the text is.
    path: Vec<String>,
    path_length: usize,
    /// The string or number that has not ended.
    token: Vec<u8>,
    within: Within,
    /// For the client, and for storage where that sees something else.
    shown: Eye,
    stored: Option<Eye>,
    /// What was masked in what is stored, since it was told.
    counts: Counts,
}

/// What may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A value: the first of a list may be its end instead.
    Value {
        first: bool,
    },
    /// A key: the first of an object may be its end instead.
    Key {
        first: bool,
    },
    Colon,
    CommaOrEnd,
    /// Outside of any document.
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    String {
        escaped: bool,
    },
    /// A number, true, false or null.
    Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    List,
    Object,
}

/// What one pair of eyes gets.
#[derive(Debug)]
struct Eye {
    masker: Option<Arc<Masker>>,
    out: Vec<u8>,
    /// A list or object is left out that began at this depth.
    hidden: Option<usize>,
}

impl Eye {
    fn new(masker: Option<&Arc<Masker>>) -> Self {
        Self { masker: masker.cloned(), out: Vec::new(), hidden: None }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.hidden.is_none() {
            self.out.extend_from_slice(bytes);
        }
    }

    fn taken(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }
}

impl Documents {
    /// At the beginning of a text.
    pub fn new(plan: &Arc<MaskPlan>) -> Self {
        let [shown, stored] = plan.maskers();
        let differ = plan.masks().iter().any(|applied| applied.lifted);
        Self {
            plan: Arc::clone(plan),
            expected: Expected::Document,
            levels: Vec::new(),
            path: Vec::new(),
            path_length: 0,
            token: Vec::new(),
            within: Within::Nothing,
            shown: Eye::new(shown),
            stored: differ.then(|| Eye::new(stored)),
            counts: Counts::new(),
        }
    }

    /// Takes the next chunk, and gives what can be given of it.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Masked, NotMasked> {
        let mut rest = chunk;
        while let Some((byte, behind)) = rest.split_first() {
            rest = match self.within {
                Within::String { escaped } => self.string(escaped, rest)?,
                Within::Word if !is_end_of_word(*byte) => {
                    self.hold(std::slice::from_ref(byte))?;
                    behind
                }
                Within::Word => {
                    self.end_word()?;
                    rest
                }
                Within::Nothing => {
                    self.between(*byte)?;
                    behind
                }
            };
        }
        Ok(self.taken())
    }

    /// Gives the rest, if the text is whole.
    pub fn finish(&mut self) -> Result<Masked, NotMasked> {
        if self.within == Within::Word {
            self.end_word()?;
        }
        if self.within != Within::Nothing || self.expected != Expected::Document {
            return Err(NotMasked::Malformed);
        }
        Ok(self.taken())
    }

    fn taken(&mut self) -> Masked {
        let shown = self.shown.taken();
        let stored = self.stored.as_mut().map_or_else(|| shown.clone(), Eye::taken);
        Masked::by_value(shown, stored).counted(&std::mem::take(&mut self.counts))
    }

    /// Counts a value that begins here, if masks name it and nothing around it is hidden already.
    fn count_named(&mut self, [_, stored]: [Option<Action>; 2]) {
        let eye = self.stored.as_ref().unwrap_or(&self.shown);
        if stored.is_some() && eye.hidden.is_none() {
            let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
            self.plan.count_field(&path, &mut self.counts);
        }
    }

    /// For the client's eyes, then for those of storage: what is counted last counts.
    fn each_eye(&mut self, mut each: impl FnMut(usize, &mut Eye)) {
        each(0, &mut self.shown);
        if let Some(stored) = &mut self.stored {
            each(1, stored);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.each_eye(|_, eye| eye.write(bytes));
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), NotMasked> {
        if self.token.len() + bytes.len() > MAX_VALUE {
            return Err(NotMasked::TooLarge);
        }
        self.token.extend_from_slice(bytes);
        Ok(())
    }

    /// A byte that is in no string, number or word.
    fn between(&mut self, byte: u8) -> Result<(), NotMasked> {
        let value = matches!(self.expected, Expected::Value { .. } | Expected::Document);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            // JSON text sequences (RFC 7464) begin each document so.
            0x1e if self.expected == Expected::Document => {}
            b'"' if value || matches!(self.expected, Expected::Key { .. }) => {
                self.within = Within::String { escaped: false };
                return self.hold(b"\"");
            }
            b'{' if value => return self.begin(Level::Object, byte),
            b'[' if value => return self.begin(Level::List, byte),
            b'}' => return self.end(Level::Object, byte),
            b']' => return self.end(Level::List, byte),
            b',' if self.expected == Expected::CommaOrEnd => {
                self.expected = match self.levels.last() {
                    Some(Level::Object) => Expected::Key { first: false },
                    _ => Expected::Value { first: false },
                };
            }
            b':' if self.expected == Expected::Colon => {
                self.expected = Expected::Value { first: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' if value => {
                self.within = Within::Word;
                return self.hold(&[byte]);
            }
            _ => return Err(NotMasked::Malformed),
        }
        self.write(&[byte]);
        Ok(())
    }

    fn begin(&mut self, level: Level, byte: u8) -> Result<(), NotMasked> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(NotMasked::TooDeep);
        }
        let (actions, depth) = (self.actions(), self.levels.len());
        self.count_named(actions);
        self.each_eye(|at, eye| match actions.get(at).copied().flatten() {
            Some(_) if eye.hidden.is_none() => {
                eye.write(b"null");
                eye.hidden = Some(depth);
            }
            _ => eye.write(&[byte]),
        });
        self.levels.push(level);
        self.expected = match level {
            Level::Object => Expected::Key { first: true },
            Level::List => Expected::Value { first: true },
        };
        Ok(())
    }

    fn end(&mut self, level: Level, byte: u8) -> Result<(), NotMasked> {
        let may = match level {
            Level::Object => self.expected == Expected::Key { first: true },
            Level::List => self.expected == Expected::Value { first: true },
        } || self.expected == Expected::CommaOrEnd;
        if !may || self.levels.pop() != Some(level) {
            return Err(NotMasked::Malformed);
        }
        let depth = self.levels.len();
        self.each_eye(|_, eye| match eye.hidden {
            Some(began) if began == depth => eye.hidden = None,
            _ => eye.write(&[byte]),
        });
        self.value_ended();
        Ok(())
    }

    /// A value is over: the key that led to it leads nowhere any more.
    fn value_ended(&mut self) {
        self.expected = match self.levels.last() {
            None => Expected::Document,
            Some(level) => {
                if *level == Level::Object
                    && let Some(key) = self.path.pop()
                {
                    self.path_length -= key.len();
                }
                Expected::CommaOrEnd
            }
        };
    }

    /// What is done with a value that begins here.
    fn actions(&self) -> [Option<Action>; 2] {
        if !self.plan.masks_fields() {
            return [None, None];
        }
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.plan.field(&path)
    }

    /// Bytes of a string; gives what stands behind it.
    fn string<'a>(&mut self, escaped: bool, bytes: &'a [u8]) -> Result<&'a [u8], NotMasked> {
        if escaped {
            let (byte, rest) = bytes.split_at_checked(1).unwrap_or((bytes, &[]));
            self.hold(byte)?;
            self.within = Within::String { escaped: false };
            return Ok(rest);
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let length = end.map_or(bytes.len(), |end| end + 1);
        let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        self.hold(part)?;
        match part.last() {
            Some(b'"') => self.end_string()?,
            Some(b'\\') => self.within = Within::String { escaped: true },
            _ => {}
        }
        Ok(rest)
    }

    fn end_string(&mut self) -> Result<(), NotMasked> {
        let raw = std::mem::take(&mut self.token);
        self.within = Within::Nothing;
        let text: String = serde_json::from_slice(&raw).map_err(|_| NotMasked::Malformed)?;
        let is_key = matches!(self.expected, Expected::Key { .. });
        let actions = if is_key { [None, None] } else { self.actions() };
        self.count_named(actions);
        let key = self.plan.key().cloned();
        let mut found = 0;
        self.each_eye(|at, eye| {
            found = 0;
            let action = actions.get(at).copied().flatten();
            if eye.hidden.is_none() {
                match masked_string(&text, action, eye.masker.as_ref(), key.as_ref()) {
                    Some((masked, secrets)) => {
                        found = secrets;
                        eye.write(&masked);
                    }
                    None => eye.write(&raw),
                }
            }
        });
        count(&mut self.counts, PATTERNS, found);
        if is_key {
            self.path_length += text.len();
            if self.path_length > MAX_PATH {
                return Err(NotMasked::TooLarge);
            }
            self.path.push(text);
            self.expected = Expected::Colon;
        } else {
            self.value_ended();
        }
        self.reuse(raw);
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), NotMasked> {
        let raw = std::mem::take(&mut self.token);
        self.within = Within::Nothing;
        if !matches!(&*raw, b"true" | b"false" | b"null") && !is_number(&raw) {
            return Err(NotMasked::Malformed);
        }
        let actions = self.actions();
        self.count_named(actions);
        let mut found = 0;
        self.each_eye(|at, eye| {
            found = 0;
            let named = actions.get(at).copied().flatten().is_some();
            if let (None, false, Some(masker)) = (eye.hidden, named, &eye.masker) {
                let masked = masker.find(&raw).or_else(|| masker.find(&plain(&raw)?));
                found = masked.map_or(0, |(_, found)| found);
            }
            eye.write(if named || found > 0 { b"null" } else { &raw });
        });
        count(&mut self.counts, PATTERNS, found);
        self.value_ended();
        self.reuse(raw);
        Ok(())
    }

    /// Keeps the room of a token for the next one.
    fn reuse(&mut self, mut token: Vec<u8>) {
        token.clear();
        self.token = token;
    }
}

/// What stands in a string's place, and how many secrets patterns found in it; `None` when it stays.
fn masked_string(
    text: &str,
    action: Option<Action>,
    masker: Option<&Arc<Masker>>,
    key: Option<&HashKey>,
) -> Option<(Vec<u8>, u64)> {
    let (masked, found) = match (action, key) {
        (Some(action), Some(key)) => match whole_value(action, text.as_bytes(), key) {
            Some(masked) => (masked, 0),
            None => return Some((b"null".to_vec(), 0)),
        },
        // A plan without a key has no masks.
        (Some(_), None) => return Some((b"null".to_vec(), 0)),
        (None, _) => masker?.find(text.as_bytes())?,
    };
    let masked = String::from_utf8_lossy(&masked).into_owned();
    Some((serde_json::Value::from(masked).to_string().into_bytes(), found))
}

/// Masks what patterns find in a JSON document, value by value; `None` when nothing is found. A
/// document that cannot be read becomes a string.
pub fn patterns_in_json(masker: &Arc<Masker>, text: &[u8]) -> Option<Vec<u8>> {
    // As it is written it shows all that its values hold, unless they are written otherwise.
    let otherwise = text.contains(&b'\\') || text.windows(3).any(is_exponent);
    if !otherwise && masker.is_built_in() && masker.find(text).is_none() {
        return None;
    }
    let mut documents = Documents::new(&Arc::new(MaskPlan::of_patterns(masker)));
    let masked = documents.push(text).and_then(|first| Ok(first.joined(&documents.finish()?)));
    match masked {
        Ok(masked) => (masked.shown() != text).then(|| masked.into_shown().into()),
        Err(_) => Some(serde_json::Value::from(super::value::REDACTED).to_string().into_bytes()),
    }
}

/// Whether a number that is longer than it looks is written so: `4.1e15`.
fn is_exponent(three: &[u8]) -> bool {
    matches!(three, [b'0'..=b'9' | b'.', b'e' | b'E', b'0'..=b'9' | b'+'])
}

fn is_end_of_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' | b':' | b'"' | 0x1e)
}

/// Masks one whole text that may be JSON: by its fields if it is, by patterns if not. One that
/// is neither, but could hold fields or is no text, is left out.
pub fn document(plan: &Arc<MaskPlan>, text: &Bytes) -> Masked {
    // A byte order mark says nothing in UTF-8; readers of JSON pass over it.
    let text = &text.slice(if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }..);
    let nothing = || {
        let nothing = Bytes::from_static(super::value::REDACTED.as_bytes());
        Masked::by_value(nothing.clone(), nothing)
    };
    let mut documents = Documents::new(plan);
    let masked = documents.push(text).and_then(|first| Ok((first, documents.finish()?)));
    match masked {
        Ok((first, rest)) => first.joined(&rest),
        Err(NotMasked::Malformed) if !plan.masks_fields() || !text.contains(&b'"') => {
            plain_text(plan, text).unwrap_or_else(|_| nothing())
        }
        Err(_) => nothing(),
    }
}

#[cfg(test)]
mod tests;
